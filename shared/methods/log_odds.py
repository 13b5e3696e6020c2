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

LEAST_TEXTS = 3  # with a word
PRIOR_TEXTS = 10  # of mean length, whose weight the prior has
LEAST_SCORE = 3.0  # z-score; thousands of words are looked at, so that 2 is often chance
LEAST_WITH_LABEL = 2  # texts


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
        Counts in a background of texts, as far as they should weigh; above 0.
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
    counts: WordCounts, y: np.ndarray, most: int
) -> list[list[tuple[int, float, int, int]]]:
    """Return the words that tell each label best, the strongest first.

    A word counts once per text, so that a long text does not outweigh the others. The prior has the
    shares of the words in all labelled texts, and the weight of ten of them.

    Parameters
    ----------
    counts : WordCounts
        Of n labelled texts.
    y : bool array of shape (n, labels)
    most : int
        Words per label.

    Returns
    -------
    list, for each label, of (index of the word, z-score, texts with the word and the label, texts
    with the word and without the label). Scores are at least 3, and two texts have word and label.
    """
    from scipy.sparse import csr_array

    if not counts.words:
        return [[] for _ in range(y.shape[1])]
    total = counts.present.sum(axis=0)
    n_texts = max(counts.present.shape[0], 1)
    prior = total * PRIOR_TEXTS / n_texts
    with_label = (csr_array(np.asarray(y, np.int32)).T @ counts.present).tocsr()
    words = []
    for label in range(y.shape[1]):  # one at a time: labels x words may not fit into memory
        inside = with_label[[label]].toarray()[0]
        scores = log_odds(inside, total - inside, prior)
        scores[inside < LEAST_WITH_LABEL] = 0
        best = np.argsort(-scores, kind="stable")[:most]
        words.append(
            [
                (int(i), float(scores[i]), int(inside[i]), int(total[i] - inside[i]))
                for i in best
                if scores[i] >= LEAST_SCORE
            ]
        )
    return words
