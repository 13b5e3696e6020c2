"""The texts that a person is asked to label, with the suggestions of a tagger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shared.data.corpus import load_data
from shared.data.readers import open_data

if TYPE_CHECKING:
    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus

# Columns of label_next.py.
_SUGGESTED, _SCORES, _REASON, _ROW = "suggested", "scores", "reason", "row"
_LARGEST = 1e300  # score


@dataclass(frozen=True)
class TextToLabel:
    """A text without labels, and what a program says about it.

    Attributes
    ----------
    text : str
    row : int
        Its row in the file, counted from 1; of a file of label_next.py, the row in the file
        that this one was made of.
    suggested : tuple of str
        Labels that a tagger would give.
    scores : mapping of str to float
        Of some labels.
    reason : str
        Why a person should label this text.
    """

    text: str
    row: int
    suggested: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def load_texts_to_label(args: DataArguments) -> tuple[Corpus, list[TextToLabel]]:
    """Load the texts of ``--data`` that have no labels, in the order of the file.

    Blank texts are left out, and of exact duplicates all but the first.

    Suggestions are read from the columns ``suggested`` (a list, or names with semicolons between
    them), ``scores`` and ``reason``, which label_next.py writes.

    Raises
    ------
    UserError
        If the data cannot be read.
    """
    corpus = load_data(args, labels_required=False)
    rows = corpus.dataset.select(corpus.unlabelled)
    numbers = rows["row"][:]
    extra = _read_extra(args, numbers)
    return corpus, [
        TextToLabel(text, **{_ROW: number, **extra.get(number, {})})
        for text, number in zip(rows["text"][:], numbers, strict=True)
    ]


def _read_extra(args: DataArguments, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the further columns of some rows, by row number; {} if there are none."""
    source = open_data(args)
    columns = [name for name in (_SUGGESTED, _SCORES, _REASON) if name in source.columns]
    if not columns:
        return {}
    wanted = {*numbers}
    extra = {}
    for number, row in enumerate(source.read([*columns, _ROW], required=[]), 1):
        if number not in wanted:
            continue
        values: dict[str, Any] = {}
        suggested, scores, reason = (row.get(name) for name in (_SUGGESTED, _SCORES, _REASON))
        if isinstance(suggested, str):
            suggested = [name.strip() for name in suggested.split(";") if name.strip()]
        if isinstance(suggested, list):
            values[_SUGGESTED] = tuple(_printable(str(name)) for name in suggested)
        if isinstance(scores, dict):
            values[_SCORES] = {
                _printable(str(name)): float(score)
                for name, score in scores.items()
                # Not NaN, nor an integer beyond every float.
                if isinstance(score, (int, float)) and abs(score) <= _LARGEST
            }
        if isinstance(reason, str):
            values[_REASON] = _printable(reason)
        if isinstance(row.get(_ROW), int):
            values[_ROW] = row[_ROW]
        extra[number] = values
    return extra


def _printable(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode(errors="replace").decode()
