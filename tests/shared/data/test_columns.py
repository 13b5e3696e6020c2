"""Columns of texts and labels: found by their names, or refused with what to do."""

import pytest
from tiny_corpora import names

from shared.data.columns import join_text

# Which columns, and the text of a row


def test_text_columns(load):
    rows = [{"text": f"text {i}", "other": f"other {i}", "label": "a"} for i in range(2)]
    assert load(rows).dataset[0]["text"] == "text 0"
    assert load(rows, text_columns=["other", "text"]).dataset[0]["text"] == "other 0\n\ntext 0"
    only_title = [{"title": f"title {i}", "labels": "a"} for i in range(2)]
    assert load(only_title).dataset[0]["text"] == "title 0"


def test_missing_columns(mistake):
    rows = [{"title": "a", "keys": ["x"], "Body": "b"}]
    message = mistake(rows, text_columns=["body"], label_column="keys")
    assert "no column 'body' (found: title, keys, Body); did you mean 'Body'?" in message
    message = mistake(rows)
    assert (
        "no column 'labels' (found: title, keys, Body); name the right one with --label" in message
    )
    assert "no column 'title'" in mistake([{"content": "a", "labels": "x"}])


def test_join_text_leaves_out_blank_parts():
    row = {"a": "one", "b": None, "c": " \n", "d": " two "}
    assert join_text(row, ["a", "b", "c", "missing", "d"]) == "one\n\n two "


# Answers of Prodigy


def answered(*answers, column="label"):
    return [{"text": text, column: cell, "answer": answer} for text, cell, answer in answers]


def test_rejected_labels_are_not_learned(load):
    corpus = load(
        answered(
            ("one", "a", "accept"),
            ("one", "b", "reject"),
            ("two", "b", "accept"),
            ("two", "a", "accept"),
            ("three", "a", "reject"),
            ("four", "b", "ignore"),
            ("five", "b", None),
        )
    )
    assert names(corpus) == [["a"], ["a", "b"], None, None, None]
    assert "note: answers of Prodigy: 3 accepted, 2 rejected (the" in corpus.describe()


def test_answers_that_a_spreadsheet_has_changed(load):
    table = answered(
        ("zero", "", ""),
        ("one", "a", "ACCEPT"),
        ("two", "b", "Reject"),
        ("three", "b", "Ignore "),
        ("four", "a", " "),
    )
    assert names(load(table)) == [None, ["a"], None, None, None]


def test_rows_without_an_answer_are_named_wherever_they_stand(load, mistake):
    answers = [("one", "a", "accept"), ("two", "b", None), ("three", "b", "accept")]
    corpus = load(answered(*answers))
    assert names(corpus) == [["a"], None, ["b"]]
    assert "0 ignored (unlabelled), 1 without an answer (unlabelled)" in corpus.describe()
    error = mistake(answered(*reversed(answers[:2])))
    assert "row 2: the answer is 'accept', but rows before it have labels and no answer" in error


def test_a_rejected_label_can_mean_that_none_applies(load):
    answers = [("one", "a", "accept"), ("two", "a", "reject"), ("three", "a", "ignore")]
    for flags in ({}, {"empty_labels": "negative"}):  # there is no other label that it could have
        corpus = load(answered(*answers), **flags)
        assert names(corpus) == [["a"], [], None]
    assert "1 texts have only rejected labels: no label applies" in corpus.describe()
    corpus = load(answered(*answers, ("four", "b", "accept")))
    assert names(corpus) == [["a"], None, None, ["b"]]


def test_choices_made_with_prodigy(load):
    table = answered(
        ("one", ["a", "b"], "accept"),
        ("two", ["a"], "reject"),
        ("three", [], "accept"),
        column="accept",
    )
    corpus = load(table, empty_labels="negative")
    assert names(corpus) == [["a", "b"], None, []]


def test_another_column_called_answer_means_nothing(load, mistake):
    table = answered(("one", "a", "42"), ("two", "b", "accept"), ("three", "a", "reject"))
    assert names(load(table)) == [["a"], ["b"], ["a"]]
    error = mistake(answered(("one", "a", "accept"), ("two", "b", "yes")))
    assert "row 2: the answer is 'yes'; Prodigy writes accept, reject, ignore" in error


# One column per label


def wide(*values, names=("bug", "docs")):
    return [
        {"text": f"text {number}", **dict(zip(names, row, strict=True))}
        for number, row in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("zero", "one"),
    [(0, 1), ("0", "1"), (0.0, 1.0), ("0.0", "1.0"), (False, True), ("FALSE", "True")],
)
def test_one_column_per_label(load, zero, one):
    table = wide((one, zero), (one, one), (zero, one), (None, ""), (float("nan"), None))
    for flags in ({}, {"label_columns": ["bug", "docs"]}):
        corpus = load(table, **flags)
        assert names(corpus) == [["bug"], ["bug", "docs"], ["docs"], None, None]
        recognised = "labels: bug, docs (columns of 0 and 1)" in corpus.describe()
        assert recognised == (not flags)


def test_columns_that_do_not_say_whether_a_label_applies(load, mistake):
    flags = {"label_columns": ["bug", "docs"]}
    table = wide((1, 0), (0, 0))
    assert names(load(table, empty_labels="unlabelled", **flags)) == [["bug"], None]
    corpus = load(table, **flags)
    assert names(corpus) == [["bug"], []]
    note = "note: 1 texts have a 0 for each label: no label applies (--empty_labels)"
    assert note in corpus.describe()
    assert "row 2: column 'docs' is blank" in mistake(wide((1, 0), (1, "")), **flags)
    assert "row 1: column 'docs' of --label_columns holds '2'" in mistake(wide((1, 2)), **flags)
    error = mistake(wide((1, 0)), label_columns=["bug", "doc"])
    assert "no column 'doc' (found: text, bug, docs); did you mean 'docs'?" in error
    error = mistake(wide((1, 0)), label_column="bug", label_columns=["docs"])
    assert error == "--label_columns and --label_column: give one of them"
