"""Latent semantic analysis, the few-label probe, and self-training."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression

from shared.methods.probe import fit_probe, latent_semantic_vectors, most_confident, self_train

# --- latent semantic analysis --------------------------------------------------------------------


PAIRS = [("cat", "dog"), ("red", "blue"), ("sun", "rain")]
TEXTS = [f"{a} {b} word{i}" for i, (a, b) in enumerate(PAIRS * 4)]


def test_words_that_occur_together_have_similar_vectors():
    (vectors,) = latent_semantic_vectors(TEXTS, ["cat", "dog", "red", "blue"], n_components=3)
    similarity = vectors @ vectors.T
    expected = np.kron(np.eye(2), np.ones((2, 2)))
    np.testing.assert_allclose(similarity, expected, atol=0.05)


def test_shapes_lengths_and_seed():
    vectors, no_vectors = latent_semantic_vectors(TEXTS, [*TEXTS, "unheard of"], [], n_components=3)
    assert vectors.shape == (13, 3)
    assert no_vectors.shape == (0, 3)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1] * 12 + [0], atol=1e-6)
    again, _ = latent_semantic_vectors(TEXTS, [*TEXTS, "unheard of"], [], n_components=3)
    np.testing.assert_array_equal(vectors, again)


@pytest.mark.parametrize(
    "fit",
    [
        *(["one text"], ["? !"] * 4, ["same words"] * 3, ["a b", "b c"]),
        ["alpha one", "alpha two", "three four", "five six"],  # one word comes twice
    ],
)
def test_a_collection_too_small_to_learn_from(fit):
    (vectors,) = latent_semantic_vectors(fit, ["one same b", "?"])
    assert len(vectors) == 2
    assert np.isfinite(vectors).all()


# --- probe ---------------------------------------------------------------------------------------


RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
Y = (X[:, :3] > 0.3).astype(np.uint8)
NONE = np.zeros((0, 4)), np.zeros(0, int)
SETTINGS = {"C": 2.0, "name_weight": 1.0}


def test_without_names_the_probe_is_one_balanced_logistic_regression_per_label():
    score = fit_probe(X, Y, *NONE, **SETTINGS, balance=1.0)
    for label in range(3):
        plain = LogisticRegression(C=2.0, class_weight="balanced", max_iter=1000).fit(
            X, Y[:, label]
        )
        expected = plain.predict_proba(X)[:, 1]
        assert score(X)[:, label].tolist() == pytest.approx(expected.tolist(), abs=1e-3)
    plain = LogisticRegression(C=2.0, max_iter=1000).fit(X, Y[:, 0])
    unbalanced = fit_probe(X, Y, *NONE, **SETTINGS, balance=0.0)
    assert unbalanced(X)[:, 0] == pytest.approx(plain.predict_proba(X)[:, 1], abs=1e-3)


def test_a_name_predicts_a_label_without_examples():
    y = Y.copy()
    y[:, 2] = 0
    assert not fit_probe(X, y, *NONE, **SETTINGS, balance=1.0)(X)[:, 2].any()
    names = np.eye(3, 4)
    scores = fit_probe(X, y, names, np.arange(3), **SETTINGS, balance=1.0)(X)[:, 2]
    assert np.corrcoef(scores, X[:, 2])[0, 1] > 0.8


def test_several_phrases_of_a_label_weigh_as_one():
    names = np.eye(3, 4)
    one = fit_probe(X, Y, names, np.arange(3), **SETTINGS, balance=1.0)
    twice = fit_probe(X, Y, names[[0, 0, 1, 2]], np.array([0, 0, 1, 2]), **SETTINGS, balance=1.0)
    assert twice(X) == pytest.approx(one(X), abs=1e-3)


def test_classes_that_exclude_each_other():
    y = np.eye(3, dtype=np.uint8)[X[:, :3].argmax(axis=1)]
    score = fit_probe(X, y, *NONE, **SETTINGS, balance=1.0, single_label=True)
    expected = LogisticRegression(C=2.0, max_iter=1000).fit(X, y.argmax(axis=1)).predict_proba(X)
    assert score(X) == pytest.approx(expected, abs=1e-3)
    assert score(X).sum(axis=1) == pytest.approx(np.ones(30))
    # A class without an example has no probability; with a name alone it has some.
    y[:, 2] = 0
    has_class = y.any(axis=1)
    settings = {**SETTINGS, "balance": 1.0, "single_label": True}
    assert not fit_probe(X[has_class], y[has_class], *NONE, **settings)(X)[:, 2].any()
    named = fit_probe(X[has_class], y[has_class], np.eye(3, 4), np.arange(3), **settings)
    assert (named(X)[:, 2] > 0).all()


def test_a_label_of_all_texts_and_no_texts_to_score():
    y = np.ones((30, 1), np.uint8)
    score = fit_probe(X, y, *NONE, **SETTINGS, balance=1.0)
    assert score(X).tolist() == [[1.0]] * 30
    assert score(X[:0]).shape == (0, 1)


def test_a_text_of_weight_two_counts_like_two_texts():
    weights = np.where(np.arange(30) < 10, 2.0, 1.0)
    once = fit_probe(X, Y, *NONE, **SETTINGS, balance=1.0, weights=weights)
    again = np.concatenate([X, X[:10]]), np.concatenate([Y, Y[:10]])
    assert once(X) == pytest.approx(fit_probe(*again, *NONE, **SETTINGS, balance=1.0)(X), abs=1e-3)
    y = np.eye(3, dtype=np.uint8)[X[:, :3].argmax(axis=1)]
    settings = {**SETTINGS, "balance": 0.0, "single_label": True}
    once = fit_probe(X, y, *NONE, **settings, weights=weights)
    again = np.concatenate([X, X[:10]]), np.concatenate([y, y[:10]])
    assert once(X) == pytest.approx(fit_probe(*again, *NONE, **settings)(X), abs=1e-3)


def test_the_most_confident_texts_of_each_label():
    scores = np.array([[0.9, 0.1], [0.6, 0.2], [0.8, 0.7], [0.1, 0.2], [0.2, 0.3]])
    assert most_confident(scores, 0.5).tolist() == [0, 2, 4]
    assert most_confident(scores, 0.3).tolist() == [0, 4]
    assert most_confident(scores, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert most_confident(scores[:0], 0.5).tolist() == []


@given(
    scores=arrays(
        np.float64, st.tuples(st.integers(0, 20), st.integers(1, 4)), elements=st.floats(0, 1)
    ),
    share=st.floats(0.01, 1),
)
def test_each_label_keeps_its_share_of_the_most_confident_rows(scores, share):
    kept = most_confident(scores, share)
    assert (np.diff(kept) > 0).all()
    best, confidence = scores.argmax(axis=1), scores.max(axis=1, initial=0)
    for label in np.unique(best):
        rows = np.flatnonzero(best == label)
        inside = np.isin(rows, kept)
        assert inside.sum() == math.ceil(share * len(rows))
        assert confidence[rows[inside]].min() >= confidence[rows[~inside]].max(initial=0)


def rounds_of(qualities, unlabelled=X):
    """Self-train a probe fitted on six texts; `quality` returns the given values in order."""
    fits, remaining = [], iter(qualities)

    def fit(vectors, labels, weights):
        fits.append((len(labels), weights))
        return fit_probe(vectors, labels, *NONE, **SETTINGS, balance=1.0, weights=weights)

    first = fit_probe(X[:6], Y[:6], *NONE, **SETTINGS, balance=1.0)
    probe, rounds = self_train(
        *(first, fit, X[:6], Y[:6], unlabelled),
        choose=lambda scores: scores >= 0.5,
        quality=lambda score: next(remaining),
    )
    return first, fits, probe, rounds


def test_self_training_goes_on_while_quality_does_not_fall():
    first, fits, score, rounds = rounds_of([0.5, 0.6, 0.6, 0.7, 0.8])
    assert rounds == len(fits) == 4
    for n, weights in fits:
        assert 6 + 21 <= n < 6 + 30
        assert weights.tolist() == [1.0] * 6 + [0.3] * (n - 6)
    assert score is not first

    first, fits, score, rounds = rounds_of([0.5, 0.4])
    assert (score, rounds, len(fits)) == (first, 0, 1)
    first, fits, score, rounds = rounds_of([0.5, 0.6, 0.4])
    assert (rounds, len(fits)) == (1, 2)
    first, fits, score, rounds = rounds_of([0.5], unlabelled=X[:0])
    assert (score, rounds, fits) == (first, 0, [])
