"""The files of a folder, and their parts: blocks of rows of Parquet and JSON lines files.

Folders can lie on any file system that pyarrow reads, as Ray Data does: this machine, S3, Google
Cloud Storage, HDFS, and those of fsspec.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError, first_line
from shared.cli.files import expand_path
from shared.cli.launch import progress
from shared.data.columns import find_label_column, find_text_columns
from shared.data.sources import ROWS_TO_FIND_COLUMNS

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SUFFIXES = (".parquet", ".jsonl", ".ndjson")
# What pyarrow opens by itself. All others are names of fsspec.
_ARROW_SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "hf")
_WILDCARDS = "*?["


def is_folder(data: str) -> bool:
    """Return whether a value of ``--data`` names a folder, a pattern of files, or a URI."""
    path = expand_path(data)
    return (
        "://" in data or path.is_dir() or (any(c in data for c in _WILDCARDS) and not path.exists())
    )


# --- files and parts -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Some rows of a file.

    Attributes
    ----------
    file : str
        Path in the file system of the input.
    name : str
        Of its file in the output, relative to the folder.
    origin : str
        Path of the file relative to the folder of the input.
    first, rows : int
        The first row, from 0, and how many.
    start, stop : int
        Bytes of the rows in a file of JSON lines.
    """

    file: str
    name: str
    origin: str
    first: int
    rows: int
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class InputFile:
    """A file of the input: path, path relative to the folder, and what changes when it does."""

    path: str
    origin: str
    version: str


def open_folder(uri: str, flag: str) -> tuple[FileSystem, str]:
    """Return the file system that a path or URI names, and the path in it.

    Raises
    ------
    UserError
        If there is no such file system, or it does not answer.
    """
    import pyarrow as pa
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" not in uri:
        return LocalFileSystem(), os.path.abspath(expand_path(uri))
    scheme = uri.partition("://")[0]
    is_known = scheme in _ARROW_SCHEMES or scheme.startswith("fsspec+")
    try:
        return FileSystem.from_uri(uri if is_known else f"fsspec+{uri}")
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        raise UserError(f"--{flag} {uri}: cannot be opened ({first_line(error)})") from error


def find_files(data: str) -> tuple[FileSystem, list[InputFile]]:
    """Return the Parquet and JSON lines files of a folder, a pattern or a URI, sorted by path.

    Hidden files are left out.

    Raises
    ------
    UserError
        If there is none.
    """
    from pyarrow.fs import FileSelector, FileType

    files, path = open_folder(data, "data")
    try:
        path, pattern = _split_pattern(files, path)
        entry = files.get_file_info(path)
        if entry.type == FileType.File:
            entries, path = [entry], posixpath.dirname(path)
        else:
            entries = files.get_file_info(FileSelector(path, recursive=True))
    except OSError as error:
        raise UserError(f"--data {data}: cannot be read ({first_line(error)})") from error
    chosen = []
    for entry in entries:
        origin = posixpath.relpath(entry.path, path)
        hidden = any(name.startswith((".", "_")) for name in origin.split("/"))
        fits = pattern is None or (
            fnmatch.fnmatchcase(entry.path, pattern)
            and entry.path.count("/") == pattern.count("/")  # * stays within a folder
        )
        if entry.type == FileType.File and entry.path.endswith(SUFFIXES) and fits and not hidden:
            version = f"{entry.size} {entry.mtime_ns}"
            chosen.append(InputFile(entry.path, origin, version))
    if not chosen:
        raise UserError(f"--data {data}: no {', '.join(SUFFIXES)} file is there")
    return files, sorted(chosen, key=lambda file: file.path)


def check_apart(data: str, output: str) -> None:
    """Refuse an output that the same command would read as input when it is repeated.

    Parameters
    ----------
    data, output : str
        The values of ``--data`` and ``--output``.

    Raises
    ------
    UserError
        If one of them lies in the other.
    """
    (files, path), (target, folder) = open_folder(data, "data"), open_folder(output, "output")
    root, pattern = _split_pattern(files, path)
    # A pattern of the files of one folder reads none of the folders below it.
    reads_below = pattern is None or "/" in pattern[len(root) + 1 :]
    around = f"{root}/".startswith(f"{folder}/")
    if files == target and (around or (reads_below and folder.startswith(f"{root}/"))):
        raise UserError(
            f"--output {output}: lies in --data {data}, or around it, so that it would be read as "
            "input; choose a folder beside it"
        )


