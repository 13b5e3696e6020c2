"""Health check: a good training passes, each problem is reported, the model is not changed."""

import math

import numpy as np
import pytest
import torch
from tiny_training import make_trainer, weights
from transformers import AutoTokenizer

from shared.models.networks import TextCNNConfig, TextCNNForSequenceClassification
from shared.training.health import (
    ActivationMonitor,
    check_health,
    describe,
    learning_rate,
    one_batch,
    rare_labels,
    suggest_rate,
    truncated_texts,
    unknown_tokens,
)
from shared.training.losses import MultilabelLoss, SingleLabelLoss

COUNTS = {"a": 20, "b": 15, "c": 9, "d": 7}


def test_unknown_tokens_above_three_per_cent_are_reported():
    assert unknown_tokens(0.03).passed
    result = unknown_tokens(0.662)
    assert not result.passed
    assert "unknown tokens: 66.2%" in result.text
    assert "take an encoder that knows the script" in result.text


def check(trainer, **options):
    """Return the results by the name of the check."""
    return {result.name: result for result in check_health(trainer, 64, **options)}


@pytest.fixture
def trainer(tiny_model, tmp_path):
    options = {"processing_class": AutoTokenizer.from_pretrained(tiny_model)}
    return make_trainer(tiny_model, tmp_path, dropout=0.1, options=options)


def test_a_good_training_passes_and_the_model_is_not_changed(trainer, tmp_path, capfd):
    before, mode = weights(trainer.model), trainer.model.training
    results = check(trainer, label_counts=COUNTS)
    assert [*results] == [
        *("labels", "texts", "tokens", "parameters", "initial loss"),
        *("activations", "overfitting", "learning rate"),
    ]
    assert all(result.passed for result in results.values()), results
    assert (weights(trainer.model) == before).all()
    assert trainer.model.training == mode
    assert all(p.grad is None for p in trainer.model.parameters())
    assert (tmp_path / "plots" / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    printed = capfd.readouterr().out
    assert printed.count("\n  ok    ") == 8
    assert str(tmp_path / "plots" / "learning_rate.png") in printed


@pytest.mark.parametrize(("loss", "expected"), [(None, math.log(2)), (SingleLabelLoss(), None)])
def test_the_loss_of_uniform_predictions_follows_from_the_loss_function(
    tiny_model, tmp_path, loss, expected
):
    trainer = make_trainer(tiny_model, tmp_path, loss=loss)
    text = check(trainer)["initial loss"].text
    if expected is None:  # ln 4 for each label of a row; these rows have 0 to 4 labels
        batches = [batch["labels"] for batch in trainer.get_train_dataloader()]
        expected = np.mean([math.log(4) * y.sum(1).mean().item() for y in batches])
        assert float(text.split()[-1]) == pytest.approx(expected, rel=0.2)
    else:
        assert float(text.split()[-1]) == pytest.approx(expected, abs=1e-3)


def test_an_initial_loss_of_nan_is_reported(trainer, capfd):
    with torch.no_grad():
        trainer.model.classifier.weight[0, 0] = float("nan")
    results = check(trainer)
    assert not results["initial loss"].passed
    assert "LOOK  initial loss  nan" in capfd.readouterr().out


def test_one_batch_is_overfitted_without_label_smoothing(tiny_model, tmp_path):
    loss = MultilabelLoss(label_smoothing=0.1)
    trainer = make_trainer(tiny_model, tmp_path, loss=loss, label_smoothing_factor=0.1)
    assert check(trainer)["overfitting"].passed
    assert trainer.compute_loss_func is loss


def test_losses_are_computed_in_the_precision_of_the_training(tiny_model, tmp_path):
    trainer, dtypes = make_trainer(tiny_model, tmp_path, bf16=True), set()
    feed_forward = trainer.model.bert.encoder.layer[0].intermediate.dense
    feed_forward.register_forward_hook(lambda module, args, output: dtypes.add(output.dtype))
    check(trainer)
    assert torch.bfloat16 in dtypes


def test_dead_filters_are_reported():
    config = TextCNNConfig(vocab_size=9, embedding_size=4, num_filters=3, filter_widths=[2])
    model = TextCNNForSequenceClassification(config)
    with torch.no_grad():
        model.convolutions[0].bias.fill_(-100)
    with ActivationMonitor(model) as monitor:
        model(torch.arange(1, 7).reshape(2, 3))
    assert monitor.result().text.startswith("100% of the ReLU, GELU and SiLU units are dead")


def test_a_high_initial_loss_is_reported(trainer):
    with torch.no_grad():
        trainer.model.classifier.bias.fill_(30.0)
    assert not check(trainer)["initial loss"].passed


def test_a_model_that_cannot_learn_is_reported(trainer):
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad = name == "classifier.bias"
    results = check(trainer)
    assert not results["overfitting"].passed
    assert results["parameters"].text.startswith("4 of ")


def test_a_rate_far_from_the_suggested_one_is_reported(tiny_model, tmp_path):
    assert not check(make_trainer(tiny_model, tmp_path, learning_rate=10.0))["learning rate"].passed


def test_dead_and_saturated_units():
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 10), torch.nn.ReLU(), torch.nn.Linear(10, 10), torch.nn.Tanh()
    )
    torch.manual_seed(0)
    with torch.no_grad():
        model[0].bias[:6] = -100
        model[2].bias[:3] = 50
        with ActivationMonitor(model) as monitor:
            for _ in range(3):
                model(torch.randn(8, 5, 4))
    result = monitor.result()
    assert not result.passed
    assert "60% of the ReLU, GELU and SiLU units are dead" in result.text
    assert "30% of the tanh, sigmoid and recurrent values are saturated" in result.text
    with torch.no_grad():
        model(torch.full((1, 4), 1e9))
    assert monitor.result() == result  # the hooks are removed


