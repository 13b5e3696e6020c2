"""Transformers that write texts: a decoder, and an encoder with a decoder that reads it.

- `TransformerForCausalLM` predicts the next token of a text. With the same weights it equals GPT-2.
- `TransformerForSeq2SeqLM` predicts a text from another one, such as its translation. With
  ``config.copies_source`` it can also copy tokens of that text (`CopyHead`). Its encoder can be a
  pretrained model of another architecture (``config.pretrained_encoder``).

To load a saved model, import this module. The import registers the classes with transformers, and
``AutoModelForCausalLM`` and ``AutoModelForSeq2SeqLM`` then load the folder.

Of this project, this file must import only `transformer`, and that relatively: `save_pretrained`
copies both into the folder of a model, so that transformers can load the folder without this
project, with ``trust_remote_code=True``.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    DynamicCache,
    EncoderDecoderCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast, Seq2SeqLMOutput

from .transformer import Stack, TransformerConfig, TransformerModel, TransformerPreTrainedModel

IGNORED = -100  # a label that does not count in the loss


def shift_right(labels: torch.Tensor, start: int, padding: int) -> torch.Tensor:
    """Return what a decoder reads to predict labels (rows, length): those before each.

    Parameters
    ----------
    labels : int64 tensor of shape (rows, length)
        Labels that do not count (-100) are read as padding.
    start, padding : int
        The token before the first label, and that of padding.
    """
    first = torch.full_like(labels[:, :1], start)
    shifted = torch.cat([first, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORED, padding)


def label_loss(
    logits: torch.Tensor, labels: torch.Tensor, n_items: torch.Tensor | int | None
) -> torch.Tensor:
    """Return the cross-entropy over the labels that count.

    Parameters
    ----------
    logits : tensor of shape (rows, length, tokens of the vocabulary)
    labels : int64 tensor of shape (rows, length)
    n_items : scalar, optional
        Number of labels in the effective batch; the loss is a sum divided by it. None: a mean.
    """
    total = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="mean" if n_items is None else "sum",
    )
    return total if n_items is None else total / n_items


class CopyHead(nn.Module):
    """Mixes the probabilities of a vocabulary with those of the tokens of the source.

    Each state of the decoder attends to the states of the source, and a gate says how likely the
    next token is a copy: a token then is as likely as the attention on all its places together.
    Source: See et al. 2017, "Get To The Point: Summarization with Pointer-Generator Networks",
    section 2.2; the attention is one of its own, not that of the layers below.

    Parameters
    ----------
    width, memory_width : int
        Of a state of the decoder, and of one of the source.
    """

    def __init__(self, width: int, memory_width: int):
        super().__init__()
        self.query = nn.Linear(width, memory_width)
        self.gate = nn.Linear(width + memory_width, 1)

    def forward(
        self,
        logits: torch.Tensor,
        states: torch.Tensor,
        memory: torch.Tensor,
        source_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return log-probabilities (rows, length, tokens of the vocabulary), in float32.

        Parameters
        ----------
        logits : tensor of shape (rows, length, tokens of the vocabulary)
        states : tensor of shape (rows, length, width)
        memory : tensor of shape (rows, places, memory_width)
        source_ids : int64 tensor of shape (rows, places)
        attention_mask : tensor of shape (rows, places), optional
            0 for padding, which is not copied.
        """
        scores = self.query(states) @ memory.transpose(1, 2) / memory.shape[-1] ** 0.5
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask[:, None].bool(), -torch.inf)
        attention = scores.float().softmax(-1)
        context = attention.to(memory.dtype) @ memory
        gate = self.gate(torch.cat([states, context], dim=-1)).float()
        probabilities = logits.float().softmax(-1) * gate.sigmoid()
        copies = attention * (-gate).sigmoid()
        places = source_ids[:, None].expand_as(copies)
        # A probability of 0 has no logarithm, and one near 0 a gradient that is not finite.
        return probabilities.scatter_add(2, places, copies).clamp(min=1e-10).log()


