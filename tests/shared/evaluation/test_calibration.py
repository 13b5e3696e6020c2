"""Calibration: probabilities, confidence, and thresholds for a precision."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.linear_model import LogisticRegression

from shared.evaluation.calibration import (
    Calibration,
    calibrate,
    fit_calibration,
)
from shared.evaluation.decisions import sigmoid, softmax, top_k
from shared.evaluation.reliability import calibration_error
from shared.evaluation.rules import NEVER


def made_up(rows=4000, labels=3, *, factor=3.0, bias=2.0, seed=0):
    """Return true probabilities, labels drawn from them, and scores with distorted logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (rows, labels))
    y = rng.random(logits.shape) < sigmoid(logits)
    return sigmoid(logits), y, sigmoid(factor * logits + bias)


def made_up_classes(rows=4000, labels=5, *, factor=3.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (rows, labels))
    classes = [rng.choice(labels, p=p) for p in softmax(logits)]
    return softmax(logits), np.eye(labels, dtype=bool)[classes], softmax(factor * logits)


def test_a_distortion_of_the_logits_is_undone():
    p, y, scores = made_up()
    calibration = fit_calibration(scores, y, scores >= 0.5)
    np.testing.assert_allclose(calibration(scores), p, atol=0.03)
    assert calibration.factors == pytest.approx([1 / 3] * 3, abs=0.03)
    assert calibration_error(y, calibration(scores)) < 0.02 < 0.15 < calibration_error(y, scores)


def test_a_label_is_calibrated_as_by_logistic_regression():
    # scikit-learn shrinks the weight to 0, not to 1, and not the bias; the rows outweigh both.
    _, y, scores = made_up(20_000, 2)
    x = np.log(scores / (1 - scores))
    calibration = fit_calibration(scores, y, scores >= 0.5)
    for label in range(2):
        model = LogisticRegression(C=np.inf, tol=1e-8).fit(x[:, [label]], y[:, label])
        assert calibration.factors[label] == pytest.approx(model.coef_.item(), abs=1e-3)
        assert calibration.biases[label] == pytest.approx(model.intercept_.item(), abs=2e-3)


def test_scores_near_0_and_1_do_not_stop_the_fit():
    """Newton's method overshoots there: naive Bayes has such scores."""
    _, y, scores = made_up(factor=40.0, bias=0.0)
    calibration = fit_calibration(scores, y, scores >= 0.5)
    assert calibration_error(y, scores) > 0.1
    assert calibration_error(y, calibration(scores)) < 0.02
    assert max(calibration.factors) < 0.5


@pytest.mark.parametrize("sum_to_one", [True, False])
def test_classes_are_calibrated_by_a_temperature_and_their_order_stays(sum_to_one):
    p, y, scores = made_up_classes()
    if not sum_to_one:  # scores of one classifier per class
        logits = np.log(p)
        scores = sigmoid(3 * (logits - logits.mean(axis=1, keepdims=True)))
    calibration = fit_calibration(scores, y, top_k(scores, 1), single_label=True)
    calibrated = calibration(scores)
    assert calibration.sum_to_one is sum_to_one
    assert calibrated.sum(axis=1) == pytest.approx(1)
    np.testing.assert_array_equal(calibrated.argmax(axis=1), scores.argmax(axis=1))
    np.testing.assert_allclose(calibrated, p, atol=0.05)
    errors = [calibration_error(y, s, single_label=True) for s in (scores, calibrated)]
    assert errors[1] < 0.03 < errors[0]


def test_the_confidence_is_the_probability_that_all_labels_are_right():
    _, y, scores = made_up(8000)
    chosen = scores >= 0.6
    confidence = fit_calibration(scores, y, chosen).confidence(scores, chosen)
    right = (y == chosen).all(axis=1)
    assert confidence.mean() == pytest.approx(right.mean(), abs=0.01)
    assert calibration_error(right[:, None], confidence[:, None]) < 0.04
    sure = confidence >= np.median(confidence)
    assert right[sure].mean() > right[~sure].mean() + 0.2


def test_of_labels_that_exclude_each_other_several_cannot_be_right():
    _, y, scores = made_up_classes()
    calibration = fit_calibration(scores, y, top_k(scores, 1), single_label=True)
    for chosen in (top_k(scores, 2), np.zeros(scores.shape, dtype=bool)):
        assert calibration.confidence(scores, chosen).max() < 0.05


