"""Models that start from random weights: their flags, how they are built, word vectors to load.

From top to bottom:

1. Small networks: `NetworkArguments` and `build_network` (the networks are in
   `shared.models.networks`).
2. Transformer encoders: `TransformerArguments` and `build_transformer`.
3. Language models: `LanguageModelArguments` and `build_language_model` (the models are in
   `shared.models.small_language_models` and `shared.models.text_generators`).
4. Encoder-decoders, also around a pretrained encoder: `Seq2SeqArguments` and
   `build_seq2seq_model` (the models are in `shared.models.text_generators` and
   `shared.models.recurrent_generators`).
5. Word vectors: `read_word_vectors` reads pretrained ones, to start a network with.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.files import expand_path
from shared.models.lengths import longest_input
from shared.models.sources import DEFAULT_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from shared.models.transformer import TransformerModel


# --- small networks ------------------------------------------------------------------------------


@dataclass
class NetworkArguments:
    """Flags of recipes that train a network of `shared.models.networks`."""

    architecture: Literal["ngrams", "cnn", "rnn", "lstm", "gru"] = flag(
        "cnn",
        "Network: mean of n-gram vectors (fastText), convolutions, or a recurrent network: Elman "
        "(rnn), LSTM or GRU (default: cnn).",
    )
    embedding_size: int = flag(
        64, "Width of the token vectors (default: 64).", least=1, most=65_536
    )
    embeddings: str | None = flag(
        None,
        "File of pretrained word vectors to start from: the text format of word2vec or GloVe, also "
        "as .gz (default: random vectors).",
    )
    ngram_size: int = flag(
        2, "ngrams: number of tokens of the longest n-grams (default: 2).", least=1, most=100
    )
    buckets: int = flag(
        2**18,
        "ngrams: number of vectors that n-grams of two or more tokens share (default: 262144).",
        least=1,
        most=2**27,
    )
    num_filters: int = flag(
        10, "cnn: number of filters of each width (default: 10).", least=1, most=65_536
    )
    filter_widths: list[int] = flag(
        [3],
        "cnn: numbers of tokens that a filter covers, one or several (default: 3).",
        least=1,
        most=1000,
    )
    pooling: Literal["max", "mean_max"] = flag(
        "max", "cnn: keep the maximum of each filter, or maximum and mean (default: max)."
    )
    hidden_size: int = flag(
        96, "rnn, lstm, gru: width of the state (default: 96).", least=1, most=65_536
    )
    num_layers: int = flag(1, "rnn, lstm, gru: number of layers (default: 1).", least=1, most=1000)
    nonlinearity: Literal["tanh", "relu"] = flag(
        "tanh", "rnn: function that the state passes (default: tanh)."
    )
    bidirectional: bool = flag(
        False, "rnn, lstm, gru: read the text backwards, too (default: false)."
    )
    dropout: float = flag(
        0.0,
        "Dropout rate on the token vectors and on the input of the head (default: 0).",
        least=0,
        below=1,
    )
    word_dropout: float = flag(
        0.0, "Share of the tokens to hide in training (default: 0).", least=0, below=1
    )


def build_network(args: NetworkArguments, **settings: Any) -> PreTrainedModel:
    """Build a network of `shared.models.networks` with random weights.

    Parameters
    ----------
    args : NetworkArguments
        The flags. Each architecture reads only its own.
    **settings
        Further settings of the config, such as ``vocab_size`` and ``id2label``.
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
        nonlinearity=args.nonlinearity,
        hidden_size=args.hidden_size,
        num_layers=args.num_layers,
        bidirectional=args.bidirectional,
        **settings,
    )
    return networks.TextRNNForSequenceClassification(config)


# --- transformer encoders ------------------------------------------------------------------------


@dataclass
class TransformerArguments:
    """Flags of recipes that train a transformer encoder from random weights."""

    vocab_size: int = flag(
        8000, "From scratch: size of the vocabulary (default: 8000).", least=1, most=10_000_000
    )
    hidden_size: int = flag(
        256, "From scratch: width of the hidden states (default: 256).", least=1, most=65_536
    )
    num_attention_heads: int = flag(
        4, "From scratch: number of attention heads per layer (default: 4).", least=1, most=1024
    )
    intermediate_size: int = flag(
        1024,
        "From scratch: width of the feed-forward blocks (default: 1024).",
        least=1,
        most=65_536,
    )
    num_hidden_layers: int = flag(
        3, "From scratch: number of transformer layers (default: 3).", least=1, most=1000
    )

    def __post_init__(self):
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"--hidden_size {self.hidden_size}: must be a multiple of --num_attention_heads, "
                f"{self.num_attention_heads}"
            )


