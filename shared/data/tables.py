"""Tables: rows of numbers and categories, with one class each.

A column is numeric if all its values are numbers, else categorical. A cell can be missing in any
column. `load_table` reads the rows to learn from, and those to test on; `read_rows` reads rows for
a model that is already trained, by its `TableSchema`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.data.arguments import (
    DEFAULT_LABEL_COLUMN,
    FoldSplitArguments,
    SourceArguments,
    check_split_flags,
)
from shared.data.columns import find_label_column, find_split_column, missing_column
from shared.data.labels import describe_value, is_missing, name_some
from shared.data.preparation import cell_as_text
from shared.data.readers import open_rows
from shared.data.sources import Source
from shared.data.split_columns import SplitMethod, hold_out_by_column, split_values

UNSEEN = 0  # code of a category that the rows to learn from do not have
_MISSING = ""  # the name of the category of missing cells

_SAMPLE = "sample: breast cancer (scikit-learn)"
_USUAL_LABEL_COLUMNS = (DEFAULT_LABEL_COLUMN, "label", "target", "class")
# A column of text with more different values than this, and than a share of the rows, is left out.
_MOST_CATEGORIES, _SHARE_OF_CATEGORIES = 50, 0.2
_LEAST_NUMBERS = 0.5  # share of numbers from which on a column with text is taken for a mistake


@dataclass
class TableArguments(FoldSplitArguments, SourceArguments):
    """Flags of recipes that read a table of numbers and categories."""

    data: str = flag(
        "sample",
        "Table: 'sample' (breast cancer, from scikit-learn), a file (.csv, .tsv, .jsonl, .ndjson "
        "or .json, each also compressed as .gz, .parquet or .xlsx; $NAME and ~ are expanded), a "
        "pattern such as 'tables/*.csv', several files with commas between them, or the id of a "
        "hub data set (default: sample).",
    )
    test_data: str | None = flag(
        None, "File of test rows with classes, which all folds predict (default: none)."
    )
    label_column: str = flag(
        DEFAULT_LABEL_COLUMN,
        "Column with the class of a row (default: labels, label, target or class).",
    )
    drop_columns: list[str] = flag([], "Columns to leave out, such as ids (default: none).")
    categorical_columns: list[str] = flag(
        [], "Columns of numbers that are names of categories, such as postcodes (default: none)."
    )
    missing_values: list[str] = flag(
        ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"],
        "Cells that count as missing (default: blank, NA, N/A, NaN, nan, null, NULL, None, ?).",
    )


@dataclass(frozen=True)
class TableSchema:
    """What the columns of a table mean, as JSON values.

    Attributes
    ----------
    label_column : the column with the class of a row.
    label_names : the classes.
    numeric : the numeric columns.
    offsets, units : for each numeric column, the median of its values, and a unit for the
        difference from it, such that a float of 32 bits holds the result without loss of precision:
        times in seconds since 1970 differ by 1 in 10**9.
    categories : of each categorical column, its categories; the name of missing cells is "".
        Category i has the code i + 1. `UNSEEN` is the code of any other one.
    missing_values : cells that count as missing.
    """

    label_column: str
    label_names: list[str]
    numeric: list[str]
    offsets: list[float]
    units: list[float]
    categories: dict[str, list[str]]
    missing_values: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, for ``TableSchema(**values)``."""
        return asdict(self)

    @property
    def columns(self) -> list[str]:
        """The columns that a model reads: first the numeric, then the categorical ones."""
        return [*self.numeric, *self.categories]

    @property
    def category_counts(self) -> list[int]:
        """The number of categories of each categorical column."""
        return [len(known) for known in self.categories.values()]


