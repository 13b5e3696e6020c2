"""Monte-Carlo dropout, BALD against a closed form, and the variance of labels."""

from itertools import product

import numpy as np
import pytest
import torch
from tiny_training import LABELS, make_rows, make_trainer

from shared.cli.errors import UserError
from shared.methods import DropoutPasses, bald, entropy, label_variance
from shared.models.loading import load_sequence_classifier
from shared.training import LengthGroupedTrainer


def h(*probabilities):
    """The entropy of a distribution, in nats."""
    return -sum(p * np.log(p) for p in probabilities if p > 0)


def test_bald_of_contradicting_certain_passes_is_the_entropy_of_a_coin():
    passes = [[[1.0, 0.0], [0.0, 1.0]]]  # a text, two passes, two classes
    assert bald(np.array(passes), single_label=True) == pytest.approx([np.log(2)])
    # Two labels that apply independently: each tells as much.
    assert bald(np.array(passes), single_label=False) == pytest.approx([2 * np.log(2)])


def test_bald_of_passes_that_agree_is_zero_however_doubtful_they_are():
    passes = np.tile([[0.5, 0.5], [0.9, 0.1]], (3, 1, 1)).swapaxes(0, 1)  # (texts, passes, classes)
    assert passes.shape == (2, 3, 2)
    for single_label in (True, False):
        assert bald(passes, single_label=single_label) == pytest.approx([0, 0])


def test_bald_by_hand():
    passes = np.array([[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]])
    mean = h(0.4, 0.25, 0.35) - (h(0.7, 0.2, 0.1) + h(0.1, 0.3, 0.6)) / 2
    assert bald(passes, single_label=True) == pytest.approx([mean])
    of_labels = [
        h(m, 1 - m) - (h(a, 1 - a) + h(b, 1 - b)) / 2
        for m, a, b in ((0.4, 0.7, 0.1), (0.25, 0.2, 0.3), (0.35, 0.1, 0.6))
    ]
    assert bald(passes, single_label=False) == pytest.approx([sum(of_labels)])


@pytest.mark.parametrize("single_label", [True, False])
def test_bald_is_the_mutual_information_of_label_and_pass(single_label):
    """Enumerated: every pass is as likely, and every outcome is counted."""
    rng = np.random.default_rng(0)
    passes = rng.dirichlet(np.ones(3), size=(1, 4))  # (1, 4 passes, 3 labels)
    outcomes = range(3) if single_label else list(product((0, 1), repeat=3))

    def probability(outcome, p):
        if single_label:
            return p[outcome]
        return np.prod([q if applies else 1 - q for q, applies in zip(p, outcome, strict=True)])

    information = 0.0
    if single_label:
        joint = np.array([[probability(o, p) / 4 for o in outcomes] for p in passes[0]])
        outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
        information = (joint * np.log(joint / outer)).sum()
    else:  # labels are independent of each other, so their information adds up
        for label in range(3):
            p = passes[0, :, label]
            joint = np.array([p / 4, (1 - p) / 4])
            outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
            information += (joint * np.log(joint / outer)).sum()
    assert bald(passes, single_label=single_label) == pytest.approx([information])


def test_the_entropy_of_certain_labels_is_zero():
    assert entropy(np.array([1.0, 0.0]), single_label=True) == 0
    assert entropy(np.array([1.0, 0.0]), single_label=False) == 0


def test_the_variance_is_that_of_the_predicted_class_or_of_all_labels():
    passes = np.array([[[0.9, 0.1], [0.5, 0.5]]])
    assert label_variance(passes, single_label=True) == pytest.approx([0.04])
    passes = np.array([[[0.9, 0.1], [0.5, 0.1]]])
    assert label_variance(passes, single_label=False) == pytest.approx([0.02])


# --- passes with dropout -------------------------------------------------------------------------


@pytest.fixture
def predict(tiny_model, tmp_path):
    """Call a model of the tiny encoder with dropout on rows: (rows, passes, labels)."""
    trainer = make_trainer(tiny_model, tmp_path, dropout=0.1, per_device_eval_batch_size=8)

    def call(rows, *, passes=3, seed=0):
        wrapper = LengthGroupedTrainer(
            model=DropoutPasses(trainer.model, passes, seed),
            args=trainer.args,
            data_collator=trainer.data_collator,
        )
        return wrapper.predict(rows.remove_columns("labels")).predictions

    call.plain = lambda rows: trainer.predict(rows).predictions
    return call


def test_passes_differ_and_are_those_of_the_seed(predict):
    rows = make_rows(12)
    logits = predict(rows)
    assert logits.shape == (12, 3, len(LABELS))
    assert np.abs(logits[:, 0] - logits[:, 1]).max() > 1e-3
    np.testing.assert_array_equal(predict(rows), logits)
    assert np.abs(predict(rows, seed=1) - logits).max() > 1e-3


def test_a_pass_is_one_model_whatever_the_batch(predict):
    rows = make_rows(12)
    alone = np.concatenate([predict(rows.select([i])) for i in range(12)])
    np.testing.assert_allclose(predict(rows), alone, atol=1e-5)


def test_dropout_is_off_again_afterwards(predict):
    rows = make_rows(6)
    before = predict.plain(rows)
    predict(rows)
    np.testing.assert_array_equal(predict.plain(rows), before)


def test_only_dropout_layers_act_as_in_training(tiny_model):
    model = load_sequence_classifier(str(tiny_model), LABELS, dropout=0.1)
    wrapper = DropoutPasses(model, 2).eval()
    wrapper(torch.full((1, 8), 7), torch.ones(1, 8, dtype=torch.long))
    assert not any(module.training for module in model.modules())


def test_the_mean_of_dropped_units_is_that_without_dropout():
    layer = torch.nn.Dropout(0.25)
    model = torch.nn.Sequential(layer)
    model.forward = lambda input_ids, attention_mask: type(
        "Output", (), {"logits": layer(torch.ones(1, 10_000))}
    )
    model.config = None
    logits = DropoutPasses(model, 2).eval()(None, None)["logits"]
    assert logits.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(logits.mean()) == pytest.approx(1, abs=0.02)


def test_one_pass_and_no_dropout_are_refused(tiny_model):
    model = load_sequence_classifier(str(tiny_model), LABELS, dropout=0.1)
    with pytest.raises(UserError, match="--passes 1: must be 2 or more"):
        DropoutPasses(model, 1)
    model = load_sequence_classifier(str(tiny_model), LABELS, dropout=0.0)
    with pytest.raises(UserError, match=r"no dropout.*--dropout 0.1"):
        DropoutPasses(model, 2)
