"""One set of labels for each text, from those of several annotators: majority, and Dawid-Skene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.evaluation.agreement import answer_counts

# Answers of an average annotator that are added to those of each one, so that an annotator with few
# answers is taken for an average one. Of 0 to 10, this was among the best on simulated answers.
SMOOTHING = 3.0
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class DawidSkene:
    """What `fit_dawid_skene` has estimated.

    Attributes
    ----------
    posterior : array of shape (texts, categories)
        The probability that a category is the true one of a text.
    prior : array of shape (categories,)
        The share of each category.
    confusion : array of shape (annotators, categories, categories)
        ``confusion[j, k, l]``: the probability that annotator j answers l where k is true.
    n_iterations : int
    converged : bool
        Whether it ended before the last iteration allowed.
    """

    posterior: np.ndarray
    prior: np.ndarray
    confusion: np.ndarray
    n_iterations: int
    converged: bool


def fit_dawid_skene(
    texts: np.ndarray,
    annotators: np.ndarray,
    categories: np.ndarray,
    *,
    n_texts: int,
    n_annotators: int,
    n_categories: int,
    smoothing: float = SMOOTHING,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """Estimate the true categories of texts, and the errors of each annotator, by EM.

    Parameters
    ----------
    texts, annotators, categories : int arrays of shape (answers,)
        Each answer: the category that an annotator gave to a text. An annotator may answer a text
        several times.
    n_texts, n_annotators, n_categories : int
    smoothing : float, default 3
        Number of answers of an average annotator that are added to those of each annotator in each
        true category. With 0, it is the maximum likelihood of the paper.
    tolerance : float, default 1e-6
        It has converged when no probability in `posterior` changes by more.

    Returns
    -------
    DawidSkene
        A text without answers has the posterior `prior`.

    Notes
    -----
    Dawid and Skene (1979), Maximum Likelihood Estimation of Observer Error-Rates Using the EM
    Algorithm. It starts from the shares of the answers, as in the paper. The annotators are assumed
    to err independently of each other: where a text misleads all of them alike, the probabilities
    are too sure.
    """
    from scipy.sparse import csr_array

    # Number of the answers of each (annotator, category) to each text.
    columns = annotators * n_categories + categories
    shape = (n_texts, n_annotators * n_categories)
    answers = csr_array((np.ones(len(texts)), (texts, columns)), shape)
    by_column = csr_array(answers.T)
    counts = answers @ np.tile(np.eye(n_categories), (n_annotators, 1))
    n_answers = counts.sum(axis=1, keepdims=True)
    answered = n_answers[:, 0] > 0

    posterior = counts / np.maximum(n_answers, 1)
    for iteration in range(1, MAX_ITERATIONS + 1):
        # Maximisation: the share of each category, and the errors of each annotator.
        prior = posterior[answered].mean(axis=0)
        expected = (by_column @ posterior).reshape(n_annotators, n_categories, n_categories)
        expected = expected.swapaxes(1, 2)  # annotator, true category, answer
        average = _shares(expected.sum(axis=0) + (smoothing > 0))
        confusion = _shares(expected + smoothing * average)

        # Expectation: the probability of each category, given the answers.
        with np.errstate(divide="ignore"):
            log_confusion, log_prior = np.log(confusion), np.log(prior)
        by_answer = log_confusion.swapaxes(1, 2).reshape(-1, n_categories)
        log_joint = answers @ by_answer + log_prior
        joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        before, posterior = posterior, joint / joint.sum(axis=1, keepdims=True)
        change = np.abs(posterior - before)[answered].max(initial=0)
        if change <= tolerance:
            return DawidSkene(posterior, prior, confusion, iteration, True)
    return DawidSkene(posterior, prior, confusion, MAX_ITERATIONS, False)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Divide by the sums over the last axis; where one is 0, all shares are equal."""
    sums = counts.sum(axis=-1, keepdims=True)
    return np.where(sums > 0, counts / np.where(sums > 0, sums, 1), 1 / counts.shape[-1])


