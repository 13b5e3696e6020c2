"""Texts of a data set to try on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shared.data.corpus import Corpus

FEWEST_WORDS = 5  # of an example; a shorter text says little


def short_examples(corpus: Corpus, n_examples: int = 5) -> list[str]:
    """Return the shortest text of each of the most frequent labels, each text once.

    Texts of fewer than five words are passed over. If the data set has fewer labels than
    `n_examples`, its shortest other texts follow.
    """
    words = corpus.dataset.data["words"].to_numpy()
    shortest = np.argsort(words, kind="stable")
    shortest = shortest[words[shortest] >= FEWEST_WORDS]
    y = corpus.label_matrix()[shortest]  # (texts, labels)
    by_frequency = np.argsort(-y.sum(axis=0, dtype=int), kind="stable")
    positions: list[int] = []
    for label in by_frequency.tolist():
        free = np.setdiff1d(np.flatnonzero(y[:, label]), positions)
        positions += free[:1].tolist()
        if len(positions) == n_examples:
            break
    others = np.setdiff1d(np.arange(len(shortest)), positions)
    positions += others[: n_examples - len(positions)].tolist()
    return corpus.dataset.select(shortest[positions])["text"][:]
