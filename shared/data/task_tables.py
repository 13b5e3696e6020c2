"""Tables of texts with further columns, and these columns as numbers: scaled, coded, or in bins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.data.columns import join_text, missing_column
from shared.data.labels import describe_value, is_missing
from shared.data.preparation import cell_as_text, is_pull_request

if TYPE_CHECKING:
    from shared.data.sources import Source

_MOST_ROWS_NAMED = 5  # of those without text
_BINS = 5  # of a number, to spread it over the parts of a split
# A number far from all of the training rows must not drown the text: standard deviations.
_FURTHEST = 10.0


@dataclass
class TaskTable:
    """The rows of one file, as they were read.

    Attributes
    ----------
    texts : list of str
    rows : list of int
        1-based numbers of the rows in the file.
    cells : dict of task to the cell of each row
    numbers : dict of column to float array of shape (rows,); NaN is missing
    categories : dict of column to the value of each row; None is missing
    source : str
    text_columns : list of str
    version : str
        Changes whenever the rows may have changed.
    notes : list of str
    place : callable
        The place of a row of the file, from its number.
    """

    texts: list[str]
    rows: list[int]
    cells: dict[str, list[Any]]
    numbers: dict[str, np.ndarray]
    categories: dict[str, list[str | None]]
    source: str
    text_columns: list[str]
    version: str
    notes: list[str]
    place: Callable[[int], str]


@dataclass(frozen=True)
class FurtherColumns:
    """How columns beside the text become inputs of a model.

    Attributes
    ----------
    numbers : dict of column to (mean, scale)
        Of the training rows.
    categories : dict of column to the values of the training rows
    """

    numbers: dict[str, tuple[float, float]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, table: TaskTable, rows: np.ndarray) -> FurtherColumns:
        """Return the scales of numbers, and the values of categories, in some rows of a table."""
        numbers = {}
        for name, values in table.numbers.items():
            known = values[rows][np.isfinite(values[rows])]
            if not len(known):
                raise UserError(f"{table.source}: no training row has a number in column {name!r}")
            numbers[name] = (float(known.mean()), float(known.std()) or 1.0)
        categories = {
            name: sorted({value for row in rows if (value := cells[row]) is not None})
            for name, cells in table.categories.items()
        }
        for name, known_values in categories.items():
            if not known_values:
                raise UserError(f"{table.source}: no training row has a value in column {name!r}")
        return cls(numbers, categories)

    def encode(self, table: TaskTable) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs of all rows of a table.

        Returns
        -------
        numbers : float32 array of shape (rows, 2 * columns)
            For each column its scaled value, 0 if it is missing, and 1 if it is missing.
        categories : int64 array of shape (rows, columns)
            From 1 on; 0 is a missing value, or one that no training row has.
        """
        n_rows = len(table.texts)
        numbers = np.zeros((n_rows, 2 * len(self.numbers)), np.float32)
        for i, (name, (mean, scale)) in enumerate(self.numbers.items()):
            missing = ~np.isfinite(table.numbers[name])
            scaled = np.clip((table.numbers[name] - mean) / scale, -_FURTHEST, _FURTHEST)
            numbers[:, 2 * i], numbers[:, 2 * i + 1] = np.where(missing, 0, scaled), missing
        categories = np.zeros((n_rows, len(self.categories)), np.int64)
        for i, (name, values) in enumerate(self.categories.items()):
            codes = {value: code for code, value in enumerate(values, 1)}
            column = table.categories[name]
            categories[:, i] = [0 if value is None else codes.get(value, 0) for value in column]
        return numbers, categories


