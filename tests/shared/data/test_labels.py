"""Cells of labels as programs export them: read rightly or refused, never learned as they look."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import names

from shared.data.arguments import SplitArguments
from shared.data.corpus import load_held_out
from shared.data.labels import LabelEncoder, find_separator


def rows(*cells, column="labels"):
    return [{"text": f"text {number}", column: cell} for number, cell in enumerate(cells)]


# Several labels in one string


NAMES = ["Books, Music & Film", "Toys & Games", "Arts, Crafts & Sewing", "Toys"]


def test_names_with_commas_are_kept_whole_and_said_so(load):
    corpus = load(rows(*NAMES, *NAMES))
    assert corpus.label_names == sorted(NAMES)
    note = "note: labels are kept whole, such as 'Arts, Crafts & Sewing' (--label_separator ','"
    assert note in corpus.describe()
    assert len(load(rows(*NAMES), label_separator=",").label_names) == 6


@pytest.mark.parametrize("separator", [",", ", ", ";", " | "])
def test_strings_of_several_labels_are_split_and_named(load, separator):
    corpus = load(rows(f"bug{separator}docs", "docs", "bug", f"speed{separator}bug"))
    assert names(corpus) == [["bug", "docs"], ["docs"], ["bug"], ["bug", "speed"]]
    note = f"note: labels in one string are separated by {separator.strip()!r}: bug, docs, speed"
    assert note in corpus.describe()
    assert note.split(": bug")[0] not in load(rows("bug", "docs")).describe()


@pytest.mark.parametrize("separator", ["\uff0c", "\u3001", "\n", "\r\n"])
def test_labels_on_lines_and_commas_of_other_scripts(load, mistake, separator):
    corpus = load(rows(f"bug{separator}docs", "docs", "bug", f"speed{separator}bug"))
    assert names(corpus) == [["bug", "docs"], ["docs"], ["bug"], ["bug", "speed"]]
    cells = ["a", f"a{separator}b", f"c{separator}d", f"e{separator}f"]
    flag = repr(separator.strip("\r"))
    assert f"give --label_separator {flag} to split them" in mistake(rows(*cells))
    assert load(rows(*cells), label_separator=flag.strip("'")).label_names == list("abcdef")
    kept = load(rows("a", f"c{separator}d")).describe()
    assert f"(--label_separator {flag} would split them)" in kept
    assert "repeat; list the names or ids" in mistake(rows("2", separator.join("1001")))


def test_commas_in_numbers_separate_nothing_unless_the_user_says_so(load):
    cells = ["1,000-5,000", "under 1,000", "5,000-10,000", "under 1,000, paid", "paid"]
    corpus = load(rows(*cells))
    assert corpus.label_names == sorted([*cells[:3], "paid"])
    assert names(corpus)[3] == ["paid", "under 1,000"]
    assert "kept whole" not in load(rows(*cells[:3])).describe()
    assert load(rows("1,2", "3", "2,3")).label_names == ["1", "2", "3"]  # numbers of classes
    assert load(rows("v1,2d", "2d"), label_separator=",").label_names == ["2d", "v1"]


def test_strings_that_may_be_one_label_or_several_are_refused(mistake, load):
    cells = ["Clothing", "Clothing, Shoes & Jewelry", "Books, Music & Film", "Arts, Crafts"]
    error = mistake(rows(*cells))
    assert "labels such as 'Arts, Crafts' may be one label or several" in error
    assert "give --label_separator ',' to split them there, or --label_separator ''" in error
    assert load(rows(*cells), label_separator="").label_names == sorted(cells)
    error = mistake(rows("a,b;c", "a", "b;c", "c", "a,b", "b", "a,c", "c;b"))
    assert "labels could be separated by ',' or ';'" in error


def test_held_out_files_are_split_as_the_training_file(load, tmp_path):
    held_out = tmp_path / "test.jsonl"
    for cells, test_cell, expected in (
        (["bug,docs", "docs", "bug"], "docs,bug", ["bug", "docs"]),
        (["bug", "docs"], "bug,docs", ["bug", "docs"]),  # the names decide
        ([["bug"], ["docs"]], "bug,docs", ["bug", "docs"]),
        (NAMES, NAMES[0], [NAMES[0]]),
    ):
        corpus = load(rows(*cells))
        held_out.write_text(json.dumps({"text": f"new {cells}", "labels": test_cell}))
        args = SplitArguments(test_data=str(held_out), cache_dir=str(tmp_path / "cache"))
        test = load_held_out(args, corpus)["test"]
        assert names(test) == [expected]
        assert not test.report["unknown_labels"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    labels=st.lists(
        st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True), min_size=1
    ),
    separator=st.sampled_from([",", ";", "|"]),
)
def test_split_strings_equal_lists_or_stay_whole(labels, separator):
    """Labels are split into what they were joined from, kept whole, or refused."""
    labels = [*labels, ["a"]]
    joined, lists = LabelEncoder(None, None), LabelEncoder(None, None)
    codes = [joined.encode(separator.join(row), number) for number, row in enumerate(labels)]
    expected = [lists.encode(row, number) for number, row in enumerate(labels)]
    try:
        parts = joined.split_strings()
    except ValueError:
        return
    read = [[joined.names[part] for code in row for part in parts[code]] for row in codes]
    if joined.separator == separator:
        assert read == [[lists.names[code] for code in row] for row in expected] == labels
        assert [joined.first_rows[joined.names.index(name)] for name in joined.names] == [
            min(number for number, row in enumerate(labels) if name in row) for name in joined.names
        ]
    else:
        assert read == [[separator.join(row)] for row in labels]


def test_separators_of_class_numbers():
    assert find_separator({"1,2", "3,4"}, {"1,2", "3,4"}) == ","
    assert find_separator({"a,b", "c"}, {"a,b"}) == ""
    assert find_separator({"a"}, set()) == ""


# Class numbers and lists


@pytest.mark.parametrize(
    ("cell", "separator", "expected"),
    [
        ("b, a,,b", ",", ["a", "b"]),
        ("b;a,c", ";", ["a,c", "b"]),
        ("a,b", "", ["a,b"]),
        (["a, b", "c"], ",", ["a, b", "c"]),
        ([10, 9], ",", ["9", "10"]),
        (7, ",", ["7"]),
    ],
)
def test_cells_of_labels(load, cell, separator, expected):
    rows = [{"text": "a", "labels": cell}, {"text": "b", "labels": cell}]
    assert names(load(rows, label_separator=separator)) == [expected, expected]


def test_class_id_out_of_range():
    encoder = LabelEncoder(",", ["ham", "spam"])
    with pytest.raises(ValueError, match="there is no class 2; the 2 classes are numbered from 0"):
        encoder.encode(2, 1)


# Exports of annotation tools


def test_lists_and_choices_in_strings_and_objects(load):
    expected = [["a", "b"], ["a"], None, ["b"]]
    cells = ['["a", "b"]', '["a"]', "[]", '["b"]']
    assert names(load(rows(*cells))) == expected
    cells = ['{"choices": ["a", "b"]}', "a", None, "b"]  # the CSV of Label Studio
    assert names(load(rows(*cells, column="topic"), label_column="topic")) == expected
    cells = [{"choices": ["a", "b"]}, "a", "", {"choices": ["b"]}]  # its JSON-MIN
    assert names(load(rows(*cells, column="topic"), label_column="topic")) == expected


@pytest.mark.parametrize(
    "cell",
    [
        "[1, 0]",
        "[1. 0. 1.]",
        "['a', 1]",
        "['a', ['b']]",
        "{'a': 'b'}",
        '{"choices": "a"}',
        '[{"start": 0, "end": 3, "labels": ["a"]}]',
        '{"choices": ["admiration"',
        "{[1]}",
        "[a, b c]",
        "{a,b}",
        "[a; [b]]",
    ],
)
def test_printed_values_are_no_names(mistake, cell):
    error = mistake(rows("a", cell))
    assert "rows.jsonl, row 2: the label " in error
    assert "is a printed list or object; write a list of names as JSON" in error


@pytest.mark.parametrize(
    "name", ["[WIP]", "(question)", "a (b)", "[x]: y", "{", "C++", "a [b]", "[a]: (b)"]
)
def test_names_with_brackets(load, name):
    assert load(rows("a", name)).label_names == sorted(["a", name])


def test_names_in_brackets_are_no_list(load):
    assert names(load(rows("[WIP], [RFC]", "[WIP]", "[RFC]")))[0] == ["[RFC]", "[WIP]"]


@pytest.mark.parametrize("cell", ["1,0,0", "0 1 1", "1;1", "0, 1, 0"])
def test_zeros_and_ones_are_no_ids(mistake, cell):
    assert "repeat; list the names or ids of the labels that apply" in mistake(rows("2", cell))


# Missing values


def test_missing_values_of_pandas(load):
    nan = float("nan")
    table = [{"text": "one", "labels": "a"}, {"text": nan, "labels": "a"}]
    corpus = load([*table, {"text": "two", "labels": nan}])
    assert names(corpus) == [["a"], None]
    assert corpus.report["blank_texts"] == 1
