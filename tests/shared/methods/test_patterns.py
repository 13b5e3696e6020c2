"""Patterns: what is tokenised, which words are refused, and what several models say together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from shared.cli.errors import UserError
from shared.methods import (
    PromptTemplates,
    best_label_accuracy,
    ensemble_scores,
    label_word_ids,
    soft_labels,
    tokenize_pattern,
)

TEMPLATES = ["{mask}: {text}", "text {text} is {mask}.", "{text} {mask}", "{mask}{text}"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.model_max_length = 16
    return tokenizer


@settings(max_examples=30)
@given(
    st.lists(st.text("abc [MASK]", max_size=30), min_size=1, max_size=4),
    st.sampled_from(TEMPLATES),
    st.sampled_from(["left", "right"]),
)
def test_a_pattern_stays_whole_and_has_one_mask(tokenizer, texts, template, side):
    tokenizer.truncation_side = side
    rows = tokenize_pattern(texts, template, tokenizer, "add it")
    whole = "add it\n" + template.replace("{mask}", tokenizer.mask_token)
    frame = tokenizer(whole.replace("{text}", ""))["input_ids"]
    for text, ids, length, place in zip(
        texts, rows["input_ids"], rows["length"], rows["place"], strict=True
    ):
        assert len(ids) == length <= 16
        assert [i for i, token in enumerate(ids) if token == tokenizer.mask_token_id] == [place]
        own = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        room = 16 - len(frame)
        own = own[-room:] if side == "left" else own[:room]
        before = len(tokenizer(whole.split("{text}")[0])["input_ids"]) - 1
        assert ids == frame[:before] + own + frame[before:]


def test_text_around_a_mask_is_that_of_the_whole_prompt(tokenizer):
    tokenizer.truncation_side = "right"
    rows = tokenize_pattern(["crash memory"], "the {text} is {mask} again", tokenizer)
    whole = tokenizer(f"the crash memory is {tokenizer.mask_token} again")["input_ids"]
    assert rows["input_ids"][:] == [whole]


def test_a_pattern_without_room_for_a_text_is_refused(tokenizer):
    long = "add " * 20 + "{text} {mask}"
    with pytest.raises(UserError, match=r"--max_length 16: the pattern .* leaves no room"):
        tokenize_pattern(["a"], long, tokenizer)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([("crash", "zzz"), ("docs",)], r"label 'a': 'zzz' has 3 tokens \(z, ##z, ##z\), but a"),
        ([("crash",), ("日",)], "label 'b': the tokenizer does not know '日'"),
        ([("crash",), ("Crash",)], "label 'b': 'Crash' is the same token as a word of 'a'"),
    ],
)
def test_a_word_that_a_mask_cannot_stand_for_is_refused(tokenizer, words, message):
    with pytest.raises(UserError, match=message) as error:
        label_word_ids(tokenizer, PromptTemplates((), tuple(words)), ["a", "b"])
    assert "verbalizer in --prompts" in str(error.value)


def test_words_become_their_tokens(tokenizer):
    prompts = PromptTemplates((), (("crash", "error"), ("docs",)))
    ids = label_word_ids(tokenizer, prompts, ["a", "b"])
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids] == [["crash", "error"], ["docs"]]


def test_patterns_count_by_their_weight():
    one, other = np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]])
    np.testing.assert_allclose(ensemble_scores([one, other], [3, 1]), [[1.5, 1.0]])
    np.testing.assert_allclose(ensemble_scores([one, other], [0, 0]), [[1.0, 2.0]])
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    scores = np.array([[3.0, 1.0], [2.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert best_label_accuracy(scores, labels) == 0.5


def test_a_temperature_softens_labels_and_keeps_their_order():
    scores = np.array([[2.0, 0.0, -1.0]])
    sharp, soft = (soft_labels(scores, t, single_label=True) for t in (1.0, 2.0))
    assert soft.sum() == pytest.approx(1)
    assert sharp[0, 0] > soft[0, 0] > soft[0, 1] > soft[0, 2]
    np.testing.assert_allclose(soft, np.exp(scores / 2) / np.exp(scores / 2).sum())
    several = soft_labels(scores, 2.0, single_label=False)
    np.testing.assert_allclose(several, 1 / (1 + np.exp(-scores / 2)))
