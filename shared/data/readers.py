"""Rows of a file (JSONL, JSON, CSV, TSV, Parquet) or of a hub data set, one at a time.

Nothing is read ahead of what is asked for, so a file of any size takes the memory of a few rows.
A file that cannot be read raises a `UserError` that names the line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shared.cli.errors import UserError
from shared.cli.files import ROOT

SAMPLE = ROOT / "recipes" / "data" / "issues.jsonl"
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

# JSON rows need not have the same keys: columns are looked for in this many rows.
ROWS_TO_FIND_COLUMNS = 1000
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Attributes
    ----------
    name : how messages name it: the path of a file, or the id of a hub data set.
    version : changes whenever the rows may have changed.
    columns : names of the columns (JSON: the keys of the first 1,000 rows).
    read : `read(columns)` yields each row as a dict, in order. With a list of columns, others may
        be missing from the dict; with None, all are there.
    class_names : column -> class names, for columns of a hub data set that hold class ids.
    """

    name: str
    version: str
    columns: list[str]
    read: Callable[[Sequence[str] | None], Iterator[dict]]
    class_names: dict[str, list[str]] = field(default_factory=dict)


def open_source(
    data: str,
    *,
    column_names: Sequence[str] | None = None,
    config: str | None = None,
    split: str = "train",
) -> Source:
    """Find out what `data` names, and which columns it has.

    Parameters
    ----------
    data : "sample" (the issues shipped with the project), a path, or the id of a hub data set.
        What exists as a file, or looks like a path, is a path.
    column_names : names of the columns of a CSV or TSV file that has no header line.
    config, split : configuration and split of a hub data set.

    Raises
    ------
    UserError : no such file, a folder, an unknown file type, an unreadable file, no answer from
        the hub.
    """
    path = SAMPLE if data == "sample" else expand_path(data)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name one file in it")
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

    def read(columns: Sequence[str] | None = None) -> Iterator[dict]:
        return read_rows(path, columns=columns, column_names=column_names)

    status = path.stat()
    version = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return Source(str(path), version, _find_columns(path, read), read)


def expand_path(path: str) -> Path:
    """Fill in `~`, `$NAME` and `${NAME}`; `RECIPES_DATA` defaults to `../shared/data`, if there."""

    def value(match: re.Match) -> str:
        name = match[1] or match[2]
        beside = ROOT.parent / "shared" / "data"
        if name in os.environ:
            return os.environ[name]
        if name == "RECIPES_DATA" and beside.is_dir():
            return str(beside)
        raise UserError(
            f"{path}: the environment variable {name} is not set; set it to the folder meant"
        )

    return Path(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, path)).expanduser()


