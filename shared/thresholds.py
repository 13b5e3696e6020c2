"""Decision thresholds for multilabel scores, tuned for F1 by an exact sweep.

A label is predicted where ``score >= threshold``. The predictions of a label change only where the
threshold passes one of its scores, so sorting the scores once and cumulating the true positives
gives the F1 of every threshold there is.
"""

import numpy as np

from shared.errors import UserError
from shared.metrics import as_multi_hot, sigmoid, sort_by_score


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
        One threshold for each label instead of one for all.
    shrinkage : float, default 10.0
        Only with `per_label`: the number of positive rows at which a label's own threshold and the
        global one weigh the same. 0 gives every label its own; choose less than the default where
        labels are calibrated very differently.
    tolerance : float, default 0.0
        Standard errors by which the global threshold may fall short of the best one; of twenty
        steps from 0.5 to the best, equal on the logit scale, it is the first that does not fall
        shorter. 0 takes the best.

    Returns
    -------
    thresholds : (labels,) array of float
        Strictly between 0 and 1. The global threshold is repeated for each label.

    Raises
    ------
    ValueError
        If shapes do not agree, a score is not between 0 and 1, or a parameter has no such value.
    UserError
        If no label has a positive row: then there is nothing to tune on.

    Notes
    -----
    *Tolerance.* Trained scores lie near 0 and 1, so that F1 hardly changes between, say, 0.4 and
    0.9; where it peaks on a few hundred rows is chance, and a high peak costs the rare labels. With
    positives weighted by their rarity (`shared.losses.balanced_pos_weight`) the best threshold is
    near 0.5, and a tolerance of 2 leaves it only for a difference that is significant at 5 %: the
    standard-error rule of Breiman et al. (1984, Classification and Regression Trees, section
    3.4.3), with the standard error of the paired difference by linearisation.

    *Exactness.* For the best, every distinct set of predictions that some threshold gives is
    compared, equal scores always together. It lies midway between the neighbouring scores, so
    that rounding in other hardware or precision does not flip a prediction. Of several best
    thresholds the highest is taken.

    *One for each label.* Macro F1 separates by label. Micro F1 does not, but it is a ratio of sums:
    for a given value v the labels separate in ``2 TP - v (predicted + positives)``, and repeating
    with the micro F1 reached (Dinkelbach 1967, On Nonlinear Fractional Programming) ends, after a
    few rounds, at the joint maximum over the labels with positives. There a further row pays where
    its probability exceeds half the F1, which Lipton, Elkan and Narayanaswamy (2014, Optimal
    Thresholding of Classifiers to Maximize F1 Measure) show for calibrated scores.

    *Shrinkage.* The maximum over few positives fits their noise, and most of all a rare label's
    threshold ends far from the best one for new rows. Fan and Lin (2007, A Study on Threshold
    Selection for Multi-label Classification) retreat to the highest score where a label's F1 stays
    low; Zhang and Zhou (2014, A Review on Multi-Label Learning Algorithms) survey further choices.
    Here the threshold of a label with p positives is, on the logit scale, the mean of its own with
    weight p and the global one with weight `shrinkage`; a label without positives gets the global
    one. On held-out rows of GoEmotions (28 labels) and of GitHub issues (12 labels), scored by
    TF-IDF with logistic regression and tuned on 100 to 1,000 rows, mean macro F1 is .394 with the
    global threshold, .401 with each label's own and .415 with the default; mean micro F1 is .613,
    .601 and .612, so up to a thousand validation rows one threshold for all serves micro F1 as well
    (18 settings of 40 draws each, tests/benchmarks/bench_metrics.py).
    """
    scores, y_true = np.asarray(scores, dtype=np.float64), as_multi_hot(y_true, "y_true")
    if scores.shape != y_true.shape:
        raise ValueError(f"scores has shape {scores.shape}, y_true {y_true.shape}: they must agree")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be probabilities from 0 to 1: pass logits through a sigmoid")
    if metric not in ("micro_f1", "macro_f1"):
        raise ValueError(f"metric must be micro_f1 or macro_f1, not {metric!r}")
    for name, value in (("shrinkage", shrinkage), ("tolerance", tolerance)):
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more, not {value}")
    if not y_true.any():
        raise UserError(
            "thresholds cannot be tuned: no validation row has a label; "
            "use a larger or a stratified validation part"
        )

    ranked, true_positives = sort_by_score(y_true, scores)
    true_positives = np.pad(true_positives, ((0, 0), (1, 0)))  # the first cut predicts nothing
    best = _global_threshold(ranked, true_positives, metric)
    if tolerance > 0:
        best = _nearest_to_half(best, scores, y_true, metric, tolerance)
    thresholds = np.full(len(ranked), best)
    if not per_label:
        return thresholds

    positives = true_positives[:, -1]
    known = positives > 0
    maximise = _maximise_micro_f1 if metric == "micro_f1" else _maximise_macro_f1
    own = maximise(_cut_thresholds(ranked[known]), true_positives[known])
    if shrinkage > 0:
        weight = positives[known] / (positives[known] + shrinkage)
        own = sigmoid(weight * _logit(own) + (1 - weight) * _logit(thresholds[known]))
    thresholds[known] = own
    return thresholds


def _cut_thresholds(ranked: np.ndarray) -> np.ndarray:
    """Thresholds that predict the first 0, 1, ..., n of n falling scores; NaN where none does.

    None does between equal scores, above a score of 1 or below a score of 0, or where two scores
    are so close that no number lies between them.
    """
    edge = np.ones((*ranked.shape[:-1], 1))
    bounds = np.concatenate([edge, ranked, 0 * edge], axis=-1)
    upper, lower = bounds[..., :-1], bounds[..., 1:]
    middle = (upper + lower) / 2
    return np.where((lower < middle) & (middle < upper), middle, np.nan)


def _best_cut(values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(cuts), -np.inf, values).argmax(axis=-1)


def _f1(true_positives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """F1 of each cut; the k-th predicts k rows. A label without positives has 0 throughout."""
    predicted = np.arange(true_positives.shape[-1])
    return 2 * true_positives / np.maximum(predicted + positives, 1)


def _global_threshold(ranked: np.ndarray, true_positives: np.ndarray, metric: str) -> float:
    order = np.argsort(-ranked, axis=None)
    cuts = _cut_thresholds(ranked.ravel()[order])

    def over_all_labels(per_label: np.ndarray) -> np.ndarray:
        """Sum over labels after each score in falling order; only one label changes at a time."""
        return np.pad(np.diff(per_label, axis=1).ravel()[order].cumsum(), (1, 0))

    if metric == "micro_f1":
        values = _f1(over_all_labels(true_positives), true_positives[:, -1].sum())
    else:
        values = over_all_labels(_f1(true_positives, true_positives[:, -1:]))
    return cuts[_best_cut(values, cuts)]


def _nearest_to_half(
    best: float, scores: np.ndarray, y_true: np.ndarray, metric: str, tolerance: float
) -> float:
    """Go from 0.5 to the best threshold; stop where the difference is within the tolerance."""
    most, influence = _f1_and_influence(scores >= best, y_true, metric)
    for share in np.linspace(0, 1, 20, endpoint=False):
        threshold = float(sigmoid(share * _logit(best)))
        value, other = _f1_and_influence(scores >= threshold, y_true, metric)
        # A threshold that no hit passes is none, however wide the error of a handful of rows.
        if value > 0 and most - value <= tolerance * np.sqrt(((influence - other) ** 2).sum()):
            return threshold
    return best


def _f1_and_influence(
    y_pred: np.ndarray, y_true: np.ndarray, metric: str
) -> tuple[float, np.ndarray]:
    """F1, and its derivative by the weight of each row."""
    hits = (y_pred & y_true).astype(np.float64)
    sizes = y_pred.astype(np.float64) + y_true
    if metric == "micro_f1":
        hits, sizes = hits.sum(axis=1, keepdims=True), sizes.sum(axis=1, keepdims=True)
    total = np.maximum(sizes.sum(axis=0), 1)
    f1 = 2 * hits.sum(axis=0) / total
    return float(f1.mean()), ((2 * hits - f1 * sizes) / total).mean(axis=1)


def _maximise_macro_f1(cuts: np.ndarray, true_positives: np.ndarray) -> np.ndarray:
    best = _best_cut(_f1(true_positives, true_positives[:, -1:]), cuts)
    return cuts[np.arange(len(cuts)), best]


def _maximise_micro_f1(cuts: np.ndarray, true_positives: np.ndarray) -> np.ndarray:
    labels, predicted = np.arange(len(cuts)), np.arange(cuts.shape[1])
    value, reached = -1.0, 0.0
    while reached > value:  # rises strictly over finitely many values, faster than linearly
        value = reached
        best = _best_cut(2 * true_positives - value * predicted, cuts)
        hits = true_positives[labels, best].sum()
        reached = 2 * hits / (best.sum() + true_positives[:, -1].sum())
    return cuts[labels, best]


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)
