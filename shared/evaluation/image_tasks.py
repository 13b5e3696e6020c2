"""The metrics of the tasks of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shared.evaluation.detection import detection_metrics
from shared.evaluation.metrics import two_output_metrics
from shared.evaluation.segmentation import segmentation_metrics

if TYPE_CHECKING:
    from shared.images.reading import ImageData


def image_metrics(data: ImageData) -> Callable[[Any], dict[str, float]]:
    """Build the `compute_metrics` of the task of some images.

    Those of `two_output_metrics` to classify, of `segmentation_metrics` or `detection_metrics`.
    """
    n_classes = len(data.class_names)
    if data.task == "segment":
        return segmentation_metrics(n_classes)
    if data.task == "detect":
        return detection_metrics(n_classes)
    return two_output_metrics(n_classes, len(data.second_names))
