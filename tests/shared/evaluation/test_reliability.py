"""Measures of calibration, by hand."""

import numpy as np
import pytest

from shared.evaluation.reliability import (
    brier_score,
    calibration_error,
    calibration_metrics,
    reliability,
)


def test_measures_of_known_scores():
    y = np.array([[1, 0], [1, 0], [0, 1], [1, 0]])
    scores = np.array([[0.9, 0.2], [0.9, 0.2], [0.9, 0.2], [0.9, 0.2]])
    points = reliability(y, scores)
    assert points["score"] == pytest.approx([0.2, 0.9])
    assert points["share"] == pytest.approx([0.25, 0.75])
    assert points["count"].tolist() == [4, 4]
    assert calibration_error(y, scores) == pytest.approx((0.05 + 0.15) / 2)
    assert calibration_error(y, scores, single_label=True) == pytest.approx(0.15)
    assert brier_score(y, scores) == pytest.approx(np.mean((scores - y) ** 2))
    metrics = calibration_metrics(y, scores, y, single_label=False)
    assert metrics["test_brier"] == metrics["test_ece"] == 0
    assert metrics["test_ece_uncalibrated"] == pytest.approx(0.1)
