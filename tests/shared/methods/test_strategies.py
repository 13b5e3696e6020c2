"""Strategies for several labels: the probabilities of scikit-multilearn, from plain arrays."""

import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC
from skmultilearn.problem_transform import BinaryRelevance, ClassifierChain, LabelPowerset

from shared.evaluation.decisions import sigmoid
from shared.methods.strategies import feature_weights, fit_strategy

SPARSE = [False, True]
BASES = {
    "naive_bayes": MultinomialNB(),
    "logistic_regression": LogisticRegression(),
    "linear_svm": LinearSVC(),
    "boosted_trees": GradientBoostingClassifier(n_estimators=5, random_state=0),
}
STRATEGIES = (BinaryRelevance, LabelPowerset, ClassifierChain)


@pytest.fixture(scope="module")
def data():
    """Counts of twelve words in sixty texts, and three labels; the third depends on the others."""
    rng = np.random.default_rng(0)
    x = rng.poisson(0.6, (60, 12)).astype(float)
    y = (x[:, :2] + rng.random((60, 2)) > 1.2).astype(int)
    return csr_matrix(x), np.column_stack([y, y[:, 0] & y[:, 1]])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("base", [name for name in BASES if name != "linear_svm"])
def test_probabilities_are_those_of_the_library(strategy, base, data):
    x, y = data
    # A chain begins with the most frequent label; these labels have that order already.
    y = y[:, np.argsort(-y.sum(axis=0))]
    scores = fit_strategy(strategy(BASES[base], SPARSE), x, y)(x)
    expected = strategy(BASES[base], SPARSE).fit(x, y).predict_proba(x).toarray()
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_scores_of_a_support_vector_machine_are_sigmoids_of_its_margins(data):
    x, y = data
    scores = fit_strategy(BinaryRelevance(LinearSVC(), SPARSE), x, y)(x)
    for label in range(3):
        margins = LinearSVC().fit(x, y[:, label]).decision_function(x)
        np.testing.assert_allclose(scores[:, label], sigmoid(margins), atol=1e-9)
    powerset = LabelPowerset(LinearSVC(), SPARSE)
    scores = fit_strategy(powerset, x, y)(x)
    np.testing.assert_array_equal(scores > 0.5, powerset.predict(x).toarray())


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("base", BASES)
def test_constant_labels_and_texts_of_one_set_of_labels(strategy, base, data):
    x, y = data
    y = np.column_stack([np.ones(60), y[:, 0], np.zeros(60)]).astype(int)
    scores = fit_strategy(strategy(BASES[base], SPARSE), x, y)(x)
    np.testing.assert_allclose(scores[:, 0], 1)
    assert (scores[:, 2] == 0).all()
    assert len(np.unique(scores[:, 1])) > 2
    y[:, 1] = 1
    scores = fit_strategy(strategy(BASES[base], SPARSE), x, y)(x)
    assert (scores == [1, 1, 0]).all()


def test_a_chain_passes_its_decisions_on():
    x = csr_matrix(np.eye(2)[[0, 1] * 20])
    y = np.eye(2, dtype=int)[[0, 1] * 20]
    y = np.column_stack([y[:, 0], y[:, 0]])  # equal labels: the second needs the first only
    chain = fit_strategy(ClassifierChain(LogisticRegression(C=1e4), SPARSE), x, y)
    changed = dataclasses.replace(chain.classifier, bias=chain.classifier.bias.copy())
    changed.bias[0] = -1e3  # the first label is never decided for
    without = dataclasses.replace(chain, classifier=changed)
    assert (without(x)[:, 0] < 0.5).all()
    assert (without(x[:1])[:, 1] < chain(x[:1])[:, 1] - 0.01).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_word_of_a_label_has_the_largest_weight(strategy, data):
    x, y = data
    for base in BASES:
        weights = feature_weights(fit_strategy(strategy(BASES[base], SPARSE), x, y), 12)
        assert weights.shape == (3, 12)
        assert weights[:2].argmax(axis=1).tolist() == [0, 1]
        assert (weights < 0).any()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("base", BASES)
def test_words_have_no_weight_for_constant_labels(strategy, base, data):
    x, y = data
    labels = np.column_stack([np.ones(60), y[:, 0], np.zeros(60)]).astype(int)
    weights = feature_weights(fit_strategy(strategy(BASES[base], SPARSE), x, labels), 12)
    assert weights.any(axis=1).tolist() == [False, True, False]
    labels[:, 1] = 1
    weights = feature_weights(fit_strategy(strategy(BASES[base], SPARSE), x, labels), 12)
    assert not weights.any()


def test_a_selected_column_of_trees_holds_its_own_nodes_only(data):
    x, y = data
    trees = fit_strategy(BinaryRelevance(BASES["boosted_trees"], SPARSE), x, y)
    columns = [trees.select(label) for label in range(3)]
    assert sum(len(column.feature) for column in columns) == len(trees.feature)
    logits = np.hstack([column.logits(x) for column in columns])
    np.testing.assert_allclose(logits, trees.logits(x), rtol=1e-12)