def collect_rows(
    source: Source,
    text_columns: list[str],
    *,
    tasks: Sequence[str] = (),
    number_columns: Sequence[str] = (),
    category_columns: Sequence[str] = (),
    pull_requests: bool = False,
) -> TaskTable:
    """Read the texts, tasks and further columns of a source, without the rows that have no text.

    Parameters
    ----------
    source : Source
    text_columns, tasks, number_columns, category_columns : sequences of str
    pull_requests : bool, default False
        Whether pull requests in the form of GitHub's REST API are read.

    Raises
    ------
    UserError
        For a column that is missing, or a cell of a number or a category that is none.
    """
    columns = {"text_columns": text_columns, "tasks": tasks}
    columns |= {"number_columns": number_columns, "category_columns": category_columns}
    for flag_name, names in columns.items():
        for name in names:
            if name not in source.columns:
                raise missing_column(name, source.columns, f"--{flag_name}", source.name)
    extra = ["pull_request"] if "pull_request" in source.columns else []
    wanted = [name for names in columns.values() for name in names]
    table = TaskTable(
        texts=[],
        rows=[],
        cells={name: [] for name in tasks},
        numbers={},
        categories={name: [] for name in category_columns},
        source=source.name,
        text_columns=text_columns,
        version=source.version,
        notes=list(source.notes),
        place=source.place,
    )
    numbers: dict[str, list[float]] = {name: [] for name in number_columns}
    n_pull_requests, blank_rows = 0, list[int]()
    reading = progress(source.read([*wanted, *extra], wanted), "reading rows", unit="rows")
    for number, row in enumerate(reading, 1):
        if not pull_requests and is_pull_request(row):
            n_pull_requests += 1
            continue
        try:
            text = join_text(row, text_columns)
            for name, values in numbers.items():
                value = _named(name, read_number, row)
                values.append(np.nan if value is None else value)
            row_categories = [_named(name, _category, row) for name in category_columns]
        except ValueError as error:
            raise UserError(f"{source.place(number)}: {error}") from error
        if not text:
            blank_rows.append(number)
            for values in numbers.values():
                values.pop()
            continue
        table.texts.append(text)
        table.rows.append(number)
        for name, category in zip(category_columns, row_categories, strict=True):
            table.categories[name].append(category)
        for name in tasks:
            table.cells[name].append(row.get(name))
    table.numbers = {name: np.array(values, float) for name, values in numbers.items()}
    left_out = []
    if n_pull_requests:
        left_out.append(f"{n_pull_requests:,} pull request{'s' * (n_pull_requests > 1)}")
    if blank_rows:
        named = ", ".join(map(str, blank_rows[:_MOST_ROWS_NAMED]))
        named += ", ..." if len(blank_rows) > _MOST_ROWS_NAMED else ""
        rows = "row" if len(blank_rows) == 1 else "rows"
        left_out.append(f"{len(blank_rows):,} without text ({rows} {named})")
    if left_out:
        table.notes.append(f"{source.name}: left out {', '.join(left_out)}")
    return table


def _named(column: str, read: Callable[[Any], Any], row: dict) -> Any:
    """Return what a cell holds; an error names its column."""
    try:
        return read(row.get(column))
    except ValueError as error:
        raise ValueError(f"column {column!r}: {error}") from error


def numbers_of(table: TaskTable, name: str) -> np.ndarray:
    """Return the numbers of a column that was read as a task: float, (rows,); NaN is missing.

    Raises
    ------
    UserError
        For a cell that holds something else.
    """
    numbers = np.full(len(table.texts), np.nan)
    for i, cell in enumerate(table.cells[name]):
        try:
            number = read_number(cell)
        except ValueError as error:
            place = table.place(table.rows[i])
            raise UserError(f"{place}: column {name!r}: {error}") from error
        numbers[i] = np.nan if number is None else number
    return numbers


def read_number(cell: Any) -> float | None:
    """Return the number in a cell; None if it is blank.

    Raises
    ------
    ValueError
        If the cell holds something else, or a number that is not finite.
    """
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        value = float("" if isinstance(cell, (list, dict, bool)) else cell)
    except (TypeError, ValueError):
        shown = repr(cell[:40]) if isinstance(cell, str) else describe_value(cell)
        raise ValueError(f"{shown} is no number") from None
    if not np.isfinite(value):
        raise ValueError(f"{cell!r} is not finite; leave the cell blank if it is not known")
    return value


def _category(cell: Any) -> str | None:
    if isinstance(cell, (list, dict)):
        raise ValueError(f"{describe_value(cell)} is no category; name a column of plain values")
    return cell_as_text(cell)


def number_bins(numbers: np.ndarray) -> np.ndarray:
    """Return the quintile of each number, one-hot: uint8 of (rows, 5). NaN is in none that counts.

    Equal numbers are in the same bin, so that there may be fewer.
    """
    edges = np.quantile(numbers[~np.isnan(numbers)], np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(np.unique(edges), np.nan_to_num(numbers), side="right")
    return np.eye(_BINS, dtype=np.uint8)[bins]
