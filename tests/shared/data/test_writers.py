"""Rows that are written are the rows that are read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.readers import open_source
from shared.data.writers import as_text, output_format, write_json_lines, write_parquet

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
OBJECTS = st.fixed_dictionaries({"name": TEXTS}, optional={"id": st.integers(0, 9)})
ROWS = st.lists(
    st.fixed_dictionaries(
        {"title": TEXTS, "labels": st.lists(OBJECTS, max_size=3)},
        optional={"body": st.none() | TEXTS, "user": OBJECTS, "number": st.integers(0, 99)},
    ),
    min_size=1,
    max_size=6,
)


def without_nulls(value):
    """Return a value without what Parquet adds: a null for each key that another row has."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [*map(without_nulls, value)] if isinstance(value, list) else value


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_json_lines_hold_the_rows(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl.gz"
    with path.open("wb") as file, as_text(file, compressed=True) as text:
        write_json_lines(text, rows)
    assert list(open_source(str(path)).read()) == rows


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_parquet_holds_the_rows(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    with path.open("wb") as file:
        write_parquet(file, lambda: iter(rows))
    assert without_nulls(list(open_source(str(path)).read())) == without_nulls(rows)


def test_objects_that_parquet_cannot_hold_become_text(tmp_path):
    rows = [{"a": {}, "b": {"c": []}}, {"a": {}, "b": {"c": [{}]}}, {"a": None, "b": 1}]
    path = tmp_path / "rows.parquet"
    with path.open("wb") as file:
        write_parquet(file, lambda: iter(rows))
    assert list(open_source(str(path)).read()) == [
        {"a": "{}", "b": '{"c": []}'},
        {"a": "{}", "b": '{"c": [{}]}'},
        {"a": None, "b": "1"},
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/B.JSONL.GZ", (".jsonl", True)),
        ("a.parquet", (".parquet", False)),
        ("a.b.csv", (".csv", False)),
        ("a.gz/b", ("", False)),
    ],
)
def test_the_suffix_is_the_format(path, expected):
    assert output_format(path) == expected
