"""Classification heads on an encoder or a decoder: their flags, layers and first weights.

From top to bottom:

1. Flags: `HeadArguments`, and `head_settings`, which checks them.
2. Pooling: `Pooling` turns the hidden states of a text into one vector, `LayerPooling` combines the
   hidden states of several layers.
3. Classifier: `PooledForSequenceClassification` puts pooling and a head on any encoder or decoder.
   Importing this module registers it with transformers, so that `from_pretrained` and `pipeline`
   load it from a folder.
4. First weights: `fit_head` fits the output layer of any classifier on the features of the model
   before fine-tuning, and `append_mean_pooling` makes a BERT classifier of transformers read the
   mean of all tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.launch import progress

if TYPE_CHECKING:
    from datasets import Dataset


# --- flags ---------------------------------------------------------------------------------------


@dataclass
class HeadArguments:
    """Flags of recipes that train a `PooledForSequenceClassification`."""

    pooling: Literal["first", "last", "mean", "max", "mean_max", "attention"] = flag(
        "mean",
        "Pooling of the hidden states of a text into one vector: the first token, the last ones, "
        "the mean, the maximum, mean and maximum together, or attention (default: mean).",
    )
    last_tokens: int = flag(
        1, "With --pooling last: number of tokens at the end to average (default: 1)."
    )
    n_layers: int = flag(
        1, "Number of layers that the head reads, counted from the last (default: 1)."
    )
    layer_pooling: Literal["concatenate", "weighted"] = flag(
        "weighted",
        "With --n_layers 2 or more: concatenate the layers, or average them with learned weights "
        "(default: weighted).",
    )
    head_sizes: list[int] = flag([], "Widths of the hidden layers of the head (default: none).")
    head_dropout: float = flag(0.1, "Dropout rate before each layer of the head (default: .1).")
    dropout_samples: int = flag(
        1,
        "Multi-sample dropout: number of dropout masks per text in training; their losses are "
        "averaged (default: 1).",
    )


def head_settings(args: HeadArguments) -> dict[str, Any]:
    """Check the flags; return the settings for `PooledForSequenceClassification.from_encoder`.

    Raises
    ------
    UserError
        For a value out of range.
    """
    if not 0 <= args.head_dropout < 1:
        raise UserError(f"--head_dropout {args.head_dropout}: must be 0 or more, below 1")
    for name in ("last_tokens", "dropout_samples"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be 1 or more")
    if any(size < 1 for size in args.head_sizes):
        raise UserError(f"--head_sizes {min(args.head_sizes)}: must be 1 or more")
    return {field.name: getattr(args, field.name) for field in fields(HeadArguments)}


# --- pooling -------------------------------------------------------------------------------------


POOLINGS = ("first", "last", "mean", "max", "mean_max", "attention")


class Pooling(torch.nn.Module):
    """Pool the hidden states of a text into one vector.

    Padding is ignored, on the left and on the right. A row that holds only padding gives zeros.

    Parameters
    ----------
    method : {"first", "last", "mean", "max", "mean_max", "attention"}
        - "first": the first token, as BERT was trained.
        - "last": the mean of the last `last_tokens` tokens. For decoders: only their last token
          has seen all others.
        - "mean": the mean of all tokens, as sentence encoders were trained.
        - "max": the largest value of each dimension.
        - "mean_max": mean and maximum, concatenated, as in ULMFiT (Howard and Ruder 2018,
          section 3.3, without the last state).
        - "attention": a weighted mean, with weights from a layer and a context vector (Yang et al.
          2016, "Hierarchical Attention Networks for Document Classification", section 2.2). It
          starts as the plain mean.
    width : int
        Width of a hidden state.
    last_tokens : int
        Number of tokens that "last" averages.

    Raises
    ------
    ValueError
        For another method.
    """

    def __init__(self, method: str, width: int, last_tokens: int = 1):
        super().__init__()
        if method not in POOLINGS:
            raise ValueError(f"pooling {method!r}: must be one of {', '.join(POOLINGS)}")
        self.method = method
        self.last_tokens = last_tokens
        self.out_width = 2 * width if method == "mean_max" else width
        if method == "attention":
            self.hidden = torch.nn.Linear(width, width)
            self.context = torch.nn.Linear(width, 1, bias=False)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool states (rows, length, width) where the mask (rows, length) is 1."""
        is_token = mask.bool()
        if self.method == "first":
            # Counted from the left, so that padding on the left is skipped.
            return _mean(states, is_token & (is_token.cumsum(1) == 1))
        if self.method == "last":
            # The number of tokens from here to the end of the row: 1 at the last token.
            from_end = is_token.flip(1).cumsum(1).flip(1)
            return _mean(states, is_token & (from_end <= self.last_tokens))
        if self.method == "mean":
            return _mean(states, is_token)
        if self.method == "max":
            return _max(states, is_token)
        if self.method == "mean_max":
            return torch.cat([_mean(states, is_token), _max(states, is_token)], dim=-1)
        score = self.context(torch.tanh(self.hidden(states))).squeeze(-1)  # (rows, length)
        # The smallest number instead of -inf: softmax of a row of -inf is NaN, and so is its
        # gradient. The product sets the weights of padding to 0 in such a row, too.
        score = score.float().masked_fill(~is_token, torch.finfo(torch.float32).min)
        weight = score.softmax(1) * is_token
        return (states * weight[..., None].to(states.dtype)).sum(1)


