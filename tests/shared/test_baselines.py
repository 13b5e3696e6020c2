import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from shared.baselines import naive_bayes

TRAIN = ["crash error", "error again", "docs typo", "typo in docs", "slow docs", "slow error"]
TEST = ["error error", "docs", "slow slow typo", "nothing known", ""]
LABELS = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1]])


def test_is_one_multinomial_classifier_per_label():
    vectorizer = CountVectorizer().fit(TRAIN)
    expected = [
        MultinomialNB().fit(vectorizer.transform(TRAIN), y).predict(vectorizer.transform(TEST))
        for y in LABELS.T
    ]
    for labels in (LABELS, LABELS.astype(bool), LABELS.astype(np.float32)):
        predicted = naive_bayes(TRAIN, labels, TEST)
        assert predicted.dtype == bool
        np.testing.assert_array_equal(predicted, np.transpose(expected))
    assert predicted[:2].tolist() == [[True, False, False], [False, True, False]]


def test_a_label_that_all_rows_or_none_have_is_predicted_so():
    labels = np.column_stack([np.ones(6), np.zeros(6), LABELS[:, 0]])
    predicted = naive_bayes(TRAIN, labels, TEST)
    assert predicted[:, 0].all()
    assert not predicted[:, 1].any()
    np.testing.assert_array_equal(predicted[:, 2], naive_bayes(TRAIN, LABELS, TEST)[:, 0])


def test_texts_without_a_word_have_no_label():
    predicted = naive_bayes(["? !"] * 6, LABELS, TEST)
    assert predicted.shape == (5, 3)
    assert not predicted.any()
