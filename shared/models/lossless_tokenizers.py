"""Tokenizers for models that write: decoding the tokens of a text gives the text, character by
character.

`shared.models.tokenizers` has those for models that read. They change case and white space and put
special tokens around a text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.cli.launch import progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

UNITS = ("characters", "words", "bpe", "byte_bpe")
UNKNOWN, BOUNDARY = "[UNK]", "<|endoftext|>"  # ids 0 and 1
# Runs of letters, of digits or of other signs, each with the space before it: GPT-2's split. What
# lies between them is other white space.
_RUNS = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+"


def train_lossless_tokenizer(
    texts: Iterable[str], unit: str, vocab_size: int
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary from texts, for a language model.

    The texts are not normalised. Ids 0 and 1 are [UNK] and the token between two texts, which also
    begins, ends and pads them. No special tokens are added to a text. The same texts give the same
    tokenizer.

    Parameters
    ----------
    texts : iterable of str
        Read once.
    unit : {"characters", "words", "bpe", "byte_bpe"}
        What the tokens are: the most frequent characters; the most frequent words, numbers and
        runs of signs, each with the space before it; pieces of words that grow from characters by
        merging the most frequent pairs (Sennrich et al. 2016); or the same from bytes, so that no
        text has an unknown token (Radford et al. 2019).
    vocab_size : int
        Maximum number of tokens, the two special ones included.

    Raises
    ------
    UserError
        If the texts are empty, or the vocabulary is too small for the characters of the texts
        ("bpe") or for all bytes ("byte_bpe").
    """
    from tokenizers import Regex, Tokenizer, decoders, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel, Split
    from transformers import PreTrainedTokenizerFast

    texts = (text for text in progress(texts, "learning a vocabulary", unit="texts") if text)
    first = next(texts, None)
    if first is None:
        raise UserError("no text to learn a vocabulary from: all are empty")
    special = [UNKNOWN, BOUNDARY]
    common: dict[str, Any] = {"special_tokens": special, "show_progress": False}
    common["vocab_size"] = vocab_size
    trainer: Any
    if unit in ("characters", "words"):
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        trainer = trainers.WordLevelTrainer(**common)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        if unit == "byte_bpe":
            common["initial_alphabet"] = sorted(ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(**common)
    if unit == "byte_bpe":
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        pattern = r"[\s\S]" if unit == "characters" else _RUNS
        tokenizer.pre_tokenizer = Split(Regex(pattern), "isolated")
        tokenizer.decoder = decoders.Fuse()
    try:
        tokenizer.train_from_iterator(itertools.chain([first], texts), trainer)
    except Exception as error:  # the library has no class of its own
        if "vocabulary is not large enough" not in str(error):
            raise
        raise UserError(f"--vocab_size {vocab_size}: {_TOO_SMALL}") from error
    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        raise UserError(f"--vocab_size {vocab_size}: {_TOO_SMALL} (at least {size:,})")
    if size == len(special):
        raise UserError(f"--vocab_size {vocab_size}: leaves no token for the texts; raise it")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), BOUNDARY),
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


_TOO_SMALL = "too small for the characters, or bytes, that pieces grow from; raise it"


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the tokens of a prompt.

    Raises
    ------
    UserError
        If some of its characters, or words, are not in the vocabulary.
    """
    encoded = tokenizer(
        prompt,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=tokenizer.is_fast,
    )
    ids: list[int] = encoded["input_ids"]
    unknown = tokenizer.unk_token_id
    if unknown in ids and unknown not in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        spans = encoded.get("offset_mapping", [])
        pieces = [
            prompt[a:b] for token, (a, b) in zip(ids, spans, strict=False) if token == unknown
        ]
        named = ", ".join(repr(piece) for piece in dict.fromkeys(pieces))
        vocabulary = tokenizer.get_vocab()
        spaced = [repr(f" {p}") for p in dict.fromkeys(pieces) if f" {p}" in vocabulary]
        hint = f", where {', '.join(spaced)} with a space before it is known" if spaced else ""
        raise UserError(
            f"--prompt {prompt!r}: {named or 'a part of it'} is not in the vocabulary of the "
            f"model; write it with what the training texts have{hint}"
        )
    return ids


def train_pair_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a vocabulary of pieces of bytes, for a model that reads one text and writes another.

    No text has an unknown token. A word has the same pieces at the start of a text as inside it, so
    that it can be copied; white space around a text is therefore lost, and only that. Each text
    ends with the end token; the decoder starts with the begin token, ``[BOS]``.

    Parameters
    ----------
    texts : iterable of str
        Of both sides. Read once.
    vocab_size : int
        Maximum number of tokens, beside the begin token and that of padding.

    Raises
    ------
    UserError
        As `train_lossless_tokenizer`.
    """
    from tokenizers import decoders, processors
    from tokenizers.pre_tokenizers import ByteLevel

    spaced = (f" {text.strip()}" for text in texts if text.strip())
    tokenizer = train_lossless_tokenizer(spaced, "byte_bpe", vocab_size)
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "bos_token": "[BOS]"})
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {BOUNDARY}", special_tokens=[(BOUNDARY, tokenizer.eos_token_id)]
    )
    return tokenizer
