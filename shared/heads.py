"""Classification heads: where to start them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from shared.progress import progress

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel


def fit_head(
    model: PreTrainedModel,
    dataset: Dataset,
    collator: Callable,
    loss: Callable,
    *,
    device: torch.device,
    l2: float = 1e-2,
    max_rows: int = 8192,
    batch_size: int = 64,
    bf16: bool = False,
    seed: int = 0,
) -> None:
    """Set a classifier's last layer to the best linear probe on the features it starts with.

    Linear probing, then fine-tuning (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained
    Features and Underperform Out-of-Distribution", section 4). A random head spends the first
    epochs pulling the encoder towards noise, and rare labels never recover from it; a fitted one
    starts from the figures of a probe. A head that scores every token or has no bias, as decoders
    have it, keeps its random start.

    Parameters
    ----------
    model : PreTrainedModel
        A sequence classifier whose last linear layer has one output per label; changed in place.
    dataset : Dataset
        Tokenised training rows with labels.
    collator : callable
        Makes a batch with ``labels`` of some rows.
    loss : callable
        ``loss({"logits": z}, labels)``, the one that training goes on with.
    device : torch.device
    l2 : float
        Weight decay on the standardised features, per label.
    max_rows : int
        Rows to fit on, drawn at random from larger data sets.
    batch_size : int
    bf16 : bool
        Compute the features in bfloat16, as the training that follows does; a start needs no more.
    seed : int
        Of the draw. Every process of a launch fits the same head.
    """
    import torch

    head = [
        layer
        for layer in model.modules()
        if isinstance(layer, torch.nn.Linear) and layer.out_features == model.config.num_labels
    ][-1]
    if head.bias is None:
        return
    if len(dataset) > max_rows:
        rows = np.random.default_rng(seed).choice(len(dataset), max_rows, replace=False)
        dataset = dataset.select(rows)
    dataset = dataset.select(np.argsort(dataset.with_format("numpy")["length"][:]))

    features, labels = [], []
    hook = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float()))
    model.to(device).eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for start in progress(range(0, len(dataset), batch_size), "fitting head", unit="batches"):
            stop = min(start + batch_size, len(dataset))
            batch = collator([dataset[row] for row in range(start, stop)])
            labels.append(batch.pop("labels").to(device))
            model(**{name: value.to(device) for name, value in batch.items()})
            if features[0].dim() != 2:
                break
    hook.remove()

    if features[0].dim() != 2:
        return

    x, y = torch.cat(features), torch.cat(labels)
    mean, std = x.mean(0), x.std(0, correction=0)
    # A feature that hardly varies would get a huge weight, and with it the rounding of its value.
    std = std.clamp(min=max(0.1 * float(std.mean()), 1e-6))
    x = (x - mean) / std
    weight = torch.zeros_like(head.weight, requires_grad=True)
    bias = torch.zeros_like(head.bias, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss({"logits": x @ weight.T + bias}, y) + l2 * weight.square().sum(1).mean()
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - head.weight @ mean)


def append_mean_pooling(model: PreTrainedModel, scale: float = 8.0) -> None:
    """Let a stock BERT classifier read the mean of all tokens instead of the first token.

    Sentence encoders are trained on the mean of their last hidden states; their first token holds
    less, and a stock classifier reads nothing else. One more layer repairs that: its queries are
    zero, so that every token attends to all alike, its values are the hidden states themselves,
    and layer normalisation makes ``h_first + scale * mean(h)`` the direction of the mean. The
    model remains a plain `BertForSequenceClassification` with one layer more, which any program
    loads, and the layer trains on into attention pooling.

    Parameters
    ----------
    model : BertForSequenceClassification
        Changed in place. Other architectures, and a model that has the layer, stay as they are.
    scale : float
        Weight of the mean against the first token's own state.
    """
    import torch

    if model.config.model_type != "bert" or getattr(model.config, "mean_pooling_layer", False):
        return
    encoder = model.base_model.encoder
    layer = copy.deepcopy(encoder.layer[-1])
    identity = torch.eye(model.config.hidden_size)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        # Keys and the first half of the feed-forward block start at random: zero queries and a zero
        # second half already make them idle, and with both zero no gradient would ever reach them.
        layer.attention.self.key.weight.normal_(std=model.config.initializer_range)
        layer.intermediate.dense.weight.normal_(std=model.config.initializer_range)
        layer.attention.self.value.weight.copy_(identity)
        layer.attention.output.dense.weight.copy_(scale * identity)
        # Half-size inputs keep the pooler's tanh nearly linear.
        model.base_model.pooler.dense.weight.copy_(0.5 * identity)
        model.base_model.pooler.dense.bias.zero_()
    encoder.layer.append(layer)
    model.config.num_hidden_layers += 1
    model.config.mean_pooling_layer = True
