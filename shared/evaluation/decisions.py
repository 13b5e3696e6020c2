"""From logits to scores, from scores to labels, and the tuning of thresholds.

A *score* is a probability from 0 to 1 for one text and one label. Three rules turn scores into
labels. Use the rule that fits what is known about the texts:

- A text may have any number of labels: every label whose score reaches its threshold
  (`choose_labels`).
- A text has at least one label: the best label, and every other one that reaches its threshold
  (`at_least_one`).
- A text has exactly one label, or k of them: the k best labels (`top_k`).

The last two rules help most with few labelled texts: the scores of rare labels then seldom reach a
threshold, although their order is right.

`tune_thresholds` finds the thresholds with the highest F1 by an exact sweep. The predictions of a
label change only where the threshold passes one of its scores. It is therefore enough to sort the
scores once and to accumulate the true positives: this gives the F1 of every possible threshold.
"""

from collections.abc import Sequence

import numpy as np

from shared.cli.errors import UserError

# --- from logits to scores -----------------------------------------------------------------------


def sigmoid(x: float | np.ndarray) -> np.ndarray:
    """Return the logistic function of `x` in float64, without overflow.

    Very negative logits keep distinct values down to -700, so their order is kept.
    """
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right limit, 0
        return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of the columns of (rows, columns) logits, in float64."""
    # Subtracting the maximum of each row changes no probability and prevents overflow.
    odds = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return odds / odds.sum(axis=1, keepdims=True)


def _logit(p: float | np.ndarray) -> np.ndarray:
    """Return the inverse of `sigmoid`."""
    return np.log(p) - np.log1p(-p)


# --- from scores to labels -----------------------------------------------------------------------


def choose_labels(
    scores: np.ndarray,
    thresholds: float | Sequence[float] | np.ndarray,
    *,
    single_label: bool = False,
) -> np.ndarray:
    """Return every label that reaches its threshold, or only the best label of each row.

    Parameters
    ----------
    scores : array of shape (rows, labels)
    thresholds : float or array of shape (labels,)
        A label is chosen if its score is at or above its threshold.
    single_label : bool, default False
        Every text has exactly one label (`shared.data.corpus.Corpus.single_label`): choose the best
        label and ignore the thresholds.

    Returns
    -------
    bool array of shape (rows, labels)
    """
    return top_k(scores, 1) if single_label else scores >= np.asarray(thresholds)


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the k best labels of each row. Of equal scores, the first label is chosen.

    Parameters
    ----------
    scores : array of shape (rows, labels)
    k : int
        1 if every text has exactly one label.

    Returns
    -------
    bool array of shape (rows, labels)
    """
    chosen = np.zeros(scores.shape, dtype=bool)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.put_along_axis(chosen, best, True, axis=1)
    return chosen


def at_least_one(scores: np.ndarray, thresholds: float | np.ndarray = 0.5) -> np.ndarray:
    """Return the best label of each row, and every other label that reaches its threshold.

    For texts that all have a label, such as issues that were triaged. With few labelled texts, the
    scores of rare labels seldom reach a threshold, although their order is right.

    Parameters
    ----------
    scores : array of shape (rows, labels)
    thresholds : float or array of shape (labels,), default 0.5

    Returns
    -------
    bool array of shape (rows, labels)
    """
    return (scores >= thresholds) | top_k(scores, 1)


# --- F1 of many cutoffs at once ------------------------------------------------------------------


