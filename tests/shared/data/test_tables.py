"""Tables of numbers and categories: what is read, counted and refused."""

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data import TableArguments, TableSchema, load_table, open_rows, read_rows

NUMBERS = st.none() | st.floats(-1e12, 1e12, allow_nan=False, width=64) | st.integers(-99, 99)
WORDS = st.none() | st.sampled_from(["red", "green", "a,b", 'say "x"', "ä"])
ROWS = st.lists(st.tuples(NUMBERS, WORDS, st.sampled_from(["yes", "no"])), min_size=10, max_size=40)


def table_file(path, header, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *[["" if cell is None else cell for cell in row] for row in rows]])
    path.write_text(text.getvalue(), encoding="utf-8")
    return str(path)


@pytest.fixture
def load(tmp_path):
    def load_rows(rows, header=("size", "colour", "label"), **flags):
        return load_table(
            TableArguments(data=table_file(tmp_path / "rows.csv", header, rows), **flags)
        )

    return load_rows


@settings(max_examples=20)
@given(rows=ROWS)
def test_cells_come_back(rows, tmp_path_factory):
    # Both classes, two categories and two numbers, so that no column is left out.
    rows = [*rows, (1.0, "red", "yes"), (2.0, "green", "no")]
    path = tmp_path_factory.mktemp("tables") / "rows.csv"
    table = load_table(
        TableArguments(data=table_file(path, ("size", "colour", "label"), rows), quoting="double")
    )
    schema, read = table.schema, table.parts["oof"]
    assert (schema.numeric, list(schema.categories)) == (["size"], ["colour"])
    assert [schema.label_names[label] for label in read.labels] == [row[2] for row in rows]
    spread = schema.units[0]
    for (size, colour, _), number, code in zip(rows, read.numbers, read.codes, strict=True):
        assert math.isnan(number[0]) == (size is None)
        if size is not None:
            value = float(number[0]) * spread + schema.offsets[0]
            assert value == pytest.approx(size, abs=1e-6 * max(spread, abs(size - value), 1))
        assert schema.categories["colour"][code[0] - 1] == (colour or "")
    # Equal rows, and only these, are in one group.
    keys = [
        ((number + 0.0).tobytes(), code.tobytes())  # -0 is 0
        for number, code in zip(read.numbers, read.codes, strict=True)
    ]
    for i, key in enumerate(keys):
        same = [j for j, other in enumerate(keys) if other == key]
        assert set(np.flatnonzero(table.groups == table.groups[i])) == set(same)
    # The same file, read by the schema that has gone through JSON, gives the same rows.
    again, _ = read_rows(
        TableSchema(**schema.as_dict()),
        open_rows(TableArguments(quoting="double"), str(path)),
        labelled=True,
    )
    for name in ("numbers", "codes", "labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(read, name))


ENOUGH = [(i % 7, "ab"[i % 2], "yn"[i % 3 == 0]) for i in range(30)]


def test_large_numbers_keep_their_digits(load):
    start = 1_700_000_000_000
    rows = [(start + i, "a", "yn"[i % 2]) for i in range(30)]
    table = load(rows)
    values = table.parts["oof"].numbers[:, 0].astype(float) * table.schema.units[0]
    np.testing.assert_allclose(np.diff(values), 1, atol=1e-4)
    assert any("looks like a number of the row" in note for note in table.notes)


def test_what_is_left_out_is_said(load):
    rows = [(i % 7, f"name {i}", "same", "", "yn"[i % 3 == 0]) for i in range(60)]
    rows[5] = (*rows[5][:4], "")  # no class
    rows[8] = ("NA", *rows[8][1:])
    table = load(rows, ("size", "name", "constant", "empty", "target"))
    assert table.schema.columns == ["size"]
    assert table.schema.label_column == "target"
    text = table.describe()
    assert "1 rows without a class are left out" in text
    assert "column 'name' is left out: 59 different values in 59 rows" in text
    assert "column 'constant' is left out" in text
    assert "column 'empty' is left out" in text
    assert "missing cells: size 1" in text
    assert "51 rows repeat others" in text
    assert "7 of the repeated rows have several classes" in text
    assert len(table.parts["oof"]) == 59


def test_rows_that_repeat_a_test_row_do_not_train(load, tmp_path):
    test = table_file(tmp_path / "test.csv", ("label", "colour", "size"), [("y", "a", 6)])
    table = load(ENOUGH, test_data=test)
    schema, rows = table.schema, table.parts["oof"]
    sizes = np.rint(rows.numbers[:, 0] * schema.units[0] + schema.offsets[0])
    assert not [pair for pair in zip(sizes, rows.codes[:, 0], strict=True) if pair == (6, 1)]
    assert any("rows that repeat a test row are left out" in note for note in table.notes)
    assert len(table.groups) == len(rows) < 30


def test_named_columns(load):
    rows = [(i % 7, i % 3, "yn"[i % 2]) for i in range(30)]
    table = load(rows, ("a", "b", "c"), label_column="c", categorical_columns=["b"])
    assert table.schema.categories == {"b": ["0", "1", "2"]}
    table = load(rows, ("a", "b", "c"), label_column="c", drop_columns=["a"])
    assert table.schema.columns == ["b"]


def test_new_rows(load, tmp_path):
    schema = load(ENOUGH).schema
    path = table_file(tmp_path / "new.csv", ("colour", "size", "x"), [("c", 1, 0), ("a", "", 0)])
    rows, notes = read_rows(schema, open_rows(TableArguments(), path), labelled=False)
    assert rows.codes.tolist() == [[0], [1]]
    assert np.isnan(rows.numbers[:, 0]).tolist() == [False, True]
    assert any(
        "'colour': 1 rows have categories that the model has not seen: c" in n for n in notes
    )

    for header, row, message in (
        (("colour",), ("a",), "no column 'size', which the model reads"),
        (("colour", "size"), ("a", "big"), "column 'size' has 'big'; it must be a number"),
        (("colour", "size", "label"), ("a", 1, "maybe"), "the class 'maybe' in column 'label'"),
        (("colour", "size", "label"), ("a", 1, ""), "no class in column 'label'"),
    ):
        path = table_file(tmp_path / "wrong.csv", header, [row])
        with pytest.raises(UserError, match=message):
            read_rows(schema, open_rows(TableArguments(), path), labelled="label" in header)


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([], {}, "no rows"),
        ([(1, "a", "")], {}, "no row has a class"),
        ([(1, "a", "y"), (2, "b", "y")], {}, "all rows have the class 'y'"),
        ([(1, "a", i / 7) for i in range(30)], {}, "30 different values in 30 rows are no classes"),
        ([(1, "a", "yn"[i % 2]) for i in range(9)], {}, "no column to learn from"),
        (ENOUGH, {"label_column": "lable"}, "no column 'lable'.*did you mean 'label'"),
        (ENOUGH, {"drop_columns": ["id"]}, "no column 'id'.*--drop_columns"),
        (ENOUGH, {"categorical_columns": ["color"]}, "did you mean 'colour'"),
        ([*ENOUGH, ("1,5", "a", "y")], {}, "row 31.*'size' has '1,5', and numbers in 30 of 31"),
    ],
)
def test_mistakes(rows, flags, message, load):
    with pytest.raises(UserError, match=message):
        load(rows, **flags)


def test_a_table_of_classes_alone_is_a_mistake(load):
    with pytest.raises(UserError, match=r"rows\.csv: no column to learn from$"):
        load([("y",), ("n",)] * 9, header=("label",))


def test_the_sample():
    table = load_table(TableArguments())
    assert len(table.parts["oof"]) == 569
    assert table.schema.label_names == ["benign", "malignant"]
