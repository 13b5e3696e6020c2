import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.shared_lines import find_shared_lines

LINES = ["## What happened", "version: 3.2", "Version:  41", "x", "it broke", "", "体育新闻", "5 6"]


def plain(line):
    line = re.sub(r"\d+", "0", " ".join(line.split()).casefold())
    words = len(re.sub(r"([\u4e00-\u9fff])", r" \1 ", line).split())
    return line if words > 1 and any(map(str.isalpha, line)) else None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.sampled_from(LINES), max_size=6), max_size=30))
def test_a_line_is_shared_if_five_texts_have_it(texts):
    shared = find_shared_lines(["\n".join(lines) for lines in texts])
    counts = Counter(key for lines in texts for key in {plain(line) for line in lines} - {None})
    expected = {line: n for line, n in counts.items() if n >= max(5, math.ceil(len(texts) / 100))}
    assert {plain(line): n for line, n, _ in shared.lines} == expected
    assert [n for _, n, _ in shared.lines] == sorted(expected.values(), reverse=True)
    for line, n, positions in shared.lines:
        rows = [i for i, lines in enumerate(texts) if plain(line) in map(plain, lines)]
        assert positions == rows[:10]
        assert len(rows) == n
    for lines, share in zip(texts, shared.share, strict=True):
        kept = [line for line in lines if line]
        assert (share == 0) == (not any(plain(line) in expected for line in kept))
        if kept and all(plain(line) in expected for line in kept):
            assert share == 1
    assert len(shared.share) == len(texts)


def test_the_share_counts_words():
    texts = ["two words\nand three more words of the text", *["two words"] * 4]
    shared = find_shared_lines(texts)
    assert shared.lines == [("two words", 5, [0, 1, 2, 3, 4])]
    assert shared.share[0] == pytest.approx(2 / 9)
    np.testing.assert_array_equal(shared.share[1:], 1)


def test_of_many_texts_a_line_needs_one_in_a_hundred():
    texts = [f"line of {chr(97 + i // 40)} words\nnumber {chr(100 + i)}" for i in range(800)]
    assert {n for _, n, _ in find_shared_lines(texts).lines} == {40}
    texts = [f"line of {i // 7} words" if i < 7 else f"other {chr(97 + i)}" for i in range(800)]
    assert find_shared_lines(texts).lines == []
