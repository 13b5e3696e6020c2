import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from shared.cli.errors import UserError
from shared.evaluation.decisions import (
    _f1_and_influence,
    at_least_one,
    choose_labels,
    f1_by_threshold,
    f1_by_top_k,
    sigmoid,
    softmax,
    top_k,
    tune_thresholds,
)
from shared.evaluation.metrics import f1_scores

# --- decisions -----------------------------------------------------------------------------------


SCORES = np.array([[0.1, 0.3, 0.2], [0.9, 0.6, 0.1], [0.0, 0.0, 0.0]])


@st.composite
def scored_rows(draw):
    """Draw scores with many ties, and labels, some of them without positives."""
    rows, labels = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (rows, labels)) / 5
    return scores, rng.random((rows, labels)) < draw(st.sampled_from([0.0, 0.2, 0.7]))


def test_a_score_equal_to_its_threshold_is_chosen():
    assert choose_labels(SCORES, [0.1, 0.6, 0.2]).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert choose_labels(SCORES, 0.3).tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_a_single_label_ignores_the_thresholds():
    assert choose_labels(SCORES, 0.3, single_label=True).tolist() == [
        [0, 1, 0],
        [1, 0, 0],
        [1, 0, 0],
    ]


def test_the_best_label_of_a_row_is_always_chosen():
    assert at_least_one(SCORES, 0.2).tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert at_least_one(SCORES).tolist() == [[0, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert at_least_one(np.zeros((0, 3))).shape == (0, 3)


@settings(max_examples=100, deadline=None)
@given(scored_rows(), st.integers(1, 6))
def test_top_k_chooses_the_k_highest_scores(rows, k):
    scores, _ = rows
    chosen = top_k(scores, k)
    assert (chosen.sum(axis=1) == min(k, scores.shape[1])).all()
    worst = np.where(chosen, scores, np.inf).min(axis=1)
    assert (np.where(chosen, -np.inf, scores).max(axis=1) <= worst).all()


@settings(max_examples=100, deadline=None)
@given(scored_rows())
def test_sweeps_equal_the_f1_of_each_cutoff(rows):
    scores, y_true = rows
    for name, values in f1_by_top_k(scores, y_true).items():
        expected = [f1_scores(y_true, top_k(scores, k + 1))[name] for k in range(len(values))]
        assert values.tolist() == pytest.approx(expected)
    thresholds = np.array([0.0, 0.2, 0.5, 0.6, 1.0, 2.0])
    for name, values in f1_by_threshold(scores, y_true, thresholds).items():
        expected = [f1_scores(y_true, scores >= t)[name] for t in thresholds]
        assert values.tolist() == pytest.approx(expected)


@given(arrays(np.float64, (4, 3), elements=st.floats(-1e4, 1e4)))
def test_softmax_sums_to_one_however_large_the_logits(logits):
    probabilities = softmax(logits)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    best = logits.argmax(axis=1)
    assert probabilities[np.arange(4), best].tolist() == probabilities.max(axis=1).tolist()


# --- thresholds ----------------------------------------------------------------------------------


METRICS = ["micro_f1", "macro_f1"]


def candidates(scores):
    """Return a threshold between 0 and 1 for every distinct set of predictions."""
    bounds = np.unique([0, 1, *np.ravel(scores)])
    return (bounds[:-1] + bounds[1:]) / 2


def sklearn_f1(y_true, y_pred, metric):
    return f1_score(y_true, y_pred, average=metric.removesuffix("_f1"), zero_division=0)


# Scores on a coarse grid with 0 and 1: equal scores, and scores that no threshold can separate.
@st.composite
def tuning_sets(draw, max_rows, labels):
    shape = (draw(st.integers(1, max_rows)), labels)
    scores = draw(arrays(np.float64, shape, elements=st.integers(0, 8).map(lambda i: i / 8)))
    y_true = draw(arrays(bool, shape).filter(np.any))
    return scores, y_true


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=60, deadline=None)
@given(data=tuning_sets(max_rows=12, labels=3))
def test_global_threshold_equals_a_loop_of_sklearn_reports(metric, data):
    scores, y_true = data
    thresholds = tune_thresholds(scores, y_true, metric=metric)
    assert thresholds.shape == (3,)
    assert len(set(thresholds)) == 1
    best = max(sklearn_f1(y_true, scores >= t, metric) for t in candidates(scores))
    reached = sklearn_f1(y_true, scores >= thresholds, metric)
    assert reached == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=60, deadline=None)
