"""Rows of a file (JSONL, JSON, CSV, TSV, Parquet) or of a hub data set, one at a time.

Readers are generators that read a small part of the file at a time, so that a file of any size
needs the memory of a few rows. For a file that cannot be read they raise a `UserError` that names
the file and, where the format has lines, the line.
"""

from __future__ import annotations

import codecs
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.cli.files import ROOT, expand_path
from shared.data.delimited import Dialect, find_dialect, parse_delimiter, read_delimited

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

    from shared.data.arguments import DataArguments

SAMPLE = ROOT / "recipes" / "data" / "issues.jsonl"
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
USUAL_DELIMITERS = {".csv": ",", ".tsv": "\t"}

# JSON rows may have different keys. The columns are the keys of this many first rows.
ROWS_TO_FIND_COLUMNS = 1000
CHUNK_BYTES = 1 << 20  # JSON
BATCH_ROWS = 1000  # Parquet and hub data sets


# --- sources -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A file or a hub data set whose rows can be read.

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
    class_names : dict of str to list of str
        Class names of each column of a hub data set that holds class ids.
    notes : list of str
        What a user should know about the way in which the file is read.
    """

    name: str
    version: str
    columns: list[str]
    read: Callable[..., Iterator[dict]]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_source(
    data: str,
    *,
    column_names: Sequence[str] | None = None,
    delimiter: str | None = None,
    quoting: str = "auto",
    config: str | None = None,
    split: str = "train",
) -> Source:
    """Find the file or the hub data set that `data` names, and its columns.

    Parameters
    ----------
    data : str
        "sample" (the issues shipped with the project), a path, or the id of a hub data set. A name
        is a path if a file of this name exists, or if it looks like a path.
    column_names : sequence of str, optional
        Names of the columns of a CSV or TSV file that has no header line.
    delimiter : str, optional
        What separates the columns of a CSV or TSV file (default: see
        `shared.data.delimited.find_dialect`).
    quoting : str, default="auto"
        How quotation marks in such a file are read: "double", "backslash", "none" (see
        `shared.data.delimited.Dialect`), or "auto" to find it out.
    config : str, optional
        Configuration of a hub data set.
    split : str, default="train"
        Split of a hub data set.

    Raises
    ------
    UserError
        If there is no such file, if it is a folder, if its type is unknown, if it cannot be read,
        or if the hub does not answer.
    """
    path = SAMPLE if data == "sample" else expand_path(data)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; give the path of one file in it")
    # Ids of hub data sets have the form name or owner/name.
    looks_like_path = (
        data == "sample"
        or data.startswith((".", "/", "~", "$"))
        or path.name.lower().endswith((*SUFFIXES, ".gz"))
        or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", data)
    )
    if not path.exists() and not looks_like_path:
        return _open_hub(data, config, split)
    if not path.exists():
        raise UserError(f"{path}: no such file")

    dialect, notes = _find_dialect(path, column_names, parse_delimiter(delimiter), quoting)

    def read(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        return read_rows(
            path, columns=columns, column_names=column_names, dialect=dialect, required=required
        )

    status = path.stat()
    version = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return Source(str(path), version, _find_columns(path, read), read, notes=notes)


def open_data(args: DataArguments) -> Source:
    """Open the file or the hub data set that the flags of a recipe name; see `open_source`."""
    return open_source(
        args.data,
        column_names=args.column_names,
        delimiter=args.delimiter,
        quoting=args.quoting,
        config=args.data_config,
        split=args.data_split,
    )


def _find_columns(path: Path, read: Callable[..., Iterator[dict]]) -> list[str]:
    if path.suffix.lower() == ".parquet":
        with _parquet(path) as file:
            return file.schema_arrow.names
    first_rows = itertools.islice(read(required=[]), ROWS_TO_FIND_COLUMNS)
    columns = list(dict.fromkeys(name for row in first_rows for name in row))
    if not columns:
        raise UserError(f"{path}: the file has no rows")
    return columns


def read_rows(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    dialect: Dialect | None = None,
    required: Sequence[str] | None = None,
) -> Iterator[dict]:
    """Yield each row of a file as a dict, in order.

    The suffix gives the type: .jsonl, .ndjson and .json (an array of objects, or one object per
    line; the first character decides), .csv, .tsv, and .parquet. All but Parquet may be compressed
    (.gz). Text is UTF-8, with or without a byte order mark.

    Parameters
    ----------
    path : Path
    columns : sequence of str, optional
        The columns needed. Only Parquet uses this: it reads no others.
    column_names : sequence of str, optional
        Names of the columns of a CSV or TSV file that has no header line.
    dialect : Dialect, optional
        How the cells of such a file are separated and quoted (default: found out).
    required : sequence of str, optional
        The columns whose cells no row of such a file may lack (default: `columns`, or all).

    Raises
    ------
    UserError
        If the file type is unknown; if the file is empty, truncated or damaged; if it has another
        encoding or invalid JSON; if a row is not an object; if a CSV or TSV file cannot be read
        (see `shared.data.delimited`).
    """
    suffix = _suffix(path)
    compressed = path.name.lower().endswith(".gz")
    if suffix not in SUFFIXES or (suffix == ".parquet" and compressed):
        known = ", ".join(SUFFIXES)
        raise UserError(
            f"{path}: unknown file type; use one of {known} (all but the last also with .gz)"
        )
    if suffix == ".parquet":
        return _read_parquet(path, columns)
    if suffix in USUAL_DELIMITERS:
        dialect = dialect or _find_dialect(path, column_names)[0]
        assert dialect is not None  # the file is CSV or TSV
        required = columns if required is None else required
        return read_delimited(path, _lines(path), dialect, column_names, required)
    return _read_json(path)


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _find_dialect(
    path: Path,
    column_names: Sequence[str] | None,
    delimiter: str | None = None,
    quoting: str = "auto",
) -> tuple[Dialect | None, list[str]]:
    """Return how the cells of a CSV or TSV file are separated and quoted, and notes about it."""
    usual = USUAL_DELIMITERS.get(_suffix(path))
    if usual is None:
        return None, []
    return find_dialect(
        path,
        lambda: _lines(path),
        usual_delimiter=usual,
        delimiter=delimiter,
        quoting=quoting,
        column_names=column_names,
    )


# --- bytes and lines -----------------------------------------------------------------------------


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, compressed or not, and report errors while it is read as a `UserError`."""
    opener: Callable[..., Any] = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            yield file
    # BadGzipFile is an OSError, so it must come first.
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}: truncated or damaged gzip file ({error}); download or compress it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _lines(path: Path) -> Iterator[str]:
    """Yield each line with its line end.

    Lines are split as bytes and decoded one by one, so that an error can name its line.
    """
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, file.tell() - len(line), error) from error
            yield text


