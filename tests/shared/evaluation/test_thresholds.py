"""Tests of the flag --thresholds."""

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.evaluation.decisions import tune_thresholds
from shared.evaluation.thresholds import find_thresholds, fixed_threshold


def test_a_number_is_the_threshold_of_all_labels():
    scores, labels = np.full((5, 3), 0.9), np.zeros((5, 3))  # nothing to tune on
    assert find_thresholds(scores, labels, setting=".5").tolist() == [0.5] * 3


@pytest.mark.parametrize("setting", ["global", "per_label"])
def test_thresholds_are_tuned(setting):
    rng = np.random.default_rng(0)
    labels = rng.random((200, 3)) < 0.3
    scores = np.clip(labels * 0.3 + rng.random((200, 3)) * 0.6, 0, 1)
    options = {"metric": "macro_f1", "tolerance": 2}
    expected = tune_thresholds(scores, labels, per_label=setting == "per_label", **options)
    np.testing.assert_array_equal(
        find_thresholds(scores, labels, setting=setting, **options), expected
    )
    assert fixed_threshold(setting) is None


@pytest.mark.parametrize("setting", ["0", "1", "nan", "-0.5", "none", ""])
def test_other_values_are_refused(setting):
    with pytest.raises(UserError, match=f"--thresholds {setting}: must be global, per_label or"):
        fixed_threshold(setting)
