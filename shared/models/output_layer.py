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


def shift_logits(model: PreTrainedModel, shift: np.ndarray) -> None:
    """Add a constant to the logits of each label, for all texts. Changes `model`.

    A model whose output layer has no bias, such as that of a decoder, stays as it is.

    Parameters
    ----------
    model : PreTrainedModel
    shift : array of shape (labels,)
    """
    bias = output_layer(model).bias
    if bias is not None:
        with torch.no_grad():
            bias.add_(torch.as_tensor(shift, dtype=bias.dtype, device=bias.device))
