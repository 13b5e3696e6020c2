"""Tokenise data sets, learn tokenizers from texts, and measure tokenizers.

- `tokenize` adds token ids to a data set.
- `check_unknown_tokens` says whether a tokenizer knows the script of texts.
- `train_tokenizer` learns a vocabulary. The result loads with `AutoTokenizer`.
- `tokenization_statistics` measures how a tokenizer splits texts.

The same texts must always give the same tokenizer. The trainers of the library `tokenizers` do not
guarantee that for WordPiece and Unigram; see `_wordpiece` and `_unigram`.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import ROOT
from shared.cli.launch import print_once, progress
from shared.data.mapped_rows import map_rows
from shared.data.words import CHARACTER, token_spans

if TYPE_CHECKING:
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram, WordPiece
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from tokenizers.trainers import Trainer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

ALGORITHMS = ("bpe", "wordpiece", "unigram", "words", "byte_bpe", "characters")
SPECIAL_TOKENS = {  # in the order of their ids, 0 to 4
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_SPECIAL = list(SPECIAL_TOKENS.values())
_SPACE = "▁"  # U+2581, stands for a space in a token
_INSIDE = "##"  # first characters of a token inside a word
# Runs of letters, of digits or of other signs, each with the space before it: GPT-2's split.
_RUNS = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+"

UNKNOWN_LIMIT = 0.03  # share of unknown tokens from which a model misses too much of the texts
_NAMED = ("pad", "cls", "sep", "bos", "eos", "mask")  # special tokens, beside the unknown one
TEXTS_PER_CALL = 1000  # limits the memory of a call of a tokenizer
PADDING_MULTIPLE = 8  # batches are padded to multiples of the tile size of matrix units


def tokenize(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Add the columns ``input_ids``, for the collator, and ``length``, for the batch sampler.

    Parameters
    ----------
    dataset : Dataset
        With a column ``text``.
    tokenizer : PreTrainedTokenizerBase
        Texts are truncated at its ``model_max_length``.

    Returns
    -------
    Dataset
        With the token ids of each text, and their number.
    """

    def with_tokens(batch: dict[str, list]) -> dict[str, list]:
        ids = tokenizer(with_prefix(tokenizer, batch["text"]), truncation=True)["input_ids"]
        return {"input_ids": ids, "length": [len(row) for row in ids]}

    forget_padding(tokenizer)  # it is part of the key of the cache
    return map_rows(dataset, with_tokens, desc="tokenising")


def forget_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Remove the padding and the truncation of the last call, which a tokenizer would save.

    The files of a tagger would then depend on whether its tokens came from a cache. Every call sets
    both anew.
    """
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()


def with_prefix(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Return texts with the prefix of `load_tokenizer` before each, if there is one.

    Texts that are classified pass through this before they are tokenised; pairs of sentences do
    not.
    """
    prefix = tokenizer.init_kwargs.get("text_prefix") or ""
    return [prefix + text for text in texts]


def tokenize_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    sentences: Sequence[str] | None = None,
) -> Dataset:
    """Tokenise texts alone, or each with each sentence: (text 0, sentence 0), (text 0, 1), ...

    A pair that is too long for the model loses the end of the text; the sentence stays whole.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Texts are truncated at its ``model_max_length``.
    texts, sentences : sequences of str

    Returns
    -------
    datasets.Dataset
        With ``input_ids``, ``length`` and, if the tokenizer makes them, ``token_type_ids``.
    """
    from datasets import Dataset

    columns: dict[str, list] = {"input_ids": []}
    # In batches: the tokenizer keeps the tokens beyond the truncation until a call ends.
    starts = range(0, len(texts), TEXTS_PER_CALL)
    for start in progress(starts, "tokenising", unit="batches"):
        batch = list(texts[start : start + TEXTS_PER_CALL])
        if sentences is None:
            batch = with_prefix(tokenizer, batch)
            tokens = tokenizer(batch, truncation=True, return_token_type_ids=False)
        else:
            firsts = [text for text in batch for _ in sentences]
            tokens = tokenizer(firsts, list(sentences) * len(batch), truncation="only_first")
        for name in ("input_ids", "token_type_ids"):
            if name in tokens:
                columns.setdefault(name, []).extend(tokens[name])
    return Dataset.from_dict({**columns, "length": [len(row) for row in columns["input_ids"]]})


