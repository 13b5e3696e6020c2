import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import cohen_kappa_score

from shared.evaluation.agreement import (
    agreement,
    agreement_table,
    alpha_interval,
    answer_counts,
    decision_kappa,
    fleiss_kappa,
    is_stable,
    krippendorff_alpha,
    positive_agreement,
)

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


# Any number of annotators

# Fourteen annotators, ten texts, five categories: https://en.wikipedia.org/wiki/Fleiss'_kappa.
FLEISS = np.array(
    [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
)
# Four annotators, twelve texts, some without all answers; 0: none (Krippendorff 2011, section C).
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
counts_of_texts = arrays(
    np.int64, st.tuples(st.integers(1, 12), st.integers(2, 4)), elements=st.integers(0, 4)
)


def counts_of(table):
    return (table.T[:, :, None] == np.arange(1, table.max() + 1)).sum(axis=1)


def test_fleiss_kappa_of_the_usual_example():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)


def test_alpha_of_the_example_of_krippendorff():
    assert krippendorff_alpha(counts_of(KRIPPENDORFF)) == pytest.approx(0.743, abs=5e-4)


def test_with_two_annotators_of_all_texts_fleiss_kappa_is_that_of_scott():
    # Both say yes to 20 texts, both no to 15, they differ on 15: .7 observed; yes in 55 %.
    counts = np.array([[0, 2]] * 20 + [[2, 0]] * 15 + [[1, 1]] * 15)
    by_chance = 0.55**2 + 0.45**2
    assert fleiss_kappa(counts) == pytest.approx((0.7 - by_chance) / (1 - by_chance))


@given(counts_of_texts)
def test_alpha_is_one_minus_the_disagreement_of_pairs_over_that_of_all_answers(counts):
    answers = [np.repeat(np.arange(len(row)), row) for row in counts if row.sum() > 1]
    everything = np.concatenate([*answers, np.zeros(0, np.int64)])

    def differing(values):  # the share of the ordered pairs that differ
        n = len(values)
        return (values[:, None] != values).sum() / (n * (n - 1))

    if len(np.unique(everything)) < 2:
        assert krippendorff_alpha(counts) is None
        assert alpha_interval(counts) is None
        return
    sizes = np.array([len(values) for values in answers])
    observed = np.average([differing(values) for values in answers], weights=sizes)
    expected = 1 - observed / differing(everything)
    assert krippendorff_alpha(counts) == pytest.approx(expected)
    assert krippendorff_alpha(counts[::-1, ::-1]) == pytest.approx(expected)
    low, high = alpha_interval(counts, n_resamples=20)
    assert low <= krippendorff_alpha(counts) <= high <= 1


def test_the_interval_of_alpha_narrows_with_the_texts():
    few, many = counts_of(KRIPPENDORFF), np.tile(counts_of(KRIPPENDORFF), (20, 1))
    (low, high), (low_of_many, high_of_many) = alpha_interval(few), alpha_interval(many)
    assert low < low_of_many < 0.743 < high_of_many < high
    assert high_of_many - low_of_many < 0.4 * (high - low)


@settings(max_examples=50)
@given(counts_of_texts)
def test_positive_agreement_is_that_of_the_pairs_of_answers(counts):
    both = one = 0
    for row in counts:
        answers = np.repeat(np.arange(len(row)), row) == 1
        for i, first in enumerate(answers):
            others = np.delete(answers, i)
            both, one = both + (first & others).sum(), one + first * len(others)
    expected = both / one if one else None
    assert positive_agreement(counts.sum(axis=1), counts[:, 1]) == (
        expected if expected is None else pytest.approx(expected)
    )


def test_answers_are_counted_by_text():
    labels = np.array([[1, 0], [1, 1], [0, 1]], bool)
    counts = answer_counts(np.array([2, 0, 2]), labels, 4)
    assert counts.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