@given(data=tuning_sets(max_rows=5, labels=3))
def test_threshold_per_label_equals_every_combination(metric, data):
    scores, y_true = data
    thresholds = tune_thresholds(scores, y_true, metric=metric, per_label=True, shrinkage=0)
    assert ((thresholds > 0) & (thresholds < 1)).all()

    positive = y_true.any(axis=0)  # the others get the global threshold, tested below
    scores, y_true, thresholds = scores[:, positive], y_true[:, positive], thresholds[positive]
    combinations = itertools.product(*map(candidates, scores.T))
    best = max(f1_scores(y_true, scores >= np.array(c))[metric] for c in combinations)
    assert f1_scores(y_true, scores >= thresholds)[metric] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_large_random_scores_equal_a_loop(metric):
    rng = np.random.default_rng(0)
    y_true = rng.random((60, 4)) < [0.1, 0.2, 0.3, 0.5]
    # Rare labels have lower scores, so that micro and macro F1 have different best thresholds.
    scores = sigmoid(rng.normal(size=y_true.shape) + 1.5 * y_true - [3, 2, 1, 0])
    thresholds = tune_thresholds(scores, y_true, metric=metric)
    best = max(sklearn_f1(y_true, scores >= t, metric) for t in candidates(scores))
    assert sklearn_f1(y_true, scores >= thresholds, metric) == pytest.approx(best, abs=1e-12)

    other_metric = METRICS[METRICS.index(metric) - 1]
    other = tune_thresholds(scores, y_true, metric=other_metric)
    assert sklearn_f1(y_true, scores >= other, metric) < best

    per_label = tune_thresholds(scores, y_true, metric=metric, per_label=True, shrinkage=0)
    assert sklearn_f1(y_true, scores >= per_label, metric) > best
    if metric == "macro_f1":
        for column in range(4):
            y, s = y_true[:, column], scores[:, column]
            best = max(f1_score(y, s >= t, zero_division=0) for t in candidates(s))
            assert f1_score(y, s >= per_label[column]) == pytest.approx(best, abs=1e-12)


def test_threshold_lies_midway_and_is_included():
    scores = np.array([[0.9], [0.75], [0.25], [0.1]])
    y_true = np.array([[1], [1], [0], [0]])
    assert tune_thresholds(scores, y_true).tolist() == [0.5]
    assert f1_scores(y_true, scores >= 0.75)["micro_f1"] == 1  # score >= threshold


def test_equal_scores_are_never_separated():
    scores = np.array([[0.5], [0.5], [0.5], [0.2]])
    y_true = np.array([[1], [0], [0], [1]])
    # Predicting only one of the three 0.5 would be best; the best possible is to predict all four.
    assert 0 < tune_thresholds(scores, y_true)[0] < 0.2


def test_scores_without_a_number_between_them_count_as_equal():
    low = 0.5
    scores = np.array([[np.nextafter(low, 1)], [low]])
    thresholds = tune_thresholds(scores, np.array([[1], [0]]))
    assert thresholds[0] < low


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_of_0_or_1_keep_thresholds_strictly_between(score):
    for per_label in (False, True):
        thresholds = tune_thresholds(
            np.full((4, 2), score), np.array([[1, 0]] * 4), per_label=per_label
        )
        assert ((thresholds > 0) & (thresholds < 1)).all()


def miscalibrated(rng, rows, positives_rate, shift):
    """Return scores whose logits are shifted for each label, as after training on few rows."""
    y_true = rng.random((rows, len(shift))) < positives_rate
    return sigmoid(2.5 * y_true - 1.5 + shift + rng.normal(size=y_true.shape)), y_true


@pytest.mark.parametrize("metric", METRICS)
def test_shrinkage_weighs_positives_on_the_logit_scale(metric):
    rng = np.random.default_rng(0)
    scores, y_true = miscalibrated(rng, 300, np.array([0.02, 0.1, 0.5]), np.array([-1, 0.5, 1]))
    positives = y_true.sum(axis=0)

    def tuned_logits(**options):
        tuned = tune_thresholds(scores, y_true, metric=metric, **options)
        return np.log(tuned / (1 - tuned))

    single, per_label = tuned_logits(), tuned_logits(per_label=True, shrinkage=0)
    for shrinkage in (1, 5, 50):
        expected = (positives * per_label + shrinkage * single) / (positives + shrinkage)
        reached = tuned_logits(per_label=True, shrinkage=shrinkage)
        np.testing.assert_allclose(reached, expected, rtol=1e-9)


