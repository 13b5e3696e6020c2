"""What ``report.html`` shows: from the arrays of an evaluation to JSON values, a section at a time.

Labels stand in the values by their number. All lists have an end, so that the page of thousands of
labels or rows stays small; the page says what was left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.evaluation.confusion import co_occurrences, confused_labels, largest_pairs
from shared.evaluation.curves import coverage_curve, threshold_curve
from shared.evaluation.reliability import brier_score, calibration_error, reliability
from shared.reports.excerpts import headline

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.evaluation.label_errors import LabelError
    from shared.reports.reasons import Explain

MOST_CURVES = 200  # labels that have a curve of their own
MOST_PAIRS = 25
MOST_CELLS = 20  # rows and columns of the chart of confused labels
MOST_ROWS = 300  # of a list
ROWS_PER_LABEL = 3  # that a list has of each label, if there is room
MOST_CHARACTERS = 1000  # of a text
MOST_SCORES = 5  # of a row, beside those of its labels
_CURVES = {"loss": "training loss", "eval_loss": "validation loss"}
_LEARNING_METRICS = ("eval_accuracy", "eval_micro_f1")


def figures(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of the summary: name, value, and the ends of the interval, if known."""
    part = "oof" if "oof_micro_f1" in metrics else "test"  # the rows of the page
    micro = "accuracy" if f"{part}_accuracy" in metrics else "micro F1"
    names = {
        "micro_f1": micro,
        "macro_f1": "macro F1",
        "subset_accuracy": "rows with all labels right",
        "average_precision": "average precision",
    }
    if micro == "accuracy":
        del names["subset_accuracy"]
    return [
        {
            "name": name,
            "value": metrics[f"{part}_{key}"],
            "low": metrics.get(f"{part}_{key}_low"),
            "high": metrics.get(f"{part}_{key}_high"),
        }
        for key, name in names.items()
        if f"{part}_{key}" in metrics
    ]


def label_curves(
    y: np.ndarray, scores: np.ndarray, thresholds: np.ndarray | None
) -> list[dict[str, Any]]:
    """Return the threshold curve of each label, of the most frequent ones if they are many.

    Arrays are of shape (rows, labels). ``saved`` is the point of the threshold in use; None without
    thresholds.
    """
    counts = y.sum(axis=0)
    shown = np.argsort(-counts, kind="stable")[:MOST_CURVES]
    curves = []
    for label in np.sort(shown[counts[shown] > 0]).tolist():
        saved = None if thresholds is None else float(thresholds[label])
        curve = threshold_curve(y[:, label], scores[:, label], saved)
        curves.append(
            {
                "label": label,
                "positives": int(counts[label]),
                "saved": None if saved is None else curve["threshold"].tolist().index(saved),
                **_lists(curve),
            }
        )
    return curves


