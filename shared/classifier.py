"""A classification head on any encoder or decoder: what it pools, how deep it is, its dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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

from shared.errors import UserError
from shared.pooling import LayerPooling, Pooling

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


class PooledClassifierConfig(PreTrainedConfig):
    """Of `PooledForSequenceClassification`: the encoder's config, and what the head is made of.

    Attributes
    ----------
    text_config : of the encoder or decoder below the head, under the name by which transformers and
        peft look for it.
    pooling, last_tokens : see `shared.pooling.Pooling`.
    n_layers, layer_pooling : see `shared.pooling.LayerPooling`; 1 reads the last layer alone.
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
        sample after another, which the losses of `shared.losses` average. Without a mask every
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
