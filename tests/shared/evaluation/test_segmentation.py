import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.evaluation.segmentation import class_iou, segmentation_report, segmentation_scores


@given(arrays(int, 40, elements=st.integers(0, 3)), arrays(int, 40, elements=st.integers(0, 3)))
def test_the_overlap_is_that_of_sets_of_pixels(true, predicted):
    counts = np.zeros((5, 5), int)
    np.add.at(counts, (true, predicted), 1)
    for number, iou in enumerate(class_iou(counts)):
        union = ((true == number) | (predicted == number)).sum()
        overlap = ((true == number) & (predicted == number)).sum()
        assert iou == pytest.approx(overlap / union if union else np.nan, nan_ok=True)
    scores = segmentation_scores(counts)
    assert scores["pixel_accuracy"] == pytest.approx((true == predicted).mean())
    # A class that occurs nowhere, such as the fifth, does not count.
    assert scores["mean_iou"] == pytest.approx(np.nanmean(class_iou(counts)[:4]))


def test_a_worked_report():
    counts = np.array([[6, 2], [0, 2]])
    first, second = segmentation_report(counts, ["road", "sky"])
    assert first == {"class": "road", "iou": 0.75, "precision": 1, "recall": 0.75, "pixels": 8}
    assert second == {"class": "sky", "iou": 0.5, "precision": 0.5, "recall": 1, "pixels": 2}
