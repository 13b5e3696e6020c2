"""The rows of an Excel workbook (.xlsx)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError, first_line

if TYPE_CHECKING:
    from openpyxl import Workbook


def find_sheet(path: Path, wanted: str) -> str:
    """Return the sheet that has the rows: the only one with cells, or the one called `wanted`.

    Raises
    ------
    UserError
        If the file is no workbook, has no cells, or has cells on several sheets with other names.
    """
    with _open(path) as workbook:
        filled = [
            sheet.title
            for sheet in workbook.worksheets
            if any(
                cell is not None
                for row in islice(sheet.iter_rows(values_only=True), 100)
                for cell in row
            )
        ]
    if not filled:
        raise UserError(f"{path}: the file is empty")
    if len(filled) == 1:
        return filled[0]
    if wanted not in filled:
        raise UserError(
            f"{path}: several sheets have rows ({', '.join(filled)}); name one of them with "
            "--data_split"
        )
    return wanted


def read_sheet(
    path: Path, sheet: str, column_names: Sequence[str] | None = None
) -> Iterator[dict[str, str]]:
    """Yield the rows of a sheet, with cells as text, as in a CSV file.

    Whole numbers have no fraction, dates are ISO 8601, and formulas have the value that was saved
    with them. Rows and columns without cells are left out.

    Parameters
    ----------
    path : Path
    sheet : str
    column_names : sequence of str, optional
        Names of the columns of a sheet that has no header row.

    Raises
    ------
    UserError
        If a column with cells has no name, or two have the same.
    """
    header = list(column_names) if column_names else None
    with _open(path) as workbook:
        for number, values in enumerate(workbook[sheet].iter_rows(values_only=True), 1):
            cells = [_text(value) for value in values]
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                while not header[-1]:
                    header.pop()
                named = [name for name in header if name]
                if len(set(named)) < len(named):
                    raise UserError(
                        f"{path}, row {number}: the header names a column twice: {named}"
                    )
                continue
            for column, cell in enumerate(cells):
                if cell.strip() and not (column < len(header) and header[column]):
                    raise UserError(
                        f"{path}, row {number}: {cell[:40]!r} is in a column that has no name; "
                        "name it in the header"
                    )
            cells += [""] * (len(header) - len(cells))
            yield {name: cell for name, cell in zip(header, cells, strict=False) if name}


@contextmanager
def _open(path: Path) -> Iterator[Workbook]:
    """Open a workbook, and report errors while it is read as a `UserError`."""
    import openpyxl

    try:
        # In this mode rows are read one at a time.
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            yield workbook
        finally:
            workbook.close()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    # openpyxl lets errors of any type through for a damaged file.
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, SyntaxError, EOFError) as error:
        raise UserError(
            f"{path}: cannot be read as an Excel workbook ({first_line(error)}); save it as .xlsx "
            "or .csv"
        ) from error


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value)