def test_recurrent_states_are_watched():
    network = torch.nn.GRU(3, 4, batch_first=True)
    torch.nn.init.constant_(network.bias_ih_l0, 50.0)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(2, 5, 3), [5, 2], batch_first=True)
    with torch.no_grad(), ActivationMonitor(network) as monitor:
        network(packed)
    assert monitor.n_bounded == 7 * 4


def test_rare_labels_and_truncated_texts_are_reported():
    assert rare_labels(COUNTS) == ("labels", True, "the rarest of 4 labels has 7 training rows")
    rare = rare_labels(COUNTS | {"e": 4, "f": 0})
    assert rare == ("labels", False, "2 of 6 labels have fewer than 5 training rows: e, f")
    assert truncated_texts([3, 8, 8, 8], 8) == ("texts", False, "75% reach the limit of 8 tokens")
    assert truncated_texts([3, 5, 8], 8).passed


def test_the_suggested_rate_is_below_the_rise_of_the_loss():
    rates = np.geomspace(1e-6, 1, 61)
    # Flat to 1e-4, falling to 1e-2, then rising steeply.
    losses = np.interp(np.log10(rates), [-6, -4, -2, -1, 0], [1.0, 1.0, 0.3, 2.0, 9.0])
    assert 5e-4 < suggest_rate(rates, losses) < 2e-3
    assert 5e-4 < suggest_rate(rates[::5], losses[::5]) < 2e-3  # fewer steps
    flat = np.where(rates < 1e-3, 0.7 + 0.01 * np.sin(rates * 1e6), 0.7 + 300 * rates)
    assert 2e-5 < suggest_rate(rates, flat) <= 1e-4
    assert learning_rate(1e-3, 1e-3).passed
    assert not learning_rate(2e-2, 1e-3).passed
    assert not learning_rate(5e-5, 1e-3).passed


def test_one_line_per_result():
    lines = describe([one_batch([0.7, 0.01], 0.03), one_batch([0.7, 0.5], 0.03)]).splitlines()
    assert " ".join(lines[0].split()) == (
        "ok overfitting loss from 0.700 to 0.0100 in 2 steps on a few rows"
    )
    assert lines[1].split()[0] == "LOOK"
