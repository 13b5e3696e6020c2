"""Metrics of segmentation, from counts of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shared.evaluation.metrics import ratio


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each class; NaN for one that no pixel has.

    Parameters
    ----------
    counts : array of shape (..., classes, classes)
        Pixels of each true class (rows) that each class was predicted for (columns).
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(axis=-1) + counts.sum(axis=-2) - hits
    return ratio(hits, union, np.nan)


def segmentation_scores(counts: np.ndarray) -> dict[str, float]:
    """Return ``mean_iou`` over the classes that occur, and ``pixel_accuracy``.

    Parameters
    ----------
    counts : array of shape (classes, classes)
        As in `class_iou`. A class that is neither true nor predicted anywhere does not count.
    """
    return {
        "mean_iou": float(np.nanmean(class_iou(counts))),
        "pixel_accuracy": float(np.trace(counts) / max(counts.sum(), 1)),
    }


def segmentation_metrics(n_classes: int) -> Callable[[Any], dict[str, float]]:
    """Build the `compute_metrics` of segmentation; predictions are those of `PixelLoss.measure`."""

    def compute_metrics(eval_prediction: Any) -> dict[str, float]:
        return segmentation_scores(pixel_counts(eval_prediction.predictions, n_classes).sum(axis=0))

    return compute_metrics


def pixel_counts(predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Return counts for each image, int64 (images, classes, classes), from `PixelLoss.measure`."""
    counts = predictions[:, : n_classes**2].astype(np.int64)
    return counts.reshape(-1, n_classes, n_classes)


def segmentation_report(counts: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return ``class``, ``iou``, ``precision``, ``recall`` and ``pixels`` of each class.

    Parameters
    ----------
    counts : array of shape (classes, classes)
        As in `class_iou`.
    class_names : sequence of str
    """
    hits, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    columns = (class_iou(counts), ratio(hits, predicted), ratio(hits, true), true)
    return [
        {"class": name, "iou": iou, "precision": precision, "recall": recall, "pixels": int(pixels)}
        for name, iou, precision, recall, pixels in zip(class_names, *columns, strict=True)
    ]
