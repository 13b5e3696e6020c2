"""CSV and TSV: how a file separates and quotes its cells, and its rows.

Files of these names do not all follow the same rules, and reading one by the wrong rule can join
rows without an error: a text that begins with a quotation mark, and a later one that ends with one,
look like one cell of several lines. So a file with quotation marks is examined as a whole before
its first row is used, and is refused if two rules give different rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import dropwhile
from pathlib import Path

from shared.cli.errors import UserError

# Separators of columns that are looked for in the first line, with their names in messages.
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}

# The first line of a file that Excel should open, with the separator of its columns.
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)

# How quotation marks are read: the options of `csv.reader`.
_OPTIONS: dict[str, dict] = {
    "double": {"doublequote": True},
    "backslash": {"doublequote": False, "escapechar": "\\"},
    "none": {"quoting": csv.QUOTE_NONE},
}


@dataclass(frozen=True)
class Dialect:
    """How the cells of a file are separated and quoted.

    Attributes
    ----------
    delimiter : str
        The character between two columns.
    quoting : str
        "double": a cell in quotation marks may hold delimiters and line breaks, and its own marks
        are doubled (RFC 4180); "backslash": as before, but a backslash precedes its own marks;
        "none": quotation marks are plain characters, and each line is a row.
    """

    delimiter: str
    quoting: str


def parse_delimiter(value: str | None) -> str | None:
    r"""Return the character that ``--delimiter`` names: itself, or "\t" or "tab" for a tab.

    Raises
    ------
    UserError
        If it is not one character, or one that has another meaning.
    """
    delimiter = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\\\r\n'):
        raise UserError(f"--delimiter {value!r}: give one character, such as ';', or tab")
    return delimiter


def find_dialect(
    path: Path,
    read_lines: Callable[[], Iterable[str]],
    *,
    usual_delimiter: str,
    delimiter: str | None = None,
    quoting: str = "auto",
    column_names: Sequence[str] | None = None,
) -> tuple[Dialect, list[str]]:
    """Find out how the cells of a file are separated and quoted.

    Parameters
    ----------
    path : Path
        The file, for messages.
    read_lines : callable
        Returns the lines of the file, each with its line end.
    usual_delimiter : str
        The delimiter that the name of the file promises. If the first line does not have it, or
        names another one as "sep=;" does, another one of `DELIMITERS` is taken.
    delimiter : str, optional
        The delimiter, if it is known.
    quoting : str, default="auto"
        "double", "backslash" or "none", if it is known.
    column_names : sequence of str, optional
        Names of the columns of a file without a header line.

    Returns
    -------
    dialect : Dialect
    notes : list of str
        What a user should know about the choice.

    Raises
    ------
    UserError
        If no rule fits the whole file, or if two fit and give different rows.
    """
    if delimiter is None:
        delimiter = _find_delimiter(read_lines, usual_delimiter, column_names)
    chosen = quoting
    if quoting == "auto":
        chosen = _Readings(path, read_lines, delimiter, column_names).choose()
    notes = []
    if delimiter != usual_delimiter:
        name = DELIMITERS.get(delimiter, repr(delimiter))
        notes.append(f"columns are separated by {name} (--delimiter)")
    if quoting == "auto" and chosen == "backslash":
        notes.append("a backslash comes before quotation marks in a cell (--quoting backslash)")
    if quoting == "auto" and chosen == "none":
        notes.append("quotation marks are read as plain characters (--quoting none)")
    return Dialect(delimiter, chosen), notes


def read_delimited(
    path: Path,
    lines: Iterable[str],
    dialect: Dialect,
    column_names: Sequence[str] | None = None,
    required: Sequence[str] | None = None,
) -> Iterator[dict[str, str]]:
    """Yield the rows of a file as dicts.

    Spreadsheets write empty cells at the end of some rows, or leave them out. Columns without a
    name at the end of the header are left out; their cells must be empty. Cells that a row lacks at
    its end are empty, but those of the columns in `required` (default: all) must be there.

    Raises
    ------
    UserError
        If the file is empty, if the header names a column twice, if a row has more cells than the
        header or lacks some that are required, or if quotation marks do not follow the dialect.
    """
    records = _records(path, _skip_separator_line(lines), dialect, column_names)
    _, header = next(records)
    for number, cells in records:
        absent = header[len(cells) :]
        if any(required is None or name in required for name in absent):
            raise _missing_cells(path, number, header, len(cells))
        yield dict(zip(header, cells + [""] * len(absent), strict=True))


def _skip_separator_line(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines; in place of Excel's "sep=;", a blank one, which readers pass over."""
    for number, line in enumerate(lines):
        yield "\n" if number == 0 and _SEPARATOR_LINE.fullmatch(line) else line


