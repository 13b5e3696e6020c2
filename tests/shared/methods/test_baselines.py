"""Classic classifiers: against scikit-learn, and with labels or texts that teach nothing."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from shared.methods.baselines import fit_and_score, naive_bayes, tfidf_logistic_regression

TRAIN = ["crash error", "error again", "docs typo", "typo in docs", "slow docs", "slow error"]
TEST = ["error error", "docs", "slow slow typo", "nothing known", ""]
LABELS = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1]])
BASELINES = pytest.mark.parametrize("baseline", [naive_bayes, tfidf_logistic_regression])


def test_naive_bayes_is_one_multinomial_classifier_per_label():
    vectorizer = CountVectorizer().fit(TRAIN)
    counts = vectorizer.transform(TEST)
    expected = [
        MultinomialNB().fit(vectorizer.transform(TRAIN), y).predict_proba(counts)[:, 1]
        for y in LABELS.T
    ]
    for labels in (LABELS, LABELS.astype(bool), LABELS.astype(np.float32)):
        (scores,) = fit_and_score(naive_bayes(), TRAIN, labels, TEST)
        np.testing.assert_allclose(scores, np.transpose(expected))


@BASELINES
def test_words_predict_labels(baseline):
    train, test, empty = fit_and_score(baseline(), TRAIN, LABELS, TRAIN, TEST, [])
    np.testing.assert_array_equal(train >= 0.5, LABELS)
    assert (test[:2] >= 0.5).tolist() == [[True, False, False], [False, True, False]]
    assert empty.shape == (0, 3)


@BASELINES
def test_a_label_that_all_rows_or_no_rows_have_is_constant(baseline):
    labels = np.column_stack([np.ones(6), np.zeros(6), LABELS[:, 0]])
    (scores,) = fit_and_score(baseline(), TRAIN, labels, TEST)
    assert (scores[:, 0] == 1).all()
    assert (scores[:, 1] == 0).all()
    (alone,) = fit_and_score(baseline(), TRAIN, LABELS[:, :1], TEST)
    np.testing.assert_allclose(scores[:, 2:], alone)
    (scores,) = fit_and_score(baseline(), TRAIN, labels[:, :2], TEST)
    assert scores.tolist() == [[1, 0]] * 5


@BASELINES
def test_texts_without_a_word_have_no_label(baseline):
    (scores,) = fit_and_score(baseline(), ["? !"] * 6, LABELS, TEST)
    assert scores.shape == (5, 3)
    assert not scores.any()