def _split_pattern(files: FileSystem, path: str) -> tuple[str, str | None]:
    """Return the folder or file that a path names; of a pattern, its first folder and itself."""
    from pyarrow.fs import FileType

    wild = any(c in path for c in _WILDCARDS)
    if wild and files.get_file_info(path).type == FileType.NotFound:
        return posixpath.dirname(re.split(r"[*?[]", path)[0]), path
    return path, None


def split_files(
    files: FileSystem,
    inputs: Sequence[InputFile],
    block_size: int,
    text_columns: list[str],
    label_column: str | None = None,
) -> tuple[list[Part], list[str], str | None]:
    """Return the parts of files, of at most `block_size` rows, and the columns to read.

    Parameters
    ----------
    files, inputs
        From `find_files`.
    block_size : int
    text_columns : list of str
        The value of ``--text_columns``.
    label_column : str, optional
        That of ``--label_column``, if labels are read.

    Returns
    -------
    parts : list of Part
    columns : list of str
        Those of the texts.
    label_column : str, optional

    Raises
    ------
    UserError
        If a file cannot be read, if no file has a row, or if files differ in their columns (of
        JSON lines, in those that hold the texts).
    """
    parts: list[Part] = []
    first_columns: list[str] = []
    first_names: dict[str, list[str]] = {}  # suffix: the columns of its first file
    for file in progress(inputs, "looking through files", unit="files"):
        suffix = posixpath.splitext(file.path)[1]
        with reading(file.path):
            split = _split_parquet if suffix == ".parquet" else _split_json_lines
            names, blocks = split(files, file.path, block_size)
        if not blocks:  # a file of JSON lines without rows has no columns, either
            continue
        columns = find_text_columns(names, text_columns, file.path)
        first_columns = first_columns or columns
        if label_column is not None:
            label_column = find_label_column(names, label_column, file.path)
        expected = first_names.setdefault(suffix, names)
        if suffix == ".parquet" and (different := set(names) ^ set(expected)):
            raise UserError(
                f"--data: {file.path} has other columns than {inputs[0].path}: only one of them "
                f"has {', '.join(sorted(different)[:5])}; tag them separately"
            )
        if columns != first_columns:
            raise UserError(
                f"--data: the texts of {file.path} are in {', '.join(columns)}, those of "
                f"{inputs[0].path} in {', '.join(first_columns)}; tag them separately, or name "
                "--text_columns"
            )
        ending = "parquet" if suffix == ".parquet" else "jsonl"
        for number, block in enumerate(blocks):
            name = f"{file.origin}-{number:06}.{ending}"
            parts.append(Part(file.path, name, file.origin, **block))
    if not parts:
        raise UserError("--data: no file there has a row")
    return parts, first_columns, label_column


def _split_parquet(files: FileSystem, path: str, n: int) -> tuple[list[str], list[dict[str, int]]]:
    from pyarrow.parquet import ParquetFile

    with files.open_input_file(path) as opened:
        file = ParquetFile(opened)
        total = file.metadata.num_rows
        blocks = [{"first": i, "rows": min(n, total - i)} for i in range(0, total, n)]
        return file.schema_arrow.names, blocks


def _split_json_lines(
    files: FileSystem, path: str, n: int
) -> tuple[list[str], list[dict[str, int]]]:
    names: dict[str, None] = {}
    blocks: list[dict[str, int]] = []
    place = rows = start = 0
    with files.open_input_stream(path) as stream, io.BufferedReader(stream, 1 << 20) as lines:
        for line in lines:
            place += len(line)
            if not line.strip():
                continue
            if rows < ROWS_TO_FIND_COLUMNS:
                names |= dict.fromkeys(parse_line(line, path, rows))
            if rows % n == 0:
                start = place - len(line)
                blocks.append({"first": rows, "rows": 0, "start": start})
            rows += 1
            blocks[-1] |= {"rows": rows - blocks[-1]["first"], "stop": place}
    return list(names), blocks


def parse_line(line: bytes, path: str, row: int) -> dict[str, Any]:
    """Return the object of a line of JSON; `row` counts from 0."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, row {row + 1}: invalid JSON ({first_line(error)})") from error
    return value


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Report errors while a file is read as a `UserError`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
