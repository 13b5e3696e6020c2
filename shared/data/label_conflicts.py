"""Groups of texts that are the same, or nearly so, and those whose labels contradict each other."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.data.corpus import Corpus


@dataclass(frozen=True)
class TextGroup:
    """Texts that are near duplicates of each other.

    Attributes
    ----------
    rows : list of int
        Their positions in the data set, in ascending order.
    n_texts : int
        How many of them differ in more than white space; 1: all are copies of one text.
    label_sets : int
        How many different sets of labels the labelled ones have.
    copies_conflict : bool
        Whether two copies of one text have different labels.
    """

    rows: list[int]
    n_texts: int
    label_sets: int
    copies_conflict: bool


def text_groups(corpus: Corpus) -> list[TextGroup]:
    """Return the groups of two or more near duplicates of a data set, the largest first.

    Parameters
    ----------
    corpus : Corpus
        With ``--duplicate_labels separate``, exact copies are among its rows.
    """
    import numpy as np

    order = np.argsort(corpus.groups, kind="stable")
    bounds = np.flatnonzero(np.diff(corpus.groups[order])) + 1
    members = [rows for rows in np.split(order, bounds) if len(rows) > 1]
    if not members:
        return []
    dataset = corpus.dataset.select(np.concatenate(members))
    texts = map(_normalized, dataset["text"])
    labels = (None if ids is None else tuple(ids) for ids in dataset["labels"])
    entries = iter(zip(texts, labels, strict=True))
    groups = [_group(rows.tolist(), [next(entries) for _ in rows]) for rows in members]
    return sorted(groups, key=lambda group: -len(group.rows))


def _group(rows: list[int], entries: Sequence[tuple[str, tuple[int, ...] | None]]) -> TextGroup:
    known = [entry for entry in entries if entry[1] is not None]
    label_sets = {labels for _, labels in known}
    # A text with two sets of labels is in two pairs.
    conflict = len({*known}) > len({text for text, _ in known})
    return TextGroup(rows, len({text for text, _ in entries}), len(label_sets), conflict)


def _normalized(text: str) -> str:
    """Return a text as the preparation of the data compares it with others."""
    return " ".join(unicodedata.normalize("NFC", text).split())
