"""The choice of a tagger by out-of-fold scores."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.data.choice import ChoiceRows
from shared.evaluation.rules import DecisionRule
from shared.reports.candidates import (
    Candidate,
    candidates_table,
    choose_candidate,
    mean_candidates,
    read_candidate,
    scores_to_report,
)
from shared.taggers.tagger import Tagger

RULE = DecisionRule((0.5, 0.5))
RNG = np.random.default_rng(0)
LABELS = np.eye(2, dtype=np.uint8)[RNG.integers(2, size=200)]


def choice_of(rows, labels, fold_of=None):
    """What candidates are measured on: rows with the labels a and b."""
    words = {"flags": [], "evaluate": [], "title": "", "measured": "", "fingerprint": ""}
    return ChoiceRows(
        rows=np.array(rows),
        labels=labels,
        label_names=["a", "b"],
        fold_of=fold_of,
        n_rows=len(rows),
        **words,
    )


def candidate(name, noise):
    """A candidate whose scores are the labels with noise."""
    scores = np.clip(LABELS + RNG.normal(size=LABELS.shape) * noise, 0, 1)
    return Candidate((name,), LABELS, scores, RULE.choose(scores), RULE)


def test_the_best_single_method_is_taken_unless_a_mean_is_clearly_better():
    good, bad = candidate("good", 0.3), candidate("bad", 3.0)
    everything = [good, bad, *mean_candidates([good, bad])]
    best, reason = choose_candidate(everything)
    assert best is good
    assert reason.startswith(
        "good was taken: of the single methods it has the highest mean of micro F1 0.9"
    )
    assert "bad, differs in micro F1 by +" in reason
    assert "may be chance" not in reason


def test_the_mean_of_two_equal_methods_with_independent_errors_is_better():
    pair = [candidate("one", 0.8), candidate("two", 0.8)]
    (mean,) = mean_candidates(pair)
    np.testing.assert_allclose(mean.scores, (pair[0].scores + pair[1].scores) / 2)
    assert mean.f1["micro_f1"] > max(c.f1["micro_f1"] for c in pair) + 0.005
    best, reason = choose_candidate([*pair, mean])
    assert best is mean
    assert reason.startswith("The mean of one and two was taken")
    no_better = Candidate(("a", "b"), LABELS, pair[0].scores, pair[0].predicted, RULE)
    assert choose_candidate([*pair, no_better])[0] in pair


def test_one_method_needs_no_comparison():
    only = candidate("only", 0.5)
    assert choose_candidate([only])[1].startswith("only was taken, the only method: micro F1 0.")


def test_a_difference_that_may_be_chance_is_called_so():
    first, second = candidate("first", 0.6), candidate("second", 0.6)
    assert choose_candidate([first, second])[1].endswith("which may be chance.")


def test_the_table_shows_intervals_best_first():
    good, bad = candidate("good", 0.3), candidate("bad", 3.0)
    lines = candidates_table([bad, good], good).splitlines()
    assert lines[2].startswith("| **good** | 0.9")
    assert lines[3].startswith("| bad | 0.")
    assert lines[2].count(" to ") == 2


def test_predictions_are_read_in_the_order_of_the_rows(tmp_path):
    lines = [
        {"row": 7, "labels": ["b"], "scores": {"b": 0.9, "a": 0.2}},
        {"row": 2, "labels": [], "scores": {"a": 0.1, "b": 0.3}},
    ]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    read = read_candidate("words", path, RULE, choice_of([2, 7], LABELS[:2]))
    assert read.name == "words"
    assert read.scores.tolist() == [[0.1, 0.3], [0.2, 0.9]]
    assert read.predicted.tolist() == [[False, False], [False, True]]
    with pytest.raises(UserError, match="has other rows than --data"):
        read_candidate("words", path, RULE, choice_of([2, 8], LABELS[:2]))


def test_a_label_that_the_tagger_does_not_know_is_never_predicted():
    corpus = SimpleNamespace(label_names=["a", "b", "new"])
    split = SimpleNamespace(rows={"test": {"text": np.array(["one", "two"])}}, corpus=corpus)
    of_tests = np.array([[0.7, 0.1], [0.4, 0.6]])
    tagger = Tagger(["b", "a"], DecisionRule((0.65, 0.5)), lambda texts: of_tests)
    valid = Candidate(("x",), LABELS[:3], LABELS[:3] * 0.9, LABELS[:3] > 0, RULE)
    choice = choice_of([1, 2, 3], LABELS[:3])
    scores, predicted, rule = scores_to_report(valid, tagger, split, choice)
    assert scores["test"].tolist() == [[0.1, 0.7, 0], [0.6, 0.4, 0]]
    assert predicted["test"].tolist() == [[False, True, False], [True, False, False]]
    assert (rule.choose(scores["test"]) == predicted["test"]).all()
    assert scores["valid"][:, 2].tolist() == [0, 0, 0]
    assert (predicted["valid"][:, :2] == valid.predicted).all()
