"""The output for a folder of files: tagged part by part, each row exactly once.

A part (`shared.reports.input_parts`) becomes one file of the output, whose name says which part it
is, and which appears when it is complete. So whatever dies, a part that is missing is tagged again,
as a whole, and one that is there is kept. A manifest, written first and completed at the end, says
which run the parts are of.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError, first_line
from shared.cli.launch import print_once
from shared.data.columns import join_text
from shared.data.labels import has_labels
from shared.data.readers import BATCH_ROWS
from shared.data.writers import array_of, write_json_lines
from shared.evaluation.rules import scores_per_text
from shared.reports.input_parts import InputFile, Part, open_folder, parse_line, reading
from shared.reports.tagged_file import DOUBT, kept_columns
from shared.taggers.explanations import load_explainer
from shared.taggers.loading import load_taggers
from shared.taggers.means import mean_tagger
from shared.taggers.tagger import Tagger

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from shared.taggers.explanations import Explainer

ORIGIN = ("input_file", "input_row")  # columns that say where a row comes from
MANIFEST = "manifest.json"
_PART_NAME = re.compile(r".*-\d{6}\.(parquet|jsonl)")
_TEMPORARY_NAME = re.compile(r"(.*/)?\.[^/]*\.\d+\.[0-9a-f]{8}\.tmp")  # of `write_file`


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
        doubt = [] if tagger.unsure_below is None else DOUBT
        self._further = [*doubt, *(["explanation"] if explainer else []), *ORIGIN]

    def __call__(self, part: Part) -> dict[str, int]:
        """Return the numbers of ``rows`` written, and of ``texts`` among them that are not blank.

        Raises
        ------
        UserError
            If the file cannot be read, or a row cannot be tagged.
        """
        table, rows, kept, texts = self._read(part)
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
                self._write_table(buffer, table, kept, records)
                content = buffer.getvalue()
        write_file(self.folders.target, f"{self.folders.output}/{part.name}", content)
        return {"rows": len(kept), "texts": sum(map(bool, texts))}

    def texts(self, part: Part) -> list[str]:
        """Return the texts of a part that are tagged.

        Raises
        ------
        UserError
            As a call.
        """
        *_, texts = self._read(part)
        return texts

    def _read(
        self, part: Part
    ) -> tuple[pa.Table | None, list[dict[str, Any]], list[int], list[str]]:
        """Return the table of a Parquet file, the rows, the numbers of those kept and their texts.

        The rows of a table have the columns that are read here alone.
        """
        with reading(part.file):
            if part.name.endswith(".parquet"):
                table = self._read_table(part)
                try:
                    kept_columns(dict.fromkeys(table.column_names), self._further)
                except ValueError as error:
                    raise UserError(f"{part.file}: {error}") from error
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
        return table, rows, kept, texts

    def _is_left_out(self, row: Mapping[str, Any]) -> bool:
        column = self.folders.label_column
        return column is not None and has_labels(row.get(column))

    def _read_lines(self, part: Part) -> list[dict[str, Any]]:
        with self.folders.files.open_input_file(part.file) as file:
            file.seek(part.start)
            lines = file.read(part.stop - part.start).split(b"\n")
        filled = (line for line in lines if line.strip())
        return [parse_line(line, part.file, part.first + i) for i, line in enumerate(filled)]

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

    def _write_table(
        self, file: io.BytesIO, table: pa.Table, kept: list[int], records: list[dict]
    ) -> None:
        import pyarrow as pa
        from pyarrow.parquet import write_table

        scores: pa.DataType = pa.map_(pa.string(), pa.float64())
        if self._n_scores == len(self.tagger.label_names):
            scores = pa.struct([(name, pa.float64()) for name in self.tagger.label_names])
        types = {"labels": pa.list_(pa.string()), "scores": scores}
        further = {"confidence": pa.float64(), "unsure": pa.bool_(), "input_row": pa.int64()}
        types |= {name: further.get(name, pa.string()) for name in self._further}
        names = list(kept_columns(dict.fromkeys(table.column_names), self._further))
        table = table.take(pa.array(kept, pa.int64())).rename_columns(names)
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
    with _using_output(path):
        target.create_dir(parent, recursive=True)
        with target.open_output_stream(temporary) as stream:
            stream.write(content)
        target.move(temporary, path)  # in an object store a copy, which is atomic, too


@contextmanager
def _using_output(path: str) -> Iterator[None]:
    """Report errors of the file system of the output as a `UserError`."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # some file systems are for reading only
        raise UserError(
            f"--output {path}: cannot be written ({first_line(error)}); choose another place"
        ) from error


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


# --- the folder of the output --------------------------------------------------------------------


class TaggedFolder:
    """The folder of the output: its manifest, and which parts are there.

    Nothing is written or removed before `start`.

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
        with _using_output(self.path):
            if self.target.get_file_info(self.path).type == FileType.File:
                raise UserError(f"--output {uri}: is a file; name a folder")
            files = self._files()
        abandoned = {name for name in files if _TEMPORARY_NAME.fullmatch(name)}
        present = files - abandoned
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
        self._n_changed = len(stale) if resume else 0
        # A killed worker left files half done; without a manifest, they may be those of others.
        self._to_remove = stale | (abandoned if saved else set())
        done = present - stale
        self.missing = [part for part in parts if part.name not in done]

    def start(self) -> None:
        """Remove parts that are tagged again and half-done files, and write the manifest."""
        if self._n_changed:
            print_once(f"note: {self._n_changed:,} parts of files that changed are tagged again")
        with _using_output(self.path):
            for name in self._to_remove:
                self.target.delete_file(f"{self.path}/{name}")
        self._write_manifest(complete=False)

    def finish(self) -> None:
        """Record that all parts are there."""
        missing = {part.name for part in self._parts} - self._files()
        assert not missing, f"parts are missing: {sorted(missing)[:3]}"
        self._write_manifest(complete=True)

    def _files(self) -> set[str]:
        """Return the files in the folder."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self.path, recursive=True, allow_not_found=True)
        entries = self.target.get_file_info(selector)
        files = (entry.path for entry in entries if entry.type == FileType.File)
        return {posixpath.relpath(path, self.path) for path in files}

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