class _TransformerSettings(Protocol):
    """What `build_transformer` reads: `TransformerArguments` and two flags of the recipe."""

    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    num_hidden_layers: int
    max_length: int
    dropout: float


def build_transformer(
    args: _TransformerSettings, tokenizer: PreTrainedTokenizerBase
) -> TransformerModel:
    """Build an encoder of `shared.models.transformer` with random weights.

    It has BERT's parts: learned positions, a norm of the embeddings, and norms after each part.

    Parameters
    ----------
    args : TransformerArguments
        A subclass of it that also has the flags `max_length`, the number of tokens that the encoder
        reads, and `dropout`, the dropout rate of embeddings and blocks.
    tokenizer : PreTrainedTokenizerBase
        It gives the size of the vocabulary and the padding token.
    """
    from shared.models.transformer import TransformerConfig, TransformerModel

    config = TransformerConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden_size,
        num_attention_heads=args.num_attention_heads,
        intermediate_size=args.intermediate_size,
        num_hidden_layers=args.num_hidden_layers,
        # Rounded up to a multiple of 8, because batches are padded to such lengths.
        max_position_embeddings=-(-args.max_length // 8) * 8,
        norm="post",
        embedding_norm=True,
        dropout=args.dropout,
        pad_token_id=tokenizer.pad_token_id,
    )
    return TransformerModel(config)


# --- language models -----------------------------------------------------------------------------


@dataclass
class LanguageModelArguments:
    """Flags of recipes that train a language model from random weights."""

    embedding_size: int = flag(
        32, "mlp, rnn, lstm, gru: width of the token vectors (default: 32).", least=1, most=65_536
    )
    hidden_size: int = flag(
        128,
        "mlp: width of the hidden layer; rnn, lstm, gru: of the state; gpt: of the hidden states "
        "(default: 128).",
        least=1,
        most=65_536,
    )
    num_layers: int = flag(
        4, "rnn, lstm, gru, gpt: number of layers (default: 4).", least=1, most=1000
    )
    num_attention_heads: int = flag(
        4, "gpt: number of attention heads per layer (default: 4).", least=1, most=1024
    )
    context_size: int = flag(
        8, "mlp: number of tokens that it reads (default: 8).", least=1, most=10_000
    )
    dropout: float = flag(0.0, "Dropout rate (default: 0).", least=0, below=1)


class _LanguageModelSettings(Protocol):
    """What `build_language_model` reads: `LanguageModelArguments` and two flags of the recipe."""

    architecture: str
    block_size: int
    embedding_size: int
    hidden_size: int
    num_layers: int
    num_attention_heads: int
    context_size: int
    dropout: float


LANGUAGE_MODELS = ("bigram", "mlp", "rnn", "lstm", "gru", "gpt")


