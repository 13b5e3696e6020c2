"""Tests of thresholds that are tuned, and of the flag --thresholds."""

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.evaluation.decisions import tune_thresholds
from shared.evaluation.thresholds import find_thresholds, fixed_threshold, tuned_rule


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


def test_a_rule_by_validation_rows_or_without_any():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 3)) < 0.3).astype(int)
    scores = np.clip(labels * 0.2 + rng.random((60, 3)) * 0.2, 0, 1)
    rule = tuned_rule(scores, labels, single_label=False, every_text_has_a_label=True)
    assert rule.thresholds == tuple(tune_thresholds(scores, labels, tolerance=2))
    assert not rule.at_least_one
    none = scores[:0], labels[:0]
    rule = tuned_rule(*none, single_label=False, every_text_has_a_label=True)
    assert (rule.thresholds, rule.at_least_one) == ((0.5, 0.5, 0.5), True)
    assert not tuned_rule(*none, single_label=False).at_least_one
    assert tuned_rule(scores, labels, single_label=True).top_k == 1
