"""The rows of JSON files: lines, arrays, objects one after another, and one object with all rows.

Rows are read one at a time, except those of a file that is one object: such a file is read as a
whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from shared.cli.errors import UserError
from shared.data.encodings import Encoding, not_utf8, open_bytes, read_lines

CHUNK_BYTES = 1 << 20

# Keys of a row, beside which a list of objects is a cell: the labels of one GitHub issue, or the
# answers to one question.
_TEXT_KEYS = {"text", "title", "body", "question"}


@dataclass(frozen=True)
class JsonRows:
    """The layout of a JSON file: its name in messages, and what yields its rows."""

    layout: str
    read: Callable[[], Iterator[dict]]


def open_json(path: Path, encoding: Encoding, part: str | None = None) -> JsonRows:
    """Find out the layout of a JSON file.

    Parameters
    ----------
    path : Path
    encoding : Encoding
    part : str, optional
        The key to take from a file that is one object with several lists of rows, such as "train"
        and "test".

    Raises
    ------
    UserError
        If the file is empty, or no JSON; or if it is one object, and it is not clear where its rows
        are.
    """
    first = _first_character(path, encoding)
    if first == "[":
        return JsonRows("a JSON array", lambda: _read_stream(path, encoding, is_array=True))
    if first != "{":
        raise UserError(
            f"{path}: neither a JSON array nor JSON lines (begins with "
            f"{first!r}); write one object per line"
        )
    if not _has_object_on_first_line(path, encoding):
        objects = list(islice(_objects_in_row(path, encoding), 2))
        layout = JsonRows(
            "JSON objects, one after another", lambda: _read_stream(path, encoding, is_array=False)
        )
    else:
        objects = list(islice(_first_lines(path, encoding), 2))
        layout = JsonRows("JSON lines", lambda: _read_lines(path, encoding))
    if len(objects) == 1 and (table := _find_table(path, objects[0], part)):
        return table
    return layout if objects else JsonRows("JSON lines", lambda: _read_lines(path, encoding))


# --- the layout ----------------------------------------------------------------------------------


def _first_character(path: Path, encoding: Encoding) -> str:
    decode = codecs.getincrementaldecoder(encoding.name)(errors="replace").decode
    start = ""
    with open_bytes(path) as file:
        # White space may fill several chunks before the first character.
        while not start and (chunk := file.read(CHUNK_BYTES)):
            start = decode(chunk).removeprefix("\ufeff").lstrip()
    if not start:
        raise UserError(f"{path}: the file is empty")
    return start[0] if start[0] in "[{" else start[:12]


def _has_object_on_first_line(path: Path, encoding: Encoding) -> bool:
    line = next((line for line in read_lines(path, encoding) if not line.isspace()), "")
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _first_lines(path: Path, encoding: Encoding) -> Iterator[Any]:
    """Yield the objects of the first two lines; an invalid second one as None."""
    lines = (line for line in read_lines(path, encoding) if not line.isspace())
    for line in islice(lines, 2):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield None


def _objects_in_row(path: Path, encoding: Encoding) -> Iterator[dict]:
    """Yield objects that stand one after another; nothing more from the first error on."""
    try:
        yield from _read_stream(path, encoding, is_array=False)
    except UserError:
        return


def _find_table(path: Path, content: Any, part: str | None) -> JsonRows | None:
    """Return the rows in the only object of a file; None if the object is itself a row."""
    if not isinstance(content, dict) or not content:
        return None
    columns: Any = content.get("columns")
    data: Any = content.get("data")
    if _is_list_of(columns, str) and _is_list_of(data, list):
        for number, cells in enumerate(data, 1):
            if len(cells) != len(columns):
                raise UserError(
                    f"{path}, row {number} of 'data': {len(cells)} cells, but {len(columns)} "
                    "columns"
                )
        rows = [dict(zip(columns, cells, strict=True)) for cells in data]
        return _table(rows, "JSON of pandas, orient 'split'")
    tables = {key: value for key, value in content.items() if _is_list_of(value, dict) and value}
    if tables and not _TEXT_KEYS & content.keys():
        if len(tables) > 1 and part not in tables:
            raise UserError(
                f"{path}: one object with several lists of rows ({', '.join(tables)}); name one of "
                "them with --data_split"
            )
        key = next(iter(tables)) if len(tables) == 1 else str(part)
        return _table(tables[key], f"a JSON object with the rows in {key!r}")
    values = list(content.values())
    if all(isinstance(value, dict) and value for value in values):
        inner = [list(value) for value in values]
        if all(name.isdecimal() for name in content) and not inner[0][0].isdecimal():
            return _table(values, "JSON of pandas, orient 'index'")
        if all(keys == inner[0] for keys in inner):
            cells_of_rows = zip(*(value.values() for value in values), strict=True)
            rows = [dict(zip(content, cells, strict=True)) for cells in cells_of_rows]
            return _table(rows, "JSON of pandas, orient 'columns'")
    lengths = {len(value) for value in values if isinstance(value, list)}
    if all(isinstance(value, list) for value in values) and len(lengths) == 1 and lengths != {0}:
        rows = [dict(zip(content, cells, strict=True)) for cells in zip(*values, strict=True)]
        return _table(rows, "a JSON object with a list for each column")
    return None


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _table(rows: list[dict], layout: str) -> JsonRows:
    return JsonRows(layout, lambda: iter(rows))


# --- rows ----------------------------------------------------------------------------------------


def _read_lines(path: Path, encoding: Encoding) -> Iterator[dict]:
    for number, line in enumerate(read_lines(path, encoding), 1):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = str(error)
            if isinstance(error, json.JSONDecodeError):
                # Without the line number of the message, which is always 1 here.
                problem = f"{error.msg} at column {error.colno}"
            raise UserError(
                f"{path}, line {number}: invalid JSON ({problem}); "
                "write one object per line, or one array of objects"
            ) from error
        yield _checked_row(row, f"{path}, line {number}")


def _read_stream(path: Path, encoding: Encoding, *, is_array: bool) -> Iterator[dict]:
    """Yield the rows of a JSON array, or objects one after another.

    The json module reads whole documents only. Here `text` is a buffer of decoded characters, from
    which complete rows are taken one by one; the rest waits for the next chunk. It holds little
    more than the longest row.
    """
    decode = codecs.getincrementaldecoder(encoding.name)().decode
    parse = json.JSONDecoder().raw_decode
    before_first = re.compile(r"\s*\[\s*" if is_array else r"\s*(?=\{)")
    between = re.compile(r"\s*,\s*" if is_array else r"\s*(?=\{)")
    # `line` is the line of the file on which the buffer starts, `rows` the number of rows so far.
    text, line, rows = "", 1, 0
    # Why the last attempt to parse a row failed, and how many characters after the last full row.
    problem, position = "", 0
    with open_bytes(path) as file:
        at_end = False
        while not at_end:
            # A row cut off by the end of the buffer is parsed again with at least twice as much
            # text. So the total work grows linearly with the length of a row.
            chunk = file.read(max(CHUNK_BYTES, len(text)))
            at_end = not chunk
            try:
                text += decode(chunk, final=at_end)
                if not rows:  # some codecs keep the byte order mark
                    text = text.removeprefix("\ufeff")
            except UnicodeDecodeError as error:
                # `error.object` is the chunk and before it the bytes of a character cut off by the
                # end of the previous chunk.
                line += text.count("\n") + error.object.count(b"\n", 0, error.start)
                raise not_utf8(path, line, file.tell() - len(error.object), error) from error

            start = 0  # end of the last complete row in the buffer
            while separator := (between if rows else before_first).match(text, start):
                try:
                    row, start = parse(text, separator.end())
                except (ValueError, RecursionError) as error:
                    # Invalid, or only cut off: the next chunk tells. At the end of the file the
                    # reason is part of the message.
                    problem = getattr(error, "msg", str(error))
                    position = getattr(error, "pos", separator.end()) - start
                    break
                rows += 1
                yield _checked_row(row, f"{path}, row {rows}")
            else:
                problem, position = "expecting ',' or ']'" if is_array else "expecting '{'", 0
            line += text.count("\n", 0, start)
            text = text[start:]

    # All rows have been taken, so only the closing bracket may remain.
    end = (r"\s*\]\s*" if rows else r"\s*\[\s*\]\s*") if is_array else r"\s*"
    if not re.fullmatch(end, text):
        line += text.count("\n", 0, position)
        name = "of the array " if is_array else ""
        raise UserError(f"{path}, line {line}: invalid JSON after row {rows} {name}({problem})")


def _checked_row(row: Any, location: str) -> dict:
    """Return a row that is an object; `location` names the file and the line or row."""
    if not isinstance(row, dict):
        raise UserError(
            f"{location}: expected an object with columns, found {json.dumps(row)[:40]}; "
            'write rows as {"title": ..., "labels": [...]}'
        )
    return row
