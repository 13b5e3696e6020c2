"""What a recipe says of a model that reads a text and writes another one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

_CHARACTERS = 300  # of a text in a sample


def text_score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table with a row for each system and a column for each metric, times 100.

    Parameters
    ----------
    scores : mapping of a system's name to `shared.evaluation.score_texts`
        Bounds of an interval, ``NAME_low`` and ``NAME_high``, stand behind their metric.
    """
    names = [name for name in next(iter(scores.values())) if not name.endswith(("_low", "_high"))]
    width = max(map(len, scores))
    lines = [" " * width + "".join(f"{name:>22}" for name in names)]
    for system, values in scores.items():
        line = f"{system:<{width}}"
        for name in names:
            cell = f"{100 * values[name]:.2f}"
            if f"{name}_low" in values:
                low, high = (100 * values[f"{name}_{bound}"] for bound in ("low", "high"))
                cell += f" ({low:.1f} to {high:.1f})"
            line += f"{cell:>22}"
        lines.append(line)
    return "\n".join(lines)


def text_samples(
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    predictions: Sequence[str],
    n: int = 8,
) -> str:
    """Return source, reference and output of up to `n` texts, evenly spaced over all."""
    rows = sorted({i * len(sources) // n for i in range(n)})
    blocks = []
    for row in rows:
        texts = [sources[row], references[row][0], predictions[row]]
        names = ("source", "reference", "output")
        pairs = zip(names, texts, strict=True)
        blocks.append("\n".join(f"{name:<10} {_shorten(text)}" for name, text in pairs))
    return "\n\n".join(blocks)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CHARACTERS else f"{line[: _CHARACTERS - 3].rstrip()}..."


def seq2seq_usage(folder: Path, *, own_architecture: bool, source: str) -> str:
    """Return how to load a sequence-to-sequence model and let it write, as Markdown.

    Parameters
    ----------
    folder : Path
    own_architecture : bool
        Whether the model is of an architecture of this project. transformers then needs the code of
        the model, which lies in its folder.
    source : str
        An example of what the model reads.
    """
    option, note = "", ""
    if own_architecture:
        option = ", trust_remote_code=True"
        note = (
            "\n\n`trust_remote_code=True` lets transformers run the Python files in this folder, "
            "the architecture of the model."
        )
    return f"""```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForSeq2SeqLM.from_pretrained("{folder}"{option})
texts = [{json.dumps(_shorten(source), ensure_ascii=False)}]
batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```{note}"""
