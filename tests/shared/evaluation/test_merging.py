import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.evaluation.merging import (
    fit_dawid_skene,
    merge_by_dawid_skene,
    merge_by_majority,
)

# Table 1 of Dawid and Skene (1979): the classes of 45 patients, by five anaesthetists, the first of
# whom saw each patient three times.
PATIENTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343
1111111 2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222
1111111 1111111 2322222 1111111 1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343
2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
ACCURACIES = np.array([0.95, 0.9, 0.45, 0.4, 0.5])


def simulated(seed, n_texts=400, accuracies=ACCURACIES, n_labels=3):
    """Return true labels, and answers of annotators with these accuracies to all texts."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_labels, size=n_texts)
    n_annotators = len(accuracies)
    texts, annotators = (
        np.repeat(np.arange(n_texts), n_annotators),
        np.tile(np.arange(n_annotators), n_texts),
    )
    wrong = (truth[texts] + rng.integers(1, n_labels, size=len(texts))) % n_labels
    right = rng.random(len(texts)) < accuracies[annotators]
    return truth, texts, annotators, np.where(right, truth[texts], wrong)


def test_the_estimates_are_those_of_the_paper():
    answers = np.array([int(answer) - 1 for answer in PATIENTS if answer.isdigit()])
    fit = fit_dawid_skene(
        *(np.repeat(np.arange(45), 7), np.tile([0, 0, 0, 1, 2, 3, 4], 45), answers),
        **{"n_texts": 45, "n_annotators": 5, "n_categories": 4, "smoothing": 0},
    )
    assert fit.converged
    assert fit.prior == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    assert fit.confusion[0] == pytest.approx(np.array(first), abs=0.005)
    # The patients that Table 4 does not find certain, and one that most observers put in class 3.
    assert fit.posterior[2, 1] == pytest.approx(1, abs=0.02)
    assert fit.posterior[1].argmax() == 3


@pytest.mark.parametrize("seed", range(3))
def test_unequal_annotators_are_worth_what_they_get_right(seed):
    truth, texts, annotators, answers = simulated(seed, n_texts=2000)
    labels = np.eye(3, dtype=bool)[answers]
    options = {"n_texts": len(truth), "single_label": True}
    majority = merge_by_majority(texts, labels, **options)
    merged = merge_by_dawid_skene(texts, annotators, labels, **options)
    right = (merged.labels.argmax(axis=1) == truth).mean()
    # Whoever knows the accuracies is right as often as one can be.
    n_labels = labels.shape[1]
    worth = np.log(ACCURACIES * (n_labels - 1) / (1 - ACCURACIES))
    votes = np.zeros((len(truth), n_labels))
    np.add.at(votes, (texts, answers), worth[annotators])
    assert right > (votes.argmax(axis=1) == truth).mean() - 0.02
    assert right > (majority.scores.argmax(axis=1) == truth).mean() + 0.06
    assert merged.converged
    assert not merged.undecided.any()
    assert merged.confidence.mean() == pytest.approx(right, abs=0.03)
    fit = fit_dawid_skene(
        *(texts, annotators, answers), n_texts=len(truth), n_annotators=5, n_categories=3
    )
    accuracy = (fit.confusion.diagonal(axis1=1, axis2=2) * fit.prior).sum(axis=1)
    assert accuracy == pytest.approx(ACCURACIES, abs=0.06)


def test_labels_of_any_number_are_estimated_one_by_one():
    rng = np.random.default_rng(0)
    truth = rng.random((600, 4)) < [0.3, 0.2, 0.1, 0.05]
    texts, annotators = np.repeat(np.arange(600), 5), np.tile(np.arange(5), 600)
    recall, noise = np.array([0.95, 0.9, 0.5, 0.4, 0.4]), np.array([0.01, 0.02, 0.1, 0.15, 0.15])
    draws = rng.random((3000, 4))
    labels = np.where(
        truth[texts], draws < recall[annotators][:, None], draws < noise[annotators][:, None]
    )
    options = {"n_texts": 600, "single_label": False}
    calls = []
    merged = merge_by_dawid_skene(
        *(texts, annotators, labels), on_label=lambda: calls.append(1), **options
    )
    majority = merge_by_majority(texts, labels, **options)
    errors = [(chosen.labels != truth).sum() for chosen in (merged, majority)]
    assert errors[0] < 0.5 * errors[1]
    assert len(calls) == 4
    right = (merged.labels == truth).all(axis=1)
    assert merged.confidence[~merged.undecided].mean() == pytest.approx(right.mean(), abs=0.05)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_answers_texts_and_annotators_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    _, texts, annotators, answers = simulated(seed, n_texts=20)
    sizes = {"n_texts": 20, "n_annotators": 5, "n_categories": 3}
    fit = fit_dawid_skene(texts, annotators, answers, **sizes)
    order, of_text, of_annotator = rng.permutation(100), rng.permutation(20), rng.permutation(5)
    moved = fit_dawid_skene(
        *(of_text[texts][order], of_annotator[annotators][order], answers[order]), **sizes
    )
    assert moved.posterior[of_text] == pytest.approx(fit.posterior, abs=1e-4)
    assert fit.posterior.sum(axis=1) == pytest.approx(1)
    assert fit.confusion.sum(axis=2) == pytest.approx(1)


def test_a_text_without_an_answer_has_the_shares_of_the_labels():
    fit = fit_dawid_skene(
        *(np.array([0, 0, 2, 2]), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])),
        **{"n_texts": 3, "n_annotators": 2, "n_categories": 2},
    )
    assert fit.posterior[1] == pytest.approx(fit.prior)
    labels = np.eye(2, dtype=bool)[[0, 0, 1, 1]]
    merged = merge_by_dawid_skene(
        np.array([0, 0, 2, 2]), np.array([0, 1, 0, 1]), labels, n_texts=3, single_label=True
    )
    assert merged.undecided.tolist() == [False, True, False]
    assert not merged.labels[1].any()


def test_an_annotator_with_one_answer_is_taken_for_an_average_one():
    """One answer that fits says little; unsmoothed, it would make an annotator perfect."""
    truth, texts, annotators, answers = simulated(0, n_texts=60)
    texts, annotators = np.append(texts, 0), np.append(annotators, 5)
    answers = np.append(answers, truth[0])
    sizes = {"n_texts": 60, "n_annotators": 6, "n_categories": 3}
    smoothed = fit_dawid_skene(texts, annotators, answers, **sizes).confusion[5, truth[0], truth[0]]
    alone = fit_dawid_skene(texts, annotators, answers, smoothing=0, **sizes)
    assert alone.confusion[5, truth[0], truth[0]] > 0.99
    assert 0.5 < smoothed < 0.9


def test_majority():
    texts = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 3])
    labels = np.array(
        [
            *([1, 0], [1, 0], [0, 1]),  # two of three
            *([1, 0], [0, 1]),  # one of two
            *([0, 0], [0, 0]),  # none applies
            *([0, 0], [0, 0], [1, 1]),  # most say that none applies
        ],
        bool,
    )
    merged = merge_by_majority(texts, labels, n_texts=5, single_label=False)
    assert merged.labels.tolist() == [[1, 0], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert merged.undecided.tolist() == [False, True, False, False, True]
    assert merged.confidence == pytest.approx([4 / 9, 0, 1, 4 / 9, 0])
    one_each = merge_by_majority(texts[:5], labels[:5], n_texts=2, single_label=True)
    assert one_each.confidence == pytest.approx([2 / 3, 0])
