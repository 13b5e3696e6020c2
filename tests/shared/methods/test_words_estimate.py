"""The quick estimate of the F1: right on data whose words tell all or nothing, none on too few."""

import numpy as np
import pytest

from shared.methods import words_out_of_fold

WORDS = np.array(["crash traceback", "slow memory", "typo docs"])


def data(n, n_labels=3):
    y = np.eye(n_labels, dtype=bool)[np.arange(n) % n_labels]
    return [f"{WORDS[np.flatnonzero(row)[0]]} {i % 7}" for i, row in enumerate(y)], y


@pytest.mark.parametrize("single_label", [True, False])
def test_words_that_tell_the_label(single_label):
    estimate = words_out_of_fold(*data(30), single_label=single_label)
    assert (estimate.n_texts, estimate.n_labels) == (30, 3)
    assert estimate.low <= estimate.micro_f1 <= estimate.high
    assert min(estimate.micro_f1, estimate.macro_f1) > 0.95


def test_words_that_tell_nothing():
    texts, y = data(60)
    shuffled = np.random.default_rng(0).permutation(texts).tolist()
    estimate = words_out_of_fold(shuffled, y, single_label=True)
    assert estimate.micro_f1 < 0.6  # a third, but for chance
    assert estimate == words_out_of_fold(shuffled, y, single_label=True)


def test_rare_labels_are_left_out():
    texts, y = data(24)
    y = np.hstack([y, np.arange(24)[:, None] == 0])
    assert words_out_of_fold(texts, y, single_label=False).n_labels == 3
    y[0, :3] = False  # the text of the rare class goes, too
    assert words_out_of_fold(texts, y, single_label=True).n_texts == 23


@pytest.mark.parametrize("n", [0, 1, 19])
def test_too_few_texts(n):
    texts, y = data(n)
    assert words_out_of_fold(texts, y, single_label=True) is None


def test_nothing_to_tell_apart():
    texts, _ = data(40)
    assert words_out_of_fold(texts, np.ones((40, 1), bool), single_label=True) is None
    assert words_out_of_fold(texts, np.zeros((40, 2), bool), single_label=False) is None
    assert words_out_of_fold(["", " "] * 20, np.eye(2)[np.arange(40) % 2], single_label=True)
