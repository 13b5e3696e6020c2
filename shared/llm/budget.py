"""A budget in requests, tokens and money, which no run passes.

The most that a request can use is set aside before it is sent, and replaced by what it has used
when it is answered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


class BudgetSpent(Exception):
    """The next request could pass a limit."""


@dataclass(frozen=True)
class Usage:
    """Requests, and tokens that were sent and received."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return self + Usage(-other.requests, -other.input_tokens, -other.output_tokens)

    @property
    def tokens(self) -> int:
        """Tokens in both directions."""
        return self.input_tokens + self.output_tokens


class Budget:
    """What may be used, what is set aside, and what was used.

    Parameters
    ----------
    requests, tokens : int, optional
        Limits (default: none).
    money : float, optional
        Limit in the currency of the prices (default: none).
    price_input, price_output : float
        Per million tokens.

    Attributes
    ----------
    used : Usage
    spent : bool
        Whether a request was not sent because it could have passed a limit.
    """

    def __init__(
        self,
        requests: int | None = None,
        tokens: int | None = None,
        money: float | None = None,
        *,
        price_input: float = 0.0,
        price_output: float = 0.0,
    ) -> None:
        self._limits = (requests, tokens, money)
        self._prices = (price_input, price_output)
        self._set_aside = Usage()
        self._changed = asyncio.Condition()
        self.used, self.spent = Usage(), False

    @property
    def cost(self) -> float:
        """What was used, in the currency of the prices."""
        return self._cost(self.used)

    async def reserve(self, most: Usage) -> None:
        """Set aside the most that a request can use; wait where running requests may leave room.

        Raises
        ------
        BudgetSpent
            If there is no room even without the running requests.
        """
        async with self._changed:
            while not self.spent and not self._allows(self.used + self._set_aside + most):
                self.spent = not self._set_aside.requests
                if not self.spent:
                    await self._changed.wait()
            if self.spent:
                self._changed.notify_all()
                raise BudgetSpent
            self._set_aside += most

    async def settle(self, most: Usage, used: Usage) -> None:
        """Replace what was set aside for a request by what it has used."""
        async with self._changed:
            self._set_aside -= most
            self.used += used
            self._changed.notify_all()

    def _allows(self, usage: Usage) -> bool:
        amounts = (usage.requests, usage.tokens, self._cost(usage))
        limits = zip(amounts, self._limits, strict=True)
        return all(limit is None or amount <= limit for amount, limit in limits)

    def _cost(self, usage: Usage) -> float:
        price_input, price_output = self._prices
        return (usage.input_tokens * price_input + usage.output_tokens * price_output) / 1e6
