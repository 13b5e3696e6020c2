"""Decision rules: which labels a text gets, and how far it is from others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.cli.errors import UserError
from shared.evaluation.rules import DecisionRule

scores = arrays(np.float64, (5, 4), elements=st.floats(0, 1))
rules = st.one_of(
    st.integers(1, 4).map(lambda k: DecisionRule(top_k=k)),
    st.builds(
        DecisionRule,
        st.tuples(*[st.floats(0.01, 0.99)] * 4),
        at_least_one=st.booleans(),
    ),
)


def test_each_rule_chooses_its_labels():
    row = np.array([[0.2, 0.6, 0.4]])
    assert DecisionRule((0.1, 0.7, 0.4)).choose(row).tolist() == [[True, False, True]]
    assert DecisionRule((0.9, 0.9, 0.9)).choose(row).tolist() == [[False, False, False]]
    assert DecisionRule((0.9, 0.9, 0.9), at_least_one=True).choose(row).tolist() == [
        [False, True, False]
    ]
    assert DecisionRule(top_k=2).choose(row).tolist() == [[False, True, True]]
    assert DecisionRule.of(0.3, 3).thresholds == (0.3, 0.3, 0.3)
    assert DecisionRule.of([0.1, 0.2, 0.3], 3, single_label=True) == DecisionRule(top_k=1)


@given(rules, scores, st.integers(0, 2**32 - 1))
def test_a_change_of_scores_below_the_margin_changes_no_label(rule, scores, seed):
    margin = rule.margin(scores)
    assert margin.shape == (5,)
    assert (margin >= 0).all()
    # Rules that compare two scores allow each of them half of the margin.
    change = np.random.default_rng(seed).uniform(-0.49, 0.49, scores.shape) * margin[:, None]
    np.testing.assert_array_equal(rule.choose(scores + change), rule.choose(scores))


@given(rules)
def test_a_rule_survives_json(rule):
    assert DecisionRule.from_json(rule.to_json(), 4) == rule


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"top_k": 5}, "top_k 5: must be 1 to 4"),
        ({"top_k": "1"}, "top_k '1': must be 1 to 4"),
        ({"thresholds": [0.5] * 3}, "no threshold for each of the 4 labels"),
        ({"thresholds": [0.5, 0.5, 0.5, 7]}, "not a number from 0 to 1"),
        ({"thresholds": ["a", "b", "c", "d"]}, "not a number from 0 to 1"),
        ({}, "no threshold for each"),
    ],
)
def test_a_damaged_rule_is_refused(value, expected):
    with pytest.raises(ValueError, match=expected):
        DecisionRule.from_json(value, 4)


def test_the_mean_of_rules():
    a, b = DecisionRule((0.2, 0.4)), DecisionRule((0.4, 0.8), at_least_one=True)
    mean = DecisionRule.mean([a, b])
    assert mean.thresholds == pytest.approx((0.3, 0.6))
    assert mean.at_least_one
    assert DecisionRule.mean([DecisionRule(top_k=1)] * 2) == DecisionRule(top_k=1)
    with pytest.raises(UserError, match="cannot be averaged"):
        DecisionRule.mean([a, DecisionRule(top_k=1)])
