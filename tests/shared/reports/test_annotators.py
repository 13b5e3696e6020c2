from types import SimpleNamespace

import datasets
import numpy as np
import pytest

from shared.evaluation.annotators import AnnotatorPairs, label_confusions
from shared.evaluation.merging import merge_by_majority
from shared.reports.annotators import (
    alpha_verdict,
    annotator_rows,
    confusion_rows,
    disputed_texts,
    markdown_table,
    merged_records,
    pair_rows,
)

NAMES = ["bug", "docs"]


@pytest.fixture
def answers():
    """Answers of three annotators to four texts: alike, two against one, alike, and one alone."""
    labels = [*"bbb", *"bdb", *"dd", *"d"]
    return SimpleNamespace(
        corpus=SimpleNamespace(
            dataset=datasets.Dataset.from_dict(
                {"row": [1, 4, 7, 9], "text": ["one", "\ntwo\nmore", "three", "four"]}
            )
        ),
        rows=np.arange(4),
        texts=np.repeat(np.arange(4), [3, 3, 2, 1]),
        annotators=np.array([0, 1, 2, 0, 1, 2, 0, 1, 2]),
        labels=np.array([[label == "b", label == "d"] for label in labels]),
        label_names=NAMES,
        annotator_names=["anna", "ben", "carla"],
        n_answers=np.array([3, 3, 2, 1]),
    )


@pytest.fixture
def merged(answers):
    return merge_by_majority(answers.texts, answers.labels, n_texts=4, single_label=True)


@pytest.fixture
def pairs(answers):
    return AnnotatorPairs(answers.texts, answers.annotators, answers.labels, single_label=True)


def test_a_disputed_text_names_who_said_what(answers, merged):
    (row,) = disputed_texts(answers, merged)
    assert row == {
        "row": 4,
        "disagreement": 0.6667,
        "labels": "bug",
        "confidence": 0.6667,
        "answers": "bug (anna, carla); docs (ben)",
        "text": "two",
    }


def test_a_text_of_low_confidence_has_a_weight(answers, merged):
    records = merged_records(answers, merged, trust=0.9)
    assert records[1] == {"labels": ["bug"], "confidence": 1, "weight": None, "answers": 3}
    assert records[4] == {"labels": ["bug"], "confidence": 0.6667, "weight": 0.6667, "answers": 3}
    assert merged_records(answers, merged, trust=0.5)[4]["weight"] is None
    merged.undecided[2] = True
    assert merged_records(answers, merged, trust=0.9)[7] == {
        **dict.fromkeys(("labels", "confidence", "weight")),
        "answers": 2,
    }


def test_the_annotator_who_differs_comes_first(answers, merged, pairs):
    rows, by_label = annotator_rows(answers, pairs, merged)
    first = rows[0]
    assert (first["annotator"], first["answers"], first["compared"]) == ("ben", 3, 5)
    assert first["equal"] == pytest.approx(3 / 5)
    # Right with 1, 1/3 and 1.
    assert first["f1"] == first["precision"] == first["recall"] == pytest.approx(7 / 9, abs=1e-4)
    assert [row["annotator"] for row in by_label[:2]] == ["ben", "ben"]
    assert {row["label"]: (row["added"], row["missed"]) for row in by_label[:2]} == {
        "docs": (0.67, 0),
        "bug": (0, 0.67),
    }


def test_pairs_and_labels_that_differ_most_come_first(answers, pairs):
    rows = pair_rows(answers, pairs)
    assert [(row["annotator"], row["other"]) for row in rows][-1] == ("anna", "carla")
    assert rows[0]["differ_in"] == 1
    assert (rows[-1]["kappa"], rows[-1]["differ_most_in"]) == (None, None)
    confusions = confusion_rows(label_confusions(answers.texts, answers.labels), NAMES)
    assert confusions == [{"label": "bug", "other": "docs", "pairs_of_answers": 2}]


@pytest.mark.parametrize(
    ("alpha", "words"),
    [(0.8, "reliable"), (0.7, "tentative"), (0.66, "too low"), (None, "one label only")],
)
def test_the_verdict(alpha, words):
    assert words in alpha_verdict(alpha)


def test_a_table():
    rows = [{"a_name": "x|y", "n": 1234, "share": 0.5, "none": None}] * 3
    lines = markdown_table(rows, 2).split("\n")
    assert lines[0] == "| a name | n | share | none |"
    assert lines[2] == "| x\\|y | 1,234 | 0.500 | - |"
    assert lines[-1] == "1 more rows are in the file."
    assert markdown_table([]) == "None."