def abstention_curve(y: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> dict:
    """Return how many rows are tagged, and how many of them right, by the least confidence."""
    right = (y == predicted).all(axis=1)
    return {"positives": len(y), **_lists(threshold_curve(right, confidence, 0.0))}


def coverage(y: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> list[dict]:
    """Return the points of the coverage-accuracy curve, as records."""
    return _records(_lists(coverage_curve(y, predicted, confidence)))


def calibration(
    y: np.ndarray,
    scores: np.ndarray,
    raw_scores: np.ndarray | None,
    *,
    single_label: bool,
) -> dict[str, Any]:
    """Return the reliability curve, ECE and Brier score, before and after calibration."""
    versions = {"scores": scores}
    if raw_scores is not None:
        versions = {"before calibration": raw_scores, "after calibration": scores}
    points, measures = [], []
    for name, values in versions.items():
        curve = _lists(reliability(y, values, single_label=single_label))
        points += [{"scores": name, **point} for point in _records(curve)]
        error = calibration_error(y, values, single_label=single_label)
        measures.append({"name": name, "ece": error, "brier": brier_score(y, values)})
    return {"points": points, "measures": measures}


def confusions(y: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return the pairs of labels that are confused most, and all cells of the ones concerned."""
    counts = confused_labels(y, predicted)
    pairs = largest_pairs(counts, MOST_PAIRS)
    labels = list(dict.fromkeys(label for pair in pairs for label in pair[:2]))[:MOST_CELLS]
    block = counts[labels][:, labels].toarray()
    cells = [
        {"missed": labels[i], "predicted": labels[j], "rows": int(block[i, j])}
        for i, j in zip(*np.nonzero(block), strict=True)
    ]
    return {"pairs": pairs, "cells": cells, "total": int(counts.count_nonzero())}


def pairs_together(y: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return pairs of labels with the rows that have both: true labels, predicted labels."""
    from scipy.sparse import triu

    true, chosen = co_occurrences(y), co_occurrences(predicted)
    pairs = largest_pairs(triu(true, k=1), MOST_PAIRS)
    return [(a, b, count, int(chosen[a, b])) for a, b, count in pairs]


def learning_curve(log_history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the losses and the validation metric of each epoch, as records."""
    names = dict(_CURVES)
    for key in _LEARNING_METRICS:
        if any(key in entry for entry in log_history):
            names[key] = key.replace("eval_", "validation ").replace("_", " ").replace("f1", "F1")
            break
    return [
        {"epoch": entry["epoch"], "name": name, "value": float(entry[key]), "loss": "loss" in key}
        for entry in log_history
        for key, name in names.items()
        if key in entry and np.isfinite(entry[key])
    ]


def row_lists(
    rows: Dataset,
    y: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    label_errors: Sequence[LabelError],
    explain: Explain | None = None,
) -> dict[str, Any]:
    """Return the worst errors, the most doubtful rows and the likely label errors, with texts.

    Parameters
    ----------
    rows : Dataset with ``row`` and ``text``
    y, scores, predicted : array of shape (rows, labels)
    confidence : array of shape (rows,)
    label_errors : sequence of LabelError
    explain : callable, optional
        See `shared.reports.reasons.Reasons.explain`.

    Returns
    -------
    dict
        ``rows``, by their index, and the lists ``errors``, ``doubtful`` and ``label_errors`` of
        indices, each with ``*_total``, the number of rows that belong to the list. With `explain`,
        rows have its reasons, and ``note`` says which tagger they are of.
    """
    wrong = y != predicted
    # How far the score of the worst wrong label is from the truth.
    size = (np.abs(scores - y) * wrong).max(axis=1, initial=0)
    errors = np.argsort(-size, kind="stable")
    errors = errors[wrong[errors].any(axis=1)]
    doubtful = np.argsort(confidence, kind="stable")
    picked = {
        "errors": _pick(errors, wrong).tolist(),
        "doubtful": _pick(doubtful, y | predicted).tolist(),
        "label_errors": [error.row for error in label_errors[:MOST_ROWS]],
    }
    totals = {"errors": len(errors), "doubtful": len(doubtful), "label_errors": len(label_errors)}
    of_errors = {error.row: error.reason for error in label_errors[:MOST_ROWS]}
    indices = sorted(set().union(*picked.values()))
    chosen = rows.select(indices)
    # The labels of a row, those first that are missed or wrongly predicted.
    labels = {i: [*np.flatnonzero(wrong[i]), *np.flatnonzero(y[i] & predicted[i])] for i in indices}
    reasons, note = explain(list(picked.values()), labels) if explain else ({}, "")
    records = {}
    for index, number, text in zip(indices, chosen["row"], chosen["text"], strict=True):
        best = np.argsort(-scores[index], kind="stable")[:MOST_SCORES]
        named = np.flatnonzero(y[index] | predicted[index])[: 4 * MOST_SCORES]
        shown = {label: round(float(scores[index, label]), 3) for label in (*named, *best)}
        records[index] = {
            "row": number,
            "headline": headline(text, 120),
            "text": text[:MOST_CHARACTERS],
            "cut": max(0, len(text) - MOST_CHARACTERS),
            "true": np.flatnonzero(y[index]).tolist(),
            "predicted": np.flatnonzero(predicted[index]).tolist(),
            "scores": [[int(label), score] for label, score in shown.items()],
            "confidence": round(float(confidence[index]), 3),
            "reason": of_errors.get(index),
            **reasons.get(index, {}),
        }
    return {
        "rows": records,
        "note": note,
        **picked,
        **{f"{name}_total": n for name, n in totals.items()},
    }


def _pick(order: np.ndarray, concerns: np.ndarray) -> np.ndarray:
    """Return the first rows of an order, and the first of each label; still in this order.

    `concerns`, bool of shape (rows, labels), says which labels a row is about.
    """
    ranks = [np.arange(min(len(order), MOST_ROWS // 2))]
    ranked = concerns[order]
    # Frequent labels have rows among the first ones anyway; the others come first here.
    for label in np.argsort(ranked.sum(axis=0), kind="stable").tolist():
        ranks.append(np.flatnonzero(ranked[:, label])[:ROWS_PER_LABEL])
    distinct = list(dict.fromkeys(np.concatenate(ranks).tolist()))[:MOST_ROWS]
    return order[sorted(distinct)]


def _lists(columns: Mapping[str, np.ndarray]) -> dict[str, list]:
    """Return numbers with six significant digits: scores near 0 stay different."""
    return {name: [_significant(v) for v in values.tolist()] for name, values in columns.items()}


def _significant(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _records(columns: Mapping[str, list]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