def f1_by_top_k(scores: np.ndarray, y_true: np.ndarray) -> dict[str, np.ndarray]:
    """Return the F1 of choosing the k best labels of each text, for every k.

    Parameters
    ----------
    scores, y_true : array of shape (rows, labels)

    Returns
    -------
    dict of "micro_f1" and "macro_f1" to array of shape (labels,)
        For k from 1 to the number of labels.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    # Invert the permutation: the label of rank r is chosen from k = r + 1 on, which is cutoff r.
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(scores.shape[1])[None], axis=1)
    return _f1_by_cutoff(rank, y_true, scores.shape[1])


def f1_by_threshold(
    scores: np.ndarray, y_true: np.ndarray, thresholds: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the F1 of choosing the labels that reach a threshold, for many thresholds at once.

    Parameters
    ----------
    scores, y_true : array of shape (rows, labels)
    thresholds : array of shape (n,)
        In ascending order.

    Returns
    -------
    dict of "micro_f1" and "macro_f1" to array of shape (n,)
    """
    n = len(thresholds)
    # Cutoff 0 is the highest threshold, because later cutoffs must choose more labels.
    first = n - np.searchsorted(thresholds, scores, side="right")
    return {name: f1[::-1] for name, f1 in _f1_by_cutoff(first, y_true, n).items()}


def best_cutoff(
    by_k: dict[str, np.ndarray], by_threshold: dict[str, np.ndarray], thresholds: np.ndarray
) -> tuple[int | None, float | None]:
    """Return the number of labels per text, or else the threshold, with the higher micro F1.

    Parameters
    ----------
    by_k, by_threshold
        From `f1_by_top_k` and `f1_by_threshold`.
    thresholds : array
        Those of `by_threshold`.
    """
    if by_k["micro_f1"].max() >= by_threshold["micro_f1"].max():
        return int(by_k["micro_f1"].argmax()) + 1, None
    return None, float(thresholds[by_threshold["micro_f1"].argmax()])


