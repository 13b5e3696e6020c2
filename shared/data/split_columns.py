"""The split that a column names: by part, or by time.

``--split_by`` reads a column with the part of each row, ``--split_time`` one with its time. Both
need arrays only. `shared.data.splits` applies them to the labelled rows of a data set; loaders
of other rows do so with `split_values` and `split_by_column`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.data.times import parse_times

if TYPE_CHECKING:
    import pyarrow as pa

    from shared.data.arguments import FoldSplitArguments, SplitColumnArguments

PARTS = ("train", "valid", "test")
_NAMES = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
_MOST_ROWS = 5  # that a message names


@dataclass(frozen=True)
class SplitMethod:
    """How the labelled rows were divided.

    Attributes
    ----------
    name : "random", "contiguous" (the last rows are held out), "files" (held-out files),
        "cross_validation", "column" or "time".
    column : of --split_by or --split_time.
    spans : for each part with rows, its first and its last time; only of "time".
    note : a sentence about a part that does not come from the column; "" if there is none.
    """

    name: str = "random"
    column: str = ""
    spans: dict[str, tuple[str, str]] = field(default_factory=dict)
    note: str = ""

    def describe(self, sizes: dict[str, int], unit: str = "texts") -> str:
        """Return the number of rows of each part, and how they were chosen; `unit` names rows."""
        by = {"column": f" by column ({self.column})", "time": f" by time ({self.column})"}
        parts = []
        for part, size in sizes.items():
            span = (
                f" ({self.spans[part][0]} to {self.spans[part][1]})" if part in self.spans else ""
            )
            parts.append(f"{size:,} {part}{span}")
        return f"split{by.get(self.name, '')}: {', '.join(parts)} {unit}{self.note}"

    def explain(self) -> str:
        """Return a sentence for a card."""
        return {
            "random": "Drawn at random, stratified by label; near duplicates are in one part.",
            "contiguous": "The last texts are held out.",
            "files": "Validation or test texts come from files of their own; other parts are "
            "drawn at random, stratified by label.",
            "cross_validation": "Cross-validation: folds drawn at random, stratified by label; "
            "near duplicates are in one fold.",
            "column": f"The column `{self.column}` of the data says the part of each text.",
            "time": f"By the time in the column `{self.column}`: training texts are the oldest, "
            "test texts the newest.",
        }[self.name]

    def metrics(self) -> dict[str, Any]:
        """Return the description for ``metrics.json``; flat."""
        values = {"split": self.name} | ({"split_column": self.column} if self.column else {})
        for part, (first, last) in self.spans.items():
            values |= {f"split_{part}_from": first, f"split_{part}_to": last}
        return values


# --- what a column says --------------------------------------------------------------------------


def split_values(
    args: SplitColumnArguments,
    cells: Sequence[str | None],
    rows: Sequence[int] | np.ndarray,
    source: str,
    place: Callable[[int], str],
) -> tuple[np.ndarray, list[str]]:
    """Return the part or the time of each row, for `split_by_column`, and notes.

    Parameters and errors are those of `read_parts` and `read_times`; every row needs a value.
    """
    import pyarrow as pa

    column = pa.chunked_array([pa.array(cells, pa.string())])
    known, numbers = np.ones(len(cells), bool), np.asarray(rows, int)
    if args.split_by:
        return read_parts(column, known, numbers, args.split_by, source, place), []
    assert args.split_time is not None
    times, notes = read_times(column, known, numbers, args.split_time, source)
    return times.to_numpy(), notes


def read_parts(
    cells: pa.ChunkedArray,
    known: np.ndarray,
    rows: np.ndarray,
    column: str,
    source: str,
    place: Callable[[int], str],
) -> np.ndarray:
    """Return the part of each row: its index in `PARTS`, -1 for none; int8, shape (rows,).

    Parameters
    ----------
    cells : n texts; null where the row has no value.
    known : bool array of shape (n,): whether the row is used (labelled), so that it needs a part.
    rows : int array of shape (n,): the number of the row in the source.
    column, source : names for messages.
    place : the place of a row in the source.

    Raises
    ------
    UserError
        If a value is no name of a part, or a row that is used has none.
    """
    import pyarrow.compute as pc

    codes = cells.combine_chunks().dictionary_encode()
    names = codes.dictionary.to_pylist()
    unknown = [name for name in names if name.lower() not in _NAMES]
    if unknown:
        listed = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
        raise UserError(
            f"{source}: column {column!r} of --split_by holds {listed}; {unknown[0]!r} is not one "
            "of train, valid (validation, val, dev) and test; correct it or name another column"
        )
    index = pc.fill_null(codes.indices, -1).to_numpy()
    parts = np.array([*(_NAMES[name.lower()] for name in names), -1], np.int8)[index]
    if (missing := np.flatnonzero(known & (parts < 0))).size:
        raise UserError(
            f"{place(int(rows[missing[0]]))}: no value in column {column!r} of --split_by"
            f"{_and_others(missing.size)}; every row that is used needs train, valid or test"
        )
    return parts


def read_times(
    cells: pa.ChunkedArray, known: np.ndarray, rows: np.ndarray, column: str, source: str
) -> tuple[pa.Array, list[str]]:
    """Return the time of each row: int64 nanoseconds since 1970, null for none; and notes.

    Parameters are those of `read_parts`.

    Raises
    ------
    UserError
        If a row that is used has no time, or one that cannot be read; the message has row numbers.
    """
    import pyarrow as pa

    texts = cells.to_pylist()
    has_cell = np.array([text is not None for text in texts], bool)
    prefix = f"{source}: column {column!r} of --split_time"
    if (missing := np.flatnonzero(known & ~has_cell)).size:
        raise missing_value(source, column, "split_time", rows[missing])
    try:
        times = parse_times([text for text in texts if text is not None])
    except UserError as error:
        raise UserError(f"{prefix}: {error}") from error
    stamps, readable = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
    stamps[has_cell], readable[has_cell] = times.nanoseconds, times.readable
    if (wrong := np.flatnonzero(known & ~readable)).size:
        raise UserError(
            f"{prefix} holds {str(texts[wrong[0]])[:40]!r}, no time that is read as {times.form}, "
            f"in row {_name_rows(rows[wrong])}; write ISO 8601, such as 2024-05-31T12:00:00Z"
        )
    return pa.array(stamps, mask=~readable), [f"times in {column!r} are read as {times.form}"]


def missing_value(source: str, column: str, flag_name: str, rows: np.ndarray) -> UserError:
    """Return the error for rows, by their numbers, that have no part or no time."""
    return UserError(
        f"{source}: column {column!r} of --{flag_name} has no "
        f"{'time' if flag_name == 'split_time' else 'part'} in row {_name_rows(rows)}; every row "
        "that is used needs one"
    )


def _name_rows(rows: Sequence[int] | np.ndarray) -> str:
    names = ", ".join(str(row) for row in rows[:_MOST_ROWS])
    return names + (_and_others(len(rows) - _MOST_ROWS + 1) if len(rows) > _MOST_ROWS else "")


def _and_others(n: int) -> str:
    return f" (and in {n - 1:,} more)" if n > 1 else ""


# --- the split -----------------------------------------------------------------------------------


def split_by_column(
    args: Any,
    values: np.ndarray,
    *,
    valid_size: float,
    draw: Callable[[np.ndarray], tuple[np.ndarray, ...]] | None = None,
) -> tuple[SplitMethod, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Divide rows by the parts of ``--split_by`` or the times of ``--split_time``.

    Parameters
    ----------
    args : SplitColumnArguments with test_size
    values : int array of shape (n,)
        From `read_parts` or `read_times`, -1 and null excluded.
    valid_size : float
        Share of the validation rows; 0: none, those of the column are not used.
    draw : callable, optional
        Divides the training rows of a column without validation rows: from their indices to
        positions among them, to train on and to validate on (more is ignored). Needed with a
        `valid_size`.

    Returns
    -------
    method : SplitMethod
    train, valid, test : int64 arrays of indices, sorted

    Raises
    ------
    UserError
        If there are no training or no test rows, or fewer different times than parts; or for a
        `valid_size` that is not the default one beside validation rows of the column.
    """
    if args.split_time:
        split = split_by_time(
            values, valid_size=valid_size, test_size=args.test_size, column=args.split_time
        )
        spans = time_spans({part: values[rows] for part, rows in zip(PARTS, split, strict=True)})
        return SplitMethod("time", args.split_time, spans), split

    train, valid, test = (np.flatnonzero(values == number) for number in range(len(PARTS)))
    for part, rows in (("train", train), ("test", test)):
        if not len(rows):
            raise UserError(
                f"--split_by {args.split_by}: no row to use is for {part}; name another column, "
                "or leave the flag out so that the split is drawn"
            )
    note = ""
    if len(valid) and not valid_size:
        valid = valid[:0]
        note = "; the validation rows of the column are not used (--valid_size 0)"
    elif len(valid) and valid_size != type(args).valid_size:
        raise UserError(
            f"--valid_size: the validation rows are those of --split_by {args.split_by}"
        )
    elif not len(valid) and valid_size:
        assert draw is not None
        inner, drawn, *_ = draw(train)
        train, valid = train[inner], train[drawn]
        note = "; the column has no validation rows: they are drawn from the training rows"
    return SplitMethod("column", args.split_by, note=note), (train, valid, test)


