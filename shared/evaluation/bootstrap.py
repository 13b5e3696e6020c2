"""Bootstrap over the test rows: the confidence interval of a metric, and a paired comparison.

A metric on a test set is uncertain because another sample of rows would give another value. The
bootstrap estimates this uncertainty: it draws rows with replacement, many times, and computes the
metric each time. The metrics supported here are functions of sums over rows, so a resample needs
only the sums.
"""

from collections.abc import Callable

import numpy as np

from shared.evaluation.metrics import multi_hot_pair, ratio


def bootstrap_interval(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    *,
    metric: str = "micro_f1",
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a metric, over resampled rows.

    Parameters
    ----------
    y_true, y_pred : (rows, labels) array of bool or of 0 and 1
        For a task with one label per row, pass one-hot rows; micro F1 is then the accuracy.
    metric : {"micro_f1", "macro_f1", "subset_accuracy"}, default "micro_f1"
    n_resamples : int, default 1000
        Number of resampled test sets.
    confidence : float, default 0.95
        Probability mass between the two bounds.
    random_state : int, default 0
        Seed of the resampling.

    Returns
    -------
    low, high : float

    Notes
    -----
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 13.3. The interval covers
    the choice of the test rows, not the spread between training seeds. A label of macro F1 that is
    absent from a resample, because it has few rows, is left out of the mean there: counted as 0, it
    would shift the interval below the metric. (A label that is absent from all rows counts as 0, as
    in the metric.) The F1 of a rare label is still a little lower in resamples than in all rows, on
    average. If the metric is outside the interval because of that, the interval is extended to it.
    """
    terms = _row_terms(y_true, y_pred, metric)
    value = ratio(*terms.sum(axis=0)).mean()
    resampled = _resample([terms], n_resamples, random_state)[0]
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(min(low, value)), float(max(high, value))


def statistic_interval(
    terms: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap intervals of metrics that are functions of sums over rows.

    Parameters
    ----------
    terms : (rows, k) array
        What each row adds to the k sums, such as its n-grams that match.
    statistic : callable
        Makes an (n, m) array of m metrics of an (n, k) array of sums.
    n_resamples, confidence, random_state
        As in `bootstrap_interval`.

    Returns
    -------
    low, high : (m,) array
        The intervals contain the metrics of all rows: they are extended where they would not. A
        metric that is not a number in a resample counts there as that of all rows.
    """
    value = statistic(terms.sum(axis=0, keepdims=True))[0]
    resampled = statistic(_resampled_sums(terms, n_resamples, random_state))
    resampled = np.where(np.isnan(resampled), value, resampled)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return np.minimum(low, value), np.maximum(high, value)


def paired_bootstrap(
    y_true: np.ndarray,
    pred_a: np.ndarray,
    pred_b: np.ndarray,
    *,
    metric: str = "micro_f1",
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
    groups: np.ndarray | None = None,
) -> dict[str, float]:
    """Compare two systems on the same rows by resampling those rows.

    Parameters
    ----------
    y_true, pred_a, pred_b : (rows, labels) array of bool or of 0 and 1
    metric, n_resamples, confidence, random_state
        As in `bootstrap_interval`.
    groups : (rows,) array, optional
        Rows of the same group are drawn together. For example, the same text that is tested with
        several seeds is one observation (Davison and Hinkley 1997, Bootstrap Methods and their
        Application, 3.8).

    Returns
    -------
    comparison : dict of float
        ``difference`` (a minus b), its percentile interval ``low`` and ``high``, and the two-sided
        ``p_value`` of the hypothesis that there is no difference: the share of resamples whose
        difference is at least as far from the observed difference as that one is from 0. The
        observed difference itself counts as one resample.

    Notes
    -----
    Berg-Kirkpatrick, Burkett and Klein (2012), An Empirical Investigation of Statistical
    Significance in NLP, section 2, give the one-sided form.
    """
    terms = [_row_terms(y_true, y_pred, metric) for y_pred in (pred_a, pred_b)]
    if groups is not None:
        terms = [_sum_by_group(term, groups) for term in terms]
    value_a, value_b = (ratio(*term.sum(axis=0)).mean() for term in terms)
    # Both systems are resampled together: each resample has the same rows for a and for b.
    resampled_a, resampled_b = _resample(terms, n_resamples, random_state)
    difference, resampled = value_a - value_b, resampled_a - resampled_b
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Without the tolerance, rounding could make two equal differences unequal.
    extreme = np.abs(resampled - difference) >= np.abs(difference) - 1e-12
    return {
        "difference": float(difference),
        "low": float(low),
        "high": float(high),
        "p_value": float((extreme.sum() + 1) / (n_resamples + 1)),
    }


def _row_terms(y_true: np.ndarray, y_pred: np.ndarray, metric: str) -> np.ndarray:
    """Return what each row adds to a metric: (rows, 2, k), numerators and denominators.

    Sum over rows and divide: this gives k ratios, and the metric is their mean. k is the number of
    labels for macro F1, and 1 for the other metrics.
    """
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    if metric == "subset_accuracy":
        matches = (y_true == y_pred).all(axis=1, keepdims=True).astype(np.int64)
        return np.stack([matches, np.ones_like(matches)], axis=1)
    # F1 = 2 TP / (positives + predicted), for each label.
    f1_terms = np.stack([2 * (y_true & y_pred), y_true.astype(np.int64) + y_pred], axis=1)
    if metric == "macro_f1":
        return f1_terms
    if metric == "micro_f1":
        return f1_terms.sum(axis=2, keepdims=True)
    raise ValueError(f"metric must be micro_f1, macro_f1 or subset_accuracy, not {metric!r}")


def _sum_by_group(terms: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the sums of the row terms over the rows of each group: (groups, 2, k)."""
    _, group_of_row = np.unique(groups, return_inverse=True)
    sums = np.zeros((group_of_row.max() + 1, *terms.shape[1:]), terms.dtype)
    np.add.at(sums, group_of_row, terms)  # unlike sums[...] +=, adds repeated groups
    return sums


def _resample(terms: list[np.ndarray], n_resamples: int, random_state: int) -> list[np.ndarray]:
    """Return the metric on resampled rows: (n_resamples,) for each (rows, 2, k) array of terms.

    Ratios that are 0 / 0 in a resample, but not in all rows, are left out of its mean.
    """
    n_rows = len(terms[0])
    # The terms of all systems side by side, so that one draw of rows serves all of them.
    columns = np.concatenate([term.reshape(n_rows, -1) for term in terms], axis=1)
    totals = _resampled_sums(columns, n_resamples, random_state)
    # Take the systems apart again: (n_resamples, 2 k) each, then numerators and denominators.
    parts = np.split(totals, np.cumsum([term[0].size for term in terms])[:-1], axis=1)
    values = []
    for term, part in zip(terms, parts, strict=True):
        numerators, denominators = np.moveaxis(part.reshape(n_resamples, 2, -1), 1, 0)
        n_present = np.count_nonzero(denominators, axis=1)
        share_of_all = np.count_nonzero(term[:, 1].any(axis=0)) / term.shape[2]
        sums = ratio(numerators, denominators).sum(axis=1)
        values.append(sums / np.maximum(n_present, 1) * share_of_all)
    return values


def _resampled_sums(columns: np.ndarray, n_resamples: int, random_state: int) -> np.ndarray:
    """Return the sums of each column over resampled rows: (n_resamples, columns).

    The cost hardly depends on the number of rows where few of them are distinct. Rows with equal
    terms are interchangeable, so it is enough to draw how often each distinct row occurs, which is
    a multinomial distribution. The sums over a resample are then a matrix product.
    """
    distinct, counts = np.unique(columns, axis=0, return_counts=True)
    rng = np.random.default_rng(random_state)
    # Draw the (resamples, distinct rows) counts in blocks, to bound the memory to 128 MiB.
    block = max(1, 2**24 // len(distinct))
    return np.concatenate(
        [
            rng.multinomial(
                len(columns), counts / len(columns), size=min(block, n_resamples - start)
            )
            @ distinct.astype(np.float64)
            for start in range(0, n_resamples, block)
        ]
    )
