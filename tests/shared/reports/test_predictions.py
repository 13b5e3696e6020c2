import json

import numpy as np
import pytest

from shared.evaluation.rules import scores_per_text
from shared.reports.predictions import (
    format_labels,
    headline,
    prediction_records,
    write_predictions,
)

NAMES = ["bug", "docs", "speed"]
SCORES = np.array([[0.5, 0.29999, 0.95], [0.1, 0.2, 0.05], [0.6, 0.6, 0.6]])
CHOSEN = np.array([0.5, 0.3, 0.9]) <= SCORES


def test_predicted_labels_come_best_first():
    records = list(prediction_records(SCORES, CHOSEN, NAMES))
    assert [row["labels"] for row in records] == [["speed", "bug"], [], ["bug", "docs"]]
    assert [list(row["scores"]) for row in records] == [
        ["speed", "bug", "docs"],
        ["docs", "bug", "speed"],
        ["bug", "docs", "speed"],  # equal scores keep the order of the labels
    ]
    assert records[0]["scores"] == {"speed": 0.95, "bug": 0.5, "docs": 0.29999}


def test_single_precision_scores_can_be_written_as_json():
    (row,) = prediction_records(np.float32([[1 / 3, 0, 1]]), CHOSEN[:1], NAMES)
    assert json.loads(json.dumps(row))["scores"] == {"speed": 1.0, "bug": 0.333333, "docs": 0.0}


def test_no_rows_give_no_records():
    assert list(prediction_records(np.zeros((0, 3)), CHOSEN[:0], NAMES)) == []


def test_scores_and_predictions_need_the_same_number_of_rows():
    with pytest.raises(ValueError, match="zip"):
        list(prediction_records(SCORES, CHOSEN[:2], NAMES))


def test_predictions_are_one_json_line_per_row(tmp_path):
    rows = [{"row": 7, "text": "a\nb"}, {"row": 9, "text": "é🙂"}, {"row": 11, "text": '"'}]
    y_true = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1]], dtype=bool)
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, rows, NAMES, y_true, SCORES, CHOSEN)
    lines = path.read_text(encoding="utf-8").splitlines()
    predictions = [json.loads(line) for line in lines]
    assert [{"row": line["row"], "text": line["text"]} for line in predictions] == rows
    assert [line["true_labels"] for line in predictions] == [["bug"], [], ["docs", "speed"]]
    assert [line["labels"] for line in predictions] == [["speed", "bug"], [], ["bug", "docs"]]
    assert "é🙂" in lines[1]


def test_rows_and_scores_of_different_number_leave_no_file(tmp_path):
    rows = [{"row": 1, "text": "x"}]
    with pytest.raises(ValueError, match="zip"):
        write_predictions(tmp_path / "x", rows, NAMES, np.zeros((3, 3)), SCORES, CHOSEN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one line", "one line"),
        ("\n \n  second \nthird", "second"),
        ("x" * 90, "x" * 90),
        ("x" * 91, "x" * 87 + "..."),
        ("", ""),
    ],
)
def test_headline(text, expected):
    assert headline(text) == expected
    assert headline("abcdef", width=5) == "ab..."


def test_labels_of_one_text():
    assert format_labels(SCORES[0], CHOSEN[0], NAMES) == "speed (0.95), bug (0.50)"
    assert format_labels(SCORES[1], CHOSEN[1], NAMES) == "no label (highest score: docs, 0.20)"


def test_of_many_labels_the_best_and_the_predicted_ones_have_a_score():
    scores = np.array([[0.1, 0.4, 0.3, 0.2]])
    chosen = np.array([[True, True, False, False]])  # by a low threshold of the first label
    (row,) = prediction_records(scores, chosen, list("abcd"), 2)
    assert row == {"labels": ["b", "a"], "scores": {"b": 0.4, "c": 0.3, "a": 0.1}}
    assert list(row["scores"]) == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("n_labels", "top_scores", "expected"),
    [(50, None, 50), (51, None, 20), (681, 3, 3), (681, 700, 681), (4, 2, 2)],
)
def test_how_many_scores_are_written(n_labels, top_scores, expected, tmp_path):
    assert scores_per_text(n_labels, top_scores) == expected
    names = [f"label {i}" for i in range(n_labels)]
    y = np.zeros((1, n_labels), bool)
    scores = np.random.default_rng(0).random((1, n_labels))
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [{"row": 1, "text": "a"}], names, y, scores, y, top_scores)
    assert len(json.loads(path.read_text("utf-8"))["scores"]) == expected
