"""The transformer from its parts: masks, positions, attention, blocks, and the model of one stack.

From bottom to top:

1. Masks: `padding_mask` and `causal_mask`. True where a query may attend.
2. `Embeddings`, with learned or sinusoidal positions.
3. `Attention` of several heads, over the same texts or over those of an encoder.
4. `Block`, with the norm before or after its parts, and `Stack`, the blocks with their last norm.
5. `TransformerModel`: an encoder or a decoder. `shared.models.text_generators` has the models that
   write texts.

Sources: Vaswani et al. 2017, "Attention Is All You Need"; Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners" (GPT-2: the norm before each part, smaller first weights); Xiong et
al. 2020, "On Layer Normalization in the Transformer Architecture" (why before). With the same
weights, blocks equal those of ``torch.nn.Transformer``, and a decoder equals GPT-2.

This file must not import other modules of this project: `save_pretrained` copies it into the folder
of a model, so that transformers can load the folder without this project, with
``trust_remote_code=True``. The import registers the classes with transformers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions


class TransformerConfig(PreTrainedConfig):
    """Sizes and variants of the models of this module.

    Attributes
    ----------
    vocab_size : tokens of the vocabulary.
    hidden_size : width of a hidden state.
    num_hidden_layers : number of blocks; of an encoder-decoder, of the encoder.
    num_decoder_layers : number of blocks of the decoder of an encoder-decoder; None: as many.
    num_attention_heads : heads of each attention; `hidden_size` is a multiple of it.
    intermediate_size : width between the two layers of the feed-forward part.
    max_position_embeddings : tokens that the model can read.
    positions : "learned" vectors, or "sinusoidal" ones (Vaswani et al. 2017, section 3.5).
    norm : "pre" normalises the input of each part (GPT-2), "post" the sum after it (Vaswani et al.
        2017; BERT).
    embedding_norm : whether the sum of token and position vectors is normalised (BERT).
    final_norm : whether the output of the last block is normalised; None: with "pre".
    activation : name of the function of the feed-forward part, as transformers has it.
    bias : whether linear layers and norms have a bias.
    dropout : rate on the embeddings and on the output of each part of a block.
    attention_dropout : rate on the attention weights.
    initializer_range : standard deviation of the first weights. With "pre", the layers that write
        to the hidden states have it divided by the root of their number, as in GPT-2.
    is_decoder : whether a model of one stack is a decoder: a token attends to those before it.
    copies_source : whether an encoder-decoder can copy tokens of the text that it reads.
    pretrained_encoder : config of another model that is the encoder of an encoder-decoder; None:
        an encoder of this module.
    """

    model_type = "transformer-parts"
    sub_configs_defaults = {  # noqa: RUF012
        "pretrained_encoder": SubConfigSpec(
            config_class=AutoConfig, model_type="bert", optional=True
        )
    }

    vocab_size: int = 8000
    hidden_size: int = 256
    num_hidden_layers: int = 3
    num_decoder_layers: int | None = None
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    max_position_embeddings: int = 512
    positions: str = "learned"
    norm: str = "pre"
    embedding_norm: bool = False
    final_norm: bool | None = None
    activation: str = "gelu"
    bias: bool = True
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    is_decoder: bool = False
    is_encoder_decoder: bool = False
    copies_source: bool = False
    pretrained_encoder: PreTrainedConfig | dict | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what is saved: all but the place of a pretrained encoder on this machine."""
        settings = super().to_diff_dict()
        (settings.get("pretrained_encoder") or {}).pop("_name_or_path", None)
        return settings


# --- masks ---------------------------------------------------------------------------------------