class LayerPooling(torch.nn.Module):
    """Combine the hidden states of the last layers into one sequence of hidden states.

    Parameters
    ----------
    method : {"concatenate", "weighted"}
        - "concatenate": one layer beside the other, as BERT's paper uses frozen features (Devlin
          et al. 2019, table 7).
        - "weighted": a sum with learned weights (Peters et al. 2018, "Deep contextualized word
          representations", equation 1). It starts as the plain mean.
    n_layers : int
        Number of layers to combine, counted from the last.
    width : int
        Width of a hidden state.
    """

    def __init__(self, method: str, n_layers: int, width: int):
        super().__init__()
        self.n_layers = n_layers
        self.out_width = width * n_layers if method == "concatenate" else width
        self.weights = torch.nn.Parameter(torch.zeros(n_layers)) if method == "weighted" else None

    def forward(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        """Combine the last `n_layers` of all layers, each of shape (rows, length, width)."""
        layers = layers[-self.n_layers :]
        if self.weights is None:
            return torch.cat(tuple(layers), dim=-1)
        shares = self.weights.softmax(0)
        return sum(
            share.to(layer.dtype) * layer for share, layer in zip(shares, layers, strict=True)
        )


def _mean(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the mean of the chosen states of each row, zeros where none is chosen."""
    weight = chosen[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


def _max(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the maximum of the chosen states of each row, zeros where none is chosen."""
    smallest = torch.finfo(states.dtype).min
    largest = states.masked_fill(~chosen[..., None], smallest).amax(1)
    return largest * chosen.any(1, keepdim=True)


# --- classifier ----------------------------------------------------------------------------------


ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


class PooledClassifierConfig(PreTrainedConfig):
    """Config of `PooledForSequenceClassification`: that of the encoder, and settings of the head.

    Attributes
    ----------
    text_config : config of the encoder or decoder below the head. transformers and peft look for
        it under this name.
    pooling, last_tokens : see `shared.models.heads.Pooling`.
    n_layers, layer_pooling : see `shared.models.heads.LayerPooling`; 1 reads only the last layer.
    head_sizes : widths of the hidden layers (GELU) between pooling and output layer, none by
        default.
    head_dropout : dropout rate before each layer of the head.
    dropout_samples : number of dropout masks per text in training; their losses are averaged (Inoue
        2019, "Multi-Sample Dropout for Accelerated Training and Better Generalization"). The
        encoder runs once, the head once per mask. 1 is plain dropout.
    """

    model_type = "pooled-classifier"
    sub_configs_defaults = {  # noqa: RUF012
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")
    }

    text_config: PreTrainedConfig | dict | None = None
    pooling: str = "mean"
    last_tokens: int = 1
    n_layers: int = 1
    layer_pooling: str = "weighted"
    head_sizes: list[int] | tuple[int, ...] = ()
    head_dropout: float = 0.1
    dropout_samples: int = 1


class PooledForSequenceClassification(PreTrainedModel):
    """A classifier of an encoder or decoder, pooling, and a head of any depth.

    It saves, loads and runs like a model of transformers: `from_pretrained`, `pipeline`,
    `AutoModelForSequenceClassification` (after this module is imported, which registers the
    class), adapters of peft, gradient checkpointing, `torch.compile`.

    Parameters
    ----------
    config : PooledClassifierConfig
    encoder : PreTrainedModel, optional
        Encoder or decoder with its weights. None makes one with random weights from the config.

    Raises
    ------
    UserError
        If `n_layers` is below 1 or above the number of layers of the encoder.
    """

    config_class = PooledClassifierConfig
    base_model_prefix = "encoder"
    # The loss below is a plain mean and takes no item count. False makes the Trainer divide it by
    # the number of gradient accumulation steps.
    accepts_loss_kwargs = False
    # This class has no attention of its own. It allows every kernel, and the class of the encoder
    # refuses those that it does not support.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PooledClassifierConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config)
        if encoder is None:
            encoder = AutoModel.from_config(config.text_config)
            if encoder.config.is_encoder_decoder:
                encoder = encoder_of(encoder)
        self.encoder = encoder
        self.supports_gradient_checkpointing = encoder.supports_gradient_checkpointing
        if getattr(self.encoder, "pooler", None) is not None:
            # BERT's layer for the first token. The head does not read it, so that it would never
            # get a gradient. Not None: some encoders call it without asking.
            self.encoder.pooler = torch.nn.Identity()
        encoder_config = config.text_config = self.encoder.config
        width, depth = encoder_config.hidden_size, encoder_config.num_hidden_layers
        if not 1 <= config.n_layers <= depth:
            raise UserError(f"--n_layers {config.n_layers}: must be 1 to {depth}, the model's own")
        self.layer_pooling = None
        if config.n_layers > 1:
            self.layer_pooling = LayerPooling(config.layer_pooling, config.n_layers, width)
            width = self.layer_pooling.out_width
        self.token_pooling = Pooling(config.pooling, width, config.last_tokens)
        self.dropout = torch.nn.Dropout(config.head_dropout)
        hidden: list[torch.nn.Module] = []
        width = self.token_pooling.out_width
        for size in config.head_sizes:
            hidden += [torch.nn.Linear(width, size), torch.nn.GELU()]
            hidden.append(torch.nn.Dropout(config.head_dropout))
            width = size
        self.hidden_layers = torch.nn.Sequential(*hidden)
        self.classifier = torch.nn.Linear(width, config.num_labels)
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        encoder: PreTrainedModel,
        label_names: Sequence[str],
        *,
        problem_type: ProblemType = "multi_label_classification",
        **head: Any,
    ) -> PooledForSequenceClassification:
        """Put a new head on a loaded encoder (`shared.models.load_encoder`).

        Parameters
        ----------
        encoder : PreTrainedModel
            The encoder or decoder. Its weights are not changed.
        label_names : sequence of str
            Names of the outputs: the labels, or for a regression the predicted quantities.
        problem_type : str
            Decides the loss for batches with labels, and whether `pipeline` applies a sigmoid, a
            softmax or neither.
        **head
            Settings of the head, see `PooledClassifierConfig`.
        """
        config = PooledClassifierConfig(
            text_config=encoder.config.to_dict(),
            id2label=dict(enumerate(label_names)),
            label2id={name: i for i, name in enumerate(label_names)},
            problem_type=problem_type,
            pad_token_id=encoder.config.pad_token_id,
            **head,
        )
        return cls(config, encoder)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Score texts given as token ids (rows, length) or as embeddings (rows, length, width).

        Logits have the shape (rows, labels) in evaluation. In training it is (dropout_samples x
        rows, labels): all rows with the first mask, then all rows with the second, and so on. The
        losses of `shared.training.losses` average them. Without an attention mask, all positions
        count as tokens. Further arguments go to the encoder.
        """
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        if attention_mask is None:
            assert inputs is not None, "input_ids or inputs_embeds are needed"
            attention_mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        return_hidden_states = kwargs.pop("output_hidden_states", False)
        outputs = self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_hidden_states=return_hidden_states or self.layer_pooling is not None,
            **kwargs,
        )
        states = outputs.last_hidden_state
        if self.layer_pooling is not None:
            states = self.layer_pooling(outputs.hidden_states)
        vectors = self.token_pooling(states, attention_mask)  # (rows, pooled width)
        # Each repetition of the rows gets a dropout mask of its own.
        samples = self.config.dropout_samples if self.training else 1
        logits = self.classifier(self.hidden_layers(self.dropout(vectors.repeat(samples, 1))))
        loss = None
        if labels is not None:
            targets = labels.repeat(samples, *[1] * (labels.dim() - 1))
            loss = self.loss_function(targets, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            # The Trainer collects all outputs of an evaluation. Hidden states that only the head
            # needs would fill the memory.
            hidden_states=outputs.hidden_states if return_hidden_states else None,
            attentions=outputs.get("attentions"),
        )

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        # Equal scores: layers and tokens start with equal weights, so that both are plain means.
        if isinstance(module, LayerPooling) and module.weights is not None:
            init.zeros_(module.weights)
        elif isinstance(module, Pooling) and module.method == "attention":
            init.zeros_(module.context.weight)


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder of an encoder-decoder such as T5 or BART.

    Its config stays that of an encoder-decoder, from which `PooledForSequenceClassification` builds
    the same encoder again.
    """
    encoder = model.get_encoder()
    encoder.config.is_encoder_decoder = True
    return encoder


AutoConfig.register(PooledClassifierConfig.model_type, PooledClassifierConfig)
AutoModelForSequenceClassification.register(PooledClassifierConfig, PooledForSequenceClassification)


# --- first weights -------------------------------------------------------------------------------


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
    # The output layer is the last one with an output per label: a layer of the encoder can have
    # the same width by chance.
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
