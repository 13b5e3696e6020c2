"""The texts that a person is asked to label, and the files that come of it."""

import json

import pytest

from shared.data import DataArguments, TextToLabel, load_data, load_texts_to_label


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def load(tmp_path):
    def call(rows, **flags):
        path = write(tmp_path / "a.jsonl", rows)
        flags = {"data": str(path), "cache_dir": str(tmp_path / "cache"), **flags}
        return load_texts_to_label(DataArguments(**flags))

    return call


def test_rows_without_labels_in_the_order_of_the_file(load):
    corpus, texts = load(
        [
            {"title": "z", "body": "last", "labels": []},
            {"title": "b", "body": None, "labels": ["bug"]},
            {"title": " ", "body": "", "labels": None},
            {"title": "a", "body": "first"},
            {"title": "a", "body": "first"},
        ]
    )
    assert texts == [TextToLabel("z\n\nlast", 1), TextToLabel("a\n\nfirst", 4)]
    assert corpus.label_names == ["bug"]


def test_suggestions_of_a_batch_and_its_row_numbers(load):
    suggested = {"suggested": ["bug"], "scores": {"bug": 0.9, "x": None}, "reason": "near"}
    _, texts = load(
        [
            {"row": 17, "text": "a", "labels": None, **suggested},
            {"row": 5, "text": "b", "labels": None, "suggested": [], "scores": {}, "reason": ""},
            {"row": "?", "text": "c", "labels": None, "suggested": 3, "scores": 4},
        ]
    )
    assert texts == [
        TextToLabel("a", 17, ("bug",), {"bug": 0.9}, "near"),
        TextToLabel("b", 5),
        TextToLabel("c", 3),
    ]


def test_what_no_page_can_show_is_left_out_of_suggestions(load):
    scores = {"a": float("nan"), "b": float("inf"), "c": 10**400, "d": 0.5}
    row = {"text": "x", "labels": None, "scores": scores, "reason": "half \ud83d", "row": 1}
    _, (text,) = load([row])
    assert text.scores == {"d": 0.5}
    assert text.reason == "half ?"


def test_suggestions_of_a_csv_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("row,text,labels,suggested,reason\n9,a,,bug; new model,near\n8,b,,,\n")
    args = DataArguments(data=str(path), cache_dir=str(tmp_path / "cache"))
    _, texts = load_texts_to_label(args)
    assert [text.suggested for text in texts] == [("bug", "new model"), ()]


# --- what comes of it, as data -------------------------------------------------------------------

ANNOTATED = [
    {"text": "a", "labels": ["bug"], "annotation_status": "labelled"},
    {"text": "b", "labels": [], "annotation_status": "labelled"},
    {"text": "c", "labels": None, "annotation_status": "skipped"},
]


def labels_by_text(corpus):
    names = corpus.label_names
    return {
        row["text"]: None if row["labels"] is None else [names[i] for i in row["labels"]]
        for row in corpus.dataset
    }


def test_a_row_whose_labels_are_left_out_is_not_confirmed_to_have_none(tmp_path):
    rows = [*ANNOTATED, {"text": "d", "labels": ["docs"]}]
    path = write(tmp_path / "labelled.jsonl", rows)
    flags = {"data": str(path), "cache_dir": str(tmp_path / "cache"), "drop_labels": ["docs"]}
    corpus = load_data(DataArguments(**flags))
    assert labels_by_text(corpus) == {"a": ["bug"], "b": [], "c": None, "d": None}


@pytest.mark.parametrize(
    ("empty_labels", "of_b", "of_d"),
    [("auto", [], None), ("negative", [], []), ("unlabelled", None, None)],
)
def test_an_empty_list_counts_where_a_person_has_confirmed_it(empty_labels, of_b, of_d, tmp_path):
    path = write(tmp_path / "labelled.jsonl", ANNOTATED)
    other = write(tmp_path / "other.jsonl", [{"text": "d", "labels": []}])
    corpus = load_data(
        DataArguments(
            data=f"{path},{other}", cache_dir=str(tmp_path / "cache"), empty_labels=empty_labels
        )
    )
    assert labels_by_text(corpus) == {"a": ["bug"], "b": of_b, "c": None, "d": of_d}
    note = "1 texts have an empty list that a person confirmed: no label applies (--empty_labels)"
    assert (note in corpus.describe()) == (empty_labels == "auto")