def test_thresholds_reach_a_precision_on_other_rows():
    _, y, scores = made_up(6000, seed=1)
    calibration = fit_calibration(scores, y, scores >= 0.5)
    _, other_y, other_scores = made_up(6000, seed=2)
    rule = calibration.rule_of_precision(0.8)
    chosen = rule.choose(other_scores)
    hits = (chosen & other_y).sum(axis=0)
    assert hits / chosen.sum(axis=0) == pytest.approx([0.8] * 3, abs=0.05)
    recall = hits / other_y.sum(axis=0)
    assert recall == pytest.approx(calibration.recall_of_precision(0.8), abs=0.05)


def test_a_label_that_reaches_no_precision_is_never_given():
    rng = np.random.default_rng(0)
    y = rng.random((200, 2)) < 0.2
    scores = np.stack([y[:, 0] * 0.8 + 0.1, rng.random(200)], axis=1)
    calibration = fit_calibration(scores, y, scores >= 0.5)
    rule = calibration.rule_of_precision(0.9)
    assert rule.thresholds[0] == pytest.approx(0.5)
    assert rule.thresholds[1] == NEVER
    assert calibration.recall_of_precision(0.9).tolist() == [1.0, 0.0]
    assert calibration.thresholds(rule.thresholds)[1] == NEVER
    np.testing.assert_array_equal(rule.choose(np.ones((1, 2))), [[True, False]])


def test_with_one_label_per_text_a_precision_refuses_the_doubtful_ones():
    _, y, scores = made_up_classes()
    calibration = fit_calibration(scores, y, top_k(scores, 1), single_label=True)
    rule = calibration.rule_of_precision(0.8)
    assert rule.reads_calibrated
    chosen = rule.choose(calibration(scores))
    assert set(chosen.sum(axis=1).tolist()) == {0, 1}
    assert (chosen <= top_k(scores, 1)).all()
    precision = (chosen & y).sum(axis=0) / chosen.sum(axis=0)
    assert precision == pytest.approx([0.8] * 5, abs=0.02)


def test_in_a_cross_validation_no_fold_calibrates_itself():
    _, y, scores = made_up(300)
    fold_of = np.arange(300) % 3
    parts = {"test": scores}, {"test": scores >= 0.5}, {"test": y}
    calibration, calibrated = calibrate(*parts, fold_of=fold_of)
    assert calibration == fit_calibration(scores, y, scores >= 0.5)
    # Other labels in a fold change the scores of the other folds, not its own.
    flipped = y ^ (fold_of == 1)[:, None]
    _, changed = calibrate(*parts[:2], {"test": flipped}, fold_of=fold_of)
    same = (changed.scores == calibrated.scores).all(axis=1)
    np.testing.assert_array_equal(same, fold_of == 1)
    same = changed.confidence == calibrated.confidence
    np.testing.assert_array_equal(same, fold_of == 1)


def test_without_validation_rows_there_is_no_calibration():
    scores = {"valid": np.zeros((0, 2)), "test": np.full((3, 2), 0.4)}
    predicted = {part: values > 0.5 for part, values in scores.items()}
    assert calibrate(scores, predicted, predicted) == (None, None)


@given(
    hnp.arrays(float, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.floats(0, 1)),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_scores_give_probabilities_and_survive_json(scores, single_label, seed):
    y = np.random.default_rng(seed).random(scores.shape) < 0.4
    if single_label:
        y = np.eye(scores.shape[1], dtype=bool)[np.arange(len(y)) % scores.shape[1]]
    chosen = top_k(scores, 1)
    calibration = fit_calibration(scores, y, chosen, single_label=single_label)
    for values in (calibration(scores), calibration.confidence(scores, chosen)):
        assert ((values >= 0) & (values <= 1)).all()
    if not single_label:  # the order of the scores of a label stays
        for column, calibrated in zip(scores.T, calibration(scores).T, strict=True):
            assert (np.diff(calibrated[np.argsort(column)]) >= 0).all()
    saved = json.loads(json.dumps(calibration.to_json(), allow_nan=False))
    assert Calibration.from_json(saved, scores.shape[1]) == calibration


@pytest.mark.parametrize(
    "change",
    [
        {"factors": [1.0]},
        {"biases": [0.0, float("nan")]},
        {"confidence_bias": "high"},
        {"precision": [[[0.5, 0.9]], []]},
        {"precision": [[[0.5, 0.9, 2.0]], []]},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_calibration_is_refused(change):
    _, y, scores = made_up(50, 2)
    saved = fit_calibration(scores, y, scores >= 0.5).to_json()
    with pytest.raises((ValueError, TypeError)):
        Calibration.from_json(saved | change, 2)
