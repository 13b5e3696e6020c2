"""The figures of a data set whose parts a test can count by itself."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.arguments import DataArguments
from shared.data.corpus import load_data
from shared.data.label_conflicts import TextGroup
from shared.reports.exploration import (
    MOST_PERIODS,
    _group_entry,
    _histogram,
    _periods,
    similar_names,
    time_figures,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=50))
def test_a_histogram_has_every_value_once(values):
    values = np.array(values)
    bins = _histogram(values)
    for bin in bins[:-1]:
        assert bin["texts"] == ((values >= bin["from"]) & (values < bin["to"])).sum()
    assert sum(bin["texts"] for bin in bins) == len(values)
    for before, after in pairwise(bins):
        assert before["to"] == after["from"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 20_000), st.lists(st.integers(0, 20_000), min_size=1, max_size=30))
def test_a_day_lies_in_its_period_and_periods_are_few(first, offsets):
    days = np.array([first + offset for offset in offsets]).astype("datetime64[D]")
    unit, starts = _periods(days)
    length = {"day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}[unit]
    since = (days - starts).astype(int)
    assert ((since >= 0) & (since < length)).all()
    span = (days.max() - days.min()).astype(int) + 1
    if unit != "year":
        assert span <= MOST_PERIODS * length
    if unit == "week":
        assert {start.astype(object).weekday() for start in starts} == {0}
    if unit == "quarter":
        assert {str(start)[5:] for start in starts} <= {"01-01", "04-01", "07-01", "10-01"}


def test_a_label_that_comes_with_time_is_a_shift(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"text {chr(97 + i % 26)} {i * 97},{'new' if i >= 72 else 'old'}" for i in range(100)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    corpus = load_data(DataArguments(data=str(path), cache_dir=str(tmp_path / "cache")))
    times = np.datetime64("2020-01-01", "ns") + np.arange(100) * np.timedelta64(10, "D")
    times[::20] = np.datetime64("NaT")
    figures = time_figures(corpus, "when", times[: len(corpus.dataset)])
    assert (figures["dated"], figures["undated"], figures["unit"]) == (95, 5, "month")
    assert sum(figures["texts"]) == sum(figures["labelled"]) == 95
    shifts = {shift["label"]: shift for shift in figures["shifts"]}
    assert shifts["new"]["after"] == 1
    assert shifts["new"]["before"] == pytest.approx(4 / 72)
    assert shifts["new"]["z"] == -shifts["old"]["z"] > 8


def test_texts_of_one_time_are_not_divided(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"text {chr(97 + i % 26)} {i * 97},{'b' if i >= 50 else 'a'}" for i in range(100)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    corpus = load_data(DataArguments(data=str(path), cache_dir=str(tmp_path / "cache")))
    times = np.full(100, np.datetime64("2024-05-01", "ns"))
    assert time_figures(corpus, "when", times)["shifts"] == []
    times[60:] += np.timedelta64(1, "D")
    figures = time_figures(corpus, "when", times)
    assert figures["newest_share"] == 0.4
    assert {s["label"]: s["after"] for s in figures["shifts"]} == {"a": 0, "b": 1}


def test_a_group_names_rows_of_each_set_of_labels(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"the same text,{'b' if i >= 150 else 'a'}" for i in range(300)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    flags = {"data": str(path), "cache_dir": str(tmp_path / "c"), "duplicate_labels": "separate"}
    corpus = load_data(DataArguments(**flags))
    entry = _group_entry(corpus, TextGroup([*range(300)], 1, 2, True))
    sets = {
        tuple(e["labels"]): (e["texts"], e["rows"][:2], len(e["rows"])) for e in entry["labels"]
    }
    assert sets == {("a",): (150, [1, 2], 50), ("b",): (150, [151, 152], 50)}
    assert {tuple(e["labels"]) for e in entry["examples"]} == {("a",), ("b",)}


def test_names_that_differ_in_case_signs_or_a_plural():
    assert similar_names(["C", "C++", "C#"]) == []
    names = ["bug", "Bug", "good-first issue", "Good first issues", "docs", "", "!", "体育"]
    assert similar_names(names) == [["bug", "Bug"], ["good-first issue", "Good first issues"]]
