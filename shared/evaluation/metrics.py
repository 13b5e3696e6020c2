"""Metric functions for the Trainer, their building blocks, and reports.

Everything is computed with NumPy from counts: one pass over the labels gives micro, macro, weighted
and sample averages, one sort per label gives average precision and ROC-AUC. The figures equal
scikit-learn's with ``zero_division=0``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.evaluation.decisions import as_multi_hot, choose_labels, sigmoid, sort_by_score

# --- metric functions for the Trainer ------------------------------------------------------------


def multilabel_metrics(
    label_names: Sequence[str],
    *,
    thresholds: float | Sequence[float] | Callable[[np.ndarray, np.ndarray], Any] = 0.5,
    single_label: bool = False,
) -> Callable[[Any], dict[str, float]]:
    """Build the `compute_metrics` of a multilabel task.

    Parameters
    ----------
    label_names : sequence of str
        Names of the labels, in the order of the columns.
    thresholds : float, (labels,) array of float, or callable, default 0.5
        A label is predicted where ``sigmoid(logit) >= threshold``. A callable, such as
        `shared.evaluation.decisions.tune_thresholds`, is given the scores and the labels of each
        evaluation and returns the thresholds, so that epochs are compared at the thresholds that
        each would be used with.
    single_label : bool, default False
        Predict the best label of each row and no other, whatever the thresholds.

    Returns
    -------
    compute_metrics : callable
        Takes an `EvalPrediction`, or anything with ``predictions``, logits of shape
        (rows, labels) in any float precision or a tuple that starts with them, and ``label_ids``,
        a multi-hot matrix of the same shape. Returns a flat dict of floats: ``micro_f1``,
        ``macro_f1``, ``weighted_f1``, ``samples_f1``, ``micro_precision``, ``micro_recall``,
        ``subset_accuracy`` (rows with every label right), ``average_precision`` (micro: over all
        pairs of row and label), ``macro_average_precision`` (over the labels with a positive row),
        ``roc_auc`` (macro, over the labels with both a positive and a negative row).

    Raises
    ------
    ValueError
        If shapes do not agree or the labels are not 0 and 1.
    UserError
        If a logit is not finite: training has diverged, and no figure would mean anything.

    Notes
    -----
    A ranking metric that no label qualifies for is left out, since neither NaN (not JSON, and
    never "greater") nor a made-up value would be right. Which keys there are depends on the labels
    alone, so a `metric_for_best_model` that cannot be had fails at the first evaluation, by name.
    """
    if not callable(thresholds):
        shape = np.shape(thresholds)
        if shape not in ((), (len(label_names),)):
            raise ValueError(
                f"thresholds has shape {shape}: pass one number, "
                f"or one for each of the {len(label_names)} labels"
            )

    def compute_metrics(eval_prediction: Any) -> dict[str, float]:
        logits = _finite_logits(eval_prediction, label_names)
        y_true = as_multi_hot(eval_prediction.label_ids, "label_ids")
        _check_same_shape(y_true, logits, "label_ids", "predictions")
        scores = sigmoid(logits)
        cutoffs = thresholds(scores, y_true) if callable(thresholds) else thresholds
        y_pred = choose_labels(scores, cutoffs, single_label=single_label)
        return {
            **f1_scores(y_true, y_pred),
            "subset_accuracy": subset_accuracy(y_true, y_pred),
            # The sigmoid keeps the order; logits are ranked because they do not saturate.
            **ranking_scores(y_true, logits),
        }

    return compute_metrics


def single_label_metrics(label_names: Sequence[str]) -> Callable[[Any], dict[str, float]]:
    """Build the `compute_metrics` of a task with exactly one label per row.

    Parameters
    ----------
    label_names : sequence of str
        Names of the labels, in the order of the columns.

    Returns
    -------
    compute_metrics : callable
        Takes an `EvalPrediction`, or anything with ``predictions``, logits of shape
        (rows, labels) or a tuple that starts with them, and ``label_ids``, class numbers of shape
        (rows,). Returns the figures of `single_label_scores`.

    Raises
    ------
    ValueError
        If shapes do not agree or a class number is not that of a label.
    UserError
        If a logit is not finite.
    """

    def compute_metrics(eval_prediction: Any) -> dict[str, float]:
        logits = _finite_logits(eval_prediction, label_names)
        return single_label_scores(
            eval_prediction.label_ids, logits.argmax(axis=1), len(label_names)
        )

    return compute_metrics


# --- building blocks -----------------------------------------------------------------------------


def label_averages(label_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1, averaged over labels.

    Parameters
    ----------
    label_counts : (3, labels) array of int
        True positives, predicted rows and positive rows of each label.

    Returns
    -------
    averages : dict of (3,) array
        Under ``micro``, ``macro`` and ``weighted`` (by positive rows).
    """
    per_label = _precision_recall_f1(*label_counts)
    support = label_counts[2]
    return {
        "micro": _precision_recall_f1(*label_counts.sum(axis=1)),
        "macro": per_label.mean(axis=1),
        "weighted": per_label @ ratio(support, support.sum()),
    }