@dataclass(frozen=True)
class TableRows:
    """Rows of a table.

    Attributes
    ----------
    numbers : float32 array of shape (rows, numeric columns)
        In the units of `TableSchema`; NaN where a cell is missing.
    codes : int64 array of shape (rows, categorical columns)
        From 0 to the number of categories of the column; see `TableSchema`.
    labels : int64 array of shape (rows,)
        The number of the class; -1 in rows that are to be predicted.
    row_numbers : int64 array of shape (rows,)
        The place of each row in the source, from 1.
    """

    numbers: np.ndarray
    codes: np.ndarray
    labels: np.ndarray
    row_numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, rows: np.ndarray) -> TableRows:
        """Return the rows of a mask or of indices."""
        arrays = (self.numbers, self.codes, self.labels, self.row_numbers)
        return TableRows(*(array[rows] for array in arrays))

    def features(self) -> np.ndarray:
        """Return numbers and codes side by side: float64 array (rows, columns)."""
        return np.hstack([self.numbers.astype(np.float64), self.codes])

    @classmethod
    def of_features(cls, features: np.ndarray, n_numbers: int) -> TableRows:
        """Return rows to predict from an array of `features`, numbers first."""
        numbers, codes = features[:, :n_numbers], features[:, n_numbers:]
        unlabelled, row_numbers = np.full(len(features), -1), np.arange(1, len(features) + 1)
        return cls(numbers.astype(np.float32), codes.astype(np.int64), unlabelled, row_numbers)


@dataclass(frozen=True)
class Table:
    """A table to learn from.

    Attributes
    ----------
    schema : TableSchema
    parts : "oof" (out of fold), the rows of `--data`, and "test", those of `--test_data`, or those
        that a column says, if any.
    groups : int array of shape (rows of "oof",)
        Rows with the same cells have the same number.
    source : what was read, in a line.
    notes : what a user should know of the rows and columns.
    fingerprints : a text for each file that was read, which changes when it does.
    method : how the test rows were chosen.
    """

    schema: TableSchema
    parts: dict[str, TableRows]
    groups: np.ndarray
    source: str
    notes: list[str]
    fingerprints: list[str]
    method: SplitMethod

    def describe(self) -> str:
        """Return source, columns, classes and notes, a line each."""
        schema, rows = self.schema, self.parts["oof"]
        counts = np.bincount(rows.labels, minlength=len(schema.label_names))
        named = [
            f"{name} {count:,}" for name, count in zip(schema.label_names, counts, strict=True)
        ]
        lines = [
            self.source,
            f"{len(schema.numeric)} numeric and {len(schema.categories)} categorical columns",
            f"{schema.label_column}: {name_some(named)}",
        ]
        if self.method.column:
            sizes = {"train": len(rows), "test": len(self.parts["test"])}
            lines.append(self.method.describe(sizes, "rows"))
        elif "test" in self.parts:
            lines.append(f"test: {len(self.parts['test']):,} rows")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


# --- rows to learn from --------------------------------------------------------------------------


