"""From logits to scores, and from scores to labels: top k, thresholds, and their tuning.

Where a text may have any number of labels, a label applies if its score reaches its threshold.
Where every text is known to have at least one label, or exactly one, that knowledge is worth more
than a threshold, most of all where labelled texts are few.

Thresholds are tuned for F1 by an exact sweep. The predictions of a label change only where the
threshold passes one of its scores, so that sorting the scores once and accumulating the true
positives gives the F1 of every possible threshold.
"""

import numpy as np

from shared.cli.errors import UserError


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function in float64, which overflows nowhere.

    Very negative logits keep distinct values down to -700, so their ranking survives.
    """
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right limit, 0
        return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of the columns of (rows, columns), in float64."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return odds / odds.sum(axis=1, keepdims=True)


def sort_by_score(y_true: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each label's scores from high to low, and the true positives among the first k.

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
    """`y` as a (rows, labels) array of bool; anything but 0 and 1 is refused."""
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


# --- decision rules ------------------------------------------------------------------------------


def choose_labels(
    scores: np.ndarray, thresholds: float | np.ndarray, *, single_label: bool = False
) -> np.ndarray:
    """Every label that reaches its threshold; or the best one alone.

    Parameters
    ----------
    scores : array of shape (rows, labels)
    thresholds : float or array of shape (labels,)
    single_label : bool
        Every text has exactly one label (`shared.data.corpus.Corpus.single_label`).

    Returns
    -------
    bool array of shape (rows, labels)
    """
    return top_k(scores, 1) if single_label else scores >= np.asarray(thresholds)


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
    positives weighted by their rarity (`shared.training.losses.balanced_pos_weight`) the best threshold is
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
