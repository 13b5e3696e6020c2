"""Classification heads on an encoder or a decoder: pooling, layers, and the classifier.

`Pooling` turns the hidden states of a text into one vector, `LayerPooling` combines the hidden
states of several layers, and `PooledForSequenceClassification` puts pooling and a head on any
encoder or decoder.

To load a saved classifier, import this module. The import registers the classes with transformers,
and ``AutoConfig``, ``AutoModelForSequenceClassification`` and ``pipeline("text-classification")``
then load the folder.

Of this project, this file must import only `transformer`, and that relatively: `save_pretrained`
copies both into the folder of the model, so that transformers can load the folder without this
project, with ``trust_remote_code=True``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

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
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput

from .transformer import TransformerModel  # noqa: F401  (registers encoders from random weights)

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
    further_width : width of what a subclass puts beside the pooled vector of a text.
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
    further_width: int = 0

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what is saved: all but the place of the encoder on this machine."""
        settings = super().to_diff_dict()
        (settings.get("text_config") or {}).pop("_name_or_path", None)
        return settings


class PooledForSequenceClassification(PreTrainedModel):
    """A classifier of an encoder or decoder, pooling, and a head of any depth.

    It saves, loads and runs like a model of transformers: `from_pretrained`, `pipeline`,
    `AutoModelForSequenceClassification` (after this module is imported, which registers the
    class, or with ``trust_remote_code=True``), adapters of peft, gradient checkpointing,
    `torch.compile`.

    Parameters
    ----------
    config : PooledClassifierConfig
    encoder : PreTrainedModel, optional
        Encoder or decoder with its weights. None makes one with random weights from the config.

    Raises
    ------
    ValueError
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
            raise ValueError(f"n_layers {config.n_layers}: must be 1 to {depth}, the model's own")
        self.layer_pooling = None
        if config.n_layers > 1:
            self.layer_pooling = LayerPooling(config.layer_pooling, config.n_layers, width)
            width = self.layer_pooling.out_width
        self.token_pooling = Pooling(config.pooling, width, config.last_tokens)
        self.dropout = torch.nn.Dropout(config.head_dropout)
        hidden: list[torch.nn.Module] = []
        width = self.token_pooling.out_width + config.further_width
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
        return_hidden_states = kwargs.pop("output_hidden_states", False)
        vectors, outputs = self.pool(
            input_ids, attention_mask, inputs_embeds, return_hidden_states, **kwargs
        )
        logits = self.head_logits(vectors)
        loss = None
        if labels is not None:
            samples = len(logits) // len(labels)
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

    def pool(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None = None,
        return_hidden_states: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ModelOutput]:
        """Return the pooled vectors of texts, (rows, pooled width), and the encoder's outputs."""
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        if attention_mask is None:
            assert inputs is not None, "input_ids or inputs_embeds are needed"
            attention_mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
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
        return self.token_pooling(states, attention_mask), outputs

    def head_logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the logits of vectors; in training, each repetition has its own dropout mask."""
        samples = self.config.dropout_samples if self.training else 1
        return self.classifier(self.hidden_layers(self.dropout(vectors.repeat(samples, 1))))

    @torch.no_grad()
    def rescale(self, mean: float, scale: float) -> None:
        """Make each output ``mean + scale * output``: numbers that were scaled for training."""
        self.classifier.weight.mul_(scale)
        self.classifier.bias.mul_(scale).add_(mean)

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        # Equal scores: layers and tokens start with equal weights, so that both are plain means.
        if isinstance(module, LayerPooling) and module.weights is not None:
            init.zeros_(module.weights)
        # The layer, not its `Pooling`: modules without weights of their own never come here.
        elif module is getattr(self.token_pooling, "context", None):
            init.zeros_(module.weight)


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder of an encoder-decoder such as T5 or BART.

    Its config stays that of an encoder-decoder, from which `PooledForSequenceClassification` builds
    the same encoder again.
    """
    encoder = model.get_encoder()
    encoder.config.is_encoder_decoder = True
    return encoder


# `exist_ok`: no error if a copy of this file, from the folder of a model, is imported, too.
AutoConfig.register(PooledClassifierConfig.model_type, PooledClassifierConfig, exist_ok=True)
AutoModelForSequenceClassification.register(
    PooledClassifierConfig, PooledForSequenceClassification, exist_ok=True
)
# Saving a model copies this file beside its weights, and names it in the config (``auto_map``).
PooledClassifierConfig.register_for_auto_class()
PooledForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
