"""A recurrent network that writes a text from another one: encoder, attention, decoder.

To load a saved model, import this module. The import registers the class with transformers, and
``AutoModelForSeq2SeqLM`` then loads the folder.

Of this project, this file must import only `text_generators`, and that relatively:
`save_pretrained` copies it, and what it imports, into the folder of a model, so that transformers
can load the folder without this project, with ``trust_remote_code=True``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .text_generators import CopyHead, label_loss, shift_right


class RecurrentSeq2SeqConfig(PreTrainedConfig):
    """Sizes of a `RecurrentForSeq2SeqLM`.

    Attributes
    ----------
    vocab_size : tokens of the vocabulary.
    hidden_size : width of a token vector and of a state of the decoder; even.
    num_hidden_layers : layers of the encoder.
    num_decoder_layers : layers of the decoder; None: as many.
    dropout : rate on the token vectors, between layers, and before the output layer.
    copies_source : whether the decoder can copy tokens of the text that it reads.
    """

    model_type = "recurrent-seq2seq"

    vocab_size: int = 8000
    hidden_size: int = 256
    num_hidden_layers: int = 1
    num_decoder_layers: int | None = None
    dropout: float | int = 0.1
    copies_source: bool = False
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None


def _cells(config: RecurrentSeq2SeqConfig, width: int, n_layers: int, *, both: bool) -> nn.GRU:
    # torch warns of a dropout between layers that do not exist
    between = config.dropout if n_layers > 1 else 0.0
    return nn.GRU(
        config.hidden_size, width, n_layers, batch_first=True, dropout=between, bidirectional=both
    )


class RecurrentEncoder(nn.Module):
    """A GRU that reads a text forwards and backwards, each with half of the width."""

    main_input_name = "input_ids"

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.cells = _cells(config, config.hidden_size // 2, config.num_hidden_layers, both=True)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> Any:
        """Return the states (rows, length, width), and the tokens as ``source_ids``.

        Padding must be on the right. The states of padding are 0.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        packed = pack_padded_sequence(
            self.dropout(self.tokens(input_ids)),
            attention_mask.sum(1).clamp(min=1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        states, _last = self.cells(packed)
        states, _lengths = pad_packed_sequence(
            states, batch_first=True, total_length=input_ids.shape[1]
        )
        outputs: Any = BaseModelOutput(last_hidden_state=states)
        outputs["source_ids"] = input_ids
        return outputs


class RecurrentForSeq2SeqLM(PreTrainedModel, GenerationMixin):
    """A GRU that reads a text in both directions, and one that writes with attention to it.

    The decoder starts from the state in which the backward GRU ends (Bahdanau et al. 2015, "Neural
    Machine Translation by Jointly Learning to Align and Translate", appendix A.2.2). Its state at
    each token attends to all states of the source, and both together give the next token (Luong et
    al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.1,
    global attention with the score "general", without input feeding: all states of the decoder are
    then computed at once in training). The vectors of the tokens are shared as in a
    `TransformerForSeq2SeqLM`, and so is `CopyHead`.

    There is no cache: `generate` computes the states of the tokens before again for each new token.
    """

    config_class = RecurrentSeq2SeqConfig
    _tied_weights_keys = {  # noqa: RUF012
        "lm_head.weight": "encoder.tokens.weight",
    }

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__(config)
        width = config.hidden_size
        if width % 2:
            raise ValueError(f"hidden_size {width}: must be even")
        self.n_layers = config.num_decoder_layers or config.num_hidden_layers
        self.encoder = RecurrentEncoder(config)
        self.first_state = nn.Linear(width // 2, self.n_layers * width)
        self.decoder = _cells(config, width, self.n_layers, both=False)
        self.attention = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        if config.copies_source:
            self.copy_head = CopyHead(width, width)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def get_encoder(self, *_: Any, **__: Any) -> nn.Module:
        """Return the encoder, for `generate`."""
        return self.encoder

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the vectors of the tokens."""
        return self.encoder.tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the vectors of the tokens."""
        self.encoder.tokens = value

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Return what the decoder reads to predict labels (rows, length); see `shift_right`."""
        return shift_right(labels, self.config.decoder_start_token_id, self.config.pad_token_id)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the inputs of the next step of `generate`: all tokens so far."""
        passed = {name: kwargs.get(name) for name in ("encoder_outputs", "attention_mask")}
        return {"decoder_input_ids": input_ids, **passed}

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Score the tokens of the second text; parameters as in `TransformerForSeq2SeqLM`."""
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        memory, source_ids = encoder_outputs["last_hidden_state"], encoder_outputs["source_ids"]
        if attention_mask is None:
            attention_mask = torch.ones_like(source_ids)

        backward_end = memory[:, 0, memory.shape[-1] // 2 :]
        first = self.first_state(backward_end).tanh().unflatten(1, (self.n_layers, -1))
        inputs = self.dropout(self.get_input_embeddings()(decoder_input_ids))
        states, _last = self.decoder(inputs, first.transpose(0, 1).contiguous().to(inputs.dtype))

        scores = self.attention(states) @ memory.transpose(1, 2)
        scores = scores.masked_fill(~attention_mask[:, None].bool(), -torch.inf)
        context = scores.softmax(-1) @ memory
        mixed = self.dropout(self.mix(torch.cat([context, states], dim=-1)).tanh())
        logits = self.lm_head(mixed)
        if self.config.copies_source:
            logits = self.copy_head(logits, mixed, memory, source_ids, attention_mask)
        loss = None if labels is None else label_loss(logits, labels, num_items_in_batch)
        return Seq2SeqLMOutput(loss=loss, logits=logits, encoder_last_hidden_state=memory)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.GRU):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_ih"):
                    init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    init.orthogonal_(parameter)
                else:
                    init.zeros_(parameter)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            # Also the weights of the output layer: logits of about 1 at the start.
            init.normal_(module.weight, std=self.config.hidden_size**-0.5)
            loaded = getattr(module.weight, "_is_hf_initialized", False)
            if module.padding_idx is not None and not loaded:
                init.zeros_(module.weight[module.padding_idx])


# `exist_ok`: no error if a copy of this file, from the folder of a model, is imported, too.
AutoConfig.register(RecurrentSeq2SeqConfig.model_type, RecurrentSeq2SeqConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(RecurrentSeq2SeqConfig, RecurrentForSeq2SeqLM, exist_ok=True)
# Saving a model copies this file beside its weights, and names it in the config.
RecurrentSeq2SeqConfig.register_for_auto_class()
RecurrentForSeq2SeqLM.register_for_auto_class("AutoModelForSeq2SeqLM")