def _not_utf8(path: Path, line: int, offset: int, error: UnicodeDecodeError) -> UserError:
    """Return the error for another encoding; `offset` is where `error.object` starts in the file.

    The encoding is a guess: UTF-16 by its byte order mark, else the most common one of Windows.
    """
    has_utf16_mark = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    guess = "UTF-16" if has_utf16_mark and offset == 0 else "WINDOWS-1252"
    return UserError(
        f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x} at position "
        f"{offset + error.start}); convert the file, for example: iconv -f {guess} -t UTF-8"
    )


# --- JSON ----------------------------------------------------------------------------------------


def _read_json(path: Path) -> Iterator[dict]:
    """Yield the rows of a JSON array or of JSON lines, whichever the first character begins."""
    start = b""
    with _open(path) as file:
        # White space may fill several chunks before the first character.
        while not start and (chunk := file.read(CHUNK_BYTES)):
            start = chunk.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        raise UserError(f"{path}: the file is empty")
    if start.startswith(b"["):
        yield from _read_json_array(path)
    # A byte above 0x7F probably means another encoding, for which decoding a line raises an error.
    elif start.startswith(b"{") or not start[:1].isascii():
        yield from _read_json_lines(path)
    else:
        raise UserError(
            f"{path}: neither a JSON array nor JSON lines (begins with "
            f"{start[:12].decode(errors='replace')!r}); write one object per line"
        )


