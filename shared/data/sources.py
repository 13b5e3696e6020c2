"""`Source`: rows that can be read, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

# JSON rows may have different keys. The columns are the keys of this many first rows, and columns
# without a usual name are recognised by what they hold in them.
ROWS_TO_FIND_COLUMNS = 1000


@dataclass(frozen=True)
class Source:
    """A file, several files or a data set whose rows can be read.

    Attributes
    ----------
    name : str
        The name in messages: the path of a file, or the id of a hub data set.
    version : str
        A text that changes whenever the rows may have changed.
    columns : list of str
        Names of the columns (JSON: the keys of the first 1,000 rows).
    read : callable
        ``read(columns, required)`` yields each row as a dict, in order. With a list of columns,
        the dict may lack all others; with None, it has all columns. In a CSV or TSV file, a row may
        lack cells at its end, but not those of `required` (default: `columns`).
    layout : str
        The format in words, such as "CSV" or "a Label Studio export".
    class_names : dict of str to list of str
        Class names of each column of a data set that holds class ids.
    notes : list of str
        What a user should know about the way in which the file is read.
    label_column, annotator_column : str, optional
        The column in which the format has the labels, or who gave them.
    place_of_row : callable, optional
        The place of a row that has been read, from its number; see `place`.
    file_of_row : callable, optional
        Of several files, a short name of the one of a row that has been read, from its number.
    count_notes : callable, optional
        Further notes, about what has been counted while the rows were read.
    """

    name: str
    version: str
    columns: list[str]
    read: Callable[..., Iterator[dict]]
    layout: str = ""
    class_names: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    label_column: str | None = None
    annotator_column: str | None = None
    place_of_row: Callable[[int], str] | None = None
    file_of_row: Callable[[int], str] | None = None
    count_notes: Callable[[], list[str]] | None = None

    def place(self, row: int) -> str:
        """Return the place of a row (from 1) that has been read, for messages."""
        return f"{self.name}, row {row}" if self.place_of_row is None else self.place_of_row(row)

    def first_rows(self) -> list[dict]:
        """Return the rows from which columns are recognised."""
        return list(islice(self.read(required=[]), ROWS_TO_FIND_COLUMNS))
