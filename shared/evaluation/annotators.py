"""Where annotators of the same texts differ: by pair, by label and by annotator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.evaluation.agreement import (
    alpha_interval,
    answer_counts,
    fleiss_kappa,
    krippendorff_alpha,
    positive_agreement,
)


class AnnotatorPairs:
    """How two annotators agree on the texts that both have answered, for all pairs of them.

    Parameters
    ----------
    texts, annotators : int arrays of shape (answers,)
        No two answers have both in common.
    labels : bool array of shape (answers, labels)
    single_label : bool
        True: an answer is one decision, between all labels. False: it is one for each label.

    Attributes
    ----------
    first, second : int arrays of shape (pairs,)
        The annotators of each pair that has a text in common.
    shared : int array of shape (pairs,)
        Number of texts that both have answered.
    equal : int array of shape (pairs,)
        Number of these to which both gave the same labels.
    differences : int array of shape (pairs, labels)
        Number of these to which only one of both gave the label.
    """

    def __init__(
        self, texts: np.ndarray, annotators: np.ndarray, labels: np.ndarray, *, single_label: bool
    ) -> None:
        from scipy.sparse import csr_array, triu

        def by_annotator(columns: np.ndarray, chosen: slice | np.ndarray = slice(None)) -> Any:
            """Return ones at (annotator, column) of the chosen answers."""
            columns = columns[chosen]
            ones = np.ones(len(columns), np.int64)
            shape = (annotators.max() + 1, columns.max(initial=-1) + 1)
            return csr_array((ones, (annotators[chosen], columns)), shape)

        answered = by_annotator(texts)
        pairs = triu(answered @ answered.T, 1).tocoo()
        self.first, self.second = pairs.coords
        self.shared = pairs.data

        def of_pairs(products: Any, *, swapped: bool = False) -> np.ndarray:
            a, b = (self.second, self.first) if swapped else (self.first, self.second)
            return np.asarray(products[a, b]).ravel()

        # Equal answers have the same text and the same set of labels.
        sets = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
        answers = np.unique(texts * (sets.max() + 1) + sets, return_inverse=True)[1]
        same = by_annotator(answers)
        self.equal = of_pairs(same @ same.T)

        # Of each label: how often both gave it, and how often each of both did.
        n_labels = labels.shape[1]
        self._both, self._by_first, self._by_second = np.zeros(
            (3, len(self.shared), n_labels), np.int64
        )
        for label in range(n_labels):
            gave = by_annotator(texts, np.flatnonzero(labels[:, label]))
            gave.resize(answered.shape)
            self._both[:, label] = of_pairs(gave @ gave.T)
            by_one = gave @ answered.T
            self._by_first[:, label] = of_pairs(by_one)
            self._by_second[:, label] = of_pairs(by_one, swapped=True)
        self.differences = self._by_first + self._by_second - 2 * self._both
        self._single_label = single_label

    def kappa(self) -> np.ndarray:
        """Return Cohen's kappa of each pair, as `decision_kappa`: shape (pairs,).

        NaN where chance could not make both differ.
        """
        n_labels = self._both.shape[1]
        if self._single_label:
            by_chance = (self._by_first * self._by_second).sum(axis=1) / self.shared**2
            return _kappa(self._both.sum(axis=1) / self.shared, by_chance)
        n = self.shared * n_labels
        a, b = self._by_first.sum(axis=1) / n, self._by_second.sum(axis=1) / n
        return _kappa(1 - self.differences.sum(axis=1) / n, a * b + (1 - a) * (1 - b))

    def label_kappa(self) -> np.ndarray:
        """Return Cohen's kappa of each pair for each label against all others.

        Returns
        -------
        array of shape (pairs, labels)
            NaN where chance could not make both differ.
        """
        n = self.shared[:, None]
        a, b = self._by_first / n, self._by_second / n
        return _kappa(1 - self.differences / n, a * b + (1 - a) * (1 - b))

    def mean(self, kappa: np.ndarray) -> float | None:
        """Return the mean over pairs of a kappa of each pair, weighted by their shared texts.

        Pairs without one are left out; None if there is no other.
        """
        valid = ~np.isnan(kappa)
        if not valid.any():
            return None
        return float(np.average(kappa[valid], weights=self.shared[valid]))


def _kappa(observed: np.ndarray, by_chance: np.ndarray) -> np.ndarray:
    # The agreement by chance is rational; rounding may leave it beside 1.
    certain = by_chance > 1 - 1e-12
    return np.where(certain, np.nan, (observed - by_chance) / np.where(certain, 1, 1 - by_chance))


def label_agreement(
    texts: np.ndarray,
    labels: np.ndarray,
    pairs: AnnotatorPairs,
    label_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Return how far annotators agree about each label against all others.

    Parameters
    ----------
    texts : int array of shape (answers,)
    labels : bool array of shape (answers, labels)
    pairs : AnnotatorPairs
        Of these answers.
    label_names : sequence of str

    Returns
    -------
    list of dict
        ``label``; ``texts``, those with several answers to which at least one annotator gave it;
        ``given``, the answers with it; ``positive_agreement``; ``alpha`` with ``alpha_low`` and
        ``alpha_high``, its 95 % bootstrap interval; ``fleiss_kappa``; ``cohen_kappa``, the mean of
        the pairs. Numbers are None where they are not defined.
    """
    n_texts = int(texts.max(initial=-1)) + 1
    n_answers = np.bincount(texts, minlength=n_texts)
    counts = answer_counts(texts, labels, n_texts)
    kappas = pairs.label_kappa()
    rows = []
    for label, name in enumerate(label_names):
        positive = counts[:, label]
        two = np.column_stack([n_answers - positive, positive])
        low, high = alpha_interval(two) or (None, None)
        row = {
            "label": name,
            "texts": int(((n_answers > 1) & (positive > 0)).sum()),
            "given": int(positive.sum()),
            "positive_agreement": positive_agreement(n_answers, positive),
            "alpha": krippendorff_alpha(two),
            "alpha_low": low,
            "alpha_high": high,
            "fleiss_kappa": fleiss_kappa(two),
            "cohen_kappa": pairs.mean(kappas[:, label]),
        }
        rows.append(row)
    return rows


