"""Small networks to train from random weights: n-grams, layers, convolutions, recurrent networks.

Each is a `PreTrainedModel` over word vectors: `TextNgramsForSequenceClassification`,
`TextMLPForSequenceClassification`, `TextCNNForSequenceClassification` and
`TextRNNForSequenceClassification`.

To load a saved network, import this module. The import registers the classes with transformers, and
``AutoConfig``, ``AutoModelForSequenceClassification`` and ``pipeline("text-classification")`` then
load the folder. No code from the folder runs, so `trust_remote_code` stays off.

This file must not import other modules of this project: `save_pretrained` copies it into the folder
of the network, so that transformers can load the folder without this project, with
``trust_remote_code=True``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class TextCNNConfig(PretrainedConfig):
    """Sizes of a `TextCNNForSequenceClassification`.

    Attributes
    ----------
    vocab_size : tokens of the vocabulary.
    embedding_size : width of a token vector.
    num_filters : number of filters of each width.
    filter_widths : numbers of tokens that a filter covers, one or several widths.
    pooling : "max" keeps the maximum of each filter over the text, "mean_max" also its mean. The
        mean measures how often a filter matches, the maximum only whether it does.
    dropout : dropout rate on the token vectors and on the input of the head.
    word_dropout : share of the tokens that are hidden in training.
    pad_token_id : the token that counts as padding if no attention mask is given.
    """

    model_type = "text-cnn"

    vocab_size: int = 30_000
    embedding_size: int = 64
    num_filters: int = 10
    filter_widths: list[int] | tuple[int, ...] = (3,)
    pooling: str = "max"
    dropout: float | int = 0.0
    word_dropout: float | int = 0.0
    pad_token_id: int | None = 1


class TextNgramsConfig(PretrainedConfig):
    """Sizes of a `TextNgramsForSequenceClassification`.

    Attributes
    ----------
    ngram_size : number of tokens of the longest n-grams.
    buckets : number of vectors that all n-grams of two or more tokens share.
    vocab_size, embedding_size, dropout, word_dropout, pad_token_id : as in `TextCNNConfig`.
    """

    model_type = "text-ngrams"

    vocab_size: int = 30_000
    embedding_size: int = 64
    ngram_size: int = 2
    buckets: int = 2**18
    dropout: float | int = 0.0
    word_dropout: float | int = 0.0
    pad_token_id: int | None = 1


class TextMLPConfig(PretrainedConfig):
    """Sizes of a `TextMLPForSequenceClassification`.

    Attributes
    ----------
    hidden_size : width of the hidden layers.
    num_layers : number of hidden layers.
    activation : function of the hidden layers: "elu" or a name of
        ``transformers.activations.ACT2FN``.
    normalization : "none", "batch" or "layer", between each linear layer and its activation.
    embedding_std : standard deviation of the token vectors at the start.
    dropout : dropout rate on the token vectors and after each hidden layer.
    vocab_size, embedding_size, word_dropout, pad_token_id : as in `TextCNNConfig`.
    """

    model_type = "text-mlp"

    vocab_size: int = 30_000
    embedding_size: int = 64
    hidden_size: int = 64
    num_layers: int = 2
    activation: str = "relu"
    normalization: str = "none"
    embedding_std: float | int = 0.1
    dropout: float | int = 0.0
    word_dropout: float | int = 0.0
    pad_token_id: int | None = 1


class TextRNNConfig(PretrainedConfig):
    """Sizes of a `TextRNNForSequenceClassification`.

    Attributes
    ----------
    cell : "rnn" (Elman network), "lstm" or "gru".
    nonlinearity : "tanh" or "relu", for the cell "rnn".
    hidden_size : width of the state, per layer and direction.
    num_layers : number of layers; each reads the states of the layer below. Between two layers
        `dropout` applies.
    bidirectional : whether a second network reads the text backwards.
    vocab_size, embedding_size, dropout, word_dropout, pad_token_id : as in `TextCNNConfig`.
    """

    model_type = "text-rnn"

    vocab_size: int = 30_000
    embedding_size: int = 64
    cell: str = "lstm"
    nonlinearity: str = "tanh"
    hidden_size: int = 96
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float | int = 0.0
    word_dropout: float | int = 0.0
    pad_token_id: int | None = 1


class TextNetwork(PreTrainedModel):
    """Base class: word vectors, an encoder of the token sequence into one vector, a linear head.

    A subclass sets `config_class`, creates `classifier` and implements `encode`. The score of a
    text depends only on its tokens, never on padding, on the left or on the right. A row that holds
    only padding has a finite score.
    """

    def __init__(self, config: PretrainedConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = nn.Dropout(config.dropout)
        self.word_dropout = nn.Dropout(config.word_dropout)

    def embed(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Return the vectors of tokens (rows, length), multiplied by `seen` (rows, length, 1).

        `seen` is 0 for padding and for tokens hidden by word dropout.
        """
        return self.embeddings(ids) * seen

    def encode(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Encode token vectors (rows, length, width) into one vector per text.

        The first `lengths` (rows,) vectors of each row belong to its tokens. The others are zero.
        """
        raise NotImplementedError

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[torch.Tensor, ...]:
        """Score texts.

        Parameters
        ----------
        input_ids : int64 tensor of shape (rows, length)
        attention_mask : tensor of the same shape, optional
            1 for tokens, 0 for padding. None: every token but `config.pad_token_id` is read.
        token_type_ids : tensor, optional
            Ignored. Tokenizers return them, but all tokens of a single text have the same type.
        labels : tensor, optional
            For the loss of `config.problem_type`: class ids (rows,), or multi-hot rows
            (rows, labels) as floats.
        return_dict : bool, optional
            False returns a tuple, of the loss (with labels) and the logits.

        Returns
        -------
        SequenceClassifierOutput
            ``logits`` of shape (rows, labels), and with labels ``loss``, a mean.
        """
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        mask = attention_mask.bool()
        # Move the tokens of each row to its front, in their order. The rest of the code then works
        # for padding on either side. The places of padding come after all others.
        positions = torch.arange(mask.shape[1], device=mask.device)
        order = torch.where(mask, positions, positions + mask.shape[1]).argsort(dim=1)
        mask = mask.gather(1, order)
        seen = self.word_dropout(mask.to(self.embeddings.weight.dtype))
        vectors = self.embed(input_ids.gather(1, order), seen.unsqueeze(-1))
        encoded = self.encode(self.dropout(vectors), mask.sum(dim=1))
        logits = self.classifier(self.dropout(encoded))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                labels=labels, logits=logits, pooled_logits=logits, config=self.config
            )
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word vectors."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word vectors."""
        self.embeddings = value

    def _init_weights(self, module: nn.Module) -> None:
        # Small word vectors: a few gradient steps then outweigh the random start of a rare token.
        # With torch's default (standard deviation 1), the CNN of 2,500 steps on IMDB has a
        # validation accuracy of .69, with this start .81.
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_ih"):
                    init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    init.orthogonal_(parameter)
                else:
                    init.zeros_(parameter)
        elif isinstance(module, (nn.Conv1d, nn.Linear)):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)


