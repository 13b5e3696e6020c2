"""A file becomes a series at equal steps, or a line says why not."""

import dataclasses
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.series.arguments import SeriesArguments
from shared.series.steps import Step, find_step
from shared.series.table import load_series

HOURS = np.datetime64("2024-01-01T00", "h") + np.arange(6)


@dataclasses.dataclass
class Arguments(SeriesArguments):
    seed: int = 0


@pytest.fixture
def load(tmp_path):
    """Return a function that writes a CSV and loads it."""

    def load_text(text, **settings):
        path = tmp_path / "table.csv"
        path.write_text(text, encoding="utf-8")
        return load_series(Arguments(data=str(path), **settings))

    return load_text


def table(times, *columns, header="date,a"):
    rows = zip(times, *columns, strict=True)
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def test_missing_rows_and_cells_are_gaps(load):
    text = table(HOURS[[0, 1, 2, 4, 5]], [1, 2, "", 5, "NaN"])
    series = load(text)
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, np.nan, np.nan, 5, np.nan])
    assert str(series.step) == "1 hour"
    assert "gaps: 1 missing times, 2 missing values" in series.describe()
    assert "6 steps of 1 hour, 2024-01-01 00:00:00 to 2024-01-01 05:00:00" in series.describe()
    assert series.time_texts(5, 7) == ["2024-01-01 05:00:00", "2024-01-01 06:00:00"]
    rows = load(text, steps="rows")
    assert len(rows.values) == 5
    assert rows.time_texts(4, 6) == ["2024-01-01 05:00:00", ""]


def test_the_time_column_is_found_by_name_or_by_what_it_holds(load):
    named = load(table(HOURS, range(6), range(6), header="Date,Timestamp,b"))
    assert named.columns == ["Timestamp", "b"]
    by_values = load(table(range(6), HOURS, list("xyzxyz"), header="a,when,c"))
    assert by_values.columns == ["a"]
    assert by_values.times is not None
    assert "note: columns that hold no numbers are not read: c" in by_values.describe()
    # Numbers that are no times, in spite of the name.
    counted = load(table(range(6), HOURS, range(6), header="time,when,b"))
    assert counted.columns == ["time", "b"]
    assert counted.times is not None
    none = load(table(range(6), range(6), header="a,b"))
    assert none.times is None
    assert none.columns == ["a", "b"]
    assert "note: no column of times: each row is a step" in none.describe()
    assert none.time_texts(5, 7) == ["", ""]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("2024-01-02,1\n2024-01-01,2", r"table.csv, .*2.*2024-01-01T00:00:00 comes after .*sort"),
        ("2024-01-01,1\n2024-01-01,2", r"is that of the row before, too .*several series"),
        ("2024-01-01,1\nsoon,2", r"'date' holds 'soon', not a time"),
        ("2024-01-01,1\n,2", r"no time in column 'date'"),
        ("2024-01-01,1\n2024-01-02,2\n2024-01-03,x", r"no column of numbers|holds 'x'"),
        (
            "2024-01-01,1\n2024-01-02,2\n2024-01-03 05:00,3\n2024-01-04 05:00,3",
            r"not a whole number of steps of 1 day.*2 such rows.*--steps rows",
        ),
        ("2024-01-01,1\n2024-01-02,2\n2034-01-03,3", r"jumps by 3,654 steps of 1 day"),
        (
            "03/04/2024,1\n03/05/2024,2",
            r"table.csv, column 'date': some dates such as '03/04/2024'",
        ),
        ("2024-01-01,1", "fewer than two rows"),
        ("", "no rows"),
    ],
)
def test_a_mistake_is_named_with_its_place(load, rows, message):
    with pytest.raises(UserError, match=message):
        load("date,a\n" + rows + "\n")


@pytest.mark.parametrize("cell", ["abc", "inf", "2;5"])
def test_a_column_of_numbers_is_not_left_out_for_one_wrong_cell(load, cell):
    with pytest.raises(UserError, match=r"table\.csv, row 2: column 'a' holds .*, not a number"):
        load(table(HOURS, [1, cell, 3, "", 5, 6], range(6), header="date,a,b"))


def test_a_cell_of_a_named_column_must_be_a_number(load):
    text = table(HOURS, [1, 2, "2;5", 4, 5, 6])
    with pytest.raises(UserError, match=r"'a' holds '2;5', not a number; write numbers as 1234\.5"):
        load(text, columns=["a"])
    with pytest.raises(UserError, match=r"holds 'inf', not a number"):
        load(text.replace("2;5", "inf"), columns=["a"])
    for flag in ("columns", "target_columns"):
        with pytest.raises(UserError, match=rf"no column 'A'.*did you mean 'a'|--{flag}"):
            load(text, **{flag: ["A"]})
    with pytest.raises(UserError, match="--target_columns b: is not among --columns"):
        load(text, columns=["a"], target_columns=["b"])


@given(
    st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2080, 1, 1)),
    st.sampled_from([60, 900, 3600, 86_400, 7 * 86_400, 10 * 86_400]),
    st.sets(st.integers(2, 60), min_size=5),
)
@settings(deadline=None)
def test_the_step_of_fixed_times_is_found_despite_gaps(first, seconds, places):
    step = Step(nanoseconds=seconds * 10**9)
    # The first steps follow each other; of the rest, some are missing.
    kept = np.array([0, 1, 2, *range(100, 170), *(170 + p for p in sorted(places))])
    times = step.times(np.datetime64(first.replace(microsecond=0), "ns"), 300)[kept]
    actual = find_step(times)
    assert actual == step
    np.testing.assert_array_equal(actual.places(times), kept)


@pytest.mark.parametrize(("months", "words"), [(1, "1 month"), (3, "3 months"), (12, "1 year")])
@pytest.mark.parametrize("first", ["2019-01-01", "2019-03-15T06", "2019-01-31"])
def test_months_are_steps_although_their_days_differ(months, words, first):
    step = Step(months=months)
    times = step.times(np.datetime64(first, "ns"), 30)
    if first.endswith("31"):
        assert times[1] == np.datetime64(
            {1: "2019-02-28", 3: "2019-04-30", 12: "2020-01-31"}[months]
        )
    assert find_step(np.delete(times, [7, 12])) == step
    np.testing.assert_array_equal(step.places(times), np.arange(30))
    assert str(step) == words


def test_the_sample_is_always_the_same():
    series = load_series(Arguments())
    again = load_series(Arguments(columns=["load"]))
    assert series.columns == ["load", "temperature"]
    np.testing.assert_array_equal(series.values[:, :1], again.values)
    assert np.isfinite(series.values).all()
    assert len(series.values) == 8760
    with pytest.raises(UserError, match="no column 'lod'"):
        load_series(Arguments(target_columns=["lod"]))
