"""Near-duplicate groups, compared with the groups that a comparison of all pairs gives."""

import re
import time
import unicodedata
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.near_duplicates import near_duplicate_groups

# Characters that are a word each: Thai, Lao, Burmese, Khmer; Chinese, Japanese, Korean; emoji.
ALONE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\uffff"
ALONE += r"\U0001f000-\U0001faff\U00020000-\U0003ffff"
WORD = re.compile(
    rf"[{ALONE}]|(?:(?![{ALONE}])[0-9a-z_\u00c0-\u1fff\u2080-\u2fff\U00010000-\U0010ffff])+"
)


def words(text):
    composed = unicodedata.normalize("NFC", text)
    lower = "".join(c.lower() if c.isascii() else c for c in composed)
    return WORD.findall(lower)


def jaccard(first, second):
    a, b = ({tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (words(first), words(second)))
    return len(a & b) / len(a | b) if a and b else float(words(first) == words(second))


def brute_force(texts, threshold):
    """Return the connected components of near duplicates, from a comparison of all pairs."""
    groups = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if jaccard(texts[i], texts[j]) >= threshold:
            old, new = groups[j], groups[i]
            groups = [new if g == old else g for g in groups]
    names = {g: n for n, g in enumerate(dict.fromkeys(groups))}
    return [names[g] for g in groups]


def edited_copies(rng, n_texts, n_words):
    """Return texts; most copy an earlier one and change up to n_words / 30 of its words."""
    vocabulary = [f"Word{i}" for i in range(500)]
    texts = [list(rng.choice(vocabulary, n_words))]
    while len(texts) < n_texts:
        copy = list(texts[rng.integers(len(texts))])
        if rng.random() < 0.3:
            copy = list(rng.choice(vocabulary, rng.integers(1, n_words)))
        for _ in range(rng.integers(0, 1 + n_words // 30)):
            copy[rng.integers(len(copy))] = rng.choice(vocabulary)
        texts.append(copy)
    return [" ".join(text) for text in texts]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_groups_equal_those_from_all_pairs(seed, threshold):
    texts = edited_copies(np.random.default_rng(seed), 60, 80)
    expected = brute_force(texts, threshold)
    assert len(set(expected)) < len(texts)
    assert near_duplicate_groups(texts, threshold=threshold).tolist() == expected


# With a mark that joins a letter, and with characters beyond U+FFFF.
LETTERS = "abZ_9 .\u00a0\u2019é\u3001東京😀\0e\u0301กำລាမ𠮷\U0001d49cか\u3099"


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(st.text(alphabet=LETTERS, max_size=40), max_size=12))
def test_words_and_short_texts_follow_the_definition(texts):
    # At a threshold of 1 the groups depend on the words only, not on random hashes.
    assert near_duplicate_groups(texts, threshold=1).tolist() == brute_force(texts, 1)


def test_short_texts_are_duplicates_only_when_their_words_are_the_same():
    texts = ["It is broken", "it is, BROKEN!", "it is broken now", "", "..."]
    assert near_duplicate_groups(texts).tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    "letters", ["กขคงจฉชซ", "ກຂຄງຈສຊຍ", "កខគឃងចឆជ", "ကခဂဃငစဆဇ", "𠀀𠀁𠀂𠀃𠀄𠀅𠀆𠀇"]
)
def test_scripts_without_spaces_are_cut_into_characters(letters):
    text = "".join(np.random.default_rng(0).choice(list(letters), 100))
    other = "".join(np.random.default_rng(1).choice(list(letters), 100))
    assert near_duplicate_groups([text, text[:97], other]).tolist() == [0, 0, 1]


def test_composed_and_decomposed_texts_are_duplicates():
    text = "Zwölf Boxkämpfer jagen Viktor über den großen Sylter Deich für Frau Böhm"
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    assert near_duplicate_groups([*forms, "another"]).tolist() == [0, 0, 1]


def test_chunks_slices_and_lists_of_the_same_texts_give_the_same_groups():
    texts = edited_copies(np.random.default_rng(0), 50, 60)
    expected = near_duplicate_groups(texts)
    sliced = pa.chunked_array([pa.array(["x", *texts[:20]])[1:], pa.array(texts[20:])])
    np.testing.assert_array_equal(near_duplicate_groups(sliced), expected)
    np.testing.assert_array_equal(near_duplicate_groups(pa.array(texts)), expected)


def test_the_same_seed_gives_the_same_groups_without_the_global_generator():
    texts = edited_copies(np.random.default_rng(1), 50, 60)
    before = np.random.get_state()[1].copy()
    first = near_duplicate_groups(texts, random_state=3)
    np.testing.assert_array_equal(first, near_duplicate_groups(texts, random_state=3))
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    assert first.dtype == np.int64


@pytest.mark.parametrize("texts", [[], [""], ["one two three four five six"]])
def test_few_texts(texts):
    assert near_duplicate_groups(texts).tolist() == list(range(len(texts)))


def test_twenty_thousand_copies_of_a_template_take_seconds():
    # All pairs would be 200 million comparisons. Texts with 95 of 100 words in common are near
    # duplicates (.9). Texts with 84 in common (.7) are not, but fill the same buckets.
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{i}" for i in range(5000)])
    template = " ".join(rng.choice(vocabulary, 95))
    for shared, n_groups in ((95, 1), (84, 20_000)):
        start = " ".join(template.split()[:shared])
        ends = rng.choice(vocabulary, (20_000, 100 - shared))
        texts = [f"{start} {' '.join(end)}" for end in ends]
        began = time.perf_counter()
        groups = near_duplicate_groups(texts)
        assert time.perf_counter() - began < 10
        assert groups.max() + 1 == n_groups


def test_threshold_out_of_range():
    with pytest.raises(ValueError, match="threshold=0 "):
        near_duplicate_groups(["a"], threshold=0)
