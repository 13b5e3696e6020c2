"""Small networks that learn to read from scratch: n-grams, filters or a recurrence over words.

They are `PreTrainedModel`s. Importing this module is all that ``AutoConfig``,
``AutoModelForSequenceClassification`` and ``pipeline("text-classification")`` need to load one from
its folder; nothing in the folder runs, so that `trust_remote_code` stays off. It imports no other
module of this project: a copy of this file beside your program does.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class TextCNNConfig(PretrainedConfig):
    """Sizes of a `TextCNNForSequenceClassification`.

    Attributes
    ----------
    vocab_size : tokens of the vocabulary.
    embedding_size : width of a token's vector.
    num_filters : filters of each width.
    filter_widths : tokens that a filter sees at once, one or several.
    pooling : what is kept of a filter: "max", its maximum, or "mean_max", its mean over the text,
        too, which counts evidence where the maximum tells only that there is some.
    dropout : rate on the values of the token vectors, and of what the head reads.
    word_dropout : share of the tokens that are hidden in training.
    pad_token_id : what counts as padding where no attention mask is given.
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
    ngram_size : tokens of the longest n-grams with a vector of their own.
    buckets : vectors that the n-grams of two tokens and more share.
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


class TextRNNConfig(PretrainedConfig):
    """Sizes of a `TextRNNForSequenceClassification`.

    Attributes
    ----------
    cell : "rnn" (Elman's, with tanh), "lstm" or "gru".
    hidden_size : width of the state, per direction.
    bidirectional : read the text backwards, too.
    vocab_size, embedding_size, dropout, word_dropout, pad_token_id : as in `TextCNNConfig`.
    """

    model_type = "text-rnn"

    vocab_size: int = 30_000
    embedding_size: int = 64
    cell: str = "lstm"
    hidden_size: int = 96
    bidirectional: bool = False
    dropout: float | int = 0.0
    word_dropout: float | int = 0.0
    pad_token_id: int | None = 1


class TextNetwork(PreTrainedModel):
    """Word vectors, an encoder of the token sequence into one vector, and a linear head.

    A subclass sets `config_class` and implements `encode`. The score of a text depends on its
    tokens alone, never on the padding beside them, on the left or on the right; a row of nothing
    but padding has a finite score.
    """

    def __init__(self, config: PretrainedConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = nn.Dropout(config.dropout)
        self.word_dropout = nn.Dropout(config.word_dropout)

    def embed(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Look up the vectors of tokens (rows, length) and weigh them by `seen` (rows, length, 1),
        which is 0 for padding and for hidden tokens."""
        return self.embeddings(ids) * seen

    def encode(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Turn token vectors (rows, length, width) into one vector per text.

        The first `lengths` (rows,) vectors of each row are those of its tokens, the others zero.
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
            1 for tokens, 0 for padding. None: whatever is not the padding token is a token.
        token_type_ids : tensor, optional
            Not used: tokenizers give them, and a text that is no pair has but one type.
        labels : tensor, optional
            For the loss that `config.problem_type` names: class ids (rows,), or multi-hot rows
            (rows, labels) as floats.

        Returns
        -------
        SequenceClassifierOutput
            ``logits`` of shape (rows, labels), and ``loss``, the mean, where labels are given.
        """
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        mask = attention_mask.bool()
        # Tokens first, in their order: what follows need not care where the padding is.
        order = (~mask).byte().argsort(dim=1, stable=True)
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
        # Small vectors, wide layers: what a few occurrences teach soon outweighs where a vector
        # started. With torch's own start (a spread of 1) the CNN of 2,500 steps on IMDB is right on
        # .69 of the validation texts, with this one on .81.
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
    """The mean of the vectors of all tokens, pairs of tokens and so on (Joulin et al. 2017, "Bag of
    Tricks for Efficient Text Classification", known as fastText).

    N-grams are hashed: those that fall into the same bucket share a vector. One counts as hidden as
    soon as one of its tokens is.
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
        hashed, whole = ids, seen
        for last in range(1, self.config.ngram_size):
            hashed = (hashed[:, :-1] * 1_000_003 + ids[:, last:]) % self.config.buckets
            whole = whole[:, :-1] * seen[:, last:]
            vectors.append(self.ngrams(hashed) * whole)
        return torch.cat(vectors, dim=1)

    def encode(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the mean: (rows, width)."""
        counts = sum((lengths - last).clamp(min=0) for last in range(self.config.ngram_size))
        return vectors.sum(dim=1) / counts.clamp(min=1).unsqueeze(1)


class TextCNNForSequenceClassification(TextNetwork):
    """Filters slid over the text, each reduced to its maximum (Kim 2014, "Convolutional Neural
    Networks for Sentence Classification").

    A filter starts at each token of the text, and beyond the last one it sees zeros: so does a text
    shorter than the filter have a score, whatever is padded.
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
        """Return what is kept of the filters: (rows, filters x widths), twice that with means."""
        starts = torch.arange(vectors.shape[1], device=vectors.device) < lengths.unsqueeze(1)
        channels = vectors.transpose(1, 2)
        kept = []
        for convolution in self.convolutions:
            (width,) = convolution.kernel_size
            found = self.activation(convolution(nn.functional.pad(channels, (0, width - 1))))
            # No value is below 0, so that a 0 in the place of the padding never is a maximum.
            found = found * starts.unsqueeze(1)
            kept.append(found.amax(dim=2))
            if self.config.pooling == "mean_max":
                kept.append(found.sum(dim=2) / lengths.clamp(min=1).unsqueeze(1))
        return torch.cat(kept, dim=1)


class TextRNNForSequenceClassification(TextNetwork):
    """A recurrent network; its state after the last token, not after the padding, is classified.

    The backward direction reads each text from its own last token to its first, and gives its state
    there. It is a recurrence of its own over the reversed texts: with no need for packed sequences,
    there are no lengths to fetch from the device, and padded rows run in one fused kernel.
    """

    config_class = TextRNNConfig

    def __init__(self, config: TextRNNConfig):
        super().__init__(config)
        sizes = (config.embedding_size, config.hidden_size)
        self.forwards = CELLS[config.cell](*sizes, batch_first=True)
        self.backwards = None
        if config.bidirectional:
            self.backwards = CELLS[config.cell](*sizes, batch_first=True)
        self.classifier = nn.Linear(
            config.hidden_size * (1 + config.bidirectional), config.num_labels
        )
        self.post_init()

    def encode(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the last state of each direction: (rows, hidden size x directions)."""
        rows = torch.arange(len(vectors), device=vectors.device)
        last = (lengths - 1).clamp(min=0)
        states = [self.forwards(vectors)[0][rows, last]]
        if self.backwards is not None:
            steps = torch.arange(vectors.shape[1], device=vectors.device)
            reverse = (last.unsqueeze(1) - steps).clamp(min=0)
            states.append(self.backwards(vectors[rows.unsqueeze(1), reverse])[0][rows, last])
        return torch.cat(states, dim=1)


for _model in (
    TextNgramsForSequenceClassification,
    TextCNNForSequenceClassification,
    TextRNNForSequenceClassification,
):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModelForSequenceClassification.register(_model.config_class, _model, exist_ok=True)
