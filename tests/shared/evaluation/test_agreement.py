import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from shared.evaluation.agreement import agreement, agreement_table, decision_kappa, is_stable

NAMES = ["bug", "docs", "never"]


@pytest.fixture
def measured():
    """Fifty rows of Cohen's usual example for the label bug; docs is the rest."""
    counts = {(1, 1): 20, (1, 0): 5, (0, 1): 10, (0, 0): 15}
    pairs = np.array([pair for pair, n in counts.items() for _ in range(n)])
    y_true, y_pred = (np.column_stack([p, 1 - p, 0 * p]) for p in pairs.T)
    return agreement(y_true, y_pred, NAMES)


def test_figures_are_those_of_a_hand_computed_example(measured):
    metrics, per_label = measured
    # Observed .7; by chance .5 x .6 + .5 x .4 = .5.
    assert [row["kappa"] for row in per_label] == [pytest.approx(0.4), pytest.approx(0.4), None]
    assert per_label[0]["f1"] == pytest.approx(2 * 20 / (25 + 30))
    assert [(row["given"], row["predicted"]) for row in per_label] == [(25, 30), (25, 20), (0, 0)]
    assert metrics["kappa"] == pytest.approx(0.4)
    assert metrics["accuracy"] == metrics["micro_f1"] == pytest.approx(0.7)
    assert 0.5 < metrics["accuracy_low"] < 0.7 < metrics["accuracy_high"] < 0.9


def test_a_row_without_an_answer_is_a_disagreement():
    y = np.eye(2)
    metrics, _ = agreement(y, np.array([[1, 0], [0, 0]]), NAMES[:2])
    assert metrics["accuracy"] == 0.5


def test_one_row_alone_has_no_kappa():
    metrics, per_label = agreement(np.array([[1, 0]]), np.array([[1, 0]]), NAMES[:2])
    assert metrics["kappa"] is None
    assert metrics["accuracy"] == 1
    assert "| bug | 1 | 1 | 1.000 | - |" in agreement_table(metrics, per_label)


def test_the_table(measured):
    table = agreement_table(*measured)
    assert table.startswith("Agreement on 50 labelled texts: accuracy 0.700 (95 % interval 0.")
    assert "| bug | 25 | 30 | 0.727 | 0.400 |" in table
    assert "| never | 0 | 0 | 0.000 | - |" in table


def test_kappa_of_two_models():
    names = [0, 1, 2, 2, 1, 0, 0, 2]
    others = [0, 1, 2, 1, 1, 0, 2, 2]
    one_hot, other = np.eye(3, dtype=bool)[names], np.eye(3, dtype=bool)[others]
    expected = cohen_kappa_score(names, others)
    assert decision_kappa(one_hot, other, single_label=True) == pytest.approx(expected)
    expected = cohen_kappa_score(one_hot.ravel(), other.ravel())
    assert decision_kappa(one_hot, other, single_label=False) == pytest.approx(expected)


@pytest.mark.parametrize("single_label", [True, False])
def test_models_that_chance_cannot_make_differ_agree(single_label):
    y = np.ones((4, 1), bool)
    assert decision_kappa(y, y, single_label=single_label) == 1


def test_predictions_are_stable_after_three_rounds_of_agreement():
    assert not is_stable([1.0, 1.0])
    assert is_stable([0.5, 0.99, 1.0, 0.99])
    assert not is_stable([1.0, 1.0, 0.98, 0.98])
