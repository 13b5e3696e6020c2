"""Permutation importance."""

import numpy as np
import pytest

from shared.evaluation.importance import MOST_ROWS, log_loss, permutation_importance


def test_log_loss():
    y = np.array([[1, 0], [0, 1]])
    scores = np.array([[0.5, 0.5], [0.75, 0.25]])
    assert log_loss(y, scores) == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert np.isfinite(log_loss(y, 1.0 - y))


@pytest.mark.parametrize("n_rows", [300, MOST_ROWS + 500])
def test_only_a_column_that_is_read_is_important(n_rows):
    x = np.random.default_rng(0).normal(size=(n_rows, 3))
    y = (x[:, [1]] > 0) == np.array([False, True])
    sizes = []

    def score(features):
        sizes.append(len(features))
        positive = 1 / (1 + np.exp(-4 * features[:, 1]))
        return np.stack([1 - positive, positive], axis=1)

    before = x.copy()
    importance = permutation_importance(score, x, y, seed=1)
    assert importance[[0, 2]] == pytest.approx(0)
    assert importance[1] > 1
    assert max(sizes) == 5 * min(n_rows, MOST_ROWS)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(importance, permutation_importance(score, x, y, seed=1))
