"""Activations and gradients of layers."""

import numpy as np
import torch
from torch import nn

from shared.training.signals import layer_signals


def test_activations_and_gradients_are_those_of_the_definition():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.ReLU())
    x = torch.randn(5, 3)
    signals = layer_signals({"one": model[1], "two": model[3]}, lambda: model(x).square().sum())
    assert [*signals] == ["one", "two"]
    with torch.no_grad():
        one = model[:2](x)
        two = model(x)
        below = (2 * two * (two > 0)) @ model[2].weight
    np.testing.assert_allclose(signals["one"].activations, one.flatten(), rtol=1e-5)
    np.testing.assert_allclose(signals["two"].gradients, (2 * two).flatten(), rtol=1e-5)
    np.testing.assert_allclose(signals["one"].gradients, below.flatten(), rtol=1e-4, atol=1e-6)
    assert not model[1]._forward_hooks
