"""From scores to labels: which labels a text gets.

Where every text has any number of labels, those whose scores reach their thresholds
(`shared.thresholds`). Where every text is known to have a label, or exactly one, that knowledge is
worth more than a threshold, and most where labelled texts are few.
"""

import numpy as np


def choose_labels(
    scores: np.ndarray, thresholds: float | np.ndarray, *, one_each: bool = False
) -> np.ndarray:
    """Every label that reaches its threshold; or the best one alone.

    Parameters
    ----------
    scores : array of shape (rows, labels)
    thresholds : float or array of shape (labels,)
    one_each : bool
        Every text has exactly one label (`shared.corpus.Corpus.one_label_each`).

    Returns
    -------
    bool array of shape (rows, labels)
    """
    return top_k(scores, 1) if one_each else scores >= np.asarray(thresholds)


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """The k best labels of each row; of equal scores the first.

    Parameters
    ----------
    scores : array of shape (rows, labels)
    k : int
        1 where every text has exactly one label.

    Returns
    -------
    bool array of shape (rows, labels)
    """
    chosen = np.zeros(scores.shape, dtype=bool)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.put_along_axis(chosen, best, True, axis=1)
    return chosen


def at_least_one(scores: np.ndarray, thresholds: float | np.ndarray = 0.5) -> np.ndarray:
    """The best label of each row, and every other one that reaches its threshold.

    For texts of which each has a label, as issues that somebody has triaged do: with few labelled
    texts, scores of rare labels hardly reach any threshold, while their order is right.

    Parameters
    ----------
    scores : array of shape (rows, labels)
    thresholds : float or array of shape (labels,)

    Returns
    -------
    bool array of shape (rows, labels)
    """
    return (scores >= thresholds) | top_k(scores, 1)


def f1_by_top_k(scores: np.ndarray, y_true: np.ndarray) -> dict[str, np.ndarray]:
    """F1 of giving each text its k best labels, for every k from 1 to the number of labels.

    Parameters
    ----------
    scores, y_true : array of shape (rows, labels)

    Returns
    -------
    dict of "micro_f1" and "macro_f1" to array of shape (labels,)
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(scores.shape[1])[None], axis=1)
    return _f1_by_cutoff(rank, y_true, scores.shape[1])


def f1_by_threshold(
    scores: np.ndarray, y_true: np.ndarray, thresholds: np.ndarray
) -> dict[str, np.ndarray]:
    """F1 of giving each text the labels that reach a threshold, for many thresholds at once.

    Parameters
    ----------
    scores, y_true : array of shape (rows, labels)
    thresholds : array of shape (n,), rising

    Returns
    -------
    dict of "micro_f1" and "macro_f1" to array of shape (n,)
    """
    n = len(thresholds)
    first = n - np.searchsorted(thresholds, scores, side="right")  # counted from the highest
    return {name: f1[::-1] for name, f1 in _f1_by_cutoff(first, y_true, n).items()}


def _f1_by_cutoff(first: np.ndarray, y_true: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """F1 at n cutoffs, each of which applies all that the one before it does, and more.

    One pass counts which labels begin to apply where; everything else is a sum over these counts.

    Parameters
    ----------
    first : int array of shape (rows, labels)
        Cutoff from which on a label applies to a row; n for never.
    """
    y_true = np.asarray(y_true, dtype=bool)
    n_labels = y_true.shape[1]
    cell = first + np.arange(n_labels) * (n + 1)
    begin = np.stack(
        [np.bincount(c, minlength=n_labels * (n + 1)) for c in (cell.ravel(), cell[y_true])]
    )
    predicted, hits = begin.reshape(2, n_labels, n + 1)[..., :n].cumsum(axis=-1)
    sizes = predicted + y_true.sum(axis=0)[:, None]
    return {
        "micro_f1": 2 * hits.sum(axis=0) / np.maximum(sizes.sum(axis=0), 1),
        "macro_f1": (2 * hits / np.maximum(sizes, 1)).mean(axis=0),
    }