def hold_out_by_column(
    args: FoldSplitArguments, values: np.ndarray, groups: np.ndarray
) -> tuple[SplitMethod, np.ndarray, np.ndarray]:
    """Divide rows into those of a cross-validation and test rows.

    Training and validation rows of a column are both in the folds. Rows that nearly repeat a test
    row are in neither.

    Parameters
    ----------
    values : int array of shape (n,), as in `split_by_column`
    groups : int array of shape (n,)
        Of near duplicates.

    Returns
    -------
    method : SplitMethod
        Its spans are those of all older rows ("train") and of the test rows.
    folded, test : int64 arrays of indices, sorted

    Raises
    ------
    UserError
        As `split_by_column`; or if all other rows repeat a test row.
    """
    if args.split_by:
        values = np.where(values == PARTS.index("valid"), PARTS.index("train"), values)
    method, (train, valid, test) = split_by_column(args, values, valid_size=0)
    folded, _ = drop_repeats(groups, train, valid, test)
    if not len(folded):
        column = args.split_by or args.split_time
        raise UserError(f"column {column!r} leaves no row for the folds: all repeat a test row")
    return method, folded, test


def split_by_time(
    times: np.ndarray, *, valid_size: float, test_size: float, column: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide rows so that training rows are the oldest and test rows the newest.

    Rows with equal times stay in one part, so that sizes are as near to the shares as that allows.

    Parameters
    ----------
    times : int64 array of shape (n,)
    valid_size, test_size : float
        Shares of the n rows; 0: no such part.
    column : str
        For messages.

    Returns
    -------
    train, valid, test : int64 arrays of indices, sorted

    Raises
    ------
    UserError
        If there are fewer different times than parts.
    """
    order = np.argsort(times, kind="stable")
    n, in_order = len(times), times[order]
    # Where a new time begins: the places at which rows can be divided.
    borders = np.flatnonzero(in_order[1:] != in_order[:-1]) + 1
    wanted = [size for size in (test_size, valid_size) if size]
    if len(borders) < len(wanted):
        raise UserError(
            f"--split_time {column}: the rows to divide have only {len(borders) + 1} different "
            f"times, too few for {len(wanted) + 1} parts"
        )
    ends, cuts = n, []
    for number, size in enumerate(wanted, 1):
        # Of the borders before, one must be left for each further part.
        possible = borders[borders < ends]
        possible = possible[len(wanted) - number :]
        start = ends - max(round(size * n), 1)
        ends = int(possible[np.abs(possible - start).argmin()])
        cuts.append(ends)
    test_start = cuts[0] if test_size else n
    valid_start = cuts[-1] if valid_size else test_start
    train, valid, test = np.split(order, [valid_start, test_start])
    return np.sort(train), np.sort(valid), np.sort(test)


def drop_repeats(
    groups: np.ndarray, train: np.ndarray, valid: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and validation rows without near duplicates in a later part.

    Parameters
    ----------
    groups : int array of shape (n,): the near-duplicate group of each row.
    train, valid, test : int arrays of indices

    Raises
    ------
    UserError
        As `check_validation_left`.
    """
    later = groups[np.concatenate([valid, test])]
    train = train[~np.isin(groups[train], later)]
    kept = valid[~np.isin(groups[valid], groups[test])]
    check_validation_left(len(valid), len(kept))
    return train, kept


def check_validation_left(n_before: int, n_left: int) -> None:
    """Refuse validation rows that all nearly repeat a test row.

    Parameters
    ----------
    n_before, n_left : int
        Validation rows, and those of them that repeat no test row.

    Raises
    ------
    UserError
        If there were some, and none is left.
    """
    if n_before and not n_left:
        raise UserError(
            f"all {n_before:,} validation rows nearly repeat a test row; choose others, or none "
            "(--valid_size 0)"
        )


def time_spans(times: dict[str, np.ndarray]) -> dict[str, tuple[str, str]]:
    """Return the first and the last time of each part that has rows, as ISO 8601.

    The times of the day are left out if the parts have different dates.
    """
    spans = {part: (ts.min(), ts.max()) for part, ts in times.items() if len(ts)}
    days = [{_iso(time, 10) for time in span} for span in spans.values()]
    overlap = len(set().union(*days)) < sum(map(len, days))
    digits = 19 if overlap else 10
    return {
        part: (_iso(first, digits), _iso(last, digits)) for part, (first, last) in spans.items()
    }


def _iso(nanoseconds: int, digits: int) -> str:
    return str(np.datetime64(int(nanoseconds), "ns"))[:digits]
