"""`TimeSeries`: values of columns at equal steps of time, and how a file becomes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.data.columns import missing_column
from shared.data.preparation import cell_as_text
from shared.data.readers import open_source
from shared.data.time_column import LEAST_READABLE, USUAL_NAMES
from shared.data.times import parse_times
from shared.series.sample import make_sample
from shared.series.steps import Step, find_step

if TYPE_CHECKING:
    from shared.data.sources import Source
    from shared.series.arguments import SeriesArguments

_MISSING = {"na", "nan", "n/a", "null", "none"}
# More steps than this for each row are a wrong time, not gaps.
MOST_STEPS_PER_ROW = 20


@dataclass(frozen=True)
class TimeSeries:
    """Values of columns at equal steps.

    Attributes
    ----------
    name : what was read.
    columns : names of the columns.
    values : float64 array of shape (steps, columns); NaN where a value is missing.
    times : datetime64[ns] array of shape (steps,), in UTC; None without a time column.
    step : between two times; None if each row is a step.
    n_missing_times : steps without a row.
    n_missing_values : blank cells of the rows that there are.
    notes : what a user should know about the way in which the file was read.
    """

    name: str
    columns: list[str]
    values: np.ndarray
    times: np.ndarray | None
    step: Step | None
    n_missing_times: int = 0
    n_missing_values: int = 0
    notes: tuple[str, ...] = ()

    def time_texts(self, start: int, stop: int) -> list[str]:
        """Return the times of steps as ISO 8601; blank where none is known.

        Steps from ``len(values)`` on are those after the end.
        """
        if self.times is None:
            return [""] * (stop - start)
        times = self.times
        if stop > len(times):
            if self.step is None:
                later = np.full(stop - len(times), np.datetime64("NaT"), "datetime64[ns]")
            else:
                later = self.step.times(times[-1], stop - len(times) + 1)[1:]
            times = np.concatenate([times, later])
        unit = next(
            (u for u in ("D", "s") if (self.times == self.times.astype(f"datetime64[{u}]")).all()),
            "ns",
        )
        texts = times[start:stop].astype(f"datetime64[{unit}]").astype(str).tolist()
        return ["" if text == "NaT" else text.replace("T", " ") for text in texts]

    def describe(self) -> str:
        """Return what was read, and what is missing, in a few lines."""
        n = len(self.values)
        unit = "rows" if self.step is None else f"steps of {self.step}"
        period = ""
        if self.times is not None:
            first, last = self.time_texts(0, 1)[0], self.time_texts(n - 1, n)[0]
            period = f", {first} to {last}"
        lines = [f"{self.name}: {n:,} {unit}{period}", f"columns: {', '.join(self.columns)}"]
        if self.n_missing_times or self.n_missing_values:
            lines.append(
                f"gaps: {self.n_missing_times:,} missing times, {self.n_missing_values:,} missing "
                "values"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def load_series(args: SeriesArguments, data: str | None = None) -> TimeSeries:
    """Read the columns that the flags name.

    Parameters
    ----------
    args : SeriesArguments
    data : str, optional
        In place of `args.data`.

    Raises
    ------
    UserError
        For a column that is missing or holds something other than numbers; for times that cannot
        be read, are not in ascending order, or do not lie at equal steps.
    """
    data = args.data if data is None else data
    for name in args.target_columns:
        if args.columns and name not in args.columns:
            raise UserError(f"--target_columns {name}: is not among --columns")
    if data == "sample":
        times, sample = make_sample()
        return _from_columns(
            *("sample", _named(args, sample, "sample"), times, args.steps == "rows"),
            time_at=lambda row: f"sample, row {row + 1}",
        )
    source = open_source(
        data,
        delimiter=args.delimiter,
        encoding=args.encoding,
        config=args.data_config,
        split=args.data_split,
    )
    time_column = _find_time_column(source, args.time_column)
    names, notes = _find_value_columns(source, args, time_column)
    needed = names if time_column is None else [*names, time_column]
    numbers: dict[str, list[float]] = {name: [] for name in names}
    stamps: list[str] = []
    for i, row in enumerate(source.read(needed, required=[])):
        for name in names:
            numbers[name].append(_number(row.get(name), lambda i=i: source.place(i + 1), name))
        if time_column is not None:
            text = cell_as_text(row.get(time_column))
            if text is None:
                raise UserError(
                    f"{source.place(i + 1)}: no time in column {time_column!r}; remove the row, or "
                    "give it a time"
                )
            stamps.append(text)
    if len(numbers[names[0]]) < 2:
        raise UserError(f"{source.name}: fewer than two rows; nothing can be forecast")
    stamps_read: np.ndarray | None = None
    if time_column is not None:
        try:
            parsed = parse_times(stamps)
        except UserError as error:
            raise UserError(f"{source.name}, column {time_column!r}: {error}") from error
        if not parsed.readable.all():
            bad = int(np.flatnonzero(~parsed.readable)[0])
            raise UserError(
                f"{source.place(bad + 1)}: column {time_column!r} holds {stamps[bad][:40]!r}, not "
                "a time; write times as 2024-12-31 23:00"
            )
        stamps_read = parsed.nanoseconds.view("datetime64[ns]")
    columns = {name: np.array(cells) for name, cells in numbers.items()}
    return _from_columns(
        *(source.name, columns, stamps_read, args.steps == "rows"),
        time_at=lambda row: source.place(row + 1),
        notes=(*source.notes, *notes),
    )


def _from_columns(
    name: str,
    columns: Mapping[str, np.ndarray],
    times: np.ndarray | None,
    rows_are_steps: bool,
    *,
    time_at: Any,
    notes: tuple[str, ...] = (),
) -> TimeSeries:
    """Return the series of columns (n,), at equal steps; `time_at(row)` is a place in messages."""
    values = np.stack(list(columns.values()), axis=1)
    n_missing = int(np.isnan(values).sum())
    if times is not None:
        _check_order(times, time_at)
    if times is None or rows_are_steps:
        if times is None:
            notes += ("no column of times: each row is a step",)
        return TimeSeries(name, list(columns), values, times, None, 0, n_missing, notes)
    step = find_step(times)
    places = step.places(times)
    between = np.flatnonzero(np.abs(places - places.round()) > 1e-6)
    if len(between):
        raise UserError(
            f"{time_at(int(between[0]))}: the time {times[between[0]].astype('datetime64[s]')} is "
            f"not a whole number of steps of {step} after the first one ({len(between):,} such "
            "rows); resample the series, or count each row as a step: --steps rows"
        )
    places = places.round().astype(int)
    if places[-1] >= MOST_STEPS_PER_ROW * len(times):
        jump = int(np.diff(places).argmax()) + 1
        raise UserError(
            f"{time_at(jump)}: the time jumps by {places[jump] - places[jump - 1]:,} steps of "
            f"{step}; correct it, cut the series there, or count each row as a step: --steps rows"
        )
    regular = np.full((places[-1] + 1, len(columns)), np.nan)
    regular[places] = values
    all_times = step.times(times[0], len(regular))
    missing_times = len(regular) - len(times)
    return TimeSeries(
        name, list(columns), regular, all_times, step, missing_times, n_missing, notes
    )


def _check_order(times: np.ndarray, time_at: Any) -> None:
    late = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "ns"))
    if not len(late):
        return
    row = int(late[0]) + 1
    time, before = times[[row, row - 1]].astype("datetime64[s]")
    if time == before:
        raise UserError(
            f"{time_at(row)}: the time {time} is that of the row before, too ({len(late):,} times "
            "are not later than the one before); if the file holds several series, give each a "
            "column; at the end of summer time, write times in UTC"
        )
    raise UserError(f"{time_at(row)}: the time {time} comes after {before}; sort the rows by time")


# --- which columns -------------------------------------------------------------------------------


def _find_time_column(source: Source, wanted: str | None) -> str | None:
    if wanted is not None:
        if wanted not in source.columns:
            raise missing_column(wanted, source.columns, "--time_column", source.name)
        return wanted
    rows = source.first_rows()
    lower = {name.lower(): name for name in reversed(source.columns)}
    named = [lower[usual] for usual in USUAL_NAMES if usual in lower]
    for name in [*named, *source.columns]:
        cells = [cell_as_text(row.get(name)) for row in rows]
        texts = [cell for cell in cells if cell is not None]
        if name not in named and any(map(_is_number, cells)):  # no times, or numbers
            continue
        try:
            if texts and parse_times(texts).readable.mean() >= LEAST_READABLE:
                return name
        except UserError:  # dates that can be read in two ways; the caller says so
            return name
    return None


def _find_value_columns(
    source: Source, args: SeriesArguments, time_column: str | None
) -> tuple[list[str], tuple[str, ...]]:
    """Return the columns to read, and notes about those that are not."""
    others = [name for name in source.columns if name != time_column]
    if args.columns:
        for name in args.columns:
            if name not in others:
                raise missing_column(name, others, "--columns", source.name)
        return list(dict.fromkeys(args.columns)), ()
    for name in args.target_columns:
        if name not in others:
            raise missing_column(name, others, "--target_columns", source.name)
    rows = source.first_rows()
    if not rows:
        raise UserError(f"{source.name}: no rows")
    names = []
    for name in others:
        cells = [text for row in rows if (text := cell_as_text(row.get(name))) is not None]
        # A column with a wrong cell is not left out: `_number` says where the cell is.
        n_numbers = sum(map(_is_number, cells))
        if name in args.target_columns or 2 * n_numbers > len(cells):
            names.append(name)
    if not names:
        raise UserError(
            f"{source.name}: no column of numbers (found: {', '.join(source.columns)}); write "
            "numbers as 1234.5"
        )
    left = [name for name in others if name not in names]
    notes = (f"columns that hold no numbers are not read: {', '.join(left)}",) if left else ()
    return names, notes


def _named(
    args: SeriesArguments, columns: Mapping[str, np.ndarray], source: str
) -> dict[str, np.ndarray]:
    for flag, names in (("--columns", args.columns), ("--target_columns", args.target_columns)):
        for name in names:
            if name not in columns:
                raise missing_column(name, list(columns), flag, source)
    return {name: columns[name] for name in args.columns or columns}


# --- one cell ------------------------------------------------------------------------------------


def _is_number(text: str | None) -> bool:
    """Return whether a cell is a finite number, or blank."""
    try:
        return text is None or text.lower() in _MISSING or np.isfinite(float(text))
    except ValueError:
        return False


def _number(cell: Any, place: Any, column: str) -> float:
    """Return a cell as a number, NaN if it is blank; `place()` is for messages."""
    if type(cell) is float and np.isfinite(cell):
        return cell
    text = cell_as_text(cell)
    if text is None or text.lower() in _MISSING:
        return np.nan
    if not _is_number(text):
        hint = "; write numbers as 1234.5" if any(c.isdigit() for c in text) else ""
        raise UserError(
            f"{place()}: column {column!r} holds {text[:40]!r}, not a number{hint}; leave the "
            "column out with --columns, or correct the cell"
        )
    return float(text)


def target_places(args: SeriesArguments, columns: Sequence[str]) -> list[int]:
    """Return where the columns to forecast are among those that are read."""
    return [list(columns).index(name) for name in args.target_columns or columns]