def multilabel_averages(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of multi-hot predictions, averaged over labels and over rows.

    Parameters
    ----------
    y_true, y_pred : (rows, labels) array of bool or of 0 and 1

    Returns
    -------
    averages : dict of (3,) array
        Under ``micro``, ``macro``, ``weighted`` and ``samples``; equal to scikit-learn's with
        ``zero_division=0``: a label without positives that is never predicted counts as 0, and so
        does a row without true and predicted labels.
    """
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    per_row = _precision_recall_f1(*_counts(y_true, y_pred, axis=1))
    return {**label_averages(_counts(y_true, y_pred, axis=0)), "samples": per_row.mean(axis=1)}


def f1_scores(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """``micro_f1``, ``macro_f1``, ``weighted_f1``, ``samples_f1``, ``micro_precision`` and
    ``micro_recall`` of multi-hot predictions, from `multilabel_averages`.
    """
    averages = multilabel_averages(y_true, y_pred)
    scores = {f"{average}_f1": float(f1) for average, (_, _, f1) in averages.items()}
    precision, recall, _ = averages["micro"]
    return {**scores, "micro_precision": float(precision), "micro_recall": float(recall)}


def subset_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Share of the rows whose labels are all right; takes (rows, labels) arrays of 0 and 1."""
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    return float((y_true == y_pred).all(axis=1).mean())


def single_label_scores(
    y_true: np.ndarray, y_pred: np.ndarray, num_labels: int
) -> dict[str, float]:
    """``accuracy``, ``macro_f1`` and ``weighted_f1`` of class numbers.

    Parameters
    ----------
    y_true, y_pred : (rows,) array of int
        Class numbers from 0 to ``num_labels - 1``.
    num_labels : int
        Macro F1 is the mean over all of them, also those absent from the rows: those count as 0.

    Raises
    ------
    ValueError
        If the shapes do not agree or a number is not that of a class.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    _check_same_shape(y_true, y_pred, "y_true", "y_pred")
    for name, y in {"y_true": y_true, "y_pred": y_pred}.items():
        if y.ndim != 1 or y.size == 0 or y.min() < 0 or y.max() >= num_labels:
            raise ValueError(
                f"{name} must hold one class number from 0 to {num_labels - 1} per row"
            )
    hits = y_true == y_pred
    counts = [np.bincount(y, minlength=num_labels) for y in (y_true[hits], y_pred, y_true)]
    averages = label_averages(np.stack(counts))
    return {
        "accuracy": float(hits.mean()),
        "macro_f1": float(averages["macro"][2]),
        "weighted_f1": float(averages["weighted"][2]),
    }


def average_precision_and_roc_auc(
    y_true: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve of each label, from one sort.

    Equal scores are one step of either curve, as in scikit-learn.

    Parameters
    ----------
    y_true : (rows, labels) array of bool or of 0 and 1
    scores : (rows, labels) array of float
        Anything that grows with the confidence: logits or probabilities.

    Returns
    -------
    average_precision : (labels,) array of float
        NaN for a label without positives.
    roc_auc : (labels,) array of float
        NaN for a label without positives or without negatives.
    """
    y_true, scores = as_multi_hot(y_true, "y_true"), np.asarray(scores, dtype=np.float64)
    _check_same_shape(y_true, scores, "y_true", "scores")
    scores, true_positives = sort_by_score(y_true, scores)
    is_cut = np.ones(scores.shape, dtype=bool)
    is_cut[:, :-1] = scores[:, :-1] > scores[:, 1:]
    predicted = np.broadcast_to(np.arange(1, scores.shape[1] + 1), scores.shape)
    false_positives = predicted - true_positives

    def at_previous_cut(counts: np.ndarray) -> np.ndarray:
        reached = np.maximum.accumulate(np.where(is_cut, counts, 0), axis=1)
        return np.pad(reached[:, :-1], ((0, 0), (1, 0)))

    previous = at_previous_cut(true_positives)
    precision_steps = is_cut * (true_positives - previous) * (true_positives / predicted)
    trapezes = is_cut * (false_positives - at_previous_cut(false_positives))
    trapezes = trapezes * (true_positives + previous) / 2

    positives = true_positives[:, -1]
    pairs = positives * false_positives[:, -1]
    return (
        ratio(precision_steps.sum(axis=1), positives, undefined=np.nan),
        ratio(trapezes.sum(axis=1), pairs, undefined=np.nan),
    )


def ranking_scores(y_true: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Averages of `average_precision_and_roc_auc`, over the labels that have a value.

    Returns
    -------
    scores : dict of float
        ``average_precision`` (micro: over all pairs of row and label),
        ``macro_average_precision`` and ``roc_auc`` (macro); one that no label has is left out.
    """
    per_label, roc_auc = average_precision_and_roc_auc(y_true, scores)
    micro, _ = average_precision_and_roc_auc(
        np.reshape(y_true, (-1, 1)), np.reshape(scores, (-1, 1))
    )
    values = {"average_precision": micro, "macro_average_precision": per_label, "roc_auc": roc_auc}
    return {name: float(np.nanmean(v)) for name, v in values.items() if not np.isnan(v).all()}


# --- report --------------------------------------------------------------------------------------


def per_label_report(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    label_names: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
    scores: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """One row of figures for each label, ready for CSV or JSON.

    Parameters
    ----------
    y_true, y_pred : (rows, labels) array of bool or of 0 and 1
    label_names : sequence of str
    thresholds : (labels,) array of float, optional
        The thresholds behind `y_pred`, to be shown beside the figures.
    scores : (rows, labels) array of float, optional
        Adds the average precision.

    Returns
    -------
    rows : list of dict
        ``label``, ``precision``, ``recall``, ``f1``, ``support`` (positive rows), ``predicted``
        (rows the label was predicted for), and where asked for ``threshold`` and
        ``average_precision`` (None for a label without positives).
    """
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    true_positives, predicted, support = _counts(y_true, y_pred, axis=0)
    precision, recall, f1 = _precision_recall_f1(true_positives, predicted, support)
    columns = {
        "label": list(label_names),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": support.tolist(),
        "predicted": predicted.tolist(),
    }
    if thresholds is not None:
        columns["threshold"] = np.asarray(thresholds, dtype=np.float64).tolist()
    if scores is not None:
        values = average_precision_and_roc_auc(y_true, scores)[0].tolist()
        columns["average_precision"] = [None if np.isnan(value) else value for value in values]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def classification_report(
    y_true: np.ndarray, y_pred: np.ndarray, label_names: Sequence[str], **extra: Any
) -> str:
    """The per-label report and its averages as an aligned text table.

    The first columns read as in `sklearn.metrics.classification_report`; ``predicted`` follows,
    and what `per_label_report` adds for the `extra` arguments.
    """
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    rows = per_label_report(y_true, y_pred, label_names, **extra)
    totals = {"support": int(y_true.sum()), "predicted": int(y_pred.sum())}
    averages = [
        {"label": f"{name} avg", "precision": precision, "recall": recall, "f1": f1, **totals}
        for name, (precision, recall, f1) in multilabel_averages(y_true, y_pred).items()
    ]
    headers = {"f1": "f1-score", "average_precision": "avg prec"}
    columns = [column for column in rows[0] if column != "label"]
    width = max(len(row["label"]) for row in rows + averages)

    def line(label: str, cells: list[str]) -> str:
        return (f"{label:>{width}s} " + "".join(f" {cell:>9}" for cell in cells)).rstrip()

    def cell(value: float | int | None) -> str:
        return "" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"

    def block(rows: list[dict[str, Any]]) -> list[str]:
        return [line(row["label"], [cell(row.get(column)) for column in columns]) for row in rows]

    header = line("", [headers.get(column, column) for column in columns])
    return "\n".join([header, "", *block(rows), "", *block(averages)]) + "\n"


# --- counts and checks ---------------------------------------------------------------------------


def ratio(numerator: np.ndarray, denominator: np.ndarray, undefined: float = 0.0) -> np.ndarray:
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    ratio = np.full(numerator.shape, undefined)
    return np.divide(numerator, denominator, out=ratio, where=denominator != 0)


def _counts(y_true: np.ndarray, y_pred: np.ndarray, axis: int) -> np.ndarray:
    """True positives, predicted and positives, summed over an axis: (3, labels or rows)."""
    return np.stack([y.sum(axis=axis) for y in (y_true & y_pred, y_pred, y_true)])


def _precision_recall_f1(
    true_positives: np.ndarray, predicted: np.ndarray, positives: np.ndarray
) -> np.ndarray:
    return np.stack(
        [
            ratio(true_positives, predicted),
            ratio(true_positives, positives),
            ratio(2 * true_positives, predicted + positives),
        ]
    )


def _check_same_shape(a: np.ndarray, b: np.ndarray, name_a: str, name_b: str) -> None:
    if a.shape != b.shape:
        raise ValueError(f"{name_a} has shape {a.shape}, {name_b} {b.shape}: they must agree")


def multi_hot_pair(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = as_multi_hot(y_true, "y_true"), as_multi_hot(y_pred, "y_pred")
    _check_same_shape(y_true, y_pred, "y_true", "y_pred")
    return y_true, y_pred


def _finite_logits(eval_prediction: Any, label_names: Sequence[str]) -> np.ndarray:
    logits = eval_prediction.predictions
    # A model that also returns hidden states or attentions has its logits first.
    logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits).astype(np.float64)
    if len(logits) == 0 or logits.shape[1:] != (len(label_names),):
        raise ValueError(f"logits have shape {logits.shape}, expected (rows, {len(label_names)})")
    wrong = np.argwhere(~np.isfinite(logits))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{len(wrong)} logits are not finite, the first ({logits[row, column]}) in row {row} "
            f"for label {label_names[column]!r}: training has diverged, "
            f"try a lower --learning_rate"
        )
    return logits
