"""Metric functions for the Trainer, the functions they are built from, and per-label reports.

Everything is computed with NumPy from counts. One pass over the labels gives the micro, macro,
weighted and samples averages; one sort per label gives average precision and ROC-AUC. The values
equal those of scikit-learn with ``zero_division=0``.
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
        `shared.evaluation.decisions.tune_thresholds`, gets the scores and the labels of each
        evaluation and returns the thresholds: each epoch is then measured with the thresholds that
        would be used with it.
    single_label : bool, default False
        Predict only the best label of each row and ignore the thresholds.

    Returns
    -------
    compute_metrics : callable
        Takes an `EvalPrediction`, or anything with ``predictions``, logits of shape
        (rows, labels) in any float precision or a tuple that starts with them, and ``label_ids``,
        a multi-hot matrix of the same shape. Returns a flat dict of floats: ``micro_f1``,
        ``macro_f1``, ``weighted_f1``, ``samples_f1``, ``micro_precision``, ``micro_recall``,
        ``subset_accuracy`` (share of rows with all labels right), ``average_precision`` (micro:
        over all pairs of row and label), ``macro_average_precision`` (over the labels with a
        positive row), ``roc_auc`` (macro, over the labels with both a positive and a negative row).
        With `single_label` also ``accuracy``, which equals micro F1 if each row has one label.

    Raises
    ------
    ValueError
        If shapes do not agree or the labels are not 0 and 1.
    UserError
        If a logit is not finite: training has diverged, and the metrics would mean nothing.

    Notes
    -----
    If a ranking metric is defined for no label, its key is left out. NaN would be no valid JSON and
    would never compare as greater; any other value would be invented. Which keys exist depends only
    on the labels. A `metric_for_best_model` that does not exist therefore fails at the first
    evaluation, with its name.
    """
    # Check now, so that a mistake does not show only at the first evaluation.
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
        values: Any = thresholds
        if callable(thresholds):  # to tune them takes time
            values = 0.5 if single_label else thresholds(scores, y_true)
        y_pred = choose_labels(scores, values, single_label=single_label)
        metrics = {
            **f1_scores(y_true, y_pred),
            "subset_accuracy": subset_accuracy(y_true, y_pred),
            # The sigmoid keeps the order but rounds large logits to equal scores: rank the logits.
            **ranking_scores(y_true, logits),
        }
        if single_label:
            metrics["accuracy"] = metrics["subset_accuracy"]
        return metrics

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
        (rows,). Returns the metrics of `single_label_scores`.

    Raises
    ------
    ValueError
        If shapes do not agree or a class number belongs to no label.
    UserError
        If a logit is not finite.
    """

    def compute_metrics(eval_prediction: Any) -> dict[str, float]:
        logits = _finite_logits(eval_prediction, label_names)
        return single_label_scores(
            eval_prediction.label_ids, logits.argmax(axis=1), len(label_names)
        )

    return compute_metrics


def two_output_metrics(n_classes: int, n_second: int = 0) -> Callable[[Any], dict[str, float]]:
    """Build the `compute_metrics` of a task with one class per row, or two of two outputs.

    Parameters
    ----------
    n_classes : int
        Classes of the first output; its columns come first.
    n_second : int, default 0
        Classes of the second output. 0: there is none.

    Returns
    -------
    compute_metrics : callable
        Takes an `EvalPrediction` of logits and one-hot ``label_ids``, both of shape (rows, all
        classes). Returns the metrics of `single_label_scores` for the first output, and
        ``second_accuracy`` for the second.
    """

    def compute_metrics(eval_prediction: Any) -> dict[str, float]:
        pair = (eval_prediction.label_ids, np.asarray(eval_prediction.predictions))
        true, predicted = (values[:, :n_classes].argmax(axis=1) for values in pair)
        metrics = single_label_scores(true, predicted, n_classes)
        if n_second:
            true, predicted = (values[:, n_classes:].argmax(axis=1) for values in pair)
            metrics["second_accuracy"] = float((true == predicted).mean())
        return metrics

    return compute_metrics


# --- averages over labels and rows ---------------------------------------------------------------


def label_averages(label_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall and F1, averaged over labels.

    Parameters
    ----------
    label_counts : (3, labels) array of int
        Of each label: true positives, rows it was predicted for, and positive rows.

    Returns
    -------
    averages : dict of (3,) array
        With the keys ``micro``, ``macro`` and ``weighted`` (by positive rows).
    """
    per_label = _precision_recall_f1(*label_counts)
    support = label_counts[2]
    return {
        "micro": _precision_recall_f1(*label_counts.sum(axis=1)),
        "macro": per_label.mean(axis=1),
        "weighted": per_label @ ratio(support, support.sum()),
    }


