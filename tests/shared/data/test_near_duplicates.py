"""Near-duplicate groups, compared with the groups that a comparison of all pairs gives."""

import math
import re
import time
import unicodedata
from fractions import Fraction
from functools import cache
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data import near_duplicates
from shared.data.near_duplicates import near_duplicate_groups

# Characters that are a word each: Thai, Lao, Burmese, Khmer; Chinese, Japanese, Korean; emoji.
ALONE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\uffff"
ALONE += r"\U0001f000-\U0001faff\U00020000-\U0003ffff"
WORD = re.compile(
    rf"[{ALONE}]|(?:(?![{ALONE}])[0-9a-z_\u00c0-\u1fff\u2080-\u2fff\U00010000-\U0010ffff])+"
)
SPACE = re.compile("[\0- \u00a0\u2000-\u200a\u3000-\u300a]")
THAI, KOREAN = re.compile(r"[\u0e00-\u303f]"), re.compile(r"[\uac00-\ud7a3]")


def normalize(text):
    composed = unicodedata.normalize("NFC", text)
    return "".join(c.lower() if c.isascii() else c for c in composed)


@cache
def words(text):
    return WORD.findall(normalize(text))


@cache
def terms(text):
    """Return the words between two spaces, joined, and how most of them are written."""
    result, scripts = [], []
    for part in SPACE.split(normalize(text)):
        after_letters = False
        for word in WORD.findall(part):
            alone = re.fullmatch(f"[{ALONE}]", word) and not KOREAN.match(word)
            if after_letters and not alone:
                result[-1] += (word,)
            else:
                result.append((word,))
                scripts.append(("thai" if THAI.match(word) else "chinese") if alone else "spaced")
            after_letters = not alone
    most = [s for s in ("chinese", "thai") if 2 * scripts.count(s) > len(scripts)]
    return result, most[0] if most else "spaced"


def longest_edit(n, script, threshold):
    share = (1 - Fraction(str(threshold))) / (1 + Fraction(str(threshold)))
    mean, long = {"spaced": (1, 1), "chinese": (Fraction("1.6"), 3), "thai": (4, 8)}[script]
    edit = min(math.floor(share * n), 3)
    return max(edit, min(long, n - 1)) if share * n >= mean else edit


def differ_in_one_place(first, second, threshold):
    (a, script), (b, script_b) = terms(first), terms(second)
    if script != script_b or max(len(a), len(b)) > 112:
        return False
    shorter = min(len(a), len(b))
    start = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    end = next((i for i in range(shorter - start) if a[-1 - i] != b[-1 - i]), shorter - start)
    return all(len(t) - start - end <= longest_edit(len(t), script, threshold) for t in (a, b))


def jaccard(first, second):
    a, b = ({tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (words(first), words(second)))
    return len(a & b) / len(a | b) if a and b else float(words(first) == words(second))


def brute_force(texts, threshold):
    """Return the connected components of near duplicates, from a comparison of all pairs."""
    groups = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        pair = texts[i], texts[j]
        if jaccard(*pair) >= threshold or differ_in_one_place(*pair, threshold):
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


PARTS = [
    "a",
    "B",
    "c-d",
    "e.f,g",
    " - ",
    "h\u00a0i",
    "東",
    "京都",
    "。",
    "ก",
    "ขค",
    "한국",
    "é",
    "😀",
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(PARTS), min_size=4, max_size=45),
    st.lists(st.tuples(st.integers(0, 44), st.integers(0, 9), st.sampled_from([*PARTS, ""]))),
    st.sampled_from([" ", ""]),
    st.sampled_from([0.8, 0.6, 0.3]),
)
def test_edits_in_any_script_follow_the_definition(parts, edits, space, threshold):
    texts = [space.join(parts)]
    for place, length, new in edits[:8]:
        texts.append(space.join([*parts[:place], new, *parts[place + length :]]))
    assert near_duplicate_groups(texts, threshold=threshold).tolist() == brute_force(
        texts, threshold
    )


# Families of texts of one vocabulary, so that some of them are the same but for a word or two.
FAMILIES = st.lists(
    st.lists(st.sampled_from(["the", "cat,", "sat", "ON", "a", "well-known", "Tom's", "U.S."])),
    min_size=2,
    max_size=4,
).flatmap(
    lambda bases: st.lists(
        st.tuples(st.sampled_from(bases), st.integers(0, 12), st.sampled_from(["x", "", "y z"])),
        max_size=14,
    )
)


def families(rows):
    return [
        " ".join(["begin", *base[:place], new, *base[place + 1 :], "one two three four five six"])
        for base, place, new in rows
    ]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(FAMILIES, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, random):
    texts = families(rows)
    groups = near_duplicate_groups(texts)
    order = list(range(len(texts)))
    random.shuffle(order)
    shuffled = near_duplicate_groups([texts[i] for i in order])
    pairs = {(int(groups[i]), int(group)) for i, group in zip(order, shuffled, strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@settings(max_examples=80, deadline=None, derandomize=True)
@given(FAMILIES)
def test_one_text_of_each_group_is_left_alone(rows):
    texts = families(rows)
    groups = near_duplicate_groups(texts)
    firsts = [texts[i] for i in np.unique(groups, return_index=True)[1]]
    assert near_duplicate_groups(firsts).tolist() == list(range(len(firsts)))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["Zwölf", "B2", "é", "東京", "ไทย", "한"]), min_size=1), st.data())