class TransformerForCausalLM(TransformerPreTrainedModel, GenerationMixin):
    """A decoder with a score of each token to be the next one."""

    _tied_weights_keys = {"lm_head.weight": "model.stack.embeddings.tokens.weight"}  # noqa: RUF012
    base_model_prefix = "model"

    def __init__(self, config: TransformerConfig):
        config.is_decoder = True
        super().__init__(config)
        self.model = TransformerModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Score the next tokens: logits (rows, length, tokens of the vocabulary).

        Parameters
        ----------
        input_ids, attention_mask, **kwargs : as in `TransformerModel.forward`
        labels : int64 tensor of shape (rows, length), optional
            For the loss, a mean. They are the input itself: each position is compared with the next
            label. -100: it does not count.
        logits_to_keep : int or tensor
            Number of last positions to score (0: all), or their indices. A cross-entropy over all
            needs much memory.
        """
        n_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.model(input_ids, attention_mask, **kwargs)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits, labels, vocab_size=self.config.vocab_size, num_items_in_batch=n_items
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )


def _hand_on_tokens(_: nn.Module, args: Any, kwargs: dict[str, Any], outputs: Any) -> None:
    """Add its tokens to the outputs of an encoder, for a decoder that copies them."""
    outputs["source_ids"] = args[0] if args else kwargs["input_ids"]


class TransformerForSeq2SeqLM(TransformerPreTrainedModel, GenerationMixin):
    """An encoder of one text, and a decoder that reads its states and predicts another text.

    Both share the vectors of the tokens, and so does the output layer (Vaswani et al. 2017, section
    3.4). With ``config.copies_source`` the logits are the log-probabilities of a `CopyHead`.

    Parameters
    ----------
    config : TransformerConfig
        With ``pretrained_encoder`` the encoder is that model, and the rest starts at random (Rothe,
        Narayan and Severyn 2020, "Leveraging Pre-trained Checkpoints for Sequence Generation
        Tasks", but for the decoder, which takes only the vectors of the tokens from it).
    encoder : PreTrainedModel, optional
        The model of ``config.pretrained_encoder`` with its weights, such as BERT. None makes one
        with random weights.
    """

    def __init__(self, config: TransformerConfig, encoder: PreTrainedModel | None = None):
        config.is_encoder_decoder = True
        super().__init__(config)
        if config.pretrained_encoder is None:
            of_encoder = deepcopy(config)
            of_encoder.is_decoder = of_encoder.is_encoder_decoder = False
            encoder = TransformerModel(of_encoder)
        else:
            encoder = encoder or AutoModel.from_config(config.pretrained_encoder)
            config.pretrained_encoder = encoder.config
            self.base_model_prefix = "encoder"  # all other weights are those of a new head
            if getattr(encoder, "pooler", None) is not None:
                # BERT's layer for the first token, which no decoder reads, would get no gradient.
                encoder.pooler = nn.Identity()
        self.encoder = encoder
        vectors = encoder.get_input_embeddings()
        name = next(name for name, module in encoder.named_modules() if module is vectors)
        tied = ("decoder.embeddings.tokens.weight", "lm_head.weight")
        self._tied_weights_keys = dict.fromkeys(tied, f"encoder.{name}.weight")
        n_layers = config.num_decoder_layers or config.num_hidden_layers
        self.decoder = Stack(config, n_layers, is_causal=True, reads_memory=True)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.copies_source:
            self.copy_head = CopyHead(config.hidden_size, config.hidden_size)
            self.encoder.register_forward_hook(_hand_on_tokens, with_kwargs=True)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the vectors of the tokens."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the vectors of the tokens."""
        self.encoder.set_input_embeddings(value)
        self.decoder.embeddings.tokens = value

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Return what the decoder reads to predict labels (rows, length); see `shift_right`."""
        return shift_right(labels, self.config.decoder_start_token_id, self.config.pad_token_id)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Score the tokens of the second text: logits (rows, its length, tokens of the vocabulary).

        Parameters
        ----------
        input_ids, attention_mask : tensors of shape (rows, length)
            The first text; not needed with `encoder_outputs`, those of the encoder.
        decoder_input_ids, decoder_attention_mask : tensors of shape (rows, length), optional
            What the decoder reads. By default it is made from the labels. Padding on the right
            needs no mask: no token attends to what comes after it.
        past_key_values, use_cache : as in `TransformerModel.forward`
        labels : int64 tensor of shape (rows, length), optional
            The second text, for the loss, a mean. -100: it does not count.
        num_items_in_batch : scalar, optional
            Number of labels in the effective batch; the loss is a sum divided by it.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if use_cache and past_key_values is None and labels is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        caches = (None, None)
        if past_key_values is not None:
            caches = past_key_values.self_attention_cache, past_key_values.cross_attention_cache
        states, _ = self.decoder(
            decoder_input_ids,
            decoder_attention_mask,
            memory=encoder_outputs[0],
            memory_attention_mask=attention_mask,
            caches=caches,
        )
        logits = self.lm_head(states)
        if self.config.copies_source:
            source_ids = encoder_outputs["source_ids"]
            logits = self.copy_head(logits, states, encoder_outputs[0], source_ids, attention_mask)
        loss = None if labels is None else label_loss(logits, labels, num_items_in_batch)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values,
            encoder_last_hidden_state=encoder_outputs[0],
        )


# `exist_ok`: no error if a copy of this file, from the folder of a model, is imported, too.
AutoModelForCausalLM.register(TransformerConfig, TransformerForCausalLM, exist_ok=True)
AutoModelForSeq2SeqLM.register(TransformerConfig, TransformerForSeq2SeqLM, exist_ok=True)
TransformerForCausalLM.register_for_auto_class("AutoModelForCausalLM")
TransformerForSeq2SeqLM.register_for_auto_class("AutoModelForSeq2SeqLM")