def _missing_cells(path: Path, line: int, header: Sequence[str], n_cells: int) -> UserError:
    return UserError(
        f"{path}, line {line}: {n_cells} cells, but {len(header)} columns ({', '.join(header)}); "
        f"{', '.join(header[n_cells:])}: missing; add these cells, quote cells that hold line "
        "breaks, or name another separator of columns with --delimiter"
    )


def _records(
    path: Path, lines: Iterable[str], dialect: Dialect, column_names: Sequence[str] | None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the header, then each row: the number of its last line, and its cells.

    A row may have fewer cells than the header.
    """
    # The default limit, 131,072 characters per cell, is too low for a text of 100,000 words.
    csv.field_size_limit(2**31 - 1)
    delimiter = dialect.delimiter
    reader = csv.reader(lines, delimiter=delimiter, strict=True, **_OPTIONS[dialect.quoting])
    try:
        header = list(column_names) if column_names else next(filter(None, reader), None)
        if header is None:
            raise UserError(f"{path}: the file is empty")
        width = len(header)
        while len(header) > 1 and not header[-1].strip():
            header.pop()
        if len(set(header)) < len(header):
            raise UserError(f"{path}, line 1: the header names a column twice: {header}")
        yield 1, header
        for cells in reader:
            if not cells:  # a blank line
                continue
            if any(cell.strip() for cell in cells[width:]):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but {width} "
                    f"columns ({', '.join(header)}); quote cells that contain {delimiter!r}, or "
                    "name another separator of columns with --delimiter"
                )
            unnamed = [cell for cell in cells[len(header) : width] if cell.strip()]
            if unnamed:
                raise UserError(
                    f"{path}, line {reader.line_num}: {unnamed[0][:40]!r} is in a column that has "
                    "no name; name it in the header"
                )
            yield reader.line_num, cells[: len(header)]
    except csv.Error as error:
        place = f"{path}, line {reader.line_num}"
        if "new-line character" in str(error):
            raise UserError(
                f"{place}: a line ends with a carriage return alone; convert the file, for "
                "example: tr '\\r' '\\n'"
            ) from error
        raise UserError(f'{place}: {error}; quote cells as in "He said ""no"", twice"') from error


def _find_delimiter(
    read_lines: Callable[[], Iterable[str]], usual: str, column_names: Sequence[str] | None
) -> str:
    """Return `usual`, or another delimiter that divides the first line where `usual` does not."""
    if named := _SEPARATOR_LINE.fullmatch(next(iter(read_lines()), "")):
        return named[1]
    lines = (line for line in read_lines() if line.strip("\r\n"))
    # Up to a carriage return, at which csv.reader would stop.
    first_line = next(lines, "").split("\r")[0]

    def width(delimiter: str) -> int:
        return len(next(csv.reader([first_line], delimiter=delimiter), []))

    if column_names:
        fitting = [d for d in (usual, *DELIMITERS) if width(d) == len(column_names)]
        return fitting[0] if fitting else usual
    return usual if width(usual) > 1 else max((usual, *DELIMITERS), key=width)


# --- quotation marks -----------------------------------------------------------------------------


class _Recorder:
    """Lines that are passed on, and those since the last call of `take`."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._record.append(line)
            yield line

    def take(self) -> list[str]:
        record, self._record = self._record, []
        return record


@dataclass
class _Readings:
    """A file, read by each rule of quotation."""

    path: Path
    read_lines: Callable[[], Iterable[str]]
    delimiter: str
    column_names: Sequence[str] | None

    def choose(self) -> str:
        """Return the rule that fits; see `find_dialect`."""
        # Without these characters, all rules give the same rows.
        if not any('"' in line or "\\" in line for line in self.read_lines()):
            return "double"
        is_tab = self.delimiter == "\t"
        rule, reading = "double", self._examine("double")
        # Programs that write CSV quote each cell that has a mark. A file that they did not write
        # may escape its marks, or have plain ones.
        if not reading.fits and (escaped := self._examine("backslash")).fits:
            rule, reading = "backslash", escaped
        if reading.missing and self._lines_are_rows:
            reading.problem = reading.problem or reading.missing
        if reading.problem:
            if not self._lines_are_rows:
                raise reading.problem
            if is_tab:
                return "none"
            raise UserError(
                f"{reading.problem}; if quotation marks are plain characters, give --quoting none"
            )
        if is_tab and not reading.regular and reading.differs and self._lines_are_rows:
            return "none"
        # A cell of several lines, each of which could be a row by itself. In a file of one column,
        # every line is a row; there the rules of CSV hold.
        if reading.doubtful_line and (
            is_tab or not reading.regular or (reading.width > 1 and self._lines_are_rows)
        ):
            raise UserError(
                f"{self.path}, line {reading.doubtful_line}: quotation marks join several lines "
                "to one row, but each line could be a row; give --quoting none if quotation marks "
                f"are plain characters, or --quoting {rule} if cells hold line breaks"
            )
        return rule

    @cached_property
    def _lines_are_rows(self) -> bool:
        """Whether each line is a row if quotation marks are plain characters."""
        return self._examine("none").problem is None

    def _examine(self, quoting: str) -> _Examination:
        """Read the file by a rule, up to the first error."""
        lines = _Recorder(_skip_separator_line(self.read_lines()))
        dialect = Dialect(self.delimiter, quoting)
        result, pattern = _Examination(), _regular_record(dialect)
        header: list[str] = []
        try:
            for number, cells in _records(self.path, lines, dialect, self.column_names):
                # Readers of CSV pass over blank lines.
                record = list(dropwhile(lambda line: not line.strip("\r\n"), lines.take()))
                header = header or cells
                result.width, text = len(header), "".join(record)
                marked = '"' in text or "\\" in text
                regular = not marked or pattern.fullmatch(text) is not None
                if len(cells) < len(header):
                    missing = _missing_cells(self.path, number, header, len(cells))
                    # A part of a cell of several lines must not look like a row.
                    if quoting == "none" or not regular:
                        raise missing
                    result.missing = result.missing or (missing if marked else None)
                if not marked:
                    continue
                result.regular = result.regular and regular
                plain = text.rstrip("\r\n").split(self.delimiter)[: len(cells)]
                result.differs = result.differs or plain != cells
                separators = [line.count(self.delimiter) for line in record if line.strip()]
                if len(record) > 1 and min(separators) == max(separators) >= result.width - 1:
                    result.doubtful_line = result.doubtful_line or number
        except UserError as error:
            result.problem = error
        return result


@dataclass
class _Examination:
    """What reading a file by a rule showed.

    Attributes
    ----------
    width : number of columns.
    problem : the first error, if there was one; the other attributes are about the rows before it.
    missing : the error for the first row with marks that lacks cells at its end, if there is one.
    regular : whether all cells with marks are quoted and escaped, as programs write them.
    differs : whether a cell differs from what the file has between two delimiters.
    doubtful_line : the last line of the first row of several lines each of which could be a row.
    """

    width: int = 0
    problem: UserError | None = None
    missing: UserError | None = None
    regular: bool = True
    differs: bool = False
    doubtful_line: int | None = None

    @property
    def fits(self) -> bool:
        return self.problem is None and self.regular


def _regular_record(dialect: Dialect) -> re.Pattern[str]:
    """Return the pattern of a row as programs write it: its marks are all quoted or escaped."""
    d = re.escape(dialect.delimiter)
    if dialect.quoting == "none":
        return re.compile(".*", re.DOTALL)
    if dialect.quoting == "double":
        cell = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{d}\r\n]*)'
    else:
        # A backslash before another character, such as \N for null, has a meaning of its own.
        escaped = rf'\\["\\{d}\r\n]'
        quoted = rf'"[^"\\]*(?:{escaped}[^"\\]*)*"'
        plain = rf'[^"\\{d}\r\n]*(?:{escaped}[^"\\{d}\r\n]*)*'
        cell = f"(?:{quoted}|{plain})"
    return re.compile(rf"{cell}(?:{d}{cell})*(?:\r*\n)?")
