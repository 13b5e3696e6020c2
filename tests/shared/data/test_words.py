"""Words of any script: those of scikit-learn where words have spaces, characters elsewhere."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from shared.data import words
from shared.data.words import (
    WordAnalyzer,
    analyzer_of_version,
    count_words,
    has_unspaced,
    token_spans,
)

# Letters, signs and emoji of texts in scripts with spaces; none of them is a mark.
SPACED = st.text(alphabet="abcXYZ_019 \n.,'-éÄßñøŁžΣλдЙ\u2019\u20ac\u2713m²½👍", max_size=60)
ANY = st.text(
    alphabet="ab1 ._é\u0301हिन्दीกน้ำไม่ລາວខ្មែរမြန်မာ体育コーヒー𠮷서울👍🏽\u200d\ufe0f\u200c",
    max_size=40,
)

PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # one word, with a joiner


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SPACED, st.sampled_from([(1, 1), (1, 2), (2, 3)]))
def test_where_words_have_spaces_they_are_those_of_scikit_learn(text, ngram_range):
    expected = CountVectorizer(ngram_range=ngram_range).build_analyzer()(text)
    assert sorted(WordAnalyzer(ngram_range)(text)) == sorted(expected)
    assert token_spans(text) == [m.span() for m in words._PLAIN_TOKEN.finditer(text)]
    assert count_words(text) == len(text.split())
    assert not has_unspaced(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SPACED)
def test_the_fast_and_the_general_way_find_the_same_words(text):
    text = unicodedata.normalize("NFC", text.lower())
    general = [match[0] for match in words._compiled(words._WORD_OR_RUN).finditer(text)]
    assert general == words._PLAIN_WORD.findall(text)
    assert [match.span() for match in words._compiled(words._TOKEN).finditer(text)] == token_spans(
        text
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ANY)
def test_composed_and_decomposed_texts_have_the_same_terms(text):
    analyze = WordAnalyzer((1, 2))
    first = analyze(unicodedata.normalize("NFC", text))
    assert sorted(analyze(unicodedata.normalize("NFD", text))) == sorted(first)
    # No term begins with a mark: none is cut between a letter and the signs on it.
    assert not [term for term in first if unicodedata.category(term[0]) in ("Mn", "Me")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("体育新闻", ["体", "育", "新", "闻", "体育", "育新", "新闻"]),
        ("iPhone发布 2D", ["iphone", "2d", "iphone 2d", "发", "布", "发布"]),
        ("コーヒー", ["コ", "ー", "ヒ", "ー", "コー", "ーヒ", "ヒー"]),
        ("น้ำไม่", ["น้ำไ", "ไม่", "น้ำไม่"]),
        ("ก ข", ["ก", "ข"]),
        ("हिन्दी में", ["हिन्दी", "में", "हिन्दी में"]),
        ("한국 서울", ["한국", "서울", "한국 서울"]),
        (PERSIAN, [PERSIAN]),
        ("𠮷野家", ["𠮷", "野", "家", "𠮷野", "野家"]),
        ("", []),
    ],
)
def test_terms_of_a_text(text, expected):
    assert sorted(WordAnalyzer((1, 2))(text)) == sorted(expected)


def test_counts_and_spans_take_a_character_of_an_unspaced_script_as_a_word():
    assert count_words("体育 news น้ำ") == 4
    assert token_spans("体a育") == [(0, 1), (1, 2), (2, 3)]
    assert token_spans("น้ำ.") == [(0, 3), (3, 4)]
    assert has_unspaced("a ก")


def test_an_older_version_takes_any_run_of_letters():
    assert analyzer_of_version(1, (1, 1))("体育新闻 ok") == ["体育新闻", "ok"]
    assert analyzer_of_version(words.VERSION, (1, 2)) == WordAnalyzer((1, 2))
    with pytest.raises(ValueError, match="version 99"):
        analyzer_of_version(99, (1, 1))
