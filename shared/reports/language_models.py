"""What a recipe says of a language model: its figures, and how to use it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path


def likelihood_figures(
    nll: float, n_tokens: int, n_characters: int, *, n_measured: int | None = None, unknown: int = 0
) -> dict[str, float]:
    """Return the usual figures of a language model on a text.

    Parameters
    ----------
    nll : float
        Mean negative log-likelihood of a token, in nats.
    n_tokens, n_characters : int
        Tokens of the text that can be predicted, and its characters.
    n_measured : int, optional
        How many of the tokens `nll` is the mean of; default: all.
    unknown : int, default 0
        How many of the tokens stand for a piece of text that is not in the vocabulary.

    Returns
    -------
    dict
        ``nll``, ``perplexity`` (its exponential), ``tokens`` (those measured), ``all_tokens``,
        ``unknown_share`` and, if that is 0, ``bits_per_character``: a model that predicts an
        unknown token does not say which characters it hides.
    """
    figures = {
        "nll": nll,
        "perplexity": math.exp(min(nll, 700)),  # exp of more overflows a double
        "tokens": n_tokens if n_measured is None else n_measured,
        "all_tokens": n_tokens,
        "unknown_share": unknown / n_tokens,
    }
    if not unknown:
        figures["bits_per_character"] = nll * n_tokens / math.log(2) / n_characters
    return figures


def likelihood_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of `likelihood_figures`, a row for each part of the data, and notes below."""
    lines = [f"{'':<6}{'tokens':>13}{'nats per token':>16}{'perplexity':>13}{'bits per char':>15}"]
    lines += [
        f"{part:<6}{row['tokens']:>13,}{row['nll']:>16.4f}{row['perplexity']:>13,.3f}"
        + (f"{row['bits_per_character']:>15.4f}" if "bits_per_character" in row else f"{'-':>15}")
        for part, row in figures.items()
    ]
    for part, row in figures.items():
        if row["tokens"] < row["all_tokens"]:
            lines.append(f"{part}: {row['tokens']:,} of {row['all_tokens']:,} tokens are measured.")
    shares = {part: row["unknown_share"] for part, row in figures.items() if row["unknown_share"]}
    if shares:
        named = ", ".join(f"{part} {share:.3%}" for part, share in shares.items())
        lines.append(
            f"No bits per character where tokens are unknown ({named}): an unknown token hides "
            "characters, which are not predicted."
        )
    return "\n".join(lines)


def writer_usage(
    folder: Path, *, own_architecture: bool, start: str | None, max_new_tokens: int = 50
) -> str:
    """Return how to load a language model and let it write, as Markdown.

    Parameters
    ----------
    folder : Path
    own_architecture : bool
        Whether the model is of an architecture of this project. transformers then needs the code of
        the model, which lies in its folder.
    start : str, optional
        What a text begins with. None: the token between two texts, which ends them, too.
    max_new_tokens : int, default 50
        Tokens to write; with the start, no more than the model reads.
    """
    option, note = "", ""
    if own_architecture:
        option = ", trust_remote_code=True"
        note = (
            "\n\n`trust_remote_code=True` lets transformers run the Python file in this folder, "
            "the architecture of the model."
        )
    begin = "tokenizer.eos_token" if start is None else json.dumps(start, ensure_ascii=False)
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}"{option})
start = tokenizer({begin}, add_special_tokens=False, return_tensors="pt")
text = model.generate(**start, do_sample=True, top_k=0, max_new_tokens={max_new_tokens})
print(tokenizer.decode(text[0], skip_special_tokens=True))
```{note}"""
