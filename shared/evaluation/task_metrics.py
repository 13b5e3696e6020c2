"""Metrics of numbers, and of several tasks at once: from logits side by side to figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.data.tasks import task_columns
from shared.evaluation.decisions import sigmoid, softmax, top_k, tune_thresholds
from shared.evaluation.metrics import f1_scores, subset_accuracy

if TYPE_CHECKING:
    from shared.data.tasks import Task, TaskData

# The figure of each problem that counts in the mean over tasks.
MAIN_METRICS = {"single_label": "macro_f1", "multi_label": "micro_f1", "regression": "r2"}


def regression_metrics(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Return the errors of predicted numbers, and how far they follow the true ones.

    Parameters
    ----------
    y_true, y_pred : float arrays of shape (rows,)

    Returns
    -------
    dict
        ``mae`` and ``rmse``, mean absolute and root mean squared error, in the unit of the numbers;
        ``r2``, the share of the variance that is explained: 0 for the mean of the rows, negative
        for worse, also 0 if all true numbers are equal; ``spearman``, the correlation of the ranks,
        0 if all numbers of a side are equal.
    """
    from scipy.stats import rankdata

    y_true, y_pred = np.asarray(y_true, float), np.asarray(y_pred, float)
    errors = y_pred - y_true
    variance = y_true.var()
    ranks = [rankdata(values) for values in (y_true, y_pred)]
    constant = any(np.ptp(rank) == 0 for rank in ranks)
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(np.square(errors).mean())),
        "r2": float(1 - np.square(errors).mean() / variance) if variance else 0.0,
        "spearman": 0.0 if constant else float(np.corrcoef(*ranks)[0, 1]),
    }


def task_outputs(task: Task, logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of a task's labels, or its numbers: (rows, outputs)."""
    if task.is_regression:
        return task.mean + task.scale * np.asarray(logits, float)
    return (softmax if task.problem == "single_label" else sigmoid)(logits)


def tune_task_thresholds(
    tasks: Sequence[Task], logits: np.ndarray, targets: np.ndarray
) -> dict[str, float]:
    """Return the threshold of each multi-label task with the best micro F1 of the known rows.

    Parameters
    ----------
    tasks : sequence of Task
    logits, targets : arrays of shape (rows, outputs of all tasks)
        A target of NaN is not known. Without a known row, the threshold is .5.
    """
    thresholds = {}
    for task, columns in zip(tasks, task_columns(tasks), strict=True):
        if task.problem == "multi_label":
            known = ~np.isnan(targets[:, columns]).any(axis=1)
            thresholds[task.name] = 0.5
            if known.any():
                y_true = targets[known, columns].astype(int)
                scores = sigmoid(logits[known, columns])
                thresholds[task.name] = float(tune_thresholds(scores, y_true, tolerance=2)[0])
    return thresholds


def task_scores(
    tasks: Sequence[Task],
    logits: np.ndarray,
    targets: np.ndarray,
    thresholds: Mapping[str, float],
) -> dict[str, float]:
    """Return the figures of all tasks, each over the rows that have it.

    Parameters
    ----------
    tasks : sequence of Task
    logits, targets : arrays of shape (rows, outputs of all tasks)
    thresholds : mapping of multi-label tasks to their threshold

    Returns
    -------
    dict
        Names begin with the task: ``label_macro_f1``, ``label_accuracy``; ``label_micro_f1``,
        ``label_macro_f1`` and ``label_subset_accuracy`` of a multi-label task; those of
        `regression_metrics` of numbers. ``mean_score`` is the mean of `MAIN_METRICS`. A task that
        no row has is left out.
    """
    figures: dict[str, float] = {}
    main = []
    for task, columns in zip(tasks, task_columns(tasks), strict=True):
        known = ~np.isnan(targets[:, columns]).any(axis=1)
        if not known.any():
            continue
        y_true, outputs = targets[known, columns], task_outputs(task, logits[known, columns])
        if task.is_regression:
            y_true = task.mean + task.scale * y_true
            scores = regression_metrics(y_true[:, 0], outputs[:, 0])
        else:
            y_true = y_true.astype(int)
            if task.problem == "single_label":
                predicted = top_k(outputs, 1)
            else:
                predicted = outputs >= thresholds[task.name]
            f1 = f1_scores(y_true, predicted)
            scores = {name: f1[name] for name in ("micro_f1", "macro_f1")}
            exact = subset_accuracy(y_true, predicted)
            if task.problem == "single_label":
                scores = {"macro_f1": f1["macro_f1"], "accuracy": exact}
            else:
                scores["subset_accuracy"] = exact
        figures |= {f"{task.name}_{name}": value for name, value in scores.items()}
        main.append(scores[MAIN_METRICS[task.problem]])
    if main:
        figures["mean_score"] = float(np.mean(main))
    return figures


def held_out_scores(data: TaskData, logits: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return `task_scores` of the test rows, with thresholds tuned on the validation rows.

    Parameters
    ----------
    data : TaskData
    logits : mapping of "valid" and "test" to array of shape (rows, outputs of all tasks)
    """
    thresholds = tune_task_thresholds(data.tasks, logits["valid"], data.parts["valid"].targets)
    return task_scores(data.tasks, logits["test"], data.parts["test"].targets, thresholds)


def multi_task_metrics(tasks: Sequence[Task]) -> Callable[[Any], dict[str, float]]:
    """Build the `compute_metrics` of several tasks; each evaluation tunes the thresholds first."""

    def compute_metrics(prediction: Any) -> dict[str, float]:
        logits, targets = prediction.predictions, prediction.label_ids
        thresholds = tune_task_thresholds(tasks, logits, targets)
        return task_scores(tasks, logits, targets, thresholds)

    return compute_metrics
