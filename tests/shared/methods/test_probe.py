"""Latent semantic analysis, the few-label probe, and self-training."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from shared.methods.linear import MixedFeatures
from shared.methods.probe import LatentSemanticAnalysis, fit_probe

# --- latent semantic analysis --------------------------------------------------------------------


PAIRS = [("cat", "dog"), ("red", "blue"), ("sun", "rain")]
TEXTS = [f"{a} {b} word{i}" for i, (a, b) in enumerate(PAIRS * 4)]


def test_words_that_occur_together_have_similar_vectors():
    vectors = LatentSemanticAnalysis.fit(TEXTS, n_components=3)(["cat", "dog", "red", "blue"])
    similarity = vectors @ vectors.T
    expected = np.kron(np.eye(2), np.ones((2, 2)))
    np.testing.assert_allclose(similarity, expected, atol=0.05)


def test_shapes_lengths_and_seed():
    analysis = LatentSemanticAnalysis.fit(TEXTS, n_components=3)
    vectors, no_vectors = analysis([*TEXTS, "unheard of"]), analysis([])
    assert vectors.shape == (13, 3)
    assert no_vectors.shape == (0, 3)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1] * 12 + [0], atol=1e-6)
    again = LatentSemanticAnalysis.fit(TEXTS, n_components=3)
    np.testing.assert_array_equal(vectors, again([*TEXTS, "unheard of"]))


@pytest.mark.parametrize(
    "fit",
    [
        *(["one text"], ["? !"] * 4, ["same words"] * 3, ["a b", "b c"]),
        ["alpha one", "alpha two", "three four", "five six"],  # one word comes twice
    ],
)
def test_a_collection_too_small_to_learn_from(fit):
    vectors = LatentSemanticAnalysis.fit(fit)(["one same b", "?"])
    assert len(vectors) == 2
    assert np.isfinite(vectors).all()


def test_titles_and_pairs_of_words():
    texts = [f"{text}\nmore text" for text in TEXTS]
    options = {"n_components": 3, "seed": 0}
    plain = LatentSemanticAnalysis.fit(texts, pairs=True, **options)
    assert "cat dog" in plain.features.words
    titled = LatentSemanticAnalysis.fit(texts, pairs=True, title_weight=0.5, **options)
    vectors = titled(texts)
    np.testing.assert_array_equal(vectors[:, :3], plain(texts))
    np.testing.assert_allclose(vectors[:, 3:], plain(TEXTS) / 2, atol=1e-6)
    assert titled([]).shape == (0, 6)


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


@pytest.mark.parametrize("single_label", [False, True])
def test_words_beside_dense_features_count_as_further_features(single_label):
    rng = np.random.default_rng(3)
    words = rng.poisson(0.3, size=(30, 50)).astype(float)
    names, name_words = rng.normal(size=(3, 4)), rng.poisson(0.3, size=(3, 50)).astype(float)
    y = np.eye(3, dtype=np.uint8)[Y.argmax(axis=1)] if single_label else Y
    options = {**SETTINGS, "balance": 1.0, "single_label": single_label}
    dense = fit_probe(
        np.hstack([X, words]), y, np.hstack([names, name_words]), np.arange(3), **options
    )
    mixed = MixedFeatures(X, csr_matrix(words))
    probe = fit_probe(
        mixed, y, MixedFeatures(names, csr_matrix(name_words)), np.arange(3), **options
    )
    np.testing.assert_allclose(probe(mixed), dense(np.hstack([X, words])), atol=2e-3)
    # Repeated rows make the inner products singular.
    twice = MixedFeatures(np.concatenate([X, X]), csr_matrix(np.concatenate([words, words])))
    none = MixedFeatures(X[:0], csr_matrix(words[:0]))
    probe = fit_probe(twice, np.concatenate([y, y]), none, np.zeros(0, int), **options)
    assert np.isfinite(probe(mixed)).all()