def load_table(args: TableArguments) -> Table:
    """Read the rows of `args.data`, find out what its columns mean, and read `args.test_data`.

    Rows without a class are left out, and so are rows that repeat all cells of a test row. Columns
    are left out that are empty or have one value only, and those of text with too many different
    values to be categories.

    Raises
    ------
    UserError
        If there are no rows, columns or labels to learn from, if all rows have the same class or
        nearly all have classes of their own, if a named column does not exist, or if a cell is not
        of its column.
    """
    check_split_flags(args)
    source = _open(args, args.data)
    label_column = _find_label_column(args, source)
    split_column = find_split_column(source, args, targets=[label_column])
    for name, columns in (
        ("drop_columns", args.drop_columns),
        ("categorical_columns", args.categorical_columns),
    ):
        for column in columns:
            if column not in source.columns:
                raise missing_column(column, source.columns, f"--{name}", source.name)
    no_inputs = (label_column, split_column, *args.drop_columns)
    names = [name for name in source.columns if name not in no_inputs]
    wanted = [label_column, *([split_column] if split_column else []), *names]
    cells = _read_cells(source, list(dict.fromkeys(wanted)))
    n_rows = len(cells[label_column])
    if not n_rows:
        raise UserError(f"{source.name}: no rows")

    blank = {*args.missing_values}
    split_cells = [cell_as_text(value) for value in cells[split_column]] if split_column else []
    classes = [_class_name(value, blank) for value in cells.pop(label_column)]
    labelled = np.array([name is not None for name in classes])
    label_names = _sort_names({name for name in classes if name is not None})
    _check_classes(label_names, int(labelled.sum()), label_column, source)
    notes = list(source.notes)
    if not labelled.all():
        notes.append(f"{int((~labelled).sum()):,} rows without a class are left out")

    numeric: dict[str, np.ndarray] = {}
    categories: dict[str, list[str]] = {}
    for name in names:
        values = cells[name]
        numbers = None
        if name not in args.categorical_columns:
            numbers = _numbers(values, blank, name, source)
        if numbers is not None:
            if len(np.unique(numbers[labelled & ~np.isnan(numbers)])) > 1 or (
                0 < np.isnan(numbers[labelled]).sum() < labelled.sum()
            ):
                numeric[name] = numbers
            else:
                notes.append(f"column {name!r} is left out: it has one value only")
            continue
        texts = [
            _category(value, blank) for value, kept in zip(values, labelled, strict=True) if kept
        ]
        distinct = {*texts}
        most = max(_MOST_CATEGORIES, _SHARE_OF_CATEGORIES * len(texts))
        if len(distinct) < 2:
            notes.append(f"column {name!r} is left out: it has one value only")
        elif name not in args.categorical_columns and len(distinct) > most:
            notes.append(
                f"column {name!r} is left out: {len(distinct):,} different values in "
                f"{len(texts):,} rows (--categorical_columns keeps it)"
            )
        else:
            categories[name] = _sort_names(distinct)
    if not numeric and not categories:
        raise UserError("; ".join([f"{source.name}: no column to learn from", *notes]))

    offsets, units = [], []
    for name, numbers in numeric.items():
        present = numbers[labelled & ~np.isnan(numbers)]
        offset = float(np.median(present))
        offsets.append(offset)
        units.append(float(np.mean(np.abs(present - offset))) or 1.0)
        if _counts_rows(numbers):
            notes.append(
                f"column {name!r} looks like a number of the row; if so, leave it out with "
                "--drop_columns"
            )
    schema = TableSchema(
        label_column, label_names, list(numeric), offsets, units, categories, args.missing_values
    )
    rows = np.flatnonzero(labelled)
    parts = {"oof": _encode(schema, cells, classes, source).of(rows)}
    notes += _note_gaps(schema, parts["oof"])
    method = SplitMethod("cross_validation")
    if split_column:
        every, of_rows = parts["oof"], [split_cells[row] for row in rows]
        places, more = split_values(args, of_rows, rows + 1, source.name, source.place)
        method, folded, test = hold_out_by_column(args, places, _groups(every.features()))
        parts = {"oof": every.of(folded), "test": every.of(test)}
        if len(np.unique(parts["oof"].labels)) < 2:
            raise UserError(f"column {split_column!r}: all rows before the test have one class")
        notes += [*more, f"column {split_column!r} divides the rows, and is no input"]
        if n_repeated := len(every) - len(folded) - len(test):
            notes.append(f"{n_repeated:,} rows that repeat a test row are left out")
    fingerprints = [source.version]
    if args.test_data:
        test_source = _open(args, args.test_data)
        parts["test"], test_notes = read_rows(schema, test_source, labelled=True)
        notes += [f"test: {note}" for note in test_notes]
        fingerprints.append(test_source.version)
        groups = _groups(np.vstack([parts["oof"].features(), parts["test"].features()]))
        n_oof = len(parts["oof"])
        repeats = np.isin(groups[:n_oof], groups[n_oof:])
        if repeats.all():
            raise UserError(f"--test_data {args.test_data}: holds all rows of --data")
        if repeats.any():
            notes.append(f"{int(repeats.sum()):,} rows that repeat a test row are left out")
            parts["oof"] = parts["oof"].of(~repeats)
    groups = _groups(parts["oof"].features())
    notes += _note_repeats(groups, parts["oof"].labels)
    about = f"{source.name}: {n_rows:,} rows"
    return Table(schema, parts, groups, about, notes, fingerprints, method)


def _open(args: TableArguments, data: str) -> Source:
    if data != "sample":
        return open_rows(args, data)
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    columns = [*map(str, bunch.feature_names), "target"]

    def read(_columns: Any = None, required: Any = None) -> Iterable[dict]:
        for values, target in zip(bunch.data.tolist(), bunch.target, strict=True):
            names = [*values, str(bunch.target_names[target])]
            yield dict(zip(columns, names, strict=True))

    return Source(_SAMPLE, _SAMPLE, columns, read)  # type: ignore[arg-type]  # an iterator


