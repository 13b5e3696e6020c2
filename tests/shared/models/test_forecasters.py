"""Forecasters: their definitions, their scale, saving and loading."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from shared.cli.errors import UserError
from shared.models.forecasters import Forecaster, ForecasterConfig
from shared.models.forecasting import ForecasterArguments, build_forecaster, load_forecaster

ARCHITECTURES = ["linear", "dlinear", "rnn", "lstm", "gru", "transformer"]
COLUMNS = ["a", "b", "c"]


def build(architecture, **settings):
    settings = {
        **{"columns": COLUMNS, "targets": ["c", "a"], "mean": [0.0, 5.0, 100.0]},
        **{"scale": [1.0, 2.0, 10.0], "input_size": 12, "horizon": 3, "hidden_size": 8},
        **{"kernel_size": 5, "patch_size": 4, "patch_stride": 2, "num_attention_heads": 2},
        **settings,
    }
    torch.manual_seed(0)
    return Forecaster(ForecasterConfig(architecture=architecture, **settings)).eval()


@pytest.mark.parametrize("centring", ["none", "last", "window"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forecasts_have_the_units_of_the_data_and_survive_saving(architecture, centring, tmp_path):
    model = build(architecture, centring=centring, num_layers=2, individual=True, dropout=0.5)
    values = np.random.default_rng(0).normal(size=(4, 20, 3)) * [1, 2, 10] + [0, 5, 100]
    forecast = model.forecast(values)
    assert forecast.shape == (4, 3, 2)
    scaled = torch.as_tensor((values[:, -12:] - [0, 5, 100]) / [1, 2, 10], dtype=torch.float32)
    logits = model(scaled).logits.detach().numpy()
    np.testing.assert_allclose(forecast, logits * [10, 1] + [100, 0], rtol=1e-5)
    np.testing.assert_allclose(model.forecast(values[0]), forecast[0], rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    for again in (load_forecaster(str(tmp_path)), AutoModel.from_pretrained(tmp_path).eval()):
        np.testing.assert_array_equal(again.forecast(values), forecast)
    # All weights have a part in it.
    model(scaled, labels=torch.zeros(4, 3, 2)).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("centring", ["last", "window"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_centred_forecast_moves_with_the_level_of_its_window(architecture, centring):
    model = build(architecture, centring=centring)
    past = torch.randn(2, 12, 3)
    moved = past + torch.tensor([3.0, -1, 7])
    difference = (model(moved).logits - model(past).logits).detach()
    torch.testing.assert_close(
        difference, torch.tensor([7.0, 3]).expand(2, 3, 2), atol=1e-4, rtol=0
    )
    if centring == "window":
        doubled = model(past * 2).logits
        torch.testing.assert_close(doubled, model(past).logits * 2, atol=1e-3, rtol=0)


def test_dlinear_is_the_published_one():
    """Two layers of torch on a moving average, with repeated ends, and on the rest."""
    model = build("dlinear", targets=COLUMNS)
    past = torch.randn(2, 12, 3)
    layers = {}
    for name in ("trend", "rest"):
        layers[name] = nn.Linear(12, 3)
        own = getattr(model.network, name)
        layers[name].weight.data, layers[name].bias.data = own.weight.data, own.bias.data
    padded = torch.cat([past[:, :1].repeat(1, 2, 1), past, past[:, -1:].repeat(1, 2, 1)], dim=1)
    trend = torch.stack([padded[:, i : i + 5].mean(dim=1) for i in range(12)], dim=1)
    expected = layers["trend"](trend.mT).mT + layers["rest"]((past - trend).mT).mT
    torch.testing.assert_close(model(past).logits, expected)


def test_individual_weights_are_those_of_a_column():
    model = build("linear", individual=True)
    past = torch.randn(2, 12, 3)
    for target, place in enumerate([2, 0]):
        weight, bias = model.network.weight[target], model.network.bias[target]
        expected = past[..., place] @ weight.T + bias
        torch.testing.assert_close(model(past).logits[..., target], expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_which_columns_a_forecast_depends_on(architecture):
    model = build(architecture)
    past = torch.randn(1, 12, 3, requires_grad=True)
    model(past).logits[0, :, 0].sum().backward()
    depends = past.grad.abs().sum(dim=(0, 1)) > 0
    expected = [True] * 3 if architecture in ("rnn", "lstm", "gru") else [False, False, True]
    assert depends.tolist() == expected


def test_the_nonlinearity_and_the_layers_are_those_of_the_flags():
    model = build("rnn", nonlinearity="relu", num_layers=3)
    assert (model.network.cells.nonlinearity, model.network.cells.num_layers) == ("relu", 3)


def test_forecasts_refuse_values_that_do_not_fit():
    model = build("linear")
    with pytest.raises(ValueError, match=r"shape \(20, 2\).*3 columns a, b, c"):
        model.forecast(np.zeros((20, 2)))
    with pytest.raises(ValueError, match="11 steps: the model reads 12"):
        model.forecast(np.zeros((11, 3)))
    values = np.zeros((20, 3))
    values[3] = np.nan  # before what it reads
    model.forecast(values)
    values[-1, 0] = np.nan
    with pytest.raises(ValueError, match="not all numbers"):
        model.forecast(values)


class Arguments(ForecasterArguments):
    input_size, horizon = 12, 3


def test_sizes_that_do_not_fit_are_refused(tmp_path, tiny_model):
    fits = {"columns": ["a"], "targets": ["a"], "mean": [0.0], "scale": [1.0]}
    assert build_forecaster(Arguments(architecture="gru"), **fits).config.centring == "last"
    assert build_forecaster(Arguments(), **fits).config.centring == "none"
    for settings, message in (
        ({"kernel_size": 4}, "--kernel_size 4: must be odd"),
        ({"architecture": "transformer", "hidden_size": 6}, "a multiple of --num_attention_heads"),
        ({"architecture": "transformer", "patch_size": 21}, "--patch_size 21: is longer than"),
    ):
        with pytest.raises(UserError, match=message):
            build_forecaster(Arguments(**settings), **fits)
    with pytest.raises(UserError, match="a model of the type bert, no forecaster"):
        load_forecaster(str(tiny_model))
    build("linear").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    lost = min(tensors)
    save_file({n: t for n, t in tensors.items() if n != lost}, weights, {"format": "pt"})
    with pytest.raises(UserError, match=f"the weights lack {lost}; they are incomplete"):
        load_forecaster(str(tmp_path))
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(UserError, match="cannot load the model"):
        load_forecaster(str(tmp_path))
