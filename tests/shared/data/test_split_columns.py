"""Splits that a column names: parts and times, whatever their form, and nothing leaks back."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import write

from shared.cli.errors import UserError
from shared.data.arguments import SplitArguments, check_split_flags
from shared.data.corpus import load_corpus
from shared.data.split_columns import drop_repeats, split_by_time, time_spans
from shared.data.splits import split_corpus
from shared.data.times import parse_times

DAY = 86_400 * 10**9


@pytest.fixture
def split(tmp_path):
    """`split(rows, **flags)` loads and splits."""

    def split(rows, **flags):
        path = write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        args = SplitArguments(data=str(path), cache_dir=str(tmp_path / "cache"), **flags)
        corpus, held_out = load_corpus(args)
        return split_corpus(corpus, held_out, args, seed=0)

    return split


def rows_of(values, column="when"):
    return [
        {
            "text": f"{'abcdefghijklmnopqrst'[i % 20] * 9} {i * 977}",
            "labels": "xy"[i % 2],
            column: v,
        }
        for i, v in enumerate(values)
    ]


def mistake(split, rows, **flags):
    with pytest.raises(UserError) as error:
        split(rows, **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


# Times


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    days=st.lists(st.integers(0, 12), min_size=3, max_size=60),
    valid_size=st.sampled_from([0, 0.1, 0.25]),
    test_size=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_the_past_teaches_and_equal_times_stay_together(days, valid_size, test_size):
    times = np.array(days, np.int64) * DAY
    sizes = {"valid_size": valid_size, "test_size": test_size}
    if len(set(days)) < 2 + (valid_size > 0):
        with pytest.raises(UserError, match="too few for"):
            split_by_time(times, column="when", **sizes)
        return
    train, valid, test = split_by_time(times, column="when", **sizes)
    assert sorted([*train, *valid, *test]) == list(range(len(days)))
    parts = [part for part in (train, valid, test) if len(part)]
    assert len(parts) == 2 + (valid_size > 0)
    for before, after in pairwise(parts):
        assert times[before].max() < times[after].min()


def test_sizes_are_the_shares_where_times_differ():
    rng = np.random.default_rng(0)
    times = rng.permutation(1000) * DAY
    parts = split_by_time(times, valid_size=0.2, test_size=0.1, column="when")
    assert [len(part) for part in parts] == [700, 200, 100]
    spans = time_spans({"train": times[parts[0]], "test": times[parts[2]]})
    assert spans == {"train": ("1970-01-01", "1971-12-01"), "test": ("1972-06-19", "1972-09-26")}


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["2024-05-30", "2024-05-31T02:00:00+02:00"], "dates"),
        (["1717027200", "1717113600"], "seconds since 1970"),
        (["1717027200.0", "1717113600.0"], "seconds since 1970"),
        (["1717027200000", "1717113600000"], "milliseconds since 1970"),
        (["20240530", "20240531"], "dates"),
        (["30.05.2024", "31.05.2024 00:00"], "dates such as day.month.year"),
        (["30/05/2024", "31/05/2024"], "dates such as day/month/year"),
        (["05/30/2024", "05/31/2024"], "dates such as month/day/year"),
        (["Thu, 30 May 2024 00:00:00 +0000", "May 31, 2024"], "dates"),
    ],
)
def test_forms_of_times(cells, form):
    times = parse_times(cells)
    assert times.form == form
    assert times.readable.all()
    assert times.nanoseconds.tolist() == [1717027200 * 10**9, 1717113600 * 10**9]


@pytest.mark.parametrize("wrong", ["yesterday", "12:30", "5", "2024-13-45", "now"])
def test_what_is_no_time_is_not_read(wrong):
    assert parse_times(["2024-05-30", "2024-05-31", wrong]).readable.tolist() == [True, True, False]


def test_years_and_numbers_of_another_size():
    years = parse_times(["2019", "2021"])
    assert years.form == "years"
    assert years.nanoseconds[1] == 1609459200 * 10**9
    assert parse_times(["1717027200", "1717113600", "0"]).readable.tolist() == [True, True, False]


def test_days_and_months_that_cannot_be_told_apart(split):
    rows = rows_of([f"0{1 + i % 9}/0{1 + i % 8}/2024" for i in range(20)])
    error = mistake(split, rows, split_time="when")
    assert "may begin with the day or the month; write dates as year-month-day" in error


def test_split_by_time(split):
    rows = rows_of([f"2024-01-{1 + 7 * i % 20:02}" for i in range(20)])
    parts = split(rows, split_time="when", valid_size=0.2, test_size=0.3)
    days = {
        part: sorted({r["when"] for r in rows} & {rows[n - 1]["when"] for n in data["row"]})
        for part, data in parts.rows.items()
    }
    assert max(days["train"]) < min(days["valid"]) <= max(days["valid"]) < min(days["test"])
    assert (
        "split by time (when): 10 train (2024-01-01 to 2024-01-10), 4 valid (2024-01-11 to "
        "2024-01-14), 6 test (2024-01-15 to 2024-01-20) texts" in parts.describe()
    )
    assert parts.method.metrics()["split_test_from"] == "2024-01-15"


def test_missing_and_unreadable_times_are_named(split):
    rows = rows_of([f"2024-01-{1 + i:02}" for i in range(20)])
    rows[3]["when"] = None
    rows[8] |= {"when": None, "labels": None}  # unlabelled: it needs none
    error = mistake(split, rows, split_time="when")
    assert error.endswith(
        "column 'when' of --split_time has no time in row 4; every row that is used needs one"
    )
    rows[3]["when"] = "soon"
    assert "holds 'soon', no time that is read as dates, in row 4; write ISO 8601" in mistake(
        split, rows, split_time="when"
    )
    assert "no column 'wen' (found: text, labels, when); did you mean 'when'?" in mistake(
        split, rows, split_time="wen"
    )
    same = rows_of(["2024-01-01"] * 20)
    assert "have only 1 different times, too few for 3 parts" in mistake(
        split, same, split_time="when"
    )


def test_repeats_of_the_future_are_not_learned(split):
    rows = rows_of([f"2024-01-{1 + i:02}" for i in range(20)])
    long = " ".join(f"word{i}" for i in range(60))
    rows[0]["text"], rows[19]["text"] = long, f"{long} again"
    rows.append({"text": "new, unlabelled", "labels": None, "when": "2024-02-01"})
    rows.append({"text": "old, unlabelled", "labels": None, "when": "2023-02-01"})
    rows.append({"text": "unlabelled, when nobody knows", "labels": None, "when": None})
    parts = split(rows, split_time="when")
    assert parts.repeated == 1
    assert 1 not in parts.rows["train"]["row"][:]
    assert (
        "left out: 1 labelled texts that nearly repeat a text of a later part" in parts.describe()
    )
    assert [parts.corpus.dataset["text"][int(i)] for i in parts.unlabelled] == ["old, unlabelled"]
    assert split(rows, split_time="when", drop_repeated=False).repeated == 0


@given(groups=st.lists(st.integers(0, 5), min_size=9, max_size=9), seed=st.integers(0, 9))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_no_group_is_in_two_parts(groups, seed):
    groups = np.array(groups)
    train, valid, test = np.split(np.random.default_rng(seed).permutation(9), [4, 7])
    if np.isin(groups[valid], groups[test]).all():
        with pytest.raises(UserError, match="all 3 validation rows nearly repeat a test row"):
            drop_repeats(groups, train, valid, test)
        return
    kept_train, kept_valid = drop_repeats(groups, train, valid, test)
    for one, other in ((kept_train, kept_valid), (kept_train, test), (kept_valid, test)):
        assert not set(groups[one]) & set(groups[other])
    assert set(train) - set(kept_train) == {
        i for i in train if groups[i] in groups[[*valid, *test]]
    }


# Parts


def test_split_by_a_column_of_parts(split):
    values = ["train", "Training", "dev", "test", "validation", "train", "TEST", "train"] * 2
    parts = split(rows_of(values), split_by="when")
    expected = {
        "train": {"train", "Training"},
        "valid": {"dev", "validation"},
        "test": {"test", "TEST"},
    }
    for part, names in expected.items():
        assert {values[row - 1] for row in parts.rows[part]["row"]} == names
    assert "split by column (when): 8 train, 4 valid, 4 test texts" in parts.describe()
    assert parts.method.metrics() == {"split": "column", "split_column": "when"}
    without = split(rows_of(values), split_by="when", valid_size=0)
    assert [len(without.labels[part]) for part in expected] == [8, 0, 4]
    assert "the validation rows of the column are not used (--valid_size 0)" in without.describe()
    error = mistake(split, rows_of(values), split_by="when", valid_size=0.1)
    assert error == "--valid_size: the validation rows are those of --split_by when"


def test_validation_rows_are_drawn_if_the_column_has_none(split):
    rows = rows_of(["train"] * 16 + ["test"] * 4)
    parts = split(rows, split_by="when", valid_size=0.25)
    assert [len(parts.labels[part]) for part in ("train", "valid", "test")] == [12, 4, 4]
    assert "they are drawn from the training rows" in parts.describe()
    assert len(split(rows, split_by="when", valid_size=0).labels["valid"]) == 0


def test_a_repeated_text_belongs_to_the_test_set(split):
    rows = [*rows_of(["train", "train", "test", "train", "test", "train"])]
    rows[5] |= {"text": rows[2]["text"]}
    rows.insert(0, {**rows[4], "when": "train"})
    parts = split(rows, split_by="when", valid_size=0)
    assert parts.rows["test"]["row"][:] == [4, 6]


def test_values_that_name_no_part(split):
    rows = rows_of(["train", "test", "holdout", "train"])
    error = mistake(split, rows, split_by="when")
    assert "holds 'train', 'test', 'holdout'; 'holdout' is not one of train, valid" in error
    rows = rows_of(["train", "test", None, "train", ""])
    error = mistake(split, rows, split_by="when")
    assert "row 3: no value in column 'when' of --split_by (and in 1 more); every" in error
    error = mistake(split, rows_of(["train"] * 9), split_by="when")
    assert error.startswith("--split_by when: no row to use is for test")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"split_by": "a", "split_time": "b"}, "--split_by and --split_time: give one of them"),
        ({"split_by": "a", "test_data": "b"}, "--split_by: divides the rows of --data; remove"),
        ({"split_time": "a", "valid_data": "b"}, "--split_time: divides the rows of --data; rem"),
        ({"split_time": "a", "test_size": 0.0}, "--test_size 0: --split_time needs test rows"),
    ],
)
def test_flags_that_do_not_fit(flags, expected):
    with pytest.raises(UserError, match=expected):
        check_split_flags(SplitArguments(**flags))
