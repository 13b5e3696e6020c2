import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.methods.log_odds import LEAST_SCORE, WordCounts, log_odds, telling_words

counts = arrays(np.int64, 5, elements=st.integers(0, 50))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(counts, counts)
def test_equations_of_monroe_colaresi_and_quinn(inside, outside):
    prior = (inside + outside + 1) / 7
    scores = log_odds(inside, outside, prior)
    for word in range(5):
        odds = [
            (y[word] + prior[word]) / (y.sum() + prior.sum() - y[word] - prior[word])
            for y in (inside, outside)
        ]
        variance = 1 / (inside[word] + prior[word]) + 1 / (outside[word] + prior[word])
        expected = (np.log(odds[0]) - np.log(odds[1])) / np.sqrt(variance)
        assert scores[word] == pytest.approx(expected)
    np.testing.assert_allclose(log_odds(outside, inside, prior), -scores)


def test_one_word_has_no_odds():
    assert log_odds(np.array([3]), np.array([4]), np.array([1.0])).tolist() == [0]


def test_words_count_once_per_text_and_rare_ones_not_at_all():
    texts = ["Crash crash the", "the crash", "the crash once", "the once"]
    words = WordCounts.of(texts)
    assert words.words == ["crash", "the"]
    assert words.present.toarray().tolist() == [[1, 1], [1, 1], [1, 1], [0, 1]]


@pytest.mark.parametrize("texts", [[], ["", "?"], ["one", "two"]])
def test_texts_without_frequent_words(texts):
    y = np.ones((len(texts), 2), bool)
    assert telling_words(WordCounts.of(texts), y, 5) == [[], []]


def test_the_words_of_a_label_come_first_and_have_a_higher_share_there():
    rng = np.random.default_rng(0)
    y = rng.random((300, 2)) < (0.5, 0.1)
    own = ["crash traceback", "docs typo"]
    filler = ["the", "of", "a", "model", "data", "run", "file", "when", "after"]
    texts = [" ".join([*rng.choice(filler, 5), *(own[j] for j in range(2) if row[j])]) for row in y]
    words = WordCounts.of(texts)
    for label, entries in enumerate(telling_words(words, y, 12)):
        assert {words.words[i] for i, *_ in entries[:2]} == {*own[label].split()}
        scores = [score for _, score, *_ in entries]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) >= LEAST_SCORE
        for word, _, inside, outside in entries:
            column = words.present[:, [word]].toarray()[:, 0]
            assert inside == column[y[:, label]].sum()
            assert outside == column[~y[:, label]].sum()
            assert inside / y[:, label].sum() > outside / (~y[:, label]).sum()


def test_a_label_of_all_texts_has_no_words():
    texts = ["a crash here", "a crash there", "a crash again"]
    assert telling_words(WordCounts.of(texts), np.ones((3, 1), bool), 5) == [[]]
