"""The flags that say what a network from scratch looks like, and the network they say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from shared.arguments import flag
from shared.errors import UserError

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class NetworkArguments:
    """Flags of recipes that train a network of `shared.networks`."""

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
    from shared import networks

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
