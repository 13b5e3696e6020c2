"""Mean average precision of boxes, as COCO defines it.

Source: Lin et al. 2014, "Microsoft COCO", and the code of pycocotools, whose figures these are:
at most 100 boxes of an image and class, precision interpolated at 101 recalls, mean over the IoU
thresholds .50 to .95 and the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shared.images.boxes import box_iou, non_maximum_suppression

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST_BOXES = 100  # of an image and a class
OVERLAP = 0.5  # of two boxes of a class, above which the lower one is left out


def average_precisions(
    predicted: Sequence[np.ndarray],
    true: Sequence[np.ndarray],
    n_classes: int,
    thresholds: np.ndarray = THRESHOLDS,
) -> np.ndarray:
    """Return the average precision of each class at each threshold; NaN for a class without boxes.

    Parameters
    ----------
    predicted : sequence of arrays of shape (boxes, 6)
        For each image: x1, y1, x2, y2, score and class number.
    true : sequence of arrays of shape (boxes, 5)
        For each image: x1, y1, x2, y2 and class number.
    n_classes : int
    thresholds : array of shape (thresholds,)
        Of the intersection over union.

    Returns
    -------
    float64 array of shape (classes, thresholds)
    """
    result = np.full((n_classes, len(thresholds)), np.nan)
    for number in range(n_classes):
        scores, hits, n_true = [], [], 0
        for boxes, targets in zip(predicted, true, strict=True):
            boxes, targets = boxes[boxes[:, 5] == number], targets[targets[:, 4] == number]
            boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")[:MOST_BOXES]]
            scores.append(boxes[:, 4])
            hits.append(match_boxes(boxes[:, :4], targets[:, :4], thresholds) >= 0)
            n_true += len(targets)
        if n_true:
            order = np.argsort(-np.concatenate(scores), kind="stable")
            result[number] = [
                _area(is_hit, n_true) for is_hit in np.concatenate(hits, axis=1)[:, order]
            ]
    return result


def match_boxes(boxes: np.ndarray, true: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the true box that each box hits, or -1: int (thresholds, boxes).

    The boxes, the best first, take the true box that they overlap most among those that no better
    box has taken.

    Parameters
    ----------
    boxes, true : arrays of shape (boxes, 4)
    thresholds : array of shape (thresholds,)
        Least intersection over union of a hit.
    """
    overlaps = box_iou(boxes, true)
    matches = np.full((len(thresholds), len(boxes)), -1)
    for at, threshold in enumerate(thresholds):
        left = np.ones(len(true), bool)
        for row, overlap in enumerate(overlaps):
            candidates = np.flatnonzero(left & (overlap >= min(threshold, 1 - 1e-10)))
            if len(candidates):
                # Of equal ones the last, as pycocotools.
                best = candidates[::-1][np.argmax(overlap[candidates[::-1]])]
                matches[at, row] = best
                left[best] = False
    return matches


def _area(is_hit: np.ndarray, n_true: int) -> float:
    """Return the mean precision at 101 recalls of hits and misses, the best score first."""
    hits = np.cumsum(is_hit)
    recall = hits / n_true
    precision = hits / np.arange(1, len(hits) + 1)
    # The precision at a recall is the best one at that recall or a higher one.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0)[places].mean())


def detection_scores(
    predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], n_classes: int
) -> dict[str, float]:
    """Return ``map`` (mean over thresholds and classes) and ``map50`` (at .50)."""
    values = average_precisions(predicted, true, n_classes)
    if np.isnan(values).all():
        return {"map": 0.0, "map50": 0.0}
    return {"map": float(np.nanmean(values)), "map50": float(np.nanmean(values[:, 0]))}


def kept_boxes(predictions: np.ndarray) -> list[np.ndarray]:
    """Return the boxes of each image after non-maximum suppression: arrays (boxes, 6).

    Parameters
    ----------
    predictions : array of shape (images, boxes + 1, 6)
        From `shared.training.BoxLoss.measure`.
    """
    return [suppress_boxes(boxes) for boxes in predictions[:, :-1]]


