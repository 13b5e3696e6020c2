"""Small language models, the steps before the transformer: counts, bigram, MLP, recurrent networks.

Each predicts the next token of a text:

- `NgramForCausalLM` looks up how often each token followed the last ones; `count_ngrams` counts.
- `BigramForCausalLM` learns the same table for one token of context, by gradients.
- `MLPForCausalLM` reads the vectors of the last tokens (Bengio et al. 2003).
- `RNNForCausalLM` reads all tokens before, by a recurrent network.

A transformer is in `shared.models.text_generators`. Padding must be on the right: no model here
reads an attention mask.

To load a saved model, import this module. The import registers the classes with transformers, and
``AutoModelForCausalLM`` then loads the folder.

This file must not import other modules of this project: `save_pretrained` copies it into the folder
of a model, so that transformers can load the folder without this project, with
``trust_remote_code=True``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutput

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
LARGEST_KEY = 2**63  # keys of contexts are int64


class NgramConfig(PreTrainedConfig):
    """Sizes of a `NgramForCausalLM`.

    Attributes
    ----------
    vocab_size : tokens of the vocabulary.
    ngram_size : tokens of an n-gram, the predicted one included; 1: no context.
    smoothing : added to every count (Lidstone; 1: Laplace).
    n_contexts : number of different contexts that were counted.
    n_entries : number of different n-grams that were counted.
    bos_token_id : the token between two texts; a context does not reach over it.
    """

    model_type = "language-model-counts"

    vocab_size: int = 256
    ngram_size: int = 2
    smoothing: float | int = 0.1
    n_contexts: int = 0
    n_entries: int = 0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 1
    pad_token_id: int | None = 1


class BigramConfig(PreTrainedConfig):
    """Size of a `BigramForCausalLM`: `vocab_size`, tokens of the vocabulary."""

    model_type = "language-model-bigram"

    vocab_size: int = 256
    bos_token_id: int | None = 1
    eos_token_id: int | None = 1
    pad_token_id: int | None = 1


class MLPConfig(PreTrainedConfig):
    """Sizes of a `MLPForCausalLM`.

    Attributes
    ----------
    vocab_size : tokens of the vocabulary.
    context_size : number of tokens that it reads.
    embedding_size : width of a token vector.
    hidden_size : width of the hidden layer.
    dropout : rate on the hidden layer.
    bos_token_id : the token between two texts; a context does not reach over it.
    """

    model_type = "language-model-mlp"

    vocab_size: int = 256
    context_size: int = 8
    embedding_size: int = 32
    hidden_size: int = 256
    dropout: float | int = 0.0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 1
    pad_token_id: int | None = 1


class RNNConfig(PreTrainedConfig):
    """Sizes of an `RNNForCausalLM`.

    Attributes
    ----------
    vocab_size : tokens of the vocabulary.
    cell : "rnn" (Elman network, tanh), "lstm" or "gru".
    embedding_size : width of a token vector.
    hidden_size : width of the state of a layer.
    num_layers : number of layers; each reads the states of the layer below.
    dropout : rate on the token vectors and on the states of each layer.
    """

    model_type = "language-model-rnn"

    vocab_size: int = 256
    cell: str = "gru"
    embedding_size: int = 32
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float | int = 0.0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 1
    pad_token_id: int | None = 1


def contexts(ids: torch.Tensor, size: int, boundary: int | None) -> torch.Tensor:
    """Return the last tokens up to each position: (rows, length, size), the oldest first.

    Before the first token of a row, and before the last `boundary` of a context, stand boundaries:
    a context does not reach over the start of a text. Without a boundary (None), 0 stands before
    the first token.

    Parameters
    ----------
    ids : int64 tensor of shape (rows, length)
    size : int
        0 or more.
    boundary : int, optional
        The token between two texts.
    """
    fill = 0 if boundary is None else boundary
    windows = nn.functional.pad(ids, (size, 0), value=fill).unfold(1, max(size, 1), 1)
    windows = windows[:, 1:, :size] if size else windows[..., :0]
    if boundary is None or size < 2:
        return windows
    is_boundary = windows == boundary
    # Whether one of the later tokens of the context is a boundary.
    n_from_here = is_boundary.flip(-1).cumsum(-1).flip(-1)
    return windows.masked_fill(n_from_here > is_boundary.long(), boundary)


def context_keys(windows: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Return a number for each context (..., size), different for different contexts: (...)."""
    keys = torch.zeros(windows.shape[:-1], dtype=torch.int64, device=windows.device)
    for position in range(windows.shape[-1]):
        keys = keys * vocab_size + windows[..., position]
    return keys


