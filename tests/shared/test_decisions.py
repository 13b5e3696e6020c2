import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.decisions import at_least_one, choose_labels, f1_by_threshold, f1_by_top_k, top_k
from shared.metrics import f1_scores

SCORES = np.array([[0.1, 0.3, 0.2], [0.9, 0.6, 0.1], [0.0, 0.0, 0.0]])


@st.composite
def scored_rows(draw):
    """Scores with many ties, and labels, some of which nobody has."""
    rows, labels = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (rows, labels)) / 5
    return scores, rng.random((rows, labels)) < draw(st.sampled_from([0.0, 0.2, 0.7]))


def test_thresholds_include_their_own_score():
    assert choose_labels(SCORES, [0.1, 0.6, 0.2]).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert choose_labels(SCORES, 0.3).tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_one_label_each_whatever_the_thresholds():
    assert choose_labels(SCORES, 0.3, one_each=True).tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_the_best_label_of_a_row_always_applies():
    assert at_least_one(SCORES, 0.2).tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert at_least_one(SCORES).tolist() == [[0, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert at_least_one(np.zeros((0, 3))).shape == (0, 3)


@settings(max_examples=100, deadline=None)
@given(scored_rows(), st.integers(1, 6))
def test_top_k_takes_k_and_none_that_is_worse(rows, k):
    scores, _ = rows
    chosen = top_k(scores, k)
    assert (chosen.sum(axis=1) == min(k, scores.shape[1])).all()
    worst = np.where(chosen, scores, np.inf).min(axis=1)
    assert (np.where(chosen, -np.inf, scores).max(axis=1) <= worst).all()


@settings(max_examples=100, deadline=None)
@given(scored_rows())
def test_sweeps_equal_the_figures_of_each_cutoff(rows):
    scores, y_true = rows
    for name, values in f1_by_top_k(scores, y_true).items():
        expected = [f1_scores(y_true, top_k(scores, k + 1))[name] for k in range(len(values))]
        assert values.tolist() == pytest.approx(expected)
    thresholds = np.array([0.0, 0.2, 0.5, 0.6, 1.0, 2.0])
    for name, values in f1_by_threshold(scores, y_true, thresholds).items():
        expected = [f1_scores(y_true, scores >= t)[name] for t in thresholds]
        assert values.tolist() == pytest.approx(expected)
