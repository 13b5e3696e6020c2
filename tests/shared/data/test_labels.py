"""Cells of labels as programs export them: read rightly or refused, never learned as they look."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data.arguments import DataArguments, SplitArguments
from shared.data.corpus import load_corpus, load_data, load_held_out
from shared.data.labels import LabelEncoder, find_separator


@pytest.fixture
def load(tmp_path):
    """`load(rows, **flags)` returns the data set of rows that are written as JSON lines."""

    def load(rows, **flags):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return load_data(DataArguments(data=str(path), cache_dir=str(tmp_path / "cache"), **flags))

    return load


@pytest.fixture
def refused(load):
    def refused(rows, **flags):
        with pytest.raises(UserError) as error:
            load(rows, **flags)
        assert "\n" not in str(error.value)
        return str(error.value)

    return refused


def rows(*cells, column="labels"):
    return [{"text": f"text {number}", column: cell} for number, cell in enumerate(cells)]


def names(corpus):
    """Label names of each row, None for unlabelled ones."""
    return [ids and [corpus.label_names[i] for i in ids] for ids in corpus.dataset["labels"]]


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


def test_strings_that_may_be_one_label_or_several_are_refused(refused, load):
    cells = ["Clothing", "Clothing, Shoes & Jewelry", "Books, Music & Film", "Arts, Crafts"]
    error = refused(rows(*cells))
    assert "labels such as 'Arts, Crafts' may be one label or several" in error
    assert "give --label_separator ',' to split them there, or --label_separator ''" in error
    assert load(rows(*cells), label_separator="").label_names == sorted(cells)
    error = refused(rows("a,b;c", "a", "b;c", "c", "a,b", "b", "a,c", "c;b"))
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
        "['a', 'b']",
        "['a' 'b']",
        "('a', 'b')",
        "{'a', 'b'}",
        "[1, 0]",
        "[1. 0. 1.]",
        "array(['a'], dtype=object)",
        '{"choices": "a"}',
        '[{"start": 0, "end": 3, "labels": ["a"]}]',
        '{"choices": ["admiration"',
        "{[1]}",
    ],
)
def test_printed_values_are_no_names(refused, cell):
    error = refused(rows("a", cell))
    assert "rows.jsonl, row 2: the label " in error
    assert "is a printed list or object; write a list of names as JSON" in error


@pytest.mark.parametrize("name", ["[WIP]", "(question)", "a (b)", "[x]: y", "{", "C++", "a [b]"])
def test_names_with_brackets(load, name):
    assert load(rows("a", name)).label_names == sorted(["a", name])


@pytest.mark.parametrize("cell", ["1,0,0", "0 1 1", "1;1", "0, 1, 0"])
def test_zeros_and_ones_are_no_ids(refused, cell):
    assert "repeat; list the names or ids of the labels that apply" in refused(rows("2", cell))


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


def test_rows_without_an_answer_are_named_wherever_they_stand(load, refused):
    answers = [("one", "a", "accept"), ("two", "b", None), ("three", "b", "accept")]
    corpus = load(answered(*answers))
    assert names(corpus) == [["a"], None, ["b"]]
    assert "0 ignored (unlabelled), 1 without an answer (unlabelled)" in corpus.describe()
    error = refused(answered(*reversed(answers[:2])))
    assert "row 2: the answer is 'accept', but rows before it have labels and no answer" in error


def test_a_rejected_label_can_mean_that_none_applies(load):
    answers = [("one", "a", "accept"), ("two", "a", "reject"), ("three", "a", "ignore")]
    corpus = load(answered(*answers), empty_labels="negative")
    assert names(corpus) == [["a"], [], None]


def test_choices_made_with_prodigy(load, refused):
    table = answered(
        ("one", ["a", "b"], "accept"),
        ("two", ["a"], "reject"),
        ("three", [], "accept"),
        column="accept",
    )
    assert "for choices made with Prodigy: --label_column accept" in refused(table)
    corpus = load(table, label_column="accept", empty_labels="negative")
    assert names(corpus) == [["a", "b"], None, []]


def test_another_column_called_answer_means_nothing(load, refused):
    table = answered(("one", "a", "42"), ("two", "b", "accept"), ("three", "a", "reject"))
    assert names(load(table)) == [["a"], ["b"], ["a"]]
    error = refused(answered(("one", "a", "accept"), ("two", "b", "yes")))
    assert "row 2: the answer is 'yes'; Prodigy writes accept, reject, ignore" in error


# One column per label, one row per label


def wide(*values, names=("bug", "docs")):
    return [
        {"text": f"text {number}", **dict(zip(names, row, strict=True))}
        for number, row in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("zero", "one"),
    [(0, 1), ("0", "1"), (0.0, 1.0), ("0.0", "1.0"), (False, True), ("FALSE", "True")],
)
def test_one_column_per_label(load, refused, zero, one):
    table = wide((one, zero), (one, one), (zero, one), (None, ""), (float("nan"), None))
    assert "for columns of 0 and 1: --label_columns bug docs" in refused(table)
    corpus = load(table, label_columns=["bug", "docs"])
    assert names(corpus) == [["bug"], ["bug", "docs"], ["docs"], None, None]


def test_columns_that_do_not_say_whether_a_label_applies(load, refused):
    flags = {"label_columns": ["bug", "docs"]}
    assert "row 2: all columns of --label_columns are 0" in refused(wide((1, 0), (0, 0)), **flags)
    assert names(load(wide((1, 0), (0, 0)), empty_labels="negative", **flags)) == [["bug"], []]
    assert "row 2: column 'docs' is blank" in refused(wide((1, 0), (1, "")), **flags)
    assert "row 1: column 'docs' of --label_columns holds '2'" in refused(wide((1, 2)), **flags)
    error = refused(wide((1, 0)), label_columns=["bug", "doc"])
    assert "no column 'doc' (found: text, bug, docs); did you mean 'docs'?" in error
    error = refused(wide((1, 0)), label_column="bug", label_columns=["docs"])
    assert error == "--label_columns and --label_column: give one of them"


def test_held_out_files_are_read_as_the_data(tmp_path):
    """In a table with one row per text and label, few texts of the test set may have several."""
    train = long(*((f"text {i % 10}", "ab"[i // 10]) for i in range(20)))
    test = long(*((f"test {i}", "a") for i in range(60)), ("test 0", "b"), ("test 1", "b"))
    paths = {}
    for name, table in (("data", train), ("test_data", test)):
        paths[name] = str(tmp_path / f"{name}.jsonl")
        lines = "".join(json.dumps(row) + "\n" for row in table)
        (tmp_path / f"{name}.jsonl").write_text(lines, "utf-8")
    args = SplitArguments(**paths, cache_dir=str(tmp_path / "cache"))
    corpus, held_out = load_corpus(args)
    assert corpus.report["joined_rows"] == 10
    assert names(held_out["test"])[:3] == [["a", "b"], ["a", "b"], ["a"]]
    assert held_out["test"].report["label_conflicts"] == 0


def test_one_pair_of_labels_is_a_conflict_and_no_table_of_pairs(load):
    corpus = load(long(*((f"text {i}", "a") for i in range(15)), ("text 0", "b")))
    assert corpus.single_label
    assert "sets of exact duplicates with different labels 1" in corpus.describe(brief=True)


def long(*pairs):
    return [{"text": text, "label": label} for text, label in pairs]


def test_a_table_with_one_row_per_text_and_label(load):
    table = long(("one", "a"), ("two", "b"), ("one", "b"), ("three", "a"), ("three", "c"))
    corpus = load(table, min_label_count=2)
    assert names(corpus) == [["a", "b"], ["b"], ["a"]]
    assert corpus.report["labels"] == {"a": 2, "b": 2}
    assert corpus.report["labels_left_out"] == {"c": 1}
    assert list(corpus.dataset["row"]) == [1, 2, 4]
    assert (corpus.report["joined_rows"], corpus.report["exact_duplicates"]) == (2, 0)
    assert "note: one row per text and label: the labels of 2 rows were added" in corpus.describe()
    first = load(table, duplicate_labels="first")
    assert names(first) == [["a"], ["b"], ["a"]]
    assert first.report["label_conflicts"] == 2


def test_duplicates_that_disagree_are_no_such_table(load):
    agreeing = long(("one", "a"), ("one", "b"), ("two", "a"), ("two", "a"), ("three", "b"))
    few = long(("one", "a"), ("one", "b"), *((f"text {i}", "a") for i in range(40)))
    several = [{"text": "one", "labels": ["a"]}, {"text": "one", "labels": ["b"]}]
    several += [{"text": "two", "labels": ["a", "b"]}]
    for table in (agreeing, few, several):
        corpus = load(table)
        assert names(corpus)[0] == ["a"]
        assert corpus.report["label_conflicts"] == 1
        assert names(load(table, duplicate_labels="merge"))[0] == ["a", "b"]


def test_missing_values_of_pandas(load):
    nan = float("nan")
    table = [{"text": "one", "labels": "a"}, {"text": nan, "labels": "a"}]
    corpus = load([*table, {"text": "two", "labels": nan}])
    assert names(corpus) == [["a"], None]
    assert corpus.report["blank_texts"] == 1


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": 1, "data": {"text": "a"}, "annotations": []}, "an export of Label Studio must be"),
        ({"data": [{"text": "a", "labels": "b"}]}, "the file is one object: write one object per"),
    ],
)
def test_layouts_that_are_not_read_name_the_way_out(refused, row, expected):
    assert expected in refused([row])
