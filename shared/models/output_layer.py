"""The last layer of a classifier, which computes the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel


def output_layer(model: PreTrainedModel) -> torch.nn.Linear:
    """Return the last linear layer with an output per label.

    A layer of the encoder can have the same width by chance.
    """
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, torch.nn.Linear) and layer.out_features == model.config.num_labels
    ][-1]


def shift_logits(model: PreTrainedModel, shift: np.ndarray) -> bool:
    """Add a constant to the logits of each label of all texts; return whether `model` has changed.

    It stays as it is if its output layer has no bias, as that of a decoder.

    Parameters
    ----------
    model : PreTrainedModel
    shift : array of shape (labels,)
    """
    bias = output_layer(model).bias
    if bias is None:
        return False
    with torch.no_grad():
        bias.add_(torch.as_tensor(shift, dtype=bias.dtype, device=bias.device))
    return True
