"""Rows to a file: JSON lines or Parquet, and the cells of CSV."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 4096  # in memory at a time


def output_format(path: str | Path) -> tuple[str, bool]:
    """Return the suffix that chooses the format, and whether the file is compressed (.gz)."""
    name = Path(path).name.lower()
    return Path(name.removesuffix(".gz")).suffix, name.endswith(".gz")


@contextmanager
def as_text(file: IO[bytes], compressed: bool) -> Iterator[IO[str]]:
    """Write UTF-8 text to a file, compressed or not; the file stays open."""
    # Without a time and a name, the same rows give the same bytes.
    binary = gzip.GzipFile("", "wb", 6, file, mtime=0) if compressed else file
    text = io.TextIOWrapper(binary, "utf-8", newline="\n")
    yield text
    text.detach()
    if compressed:
        binary.close()


def write_json_lines(file: IO[str], rows: Iterable[dict]) -> None:
    """Write each row as a line of JSON."""
    for row in rows:
        line = json.dumps(row, ensure_ascii=False, default=str)
        # Half a surrogate pair cannot be written as UTF-8; it stays an escape.
        file.write(line.encode(errors="backslashreplace").decode() + "\n")


def as_cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file; lists and objects as JSON."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    # Half a surrogate pair cannot be written as UTF-8; it becomes an escape.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


# --- Parquet -------------------------------------------------------------------------------------


def write_parquet(
    file: IO[bytes],
    read_rows: Callable[[], Iterable[dict]],
    types: Mapping[str, pa.DataType] | None = None,
) -> None:
    """Write rows as Parquet, block by block.

    Parameters
    ----------
    file : binary file
    read_rows : callable
        Returns the rows; they are read twice, once for the types of the columns.
    types : mapping of str to pyarrow.DataType, optional
        The columns whose types are known; they come last.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    types = column_types(read_rows(), but=types or ()) | dict(types or {})
    schema = pa.schema(list(types.items()))
    with ParquetWriter(file, schema) as writer:
        for block in _blocks(read_rows()):
            arrays = [array_of([row.get(name) for row in block], types[name]) for name in types]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def column_types(rows: Iterable[dict], but: Iterable[str] = ()) -> dict[str, pa.DataType]:
    """Return a type for each column that holds all of its values; for none of those in `but`.

    A column of mixed values, or of objects without keys, which Parquet cannot hold, becomes
    strings, with lists and objects as JSON.
    """
    import pyarrow as pa

    types: dict[str, pa.DataType] = {}
    for block in _blocks(rows):
        for name in dict.fromkeys(name for row in block for name in row if name not in but):
            before = types.get(name, pa.null())
            try:
                new = pa.array([row.get(name) for row in block]).type
                fields = [pa.schema([(name, dtype)]) for dtype in (before, new)]
                types[name] = pa.unify_schemas(fields, promote_options="permissive").types[0]
            except (pa.ArrowException, UnicodeEncodeError, OverflowError):
                types[name] = pa.string()
    return {name: pa.string() if _has_no_keys(dtype) else dtype for name, dtype in types.items()}


def _has_no_keys(dtype: pa.DataType) -> bool:
    """Return whether a type is, or holds, a struct without fields."""
    import pyarrow as pa

    if pa.types.is_struct(dtype) and dtype.num_fields == 0:
        return True
    return any(_has_no_keys(dtype.field(i).type) for i in range(dtype.num_fields))


def array_of(values: list, dtype: pa.DataType) -> pa.Array:
    """Return an Arrow array; a string stands for any value, and holds lists and objects as JSON."""
    import pyarrow as pa

    if pa.types.is_map(dtype):
        values = [list(value.items()) for value in values]
    if dtype == pa.string():
        values = [v if v is None else str(as_cell(v)) for v in values]
    return pa.array(values, dtype)


def _blocks(rows: Iterable[dict]) -> Iterator[list[dict]]:
    iterator = iter(rows)
    while block := list(islice(iterator, BLOCK_ROWS)):
        yield block