def _f1_by_cutoff(first: np.ndarray, y_true: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Return the F1 at n cutoffs, each of which chooses all labels of the one before, or more.

    Parameters
    ----------
    first : int array of shape (rows, labels)
        The first cutoff at which the label is chosen for the row; n if it never is.
    y_true : array of shape (rows, labels)
    n : int
        Number of cutoffs.
    """
    y_true = np.asarray(y_true, dtype=bool)
    n_labels = y_true.shape[1]
    # Count, for each label, how many rows begin at each cutoff: all rows, and the positive ones.
    # A (label, cutoff) pair is one number, so that a single bincount serves all labels. Each label
    # has n + 1 bins; the last one holds the rows for which the label is never chosen.
    cell = first + np.arange(n_labels) * (n + 1)  # (rows, labels)
    begin = np.stack(
        [np.bincount(c, minlength=n_labels * (n + 1)) for c in (cell.ravel(), cell[y_true])]
    )
    # A row that begins at a cutoff stays chosen at all later ones: cumulative sums, (labels, n).
    predicted, hits = begin.reshape(2, n_labels, n + 1)[..., :n].cumsum(axis=-1)
    sizes = predicted + y_true.sum(axis=0)[:, None]
    # F1 = 2 TP / (predicted + positives); where the denominator is 0, so is F1.
    return {
        "micro_f1": 2 * hits.sum(axis=0) / np.maximum(sizes.sum(axis=0), 1),
        "macro_f1": (2 * hits / np.maximum(sizes, 1)).mean(axis=0),
    }


# --- tuning of thresholds ------------------------------------------------------------------------


def tune_thresholds(
    scores: np.ndarray,
    y_true: np.ndarray,
    *,
    metric: str = "micro_f1",
    per_label: bool = False,
    shrinkage: float = 10.0,
    tolerance: float = 0.0,
) -> np.ndarray:
    """Find the thresholds that maximise micro or macro F1. Use validation rows only.

    Parameters
    ----------
    scores : (rows, labels) array of float
        Probabilities, from 0 to 1.
    y_true : (rows, labels) array of bool or of 0 and 1
    metric : {"micro_f1", "macro_f1"}, default "micro_f1"
    per_label : bool, default False
        One threshold for each label instead of one for all labels (the global threshold).
    shrinkage : float, default 10.0
        Only with `per_label`: the number of positive rows at which a label's own threshold and the
        global threshold have equal weight. 0 gives every label its own threshold. Choose a smaller
        value than the default if the labels are calibrated very differently.
    tolerance : float, default 0.0
        How many standard errors the F1 of the global threshold may lie below the best F1. The
        candidates are twenty thresholds from 0.5 towards the best one, in equal steps on the logit
        scale. The first candidate within the tolerance is returned, or the best threshold if none
        is. 0 returns the best threshold.

    Returns
    -------
    thresholds : (labels,) array of float
        Strictly between 0 and 1. The global threshold is repeated for each label. Without rows
        (``--valid_size 0``), all are 0.5.

    Raises
    ------
    ValueError
        If the shapes do not agree, a score is not between 0 and 1, or a parameter is out of range.
    UserError
        If no label has a positive row, because there is nothing to tune on.

    Notes
    -----
    *Tolerance.* The scores of a trained model lie near 0 and 1. F1 therefore hardly changes between
    thresholds of, for example, 0.4 and 0.9. Where it is highest on a few hundred rows is chance,
    and a high threshold harms the rare labels. If the loss weights the positives by their rarity
    (`shared.training.losses.balanced_pos_weight`), the best threshold is near 0.5. A tolerance of 2
    then keeps 0.5 unless the difference is significant at 5 %. This is the standard-error rule of
    Breiman et al. (1984, Classification and Regression Trees, section 3.4.3), with the standard
    error of the paired difference by linearisation.

    *Exactness.* The search for the best threshold compares every distinct set of predictions that a
    threshold can give; equal scores are always on the same side. The threshold lies midway between
    the neighbouring scores, so that rounding on other hardware or in another precision does not
    change a prediction. Of several best thresholds, the highest is returned.

    *One threshold for each label.* Macro F1 is a mean over labels, so each label can be tuned
    alone. Micro F1 is a ratio of sums. For a given value v, the labels can be tuned separately for
    ``2 TP - v (predicted + positives)``. Repeating this with v set to the micro F1 just reached
    (Dinkelbach 1967, On Nonlinear Fractional Programming) ends, after a few rounds, at the joint
    maximum over the labels with positives. At this maximum, predicting a further row pays if its
    probability exceeds half the F1; Lipton, Elkan and Narayanaswamy (2014, Optimal Thresholding of
    Classifiers to Maximize F1 Measure) show this for calibrated scores.

    *Shrinkage.* A maximum over few positives fits their noise. The threshold of a rare label can
    then be far from the best one for new rows. Fan and Lin (2007, A Study on Threshold Selection
    for Multi-label Classification) fall back to the highest score if the F1 of a label stays low;
    Zhang and Zhou (2014, A Review on Multi-Label Learning Algorithms) survey further choices. Here
    the threshold of a label with p positives is a weighted mean on the logit scale: its own
    threshold has weight p, the global threshold has weight `shrinkage`. A label without positives
    gets the global threshold. On held-out rows of GoEmotions (28 labels) and of GitHub issues (12
    labels), scored by TF-IDF with logistic regression and tuned on 100 to 1,000 rows, mean macro F1
    is .394 with the global threshold, .401 with each label's own and .415 with the default; mean
    micro F1 is .613, .601 and .612. Up to a thousand validation rows, one threshold for all labels
    is therefore as good for micro F1 (18 settings of 40 draws each,
    tests/benchmarks/bench_metrics.py).
    """
    if not len(y_true):
        return np.full(np.shape(y_true)[1], 0.5)  # nothing to tune on
    scores, y_true = np.asarray(scores, dtype=np.float64), as_multi_hot(y_true, "y_true")
    if scores.shape != y_true.shape:
        raise ValueError(f"scores has shape {scores.shape}, y_true {y_true.shape}: they must agree")
    if not ((scores >= 0) & (scores <= 1)).all():  # false for NaN, too
        raise ValueError("scores must be probabilities from 0 to 1: pass logits through a sigmoid")
    if metric not in ("micro_f1", "macro_f1"):
        raise ValueError(f"metric must be micro_f1 or macro_f1, not {metric!r}")
    for name, value in (("shrinkage", shrinkage), ("tolerance", tolerance)):
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more, not {value}")
    if not y_true.any():
        raise UserError(
            "thresholds cannot be tuned: no validation row has a label; "
            "use a larger or a stratified validation set"
        )

    # Entry k of the true positives belongs to predicting the k best rows; entry 0 predicts none.
    sorted_scores, true_positives = sort_by_score(y_true, scores)  # (labels, rows)
    true_positives = np.pad(true_positives, ((0, 0), (1, 0)))  # (labels, rows + 1)
    global_threshold = _global_threshold(sorted_scores, true_positives, metric)
    if tolerance > 0:
        global_threshold = _nearest_to_half(global_threshold, scores, y_true, metric, tolerance)
    thresholds = np.full(len(sorted_scores), global_threshold)
    if not per_label:
        return thresholds

    n_positive = true_positives[:, -1]
    has_positives = n_positive > 0
    maximise = _maximise_micro_f1 if metric == "micro_f1" else _maximise_macro_f1
    label_thresholds = maximise(
        candidate_thresholds(sorted_scores[has_positives]), true_positives[has_positives]
    )
    if shrinkage > 0:
        weight = n_positive[has_positives] / (n_positive[has_positives] + shrinkage)
        label_thresholds = sigmoid(
            weight * _logit(label_thresholds) + (1 - weight) * _logit(thresholds[has_positives])
        )
    thresholds[has_positives] = label_thresholds
    return thresholds


def candidate_thresholds(sorted_scores: np.ndarray) -> np.ndarray:
    """Return the thresholds that predict the first 0, 1, ..., n of n descending scores.

    A candidate is NaN if no threshold gives its predictions: between equal scores, above a score of
    1, below a score of 0, or between two scores so close that no number lies between them.
    """
    # Candidate k lies midway between score k and the next one; 1 and 0 bound the first and last.
    edge = np.ones((*sorted_scores.shape[:-1], 1))
    bounds = np.concatenate([edge, sorted_scores, 0 * edge], axis=-1)
    upper, lower = bounds[..., :-1], bounds[..., 1:]
    middle = (upper + lower) / 2
    return np.where((lower < middle) & (middle < upper), middle, np.nan)


def _best_candidate(values: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the index of the highest value among the candidates that exist."""
    # argmax returns the first maximum: of several best thresholds, the highest.
    return np.where(np.isnan(candidates), -np.inf, values).argmax(axis=-1)


def _f1(true_positives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Return the F1 of each candidate; candidate k predicts k rows. Without positives F1 is 0."""
    predicted = np.arange(true_positives.shape[-1])
    return 2 * true_positives / np.maximum(predicted + positives, 1)


def _global_threshold(sorted_scores: np.ndarray, true_positives: np.ndarray, metric: str) -> float:
    """Return the best threshold for all labels together."""
    order = np.argsort(-sorted_scores, axis=None)  # over all pairs of label and row
    candidates = candidate_thresholds(sorted_scores.ravel()[order])

    def sum_over_labels(per_label: np.ndarray) -> np.ndarray:
        """Return the sum over labels of (labels, rows + 1) values, at each global candidate."""
        # Passing one score changes the value of its own label only. The changes, put into the
        # order of all scores and accumulated, give the sum. Values start at 0, without predictions.
        # Among equal scores the order is arbitrary, but there the candidates are NaN.
        return np.pad(np.diff(per_label, axis=1).ravel()[order].cumsum(), (1, 0))

    if metric == "micro_f1":
        values = _f1(sum_over_labels(true_positives), true_positives[:, -1].sum())
    else:
        values = sum_over_labels(_f1(true_positives, true_positives[:, -1:]))
    return candidates[_best_candidate(values, candidates)]


def _nearest_to_half(
    best: float, scores: np.ndarray, y_true: np.ndarray, metric: str, tolerance: float
) -> float:
    """Step from 0.5 to the best threshold; stop at the first F1 that is within the tolerance."""
    best_f1, best_influence = _f1_and_influence(scores >= best, y_true, metric)
    for share in np.linspace(0, 1, 20, endpoint=False):
        threshold = float(sigmoid(share * _logit(best)))
        f1, influence = _f1_and_influence(scores >= threshold, y_true, metric)
        # Both F1 come from the same rows, so their errors are correlated: the standard error of the
        # difference is computed from the difference of the influences, row by row.
        standard_error = np.sqrt(((best_influence - influence) ** 2).sum())
        # With very few rows the error is so large that it would allow an F1 of 0: never accept it.
        if f1 > 0 and best_f1 - f1 <= tolerance * standard_error:
            return threshold
    return best


def _f1_and_influence(
    y_pred: np.ndarray, y_true: np.ndarray, metric: str
) -> tuple[float, np.ndarray]:
    """Return the F1 and the influence of each row: the derivative of F1 by the row's weight.

    The variance of F1 over samples of rows is about the sum of the squared influences: F1 is
    replaced by a linear function of the row weights (linearisation).
    """
    hits = (y_pred & y_true).astype(np.float64)
    sizes = y_pred.astype(np.float64) + y_true
    if metric == "micro_f1":  # all labels count as one
        hits, sizes = hits.sum(axis=1, keepdims=True), sizes.sum(axis=1, keepdims=True)
    total = np.maximum(sizes.sum(axis=0), 1)
    f1 = 2 * hits.sum(axis=0) / total
    # d(a / b) = (da - (a / b) db) / b, with a = 2 hits and b = sizes, summed over rows.
    return float(f1.mean()), ((2 * hits - f1 * sizes) / total).mean(axis=1)


def _maximise_macro_f1(candidates: np.ndarray, true_positives: np.ndarray) -> np.ndarray:
    """Return for each label the candidate with the highest F1; arrays are (labels, rows + 1)."""
    best = _best_candidate(_f1(true_positives, true_positives[:, -1:]), candidates)
    return candidates[np.arange(len(candidates)), best]


def _maximise_micro_f1(candidates: np.ndarray, true_positives: np.ndarray) -> np.ndarray:
    """Return the candidates, one per label, with the highest joint micro F1 (Dinkelbach 1967)."""
    labels, predicted = np.arange(len(candidates)), np.arange(candidates.shape[1])
    previous_f1, f1 = -1.0, 0.0
    # F1 rises strictly and has finitely many values, so the loop ends; it converges superlinearly.
    while f1 > previous_f1:
        previous_f1 = f1
        # Maximise 2 TP - F1 (predicted + positives). The positives are constant and left out.
        best = _best_candidate(2 * true_positives - previous_f1 * predicted, candidates)
        hits = true_positives[labels, best].sum()
        f1 = 2 * hits / (best.sum() + true_positives[:, -1].sum())  # best is the number predicted
    return candidates[labels, best]


# --- arrays that tuning and metrics share --------------------------------------------------------


def sort_by_score(y_true: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort each label's scores in descending order and count the true positives among the first k.

    Parameters
    ----------
    y_true : (rows, labels) array of bool
    scores : (rows, labels) array of float

    Returns
    -------
    scores, true_positives : (labels, rows) array
        Labels come first: sorting and cumulating then run along contiguous memory.
    """
    scores = np.ascontiguousarray(scores.T)
    order = np.argsort(-scores, axis=1)
    true_positives = np.take_along_axis(y_true.T, order, axis=1).cumsum(axis=1)
    return np.take_along_axis(scores, order, axis=1), true_positives


def as_multi_hot(y: np.ndarray, name: str) -> np.ndarray:
    """Return `y` as a (rows, labels) array of bool.

    Raises
    ------
    ValueError
        If the shape is another one, or a value is neither 0 nor 1.
    """
    y = np.asarray(y)
    if y.ndim != 2 or y.size == 0:
        raise ValueError(f"{name} has shape {y.shape}, expected (rows, labels), both at least 1")
    if y.dtype == bool:
        return y
    wrong = np.argwhere((y != 0) & (y != 1))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"{name} must be 0 or 1, found {y[row, column]} in row {row}, column {column}"
        )
    return y == 1
