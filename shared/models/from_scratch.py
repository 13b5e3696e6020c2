"""Models from scratch: their flags, networks, transformers, and pretrained word vectors."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.data.readers import expand_path

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedModel, PreTrainedTokenizerBase


# --- networks and their flags --------------------------------------------------------------------


@dataclass
class NetworkArguments:
    """Flags of recipes that train a network of `shared.models.networks`."""

    architecture: Literal["ngrams", "cnn", "rnn", "lstm", "gru"] = flag(
        "cnn",
        "Mean of n-grams, filters, or a recurrence: Elman's (tanh), LSTM, GRU (default: cnn).",
    )
    embedding_size: int = flag(64, "Width of a token's vector (default: 64).")
    embeddings: str | None = flag(
        None, "Word vectors to start from, word2vec's or GloVe's text, also .gz (default: random)."
    )
    ngram_size: int = flag(2, "Ngrams: tokens of the longest (default: 2).")
    buckets: int = flag(2**18, "Ngrams: vectors that those of two tokens and more share (262,144).")
    num_filters: int = flag(10, "CNN: filters of each width (default: 10).")
    filter_widths: list[int] = flag([3], "CNN: tokens that a filter sees at once (default: 3).")
    pooling: Literal["max", "mean_max"] = flag(
        "max", "CNN: keep the maximum of each filter, or its mean, too (default: max)."
    )
    hidden_size: int = flag(96, "Recurrence: width of the state (default: 96).")
    bidirectional: bool = flag(False, "Recurrence: read backwards, too (default: false).")
    dropout: float = flag(0.0, "Dropout of word vectors and features (default: 0).")
    word_dropout: float = flag(0.0, "Share of the tokens hidden in training (default: 0).")

    def __post_init__(self):
        for name in ("embedding_size", "ngram_size", "buckets", "num_filters", "hidden_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be 1 or more")
        if not self.filter_widths or min(self.filter_widths) < 1:
            raise UserError("--filter_widths: name widths of 1 token or more")
        for name in ("dropout", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be 0 or more, below 1")


def build_network(args: NetworkArguments, **settings: Any) -> PreTrainedModel:
    """Make a network with random weights.

    Parameters
    ----------
    args : the flags.
    **settings
        Of its config, beside those that the flags give: ``vocab_size``, ``id2label`` and so on.
    """
    from shared.models import networks

    settings = {
        "embedding_size": args.embedding_size,
        "dropout": args.dropout,
        "word_dropout": args.word_dropout,
        **settings,
    }
    if args.architecture == "ngrams":
        config = networks.TextNgramsConfig(
            ngram_size=args.ngram_size, buckets=args.buckets, **settings
        )
        return networks.TextNgramsForSequenceClassification(config)
    if args.architecture == "cnn":
        config = networks.TextCNNConfig(
            num_filters=args.num_filters,
            filter_widths=args.filter_widths,
            pooling=args.pooling,
            **settings,
        )
        return networks.TextCNNForSequenceClassification(config)
    config = networks.TextRNNConfig(
        cell=args.architecture,
        hidden_size=args.hidden_size,
        bidirectional=args.bidirectional,
        **settings,
    )
    return networks.TextRNNForSequenceClassification(config)


@dataclass
class TransformerArguments:
    """Flags of recipes that train a transformer encoder from random weights."""

    vocab_size: int = flag(8000, "From scratch: tokens of the vocabulary (default: 8000).")
    hidden_size: int = flag(256, "From scratch: width (default: 256).")
    num_attention_heads: int = flag(4, "From scratch: attention heads (default: 4).")
    intermediate_size: int = flag(1024, "From scratch: feed-forward width (default: 1024).")
    num_hidden_layers: int = flag(3, "From scratch: layers (default: 3).")

    def __post_init__(self):
        for field in fields(TransformerArguments):
            if getattr(self, field.name) < 1:
                raise UserError(f"--{field.name} {getattr(self, field.name)}: must be above 0")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"--hidden_size {self.hidden_size}: must be a multiple of --num_attention_heads, "
                f"{self.num_attention_heads}"
            )


def build_transformer(args: TransformerArguments, tokenizer: PreTrainedTokenizerBase) -> BertModel:
    """Make token and position embeddings and transformer layers, all of them random.

    Parameters
    ----------
    args : TransformerArguments
        With `max_length`, the tokens that it reads, and `dropout`, of embeddings and layers.
    tokenizer : PreTrainedTokenizerBase
    """
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden_size,
        num_attention_heads=args.num_attention_heads,
        intermediate_size=args.intermediate_size,
        num_hidden_layers=args.num_hidden_layers,
        max_position_embeddings=-(-args.max_length // 8) * 8,  # batches are padded to such lengths
        hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=0.0,  # costs most and, beside the other, gains nothing
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertModel(config, add_pooling_layer=False)


# --- word vectors --------------------------------------------------------------------------------


def read_word_vectors(path: str, vocabulary: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors of the tokens of a vocabulary.

    One token per line, followed by its numbers, all separated by spaces; a first line with count
    and width (word2vec, fastText) is passed over. A token may hold spaces, as some of GloVe's do.
    Tokens are compared as they are, so that a vocabulary in lower case finds those in lower case.

    Parameters
    ----------
    path : str
        Text, UTF-8, or the same as .gz; $NAME and ~ are filled in.
    vocabulary : mapping of token to id

    Returns
    -------
    ids : int64 array of shape (found,)
    vectors : float32 array of shape (found, width)

    Raises
    ------
    UserError
        If the file cannot be read, a line is no vector of the width of the others, or no token of
        the vocabulary is in it.
    """
    file_path = expand_path(path)
    open_file = gzip.open if file_path.suffix == ".gz" else open
    found: dict[int, np.ndarray] = {}
    width = None
    try:
        with open_file(file_path, "rt", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip().split(" ")
                if number == 1 and len(fields) == 2 and all(map(str.isdigit, fields)):
                    continue
                width = width or len(fields) - 1
                token = " ".join(fields[: max(len(fields) - width, 0)])
                if token and (token not in vocabulary or vocabulary[token] in found):
                    continue
                try:
                    vector = np.array(fields[len(fields) - width :], dtype=np.float32)
                except ValueError:
                    vector = np.zeros(0)
                if not token or not vector.size or not np.isfinite(vector).all():
                    numbers = f"{width or 'some'} numbers"
                    raise UserError(f"{file_path}, line {number}: expected a token and {numbers}")
                found[vocabulary[token]] = vector
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file_path}: cannot be read ({reason})") from error
    if not found:
        raise UserError(f"{file_path}: holds no vector of any of the {len(vocabulary):,} tokens")
    return np.array(list(found)), np.stack(list(found.values()))
