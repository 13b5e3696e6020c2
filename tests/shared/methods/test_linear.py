"""Linear classifiers as arrays: the probabilities of scikit-learn's classifiers."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from shared.data.words import VERSION
from shared.methods.baselines import (
    fit_words,
    logistic_probe,
    naive_bayes,
    tfidf_logistic_regression,
)
from shared.methods.linear import (
    LinearClassifier,
    MixedFeatures,
    WordFeatures,
    fit_tfidf,
    stack,
)
from shared.methods.probe import fit_probe
from shared.methods.strategies import fit_strategy

TEXTS = ["red apple pie", "blue car road", "red car", "apple tree", "blue sky road", "green pie"]
LABELS = np.array(
    [[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]
)
NEW = ["a red road", "unheard of", "green apple car pie"]


@pytest.mark.parametrize("pipeline", [naive_bayes, tfidf_logistic_regression])
def test_words_score_as_the_pipeline_does(pipeline):
    classifier = fit_words(pipeline(), TEXTS, LABELS)
    expected = pipeline().fit(TEXTS, LABELS[:, :2]).predict_proba(NEW).toarray()
    scores = classifier(NEW)
    np.testing.assert_allclose(scores[:, :2], expected, atol=1e-12)
    assert (scores[:, 2] == 1).all()  # every text has it
    assert (scores[:, 3] == 0).all()  # no text has it
    assert classifier([]).shape == (0, 4)


def test_vectors_score_as_logistic_regression_does():
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    classifier = fit_strategy(logistic_probe(), vectors, LABELS)
    for label in (0, 1):
        model = LogisticRegression(class_weight="balanced", max_iter=500)
        expected = model.fit(vectors, LABELS[:, label]).predict_proba(vectors)[:, 1]
        np.testing.assert_allclose(classifier(vectors)[:, label], expected, atol=1e-6)


@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_classes_that_exclude_each_other(n_classes):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 3))
    classes = np.arange(12) % n_classes + 1  # class 0 has no example
    y = np.eye(5, dtype=int)[classes]
    none = np.zeros((0, 3)), np.zeros(0, int)
    probe = fit_probe(x, y, *none, C=2.0, balance=0.0, name_weight=0.0, single_label=True)
    scores = probe(x)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores[:, [0, 4]] == 0).all()
    if n_classes > 1:
        expected = LogisticRegression(C=2.0, max_iter=1000).fit(x, classes).predict_proba(x)
        np.testing.assert_allclose(scores[:, 1 : n_classes + 1], expected, atol=1e-6)


def test_texts_without_a_word_leave_the_bias():
    classifier = fit_words(naive_bayes(), ["? !", "."], np.array([[1, 0], [1, 1]]))
    np.testing.assert_array_equal(classifier(["any text"]), [[1, 0]])


def test_features_are_those_of_the_fitted_vectorizer():
    pipeline = tfidf_logistic_regression().fit(TEXTS, LABELS[:, :2])
    features = WordFeatures.of(pipeline[0])
    again = WordFeatures(features.words, features.options, features.idf)
    options = {"ngram_range": [1, 2], "sublinear_tf": True, "words_version": VERSION}
    assert features.options == options
    np.testing.assert_array_equal(again(NEW).toarray(), pipeline[0].transform(NEW).toarray())


def test_features_without_a_version_are_those_of_older_taggers():
    words = ["体育新闻", "红色"]
    counts = WordFeatures(words, {"ngram_range": [1, 1]}, None)(["体育新闻 红色", "体育"])
    np.testing.assert_array_equal(counts.toarray(), [[1, 1], [0, 0]])


@pytest.mark.parametrize("pipeline", [naive_bayes, tfidf_logistic_regression])
@pytest.mark.parametrize("words", [("体育", "财经"), ("กีฬา", "ข่าว")])
def test_texts_of_any_script_are_told_apart_by_parts_of_their_sentences(pipeline, words):
    texts = [f"{word[0]}{filler}{word}{filler}" for word in words for filler in ("", " a", "。")]
    labels = np.repeat(np.eye(2, dtype=int), 3, axis=0)
    scores = fit_words(pipeline(), texts, labels)([f"{words[1]}{words[1]}x", f"x{words[0]}"])
    assert scores.argmax(axis=1).tolist() == [1, 0]


def test_an_infinite_bias_is_certain():
    classifier = LinearClassifier.of_labels(
        {1: (np.array([1.0]), 0.0)}, np.array([True, False, False]), 1
    )
    np.testing.assert_allclose(classifier(np.array([[0.0]])), [[1, 0.5, 0]])


@pytest.mark.parametrize("n_words", [0, 5])
def test_mixed_features_are_dense_and_sparse_ones_side_by_side(n_words):
    rng = np.random.default_rng(2)
    dense, sparse = rng.normal(size=(6, 3)), rng.normal(size=(6, n_words)).round()
    both, mixed = np.hstack([dense, sparse]), MixedFeatures(dense, csr_matrix(sparse))
    assert mixed.shape == both.shape
    assert len(mixed) == 6
    right, left = rng.normal(size=(3 + n_words, 2)), rng.normal(size=(6, 2))
    np.testing.assert_allclose(mixed @ right, both @ right)
    np.testing.assert_allclose(mixed.transposed_matmul(left), both.T @ left)
    np.testing.assert_allclose(mixed.inner_products(), both @ both.T)
    rows = np.array([4, 0])
    twice = stack([mixed, mixed[rows], mixed[both[:, 0] > 0]])
    expected = stack([both, both[rows], both[both[:, 0] > 0]])
    np.testing.assert_allclose(twice @ np.eye(3 + n_words), expected)


@pytest.mark.parametrize("single_label", [True, False])
def test_sparse_features_are_fitted_as_dense_ones(single_label):
    features, tfidf = fit_tfidf(TEXTS * 2, pairs=True)
    np.testing.assert_allclose(tfidf.toarray(), features(TEXTS * 2).toarray())
    assert {"red", "blue", "red apple"} <= set(features.words)
    labels = LABELS.repeat(2, axis=0)
    if single_label:
        labels = np.eye(4, dtype=int)[labels.argmax(axis=1)]
    weights = np.linspace(0.5, 2, len(labels))
    dense, sparse = (
        fit_probe(
            *(x, labels, x[:2], np.array([0, 1])),
            **{"C": 2.0, "balance": 1.0, "name_weight": 0.5, "single_label": single_label},
            weights=weights,
        )
        for x in (tfidf.toarray(), tfidf)
    )
    np.testing.assert_allclose(sparse(tfidf), dense(tfidf), atol=1e-3)
    np.testing.assert_allclose(
        sparse.scaled(3.0).logits(tfidf[:2]), 3 * sparse.logits(tfidf[:2]), rtol=1e-5
    )


def test_texts_without_a_common_word_have_no_features():
    features, tfidf = fit_tfidf(["one", "two", "three"])
    assert features.words == []
    assert tfidf.shape == features(["one"] * 3).shape == (3, 0)
