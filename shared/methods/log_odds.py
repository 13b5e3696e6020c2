"""Words that tell the texts of a label from the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.launch import progress
from shared.data.words import WordAnalyzer

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LEAST_TEXTS = 3  # with a word, among all texts
SIGNIFICANT = 1.96  # a z-score above is unlikely to be chance, one word looked at


@dataclass(frozen=True)
class WordCounts:
    """Which words each of n texts has.

    Attributes
    ----------
    words : list of str
    present : sparse int array of shape (n, words), 1 where a text has a word.
    """

    words: list[str]
    present: csr_array

    @classmethod
    def of(cls, texts: Sequence[str]) -> WordCounts:
        """Read the words of texts; those of fewer than three texts are left out."""
        from scipy.sparse import csr_array
        from sklearn.feature_extraction.text import CountVectorizer

        vectorizer = CountVectorizer(analyzer=WordAnalyzer(), binary=True, dtype=np.int32)
        try:
            present = csr_array(vectorizer.fit_transform(progress(texts, "reading words")))
        except ValueError:  # no text has a word
            return cls([], csr_array((len(texts), 0), dtype=np.int32))
        frequent = np.flatnonzero(present.sum(axis=0) >= LEAST_TEXTS)
        return cls(vectorizer.get_feature_names_out()[frequent].tolist(), present[:, frequent])

    def select(self, rows: np.ndarray) -> WordCounts:
        """Return the counts of some texts."""
        return WordCounts(self.words, self.present[rows])


def log_odds(with_label: np.ndarray, others: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return how far each word speaks for a label, as a z-score: float, shape (..., words).

    The log-odds ratio of a word in the texts with a label and in the others, with an informative
    Dirichlet prior, divided by its standard deviation (Monroe, Colaresi and Quinn 2008, "Fightin'
    Words", equations 16, 20 and 22). The prior keeps rare words and frequent ones with a small
    difference down.

    Parameters
    ----------
    with_label, others : array of shape (..., words)
        Counts of each word in the two sets of texts.
    prior : array of shape (words,)
        Counts in a background of texts, above 0.
    """
    prior = np.asarray(prior, np.float64)
    total_prior = prior.sum()

    def log_odds_of(counts: np.ndarray) -> np.ndarray:
        total = counts.sum(axis=-1, keepdims=True) + total_prior
        return np.log(counts + prior) - np.log(total - counts - prior)

    if prior.size < 2:  # one word has all the odds
        return np.zeros(np.shape(with_label))
    variance = 1 / (with_label + prior) + 1 / (others + prior)
    return (log_odds_of(with_label) - log_odds_of(others)) / np.sqrt(variance)


def telling_words(
    counts: WordCounts, y: np.ndarray, labelled: np.ndarray, most: int
) -> list[list[tuple[int, float, int, int]]]:
    """Return the words that tell each label best, the strongest first.

    A word counts once per text, so that a long text does not outweigh the others. The prior are the
    counts in all texts, also in those without labels.

    Parameters
    ----------
    counts : WordCounts
        Of n texts.
    y : bool array of shape (labelled texts, labels)
    labelled : int array
        The positions of the labelled texts among the n.
    most : int
        Words per label.

    Returns
    -------
    list, for each label, of (index of the word, z-score, texts with the word and the label, texts
    with the word and without the label). Scores are above 1.96.
    """
    from scipy.sparse import csr_array

    if not counts.words:
        return [[] for _ in range(y.shape[1])]
    prior = counts.present.sum(axis=0)
    present = counts.present[labelled]
    total = present.sum(axis=0)
    with_label = (csr_array(np.asarray(y, np.int32)).T @ present).tocsr()
    words = []
    for label in range(y.shape[1]):  # one at a time: labels x words may not fit into memory
        inside = with_label[[label]].toarray()[0]
        scores = log_odds(inside, total - inside, prior)
        best = np.argsort(-scores, kind="stable")[:most]
        words.append(
            [
                (int(i), float(scores[i]), int(inside[i]), int(total[i] - inside[i]))
                for i in best
                if scores[i] > SIGNIFICANT and inside[i]
            ]
        )
    return words