class SmallLanguageModel(PreTrainedModel, GenerationMixin):
    """Base class: a subclass sets `config_class` and implements `score`.

    There is no cache of the tokens before: `generate` computes them again for each new token.

    Attributes
    ----------
    context_size : tokens that it reads for a prediction, the last ones; None: all.
    """

    context_size: int | None = None

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def score(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits of the token after each position: (rows, length, vocabulary)."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """Score the next tokens: logits (rows, length, tokens of the vocabulary).

        Parameters
        ----------
        input_ids : int64 tensor of shape (rows, length)
        attention_mask : tensor, optional
            Ignored; padding must be on the right.
        labels : int64 tensor of shape (rows, length), optional
            For the loss, a mean. They are the input itself: each position is compared with the next
            label. -100: it does not count.
        num_items_in_batch : scalar, optional
            Number of labels in the effective batch; the loss is a sum divided by it.
        """
        logits = self.score(input_ids)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits,
                labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the inputs of the next step of `generate`: all tokens so far."""
        # `generate` reads the names of the arguments: with "kwargs" it takes those of `forward`.
        return {"input_ids": input_ids}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase):
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
            init.normal_(module.weight, std=1.0)


# --- counts --------------------------------------------------------------------------------------


class NgramForCausalLM(SmallLanguageModel):
    """Probabilities from counts: those of n-grams, each with `config.smoothing` added.

    With c(h, w) the count of token w after the context h of n - 1 tokens, the probability of w is
    (c(h, w) + s) / (c(h) + s V), for s the smoothing and V the size of the vocabulary. After a
    context that was never seen all tokens are equally likely. Nothing is trained.

    Only what was seen is stored: `context_key` has the key of each context, sorted, and entries
    number ``offset[i]`` to ``offset[i + 1]`` of `token` and `count` belong to context i.
    """

    config_class = NgramConfig
    context_key: torch.Tensor
    offset: torch.Tensor
    token: torch.Tensor

    def __init__(self, config: NgramConfig):
        super().__init__(config)
        for name, size in (
            ("context_key", config.n_contexts),
            ("offset", config.n_contexts + 1),
            ("token", config.n_entries),
        ):
            self.register_buffer(name, torch.zeros(size, dtype=torch.int64))
        self.context_size = config.ngram_size - 1
        # A parameter, since transformers takes device and type of a model from its parameters.
        self.count = nn.Parameter(torch.zeros(config.n_entries), requires_grad=False)
        self.post_init()

    def score(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return log probabilities: (rows, length, vocabulary)."""
        config = self.config
        windows = contexts(input_ids, config.ngram_size - 1, config.bos_token_id)
        keys = context_keys(windows, config.vocab_size).flatten()
        place = torch.searchsorted(self.context_key, keys).clamp(max=config.n_contexts - 1)
        first = self.offset[place]
        n_entries = (self.offset[place + 1] - first) * (self.context_key[place] == keys)
        # Write the entries of each position, one after another, into a dense row of counts.
        row = torch.arange(len(keys), device=keys.device).repeat_interleave(n_entries)
        start = (first - n_entries.cumsum(0) + n_entries).repeat_interleave(n_entries)
        entry = start + torch.arange(len(row), device=keys.device)
        counts = self.count.new_zeros(len(keys), config.vocab_size)
        counts[row, self.token[entry]] = self.count[entry]
        smoothed = counts.double() + config.smoothing
        probabilities = smoothed / smoothed.sum(dim=1, keepdim=True)
        return probabilities.log().float().view(*input_ids.shape, config.vocab_size)


def count_ngrams(
    tokens: np.ndarray,
    n: int,
    *,
    vocab_size: int,
    smoothing: float,
    boundary: int | None,
) -> NgramForCausalLM:
    """Count the n-grams of texts, and return the model of their probabilities.

    Parameters
    ----------
    tokens : int array of shape (length,)
        The texts, one after another, with `boundary` before, between and after them. The first
        token is not predicted.
    n : int
        Tokens of an n-gram, the predicted one included.
    vocab_size : int
        Tokens of the vocabulary. ``vocab_size ** n`` must be below 2 ** 63.
    smoothing : float
        Added to every count; above 0.
    boundary : int, optional
        The token between two texts; a context does not reach over it. None: one long text.

    Raises
    ------
    ValueError
        If there are fewer than two tokens, or n is too large for the vocabulary.
    """
    if len(tokens) < 2:
        raise ValueError("at least two tokens are needed: a context and what follows it")
    if vocab_size**n >= LARGEST_KEY:
        raise ValueError(f"n-grams of {n} of {vocab_size:,} tokens do not fit into 64 bits")
    ids = torch.as_tensor(np.asarray(tokens, np.int64))
    windows = contexts(ids[None, :-1], n - 1, boundary)[0]
    keys = context_keys(windows, vocab_size) * vocab_size + ids[1:]
    ngrams, counts = torch.unique(keys, return_counts=True)
    context_key, per_context = torch.unique_consecutive(ngrams // vocab_size, return_counts=True)
    config = NgramConfig(
        vocab_size=vocab_size,
        ngram_size=n,
        smoothing=smoothing,
        n_contexts=len(context_key),
        n_entries=len(ngrams),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), boundary),
    )
    model = NgramForCausalLM(config)
    model.context_key.copy_(context_key)
    model.offset[1:].copy_(per_context.cumsum(0))
    model.token.copy_(ngrams % vocab_size)
    model.count.data.copy_(counts)
    return model.eval()


# --- networks ------------------------------------------------------------------------------------


class BigramForCausalLM(SmallLanguageModel):
    """One linear layer from the last token to the logits of the next one.

    On a one-hot token a linear layer is a lookup of a row of its weights. Trained to its optimum, a
    row is the log of the frequencies that `count_ngrams` counts for n = 2.
    """

    config_class = BigramConfig
    context_size = 1

    def __init__(self, config: BigramConfig):
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)
        self.post_init()

    def score(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits: (rows, length, vocabulary)."""
        return self.table(input_ids)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            init.zeros_(module.weight)  # all tokens equally likely; the problem is convex


class MLPForCausalLM(SmallLanguageModel):
    """A hidden layer over the vectors of the last tokens, side by side.

    Source: Bengio et al. 2003, "A Neural Probabilistic Language Model", without the direct
    connections from the vectors to the output.
    """

    config_class = MLPConfig

    def __init__(self, config: MLPConfig):
        super().__init__(config)
        self.context_size = config.context_size
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.hidden = nn.Linear(config.context_size * config.embedding_size, config.hidden_size)
        self.activation = nn.Tanh()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def score(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits: (rows, length, vocabulary)."""
        windows = contexts(input_ids, self.config.context_size, self.config.bos_token_id)
        vectors = self.embeddings(windows).flatten(-2)  # (rows, length, context x width)
        return self.head(self.dropout(self.activation(self.hidden(vectors))))


class RNNForCausalLM(SmallLanguageModel):
    """A recurrent network over token vectors; its state at each token gives the next one."""

    config_class = RNNConfig

    def __init__(self, config: RNNConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = nn.Dropout(config.dropout)
        # torch warns of a dropout between layers that do not exist
        between = {"dropout": config.dropout} if config.num_layers > 1 else {}
        self.cells = CELLS[config.cell](
            config.embedding_size,
            config.hidden_size,
            num_layers=config.num_layers,
            batch_first=True,
            **between,
        )
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def score(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits: (rows, length, vocabulary)."""
        states, _ = self.cells(self.dropout(self.embeddings(input_ids)))
        return self.head(self.dropout(states))


# `exist_ok`: no error if a copy of this file, from the folder of a model, is imported, too.
for _model in (NgramForCausalLM, BigramForCausalLM, MLPForCausalLM, RNNForCausalLM):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModelForCausalLM.register(_model.config_class, _model, exist_ok=True)
    # Saving a model copies this file beside its weights, and names it in the config.
    _model.config_class.register_for_auto_class()
    _model.register_for_auto_class("AutoModelForCausalLM")
