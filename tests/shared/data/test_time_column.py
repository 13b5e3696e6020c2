import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.data.arguments import DataArguments
from shared.data.time_column import read_time_column


@pytest.fixture
def times(load, tmp_path):
    """`times(cells, name)` reads the times of rows, the second of which is blank."""

    def times(cells, name="created_at", column=None):
        rows = [
            {"text": f"text {chr(97 + i)}", "labels": "ab"[i % 2], name: cell}
            for i, cell in enumerate(cells)
        ]
        rows.insert(1, {"text": " ", "labels": "a", name: "1970-01-01"})
        corpus = load(rows)
        args = DataArguments(data=str(tmp_path / "rows.jsonl"), cache_dir=str(tmp_path / "cache"))
        return read_time_column(args, corpus, column)

    return times


def days(values):
    return np.array(values, "datetime64[D]")


def test_rows_keep_their_times(times):
    name, values = times(["2024-02-03T04:05:06Z", None, "2024-03-01", "soon"])
    assert name == "created_at"
    np.testing.assert_array_equal(
        values.astype("datetime64[D]"), days(["2024-02-03", "NaT", "2024-03-01", "NaT"])
    )


def test_seconds_in_a_named_column(times):
    _, values = times([1_700_000_000, 1_710_000_000], name="when", column="when")
    np.testing.assert_array_equal(
        values.astype("datetime64[D]"), days(["2023-11-14", "2024-03-09"])
    )


def test_what_is_no_time_is_passed_over_unless_it_is_named(times, capsys):
    assert times(["a", "b", "2024-01-01"], name="date") is None
    assert times(["03/04/2024", "04/03/2024"], name="date") is None
    assert "column 'date' is not read as times" in capsys.readouterr().out
    assert times([1, 2], name="other") is None
    with pytest.raises(UserError, match="--time_column date: no row"):
        times(["a", "b"], name="date", column="date")
    with pytest.raises(UserError, match="--time_column date: some dates such as '03/04/2024'"):
        times(["03/04/2024", "04/03/2024"], name="date", column="date")
    with pytest.raises(UserError, match=r"--time_column when: .* has no such column"):
        times(["2024-01-01"] * 2, column="when")
