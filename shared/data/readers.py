"""Open what ``--data`` names: a file, several files, a folder, or a hub data set.

Readers are generators that read a small part of a file at a time, so that a file of any size needs
the memory of a few rows. For a file that cannot be read they raise a `UserError` that names the
file and, where the format has lines, the line.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli.errors import UserError
from shared.cli.files import ROOT, expand_path
from shared.data.annotations import recognise_annotations
from shared.data.annotators import name_annotators
from shared.data.delimited import DELIMITERS, find_dialect, parse_delimiter, read_delimited
from shared.data.encodings import find_encoding, read_lines
from shared.data.excel import find_sheet, read_sheet
from shared.data.folders import open_class_folders
from shared.data.json_rows import open_json
from shared.data.saved_datasets import class_names_of, is_saved, open_hub, open_saved
from shared.data.sources import ROWS_TO_FIND_COLUMNS, Source

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

    from shared.data.arguments import DataArguments, SourceArguments

SAMPLE = ROOT / "recipes" / "data" / "issues.jsonl"
USUAL_DELIMITERS = {".csv": ",", ".tsv": "\t"}
# "Unicode text" of Excel has columns, too.
_DELIMITED = {**USUAL_DELIMITERS, ".txt": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*_JSON, *USUAL_DELIMITERS, ".parquet", ".xlsx")
_NEVER_COMPRESSED = (".parquet", ".xlsx")
_WILDCARDS = "*?["

BATCH_ROWS = 1000  # Parquet


@dataclass(frozen=True)
class ReadingOptions:
    """How files are read; the parameters of `open_source`."""

    column_names: Sequence[str] | None = None
    delimiter: str | None = None
    quoting: str = "auto"
    encoding: str | None = None
    split: str = "train"


def open_source(
    data: str,
    *,
    column_names: Sequence[str] | None = None,
    delimiter: str | None = None,
    quoting: str = "auto",
    encoding: str | None = None,
    config: str | None = None,
    split: str = "train",
) -> Source:
    """Find what `data` names, and its columns.

    The suffix gives the type of a file: .jsonl, .ndjson and .json, .csv, .tsv, and .txt if its
    columns are separated by tabs, each also compressed (.gz); .parquet; .xlsx.

    Parameters
    ----------
    data : str
        "sample" (the issues shipped with the project); the path of a file; a pattern of files, such
        as "texts/*.csv"; several files, separated by commas; a folder with a folder of text files
        for each class, or that `datasets.Dataset.save_to_disk` wrote; or the id of a hub data set.
        A name is a path if a file of this name exists, or if it looks like a path.
    column_names : sequence of str, optional
        Names of the columns of a CSV, TSV or Excel file that has no header line.
    delimiter : str, optional
        What separates the columns of a CSV or TSV file (default: see
        `shared.data.delimited.find_dialect`).
    quoting : str, default="auto"
        How quotation marks in such a file are read: "double", "backslash", "none" (see
        `shared.data.delimited.Dialect`), or "auto" to find it out.
    encoding : str, optional
        How the characters of text files are written (default: see
        `shared.data.encodings.find_encoding`).
    config : str, optional
        Configuration of a hub data set.
    split : str, default="train"
        Split of a hub or saved data set, sheet of a workbook, or key of a JSON object.

    Raises
    ------
    UserError
        If there is no such file, if its type is unknown or it cannot be read, if it is not clear
        which part of it is meant, or if the hub does not answer.
    """
    options = ReadingOptions(column_names, delimiter, quoting, encoding, split)
    path = SAMPLE if data == "sample" else expand_path(data)
    if path.is_dir():
        return _open_folder(path, options)
    if not path.exists() and (paths := _several_files(data)):
        return _open_files(data, paths, options)
    # Ids of hub data sets have the form name or owner/name.
    looks_like_path = (
        data == "sample"
        or data.startswith((".", "/", "~", "$"))
        or path.name.lower().endswith((*SUFFIXES, ".gz"))
        or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", data)
    )
    if not path.exists() and not looks_like_path:
        return open_hub(data, config, split)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    return _open_file(path, options)


def open_rows(args: SourceArguments, data: str) -> Source:
    """Open `data`, which is read as the flags of a recipe say; see `open_source`."""
    return open_source(
        data,
        column_names=args.column_names,
        delimiter=args.delimiter,
        quoting=args.quoting,
        encoding=args.encoding,
        config=args.data_config,
        split=args.data_split,
    )


def open_data(args: DataArguments) -> Source:
    """Open what the flags of a recipe name; see `open_source`.

    The rows of annotation tools become rows with labels; see `shared.data.annotations`, and
    `shared.data.annotators` for recipes that keep annotators apart.
    """
    source = open_rows(args, args.data)
    return name_annotators(recognise_annotations(source, args.label_column), args)


# --- one file ------------------------------------------------------------------------------------


def _open_file(path: Path, options: ReadingOptions) -> Source:
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    known = suffix in (*SUFFIXES, *_DELIMITED)
    if not known or (suffix in _NEVER_COMPRESSED and name.endswith(".gz")):
        raise UserError(
            f"{path}: unknown file type; use one of {', '.join(SUFFIXES)} (all but the last two "
            "also with .gz)"
        )
    status = path.stat()
    version = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    if suffix == ".parquet":
        return _open_parquet(path, version)
    if suffix == ".xlsx":
        sheet = find_sheet(path, options.split)
        layout, notes = f"Excel, sheet {sheet!r}", list[str]()
        read = _reader(lambda _: read_sheet(path, sheet, options.column_names))
        version += f" {sheet}"
    else:
        encoding, notes = find_encoding(path, options.encoding)
        if suffix in _JSON:
            rows = open_json(path, encoding, options.split)
            layout, read = rows.layout, _reader(lambda _: rows.read())
            version += f" {options.split}"
        else:
            usual = _DELIMITED[suffix]
            dialect, dialect_notes = find_dialect(
                path,
                lambda: read_lines(path, encoding),
                usual_delimiter=usual,
                delimiter=parse_delimiter(options.delimiter),
                quoting=options.quoting,
                column_names=options.column_names,
            )
            notes += dialect_notes
            separator = DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))
            layout = {",": "CSV", "\t": "TSV"}.get(
                dialect.delimiter, f"CSV with {separator} between columns"
            )
            read = _reader(
                lambda required: read_delimited(
                    path, read_lines(path, encoding), dialect, options.column_names, required
                )
            )
    first_rows = itertools.islice(read(required=[]), ROWS_TO_FIND_COLUMNS)
    columns = list(dict.fromkeys(name for row in first_rows for name in row))
    if not columns:
        raise UserError(f"{path}: the file has no rows")
    if suffix == ".txt" and len(columns) == 1 and options.delimiter is None:
        raise UserError(
            f"{path}: unknown file type; a .txt file must have columns with tabs between them "
            "(--delimiter names another separator); for one text a line, name it .csv and give "
            "--column_names text --quoting none"
        )
    return Source(str(path), version, columns, read, layout, notes=notes)


def _reader(
    read: Callable[[Sequence[str] | None], Iterator[dict]],
) -> Callable[..., Iterator[dict]]:
    """Return `Source.read` of a file whose rows are always read with all of their columns."""

    def read_columns(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        return read(columns if required is None else required)

    return read_columns


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


def _open_parquet(path: Path, version: str) -> Source:
    def read(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        with _parquet(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()

    with _parquet(path) as file:
        schema = file.schema_arrow
    names = class_names_of(schema) if b"huggingface" in (schema.metadata or {}) else {}
    return Source(str(path), version, schema.names, read, "Parquet", class_names=names)


# --- several files, and folders ------------------------------------------------------------------


def _several_files(data: str) -> list[Path]:
    """Return the files of a pattern, sorted, or of a list; none if `data` is neither.

    Raises
    ------
    UserError
        If no file fits a pattern.
    """
    if any(character in data for character in _WILDCARDS):
        paths = [Path(name) for name in sorted(glob.glob(str(expand_path(data)), recursive=True))]
        paths = [path for path in paths if path.is_file()]
        if not paths:
            raise UserError(f"--data {data}: no file fits this pattern")
        return paths
    paths = [expand_path(name.strip()) for name in data.split(",")]
    return paths if len(paths) > 1 and all(path.is_file() for path in paths) else []


def _open_files(data: str, paths: Sequence[Path], options: ReadingOptions) -> Source:
    """Join several files with the same columns to one source."""
    sources = [_open_file(path, options) for path in paths]
    first = sources[0]
    for source in sources[1:]:
        # Rows of JSON may lack keys; the columns of other files are all there.
        both_json = "JSON" in first.layout and "JSON" in source.layout
        if (different := set(source.columns) ^ set(first.columns)) and not both_json:
            raise UserError(
                f"--data {data}: {source.name} has other columns than {first.name}: only one of "
                f"them has {', '.join(sorted(different)[:5])}"
            )
    starts: list[int] = []  # the number of rows before each file, as far as they have been read

    def read(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        starts.clear()
        number = 0
        for source in sources:
            starts.append(number)
            for row in source.read(columns, required):
                number += 1
                yield row

    names = _short_names(paths)

    def index_of(row: int) -> int:
        return max(index for index, start in enumerate(starts) if start < row)

    def place(row: int) -> str:
        file = index_of(row)
        return sources[file].place(row - starts[file])

    layouts = ", ".join(dict.fromkeys(source.layout for source in sources))
    notes = list(dict.fromkeys(note for source in sources for note in source.notes))
    return Source(
        data,
        " ".join(source.version for source in sources),
        list(dict.fromkeys(name for source in sources for name in source.columns)),
        read,
        f"{len(sources):,} files, {layouts}",
        class_names=first.class_names,
        notes=notes,
        place_of_row=place,
        file_of_row=lambda row: names[index_of(row)],
    )


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return the paths without the folder that all lie in, and without suffixes if they differ."""
    folder = os.path.commonpath([path.absolute().parent for path in paths])
    names = [path.absolute().relative_to(folder).as_posix() for path in paths]
    bare = [name.removesuffix(".gz") for name in names]
    bare = [name.removesuffix(Path(name).suffix) for name in bare]
    return bare if len(set(bare)) == len(set(names)) else names


def _open_folder(path: Path, options: ReadingOptions) -> Source:
    """Open a folder: a saved data set, or a folder of text files for each class."""
    if is_saved(path):
        return open_saved(path, options.split)
    if source := open_class_folders(path, options.split, options.encoding):
        return source
    files = sorted(file.name for file in path.iterdir() if file.name.lower().endswith(SUFFIXES))
    advice = "give the path of one file in it"
    if files:
        pattern = path / f"*{Path(files[0]).suffix}"
        advice = (
            f"give one file in it, such as {path / files[0]}, or a pattern, such as '{pattern}'"
        )
    raise UserError(
        f"{path}: this is a folder, without a folder of text files for each class and without a "
        f"data set that `datasets` saved; {advice}"
    )