def label_confusions(texts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count the pairs of answers in which one label stands in place of another.

    Parameters
    ----------
    texts : int array of shape (answers,)
    labels : bool array of shape (answers, labels)

    Returns
    -------
    int array of shape (labels, labels)
        ``[a, b]``: the pairs of answers to the same text of which one has a and not b, the other b
        and not a. It is symmetric, with zeros on the diagonal.
    """
    counts = answer_counts(texts, labels, int(texts.max(initial=-1)) + 1)
    confusions = counts.T @ counts
    # Answers with both labels do not count: (c_a - c_ab) (c_b - c_ab), where c_ab is their number.
    for a in range(labels.shape[1]):
        with_a = labels[:, a]
        some_texts, numbers = np.unique(texts[with_a], return_inverse=True)
        both = answer_counts(numbers, labels[with_a], len(some_texts))
        either = counts[some_texts] + counts[some_texts, a][:, None]
        confusions[a] -= (both * (either - both)).sum(axis=0)
    return confusions


def annotator_labels(
    texts: np.ndarray, annotators: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare how often annotators give each label with how often it is right to give it.

    Parameters
    ----------
    texts, annotators : int arrays of shape (answers,)
    labels : bool array of shape (answers, labels)
    scores : array of shape (texts, labels)
        The probability of each label, such as `MergedLabels.scores`.

    Returns
    -------
    n_given, n_expected, n_hits : arrays of shape (annotators, labels)
        The texts to which an annotator gave the label; the expected number of texts among those
        that they answered to which it applies; and the expected number of texts in both.
    """
    from scipy.sparse import csr_array

    shape = (int(annotators.max()) + 1, len(annotators))
    entries = (np.ones(len(annotators)), (annotators, np.arange(len(annotators))))
    of_annotators = csr_array(entries, shape)
    probable = scores[texts]
    n_given, n_expected = of_annotators @ labels.astype(float), of_annotators @ probable
    return n_given, n_expected, of_annotators @ (labels * probable)
