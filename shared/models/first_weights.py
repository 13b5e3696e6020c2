"""First weights of a classifier: a fitted output layer, mean pooling for BERT, random layers.

- `fit_head` fits the output layer of any classifier on the features of the model before
  fine-tuning.
- `append_mean_pooling` makes a BERT classifier of transformers read the mean of all tokens.
- `initialize_layers` draws the weights of linear layers by one of several schemes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from shared.cli.launch import progress
from shared.models.output_layer import output_layer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

INITIALIZATIONS = ("zeros", "small", "large", "xavier", "kaiming", "lsuv")


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
    """Fit the last layer of a classifier on the features of the model before fine-tuning.

    This is linear probing, then fine-tuning (Kumar et al. 2022, "Fine-Tuning can Distort
    Pretrained Features and Underperform Out-of-Distribution", section 4). With a random head, the
    gradients of the first epochs move the encoder towards noise, and rare labels never recover
    from it. A fitted head starts fine-tuning with the scores of a linear probe.

    The head keeps its random start if it scores every token or has no bias, as the heads of
    decoders.

    Parameters
    ----------
    model : PreTrainedModel
        A sequence classifier whose last linear layer has one output per label. Changed in place.
    dataset : Dataset
        Tokenised training rows with labels.
    collator : callable
        Makes a batch with ``labels`` from a list of rows.
    loss : callable
        ``loss({"logits": z}, labels)``: the loss of the fine-tuning that follows.
    device : torch.device
    l2 : float
        L2 penalty on the weights of the standardised features, averaged over the labels.
    max_rows : int
        Maximum number of rows to fit on. From larger data sets, rows are drawn at random.
    batch_size : int
        Rows per forward pass.
    bf16 : bool
        Whether to compute the features in bfloat16, as the fine-tuning that follows does. That is
        precise enough for a start.
    seed : int
        Seed of the random draw. It makes every process of a distributed run fit the same head.
    """
    head = output_layer(model)
    if head.bias is None:
        return
    if len(dataset) > max_rows:
        rows = np.random.default_rng(seed).choice(len(dataset), max_rows, replace=False)
        dataset = dataset.select(rows)
    # Sorted by length, batches hold little padding.
    dataset = dataset.select(np.argsort(dataset.with_format("numpy")["length"][:]))

    # The features are the inputs of the head. A hook collects them in any architecture.
    features: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float()))
    model.to(device).eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for start in progress(range(0, len(dataset), batch_size), "fitting head", unit="batches"):
            stop = min(start + batch_size, len(dataset))
            batch = collator([dataset[row] for row in range(start, stop)])
            labels.append(batch.pop("labels").to(device))
            model(**{name: value.to(device) for name, value in batch.items()})
            if features[0].dim() != 2:  # (rows, length, width): the head scores every token
                break
    hook.remove()

    if features[0].dim() != 2:
        return

    x, y = torch.cat(features), torch.cat(labels)  # (rows, width), (rows, labels)
    mean, std = x.mean(0), x.std(0, correction=0)
    # Divided by its own small spread, a feature that is nearly constant would get a huge weight,
    # which would multiply the rounding error of the feature, too.
    std = std.clamp(min=max(0.1 * float(std.mean()), 1e-6))
    x = (x - mean) / std
    weight = torch.zeros_like(head.weight, requires_grad=True)
    bias = torch.zeros_like(head.bias, requires_grad=True)
    # The problem is small: all rows in one batch, with a quasi-Newton method.
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss({"logits": x @ weight.T + bias}, y) + l2 * weight.square().sum(1).mean()
        value.backward()
        return value

    optimizer.step(closure)
    # Fold the standardisation into the layer, which reads the raw features.
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - head.weight @ mean)


def append_mean_pooling(model: PreTrainedModel, scale: float = 8.0) -> None:
    """Make a BERT classifier of transformers read the mean of all tokens, not the first token.

    Sentence encoders are trained on the mean of their last hidden states. Their first token holds
    less information, but `BertForSequenceClassification` reads only that one. This function adds
    one layer to the encoder that computes the mean:

    - Its queries are zero, so that each token attends to all tokens equally.
    - Its values are the hidden states themselves, so that attention returns their mean.
    - The state of the first token becomes ``h_first + scale * mean(h)``. After layer normalisation
      it has the direction of the mean, the more exactly the larger `scale` is.

    The model stays a plain `BertForSequenceClassification` with one more layer, which any program
    can load. In fine-tuning, the layer learns attention pooling.

    Parameters
    ----------
    model : BertForSequenceClassification
        Changed in place. Other architectures, and a model that already has the layer, are not
        changed.
    scale : float
        Weight of the mean relative to the state of the first token.
    """
    if model.config.model_type != "bert" or getattr(model.config, "mean_pooling_layer", False):
        return
    encoder = model.base_model.encoder
    layer = copy.deepcopy(encoder.layer[-1])
    identity = torch.eye(model.config.hidden_size)
    with torch.no_grad():
        # All zero: queries, biases and feed-forward block have no effect. Layer normalisation only
        # normalises.
        for name, parameter in layer.named_parameters():
            parameter.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        # Keys and the first half of the feed-forward block start at random. Zero queries and a zero
        # second half already cancel their effect. If both factors of a product were zero, neither
        # would ever get a gradient.
        layer.attention.self.key.weight.normal_(std=model.config.initializer_range)
        layer.intermediate.dense.weight.normal_(std=model.config.initializer_range)
        # Values times output projection: scale times the mean of the hidden states.
        layer.attention.self.value.weight.copy_(identity)
        layer.attention.output.dense.weight.copy_(scale * identity)
        # The pooler, between encoder and head, is tanh of a linear layer. With half the input,
        # tanh is nearly linear.
        model.base_model.pooler.dense.weight.copy_(0.5 * identity)
        model.base_model.pooler.dense.bias.zero_()
    encoder.layer.append(layer)
    model.config.num_hidden_layers += 1
    model.config.mean_pooling_layer = True


def initialize_layers(
    layers: Sequence[torch.nn.Linear], scheme: str, run: Callable[[], object]
) -> None:
    """Give linear layers first weights of a scheme; biases become 0.

    Parameters
    ----------
    layers : sequence of Linear
        In the order in which a batch passes them. Changed in place.
    scheme : one of `INITIALIZATIONS`
        - zeros: all weights are 0;
        - small, large: normal, with a standard deviation of 0.01 and of 1;
        - xavier: uniform, of variance 2 / (inputs + outputs) (Glorot and Bengio 2010,
          "Understanding the difficulty of training deep feedforward neural networks", equation 16);
        - kaiming: normal, of variance 2 / inputs (He et al. 2015, "Delving Deep into Rectifiers",
          equation 10);
        - lsuv: orthogonal, then divided until the outputs of each layer have a standard deviation
          of 1 on a batch (Mishkin and Matas 2016, "All you need is a good init", algorithm 1).
    run : callable
        Passes a batch through the model; called for lsuv only.
    """
    init = torch.nn.init
    for layer in layers:
        if layer.bias is not None:
            init.zeros_(layer.bias)
        if scheme == "zeros":
            init.zeros_(layer.weight)
        elif scheme in ("small", "large"):
            init.normal_(layer.weight, std=0.01 if scheme == "small" else 1.0)
        elif scheme == "xavier":
            init.xavier_uniform_(layer.weight)
        elif scheme == "kaiming":
            init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            init.orthogonal_(layer.weight)
    if scheme != "lsuv":
        return
    outputs: list[torch.Tensor] = []
    for layer in layers:
        hook = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
        with torch.no_grad():
            for _ in range(10):
                run()
                std = outputs.pop().std()
                if not std > 0 or abs(std - 1) < 0.01:
                    break
                layer.weight /= std
        hook.remove()
