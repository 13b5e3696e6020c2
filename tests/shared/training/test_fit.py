"""Whether a training has underfit or overfit, on curves whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.training.fit import fit_points, judge_fit


def log(train, valid):
    """The log of a training with a loss and an evaluation in each epoch."""
    entries = []
    for epoch, (loss, valid_loss) in enumerate(zip(train, valid, strict=True), 1):
        entries.append({"epoch": float(epoch), "loss": loss, "step": 10 * epoch})
        entries.append({"epoch": float(epoch), "eval_loss": valid_loss, "step": 10 * epoch})
    return [*entries, {"epoch": float(len(train)), "train_loss": 1.0, "train_runtime": 1.0}]


@pytest.mark.parametrize(
    ("train", "valid", "state"),
    [
        # The validation loss rises from its minimum, while the training loss falls.
        ([1.0, 0.6, 0.3, 0.1, 0.05], [0.9, 0.7, 0.68, 0.8, 0.95], "overfit"),
        # It has not risen, but is far above the training loss.
        ([1.0, 0.6, 0.3, 0.2], [0.9, 0.7, 0.66, 0.66], "overfit"),
        # Both still fall.
        ([1.0, 0.9, 0.8, 0.7], [1.0, 0.9, 0.81, 0.72], "underfit"),
        # Both have levelled off, close together.
        ([1.0, 0.5, 0.42, 0.41], [0.8, 0.5, 0.47, 0.465], "fits"),
        # Dropout and augmentation: a training loss above that of validation is no fault.
        ([1.0, 0.8, 0.7, 0.69], [0.7, 0.4, 0.36, 0.355], "fits"),
        # Both losses are tiny: a ratio of three says nothing.
        ([1.0, 0.05, 0.004, 0.002], [0.3, 0.02, 0.0061, 0.006], "fits"),
        # A rise within the noise of a plateau.
        ([1.0, 0.5, 0.45, 0.44], [0.8, 0.5, 0.49, 0.5], "fits"),
        # The validation loss rises, but so does the training loss.
        ([1.0, 0.3, 0.5, 0.9], [0.9, 0.35, 0.6, 1.0], "diverged"),
        ([1.0, 0.9, 0.8], [1.0, math.nan, math.inf], "diverged"),
        ([0.693, 0.692, 0.693], [0.693, 0.693, 0.692], "flat"),
        # Restarts of the learning rate raise both losses for a while.
        (
            [1.0, 0.5, 0.4, 0.7, 0.36, 0.35, 0.345, 0.34],
            [0.9, 0.6, 0.5, 0.7, 0.46, 0.45, 0.446, 0.445],
            "fits",
        ),
    ],
)
def test_the_state_of_a_curve(train, valid, state):
    assert judge_fit(log(train, valid)).state == state


def test_the_sentence_has_the_figures_and_what_to_try():
    sentence = judge_fit(log([1.0, 0.6, 0.3, 0.1], [0.9, 0.7, 0.8, 0.95])).sentence
    assert sentence == (
        "Overfit: the validation loss rose from 0.700 (epoch 2) to 0.950 (epoch 4), while the "
        "training loss fell from 0.600 to 0.100. Try fewer epochs, more dropout or weight decay, "
        "or more training data."
    )
    still = judge_fit(log([1.0, 0.9, 0.8, 0.7], [1.0, 0.9, 0.81, 0.72])).sentence
    assert "from epoch 3 to the end (4)" in still
    assert "Train longer" in still


def test_nothing_learned_is_underfitting_where_the_loss_of_chance_is_known():
    curves = log([0.70, 0.694, 0.693], [0.694, 0.693, 0.693])
    assert judge_fit(curves).state == "flat"
    assert judge_fit(curves, uninformed=math.log(2)).state == "underfit"
    learned = log([0.6, 0.3, 0.28], [0.5, 0.3, 0.29])
    assert judge_fit(learned, uninformed=math.log(2)).state == "fits"


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_short_training_has_no_verdict(n):
    assert judge_fit(log([1.0, 0.5][:n], [1.0, 5.0][:n])) is None


def test_evaluations_without_a_training_loss_do_not_count():
    only_valid = [entry for entry in log([1, 2, 3], [1, 2, 3]) if "loss" not in entry]
    assert judge_fit(only_valid) is None
    before = [{"epoch": 0.0, "eval_loss": 9.0, "step": 0}]  # --eval_on_start
    assert len(fit_points(before + log([1.0, 0.5], [1.0, 0.5]))) == 2


def test_the_training_loss_of_a_point_is_the_mean_since_the_last_evaluation():
    entries = [{"epoch": 0.1 * i, "loss": float(i)} for i in range(1, 5)]
    entries.insert(2, {"epoch": 0.2, "eval_loss": 7.0})
    entries.append({"epoch": 0.4, "eval_loss": 8.0})
    assert [point.train for point in fit_points(entries)] == [1.5, 3.5]


losses = st.floats(1e-6, 1e3)


@given(curves=st.lists(st.tuples(losses, losses), min_size=3, max_size=12))
def test_a_verdict_does_not_depend_on_the_scale_of_the_loss(curves):
    train, valid = np.array(curves).T
    before = judge_fit(log(train.tolist(), valid.tolist()))
    # A power of two: no rounding.
    after = judge_fit(log((2.0 * train).tolist(), (2.0 * valid).tolist()))
    assert before.state == after.state
    rising = judge_fit(log(train.tolist(), np.sort(valid).tolist()))
    assert rising.state != "underfit"