def unknown_token_share(tokens: Dataset, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the share of the tokens that are the unknown one, special tokens left out.

    It is 0 for a vocabulary of bytes, which can write any text.

    Parameters
    ----------
    tokens : Dataset
        With ``input_ids``, from `tokenize` or `tokenize_texts`.
    tokenizer : PreTrainedTokenizerBase
    """
    special = [getattr(tokenizer, f"{name}_token_id") for name in _NAMED]
    special = [token for token in special if token is not None]
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in special:  # GPT-2 has one token for all purposes
        return 0.0
    n_unknown = n_tokens = 0
    for batch in tokens.with_format("arrow").iter(10_000):
        ids = batch["input_ids"].combine_chunks().flatten().to_numpy()
        n_unknown += int((ids == unknown).sum())
        n_tokens += int((~np.isin(ids, special)).sum())
    return n_unknown / max(n_tokens, 1)


def count_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[np.ndarray, float]:
    """Return the number of tokens of each text, and the share of them that is unknown.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Nothing is truncated.
    texts : sequence of str

    Returns
    -------
    counts : int64 array of shape (texts,)
        Special tokens included, as in ``--max_length``.
    unknown : float
        As `unknown_token_share`.
    """
    special = tokenizer.num_special_tokens_to_add()
    unknown_id = tokenizer.unk_token_id
    if unknown_id in (getattr(tokenizer, f"{name}_token_id") for name in _NAMED):
        unknown_id = None  # GPT-2 has one token for all purposes
    counts = np.zeros(len(texts), np.int64)
    n_unknown = 0
    starts = range(0, len(texts), TEXTS_PER_CALL)
    for start in progress(starts, "counting tokens", unit="batches"):
        batch = with_prefix(tokenizer, list(texts[start : start + TEXTS_PER_CALL]))
        tokens = tokenizer(
            batch, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        counts[start : start + len(batch)] = list(map(len, tokens))
        if unknown_id is not None:
            n_unknown += sum(ids.count(unknown_id) for ids in tokens)
    return counts, n_unknown / max(int(counts.sum()) - special * len(texts), 1)


def describe_unknown_tokens(share: float) -> str:
    """Return the share of unknown tokens in words, with advice if it is above 3 %."""
    text = f"unknown tokens: {share:.1%}"
    if share <= UNKNOWN_LIMIT:
        return text
    text += (
        "; the model cannot read them: take an encoder that knows the script, such as --model "
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2, or a larger vocabulary if it "
        "is learned from the texts"
    )
    if (ROOT / "recipes" / "naive_bayes.py").is_file():
        text += ", or the recipe naive_bayes, which reads any script"
    return text


def check_unknown_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Print and return the share of the tokens of texts that a tokenizer does not know.

    Of more than a thousand texts, at most a thousand are tokenised, evenly spread.
    """
    step = max(-(-len(texts) // 1000), 1)
    sample = [texts[row] for row in range(0, len(texts), step)]
    share = unknown_token_share(tokenize_texts(tokenizer, sample), tokenizer)
    note = "note: " if share > UNKNOWN_LIMIT else ""
    print_once(f"{note}{describe_unknown_tokens(share)}")
    return share


def train_tokenizer(
    texts: Iterable[str],
    algorithm: str,
    vocab_size: int,
    *,
    lowercase: bool = True,
    strip_accents: bool = False,
    min_frequency: int = 2,
    max_length: int = 512,
    truncation_side: str = "right",
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary from texts; return a tokenizer with the special tokens of BERT.

    The special tokens are [UNK], [PAD], [CLS], [SEP] and [MASK], with ids 0 to 4. Texts are
    normalised: Unicode NFKC, and any white space becomes one space. A text becomes
    ``[CLS] A [SEP]``, a pair ``[CLS] A [SEP] B [SEP]``, with token type 1 from B on if types are
    requested. The same texts give the same tokenizer, in any order and with any number of threads.

    Parameters
    ----------
    texts : iterable of str
        Read once. Only its distinct words are kept in memory.
    algorithm : {"bpe", "wordpiece", "unigram", "words", "byte_bpe", "characters"}
        - "bpe" merges pairs of symbols, the most frequent pair first (Sennrich et al. 2016). ▁ at
          the start of a token stands for a space before it, so that decoding returns the normalised
          text.
        - "wordpiece" merges as BPE does, and splits a word into its longest known pieces from the
          left (Devlin et al. 2019). Pieces inside a word begin with ##. As in BERT, each character
          of a script without spaces between words is a word.
        - "unigram" keeps the pieces that make the texts most likely (Kudo 2018). ▁ stands for a
          space, and is also put before the first word.
        - "words" keeps whole words and punctuation marks, the most frequent first. Each character
          of a script without spaces between words is a word.
        - "byte_bpe" merges bytes of UTF-8 as "bpe" merges characters (Radford et al. 2019). All 256
          bytes are tokens, so that no text has an unknown token.
        - "characters" keeps the characters, the most frequent first. ▁ stands for a space.
    vocab_size : int
        Maximum number of tokens, special ones included. Except for "words" and "characters", all
        characters of the texts are tokens (for "byte_bpe", all bytes), for "wordpiece" twice (with
        and without ##).
    lowercase : bool
        Whether to convert texts to lower case.
    strip_accents : bool
        Whether to remove accents from letters: "é" becomes "e". The vowel signs of Thai, Hindi and
        other scripts stay.
    min_frequency : int
        Pairs that are less frequent are not merged, words and characters that are less frequent are
        left out.
        "unigram" ignores this.
    max_length : int
        Tokens at which the tokenizer truncates on request, special ones included.
    truncation_side : {"right", "left"}
        Where a long text loses tokens; "left" keeps its end.

    Raises
    ------
    UserError
        For another algorithm, a vocabulary too small for the special tokens or for the characters
        of the texts, or texts without anything to learn.
    """
    from tokenizers import decoders, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if algorithm not in ALGORITHMS:
        raise UserError(f"--algorithm {algorithm}: must be one of {', '.join(ALGORITHMS)}")
    if vocab_size <= len(_SPECIAL):
        raise UserError(
            f"--vocab_size {vocab_size}: the special tokens alone are {len(_SPECIAL)}; "
            "use some thousands"
        )
    texts = (text for text in progress(texts, "counting words", unit="texts") if text.strip())
    # Take one text out to see whether there is any: the iterable can only be read once.
    first = next(texts, None)
    if first is None:
        raise UserError("no text to learn a vocabulary from: there is none, or all are blank")

    tokenizer, trainer = _untrained(algorithm, vocab_size, min_frequency)
    tokenizer.normalizer = _normalizer(lowercase, strip_accents)
    try:
        tokenizer.train_from_iterator(itertools.chain([first], texts), trainer)
    except Exception as error:  # the library has no class of its own
        if "vocabulary is not large enough" not in str(error):
            raise
        raise UserError(
            f"--vocab_size {vocab_size}: the texts have more different characters than that; "
            "raise it, or learn another algorithm"
        ) from error
    # The models of WordPiece and Unigram are replaced; the end of this file says why.
    if algorithm == "wordpiece":
        tokenizer.model = _wordpiece(tokenizer, vocab_size)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_words())
        tokenizer.decoder = decoders.WordPiece(_INSIDE)
    elif algorithm == "unigram":
        tokenizer.model = _unigram(tokenizer, vocab_size)
        tokenizer.decoder = decoders.Metaspace(_SPACE, prepend_scheme="always")
    elif algorithm in ("bpe", "characters"):
        tokenizer.decoder = decoders.Metaspace(_SPACE, prepend_scheme="never")
    elif algorithm == "byte_bpe":
        tokenizer.decoder = decoders.ByteLevel()

    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        alphabet = "bytes" if algorithm == "byte_bpe" else "characters of the texts"
        raise UserError(
            f"--vocab_size {vocab_size}: the special tokens and the {alphabet} alone are {size}; "
            "raise it, or learn whole words"
        )
    if size == len(_SPECIAL):
        raise UserError(
            f"nothing to learn: no {'character' if algorithm == 'characters' else 'word'} occurs "
            f"{min_frequency} times or more; use more texts"
        )

    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        truncation_side=truncation_side,
        **SPECIAL_TOKENS,
    )


def tokenization_statistics(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, max_length: int = 512
) -> dict[str, float]:
    """Measure how a tokenizer splits texts into tokens, without special tokens around them.

    A word is a run of letters and digits. Any other sign, and each character of a script without
    spaces between words, is a word of its own. The measures are
    those of Rust et al. 2021, "How Good is Your Tokenizer?", but on plain text, not on their word
    lists.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast one.
    texts : iterable of str
        Read once, in batches of a thousand.
    max_length : int
        Tokens that a model reads, special ones included.

    Returns
    -------
    dict
        ``fertility``, tokens per word; ``words_split``, share of the words that have more than one
        token; ``unknown_tokens``, share of the tokens that are [UNK]; ``tokens_per_text``, mean
        number of tokens of a text; ``texts_cut``, share of the texts that have more tokens than a
        model reads.

    Raises
    ------
    UserError
        If the tokenizer is slow, because it cannot return the position of a token in the text.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer is a slow one, which cannot return the "
            "positions of tokens in a text; name another model"
        )
    room = max_length - tokenizer.num_special_tokens_to_add()
    counts: Counter[str] = Counter()
    texts = iter(progress(texts, "measuring", unit="texts"))
    while batch := list(itertools.islice(texts, 1000)):
        encoded = tokenizer(
            batch, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for text, ids, offsets in zip(
            batch, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            # Start and end of each word (words, 2) and of each token (tokens,), in characters.
            words = np.array(token_spans(text)).reshape(-1, 2)
            starts, ends = np.array(offsets, dtype=int).reshape(-1, 2).T
            # Tokens are sorted. Those of a word are the ones that end after the start of the word
            # and start before its end: first to stop - 1. A token can belong to several words.
            first = np.searchsorted(ends, words[:, 0], side="right")
            stop = np.searchsorted(starts, words[:, 1], side="left")
            counts["texts"] += 1
            counts["words"] += len(words)
            counts["split"] += int((stop - first > 1).sum())
            counts["tokens"] += len(ids)
            counts["unknown"] += ids.count(tokenizer.unk_token_id)
            counts["cut"] += len(ids) > room

    return {
        "fertility": counts["tokens"] / max(counts["words"], 1),
        "words_split": counts["split"] / max(counts["words"], 1),
        "unknown_tokens": counts["unknown"] / max(counts["tokens"], 1),
        "tokens_per_text": counts["tokens"] / max(counts["texts"], 1),
        "texts_cut": counts["cut"] / max(counts["texts"], 1),
    }


# --- before training: models, trainers, splits, normalisation ------------------------------------


def _untrained(algorithm: str, vocab_size: int, min_frequency: int) -> tuple[Tokenizer, Trainer]:
    """Return a tokenizer that splits texts into words, and the trainer of its vocabulary."""
    from tokenizers import Regex, Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel, Metaspace, Sequence, Split

    unknown = SPECIAL_TOKENS["unk_token"]
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "special_tokens": _SPECIAL,
        "show_progress": False,
    }
    tokenizer: Tokenizer
    trainer: Trainer
    if algorithm == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=unknown))
        trainer = trainers.BpeTrainer(min_frequency=min_frequency, **common)
        spaces = Metaspace(_SPACE, prepend_scheme="never", split=False)
        tokenizer.pre_tokenizer = Sequence([Split(Regex(_RUNS), "isolated"), spaces])
    elif algorithm == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(unk_token=unknown, **common)
        # Punctuation is not split off, as in SentencePiece. The trainer only considers a piece that
        # occurs in two different strings, and if words stood alone, few whole words would.
        tokenizer.pre_tokenizer = Metaspace(_SPACE, prepend_scheme="always")
    elif algorithm == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token=unknown))
        trainer = trainers.WordLevelTrainer(min_frequency=min_frequency, **common)
        tokenizer.pre_tokenizer = Sequence(_words())
    elif algorithm == "characters":
        tokenizer = Tokenizer(models.WordLevel(unk_token=unknown))
        trainer = trainers.WordLevelTrainer(min_frequency=min_frequency, **common)
        spaces = Metaspace(_SPACE, prepend_scheme="never", split=False)
        tokenizer.pre_tokenizer = Sequence([spaces, Split(Regex(r"[\s\S]"), "isolated")])
    elif algorithm == "byte_bpe":
        tokenizer = Tokenizer(models.BPE())
        alphabet = sorted(ByteLevel.alphabet())
        common |= {"initial_alphabet": alphabet, "min_frequency": min_frequency}
        trainer = trainers.BpeTrainer(**common)
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    else:
        # The library's WordPiece trainer breaks ties between equally frequent pairs at random, so
        # that its vocabulary differs from run to run. The BPE trainer breaks them by token id.
        # Train BPE, with ▁ before each word, and let `_wordpiece` convert the result. One more
        # token is learned, because the conversion removes the token ▁.
        tokenizer = Tokenizer(models.BPE(unk_token=unknown))
        common["vocab_size"] += 1
        trainer = trainers.BpeTrainer(min_frequency=min_frequency, **common)
        tokenizer.pre_tokenizer = Sequence(
            [*_words(), Metaspace(_SPACE, prepend_scheme="always", split=False)]
        )
    return tokenizer, trainer


def _words() -> list[PreTokenizer]:
    """Return the steps that split texts at spaces and signs, and around unspaced characters."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import BertPreTokenizer, Split

    return [BertPreTokenizer(), Split(Regex(CHARACTER), "isolated")]


def _normalizer(lowercase: bool, strip_accents: bool) -> Normalizer:
    """Return the normalisation: NFKC, lower case and no accents if wanted, single spaces."""
    from tokenizers import Regex, normalizers

    # Not the library's StripAccents: it also removes vowel signs, which are letters of their own.
    accents = [normalizers.NFD(), normalizers.Replace(Regex("[\u0300-\u036f]"), "")]
    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            *([normalizers.Lowercase()] if lowercase else []),
            *(accents if strip_accents else []),
            normalizers.NFC(),  # lower-casing can separate a letter from its accent
            # ▁ in a text becomes a space, too: in a token it could not be told from one.
            normalizers.Replace(Regex(rf"[\s{_SPACE}]+"), " "),
            normalizers.Strip(),
        ]
    )


# --- after training: the same vocabulary in each run ---------------------------------------------


def _wordpiece(tokenizer: Tokenizer, vocab_size: int) -> WordPiece:
    """Convert a BPE vocabulary, with ▁ before words, to WordPiece, with ## inside of words.

    The order of the tokens is kept, so that the result is as deterministic as the BPE trainer.
    """
    from tokenizers import models

    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    learned = [token for token, _ in by_id[len(_SPECIAL) :]]
    # WordPiece finds a word only if all of its characters are tokens: each needs one form for the
    # start of a word and one for the inside.
    characters = [token for token in learned if len(token) == 1 and token != _SPACE]
    alphabet = [*characters, *(_INSIDE + character for character in characters)]
    merged = [
        token.removeprefix(_SPACE) if token.startswith(_SPACE) else _INSIDE + token
        for token in learned
        if len(token) > 1
    ]
    # `dict.fromkeys` drops duplicates and keeps the order: the merge ▁a is the character a again.
    pieces = list(dict.fromkeys([*_SPECIAL, *alphabet, *merged]))
    # The first merges are the most frequent ones. The alphabet stays complete; the caller refuses a
    # vocabulary that is too large.
    pieces = pieces[: max(vocab_size, len(_SPECIAL) + len(alphabet))]
    return models.WordPiece(
        {piece: i for i, piece in enumerate(pieces)}, unk_token=SPECIAL_TOKENS["unk_token"]
    )


def _unigram(tokenizer: Tokenizer, vocab_size: int) -> Unigram:
    """Remove the random differences between two training runs from a Unigram model.

    There are two. First, the trainer sums over words in the order of a hash table, which changes
    the last digits of the scores. Second, it gives the characters that the model does not need
    scores just above the lowest one, in an order of a hash table, too.

    The rounding noise could also decide which of two equally good pieces the trainer drops. This
    was never observed.
    """
    from tokenizers import models

    scores = dict(json.loads(tokenizer.to_str())["model"]["vocab"])
    for token in _SPECIAL:
        scores.pop(token, None)
    # The trainer puts these characters at steps of 1e-4 above the lowest score. Give all of them
    # the lowest score, so that their order no longer counts.
    characters = [piece for piece in scores if len(piece) == 1]
    lowest = min(scores.values(), default=0.0)
    highest_added = lowest + 1e-4 * len(characters)
    for character in characters:
        if scores[character] < highest_added:
            scores[character] = lowest
    scores = {piece: round(score, 6) for piece, score in scores.items()}
    # If the limit is near the number of characters or below, the trainer exceeds it. Keep all
    # characters, then the pieces with the highest scores. Sort pieces of equal score by name.
    ranked = sorted(scores, key=lambda piece: (len(piece) > 1, -scores[piece], piece))
    kept = ranked[: max(vocab_size - len(_SPECIAL), len(characters))]
    pieces = [*((token, 0.0) for token in _SPECIAL), *((piece, scores[piece]) for piece in kept)]
    return models.Unigram(pieces, unk_id=0)
