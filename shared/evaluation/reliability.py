"""Reliability: how far scores are from probabilities."""

import numpy as np

N_BINS = 15  # of equal width, as in Guo et al. 2017


def reliability(
    y_true: np.ndarray, scores: np.ndarray, *, single_label: bool = False, n_bins: int = N_BINS
) -> dict[str, np.ndarray]:
    """Return the points of a reliability diagram: mean score and share of positives, by score.

    Parameters
    ----------
    y_true, scores : array of shape (rows, labels)
        Multi-hot labels, and scores from 0 to 1.
    single_label : bool, default False
        Every text has exactly one label: only the best score of each row counts. Else all pairs of
        row and label do.
    n_bins : int, default 15
        Bins of equal width; empty ones are left out.

    Returns
    -------
    dict of "score", "share" and "count" to array of shape (bins that are not empty,)
    """
    y_true, scores = np.asarray(y_true, dtype=bool), np.asarray(scores, dtype=np.float64)
    if single_label:
        best = scores.argmax(axis=1)[:, None]
        y_true = np.take_along_axis(y_true, best, axis=1)
        scores = np.take_along_axis(scores, best, axis=1)
    bins = np.minimum((scores.ravel() * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    filled = count > 0
    sums = (np.bincount(bins, values.ravel(), n_bins)[filled] for values in (scores, y_true))
    score, share = (values / count[filled] for values in sums)
    return {"score": score, "share": share, "count": count[filled]}


def calibration_error(
    y_true: np.ndarray, scores: np.ndarray, *, single_label: bool = False
) -> float:
    """Return the expected calibration error: the mean distance of score and share in the bins.

    From 0 (calibrated) to 1. Parameters as in `reliability`. Naeini, Cooper and Hauskrecht (2015,
    Obtaining Well Calibrated Probabilities Using Bayesian Binning).
    """
    points = reliability(y_true, scores, single_label=single_label)
    distance = np.abs(points["score"] - points["share"])
    return float(np.average(distance, weights=points["count"]))


def brier_score(y_true: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean squared difference of scores and labels over all pairs of row and label.

    From 0 (right and certain) to 1; arrays are of shape (rows, labels). Brier (1950, Verification
    of Forecasts Expressed in Terms of Probability), divided by the number of labels.
    """
    return float(np.mean((np.asarray(scores, dtype=np.float64) - y_true) ** 2))


def calibration_metrics(
    y_true: np.ndarray, scores: np.ndarray, calibrated: np.ndarray | None, *, single_label: bool
) -> dict[str, float]:
    """Return ``test_ece`` and ``test_brier``, and both without calibration if there is one."""

    def measure(values: np.ndarray, suffix: str) -> dict[str, float]:
        error = calibration_error(y_true, values, single_label=single_label)
        return {f"test_ece{suffix}": error, f"test_brier{suffix}": brier_score(y_true, values)}

    if calibrated is None:
        return measure(scores, "")
    return measure(calibrated, "") | measure(scores, "_uncalibrated")
