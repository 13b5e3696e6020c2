import numpy as np
from sklearn.metrics import confusion_matrix

from shared.evaluation.confusion import co_occurrences, confused_labels, largest_pairs


def test_one_label_gives_the_confusion_matrix_without_its_diagonal():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, (2, 50))
    expected = confusion_matrix(true, predicted, labels=range(4))
    np.fill_diagonal(expected, 0)
    counts = confused_labels(np.eye(4)[true], np.eye(4)[predicted])
    np.testing.assert_array_equal(counts.toarray(), expected)


def test_several_labels_pair_what_is_missed_with_what_is_wrong():
    y = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    predicted = np.array([[1, 0, 1, 1], [1, 0, 0, 1]], dtype=bool)
    counts = confused_labels(y, predicted)
    assert largest_pairs(counts, 9) == [(1, 2, 1), (1, 3, 1)]
    assert largest_pairs(counts, 1) == [(1, 2, 1)]


def test_co_occurrences():
    y = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(co_occurrences(y).toarray(), [[2, 2, 1], [2, 2, 1], [1, 1, 2]])