def padding_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return a mask that hides padding from all queries.

    Parameters
    ----------
    attention_mask : tensor of shape (rows, keys)
        1 for tokens, 0 for padding.

    Returns
    -------
    bool tensor of shape (rows, 1, 1, keys)
        True where a query may attend. It fits the shape (rows, heads, queries, keys).
    """
    return attention_mask[:, None, None, :].bool()


def causal_mask(n_queries: int, n_keys: int, device: torch.device | None = None) -> torch.Tensor:
    """Return a mask that hides from each query what comes after it.

    The queries are the last of the keys: with a cache there are more keys than queries.

    Returns
    -------
    bool tensor of shape (n_queries, n_keys)
        True where a query may attend.
    """
    all_true = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return all_true.tril(diagonal=n_keys - n_queries)


# --- embeddings ----------------------------------------------------------------------------------


def sinusoidal_positions(n_positions: int, width: int) -> torch.Tensor:
    """Return sines and cosines of each position: (n_positions, width), of an even width.

    Dimension 2i has the sine and 2i + 1 the cosine of position / 10000 ** (2i / width) (Vaswani et
    al. 2017, section 3.5).
    """
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(n_positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(n_positions, width)


class Embeddings(nn.Module):
    """Vectors of tokens and of their positions, added.

    Sinusoidal positions have entries of up to 1. So that they do not drown the tokens, which start
    much smaller, the vectors of the tokens are then multiplied by the root of their width, as in
    Vaswani et al. 2017, section 3.4.
    """

    position_table: torch.Tensor

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.scale = 1.0
        if config.positions == "learned":
            self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        else:
            self.scale = math.sqrt(config.hidden_size)
            table = sinusoidal_positions(config.max_position_embeddings, config.hidden_size)
            self.register_buffer("position_table", table, persistent=False)
        self.norm = _norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, input_ids: torch.Tensor | None, vectors: torch.Tensor | None, positions: torch.Tensor
    ) -> torch.Tensor:
        """Embed tokens (rows, length), or their `vectors`; `positions` is like the tokens."""
        if vectors is None:
            vectors = self.tokens(input_ids)
        if self.scale == 1:
            of_positions = self.positions(positions)
        else:
            of_positions = self.position_table[positions].to(vectors.dtype)
        return self.dropout(self.norm(vectors * self.scale + of_positions))


# --- attention -----------------------------------------------------------------------------------


class Attention(nn.Module):
    """Attention of several heads (Vaswani et al. 2017, section 3.2.2).

    Each head weighs the values of all keys by the similarity of the keys with a query. Without a
    memory, queries, keys and values are of the same tokens; with one, keys and values are of the
    memory.
    """

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        width = config.hidden_size
        if width % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {width}: must be a multiple of num_attention_heads, "
                f"{config.num_attention_heads}"
            )
        self.layer, self.n_heads = layer, config.num_attention_heads
        self.dropout = config.attention_dropout
        # Queries, keys and values in one matrix: one large product is faster than three.
        self.inputs = nn.Linear(width, 3 * width, bias=config.bias)
        self.output = nn.Linear(width, width, bias=config.bias)

    def heads(self, states: torch.Tensor) -> torch.Tensor:
        """Reshape (rows, length, width) to (rows, heads, length, width / heads)."""
        return states.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def forward(
        self,
        states: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        is_causal: bool = False,
        memory: torch.Tensor | None = None,
        cache: Any = None,
    ) -> torch.Tensor:
        """Return new states of the queries, (rows, queries, width).

        Parameters
        ----------
        states : tensor of shape (rows, queries, width)
        mask : bool tensor that fits (rows, heads, queries, keys), optional
            True where a query may attend. None: everywhere.
        is_causal : bool
            In place of a mask: as `causal_mask`, for as many keys as queries. It is faster.
        memory : tensor of shape (rows, keys, width), optional
        cache : Cache of transformers, optional
            Keys and values of the tokens before, to which those of `states` are added; of a memory,
            its keys and values once they are computed.
        """
        width = states.shape[-1]
        if memory is None:
            query, key, value = map(self.heads, self.inputs(states).split(width, dim=-1))
            if cache is not None:
                key, value = cache.update(key, value, self.layer)
        else:
            parts = self.inputs.weight.split(width)
            biases = (None,) * 3 if self.inputs.bias is None else self.inputs.bias.split(width)
            query = self.heads(nn.functional.linear(states, parts[0], biases[0]))
            if cache is not None and cache.get_seq_length(self.layer):
                key, value = cache.layers[self.layer].keys, cache.layers[self.layer].values
            else:
                key, value = (
                    self.heads(nn.functional.linear(memory, parts[i], biases[i])) for i in (1, 2)
                )
                if cache is not None:
                    key, value = cache.update(key, value, self.layer)
        mixed = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))


# --- blocks --------------------------------------------------------------------------------------


class Block(GradientCheckpointingLayer):
    """Attention, in a decoder of an encoder also attention to its memory, and a feed-forward part.

    The output of each part is added to its input. The norm comes before the part ("pre"), so that
    the states pass the sums unchanged from the first to the last block, or after the sum ("post").
    """

    def __init__(self, config: TransformerConfig, layer: int, *, reads_memory: bool):
        super().__init__()
        self.norm_first = config.norm == "pre"
        self.attention, self.attention_norm = Attention(config, layer), _norm(config)
        if reads_memory:
            self.memory_attention, self.memory_norm = Attention(config, layer), _norm(config)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.hidden_size, config.intermediate_size, bias=config.bias),
            ACT2FN[config.activation],
            nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias),
        )
        self.feed_forward_norm = _norm(config)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def outputs(self) -> list[Any]:
        """Return the layers whose outputs are added to the states."""
        layers = [self.attention.output, self.feed_forward[-1]]
        if hasattr(self, "memory_attention"):
            layers.append(self.memory_attention.output)
        return layers

    def forward(
        self,
        states: torch.Tensor,
        mask: torch.Tensor | None = None,
        is_causal: bool = False,
        memory: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
        caches: tuple[Any, Any] = (None, None),
    ) -> torch.Tensor:
        """Return new states (rows, length, width); `caches` of the tokens and of the memory."""

        def attend(x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, mask, is_causal=is_causal, cache=caches[0])

        def attend_to_memory(x: torch.Tensor) -> torch.Tensor:
            return self.memory_attention(x, memory_mask, memory=memory, cache=caches[1])

        parts = [(attend, self.attention_norm)]
        if memory is not None:
            parts.append((attend_to_memory, self.memory_norm))
        parts.append((self.feed_forward, self.feed_forward_norm))
        for part, norm in parts:
            if self.norm_first:
                states = states + self.dropout(part(norm(states)))
            else:
                states = norm(states + self.dropout(part(states)))
        return states


class Stack(nn.Module):
    """Embeddings, blocks one upon the other, and the last norm: an encoder, or a decoder."""

    def __init__(
        self, config: TransformerConfig, n_layers: int, *, is_causal: bool, reads_memory: bool
    ):
        super().__init__()
        self.is_causal = is_causal
        self.embeddings = Embeddings(config)
        blocks = [Block(config, layer, reads_memory=reads_memory) for layer in range(n_layers)]
        if config.norm == "pre":
            # The states are a sum over all parts of all blocks. With smaller outputs at the start,
            # the sum has the same variance in a model of any depth (Radford et al. 2019, section
            # 2.3). A norm after each part makes this needless.
            outputs = [layer for block in blocks for layer in block.outputs]
            for layer in outputs:
                layer.initial_scale = len(outputs) ** -0.5
        self.blocks = nn.ModuleList(blocks)
        last = config.norm == "pre" if config.final_norm is None else config.final_norm
        self.norm = _norm(config) if last else nn.Identity()

    def forward(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None = None,
        *,
        inputs_embeds: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
        memory_attention_mask: torch.Tensor | None = None,
        caches: tuple[Any, Any] = (None, None),
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the states (rows, length, width), and those before each block and after the last.

        Parameters
        ----------
        input_ids : int64 tensor of shape (rows, length)
            None with `inputs_embeds`, vectors of tokens, (rows, length, width).
        attention_mask : tensor of shape (rows, tokens before + length), optional
            1 for tokens, 0 for padding, on either side. The position of a token is the number of
            tokens before it, without padding.
        memory, memory_attention_mask : of an encoder, optional
        caches : as in `Block`
        """
        n_before = 0 if caches[0] is None else caches[0].get_seq_length()
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        assert inputs is not None, "input_ids or inputs_embeds are needed"
        length, device = inputs.shape[1], inputs.device
        mask, is_causal = None, False
        if attention_mask is None:
            positions = torch.arange(n_before, n_before + length, device=device)[None]
        else:
            positions = (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -length:]
            mask = padding_mask(attention_mask)
        if self.is_causal and length > 1:
            if mask is None and not n_before:
                is_causal = True
            else:
                causal = causal_mask(length, n_before + length, device)
                # Each query sees itself: the softmax of a row without any key is not a number.
                itself = causal ^ causal.tril(n_before - 1)
                mask = causal if mask is None else (mask & causal) | itself
        memory_mask = None
        if memory_attention_mask is not None:
            memory_mask = padding_mask(memory_attention_mask)

        states = self.embeddings(input_ids, inputs_embeds, positions)
        all_states = [states]
        for block in self.blocks:
            states = block(states, mask, is_causal, memory, memory_mask, caches)
            all_states.append(states)
        states = self.norm(states)
        all_states[-1] = states
        return states, tuple(all_states)


