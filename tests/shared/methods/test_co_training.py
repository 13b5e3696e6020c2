"""Co-training of two views."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from shared.evaluation.rules import DecisionRule
from shared.methods.co_training import View, align, co_train, equalize
from shared.methods.linear import LinearClassifier
from shared.methods.probe import fit_probe

N_CLASSES = 3


def view_of(features, n_labelled, *, single_label=True, record=None, sparse=False):
    """The view of texts whose first rows are labelled; `record` gets what is fitted."""
    features = csr_matrix(features) if sparse else features
    fit = partial(
        fit_probe,
        name_vectors=features[:0],
        name_labels=np.zeros(0, int),
        C=5.0,
        balance=1.0,
        name_weight=1.0,
        single_label=single_label,
    )

    def recorded(x, y, weights=None):
        if record is not None:
            record.append((y, weights))
        return fit(x, y, weights=weights)

    return View(features[:n_labelled], features[n_labelled:], recorded)


def two_views(n_texts, noise=(1.0, 1.0), seed=0):
    """Classes, and two noisy, independent pictures of them: (texts, 6) each."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n_texts) % N_CLASSES
    centres = rng.normal(size=(2, N_CLASSES, 6))
    return classes, [
        centre[classes] + scale * rng.normal(size=(n_texts, 6))
        for centre, scale in zip(centres, noise, strict=True)
    ]


def rule_of(*, single_label=True):
    return DecisionRule.of(0.5, N_CLASSES, single_label=single_label, at_least_one=True)


def test_two_views_together_know_more_than_the_labelled_texts_tell():
    correct = []
    for seed in range(5):
        classes, (first, second) = two_views(600, seed=seed)
        labels = np.eye(N_CLASSES, dtype=np.uint8)[classes[:9]]
        views = view_of(first, 9), view_of(second, 9, sparse=True)
        rounds = co_train(*views, labels, rule_of().choose, shares=labels.mean(axis=0))
        start = views[0].fit(first[:9], labels)(first[9:])
        *_, (one, two) = islice(rounds, 3)
        assert isinstance(two(csr_matrix(second)), np.ndarray)
        both = one(first[9:]) + two(second[9:])
        correct.append([(s.argmax(1) == classes[9:]).mean() for s in (start, both)])
    start, both = np.mean(correct, axis=0)
    assert both > start + 0.1


@pytest.mark.parametrize("single_label", [True, False])
def test_what_each_view_is_taught(single_label):
    classes, (first, second) = two_views(110)
    labels = np.eye(N_CLASSES, dtype=np.uint8)[classes[:10]]
    taught = [], []
    views = [
        view_of(x, 10, single_label=single_label, record=record)
        for x, record in zip((first, second), taught, strict=True)
    ]
    choose = rule_of(single_label=single_label).choose
    rounds = list(islice(co_train(*views, labels, choose), 2))
    assert len(rounds) == 2
    # The first view is fitted to the labelled texts alone at the start.
    assert len(taught[0][0][0]) == 10
    assert [len(record) for record in taught] == [3, 2]
    for y, weights in [*taught[0][1:], *taught[1]]:
        np.testing.assert_array_equal(y[:10], labels)
        assert 10 + 70 <= len(y) <= 10 + 73  # 70 % of each best label, rounded up
        assert weights.mean() == pytest.approx(1)
        # A tenth of all weights is for the labelled texts, or more if they are more.
        assert weights[:10].sum() / weights.sum() == pytest.approx(max(0.1, 10 / len(y)))
        assert (y.sum(axis=1) == 1).all() if single_label else (y.sum(axis=1) >= 1).all()


@given(seed=st.integers(0, 999), n_texts=st.integers(1, 20), n=st.integers(2, 5))
def test_alignment_brings_the_mean_nearer_to_the_shares(seed, n_texts, n):
    rng = np.random.default_rng(seed)
    scores, shares = rng.dirichlet([0.5] * n, n_texts) + 1e-6, rng.dirichlet([1.0] * n)
    scores /= scores.sum(axis=1, keepdims=True)
    aligned = align(scores, shares)
    np.testing.assert_allclose(aligned.sum(axis=1), 1)
    np.testing.assert_allclose(align(scores, scores.mean(axis=0)), scores)
    # A class that is predicted too seldom gains in every text against one predicted too often.
    ratio = shares / scores.mean(axis=0)
    low, high = ratio.argmin(), ratio.argmax()
    before, after = (s[:, high] / s[:, low] for s in (scores, aligned))
    assert (after >= before * (1 - 1e-9)).all()


@given(seed=st.integers(0, 99), factor=st.floats(0.01, 100), single_label=st.booleans())
def test_both_views_have_an_equal_say(seed, factor, single_label):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 4))
    views = tuple(View(x[:3], x[3:], None) for _ in range(2))
    bias = np.append(rng.normal(size=2), -np.inf)  # one label has no example
    pair = [
        LinearClassifier(rng.normal(size=(3, 4)) * scale, bias * scale, single_label)
        for scale in (1.0, factor)
    ]
    scaled = equalize(views, pair)
    for before, after in zip(pair, scaled, strict=True):
        logits = [each.logits(x)[:, :2] for each in (before, after)]
        np.testing.assert_array_equal(*[each.argmax(axis=1) for each in logits])
        np.testing.assert_array_equal(*[each > 0 for each in logits])
        assert (after(x)[:, 2] == 0).all()
    logits = [each.logits(x[3:])[:, :2] for each in scaled]
    if single_label:
        logits = [each - each.mean(axis=1, keepdims=True) for each in logits]
    assert logits[0].std() == pytest.approx(logits[1].std())


def test_a_view_that_tells_nothing_leaves_the_other_as_it_is():
    classes, (first, _) = two_views(40)
    labels = np.eye(N_CLASSES, dtype=np.uint8)[classes[:10]]
    views = view_of(first, 10), view_of(np.zeros((40, 2)), 10)
    ((one, two),) = islice(co_train(*views, labels, rule_of().choose), 1)
    assert np.isfinite(one(first)).all()
    assert np.ptp(two(np.zeros((5, 2))), axis=0).max() == 0
