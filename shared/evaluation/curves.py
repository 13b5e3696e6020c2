"""What a threshold changes: counts of rows, and the quality of those that are sure enough."""

from __future__ import annotations

import numpy as np

from shared.evaluation.metrics import ratio

MOST_POINTS = 60  # of a curve


def threshold_curve(
    y_true: np.ndarray, scores: np.ndarray, threshold: float | None = None
) -> dict[str, np.ndarray]:
    """Return how many rows reach a threshold, and how many of them are positive.

    Precision and recall follow from these counts.

    Parameters
    ----------
    y_true, scores : array of shape (rows,)
        Of one label. Or, to abstain from doubtful rows: whether a row is right, and its confidence.
    threshold : float, optional
        Is one of the points.

    Returns
    -------
    dict of "threshold", "predicted" and "true_positives" to array of shape (points,)
        In descending order of the threshold; at most 60 points, close to each other where few rows
        reach the threshold, and that of `threshold`.
    """
    scores = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    hits = np.concatenate([[0], np.asarray(y_true, dtype=bool)[order].cumsum()])
    # The last row of each run of equal scores: no threshold separates them.
    last = np.flatnonzero(np.append(np.diff(descending) != 0, True))
    kept = last[np.unique(np.geomspace(1, len(last), MOST_POINTS).round().astype(int)) - 1]
    thresholds, predicted = descending[kept], kept + 1
    if threshold is not None:
        at = int(np.searchsorted(-thresholds, -threshold))
        if at == len(thresholds) or thresholds[at] != threshold:
            thresholds = np.insert(thresholds, at, threshold)
            predicted = np.insert(predicted, at, (scores >= threshold).sum())
    return {"threshold": thresholds, "predicted": predicted, "true_positives": hits[predicted]}


def coverage_curve(
    y_true: np.ndarray, y_pred: np.ndarray, confidence: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the quality of the labels if only the surest rows are tagged.

    Parameters
    ----------
    y_true, y_pred : bool array of shape (rows, labels)
    confidence : array of shape (rows,)

    Returns
    -------
    dict of "coverage", "subset_accuracy" and "micro_f1" to array of shape (points,)
        By the share of the rows that are tagged, at most 60 points.
    """
    order = np.argsort(-confidence, kind="stable")
    y_true, y_pred = np.asarray(y_true, dtype=bool)[order], np.asarray(y_pred, dtype=bool)[order]
    right = (y_true == y_pred).all(axis=1).cumsum()
    hits = (y_true & y_pred).sum(axis=1).cumsum()
    sizes = (y_true.sum(axis=1) + y_pred.sum(axis=1)).cumsum()
    # The first rows are too few for a share.
    first = min(len(order), max(1, len(order) // 50))
    kept = np.unique(np.linspace(first, len(order), MOST_POINTS).astype(int)) - 1
    return {
        "coverage": (kept + 1) / len(order),
        "subset_accuracy": right[kept] / (kept + 1),
        "micro_f1": ratio(2 * hits[kept], sizes[kept]),
    }