def _norm(config: TransformerConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.bias)


# --- models --------------------------------------------------------------------------------------


class TransformerPreTrainedModel(PreTrainedModel):
    """What the models of this module have in common: config and first weights."""

    config_class = TransformerConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("Block",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=std)
            loaded = getattr(module.weight, "_is_hf_initialized", False)
            if module.padding_idx is not None and not loaded:
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=std * getattr(module, "initial_scale", 1.0))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Embeddings) and self.config.positions == "sinusoidal":
            # A buffer that is not saved has no value when a model is loaded.
            init.copy_(module.position_table, sinusoidal_positions(*module.position_table.shape))


class TransformerModel(TransformerPreTrainedModel):
    """An encoder, or with ``config.is_decoder`` a decoder: hidden states of tokens."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.stack = Stack(
            config, config.num_hidden_layers, is_causal=config.is_decoder, reads_memory=False
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the vectors of the tokens."""
        return self.stack.embeddings.tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the vectors of the tokens."""
        self.stack.embeddings.tokens = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Return the hidden states of tokens (rows, length); see `Stack.forward`.

        `past_key_values` is a cache of the tokens before, which a decoder fills; with `use_cache` a
        new one is made. Other arguments, such as token types, are ignored.
        """
        if use_cache and past_key_values is None and self.config.is_decoder:
            from transformers import DynamicCache  # imports much, and an encoder needs none

            past_key_values = DynamicCache(config=self.config)
        states, all_states = self.stack(
            input_ids,
            attention_mask,
            inputs_embeds=inputs_embeds,
            caches=(past_key_values, None),
        )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=states,
            past_key_values=past_key_values,
            hidden_states=all_states if output_hidden_states else None,
        )


# `exist_ok`: no error if a copy of this file, from the folder of a model, is imported, too.
AutoConfig.register(TransformerConfig.model_type, TransformerConfig, exist_ok=True)
AutoModel.register(TransformerConfig, TransformerModel, exist_ok=True)
# Saving a model copies this file beside its weights, and names it in the config (``auto_map``).
TransformerConfig.register_for_auto_class()
TransformerModel.register_for_auto_class("AutoModel")