def test_case_signs_and_unicode_forms_do_not_matter(parts, data):
    signs = data.draw(st.lists(st.sampled_from([" ", ", ", "\n- ", "…", "/"]), min_size=len(parts)))
    upper = "".join(c.upper() if c.isascii() else c for c in " ".join(parts))
    other = "".join(p + s for p, s in zip(parts, signs, strict=False))
    texts = [" ".join(parts), upper, other, unicodedata.normalize("NFD", other), "else"]
    assert near_duplicate_groups(texts).tolist() == [0, 0, 0, 0, 1]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(["don't", "U.S.", "a", "the", "(AP)", "e-mail", "well,", "http://a.b/c"]),
        min_size=9,
        max_size=60,
    ),
    st.data(),
)
def test_a_text_with_one_edited_word_is_a_near_duplicate(parts, data):
    place = data.draw(st.integers(0, len(parts) - 1))
    new = data.draw(st.sampled_from(["other", "two-part", "https://d.e/f?g=h"]))
    texts = [parts, [*parts[:place], new, *parts[place + 1 :]]]
    texts += [[*parts[:place], new, *parts[place:]], [*parts[:place], *parts[place + 1 :]]]
    distinct = ["one", "more", *parts, "and", "also", "yet", "another", "end"]
    groups = near_duplicate_groups([" ".join(t) for t in (*texts, distinct[: len(parts)][::-1])])
    assert groups[:4].tolist() == [0, 0, 0, 0]


def test_in_texts_of_eight_words_another_word_makes_another_text():
    texts = ["how long does my card take to arrive", "how long does my transfer take to arrive"]
    assert near_duplicate_groups(texts).tolist() == [0, 1]
    assert near_duplicate_groups([f"{text} here" for text in texts]).tolist() == [0, 0]
    # One of nine words is left out to get each of the two.
    between = "how long does my card transfer take to arrive"
    assert near_duplicate_groups([*texts, between]).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("n", "length"), [(112, 3), (112, 8), (113, 8), (60, 4), (26, 3), (27, 3)])
def test_the_longest_place_that_may_differ(n, length):
    base = [f"w{i}" for i in range(n)]
    place = slice(n // 2, n // 2 + length)
    edited = [*base[: place.start], *(f"x{i}" for i in range(length)), *base[place.stop :]]
    texts = [" ".join(base), " ".join(edited)]
    assert near_duplicate_groups(texts).tolist() == brute_force(texts, 0.8)


@pytest.mark.parametrize(
    ("text", "word", "other"),
    [
        ("我昨天在北京的书店里买了一本关于中国历史的书", "北京", "上海滩"),
        ("这家饭店的服务员态度很好但是价格有点贵", "服务员", "厨师"),
        ("昨日は友達と一緒に渋谷で新しい映画を見てから帰りました", "映画", "芝居"),
        ("เมื่อวานนี้ฉันไปซื้อหนังสือเล่มใหม่ที่ร้านใกล้บ้านกับเพื่อน", "หนังสือ", "รองเท้า"),
        ("พรุ่งนี้รถไฟขบวนแรกจะออกจากสถานีกรุงเทพตอนหกโมงเช้า", "กรุงเทพ", "ลำปาง"),
        ("어제 친구와 함께 서울 시내에서 새로 나온 영화를 보고 저녁도 먹었다", "영화를", "연극을"),
    ],
)
def test_one_word_in_scripts_without_spaces(text, word, other):
    assert text.count(word) == 1
    variants = [text, text.replace(word, other), text.replace(word, ""), text[::-1], text[::2]]
    assert near_duplicate_groups(variants).tolist() == [0, 0, 0, 1, 2]


def test_many_keys_take_several_passes_and_give_the_same_groups(monkeypatch):
    texts = edited_copies(np.random.default_rng(2), 60, 40)
    expected = near_duplicate_groups(texts)
    assert len(set(expected.tolist())) < len(texts)
    monkeypatch.setattr(near_duplicates, "MAX_KEYS", 100)
    assert near_duplicate_groups(texts).tolist() == expected.tolist()


def test_a_template_with_another_word_in_each_text_is_one_group_whatever_its_copies():
    template = "the nightly build of {} failed again, please look at the log"
    texts = [template.format(f"part-{i % 50}") for i in range(5000)]
    assert near_duplicate_groups([*texts, "else"]).tolist() == [0] * 5000 + [1]


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
        began = time.process_time()
        groups = near_duplicate_groups(texts)
        assert time.process_time() - began < 10
        assert groups.max() + 1 == n_groups


def test_threshold_out_of_range():
    with pytest.raises(ValueError, match="threshold=0 "):
        near_duplicate_groups(["a"], threshold=0)
