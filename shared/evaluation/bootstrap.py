"""How far a figure can be trusted: bootstrap intervals and comparisons over the test rows."""

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
    """Percentile bootstrap interval of a metric, over resampled rows.

    Parameters
    ----------
    y_true, y_pred : (rows, labels) array of bool or of 0 and 1
        For a task with one label per row pass one-hot rows; micro F1 is then the accuracy.
    metric : {"micro_f1", "macro_f1", "subset_accuracy"}, default "micro_f1"
    n_resamples : int, default 1000
    confidence : float, default 0.95
        Probability mass between the two bounds.
    random_state : int, default 0
        Seed of the resampling.

    Returns
    -------
    low, high : float

    Notes
    -----
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 13.3. The interval speaks
    of the test rows drawn, not of the spread between training seeds. In macro F1 a label that a
    resample misses counts as 0, as in the metric itself: with labels of very few rows the interval
    lies low.
    """
    resampled = _resample([_row_terms(y_true, y_pred, metric)], n_resamples, random_state)[0]
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


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
        Rows of the same group are drawn together: the same text, tested under several seeds, is
        one observation (Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8).

    Returns
    -------
    comparison : dict of float
        ``difference`` (a minus b), its percentile interval ``low`` and ``high``, and the two-sided
        ``p_value`` of no difference: how often a resampled difference lies further from the
        observed one than the observed one lies from 0, the observed one counted in.

    Notes
    -----
    Berg-Kirkpatrick, Burkett and Klein (2012), An Empirical Investigation of Statistical
    Significance in NLP, section 2, which gives the one-sided form.
    """
    terms = [_row_terms(y_true, y_pred, metric) for y_pred in (pred_a, pred_b)]
    if groups is not None:
        terms = [_sum_by_group(term, groups) for term in terms]
    value_a, value_b = (ratio(*term.sum(axis=0)).mean() for term in terms)
    resampled_a, resampled_b = _resample(terms, n_resamples, random_state)
    difference, resampled = value_a - value_b, resampled_a - resampled_b
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    # The tolerance keeps rounding from hiding the equality of two equal differences.
    extreme = np.abs(resampled - difference) >= np.abs(difference) - 1e-12
    return {
        "difference": float(difference),
        "low": float(low),
        "high": float(high),
        "p_value": float((extreme.sum() + 1) / (n_resamples + 1)),
    }


def _row_terms(y_true: np.ndarray, y_pred: np.ndarray, metric: str) -> np.ndarray:
    """What each row adds to a metric: (rows, 2, k), numerators and denominators of k ratios.

    The metric is the mean of the k ratios of the sums over rows.
    """
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    if metric == "subset_accuracy":
        matches = (y_true == y_pred).all(axis=1, keepdims=True).astype(np.int64)
        return np.stack([matches, np.ones_like(matches)], axis=1)
    f1_terms = np.stack([2 * (y_true & y_pred), y_true.astype(np.int64) + y_pred], axis=1)
    if metric == "macro_f1":
        return f1_terms
    if metric == "micro_f1":
        return f1_terms.sum(axis=2, keepdims=True)
    raise ValueError(f"metric must be micro_f1, macro_f1 or subset_accuracy, not {metric!r}")


def _sum_by_group(terms: np.ndarray, groups: np.ndarray) -> np.ndarray:
    _, of_row = np.unique(groups, return_inverse=True)
    sums = np.zeros((of_row.max() + 1, *terms.shape[1:]), terms.dtype)
    np.add.at(sums, of_row, terms)
    return sums


def _resample(terms: list[np.ndarray], n_resamples: int, random_state: int) -> list[np.ndarray]:
    """Values of the metric on resampled rows, (n_resamples,) for each array of row terms.

    Drawing rows with replacement is a multinomial draw over the *distinct* rows, of which there are
    few: the cost hardly depends on the number of rows, and a draw is one matrix product.
    """
    n_rows = len(terms[0])
    columns = np.concatenate([term.reshape(n_rows, -1) for term in terms], axis=1)
    distinct, counts = np.unique(columns, axis=0, return_counts=True)
    rng = np.random.default_rng(random_state)
    block = max(1, 2**24 // len(distinct))  # resamples at a time, to bound the memory to 128 MiB
    totals = np.concatenate(
        [
            rng.multinomial(n_rows, counts / n_rows, size=min(block, n_resamples - start))
            @ distinct.astype(np.float64)
            for start in range(0, n_resamples, block)
        ]
    )
    parts = np.split(totals, np.cumsum([term[0].size for term in terms])[:-1], axis=1)
    return [
        ratio(*np.moveaxis(part.reshape(n_resamples, 2, -1), 1, 0)).mean(axis=1) for part in parts
    ]
