"""Flags of a server that is asked for labels: its address, what it is sent, what it may cost."""

from __future__ import annotations

from dataclasses import dataclass

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.llm.budget import Budget
from shared.llm.endpoint import check_endpoint


@dataclass
class EndpointArguments:
    """Flags that act with ``--endpoint`` only."""

    endpoint: str | None = flag(
        None,
        "Base URL of a server with the chat completions of OpenAI, local or hosted, such as "
        "http://127.0.0.1:8000/v1 (default: none; the model runs here).",
    )
    api_key_variable: str = flag(
        "OPENAI_API_KEY",
        "Environment variable with the key, which is sent to --endpoint; it may be unset (default: "
        "OPENAI_API_KEY).",
    )
    samples: int = flag(
        1,
        "Answers to each text. The share of those that give a label is its score, so that one "
        "answer gives no confidence but 1 (default: 1).",
        least=1,
        most=100,
    )
    temperature: float | None = flag(
        None, "Sampling temperature (default: 0; with several samples 0.7).", least=0, most=2
    )
    max_tokens: int = flag(
        256, "Tokens of an answer, with those that a model thinks in (default: 256).", least=1
    )
    attempts: int = flag(
        3, "Times that an answer is asked for until it is a valid one (default: 3).", least=1
    )
    concurrency: int = flag(8, "Requests at a time (default: 8).", least=1, most=1000)
    timeout: float = flag(60.0, "Seconds to wait for an answer (default: 60).", above=0)
    retries: int = flag(
        6, "Further attempts if the server is busy, fails or is late (default: 6).", least=0
    )
    budget_requests: int | None = flag(
        None, "Most requests of this run; the cache is free (default: no limit).", least=1
    )
    budget_tokens: int | None = flag(
        None, "Most tokens of this run, sent and received (default: no limit).", least=1
    )
    budget_money: float | None = flag(
        None,
        "Most money of this run, in the currency of --price_input and --price_output (default: no "
        "limit).",
        above=0,
    )
    price_input: float = flag(0.0, "Price of a million tokens sent (default: 0).", least=0)
    price_output: float = flag(0.0, "Price of a million tokens received (default: 0).", least=0)

    def __post_init__(self) -> None:
        if self.endpoint is not None:
            check_endpoint(self.endpoint)
        elif self.samples > 1 or self.temperature is not None:
            name = "samples" if self.samples > 1 else "temperature"
            raise UserError(
                f"--{name}: acts with --endpoint only; a model that runs here gives probabilities"
            )
        if self.budget_money is not None and not (self.price_input or self.price_output):
            raise UserError("--budget_money: needs --price_input and --price_output")
        if self.temperature is None:
            self.temperature = 0.0 if self.samples == 1 else 0.7
        elif self.temperature == 0 and self.samples > 1:
            raise UserError("--temperature 0: all --samples would be the same; use one, or 0.7")

    def budget(self) -> Budget:
        """Return the budget of a run."""
        return Budget(
            self.budget_requests,
            self.budget_tokens,
            self.budget_money,
            price_input=self.price_input,
            price_output=self.price_output,
        )
