"""A folder of files, tagged part by part: by this process, or by the workers of a Ray cluster.

A part is a block of rows of one Parquet or JSON lines file. It becomes one file of the output,
whose name says which part it is, and which appears when it is complete. So each row is tagged
exactly once, whatever dies: a part that is missing is tagged again, as a whole, and one that is
there is kept. A manifest, written first and completed at the end, says which run the parts are of.

Folders can lie on any file system that pyarrow reads, as Ray Data does: this machine, S3, Google
Cloud Storage, HDFS, and those of fsspec.
"""

from __future__ import annotations

import fnmatch
import io
import json
import logging
import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError, first_line
from shared.cli.files import expand_path
from shared.cli.launch import print_once, progress
from shared.data.columns import find_label_column, find_text_columns, join_text
from shared.data.labels import has_labels
from shared.data.readers import BATCH_ROWS, ROWS_TO_FIND_COLUMNS
from shared.evaluation.rules import scores_per_text
from shared.reports.tagged_file import array_of, kept_columns, write_json_lines
from shared.taggers.explanations import load_explainer
from shared.taggers.tagger import Tagger, load_taggers, mean_tagger

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from shared.taggers.explanations import Explainer

SUFFIXES = (".parquet", ".jsonl", ".ndjson")
ORIGIN = ("input_file", "input_row")  # columns that say where a row comes from
MANIFEST = "manifest.json"
_PART_NAME = re.compile(r".*-\d{6}\.(parquet|jsonl)")
_WILDCARDS = "*?["
_RETRIES = 5  # how often a worker that dies is started again
_STORE_BYTES = 128 << 20  # of Ray's store of objects; its minimum is 75 MB
_FLAGS_OF_WORKERS = (
    *("threshold", "encoder", "top_scores", "bf16", "use_cpu", "per_device_eval_batch_size"),
    *("explain", "explain_data", "text_columns", "label_column"),
)


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
    try:
        return FileSystem.from_uri(uri)
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
    pattern = None
    if any(c in path for c in _WILDCARDS):
        pattern = path
        path = posixpath.dirname(re.split(r"[*?[]", path)[0])
    try:
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
        If a file cannot be read, or if files differ in their columns (of JSON lines, in those that
        hold the texts).
    """
    parts: list[Part] = []
    first_columns: list[str] = []
    first_names: dict[str, list[str]] = {}  # suffix: the columns of its first file
    for file in progress(inputs, "looking through files", unit="files"):
        suffix = posixpath.splitext(file.path)[1]
        with _reading(file.path):
            split = _split_parquet if suffix == ".parquet" else _split_json_lines
            names, blocks = split(files, file.path, block_size)
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
                names |= dict.fromkeys(_parse(line, path, rows))
            if rows % n == 0:
                start = place - len(line)
                blocks.append({"first": rows, "rows": 0, "start": start})
            rows += 1
            blocks[-1] |= {"rows": rows - blocks[-1]["first"], "stop": place}
    return list(names), blocks


def _parse(line: bytes, path: str, row: int) -> dict[str, Any]:
    """Return the object of a line of JSON; `row` counts from 0."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, row {row + 1}: invalid JSON ({first_line(error)})") from error
    return value


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Report errors while a file is read as a `UserError`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error


# --- tagging a part ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folders:
    """Where parts are read and written, and which columns they have.

    Attributes
    ----------
    files, target : FileSystem
        Of the input and of the output.
    output : str
        Path of the folder of the output.
    columns : list of str
        Of the texts.
    label_column : str, optional
        Rows that have labels in it are left out.
    """

    files: FileSystem
    target: FileSystem
    output: str
    columns: list[str]
    label_column: str | None = None


