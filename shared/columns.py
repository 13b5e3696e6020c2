"""Which columns of a source hold texts and labels, and the text of a row."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from shared._labels import shown
from shared.errors import UserError

DEFAULT_TEXT_COLUMNS = ("title", "body")
DEFAULT_LABEL_COLUMN = "labels"


def find_text_columns(columns: Sequence[str], wanted: list[str], source: str) -> list[str]:
    """The columns of a source that make up its texts; `wanted`, unless that is the default.

    Raises
    ------
    UserError : a column of `wanted` is not among `columns`.
    """
    if wanted == list(DEFAULT_TEXT_COLUMNS):
        found = [name for name in wanted if name in columns]
        wanted = found or (["text"] if "text" in columns else wanted)
    for name in wanted:
        if name not in columns:
            raise _missing_column(name, columns, "--text_columns", source)
    return wanted


def find_label_column(
    columns: Sequence[str], wanted: str, source: str, *, required: bool = True
) -> str | None:
    """The column of a source that holds its labels; `wanted`, unless that is the default.

    None where the default is not there and none is required.

    Raises
    ------
    UserError : `wanted` is not among `columns`.
    """
    for name in (wanted, "label") if wanted == DEFAULT_LABEL_COLUMN else (wanted,):
        if name in columns:
            return name
    if not required and wanted == DEFAULT_LABEL_COLUMN:
        return None
    raise _missing_column(wanted, columns, "--label_column", source)


def join_text(row: dict, columns: Sequence[str]) -> str:
    """Text of a row: its text columns, joined by a blank line; null and blank ones left out.

    Half a surrogate pair, which JSON can hold but UTF-8 and tokenizers cannot, becomes U+FFFD.

    Raises
    ------
    ValueError : a column holds something other than text.
    """
    parts = []
    for column in columns:
        value = row.get(column)
        if value is None:
            continue
        if not isinstance(value, str):
            raise ValueError(f"column {column!r} holds {shown(value)}, not text")
        if value and not value.isspace():
            parts.append(value)
    text = "\n\n".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _missing_column(name: str, columns: Sequence[str], flag: str, source: str) -> UserError:
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"name the right one with {flag}"
    return UserError(f"{source}: no column {name!r} (found: {', '.join(columns)}); {hint}")