def read_rows(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
) -> Iterator[dict]:
    """Yield each row of a file as a dict, in order.

    The type follows from the name: .jsonl, .ndjson and .json (an array of objects or one object
    per line: told by the first character), .csv, .tsv (quoted as CSV is), each also .gz, and
    .parquet. Text is UTF-8, with or without a byte order mark.

    Parameters
    ----------
    path : the file.
    columns : the columns needed; Parquet reads only these.
    column_names : names of the columns of a CSV or TSV file that has no header line.

    Raises
    ------
    UserError : another file type, an empty, truncated or damaged file, another encoding, invalid
        JSON, a row that is not an object, a CSV row with more or fewer cells than the header.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    compressed = path.name.lower().endswith(".gz")
    if suffix not in SUFFIXES or (suffix == ".parquet" and compressed):
        known = ", ".join(SUFFIXES)
        raise UserError(f"{path}: unknown file type; known are {known}, all but the last also .gz")
    if suffix == ".parquet":
        return _read_parquet(path, columns)
    if suffix in (".csv", ".tsv"):
        return _read_delimited(path, "," if suffix == ".csv" else "\t", column_names)
    return _read_json(path)


def _find_columns(path: Path, read: Callable[[], Iterator[dict]]) -> list[str]:
    if path.suffix.lower() == ".parquet":
        with _parquet(path) as file:
            return file.schema_arrow.names
    first_rows = itertools.islice(read(), ROWS_TO_FIND_COLUMNS)
    columns = list(dict.fromkeys(name for row in first_rows for name in row))
    if not columns:
        raise UserError(f"{path}: the file has no rows")
    return columns


@contextmanager
def _open(path: Path) -> Iterator:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}: truncated or damaged gzip file ({error}); download or compress it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _lines(path: Path) -> Iterator[str]:
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
    utf16 = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    guess = "UTF-16" if utf16 and offset == 0 else "WINDOWS-1252"
    return UserError(
        f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x} at position "
        f"{offset + error.start}); convert the file, for example: iconv -f {guess} -t UTF-8"
    )


def _read_json(path: Path) -> Iterator[dict]:
    start = b""
    with _open(path) as file:
        while not start and (chunk := file.read(CHUNK_BYTES)):
            start = chunk.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        raise UserError(f"{path}: the file is empty")
    if start.startswith(b"["):
        yield from _read_json_array(path)
    elif start.startswith(b"{") or not start[:1].isascii():  # another encoding: found when decoded
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
                problem = f"{error.msg} at column {error.colno}"
            raise UserError(
                f"{path}, line {number}: invalid JSON ({problem}); "
                "write one object per line, or one array of objects"
            ) from error
        yield _object(row, f"{path}, line {number}")


def _read_json_array(path: Path) -> Iterator[dict]:
    """One row at a time: the buffer holds little more than the longest row."""
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    scan = json.JSONDecoder().raw_decode
    text, line, rows = "", 1, 0
    problem, position = "", 0
    with _open(path) as file:
        ended = False
        while not ended:
            # A row cut off by the end of the buffer is tried again with at least twice as much
            # text, which keeps the work linear however long a row is.
            chunk = file.read(max(CHUNK_BYTES, len(text)))
            ended = not chunk
            try:
                text += decode(chunk, final=ended)
            except UnicodeDecodeError as error:
                line += text.count("\n") + error.object.count(b"\n", 0, error.start)
                raise _not_utf8(path, line, file.tell() - len(error.object), error) from error
            start = 0
            while separator := re.compile(r"\s*,\s*" if rows else r"\s*\[\s*").match(text, start):
                try:
                    row, start = scan(text, separator.end())
                except (ValueError, RecursionError) as error:
                    problem = getattr(error, "msg", str(error))
                    position = getattr(error, "pos", separator.end()) - start
                    break
                rows += 1
                yield _object(row, f"{path}, row {rows}")
            else:
                problem, position = "expecting ',' or ']'", 0
            line += text.count("\n", 0, start)
            text = text[start:]
    if not re.fullmatch(r"\s*\]\s*" if rows else r"\s*\[\s*\]\s*", text):
        line += text.count("\n", 0, position)
        raise UserError(
            f"{path}, line {line}: invalid JSON after row {rows} of the array ({problem})"
        )


def _object(row, where: str) -> dict:
    if not isinstance(row, dict):
        raise UserError(
            f"{where}: expected an object with columns, found {json.dumps(row)[:40]}; "
            'write rows as {"title": ..., "labels": [...]}'
        )
    return row


def _read_delimited(
    path: Path, delimiter: str, column_names: Sequence[str] | None
) -> Iterator[dict]:
    # The module's limit of 131,072 characters per cell is below a text of 100,000 words.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    try:
        header = list(column_names) if column_names else next(reader, None)
        if header is None:
            raise UserError(f"{path}: the file is empty")
        if len(set(header)) < len(header):
            raise UserError(f"{path}, line 1: the header names a column twice: {header}")
        for cells in reader:
            if not cells:  # a blank line
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but {len(header)} "
                    f"columns ({', '.join(header)}); quote cells that hold {delimiter!r}"
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(
            f'{path}, line {reader.line_num}: {error}; quote cells as in "He said ""no"", twice"'
        ) from error


@contextmanager
def _parquet(path: Path) -> Iterator:
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
        for batch in file.iter_batches(ROWS_TO_FIND_COLUMNS, columns=columns):
            yield from batch.to_pylist()


def _open_hub(name: str, config: str | None, split: str) -> Source:
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    offline = datasets.config.HF_HUB_OFFLINE
    try:
        # load_dataset tries again for most of a minute where there is no network; this asks once.
        if not offline:
            HfApi().dataset_info(name, timeout=5)
    except HfHubHTTPError:
        pass  # The hub has answered; load_dataset says more about what is wrong.
    except Exception as error:  # which ones depends on the HTTP library of the day
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
            f"{name}: no such file, nor a usable hub data set: {reason}{hint}"
        ) from error

    def read(columns: Sequence[str] | None = None) -> Iterator[dict]:
        wanted = dataset.select_columns(list(columns)) if columns else dataset
        for table in wanted.with_format("arrow").iter(ROWS_TO_FIND_COLUMNS):
            yield from table.to_pylist()

    class_names = {}
    for column, feature in dataset.features.items():
        feature = getattr(feature, "feature", feature)  # the elements of a list
        if isinstance(feature, datasets.ClassLabel):
            class_names[column] = feature.names
    return Source(name, dataset._fingerprint, dataset.column_names, read, class_names)