def multilabel_averages(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall and F1 of multi-hot predictions, averaged over labels and rows.

    Parameters
    ----------
    y_true, y_pred : (rows, labels) array of bool or of 0 and 1

    Returns
    -------
    averages : dict of (3,) array
        With the keys ``micro``, ``macro``, ``weighted`` and ``samples`` (the mean over rows). The
        values equal those of scikit-learn with ``zero_division=0``: a label without positives that
        is never predicted counts as 0, and so does a row without true and predicted labels.
    """
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    per_row = _precision_recall_f1(*_counts(y_true, y_pred, axis=1))
    return {**label_averages(_counts(y_true, y_pred, axis=0)), "samples": per_row.mean(axis=1)}


def f1_scores(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Return the F1 scores of multi-hot predictions, and micro precision and recall.

    Parameters
    ----------
    y_true, y_pred : (rows, labels) array of bool or of 0 and 1

    Returns
    -------
    scores : dict of float
        ``micro_f1``, ``macro_f1``, ``weighted_f1``, ``samples_f1``, ``micro_precision`` and
        ``micro_recall``, from `multilabel_averages`.
    """
    averages = multilabel_averages(y_true, y_pred)
    scores = {f"{average}_f1": float(f1) for average, (_, _, f1) in averages.items()}
    precision, recall, _ = averages["micro"]
    return {**scores, "micro_precision": float(precision), "micro_recall": float(recall)}


def subset_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the share of rows with all labels right; arrays of 0 and 1 are (rows, labels)."""
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    return float((y_true == y_pred).all(axis=1).mean())


def one_label_each(*arrays: np.ndarray) -> bool:
    """Return whether all rows of multi-hot arrays (rows, labels) have exactly one label.

    If this holds for true and predicted labels, micro F1 equals the accuracy.
    """
    return all(bool((np.sum(array, axis=1, dtype=int) == 1).all()) for array in arrays)


def single_label_scores(
    y_true: np.ndarray, y_pred: np.ndarray, num_labels: int
) -> dict[str, float]:
    """Return ``accuracy``, ``macro_f1`` and ``weighted_f1`` of class numbers.

    Parameters
    ----------
    y_true, y_pred : (rows,) array of int
        Class numbers from 0 to ``num_labels - 1``.
    num_labels : int
        Macro F1 is the mean over all classes. A class that is absent from the rows counts as 0.

    Raises
    ------
    ValueError
        If the shapes do not agree or a number belongs to no class.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    _check_same_shape(y_true, y_pred, "y_true", "y_pred")
    for name, y in {"y_true": y_true, "y_pred": y_pred}.items():
        if y.ndim != 1 or y.size == 0 or y.min() < 0 or y.max() >= num_labels:
            raise ValueError(
                f"{name} must hold one class number from 0 to {num_labels - 1} per row"
            )
    hits = y_true == y_pred
    # Per class, as `label_averages` expects: true positives, predicted rows, positive rows.
    counts = [np.bincount(y, minlength=num_labels) for y in (y_true[hits], y_pred, y_true)]
    averages = label_averages(np.stack(counts))
    return {
        "accuracy": float(hits.mean()),
        "macro_f1": float(averages["macro"][2]),
        "weighted_f1": float(averages["weighted"][2]),
    }


# --- ranking metrics -----------------------------------------------------------------------------


def average_precision_and_roc_auc(
    y_true: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and the area under the ROC curve of each label, from one sort.

    Equal scores are one step of both curves, as in scikit-learn.

    Parameters
    ----------
    y_true : (rows, labels) array of bool or of 0 and 1
    scores : (rows, labels) array of float
        Logits, probabilities, or any other values that rise with the confidence.

    Returns
    -------
    average_precision : (labels,) array of float
        NaN for a label without positives.
    roc_auc : (labels,) array of float
        NaN for a label without positives or without negatives.
    """
    y_true, scores = as_multi_hot(y_true, "y_true"), np.asarray(scores, dtype=np.float64)
    _check_same_shape(y_true, scores, "y_true", "scores")
    scores, true_positives = sort_by_score(y_true, scores)  # both (labels, rows), best row first

    # Both curves are sums over the distinct scores. Column k stands for predicting the first k + 1
    # rows. Only the last row of each run of equal scores is a point of the curves.
    is_point = np.ones(scores.shape, dtype=bool)
    is_point[:, :-1] = scores[:, :-1] > scores[:, 1:]
    predicted = np.broadcast_to(np.arange(1, scores.shape[1] + 1), scores.shape)
    false_positives = predicted - true_positives

    def at_previous_point(counts: np.ndarray) -> np.ndarray:
        """Return the count at the point before each column, 0 before the first point."""
        # Counts never fall, so the running maximum over points is the count at the last point.
        last = np.maximum.accumulate(np.where(is_point, counts, 0), axis=1)
        return np.pad(last[:, :-1], ((0, 0), (1, 0)))

    # Average precision: the sum of precision times the step in recall.
    previous = at_previous_point(true_positives)
    precision_steps = is_point * (true_positives - previous) * (true_positives / predicted)
    # ROC-AUC: trapezoids whose width is the step in false positives.
    trapezoids = is_point * (false_positives - at_previous_point(false_positives))
    trapezoids = trapezoids * (true_positives + previous) / 2

    # Both were summed in counts; dividing by the totals turns counts into rates.
    positives = true_positives[:, -1]
    pairs = positives * false_positives[:, -1]  # of a positive and a negative row
    return (
        ratio(precision_steps.sum(axis=1), positives, undefined=np.nan),
        ratio(trapezoids.sum(axis=1), pairs, undefined=np.nan),
    )


def ranking_scores(y_true: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the means of `average_precision_and_roc_auc` over the labels that have a value.

    Parameters
    ----------
    y_true : (rows, labels) array of bool or of 0 and 1
    scores : (rows, labels) array of float

    Returns
    -------
    scores : dict of float
        ``average_precision`` (micro: over all pairs of row and label),
        ``macro_average_precision`` and ``roc_auc`` (macro). A metric that is defined for no label
        is left out.
    """
    per_label, roc_auc = average_precision_and_roc_auc(y_true, scores)
    # Micro: all pairs of row and label are the rows of a single label.
    micro, _ = average_precision_and_roc_auc(
        np.reshape(y_true, (-1, 1)), np.reshape(scores, (-1, 1))
    )
    values = {"average_precision": micro, "macro_average_precision": per_label, "roc_auc": roc_auc}
    return {name: float(np.nanmean(v)) for name, v in values.items() if not np.isnan(v).all()}


# --- per-label report ----------------------------------------------------------------------------


def per_label_report(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    label_names: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
    scores: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Return one row of metrics for each label, ready for CSV or JSON.

    Parameters
    ----------
    y_true, y_pred : (rows, labels) array of bool or of 0 and 1
    label_names : sequence of str
    thresholds : (labels,) array of float, optional
        The thresholds that gave `y_pred`, shown beside the metrics; NaN for a label without one.
    scores : (rows, labels) array of float, optional
        Adds the average precision.

    Returns
    -------
    rows : list of dict
        ``label``, ``precision``, ``recall``, ``f1``, ``support`` (positive rows), ``predicted``
        (rows the label was predicted for). With `thresholds` also ``threshold`` (None for NaN), and
        with `scores` also ``average_precision`` (None for a label without positives).
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
        columns["threshold"] = _nan_to_none(np.asarray(thresholds, dtype=np.float64))
    if scores is not None:
        average_precision, _ = average_precision_and_roc_auc(y_true, scores)
        columns["average_precision"] = _nan_to_none(average_precision)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _nan_to_none(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def classification_report(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    label_names: Sequence[str],
    *,
    max_labels: int | None = None,
    **extra: Any,
) -> str:
    """Return the per-label report and its averages as an aligned text table.

    The first columns are those of `sklearn.metrics.classification_report`. Then follow
    ``predicted`` and the columns that `per_label_report` adds for the `extra` arguments. If each
    row has one true and one predicted label, the micro average is called accuracy.

    Parameters
    ----------
    y_true, y_pred, label_names, **extra
        As in `per_label_report`.
    max_labels : int, optional
        With more labels than this, only the most frequent, the best and the worst labels are
        listed, ten of each. Labels without positive rows are not among them. None: all labels.
    """
    y_true, y_pred = multi_hot_pair(y_true, y_pred)
    rows = per_label_report(y_true, y_pred, label_names, **extra)
    totals = {"support": int(y_true.sum()), "predicted": int(y_pred.sum())}
    of_labels = multilabel_averages(y_true, y_pred)
    names = {name: f"{name} avg" for name in of_labels}
    if one_label_each(y_true, y_pred):
        names = {"micro": "accuracy", "macro": "macro avg", "weighted": "weighted avg"}
    averages = []
    for name, label in names.items():
        precision, recall, f1 = of_labels[name]
        values = {"label": label, "precision": precision, "recall": recall, "f1": f1}
        averages.append(values | totals)
    headers = {"f1": "f1-score", "average_precision": "avg prec"}
    columns = [column for column in rows[0] if column != "label"]
    blocks = {"": rows}
    if max_labels is not None and len(rows) > max_labels:
        blocks = _notable_labels(rows)
    shown = [row for block in blocks.values() for row in block]
    width = max(len(row["label"]) for row in shown + averages)

    def format_line(label: str, cells: list[str]) -> str:
        return (f"{label:>{width}s} " + "".join(f" {cell:>9}" for cell in cells)).rstrip()

    def format_value(column: str, value: float | int | None) -> str:
        if value is None:
            return ""
        if column == "threshold" and value > 1:  # `shared.evaluation.rules.NEVER`
            return "never"
        return str(value) if isinstance(value, int) else f"{value:.2f}"

    def format_rows(rows: list[dict[str, Any]]) -> list[str]:
        return [
            format_line(row["label"], [format_value(column, row.get(column)) for column in columns])
            for row in rows
        ]

    lines = [format_line("", [headers.get(column, column) for column in columns]), ""]
    for title, block in blocks.items():
        if title:
            lines.append(f"The {title} of {len(rows):,} labels")
        lines += [*format_rows(block), ""]
    if len(rows) > 1:  # of a single label, all averages but that over rows are the same
        lines += [*format_rows(averages), ""]
    return "\n".join(lines)


def _notable_labels(rows: list[dict[str, Any]], n: int = 10) -> dict[str, list[dict[str, Any]]]:
    """Return the most frequent, the best and the worst rows of `per_label_report`.

    Of labels with the same F1, the most frequent come first: their F1 is the most certain one.
    """
    present = sorted((row for row in rows if row["support"]), key=lambda row: -row["support"])
    return {
        "most frequent": present[:n],
        "best": sorted(present, key=lambda row: -row["f1"])[:n],
        "worst": sorted(present, key=lambda row: row["f1"])[:n],
    }


# --- counts and checks ---------------------------------------------------------------------------


def ratio(numerator: np.ndarray, denominator: np.ndarray, undefined: float = 0.0) -> np.ndarray:
    """Return numerator / denominator, elementwise; `undefined` where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, undefined)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


def _counts(y_true: np.ndarray, y_pred: np.ndarray, axis: int) -> np.ndarray:
    """Return true positives, predicted and positives, summed over an axis: (3, labels or rows)."""
    return np.stack([y.sum(axis=axis) for y in (y_true & y_pred, y_pred, y_true)])


def _precision_recall_f1(
    true_positives: np.ndarray, predicted: np.ndarray, positives: np.ndarray
) -> np.ndarray:
    """Return the three metrics of counts of any one shape, stacked along a new first axis."""
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
    """Return both as (rows, labels) arrays of bool; check their values and that shapes agree."""
    y_true, y_pred = as_multi_hot(y_true, "y_true"), as_multi_hot(y_pred, "y_pred")
    _check_same_shape(y_true, y_pred, "y_true", "y_pred")
    return y_true, y_pred


def _finite_logits(eval_prediction: Any, label_names: Sequence[str]) -> np.ndarray:
    """Return the logits of an evaluation in float64; check their shape and that all are finite."""
    logits = eval_prediction.predictions
    # If a model also returns hidden states or attentions, the logits come first.
    logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits).astype(np.float64)
    if len(logits) == 0 or logits.shape[1:] != (len(label_names),):
        raise ValueError(f"logits have shape {logits.shape}, expected (rows, {len(label_names)})")
    wrong = np.argwhere(~np.isfinite(logits))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{len(wrong)} logits are not finite, the first ({logits[row, column]}) in row {row} "
            f"for label {label_names[column]!r}: training has diverged; "
            f"try a lower --learning_rate"
        )
    return logits
