"""Tokenizers for models that write: decoding gives the text back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from shared.cli.errors import UserError
from shared.models.lossless_tokenizers import (
    UNITS,
    encode_prompt,
    train_lossless_tokenizer,
    train_pair_tokenizer,
)

texts = st.lists(
    st.text(alphabet="aAéb 1.\n\t▁'<|>endoftext#中", min_size=1, max_size=20),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=50, deadline=None)
@given(texts)
def test_decoding_gives_the_text_back(unit, texts):
    tokenizer = train_lossless_tokenizer(texts, unit, 300)
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
        if unit == "characters":
            assert len(ids) == len(text)


@pytest.mark.parametrize("unit", UNITS)
def test_a_saved_tokenizer_loads(unit, tmp_path):
    train_lossless_tokenizer(["the cat  sat\n", "on the mat"], unit, 300).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.pad_token_id == 1
    assert tokenizer.decode(tokenizer("the cat  sat\n")["input_ids"]) == "the cat  sat\n"
    assert set(tokenizer("the cat")) == {"input_ids", "attention_mask"}


def test_units():
    text, pieces = "low lower lowest", {}
    for unit in UNITS:
        tokenizer = train_lossless_tokenizer([text], unit, 262)
        pieces[unit] = [tokenizer.decode([token]) for token in tokenizer(text)["input_ids"]]
    assert pieces["characters"] == list("low lower lowest")
    assert pieces["words"] == ["low", " lower", " lowest"]
    assert pieces["bpe"] == ["low", " lower", " lowest"]
    # Four pairs of bytes are merged: (l, o), (lo, w), (Ġ, low), (Ġlow, e).
    assert pieces["byte_bpe"] == ["low", " lowe", "r", " lowe", "s", "t"]


@pytest.mark.parametrize("unit", UNITS)
def test_mistakes_of_the_texts(unit):
    with pytest.raises(UserError, match="all are empty"):
        train_lossless_tokenizer(["", ""], unit, 300)
    size = {"characters": 2, "words": 2, "bpe": 3, "byte_bpe": 257}[unit]
    with pytest.raises(UserError, match=f"--vocab_size {size}"):
        train_lossless_tokenizer(["abc def"], unit, size)


def test_a_prompt_of_unknown_characters():
    tokenizer = train_lossless_tokenizer(["abc"], "characters", 300)
    assert tokenizer.decode(encode_prompt(tokenizer, "cab")) == "cab"
    with pytest.raises(UserError, match="--prompt 'cäzä': 'ä', 'z' is not in the vocabulary"):
        encode_prompt(tokenizer, "cäzä")
    assert encode_prompt(train_lossless_tokenizer(["abc"], "byte_bpe", 300), "ä中")


def test_a_prompt_of_words_that_are_known_after_a_space():
    tokenizer = train_lossless_tokenizer(["the cat sat"], "words", 300)
    with pytest.raises(
        UserError, match=r"'cat' is .* have, where ' cat' with a space before it is"
    ):
        encode_prompt(tokenizer, "cat sat")
    assert tokenizer.decode(encode_prompt(tokenizer, " cat sat")) == " cat sat"
    with pytest.raises(UserError, match=r"what the training texts have$"):
        encode_prompt(tokenizer, "dog")


@settings(max_examples=50, deadline=None)
@given(texts)
def test_a_tokenizer_of_pairs_ends_texts_and_gives_them_back(texts):
    tokenizer = train_pair_tokenizer([*texts, "a"], 300)
    for text in [*texts, "new 中 text"]:
        ids = tokenizer(text, split_special_tokens=True)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        assert not {*ids[:-1]} & {*tokenizer.all_special_ids}
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text.strip()


def test_a_word_has_the_same_pieces_anywhere_in_a_pair(tmp_path):
    train_pair_tokenizer(["the cat sat", "cat food"], 300).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inside, first = (tokenizer(text)["input_ids"] for text in ("the cat", "cat"))
    assert inside[-len(first) :] == first
    special = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert len(special) == 3
    assert tokenizer.decode(first, skip_special_tokens=True) == "cat"
