"""Classification heads: what they pool, how deep they are, and how their weights start."""

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
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel


# --- flags ---------------------------------------------------------------------------------------


@dataclass
class HeadArguments:
    """Flags about the head, of recipes that make it to measure (see `shared.models.heads`)."""

    pooling: Literal["first", "last", "mean", "max", "mean_max", "attention"] = flag(
        "mean", "How the hidden states of a text become one vector (default: mean)."
    )
    last_tokens: int = flag(1, "Tokens that --pooling last averages (default: 1).")
    n_layers: int = flag(1, "Layers that the head reads, from the last down (default: 1).")
    layer_pooling: Literal["concatenate", "weighted"] = flag(
        "weighted", "How several layers are combined (default: weighted, by learned weights)."
    )
    head_sizes: list[int] = flag([], "Widths of hidden layers in the head (default: none).")
    head_dropout: float = flag(0.1, "Dropout ahead of every layer of the head (default: .1).")
    dropout_samples: int = flag(
        1, "Dropout masks per text, of which the losses are averaged (default: 1)."
    )


def head_settings(args: HeadArguments) -> dict[str, Any]:
    """Return the flags as `PooledForSequenceClassification.from_encoder` takes them.

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
    """Make one vector of the hidden states of a text; padding has no say, on either side.

    A row of padding alone gives zeros.

    Parameters
    ----------
    kind : {"first", "last", "mean", "max", "mean_max", "attention"}
        The first token, as BERT was trained; the mean of the last `last_tokens` ones, for decoders,
        whose last token alone has seen all others; the mean of all, as sentence encoders were
        trained; the largest value of each dimension; both of these side by side, as in ULMFiT
        (Howard and Ruder 2018, section 3.3, without the last state); a mean weighted by a layer and
        a context vector (Yang et al. 2016, "Hierarchical Attention Networks for Document
        Classification", section 2.2), which starts as the plain mean.
    width : int
        Of a hidden state.
    last_tokens : int
        For "last".

    Raises
    ------
    ValueError
        For another kind.
    """

    def __init__(self, kind: str, width: int, last_tokens: int = 1):
        super().__init__()
        if kind not in POOLINGS:
            raise ValueError(f"pooling {kind!r}: there are {', '.join(POOLINGS)}")
        self.kind = kind
        self.last_tokens = last_tokens
        self.out_width = 2 * width if kind == "mean_max" else width
        if kind == "attention":
            self.hidden = torch.nn.Linear(width, width)
            self.context = torch.nn.Linear(width, 1, bias=False)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool states (rows, length, width) where the mask (rows, length) is 1."""
        real = mask.bool()
        if self.kind == "first":
            return _mean(states, real & (real.cumsum(1) == 1))
        if self.kind == "last":
            from_end = real.flip(1).cumsum(1).flip(1)
            return _mean(states, real & (from_end <= self.last_tokens))
        if self.kind == "mean":
            return _mean(states, real)
        if self.kind == "max":
            return _max(states, real)
        if self.kind == "mean_max":
            return torch.cat([_mean(states, real), _max(states, real)], dim=-1)
        score = self.context(torch.tanh(self.hidden(states))).squeeze(-1)
        score = score.float().masked_fill(~real, torch.finfo(torch.float32).min)
        weight = score.softmax(1) * real
        return (states * weight[..., None].to(states.dtype)).sum(1)


class LayerPooling(torch.nn.Module):
    """Make one sequence of hidden states of those of the last layers.

    Parameters
    ----------
    kind : {"concatenate", "weighted"}
        All of them side by side, as BERT's paper uses frozen features (Devlin et al. 2019, table
        7), or a learned weighted sum (Peters et al. 2018, "Deep contextualized word
        representations", equation 1), which starts as the plain mean.
    n_layers : int
        The last so many.
    width : int
        Of a hidden state.
    """

    def __init__(self, kind: str, n_layers: int, width: int):
        super().__init__()
        self.n_layers = n_layers
        self.out_width = width * n_layers if kind == "concatenate" else width
        self.weights = torch.nn.Parameter(torch.zeros(n_layers)) if kind == "weighted" else None

    def forward(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        """Combine the last of some layers, each of shape (rows, length, width)."""
        layers = layers[-self.n_layers :]
        if self.weights is None:
            return torch.cat(tuple(layers), dim=-1)
        shares = self.weights.softmax(0)
        return sum(
            share.to(layer.dtype) * layer for share, layer in zip(shares, layers, strict=True)
        )


def _mean(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    weight = chosen[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


def _max(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    smallest = torch.finfo(states.dtype).min
    largest = states.masked_fill(~real[..., None], smallest).amax(1)
    return largest * real.any(1, keepdim=True)


# --- classifier ----------------------------------------------------------------------------------


ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


class PooledClassifierConfig(PreTrainedConfig):
    """Of `PooledForSequenceClassification`: the encoder's config, and what the head is made of.

    Attributes
    ----------
    text_config : of the encoder or decoder below the head, under the name by which transformers and
        peft look for it.
    pooling, last_tokens : see `shared.models.heads.Pooling`.
    n_layers, layer_pooling : see `shared.models.heads.LayerPooling`; 1 reads the last layer alone.
    head_sizes : widths of hidden layers (GELU) between pooling and the output layer, if any.
    head_dropout : rate ahead of every layer of the head.
    dropout_samples : so many dropout masks per text in training, of which the losses are averaged
        (Inoue 2019, "Multi-Sample Dropout for Accelerated Training and Better Generalization"): the
        encoder runs once, the head several times. 1 is plain dropout.
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
    """Any encoder or decoder with a head made to measure.

    Saves, loads and runs like a model of transformers: `from_pretrained`, `pipeline`,
    `AutoModelForSequenceClassification` (once this module is imported, which tells transformers
    its name), adapters of peft, gradient checkpointing, `torch.compile`.

    Parameters
    ----------
    config : PooledClassifierConfig
    encoder : PreTrainedModel, optional
        With its weights; without, one is made from the config.

    Raises
    ------
    UserError
        If the head is to read more layers than there are.
    """

    config_class = PooledClassifierConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    # The loss below is a plain mean; the Trainer divides it by the number of pieces of a batch.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PooledClassifierConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.text_config) if encoder is None else encoder
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None  # a layer for the first token that nothing would train
        config.text_config = self.encoder.config
        width, depth = config.text_config.hidden_size, config.text_config.num_hidden_layers
        if not 1 <= config.n_layers <= depth:
            raise UserError(f"--n_layers {config.n_layers}: must be 1 to {depth}, the model's own")
        self.layer_pooling = None
        if config.n_layers > 1:
            self.layer_pooling = LayerPooling(config.layer_pooling, config.n_layers, width)
            width = self.layer_pooling.out_width
        self.token_pooling = Pooling(config.pooling, width, config.last_tokens)
        self.dropout = torch.nn.Dropout(config.head_dropout)
        hidden, width = [], self.token_pooling.out_width
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
        **head,
    ) -> PooledForSequenceClassification:
        """Put a new head on a loaded encoder (`shared.models.load_encoder`).

        Parameters
        ----------
        encoder : PreTrainedModel
            Its weights stay as they are.
        label_names : sequence of str
            What outputs are called; for a regression, the quantities.
        problem_type : str
            What `pipeline` makes of the outputs, and the loss where a batch has labels.
        **head
            Settings of `PooledClassifierConfig`.
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
        **kwargs,
    ) -> SequenceClassifierOutput:
        """Score texts given as token ids (rows, length), or as embeddings (rows, length, width).

        Logits have the shape (rows, labels); in training (dropout_samples x rows, labels), one
        sample after another, which the losses of `shared.training.losses` average. Without a mask every
        token counts. Further arguments go to the encoder.
        """
        given = input_ids if inputs_embeds is None else inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        asked = kwargs.pop("output_hidden_states", False)
        outputs = self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_hidden_states=asked or self.layer_pooling is not None,
            **kwargs,
        )
        states = outputs.last_hidden_state
        if self.layer_pooling is not None:
            states = self.layer_pooling(outputs.hidden_states)
        vectors = self.token_pooling(states, attention_mask)
        samples = self.config.dropout_samples if self.training else 1
        logits = self.classifier(self.hidden_layers(self.dropout(vectors.repeat(samples, 1))))
        loss = None
        if labels is not None:
            targets = labels.repeat(samples, *[1] * (labels.dim() - 1))
            loss = self.loss_function(targets, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            # What the head alone needs must not fill the memory of an evaluation.
            hidden_states=outputs.hidden_states if asked else None,
            attentions=outputs.get("attentions"),
        )

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LayerPooling) and module.weights is not None:
            init.zeros_(module.weights)
        elif isinstance(module, Pooling) and module.kind == "attention":
            init.zeros_(module.context.weight)


AutoConfig.register(PooledClassifierConfig.model_type, PooledClassifierConfig)
AutoModelForSequenceClassification.register(PooledClassifierConfig, PooledForSequenceClassification)


# --- initialization ------------------------------------------------------------------------------


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