class TextNgramsForSequenceClassification(TextNetwork):
    """Linear classifier on the mean of the vectors of all tokens and n-grams (fastText).

    Source: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification". N-grams of two or
    more tokens are hashed, and those in the same bucket share a vector. An n-gram is hidden if one
    of its tokens is.
    """

    config_class = TextNgramsConfig

    def __init__(self, config: TextNgramsConfig):
        super().__init__(config)
        self.ngrams = nn.Embedding(config.buckets, config.embedding_size)
        self.classifier = nn.Linear(config.embedding_size, config.num_labels)
        self.post_init()

    def embed(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the tokens, then those of the pairs, and so on."""
        vectors = [super().embed(ids, seen)]
        ngram_ids, ngram_seen = ids, seen
        for offset in range(1, self.config.ngram_size):
            # Extend each n-gram by the next token: (rows, length - offset). The hash of an n-gram
            # is a polynomial in its token ids, with a large prime to spread them over the buckets.
            ngram_ids = (ngram_ids[:, :-1] * 1_000_003 + ids[:, offset:]) % self.config.buckets
            ngram_seen = ngram_seen[:, :-1] * seen[:, offset:]
            vectors.append(self.ngrams(ngram_ids) * ngram_seen)
        return torch.cat(vectors, dim=1)

    def encode(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the mean: (rows, width)."""
        # A text of n tokens has n tokens, n - 1 pairs, and so on.
        per_size = ((lengths - offset).clamp(min=0) for offset in range(self.config.ngram_size))
        counts = sum(per_size, start=torch.zeros_like(lengths))
        return vectors.sum(dim=1) / counts.clamp(min=1).unsqueeze(1)


class _BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that passes a batch of one row, which has no variance, as in prediction.

    The last batch of an epoch can be one.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.training and len(values) == 1:
            return nn.functional.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(values)


NORMALIZATIONS = {"none": nn.Identity, "batch": _BatchNorm, "layer": nn.LayerNorm}


class HiddenLayer(nn.Module):
    """A linear layer, a normalisation, and an activation function.

    `config` has the last two by name, as `TextMLPConfig`.
    """

    def __init__(self, n_inputs: int, n_outputs: int, config: Any):
        super().__init__()
        self.linear = nn.Linear(n_inputs, n_outputs)
        self.normalization = NORMALIZATIONS[config.normalization](n_outputs)
        # transformers has no ELU among its functions.
        self.activation = nn.ELU() if config.activation == "elu" else ACT2FN[config.activation]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the outputs (rows, outputs) of values (rows, inputs)."""
        return self.activation(self.normalization(self.linear(values)))


class TextMLPForSequenceClassification(TextNetwork):
    """Hidden layers over the sum of the token vectors: a deep averaging network.

    Source: Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text
    Classification". The sum is divided by the square root of the number of tokens, not by the
    number: random vectors then keep their variance, whatever the length of a text.
    """

    config_class = TextMLPConfig

    def __init__(self, config: TextMLPConfig):
        super().__init__(config)
        widths = [config.embedding_size] + [config.hidden_size] * config.num_layers
        self.layers = nn.ModuleList(
            HiddenLayer(n_inputs, n_outputs, config) for n_inputs, n_outputs in pairwise(widths)
        )
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def encode(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layer, before its dropout: (rows, hidden size)."""
        values = vectors.sum(dim=1) / lengths.clamp(min=1).sqrt().unsqueeze(1)
        for number, layer in enumerate(self.layers):
            values = self.dropout(values) if number else values
            values = layer(values)
        return values

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.embedding_std)
        elif isinstance(module, (nn.BatchNorm1d, nn.LayerNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class TextCNNForSequenceClassification(TextNetwork):
    """Convolutions over the text, each reduced to its maximum or to maximum and mean.

    Source: Kim 2014, "Convolutional Neural Networks for Sentence Classification". A filter is
    applied from each token of the text, and reads zeros after the last token. A text that is
    shorter than the filter therefore has a score, and padding does not change it.
    """

    config_class = TextCNNConfig

    def __init__(self, config: TextCNNConfig):
        super().__init__(config)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding_size, config.num_filters, width)
            for width in config.filter_widths
        )
        self.activation = nn.ReLU()
        features = config.num_filters * len(config.filter_widths)
        if config.pooling == "mean_max":
            features *= 2
        self.classifier = nn.Linear(features, config.num_labels)
        self.post_init()

    def encode(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the pooled filters: (rows, filters x widths), twice as many with means."""
        # (rows, length): whether a token, not padding, is at this position.
        is_token = torch.arange(vectors.shape[1], device=vectors.device) < lengths.unsqueeze(1)
        channels = vectors.transpose(1, 2)  # (rows, width, length), as Conv1d reads it
        pooled = []
        for convolution, width in zip(self.convolutions, self.config.filter_widths, strict=True):
            # Zeros on the right, so that there is a value for each token: (rows, filters, length).
            values = self.activation(convolution(nn.functional.pad(channels, (0, width - 1))))
            # After ReLU no value is below 0, so the zeros of padding never change the maximum.
            values = values * is_token.unsqueeze(1)
            pooled.append(values.amax(dim=2))
            if self.config.pooling == "mean_max":
                pooled.append(values.sum(dim=2) / lengths.clamp(min=1).unsqueeze(1))
        return torch.cat(pooled, dim=1)


class TextRNNForSequenceClassification(TextNetwork):
    """Recurrent network; the head reads its state after the last token, not after the padding.

    The backward direction reads each text from its last token to its first, and the head reads its
    state there. It is a second network over the reversed texts, not torch's bidirectional mode,
    which needs packed sequences for texts of different lengths. Without packing, no lengths are
    copied from the device to the CPU, and padded rows run in one fused kernel.
    """

    config_class = TextRNNConfig

    def __init__(self, config: TextRNNConfig):
        super().__init__(config)
        self.forwards = self._stack(config)
        self.backwards = self._stack(config) if config.bidirectional else None
        self.classifier = nn.Linear(
            config.hidden_size * (1 + config.bidirectional), config.num_labels
        )
        self.post_init()

    @staticmethod
    def _stack(config: TextRNNConfig) -> nn.RNNBase:
        options: dict[str, Any] = {"num_layers": config.num_layers, "batch_first": True}
        if config.num_layers > 1:  # torch warns of a dropout between layers that do not exist
            options["dropout"] = config.dropout
        if config.cell == "rnn":
            options["nonlinearity"] = config.nonlinearity
        return CELLS[config.cell](config.embedding_size, config.hidden_size, **options)

    def encode(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the last state of the top layer, per direction: (rows, size x directions)."""
        rows = torch.arange(len(vectors), device=vectors.device)
        last = (lengths - 1).clamp(min=0)  # 0 in a row that holds only padding
        states = [self.forwards(vectors)[0][rows, last]]
        if self.backwards is not None:
            steps = torch.arange(vectors.shape[1], device=vectors.device)
            # Positions last, last - 1, ..., 0, and then 0 again up to the length of the batch. The
            # states after the first token are not used.
            reverse = (last.unsqueeze(1) - steps).clamp(min=0)
            states.append(self.backwards(vectors[rows.unsqueeze(1), reverse])[0][rows, last])
        return torch.cat(states, dim=1)


# `exist_ok`: no error if a copy of this file, from the folder of a network, is imported, too.
for _model in (
    TextNgramsForSequenceClassification,
    TextMLPForSequenceClassification,
    TextCNNForSequenceClassification,
    TextRNNForSequenceClassification,
):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModelForSequenceClassification.register(_model.config_class, _model, exist_ok=True)
    # Saving a network copies this file beside its weights, and names it in the config.
    _model.config_class.register_for_auto_class()
    _model.register_for_auto_class("AutoModelForSequenceClassification")
