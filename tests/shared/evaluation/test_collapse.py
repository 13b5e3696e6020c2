"""Tests of the detection of a collapse."""

import numpy as np
import pytest

from shared.evaluation.collapse import describe_collapse

BINARY = ["neg", "pos"]


def one_hot(shares, n=1000):
    """Return n rows of one label each, which has these shares, in the order of the labels."""
    counts = np.round(np.array(shares) * n).astype(int)
    return np.eye(len(shares), dtype=bool)[np.repeat(np.arange(len(shares)), counts)]


def multi_hot(rates, n=1000):
    """Return n rows in which each label applies to this share of the rows."""
    return np.arange(n)[:, None] < np.round(np.array(rates) * n)


def collapse(before, after, examples, names, train=None):
    """Judge predictions on unlabelled texts; those on the examples are right, unless given."""
    supervised = {"train": examples, "unlabelled": before}
    trained = {"train": examples if train is None else train, "unlabelled": after}
    return describe_collapse(supervised, trained, examples, names)


@pytest.mark.parametrize("before", [0.5, 0.3, 0.7])
def test_one_class_takes_almost_all(before):
    examples = one_hot([0.5, 0.5], 20)
    message = collapse(one_hot([before, 1 - before]), one_hot([0.02, 0.98]), examples, BINARY)
    assert message == f"'neg' fell from {before:.1%} to 2.0% of the unlabelled texts"


def test_a_class_of_several_vanishes():
    names, examples = list("abcd"), one_hot([0.25] * 4, 40)
    message = collapse(
        one_hot([0.3, 0.2, 0.2, 0.3]), one_hot([0.35, 0, 0.3, 0.35]), examples, names
    )
    assert message == "'b' fell from 20.0% to 0.0% of the unlabelled texts"
    message = collapse(one_hot([0.3, 0.2, 0.2, 0.3]), one_hot([1, 0, 0, 0]), examples, names)
    assert message == "'d' fell from 30.0% to 0.0% of the unlabelled texts, and 2 others"


@pytest.mark.parametrize(
    ("before", "after", "examples"),
    [
        ([0.35, 0.65], [0.55, 0.45], [0.5, 0.5]),  # a lopsided start was corrected
        ([0.98, 0.02], [0.5, 0.5], [0.5, 0.5]),
        ([0.25, 0.75], [0.1, 0.9], [0.5, 0.5]),  # balanced examples of texts that are not balanced
        ([0.9, 0.06, 0.04], [0.93, 0.07, 0], [0.85, 0.1, 0.05]),  # a rare class vanishes
        ([0.25, 0.25, 0.1, 0.4], [0.24, 0.3, 0.2, 0.26], [0.25] * 4),
    ],
)
def test_no_alarm_for_one_label_per_text(before, after, examples):
    names = list("abcd")[: len(before)]
    assert collapse(one_hot(before), one_hot(after), one_hot(examples, 20), names) is None


def test_no_label_or_all_labels():
    names, examples = list("abc"), multi_hot([0.5, 0.3, 0.2], 60)
    before = multi_hot([0.4, 0.3, 0.1])
    assert "'a' fell from 40.0% to 0.0%" in collapse(before, multi_hot([0, 0, 0]), examples, names)
    message = collapse(
        multi_hot([0.1, 0.1, 0.1]), multi_hot([1, 1, 1]), multi_hot([0.3] * 3), names
    )
    assert message == "3.0 labels per unlabelled text are predicted, 0.9 before"


def test_no_alarm_for_several_labels_per_text():
    # A rare label vanishes, and others change by half.
    names, examples = list("abcd"), multi_hot([0.5, 0.3, 0.2, 0.05], 60)
    before, after = multi_hot([0.4, 0.3, 0.1, 0.05]), multi_hot([0.6, 0.2, 0.15, 0])
    assert collapse(before, after, examples, names) is None


def test_the_labels_of_the_examples_are_forgotten():
    examples, texts = one_hot([0.5, 0.5], 20), one_hot([0.5, 0.5])
    wrong = examples.copy()
    wrong[:6] = ~wrong[:6]
    message = collapse(texts, texts, examples, BINARY, train=wrong)
    assert message == (
        "the labels of the training texts are forgotten: micro F1 0.70 on them, 1.00 before"
    )
    wrong = examples.copy()
    wrong[:3] = ~wrong[:3]
    assert collapse(texts, texts, examples, BINARY, train=wrong) is None


def test_no_alarm_for_a_handful_of_texts():
    examples = one_hot([0.5, 0.5], 20)
    assert collapse(examples[:1], examples[-1:], examples, BINARY) is None
    before, after = one_hot([0.5, 0.5], 8), one_hot([0, 1], 8)  # four texts have changed
    assert collapse(before, after, examples, BINARY) is None


def test_without_examples_the_predictions_of_the_teacher_tell():
    """A tagger as teacher, and no labelled text."""
    before, none = one_hot([0.5, 0.5]), one_hot([0.5, 0.5], 0)
    assert collapse(before, one_hot([0.6, 0.4]), none, BINARY) is None
    message = collapse(before, one_hot([0, 1]), none, BINARY)
    assert message == "'neg' fell from 50.0% to 0.0% of the unlabelled texts"