class PartTagger:
    """Tags a part and writes its file.

    Parameters
    ----------
    folders : Folders
    tagger : Tagger
    explainer : Explainer, optional
    top_scores : int, optional
        The value of ``--top_scores``.
    """

    def __init__(
        self,
        folders: Folders,
        tagger: Tagger,
        explainer: Explainer | None = None,
        top_scores: int | None = None,
    ):
        self.folders, self.tagger, self.explainer = folders, tagger, explainer
        self._n_scores = scores_per_text(len(tagger.label_names), top_scores)
        self._further = [*(["explanation"] if explainer else []), *ORIGIN]

    def __call__(self, part: Part) -> dict[str, int]:
        """Return the numbers of ``rows`` written, and of ``texts`` among them that are not blank.

        Raises
        ------
        UserError
            If the file cannot be read, or a row cannot be tagged.
        """
        with _reading(part.file):
            if part.name.endswith(".parquet"):
                table = self._read_table(part)
                names = [*self.folders.columns, *filter(None, [self.folders.label_column])]
                rows = table.select(list(dict.fromkeys(names))).to_pylist()
            else:
                table, rows = None, self._read_lines(part)
        if len(rows) != part.rows:
            raise UserError(f"{part.file}: changed while it was tagged; run the command again")
        kept = [i for i, row in enumerate(rows) if not self._is_left_out(row)]
        texts = []
        for i in kept:
            try:
                texts.append(join_text(rows[i], self.folders.columns))
                kept_columns(rows[i], self._further)
            except ValueError as error:
                raise UserError(f"{part.file}, row {part.first + i + 1}: {error}") from error
        records = self.tagger.tag(texts, self._n_scores)
        if self.explainer:
            explanations = self.explainer(texts, [record["labels"] for record in records])
            for record, explanation in zip(records, explanations, strict=True):
                record["explanation"] = explanation
        for record, i in zip(records, kept, strict=True):
            record |= {"input_file": part.origin, "input_row": part.first + i + 1}
        with io.BytesIO() as buffer:
            if table is None:
                with io.TextIOWrapper(buffer, "utf-8", newline="\n") as text:
                    of_rows = (kept_columns(rows[i], self._further) for i in kept)
                    write_json_lines(text, map(_merged, of_rows, records))
                    text.flush()
                    content = buffer.getvalue()
            else:
                self._write_table(buffer, table.take(kept), records)
                content = buffer.getvalue()
        write_file(self.folders.target, f"{self.folders.output}/{part.name}", content)
        return {"rows": len(kept), "texts": sum(map(bool, texts))}

    def _is_left_out(self, row: Mapping[str, Any]) -> bool:
        column = self.folders.label_column
        return column is not None and has_labels(row.get(column))

    def _read_lines(self, part: Part) -> list[dict[str, Any]]:
        with self.folders.files.open_input_file(part.file) as file:
            file.seek(part.start)
            lines = file.read(part.stop - part.start).split(b"\n")
        filled = (line for line in lines if line.strip())
        return [_parse(line, part.file, part.first + i) for i, line in enumerate(filled)]

    def _read_table(self, part: Part) -> pa.Table:
        """Read the rows of a part, from the row groups that hold some of them."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        stop, place, batches = part.first + part.rows, 0, []
        with self.folders.files.open_input_file(part.file) as opened:
            file = ParquetFile(opened)
            groups: list[int] = []
            start = 0
            for group in range(file.num_row_groups):
                n_rows = file.metadata.row_group(group).num_rows
                if start < stop and start + n_rows > part.first:
                    place = place if groups else start
                    groups.append(group)
                start += n_rows
            for batch in file.iter_batches(BATCH_ROWS, row_groups=groups):
                begin, end = max(part.first - place, 0), min(stop - place, len(batch))
                if begin < end:
                    batches.append(batch.slice(begin, end - begin))
                place += len(batch)
                if place >= stop:
                    break
            return pa.Table.from_batches(batches, file.schema_arrow)

    def _write_table(self, file: io.BytesIO, table: pa.Table, records: list[dict]) -> None:
        import pyarrow as pa
        from pyarrow.parquet import write_table

        scores: pa.DataType = pa.map_(pa.string(), pa.float64())
        if self._n_scores == len(self.tagger.label_names):
            scores = pa.struct([(name, pa.float64()) for name in self.tagger.label_names])
        types = {"labels": pa.list_(pa.string()), "scores": scores}
        types |= {name: pa.string() for name in self._further} | {"input_row": pa.int64()}
        names = list(kept_columns(dict.fromkeys(table.column_names), self._further))
        table = table.rename_columns(names)
        for name, dtype in types.items():
            table = table.append_column(name, array_of([each[name] for each in records], dtype))
        write_table(table, file)


def _merged(row: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    return row | record


def write_file(target: FileSystem, path: str, content: bytes) -> None:
    """Write a file that appears as a whole, in a folder that is made if it is missing.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    parent, name = posixpath.split(path)
    temporary = f"{parent}/.{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        target.create_dir(parent, recursive=True)
        with target.open_output_stream(temporary) as stream:
            stream.write(content)
        target.move(temporary, path)
    except OSError as error:
        raise UserError(
            f"--output {path}: cannot be written ({first_line(error)}); choose another place"
        ) from error


