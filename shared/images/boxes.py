"""Boxes as x1, y1, x2, y2: how much they overlap, and which of those that overlap to keep."""

from __future__ import annotations

import numpy as np


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each pair of boxes: float64 (first, second).

    Parameters
    ----------
    first, second : arrays of shape (boxes, 4)
        x1, y1, x2, y2. A pair without any area has 0.
    """
    first, second = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (first, second))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def non_maximum_suppression(
    boxes: np.ndarray,
    scores: np.ndarray,
    threshold: float = 0.5,
    classes: np.ndarray | None = None,
) -> np.ndarray:
    """Return the rows of the boxes to keep, the best first.

    A box is left out if a better one that is kept overlaps it by more than the threshold. Boxes of
    equal scores keep their order.

    Parameters
    ----------
    boxes : array of shape (boxes, 4)
        x1, y1, x2, y2.
    scores : array of shape (boxes,)
    threshold : float, default .5
        Intersection over union.
    classes : int array of shape (boxes,), optional
        Boxes of different classes do not suppress each other.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)[order]
    suppresses = box_iou(boxes, boxes) > threshold
    if classes is not None:
        classes = np.asarray(classes)[order]
        suppresses &= classes[:, None] == classes[None]
    kept = np.ones(len(order), bool)
    for row in range(len(order)):
        if kept[row]:
            kept[row + 1 :] &= ~suppresses[row, row + 1 :]
    return order[kept]
