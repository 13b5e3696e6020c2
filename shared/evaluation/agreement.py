"""Agreement of two annotators on the same rows: of a person and a model, or of two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.evaluation.bootstrap import bootstrap_interval
from shared.evaluation.metrics import f1_scores, subset_accuracy

# Of `is_stable`; those of the paper.
STABLE_KAPPA = 0.99
STABLE_ROUNDS = 3


def agreement(
    y_true: np.ndarray, y_pred: np.ndarray, label_names: Sequence[str]
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """Return how far predicted labels agree with given ones.

    Parameters
    ----------
    y_true, y_pred : arrays of shape (rows, labels)
        Multi-hot labels; at least one row. A row without an answer has no predicted label.
    label_names : sequence of str

    Returns
    -------
    metrics : dict of str to float or None
        ``rows``; ``accuracy``, of whole rows, with ``accuracy_low`` and ``accuracy_high``, its 95 %
        bootstrap interval; ``micro_f1``; ``macro_f1``; ``kappa``, the mean of those of the labels
        that have one.
    per_label : list of dict
        ``label``, ``given``, ``predicted`` (rows), ``f1`` and ``kappa``. Kappa is None for a label
        about which chance cannot disagree: both annotators give it to all rows, or to none.

    Notes
    -----
    Cohen (1960), A Coefficient of Agreement for Nominal Scales.
    """
    from sklearn.metrics import cohen_kappa_score, f1_score

    y_true, y_pred = np.asarray(y_true, dtype=bool), np.asarray(y_pred, dtype=bool)
    per_label: list[dict[str, Any]] = []
    for name, true, predicted in zip(label_names, y_true.T, y_pred.T, strict=True):
        varies = len(np.unique([true, predicted])) > 1
        per_label.append(
            {
                "label": name,
                "given": int(true.sum()),
                "predicted": int(predicted.sum()),
                "f1": float(f1_score(true, predicted, zero_division=0)),
                "kappa": float(cohen_kappa_score(true, predicted)) if varies else None,
            }
        )
    kappas = [row["kappa"] for row in per_label if row["kappa"] is not None]
    low, high = bootstrap_interval(y_true, y_pred, metric="subset_accuracy")
    f1 = f1_scores(y_true, y_pred)
    metrics = {
        "rows": len(y_true),
        "accuracy": subset_accuracy(y_true, y_pred),
        "accuracy_low": low,
        "accuracy_high": high,
        "micro_f1": f1["micro_f1"],
        "macro_f1": f1["macro_f1"],
        "kappa": float(np.mean(kappas)) if kappas else None,
    }
    return metrics, per_label


def decision_kappa(first: np.ndarray, second: np.ndarray, *, single_label: bool) -> float:
    """Return Cohen's kappa of the labels that two models give to the same texts.

    Parameters
    ----------
    first, second : bool arrays of shape (texts, labels)
    single_label : bool
        True: one decision per text, between all labels. False: one decision per text and label,
        all of them together, so that rare labels count as often as they occur.

    Returns
    -------
    float
        1 where both are equal, also where chance could not make them differ.
    """
    if single_label:
        observed = float((first == second).all(axis=1).mean())
        by_chance = float(first.mean(axis=0) @ second.mean(axis=0))
    else:
        observed, a, b = float((first == second).mean()), first.mean(), second.mean()
        by_chance = float(a * b + (1 - a) * (1 - b))
    return 1.0 if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def is_stable(kappas: Sequence[float]) -> bool:
    """Return whether labelling more no longer changes what the model says.

    Stabilising predictions (Bloodgood and Vijay-Shanker 2009, "A Method for Stopping Active
    Learning Based on Stabilizing Predictions and the Need for User-Adjustable Stopping"): the mean
    kappa of the last three pairs of successive models, on texts that need no labels, is at least
    .99.
    """
    last = kappas[-STABLE_ROUNDS:]
    return len(last) == STABLE_ROUNDS and float(np.mean(last)) >= STABLE_KAPPA


def agreement_table(metrics: dict[str, Any], per_label: Sequence[dict[str, Any]]) -> str:
    """Return the result of `agreement` as a sentence and a Markdown table."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = [
        f"Agreement on {metrics['rows']:,} labelled texts: accuracy {metrics['accuracy']:.3f} "
        f"(95 % interval {metrics['accuracy_low']:.3f} to {metrics['accuracy_high']:.3f}), micro "
        f"F1 {metrics['micro_f1']:.3f}, macro F1 {metrics['macro_f1']:.3f}, mean of Cohen's kappa "
        f"{number(metrics['kappa'])}",
        "",
        "| label | given | by the model | F1 | kappa |",
        "|---|---|---|---|---|",
    ]
    for row in per_label:
        counts = f"{row['given']:,} | {row['predicted']:,}"
        lines.append(
            f"| {row['label']} | {counts} | {number(row['f1'])} | {number(row['kappa'])} |"
        )
    return "\n".join(lines)