def suppress_boxes(boxes: np.ndarray) -> np.ndarray:
    """Return the boxes of an image after non-maximum suppression within each class.

    Parameters
    ----------
    boxes : array of shape (boxes, 6)
        From `shared.models.image_networks.find_boxes`.
    """
    return boxes[non_maximum_suppression(boxes[:, :4], boxes[:, 4], OVERLAP, boxes[:, 5])]


def true_boxes(labels: np.ndarray) -> list[np.ndarray]:
    """Return the boxes of each image without padding: arrays (boxes, 5)."""
    return [boxes[boxes[:, 4] >= 0] for boxes in labels]


def detection_metrics(n_classes: int) -> Callable[[Any], dict[str, float]]:
    """Build the `compute_metrics` of detection; predictions are those of `BoxLoss.measure`."""

    def compute_metrics(eval_prediction: Any) -> dict[str, float]:
        predicted = kept_boxes(eval_prediction.predictions)
        return detection_scores(predicted, true_boxes(eval_prediction.label_ids), n_classes)

    return compute_metrics


def tune_score(prediction: Any) -> float:
    """Return the score from which on boxes have the best F1, at an IoU of .50 and over all classes.

    Parameters
    ----------
    prediction : EvalPrediction or PredictionOutput
        Of validation images, as for `detection_metrics`. Without any box, .5 is returned.
    """
    predicted, true = kept_boxes(prediction.predictions), true_boxes(prediction.label_ids)
    scores, hits, n_true = [np.zeros(0)], [np.zeros(0, bool)], sum(map(len, true))
    for boxes, targets in zip(predicted, true, strict=True):
        for number in np.unique(boxes[:, 5]):
            own = boxes[boxes[:, 5] == number]
            own = own[np.argsort(-own[:, 4], kind="stable")]
            matches = match_boxes(own[:, :4], targets[targets[:, 4] == number, :4], THRESHOLDS[:1])
            scores.append(own[:, 4])
            hits.append(matches[0] >= 0)
    all_scores, all_hits = np.concatenate(scores), np.concatenate(hits)
    if not all_hits.any():
        return 0.5
    order = np.argsort(-all_scores, kind="stable")
    n_hits = np.cumsum(all_hits[order])
    f1 = 2 * n_hits / (np.arange(1, len(order) + 1) + n_true)
    return float(all_scores[order[int(np.argmax(f1))]])


def detection_report(
    predicted: Sequence[np.ndarray],
    true: Sequence[np.ndarray],
    class_names: Sequence[str],
    *,
    score: float,
) -> list[dict[str, Any]]:
    """Return the figures of each class: average precisions, and precision and recall at a score.

    Parameters
    ----------
    predicted, true : as in `average_precisions`
    class_names : sequence of str
    score : float
        Boxes below it do not count in ``precision`` and ``recall``, which are at an IoU of .50.
    """
    values = average_precisions(predicted, true, len(class_names))
    rows = []
    for number, name in enumerate(class_names):
        n_hits = n_predicted = n_true = 0
        for boxes, targets in zip(predicted, true, strict=True):
            boxes = boxes[(boxes[:, 5] == number) & (boxes[:, 4] >= score)]
            targets = targets[targets[:, 4] == number]
            n_hits += int((match_boxes(boxes[:, :4], targets[:, :4], THRESHOLDS[:1]) >= 0).sum())
            n_predicted, n_true = n_predicted + len(boxes), n_true + len(targets)
        rows.append(
            {
                "class": name,
                "ap50": values[number, 0],
                "ap": float(values[number].mean()),
                "precision": n_hits / n_predicted if n_predicted else 0.0,
                "recall": n_hits / n_true if n_true else 0.0,
                "boxes": n_true,
                "predicted": n_predicted,
            }
        )
    return rows