@pytest.mark.parametrize("shrinkage", [0, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_label_without_positives_gets_the_global_threshold(metric, shrinkage):
    rng = np.random.default_rng(1)
    scores, y_true = miscalibrated(rng, 100, np.full(4, 0.3), np.array([-2, 0, 0.5, 1]))
    y_true[:, 2] = False
    single = tune_thresholds(scores, y_true, metric=metric)
    thresholds = tune_thresholds(scores, y_true, metric=metric, per_label=True, shrinkage=shrinkage)
    assert thresholds[2] == single[2]
    assert (thresholds != single).sum() == 3


@pytest.mark.parametrize("metric", METRICS)
def test_the_standard_error_is_that_of_resampled_rows(metric):
    """The standard error of the difference; 800 resamples estimate it to about 2.5 %."""
    rng = np.random.default_rng(2)
    scores, y_true = miscalibrated(rng, 400, np.array([0.1, 0.2, 0.4]), np.array([-1, 0, 1]))
    (f1, influence), (_, other_influence) = (
        _f1_and_influence(scores >= t, y_true, metric) for t in (0.4, 0.8)
    )
    assert f1 == pytest.approx(f1_scores(y_true, scores >= 0.4)[metric])
    differences = []
    for _ in range(800):
        rows = rng.integers(0, 400, 400)
        at_low, at_high = (f1_scores(y_true[rows], scores[rows] >= t)[metric] for t in (0.4, 0.8))
        differences.append(at_low - at_high)
    assert np.sqrt(((influence - other_influence) ** 2).sum()) == pytest.approx(
        np.std(differences), rel=0.1
    )


@pytest.mark.parametrize("metric", METRICS)
def test_a_tolerance_keeps_one_half_unless_the_difference_is_clear(metric):
    rng = np.random.default_rng(3)
    rates = np.array([0.2, 0.3, 0.4])
    scores, y_true = miscalibrated(rng, 200, rates, np.zeros(3))  # one half is about right
    assert tune_thresholds(scores, y_true, metric=metric)[0] != 0.5
    assert tune_thresholds(scores, y_true, metric=metric, tolerance=2)[0] == 0.5

    low, y_true = miscalibrated(rng, 200, rates, np.full(3, -4.0))  # far too high
    best, near = (tune_thresholds(low, y_true, metric=metric, tolerance=t)[0] for t in (0, 2))
    assert best < near < 0.2
    f1 = [f1_scores(y_true, low >= t)[metric] for t in (0.5, near, best)]
    assert f1[0] < f1[1] - 0.1
    assert f1[2] - f1[1] < 0.05


def test_a_tolerance_never_accepts_a_threshold_without_true_positives():
    rng = np.random.default_rng(0)
    scores, y_true = rng.random((30, 1)) * 0.4, np.zeros((30, 1))
    scores[:1], y_true[:3] = (
        0.45,
        1,
    )  # a threshold of one half would predict none of the three positives
    tuned = tune_thresholds(scores, y_true, tolerance=2)
    assert f1_scores(y_true, scores >= tuned)["micro_f1"] > 0


@pytest.mark.parametrize("spread", [0, 0.2])
@pytest.mark.parametrize("metric", METRICS)
def test_default_shrinkage_beats_both_raw_choices_on_new_rows(metric, spread):
    """60 validation rows, 10 labels with 2 to 18 positives, means of 60 draws.

    Held-out macro F1 with the global threshold, one per label and the default shrinkage is .693,
    .680 and .702 if all labels are calibrated alike (spread 0), and .686, .680 and .698 at spread
    .2. Micro F1 is .745, .745 and .755, and .739, .745 and .753. At spread .7, with labels
    calibrated very differently, one threshold per label without shrinkage is better by .02.
    """
    rng = np.random.default_rng(0)
    rates = np.geomspace(0.03, 0.3, 10)
    options = [{}, {"per_label": True, "shrinkage": 0}, {"per_label": True}]
    reached = []
    for _ in range(60):
        shift = spread * rng.normal(size=10)
        scores, y_true = miscalibrated(rng, 60, rates, shift)
        new_scores, new_true = miscalibrated(rng, 4000, rates, shift)
        choices = [tune_thresholds(scores, y_true, metric=metric, **option) for option in options]
        reached.append([f1_scores(new_true, new_scores >= t)[metric] for t in choices])
    reached = np.array(reached)
    gains = reached[:, 2:] - reached[:, :2]
    standard_errors = gains.std(axis=0, ddof=1) / np.sqrt(len(gains))
    assert (gains.mean(axis=0) > 3 * standard_errors).all()


def test_mistakes_in_tuning_are_reported():
    y_true = np.array([[1, 0]])
    with pytest.raises(UserError, match="no validation row has a label"):
        tune_thresholds(np.array([[0.5, 0.5]]), 0 * y_true)
    with pytest.raises(ValueError, match="pass logits through a sigmoid"):
        tune_thresholds(np.array([[0.5, 1.5]]), y_true)
    with pytest.raises(ValueError, match="sigmoid"):
        tune_thresholds(np.array([[0.5, np.nan]]), y_true)
    with pytest.raises(ValueError, match="must agree"):
        tune_thresholds(np.array([[0.5]]), y_true)
    with pytest.raises(ValueError, match="metric must be"):
        tune_thresholds(np.array([[0.5, 0.5]]), y_true, metric="f1")
    with pytest.raises(ValueError, match="shrinkage must be"):
        tune_thresholds(np.array([[0.5, 0.5]]), y_true, per_label=True, shrinkage=-1)
    with pytest.raises(ValueError, match="tolerance must be"):
        tune_thresholds(np.array([[0.5, 0.5]]), y_true, tolerance=-1)