def build_language_model(
    args: _LanguageModelSettings, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Build a language model with random weights.

    Parameters
    ----------
    args : LanguageModelArguments
        A subclass of it that also has the flags `architecture`, one of `LANGUAGE_MODELS`, and
        `block_size`, the tokens that a transformer reads. Each architecture reads only its own.
    tokenizer : PreTrainedTokenizerBase
        It gives the size of the vocabulary and the token between two texts.

    Raises
    ------
    UserError
        If a width is no multiple of the number of attention heads.
    """
    from shared.models import small_language_models as small

    boundary = tokenizer.eos_token_id
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), boundary),
    }
    if args.architecture == "bigram":
        return small.BigramForCausalLM(small.BigramConfig(**settings))
    settings["dropout"] = args.dropout
    if args.architecture == "mlp":
        return small.MLPForCausalLM(
            small.MLPConfig(
                context_size=args.context_size,
                embedding_size=args.embedding_size,
                hidden_size=args.hidden_size,
                **settings,
            )
        )
    if args.architecture in small.CELLS:
        return small.RNNForCausalLM(
            small.RNNConfig(
                cell=args.architecture,
                embedding_size=args.embedding_size,
                hidden_size=args.hidden_size,
                num_layers=args.num_layers,
                **settings,
            )
        )
    if args.hidden_size % args.num_attention_heads:
        raise UserError(
            f"--hidden_size {args.hidden_size}: must be a multiple of --num_attention_heads, "
            f"{args.num_attention_heads}"
        )
    from shared.models.text_generators import TransformerForCausalLM
    from shared.models.transformer import TransformerConfig

    # The token that pads also separates texts, so that its vector must not stay zero.
    del settings["pad_token_id"]
    return TransformerForCausalLM(
        TransformerConfig(
            hidden_size=args.hidden_size,
            num_hidden_layers=args.num_layers,
            num_attention_heads=args.num_attention_heads,
            intermediate_size=4 * args.hidden_size,
            max_position_embeddings=args.block_size,
            bias=False,
            **settings,
        )
    )


# --- encoder-decoders ----------------------------------------------------------------------------


@dataclass
class Seq2SeqArguments:
    """Flags of recipes that train an encoder-decoder from random weights."""

    hidden_size: int = flag(
        256, "From scratch: width of the hidden states (default: 256).", least=2, most=65_536
    )
    num_hidden_layers: int | None = flag(
        None,
        "From scratch: number of layers of the encoder (default: 3; rnn 1).",
        least=1,
        most=1000,
    )
    num_decoder_layers: int | None = flag(
        None,
        "From scratch: number of layers of the decoder (default: as many).",
        least=1,
        most=1000,
    )
    num_attention_heads: int = flag(
        4, "parts: number of attention heads per layer (default: 4).", least=1, most=1024
    )
    intermediate_size: int = flag(
        1024, "parts: width of the feed-forward blocks (default: 1024).", least=1, most=65_536
    )
    encoder: str | None = flag(
        None,
        f"parts: a pretrained encoder that reads the source, such as {DEFAULT_MODEL}, a hub id or "
        "a folder; its vocabulary and width replace --vocab_size and --hidden_size (default: "
        "random weights).",
    )
    encoder_learning_rate: float | None = flag(
        None,
        "Peak learning rate of --encoder and its token vectors (default: a tenth of "
        "--learning_rate).",
        above=0,
    )
    dropout: float = flag(
        0.1, "From scratch, and of --encoder: dropout rate (default: .1).", least=0, below=1
    )
    copy: bool = flag(
        False,
        "From scratch: the decoder can copy tokens of the source (See et al. 2017), for summaries "
        "and titles (default: false).",
    )


class _Seq2SeqSettings(Protocol):
    """What `build_seq2seq_model` reads: `Seq2SeqArguments` and three flags of the recipe."""

    architecture: str
    hidden_size: int
    num_hidden_layers: int | None
    num_decoder_layers: int | None
    num_attention_heads: int
    intermediate_size: int
    dropout: float
    copy: bool
    max_source_length: int
    max_target_length: int
    encoder: str | None


def build_seq2seq_model(
    args: _Seq2SeqSettings,
    tokenizer: PreTrainedTokenizerBase,
    encoder: PreTrainedModel | None = None,
) -> PreTrainedModel:
    """Build an encoder-decoder with random weights, or around a pretrained encoder.

    Parameters
    ----------
    args : Seq2SeqArguments
        A subclass of it that also has the flags `architecture`, "rnn" or "parts", and
        `max_source_length` and `max_target_length`, the tokens that a transformer reads.
    tokenizer : PreTrainedTokenizerBase
        From `train_pair_tokenizer`, or that of the encoder.
    encoder : PreTrainedModel, optional
        For "parts": from `shared.models.load_encoder`. The decoder has its width and its vectors of
        tokens.

    Raises
    ------
    UserError
        If a width is no multiple of the number of attention heads, or odd ("rnn"); if the encoder
        does not fit such a decoder, or reads fewer tokens than `max_source_length`.
    """
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    width, vocab_size = args.hidden_size, len(tokenizer)
    if encoder is not None:
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        vocab_size, width = _check_reader(encoder, args, is_delimited=None not in (start, end))
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": start,
        "eos_token_id": end,
        "decoder_start_token_id": start,
        "hidden_size": width,
        "num_hidden_layers": args.num_hidden_layers or (1 if args.architecture == "rnn" else 3),
        "num_decoder_layers": args.num_decoder_layers,
        "dropout": args.dropout,
        "copies_source": args.copy,
    }
    if args.architecture == "rnn":
        from shared.models import recurrent_generators as recurrent

        if width % 2:
            raise UserError(f"--hidden_size {width}: must be even")
        config = recurrent.RecurrentSeq2SeqConfig(**settings)
        return recurrent.RecurrentForSeq2SeqLM(config)
    if width % args.num_attention_heads:
        name = f"--hidden_size {width}" if encoder is None else f"--encoder of width {width}"
        raise UserError(
            f"{name}: must be a multiple of --num_attention_heads, {args.num_attention_heads}"
        )
    from shared.models.text_generators import TransformerForSeq2SeqLM
    from shared.models.transformer import TransformerConfig

    longest = max(args.max_source_length, args.max_target_length)
    return TransformerForSeq2SeqLM(
        TransformerConfig(
            num_attention_heads=args.num_attention_heads,
            intermediate_size=args.intermediate_size,
            # Rounded up to a multiple of 8, because batches are padded to such lengths.
            max_position_embeddings=-(-longest // 8) * 8,
            positions="sinusoidal",
            # The vectors of tokens are multiplied by the root of the width, so they start as large
            # as those of positions. With 0.02 positions drown them, and a training is far slower.
            initializer_range=width**-0.5,
            pretrained_encoder=encoder and encoder.config.to_dict(),
            **settings,
        ),
        encoder,
    )


def _check_reader(
    encoder: PreTrainedModel, args: _Seq2SeqSettings, *, is_delimited: bool
) -> tuple[int, int]:
    """Return how many token vectors an encoder has, and their width; refuse one that fits not."""
    import torch
    from transformers import AutoModel

    refused = f"--encoder {args.encoder}: "
    if encoder.config.is_encoder_decoder:
        raise UserError(f"{refused}an encoder-decoder; name it with --architecture")
    if not is_delimited:
        raise UserError(
            f"{refused}its texts have no start and no end token; name an encoder such as BERT"
        )
    with torch.device("meta"):
        loaded = type(AutoModel.from_config(encoder.config))
    if type(encoder) is not loaded:  # see `shared.models.padding`
        raise UserError(
            f"{refused}{encoder.config.model_type} models mix padding into texts or need single "
            "precision, which a decoder does not mend; name an encoder such as BERT"
        )
    longest = longest_input(encoder)
    if longest is not None and args.max_source_length > longest:
        raise UserError(
            f"--max_source_length {args.max_source_length}: the model reads {longest:,}"
        )
    n_tokens, width = encoder.get_input_embeddings().weight.shape
    if width != encoder.config.hidden_size:
        raise UserError(
            f"{refused}its token vectors ({width}) are not as wide as its states "
            f"({encoder.config.hidden_size}); name another encoder"
        )
    return n_tokens, width


# --- word vectors --------------------------------------------------------------------------------


def read_word_vectors(path: str, vocabulary: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors of the tokens of a vocabulary from a text file.

    Each line holds a token and its numbers, separated by spaces. A first line with the number of
    tokens and the width (word2vec, fastText) is skipped. A token may contain spaces, as some of
    GloVe's do. Tokens are compared exactly: a lower-case vocabulary matches only lower-case tokens.
    If a token is in the file twice, the first vector counts.

    Parameters
    ----------
    path : str
        A text file in UTF-8, or the same as .gz. $NAME and ~ are expanded.
    vocabulary : mapping of str to int
        Ids of the tokens.

    Returns
    -------
    ids : int64 array of shape (n_found,)
        Ids of the tokens that are in the file.
    vectors : float32 array of shape (n_found, width)

    Raises
    ------
    UserError
        If the file cannot be read, a line is not a token and a vector of the same width as the
        first vector, or no token of the vocabulary is in the file.
    """
    file_path = expand_path(path)
    open_file = gzip.open if file_path.suffix == ".gz" else open
    vectors: dict[int, np.ndarray] = {}
    width = None
    try:
        with open_file(file_path, "rt", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                parts = line.rstrip().split(" ")
                if number == 1 and len(parts) == 2 and all(map(str.isdigit, parts)):
                    continue
                # The first vector sets the width. Later lines are split from the right, because a
                # token can contain spaces.
                width = width or len(parts) - 1
                token = " ".join(parts[: max(len(parts) - width, 0)])
                # Most tokens of a large file are not in the vocabulary: do not parse their numbers.
                if token and (token not in vocabulary or vocabulary[token] in vectors):
                    continue
                try:
                    vector = np.array(parts[len(parts) - width :], dtype=np.float32)
                except ValueError:
                    vector = np.zeros(0, dtype=np.float32)
                if not token or not vector.size or not np.isfinite(vector).all():
                    numbers = f"{width or 'some'} numbers"
                    raise UserError(f"{file_path}, line {number}: expected a token and {numbers}")
                vectors[vocabulary[token]] = vector
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file_path}: cannot be read ({reason})") from error
    if not vectors:
        raise UserError(f"{file_path}: has no vector for any of the {len(vocabulary):,} tokens")
    return np.array(list(vectors)), np.stack(list(vectors.values()))
