"""How a model that reads a text and writes another one chooses its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.cli.arguments import flag


@dataclass
class GenerationArguments:
    """Flags of recipes that generate a text from another one."""

    num_beams: int | None = flag(
        None,
        "Texts that are continued side by side; the most likely one is the result. 1: greedy, the "
        "most likely token each time (default: 5; with --do_sample 1).",
        least=1,
        most=1000,
    )
    length_penalty: float = flag(
        1.0,
        "Beam search divides the log-likelihood of a text by its length to this power: above 1 "
        "prefers longer texts, below 1 shorter ones, 0 compares sums (default: 1).",
        least=-100,
        most=100,
    )
    no_repeat_ngram_size: int = flag(
        0, "No run of so many tokens is written twice; 0: any may (default: 0).", least=0, most=1000
    )
    do_sample: bool = flag(
        False, "Draw each token by its probability, with --seed (default: false)."
    )
    temperature: float = flag(
        1.0,
        "--do_sample: below 1, likely tokens are preferred more (default: 1).",
        above=0,
        most=1000,
    )
    top_k: int = flag(
        0, "--do_sample: choose among so many most likely tokens; 0: all (default: 0).", least=0
    )
    top_p: float = flag(
        1.0,
        "--do_sample: choose among the most likely tokens with this probability together "
        "(default: 1).",
        above=0,
        most=1,
    )


def generation_settings(args: GenerationArguments, max_new_tokens: int) -> dict[str, Any]:
    """Return the settings of ``generate`` that the flags stand for.

    Parameters
    ----------
    args : GenerationArguments
    max_new_tokens : int
        Maximum number of tokens of a text.
    """
    settings: dict[str, Any] = {
        "num_beams": args.num_beams or (1 if args.do_sample else 5),
        "max_new_tokens": max_new_tokens,
        "no_repeat_ngram_size": args.no_repeat_ngram_size,
        "do_sample": args.do_sample,
    }
    if settings["num_beams"] > 1:
        settings["length_penalty"] = args.length_penalty
    if args.do_sample:
        settings |= {name: getattr(args, name) for name in ("temperature", "top_k", "top_p")}
    return settings