def _read_json_lines(path: Path) -> Iterator[dict]:
    for number, line in enumerate(_lines(path), 1):
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


def _read_json_array(path: Path) -> Iterator[dict]:
    """Yield the rows of a JSON array; the buffer holds little more than the longest row.

    The json module reads whole documents only. Here `text` is a buffer of decoded characters, from
    which complete rows are taken one by one; the rest waits for the next chunk.
    """
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    parse = json.JSONDecoder().raw_decode
    # `line` is the line of the file on which the buffer starts, `rows` the number of rows so far.
    text, line, rows = "", 1, 0
    # Why the last attempt to parse a row failed, and how many characters after the last full row.
    problem, position = "", 0
    with _open(path) as file:
        at_end = False
        while not at_end:
            # A row cut off by the end of the buffer is parsed again with at least twice as much
            # text. So the total work grows linearly with the length of a row.
            chunk = file.read(max(CHUNK_BYTES, len(text)))
            at_end = not chunk
            try:
                text += decode(chunk, final=at_end)
            except UnicodeDecodeError as error:
                # `error.object` is the chunk and before it the bytes of a character cut off by the
                # end of the previous chunk.
                line += text.count("\n") + error.object.count(b"\n", 0, error.start)
                raise _not_utf8(path, line, file.tell() - len(error.object), error) from error

            start = 0  # end of the last complete row in the buffer
            while separator := re.compile(r"\s*,\s*" if rows else r"\s*\[\s*").match(text, start):
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
                problem, position = "expecting ',' or ']'", 0
            line += text.count("\n", 0, start)
            text = text[start:]

    # All rows have been taken, so only the closing bracket may remain.
    if not re.fullmatch(r"\s*\]\s*" if rows else r"\s*\[\s*\]\s*", text):
        line += text.count("\n", 0, position)
        raise UserError(
            f"{path}, line {line}: invalid JSON after row {rows} of the array ({problem})"
        )


def _checked_row(row: Any, location: str) -> dict:
    """Return a row that is an object; `location` names the file and the line or row."""
    if not isinstance(row, dict):
        raise UserError(
            f"{location}: expected an object with columns, found {json.dumps(row)[:40]}; "
            'write rows as {"title": ..., "labels": [...]}'
        )
    return row


# --- Parquet -------------------------------------------------------------------------------------


@contextmanager
def _parquet(path: Path) -> Iterator[ParquetFile]:
    """Open a Parquet file, and report errors while it is read as a `UserError`."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as Parquet ({reason})") from error


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[dict]:
    with _parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()


# --- hub data sets -------------------------------------------------------------------------------


def _open_hub(name: str, config: str | None, split: str) -> Source:
    """Load a hub data set through the cache of the datasets library."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    offline = datasets.config.HF_HUB_OFFLINE
    try:
        # Without a network, load_dataset retries for most of a minute. This request is sent once.
        if not offline:
            HfApi().dataset_info(name, timeout=5)
    except HfHubHTTPError:
        pass  # The hub has answered. The error of load_dataset says more about the problem.
    except Exception as error:  # the exception types depend on the installed HTTP library
        raise UserError(
            f"{name}: no such file, and the hub does not answer; give the path of a file, or "
            "set HF_HUB_OFFLINE=1 to use a copy that is already in the cache"
        ) from error
    try:
        dataset = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        hint = "; unset HF_HUB_OFFLINE to download it" if offline else ""
        raise UserError(
            f"{name}: no such file, and no usable hub data set: {reason}{hint}"
        ) from error

    def read(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        selected = dataset.select_columns(list(columns)) if columns else dataset
        for table in selected.with_format("arrow").iter(BATCH_ROWS):
            yield from table.to_pylist()

    class_names = {}
    for column, feature in dataset.features.items():
        feature = getattr(feature, "feature", feature)  # the elements of a list
        if isinstance(feature, datasets.ClassLabel):
            class_names[column] = feature.names
    return Source(name, dataset._fingerprint, dataset.column_names, read, class_names)
