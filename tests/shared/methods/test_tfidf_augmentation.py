"""Tests of the replacement of words of low TF-IDF."""

from collections import Counter

import numpy as np
import pytest

from shared.methods.tfidf_augmentation import TfidfReplacement

# "the" and "of" are in all texts, each topic in one, where it occurs twice.
TOPICS = ("tokenizer", "pipeline", "tensor", "gradient")
TEXTS = [f"The {topic} of the {topic} of rest{i}a" for i, topic in enumerate(TOPICS)]


def replace(replacement, text, seeds):
    return [replacement([text], [np.random.default_rng(seed)])[0] for seed in seeds]


def test_words_that_tell_the_topic_stay_and_are_not_drawn():
    replacement = TfidfReplacement(TEXTS, share=0.5)
    text = "The tensor of the tensor is old"
    kept, drawn = Counter(), Counter()
    for changed in replace(replacement, text, range(2000)):
        pairs = list(zip(text.split(), changed.split(), strict=True))
        kept.update(i for i, (before, after) in enumerate(pairs) if before == after)
        drawn.update(after for before, after in pairs if before != "tensor")
    # TF-IDF is 0 for "The", "of" and "the", log 4 for "is" and "old", and 2 log 4, the highest, for
    # "tensor". So the probabilities are as 2 : 1 : 0, and those of 7 words add up to .5 x 7.
    low, middle = 1 - 0.5 * 7 * 2 / 8, 1 - 0.5 * 7 / 8
    # Half of the words that replace "of" and "the" are these words themselves.
    same = low + (1 - low) / 2
    expected = [low, 1, same, same, 1, middle, middle]
    assert [kept[i] / 2000 for i in range(7)] == pytest.approx(expected, abs=0.04)
    # Frequency times IDF, 2 log 4, is highest for the topics, and 0 for the others.
    assert set(drawn) == {"The", "the", "of", "is", "old"}


def test_the_share_is_that_of_all_words_and_punctuation_and_code_stay():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(20) for j in range(20)]
    texts = [" ".join(rng.choice(vocabulary, 50)) for _ in range(40)]
    replacement = TfidfReplacement(texts, share=0.3)
    changed = replacement(texts, [np.random.default_rng(i) for i in range(40)])
    pairs = [
        p
        for a, b in zip(texts, changed, strict=True)
        for p in zip(a.split(), b.split(), strict=True)
    ]
    assert np.mean([a != b for a, b in pairs]) == pytest.approx(0.3, abs=0.03)
    text = "waa, `wab` (wac)\n```\nwad\n```\nwae.py 1.2 wa-f: wag!"
    for changed in replace(TfidfReplacement(texts, share=1), text, range(20)):
        for part in (", `wab` (", ")\n```\nwad\n```\nwae.py 1.2 wa-f: ", "!"):
            assert part in changed


def test_the_order_of_the_texts_does_not_matter():
    first, second = TfidfReplacement(TEXTS, 0.5), TfidfReplacement(TEXTS[::-1], 0.5)
    assert replace(first, TEXTS[0], range(20)) == replace(second, TEXTS[0], range(20))


@pytest.mark.parametrize("text", ["", " \n", "```only code```", "unknown", "one one one"])
def test_texts_with_nothing_to_choose_from(text):
    for texts in (TEXTS, [text], [""]):
        (changed,) = replace(TfidfReplacement(texts, 0.5), text, [0])
        assert len(changed.split()) == len(text.split())


def test_characters_of_scripts_without_spaces_are_words():
    texts = ["体育新闻很好", "财经新闻很好", "游戏新闻很好"]
    changed = replace(TfidfReplacement(texts, 0.5), texts[0], range(50))
    assert all(len(text) == 6 and text.startswith("体育") for text in changed)
    assert len(set(changed)) > 5