def _find_label_column(args: TableArguments, source: Source) -> str:
    if args.label_column == DEFAULT_LABEL_COLUMN:
        for name in _USUAL_LABEL_COLUMNS:
            for column in source.columns:
                if column.lower() == name:
                    return column
    wanted = find_label_column(source.columns, args.label_column, source.name)
    assert wanted is not None  # it is required
    return wanted


def _read_cells(source: Source, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the cells of each column."""
    cells: dict[str, list[Any]] = {name: [] for name in names}
    for row in progress(source.read(list(names)), "reading"):
        for name in names:
            cells[name].append(row.get(name))
    return cells


def _class_name(value: Any, blank: set[str]) -> str | None:
    """Return the name of a class, None if there is none; 1, 1.0 and "1" are one class."""
    if is_missing(value) or (isinstance(value, str) and value.strip() in blank):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _category(value: Any, blank: set[str]) -> str:
    name = _class_name(value, blank)
    return _MISSING if name is None else name


def _sort_names(names: Iterable[str]) -> list[str]:
    """Return names in alphabetical order; numbers by their values."""
    names = list(names)
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)


def _check_classes(names: Sequence[str], n_rows: int, column: str, source: Source) -> None:
    if not names:
        raise UserError(f"{source.name}: column {column!r}: no row has a class")
    if len(names) == 1:
        raise UserError(
            f"{source.name}: column {column!r}: all rows have the class {names[0]!r}; there is "
            "nothing to learn"
        )
    if len(names) > max(n_rows / 5, 2):
        raise UserError(
            f"{source.name}: column {column!r}: {len(names):,} different values in {n_rows:,} "
            "rows are no classes; name another --label_column, or divide the values into ranges"
        )


def _number(value: Any, blank: set[str]) -> float | None:
    """Return a number, NaN for a missing cell; None for anything else."""
    if is_missing(value):
        return math.nan
    if isinstance(value, str):
        value = value.strip()
        if value in blank:
            return math.nan
        if "_" in value:  # Python reads 1_000
            return None
    elif not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e300 else None


def _numbers(
    values: Sequence[Any], blank: set[str], name: str, source: Source
) -> np.ndarray | None:
    """Return the values of a column as float64, NaN where missing; None for a column of text.

    Raises
    ------
    UserError
        If most of the values are numbers, but not all.
    """
    numbers = [_number(value, blank) for value in values]
    others = [row for row, number in enumerate(numbers) if number is None]
    n_present = sum(number is None or number == number for number in numbers)
    if not others:
        return np.array(numbers, np.float64)
    if n_present - len(others) > _LEAST_NUMBERS * n_present:
        place = source.place(others[0] + 1)
        raise UserError(
            f"{place}: column {name!r} has {_shown(values[others[0]])}, and numbers in "
            f"{n_present - len(others):,} of {n_present:,} rows; correct it, add it to "
            "--missing_values, or name the column in --categorical_columns"
        )
    return None


def _shown(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else describe_value(value)


def _counts_rows(numbers: np.ndarray) -> bool:
    """Return whether a column has each whole number of a range once, in order."""
    return len(numbers) > 2 and bool((np.diff(numbers) == 1).all())


def _encode(
    schema: TableSchema,
    cells: Mapping[str, Sequence[Any]],
    classes: Sequence[str | None],
    source: Source,
) -> TableRows:
    """Return cells as numbers and codes, and classes as numbers."""
    blank, n_rows = {*schema.missing_values}, len(classes)
    numbers = np.empty((n_rows, len(schema.numeric)), np.float64)
    for j, name in enumerate(schema.numeric):
        for i, value in enumerate(cells[name]):
            number = _number(value, blank)
            if number is None:
                raise UserError(
                    f"{source.place(i + 1)}: column {name!r} has {_shown(value)}; it must be a "
                    "number, or be missing"
                )
            numbers[i, j] = number
    # A float of 32 bits ends at 3e38.
    numbers = np.clip((numbers - schema.offsets) / schema.units, -1e30, 1e30)
    codes = np.empty((n_rows, len(schema.categories)), np.int64)
    for j, (name, known) in enumerate(schema.categories.items()):
        code_of = {category: code for code, category in enumerate(known, UNSEEN + 1)}
        codes[:, j] = [code_of.get(_category(value, blank), UNSEEN) for value in cells[name]]
    label_of = {name: i for i, name in enumerate(schema.label_names)}
    labels = np.array([-1 if name is None else label_of[name] for name in classes], np.int64)
    return TableRows(numbers.astype(np.float32), codes, labels, np.arange(1, n_rows + 1))


def _groups(features: np.ndarray) -> np.ndarray:
    """Return a number for each row (rows, columns); equal rows, also with NaN, have the same."""
    # NaN is not equal to itself, its bytes are; adding 0 turns -0 into 0.
    keys = np.ascontiguousarray(features + 0.0)
    keys[np.isnan(keys)] = np.nan
    rows = keys.view(np.dtype((np.void, keys.dtype.itemsize * keys.shape[1])))[:, 0]
    return np.unique(rows, return_inverse=True)[1].reshape(-1)


def _note_gaps(schema: TableSchema, rows: TableRows) -> list[str]:
    gaps = dict(zip(schema.numeric, np.isnan(rows.numbers).sum(axis=0), strict=True))
    for j, (name, known) in enumerate(schema.categories.items()):
        if _MISSING in known:
            gaps[name] = (rows.codes[:, j] == known.index(_MISSING) + 1).sum()
    named = [f"{name} {count:,}" for name, count in gaps.items() if count]
    return [f"missing cells: {name_some(named)}"] if named else []


def _note_repeats(groups: np.ndarray, labels: np.ndarray) -> list[str]:
    sizes = np.bincount(groups)
    if len(sizes) == len(groups):
        return []
    note = f"{len(groups) - len(sizes):,} rows repeat others, and stay in one fold with them"
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    contradicted = int((np.bincount(pairs[0]) > 1).sum())
    if contradicted:
        note += f"; {contradicted:,} of the repeated rows have several classes"
    return [note]


# --- rows for a trained model --------------------------------------------------------------------


def read_rows(
    schema: TableSchema, source: Source, *, labelled: bool
) -> tuple[TableRows, list[str]]:
    """Read rows by the schema of a model; return them, and notes for the user.

    Parameters
    ----------
    schema : TableSchema
    source : Source
        Further columns are not read.
    labelled : bool
        Whether the rows need a class.

    Raises
    ------
    UserError
        If there are no rows, a column does not exist, a cell of a numeric column is no number, or,
        with `labelled`, a row has no class or one that the model does not know.
    """
    wanted = [*schema.columns, *[schema.label_column] * labelled]
    for name in wanted:
        if name not in source.columns:
            found = ", ".join(source.columns)
            raise UserError(
                f"{source.name}: no column {name!r}, which the model reads (found: {found})"
            )
    cells = _read_cells(source, wanted)
    n_rows = len(cells[wanted[0]])
    if not n_rows:
        raise UserError(f"{source.name}: no rows")
    classes: list[str | None] = [None] * n_rows
    if labelled:
        blank = {*schema.missing_values}
        classes = [_class_name(value, blank) for value in cells.pop(schema.label_column)]
        for row, name_of_row in enumerate(classes, 1):
            if name_of_row not in schema.label_names:
                problem = f"the class {name_of_row!r}" if name_of_row is not None else "no class"
                raise UserError(
                    f"{source.place(row)}: {problem} in column {schema.label_column!r}; the "
                    f"classes of --data are {name_some(schema.label_names)}"
                )
    rows = _encode(schema, cells, classes, source)
    return rows, _note_gaps(schema, rows) + _note_unseen(schema, rows, cells)


def _note_unseen(
    schema: TableSchema, rows: TableRows, cells: Mapping[str, Sequence[Any]]
) -> list[str]:
    notes = []
    for j, name in enumerate(schema.categories):
        unseen = np.flatnonzero(rows.codes[:, j] == UNSEEN).tolist()
        if unseen:
            counts = Counter(str(cells[name][row]) for row in unseen)
            named = name_some([value for value, _ in counts.most_common()], 3)
            notes.append(
                f"column {name!r}: {len(unseen):,} rows have categories that the model has not "
                f"seen: {named}"
            )
    return notes
