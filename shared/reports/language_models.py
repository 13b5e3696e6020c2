"""What a recipe says of a language model: its figures, and how to use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path


def likelihood_figures(nll: float, n_tokens: int, n_characters: int) -> dict[str, float]:
    """Return the usual figures of a language model on a text.

    Parameters
    ----------
    nll : float
        Mean negative log-likelihood of a token, in nats.
    n_tokens, n_characters : int
        Predicted tokens of the text, and its characters.

    Returns
    -------
    dict
        ``nll``, ``perplexity`` (its exponential), ``bits_per_character`` and ``tokens``.
    """
    return {
        "nll": nll,
        "perplexity": math.exp(min(nll, 700)),  # exp of more overflows a double
        "bits_per_character": nll * n_tokens / math.log(2) / n_characters,
        "tokens": n_tokens,
    }


def likelihood_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of `likelihood_figures`, a row for each part of the data."""
    lines = [f"{'':<6}{'tokens':>13}{'nats per token':>16}{'perplexity':>13}{'bits per char':>15}"]
    lines += [
        f"{part:<6}{row['tokens']:>13,}{row['nll']:>16.4f}{row['perplexity']:>13,.3f}"
        f"{row['bits_per_character']:>15.4f}"
        for part, row in figures.items()
    ]
    return "\n".join(lines)


def writer_usage(folder: Path, *, own_architecture: bool, has_boundary: bool) -> str:
    """Return how to load a language model and let it write, as Markdown.

    Parameters
    ----------
    folder : Path
    own_architecture : bool
        Whether the model is of an architecture of this project. transformers then needs the code of
        the model, which lies in its folder.
    has_boundary : bool
        Whether texts begin with the token between two texts.
    """
    option, note = "", ""
    if own_architecture:
        option = ", trust_remote_code=True"
        note = (
            "\n\n`trust_remote_code=True` lets transformers run the Python file in this folder, "
            "the architecture of the model."
        )
    start = "tokenizer.bos_token" if has_boundary else '"The"'
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}"{option})
start = tokenizer({start}, return_tensors="pt")
text = model.generate(**start, do_sample=True, top_k=0, max_new_tokens=50)
print(tokenizer.decode(text[0], skip_special_tokens=True))
```{note}"""