@dataclass(frozen=True)
class MergedLabels:
    """The labels of each text that follow from the answers of its annotators.

    Attributes
    ----------
    labels : bool array of shape (texts, labels)
    scores : array of shape (texts, labels)
        The probability of each label; by majority, the share of the answers that have it.
    confidence : array of shape (texts,)
        The probability that the labels of a text are right: that of the label, or the product over
        all labels of the probability that it applies, or does not, as chosen.
    undecided : bool array of shape (texts,)
        Texts without a label, although no more than half of their annotators said that none
        applies; also those without an answer.
    converged : bool
        Whether the estimation came to an end.
    """

    labels: np.ndarray
    scores: np.ndarray
    confidence: np.ndarray
    undecided: np.ndarray
    converged: bool = True


def merge_by_majority(
    texts: np.ndarray, labels: np.ndarray, *, n_texts: int, single_label: bool
) -> MergedLabels:
    """Give each text the labels that more than half of its annotators gave.

    Parameters
    ----------
    texts : int array of shape (answers,)
    labels : bool array of shape (answers, labels)
    n_texts : int
    single_label : bool
        Whether each answer is exactly one of several labels.
    """
    counts = answer_counts(texts, labels, n_texts)
    n_answers = np.bincount(texts, minlength=n_texts)[:, None]
    scores = counts / np.maximum(n_answers, 1)
    return _merged(texts, labels, scores, 2 * counts > n_answers, single_label)


def merge_by_dawid_skene(
    texts: np.ndarray,
    annotators: np.ndarray,
    labels: np.ndarray,
    *,
    n_texts: int,
    single_label: bool,
    on_label: Callable[[], object] = lambda: None,
) -> MergedLabels:
    """Give each text its most probable labels, by what each annotator's answers are worth.

    With one label per text, the labels are the categories of one estimation; with any number, each
    label has an estimation of its own, whether it applies or not.

    Parameters
    ----------
    texts, annotators : int arrays of shape (answers,)
    labels : bool array of shape (answers, labels)
    n_texts : int
    single_label : bool
        Whether each answer is exactly one of several labels.
    on_label : callable, optional
        Called after each estimation, such as the update of a progress bar.
    """
    n_annotators = int(annotators.max()) + 1
    sizes = {"n_texts": n_texts, "n_annotators": n_annotators}
    n_labels = labels.shape[1]
    if single_label:
        fit = fit_dawid_skene(
            texts, annotators, labels.argmax(axis=1), n_categories=n_labels, **sizes
        )
        on_label()
        best = fit.posterior.argmax(axis=1)
        chosen = np.eye(n_labels, dtype=bool)[best]
        return _merged(texts, labels, fit.posterior, chosen, single_label, fit.converged)
    scores, converged = np.empty((n_texts, n_labels)), True
    for label in range(n_labels):
        applies = labels[:, label].astype(np.int64)
        fit = fit_dawid_skene(texts, annotators, applies, n_categories=2, **sizes)
        scores[:, label] = fit.posterior[:, 1]
        converged &= fit.converged
        on_label()
    return _merged(texts, labels, scores, scores > 0.5, single_label, converged)


def _merged(
    texts: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    chosen: np.ndarray,
    single_label: bool,
    converged: bool = True,
) -> MergedLabels:
    """Decide which texts have labels, and how sure they are."""
    n_answers = np.bincount(texts, minlength=len(scores))
    n_empty = np.bincount(texts[~labels.any(axis=1)], minlength=len(scores))
    undecided = ~chosen.any(axis=1) & (2 * n_empty <= n_answers)
    chosen = chosen & (n_answers > 0)[:, None]
    if single_label:
        confidence = np.where(chosen, scores, 0).sum(axis=1)
    else:
        confidence = np.where(chosen, scores, 1 - scores).prod(axis=1)
    undecided |= n_answers == 0
    return MergedLabels(chosen, scores, np.where(undecided, 0, confidence), undecided, converged)