# --- the folder of the output --------------------------------------------------------------------


class TaggedFolder:
    """The folder of the output: its manifest, and which parts are there.

    Parameters
    ----------
    uri : str
        The value of ``--output``.
    run : mapping
        JSON values that identify the run: flags and taggers.
    inputs : sequence of InputFile
    parts : sequence of Part
    resume : bool
        Whether to keep the parts of the same run. False: they are removed.

    Attributes
    ----------
    target, path : FileSystem and the path of the folder in it
    missing : list of Part
        Those that are still to be tagged.

    Raises
    ------
    UserError
        If the folder is a file, holds other files, or parts of a run with other flags or taggers.
    """

    def __init__(
        self,
        uri: str,
        run: Mapping[str, Any],
        inputs: Sequence[InputFile],
        parts: Sequence[Part],
        *,
        resume: bool,
    ):
        from pyarrow.fs import FileType

        self.target, self.path = open_folder(uri, "output")
        self._run, self._parts = json.loads(json.dumps(run)), parts
        self._versions = {file.origin: file.version for file in inputs}
        if self.target.get_file_info(self.path).type == FileType.File:
            raise UserError(f"--output {uri}: is a file; name a folder")
        present = self._files()
        saved = self._read_manifest() if MANIFEST in present else None
        if present and saved is None:
            raise UserError(f"--output {uri}: holds other files; choose an empty folder")
        stale: set[str] = set()
        if saved and not resume:
            stale = {name for name in present if _PART_NAME.fullmatch(name)}
        elif saved:
            if different := [k for k, v in self._run.items() if saved["run"].get(k) != v]:
                raise UserError(
                    f"--output {uri}: holds the parts of a run with other {' and '.join(different)}"
                    "; choose another folder, or replace them with --resume false"
                )
            changed = {k for k, v in saved["files"].items() if self._versions.get(k) != v}
            stale = {name for name in present if name.rpartition("-")[0] in changed}
        if stale and resume:
            print_once(f"note: {len(stale):,} parts of files that changed are tagged again")
        for name in stale:
            self.target.delete_file(f"{self.path}/{name}")
        done = present - stale
        self.missing = [part for part in parts if part.name not in done]
        self._write_manifest(complete=False)

    def finish(self) -> None:
        """Record that all parts are there."""
        missing = {part.name for part in self._parts} - self._files()
        assert not missing, f"parts are missing: {sorted(missing)[:3]}"
        self._write_manifest(complete=True)

    def _files(self) -> set[str]:
        """Return the files in the folder, and remove those that a killed worker left half done."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self.path, recursive=True, allow_not_found=True)
        present = set()
        for entry in self.target.get_file_info(selector):
            name = posixpath.relpath(entry.path, self.path)
            if entry.type == FileType.File and name.endswith(".tmp"):
                self.target.delete_file(entry.path)
            elif entry.type == FileType.File:
                present.add(name)
        return present

    def _read_manifest(self) -> dict[str, Any] | None:
        with self.target.open_input_stream(f"{self.path}/{MANIFEST}") as stream:
            try:
                manifest = json.loads(stream.read())
                return manifest if manifest["run"] and manifest["files"] else None
            except (ValueError, KeyError, TypeError):
                return None

    def _write_manifest(self, *, complete: bool) -> None:
        manifest = {"run": self._run, "files": self._versions, "complete": complete}
        if complete:
            names = ("name", "origin", "first", "rows")
            manifest["parts"] = [{k: getattr(part, k) for k in names} for part in self._parts]
        content = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        write_file(self.target, f"{self.path}/{MANIFEST}", content.encode())


# --- engines -------------------------------------------------------------------------------------


class RayWorker:
    """A worker of a Ray cluster: loads the taggers once, and tags one part after another.

    Parameters
    ----------
    folders : Folders
    flags : dict
        Of the recipe; see `load_part_tagger`.
    """

    def __init__(self, folders: Folders, flags: dict[str, Any]):
        from shared.taggers.arguments import TaggerArguments

        fields = {name: flags[name] for name in flags if hasattr(TaggerArguments, name)}
        args: Any = TaggerArguments(**fields)
        for name, value in flags.items():
            setattr(args, name, value)
        self._tag = load_part_tagger(folders, args)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list]:
        """Tag the one part of a batch; a mistake of the user comes back as its message."""
        part = Part(
            **{
                name: values[0].item() if hasattr(values[0], "item") else values[0]
                for name, values in batch.items()
            }
        )
        try:
            result: dict[str, Any] = {**self._tag(part), "error": ""}
        except UserError as error:
            result = {"rows": 0, "texts": 0, "error": str(error)}
        return {name: [value] for name, value in result.items()}


def load_part_tagger(folders: Folders, args: Any) -> PartTagger:
    """Load the taggers that flags name, and what explains their labels.

    Parameters
    ----------
    folders : Folders
    args : shared.taggers.arguments.TaggerArguments
        With ``model``, and ``explain``, ``explain_data``, ``text_columns``, ``label_column``.
    """
    tagger = mean_tagger(load_taggers(args, ""), names=args.model)
    explainer = load_explainer(tagger, args)[0] if args.explain else None
    return PartTagger(folders, tagger, explainer, args.top_scores)


def tag_here(folders: Folders, parts: Sequence[Part], args: Any) -> Iterator[dict[str, int]]:
    """Tag parts in this process; yield what `PartTagger` returns for each."""
    yield from map(load_part_tagger(folders, args), parts)


def tag_on_ray(
    folders: Folders, parts: Sequence[Part], args: Any, n_workers: int | None = None
) -> Iterator[dict[str, int]]:
    """Tag parts by the workers of a Ray cluster; yield what `PartTagger` returns for each.

    The cluster is that of the environment variable ``RAY_ADDRESS``, else one of this machine alone.
    A worker has one CPU, or one GPU if the cluster has any. One that dies is started again, with
    the part that it was at.

    Parameters
    ----------
    folders, parts
    args : as in `load_part_tagger`
        The folders of taggers must be found on each machine, and so must this package.
    n_workers : int, optional
        None: as many as the cluster has CPUs or GPUs.

    Raises
    ------
    UserError
        If Ray is not installed or cannot start, if a worker dies again and again, or for a mistake
        that a worker finds.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
        from ray.exceptions import RayActorError, RayError
    except ImportError as error:
        raise UserError('--engine ray: needs Ray; pip install -e ".[ray]"') from error
    starts = not ray.is_initialized()
    if starts:
        _start_ray(ray)
    try:
        resources = ray.cluster_resources()
        on_gpu = resources.get("GPU", 0) >= 1 and not args.use_cpu
        n_workers = n_workers or int(resources.get("GPU" if on_gpu else "CPU", 1))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.print_on_execution_start = False, False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        flags = {name: getattr(args, name) for name in _FLAGS_OF_WORKERS}
        flags["model"] = [_absolute(name) for name in args.model]
        results = ray.data.from_items(
            [asdict(part) for part in parts], override_num_blocks=len(parts)
        ).map_batches(
            RayWorker,
            fn_constructor_args=(folders, flags),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(n_workers, len(parts))),
            num_cpus=None if on_gpu else 1,
            num_gpus=1 if on_gpu else None,
            ray_remote_args_fn=lambda: {"max_restarts": _RETRIES, "max_task_retries": _RETRIES},
            # Each worker has one core, and is no process of a launch.
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "RANK": "0", "WORLD_SIZE": "1"}},
        )
        for result in results.iter_rows():
            if result["error"]:
                raise UserError(result["error"])
            yield result
    except RayActorError as error:
        raise UserError(
            f"--engine ray: a worker died {_RETRIES + 1} times, probably for lack of memory "
            f"({first_line(error)}); what is tagged is kept, run the command with fewer --workers"
        ) from error
    except RayError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    finally:
        if starts:
            ray.shutdown()


def _start_ray(ray: Any) -> None:
    """Connect to a cluster, or start one of this machine; nothing of it is sent anywhere."""
    # Nothing large passes through the store of objects: workers read and write files.
    options = {} if "RAY_ADDRESS" in os.environ else {"object_store_memory": _STORE_BYTES}
    try:
        ray.init(
            include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **options
        )
    except Exception as error:  # what it raises depends on the place where it fails
        raise UserError(
            f"--engine ray: Ray cannot start ({first_line(error)}); it needs 1 GB of memory, "
            "shared memory (/dev/shm) and sockets, or the address of a cluster in RAY_ADDRESS"
        ) from error


def _absolute(model: str) -> str:
    """Return the absolute path of a folder; workers may run elsewhere. A hub id stays."""
    return os.path.abspath(expand_path(model)) if expand_path(model).is_dir() else model
