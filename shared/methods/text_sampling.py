"""Texts that a language model writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.cli.arguments import flag
from shared.cli.launch import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class SamplingArguments:
    """Flags of recipes that let a language model write."""

    prompt: str = flag("", "How the samples begin (default: as a document does).")
    samples: int = flag(10, "Texts to write at the end (default: 10).", least=0, most=10_000)
    sample_length: int = flag(
        200, "Maximum number of tokens of a sample (default: 200).", least=1, most=1_000_000
    )
    temperature: float = flag(
        1.0,
        "Below 1, samples prefer likely tokens more; 0: always the most likely (default: 1).",
        least=0,
        most=1000,
    )
    top_k: int = flag(
        0, "Samples choose among so many most likely tokens; 0: all (default: 0).", least=0
    )
    top_p: float = flag(
        1.0,
        "Samples choose among the most likely tokens with this probability together (default: 1).",
        above=0,
        most=1,
    )


def sample_tokens(
    model: PreTrainedModel,
    start: list[int],
    args: SamplingArguments,
    *,
    window: int,
    end: int | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Return the tokens that a causal language model writes after the same start.

    ``model.generate`` writes until the window of the model is full. Then it goes on from the last
    half of the window, so that a text can be longer than what the model reads.

    Parameters
    ----------
    model : PreTrainedModel
        Its mode of training is left as it was.
    start : list of int
        At least one token.
    args : SamplingArguments
        Number and length of the texts, and how tokens are chosen. The prompt is not read; it is
        part of `start`.
    window : int
        Tokens that the model reads, at least two.
    end : int, optional
        The token that ends a text; it is not returned. None: a text has
        ``args.sample_length`` tokens.
    seed : int
        The same seed gives the same texts.

    Returns
    -------
    list of lists of int
        In the order in which they ended.
    """
    import torch
    from transformers import set_seed

    set_seed(seed)
    settings: dict[str, Any] = {
        "do_sample": args.temperature > 0,
        "eos_token_id": end,
        "pad_token_id": end or 0,
    }
    if args.temperature > 0:
        settings |= {name: getattr(args, name) for name in ("temperature", "top_k", "top_p")}
    was_training = model.training
    model.eval()
    length = len(start) + args.sample_length
    finished: list[list[int]] = []
    rows = torch.tensor([start] * args.samples, device=model.device)
    with progress_bar("writing", args.sample_length, unit="tokens") as bar:
        while len(rows) and rows.shape[1] < length:
            context = rows if rows.shape[1] < window else rows[:, -max(window // 2, 1) :]
            rest = length - rows.shape[1]
            n_new = min(window - context.shape[1], rest)
            new = model.generate(
                context,
                attention_mask=torch.ones_like(context),
                max_new_tokens=n_new,
                **settings,
            )[:, context.shape[1] :]
            bar.update(new.shape[1])
            rows = torch.cat([rows, new], dim=1)
            if end is not None:
                has_ended = (new == end).any(dim=1)
                finished += [_before(row[len(start) :], end) for row in rows[has_ended].tolist()]
                rows = rows[~has_ended]
    model.train(was_training)
    return finished + [row[len(start) :] for row in rows.tolist()]


def _before(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)]
