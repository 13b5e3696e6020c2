"""Activations and gradients of layers in one forward and backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch


class LayerSignal(NamedTuple):
    """What one layer gives and gets back for one batch, flat arrays of shape (values,).

    `activations` are its outputs, `gradients` those of the loss by its outputs.
    """

    activations: np.ndarray
    gradients: np.ndarray


def layer_signals(
    layers: Mapping[str, torch.nn.Module], loss: Callable[[], torch.Tensor]
) -> dict[str, LayerSignal]:
    """Return the activations and gradients of layers.

    Both are what Glorot and Bengio (2010, figures 6 and 7) draw: first weights are good if neither
    shrinks nor grows from layer to layer.

    Parameters
    ----------
    layers : mapping of name to module
        Each returns one tensor.
    loss : callable
        Passes a batch through the model and returns the scalar loss.
    """
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(_: torch.nn.Module, __: object, output: torch.Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    try:
        loss().backward()
    finally:
        for hook in hooks:
            hook.remove()
    signals = {}
    for name, output in outputs.items():
        assert output.grad is not None
        values, gradients = output.detach().flatten(), output.grad.flatten()
        signals[name] = LayerSignal(values.cpu().numpy(), gradients.cpu().numpy())
    return signals
