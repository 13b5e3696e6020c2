import numpy as np
import pytest

from shared.evaluation.curves import MOST_POINTS, coverage_curve, threshold_curve


@pytest.mark.parametrize("n_rows", [1, 2, 7, 1000])
@pytest.mark.parametrize("digits", [1, 9])  # with and without equal scores
def test_every_point_has_the_counts_of_its_threshold(n_rows, digits):
    rng = np.random.default_rng(0)
    y, scores = rng.random(n_rows) < 0.3, rng.random(n_rows).round(digits)
    curve = threshold_curve(y, scores, 0.25)
    assert 0.25 in curve["threshold"]
    assert (np.diff(curve["threshold"]) < 0).all()
    assert len(curve["threshold"]) <= MOST_POINTS + 1
    assert curve["predicted"][-1] == n_rows or scores.min() > 0.25
    for threshold, predicted, hits in zip(*curve.values(), strict=True):
        assert predicted == (scores >= threshold).sum()
        assert hits == (y & (scores >= threshold)).sum()


def test_coverage_takes_the_surest_rows_first():
    y = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    predicted = np.array([[1, 0], [0, 1], [0, 1], [1, 1]], dtype=bool)
    curve = coverage_curve(y, predicted, np.array([0.9, 0.1, 0.8, 0.3]))
    np.testing.assert_allclose(curve["coverage"], [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve["subset_accuracy"], [1, 1, 2 / 3, 1 / 2])
    np.testing.assert_allclose(curve["micro_f1"], [1, 1, 6 / 7, 6 / 9])
