"""What the page shows of a data set: a few short texts, and the texts that are nearest to one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.launch import progress
from shared.serving.markup import NearText, nearest_html

if TYPE_CHECKING:
    from shared.data.corpus import Corpus

FEWEST_WORDS = 5  # of an example; a shorter text says little
BLOCK_ROWS = 256  # texts that are embedded between two states of the progress bar
LINE = 120  # characters that are shown of a near text


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


class NearestTexts:
    """The labelled texts of a data set that are nearest to a text, as HTML.

    Parameters
    ----------
    embed : callable
        Maps texts to vectors, (texts, width): that of a tagger of sentence embeddings.
    corpus : Corpus
    most : int
        Number of labelled texts to embed: the first ones.
    """

    def __init__(
        self, embed: Callable[[Sequence[str]], np.ndarray], corpus: Corpus, most: int = 1000
    ):
        from shared.methods.embeddings import normalized
        from shared.methods.neighbours import NearestNeighbours

        self._embed = lambda texts: normalized(embed(texts))
        rows = corpus.labelled[:most]
        self.texts: list[str] = corpus.dataset.select(rows)["text"][:]
        starts = range(0, len(self.texts), BLOCK_ROWS)
        vectors = [
            self._embed(self.texts[start : start + BLOCK_ROWS])
            for start in progress(starts, "embedding the labelled texts", unit="blocks")
        ]
        self._lookup = NearestNeighbours(np.concatenate(vectors), corpus.label_matrix(rows))
        self._label_names = corpus.label_names

    def __call__(self, text: str, n_shown: int = 5) -> str:
        """Return a table of the nearest texts, with their labels and cosines."""
        vector = self._embed([text])
        (rows,) = self._lookup.search(vector, min(n_shown, len(self.texts)))
        cosines = self._lookup.vectors[rows] @ vector[0]
        labels = self._lookup.labels[rows]
        nearest = [
            NearText(
                textwrap.shorten(self.texts[row], LINE, placeholder=" ..."),
                [self._label_names[i] for i in np.flatnonzero(of_row)],
                float(cosine),
            )
            for row, of_row, cosine in zip(rows, labels, cosines, strict=True)
        ]
        return nearest_html(nearest, len(self.texts))
