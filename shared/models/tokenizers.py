"""Vocabularies learned from one's own texts, as tokenizers that `AutoTokenizer` loads."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import progress

if TYPE_CHECKING:
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram, WordPiece
    from tokenizers.normalizers import Normalizer
    from tokenizers.trainers import Trainer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

ALGORITHMS = ("bpe", "wordpiece", "unigram", "words")
SPECIAL_TOKENS = {  # in the order of their ids, 0 to 4
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_SPECIAL = list(SPECIAL_TOKENS.values())
_SPACE = "▁"  # U+2581, which stands for a space in a token
_INSIDE = "##"  # what a token inside a word begins with
_WORD = r"\w+|[^\w\s]"
# Letters, digits or other signs, each run with the space before it, as GPT-2 splits.
_RUNS = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+"


PADDING_MULTIPLE = 8  # lengths that fit the tiles of matrix units


def tokenize(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Add what a collator and a batch sampler want: ``input_ids``, and their number, ``length``.

    Parameters
    ----------
    dataset : Dataset with a column ``text``
    tokenizer : PreTrainedTokenizerBase
        Cuts texts at its ``model_max_length``.
    """

    def with_tokens(batch):
        ids = tokenizer(batch["text"], truncation=True)["input_ids"]
        return {"input_ids": ids, "length": [len(row) for row in ids]}

    return dataset.map(with_tokens, batched=True, desc="tokenising")


def train_tokenizer(
    texts: Iterable[str],
    algorithm: str,
    vocab_size: int,
    *,
    lowercase: bool = True,
    min_frequency: int = 2,
    max_length: int = 512,
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary; return a tokenizer with BERT's special tokens, ids 0 to 4.

    They are [UNK], [PAD], [CLS], [SEP], [MASK]. Texts are normalised to Unicode's NFKC, white space
    to single spaces. A text becomes ``[CLS] A [SEP]``, a pair ``[CLS] A [SEP] B [SEP]``, with token
    type 1 from B on where types are asked for. The same texts give the same tokenizer, in any order
    and on any number of threads.

    Parameters
    ----------
    texts : iterable of str
        Gone through once and not kept, only the distinct words in it are.
    algorithm : {"bpe", "wordpiece", "unigram", "words"}
        "bpe" merges pairs of symbols, the most frequent first (Sennrich et al. 2016); ▁ at the
        start of a token is a space before it, so that decoding gives back the normalised text.
        "unigram" keeps the pieces under which the texts are likeliest (Kudo 2018), with ▁ before
        the first word, too. "wordpiece" merges as BPE does and cuts a word into its longest known
        pieces from the left (Devlin et al. 2019); pieces inside a word begin with ##. "words" takes
        whole words and punctuation marks, the most frequent first.
    vocab_size : int
        Tokens at most, the special ones included. All characters of the texts are among them, for
        WordPiece twice; "words" has none but its words.
    lowercase : bool
        Whether case is given up.
    min_frequency : int
        Pairs that are seen less often are not merged, words are left out; "unigram" has no such
        limit.
    max_length : int
        Tokens at which the tokenizer truncates when told to, special ones included.

    Raises
    ------
    UserError
        For another algorithm, a vocabulary too small for the special tokens or for the characters
        of the texts, or texts that hold nothing to learn.
    """
    from tokenizers import decoders, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if algorithm not in ALGORITHMS:
        raise UserError(f"--algorithm {algorithm}: must be one of {', '.join(ALGORITHMS)}")
    if vocab_size <= len(_SPECIAL):
        raise UserError(
            f"--vocab_size {vocab_size}: the special tokens alone are {len(_SPECIAL)}; "
            "ask for some thousands"
        )
    texts = (text for text in progress(texts, "counting words", unit="texts") if text.strip())
    first = next(texts, None)
    if first is None:
        raise UserError("no text to learn a vocabulary from: there is none, or all are blank")

    tokenizer, trainer = _untrained(algorithm, vocab_size, min_frequency)
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.train_from_iterator(itertools.chain([first], texts), trainer)
    if algorithm == "wordpiece":
        tokenizer.model = _wordpiece(tokenizer, vocab_size)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(_INSIDE)
    elif algorithm == "unigram":
        tokenizer.model = _unigram(tokenizer, vocab_size)
        tokenizer.decoder = decoders.Metaspace(_SPACE, prepend_scheme="always")
    elif algorithm == "bpe":
        tokenizer.decoder = decoders.Metaspace(_SPACE, prepend_scheme="never")

    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        raise UserError(
            f"--vocab_size {vocab_size}: the special tokens and the characters of the texts alone "
            f"are {size}; ask for more, or for whole words"
        )
    if size == len(_SPECIAL):
        raise UserError(
            f"nothing to learn: no word comes {min_frequency} times or more; give more texts"
        )

    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, **SPECIAL_TOKENS
    )


def tokenization_statistics(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, max_length: int = 512
) -> dict[str, float]:
    """Measure how finely a tokenizer cuts texts, special tokens around them left out.

    A word is a run of letters and digits; any other sign counts as one, too. As in Rust et al.
    2021, "How Good is Your Tokenizer?", but with the sources' text in place of their word lists.

    Parameters
    ----------
    tokenizer : a fast one
    texts : iterable of str
        Gone through once, a thousand at a time.
    max_length : int
        Tokens that a model is to read, special ones included.

    Returns
    -------
    dict
        ``fertility``, tokens per word; ``words_split``, the share of words in more than one token;
        ``unknown_tokens``, the share of tokens that are [UNK]; ``tokens_per_text``, their mean;
        ``texts_cut``, the share of texts that have more tokens than a model reads.

    Raises
    ------
    UserError
        If the tokenizer cannot tell where in a text a token is from.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer is a slow one, which cannot tell where in a "
            "text a token is from; name another model"
        )
    room = max_length - tokenizer.num_special_tokens_to_add()
    n = Counter()
    texts = iter(progress(texts, "measuring", unit="texts"))
    while batch := list(itertools.islice(texts, 1000)):
        encoded = tokenizer(
            batch, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for text, ids, offsets in zip(
            batch, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            words = np.array([match.span() for match in re.finditer(_WORD, text)]).reshape(-1, 2)
            starts, ends = np.array(offsets, dtype=int).reshape(-1, 2).T
            # Tokens are in order: those of a word begin before its end, and end behind its start.
            first = np.searchsorted(ends, words[:, 0], side="right")
            behind = np.searchsorted(starts, words[:, 1], side="left")
            n["texts"] += 1
            n["words"] += len(words)
            n["split"] += int((behind - first > 1).sum())
            n["tokens"] += len(ids)
            n["unknown"] += ids.count(tokenizer.unk_token_id)
            n["cut"] += len(ids) > room

    return {
        "fertility": n["tokens"] / max(n["words"], 1),
        "words_split": n["split"] / max(n["words"], 1),
        "unknown_tokens": n["unknown"] / max(n["tokens"], 1),
        "tokens_per_text": n["tokens"] / max(n["texts"], 1),
        "texts_cut": n["cut"] / max(n["texts"], 1),
    }


def _untrained(algorithm: str, vocab_size: int, min_frequency: int) -> tuple[Tokenizer, Trainer]:
    from tokenizers import Regex, Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import BertPreTokenizer, Metaspace, Sequence, Split

    unknown = {"unk_token": SPECIAL_TOKENS["unk_token"]}
    common = {"special_tokens": _SPECIAL, "show_progress": False}
    counted = {**common, "min_frequency": min_frequency}
    words = BertPreTokenizer()
    if algorithm == "bpe":
        model = models.BPE(**unknown)
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, **counted)
        spaces = Metaspace(_SPACE, prepend_scheme="never", split=False)
        split = Sequence([Split(Regex(_RUNS), "isolated"), spaces])
    elif algorithm == "unigram":
        model = models.Unigram()
        trainer = trainers.UnigramTrainer(vocab_size=vocab_size, **unknown, **common)
        # Punctuation stays on, as with SentencePiece: a piece must be in two different strings to
        # be thought of, and few whole words would be.
        split = Metaspace(_SPACE, prepend_scheme="always")
    elif algorithm == "words":
        model = models.WordLevel(**unknown)
        trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, **counted)
        split = words
    else:
        # The library's trainer of WordPiece breaks ties by chance, so that its vocabulary differs
        # from run to run. BPE's does not; here ▁ tells it where words begin.
        model = models.BPE(**unknown)
        trainer = trainers.BpeTrainer(vocab_size=vocab_size + 1, **counted)  # ▁ goes
        split = Sequence([words, Metaspace(_SPACE, prepend_scheme="always", split=False)])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = split
    return tokenizer, trainer


