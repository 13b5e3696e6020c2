import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from shared.evaluation.agreement import decision_kappa
from shared.evaluation.annotators import (
    AnnotatorPairs,
    annotator_labels,
    label_agreement,
    label_confusions,
)


@st.composite
def some_answers(draw, single_label=None):
    """Answers of up to five annotators to up to eight texts, with up to four labels."""
    n_texts, n_annotators, n_labels = (draw(st.integers(2, n)) for n in (8, 5, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    texts, annotators = np.nonzero(rng.random((n_texts, n_annotators)) < 0.8)
    texts, annotators = np.append(texts, [n_texts] * 2), np.append(annotators, [0, 1])
    if single_label is None:
        single_label = draw(st.booleans())
    if single_label:
        labels = np.eye(n_labels, dtype=bool)[rng.integers(n_labels, size=len(texts))]
    else:
        labels = rng.random((len(texts), n_labels)) < 0.4
    return texts, annotators, labels, single_label


def common(texts, annotators, labels, one, other):
    """Return the labels that two annotators gave to the texts that both answered."""
    rows = [
        dict(zip(texts[annotators == j], labels[annotators == j], strict=True))
        for j in (one, other)
    ]
    shared = sorted(rows[0].keys() & rows[1].keys())
    return tuple(np.array([row[text] for text in shared]) for row in rows)


@settings(max_examples=50)
@given(some_answers())
def test_each_pair_is_compared_on_the_texts_of_both(answers):
    texts, annotators, labels, single_label = answers
    pairs = AnnotatorPairs(texts, annotators, labels, single_label=single_label)
    kappa, label_kappa = pairs.kappa(), pairs.label_kappa()
    assert len(pairs.first)
    for i, (one, other) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        first, second = common(texts, annotators, labels, one, other)
        assert pairs.shared[i] == len(first)
        assert pairs.equal[i] == (first == second).all(axis=1).sum()
        assert pairs.differences[i].tolist() == (first != second).sum(axis=0).tolist()
        if np.isnan(kappa[i]):
            assert pairs.equal[i] == len(first)
        else:
            expected = decision_kappa(first, second, single_label=single_label)
            assert kappa[i] == pytest.approx(expected)
        for label in range(labels.shape[1]):
            a, b = first[:, label], second[:, label]
            if len(np.unique([a, b])) == 1:
                assert np.isnan(label_kappa[i, label])
            else:
                assert label_kappa[i, label] == pytest.approx(cohen_kappa_score(a, b))


def test_all_pairs_with_a_common_text_are_there_and_no_other():
    texts, annotators = np.array([0, 0, 1, 1, 2]), np.array([0, 2, 1, 2, 3])
    pairs = AnnotatorPairs(texts, annotators, np.ones((5, 1), bool), single_label=False)
    assert sorted(zip(pairs.first, pairs.second, strict=True)) == [(0, 2), (1, 2)]
    assert pairs.mean(pairs.kappa()) is None


def test_figures_of_labels():
    # Three annotators; the third differs on one text, and nobody gives the second label.
    texts, annotators = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    labels = np.zeros((12, 2), bool)
    labels[[0, 1, 2, 3, 4], 0] = True
    pairs = AnnotatorPairs(texts, annotators, labels, single_label=False)
    first, second = label_agreement(texts, labels, pairs, ["bug", "docs"])
    assert (first["label"], first["texts"], first["given"]) == ("bug", 2, 5)
    # Of 10 ordered pairs of which the first has it, 8 have it twice.
    assert first["positive_agreement"] == pytest.approx(0.8)
    # Two ordered pairs of 3 differ on a text, of 11 x 12 / 2 by chance 35.
    assert first["alpha"] == pytest.approx(1 - (4 / 2) / (5 * 7 * 2 / 11))
    assert first["alpha_low"] < first["alpha"] <= first["alpha_high"]
    # Observed .75, by chance .5; and 1.
    assert first["cohen_kappa"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    undefined = {name for name, value in second.items() if value is None}
    assert undefined == {*first} - {"label", "texts", "given"}


@settings(max_examples=50)
@given(some_answers())
def test_confusions_are_counted_by_pairs_of_answers(answers):
    texts, _, labels, _ = answers
    expected = np.zeros((labels.shape[1],) * 2, int)
    for i in range(len(texts)):
        for j in np.flatnonzero(texts == texts[i]):
            only_first, only_second = labels[i] & ~labels[j], labels[j] & ~labels[i]
            expected += np.outer(only_first, only_second)
    assert label_confusions(texts, labels).tolist() == expected.tolist()


def test_labels_that_an_annotator_gives_too_often():
    texts, annotators = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], bool)
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    given_, expected, hits = annotator_labels(texts, annotators, labels, scores)
    assert given_.tolist() == [[2, 0], [1, 1]]
    assert expected == pytest.approx(np.array([[1.1, 0.9]] * 2))
    assert hits == pytest.approx(np.array([[1.1, 0], [0.9, 0.8]]))