def _normalizer(lowercase: bool) -> Normalizer:
    from tokenizers import Regex, normalizers

    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            *([normalizers.Lowercase()] if lowercase else []),
            normalizers.NFC(),  # lower case can leave a letter apart from its accent
            normalizers.Replace(Regex(rf"[\s{_SPACE}]+"), " "),
            normalizers.Strip(),
        ]
    )


def _wordpiece(tokenizer: Tokenizer, vocab_size: int) -> WordPiece:
    """Turn the tokens of BPE, ▁ before each word, into those of WordPiece, ## inside of words."""
    from tokenizers import models

    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    learned = [token for token, _ in by_id[len(_SPECIAL) :]]
    characters = [token for token in learned if len(token) == 1 and token != _SPACE]
    alphabet = [*characters, *(_INSIDE + character for character in characters)]
    merged = [
        token.removeprefix(_SPACE) if token.startswith(_SPACE) else _INSIDE + token
        for token in learned
        if len(token) > 1
    ]
    pieces = list(dict.fromkeys([*_SPECIAL, *alphabet, *merged]))  # ▁a is a, a character
    pieces = pieces[: max(vocab_size, len(_SPECIAL) + len(alphabet))]
    return models.WordPiece(
        {piece: i for i, piece in enumerate(pieces)}, unk_token=SPECIAL_TOKENS["unk_token"]
    )


def _unigram(tokenizer: Tokenizer, vocab_size: int) -> Unigram:
    """Free the trained model of what differs from run to run.

    Sums over words in the order of a hash table leave noise in the last digits of the scores, and
    characters that the model could do without get scores above the lowest in such an order.
    Such noise could also decide which of two equal pieces is dropped; that was not seen to happen.
    """
    from tokenizers import models

    scores = dict(json.loads(tokenizer.to_str())["model"]["vocab"])
    for token in _SPECIAL:
        scores.pop(token, None)
    characters = [piece for piece in scores if len(piece) == 1]
    lowest = min(scores.values(), default=0.0)
    added = lowest + 1e-4 * len(characters)  # the trainer's steps
    for character in characters:
        if scores[character] < added:
            scores[character] = lowest
    scores = {piece: round(score, 6) for piece, score in scores.items()}
    # Below the size of the alphabet or so, the trainer does not heed its limit.
    ranked = sorted(scores, key=lambda piece: (len(piece) > 1, -scores[piece], piece))
    kept = ranked[: max(vocab_size - len(_SPECIAL), len(characters))]
    pieces = [*((token, 0.0) for token in _SPECIAL), *((piece, scores[piece]) for piece in kept)]
    return models.Unigram(pieces, unk_id=0)
