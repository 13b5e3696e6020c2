"""The file of tagged rows: rows with their tags, as JSON lines, CSV, TSV or Parquet.

Tagging a large file takes hours, so the records (labels and scores of a row) are kept block by
block in a hidden file beside the output: a run that was stopped can go on at the next block. At the
end, the rows are read again and written with their records; the output appears only when it is
complete.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from shared.cli.errors import UserError
from shared.cli.files import atomic_write, write_json
from shared.cli.launch import is_main_process, print_once, wait_for_all_processes
from shared.data.labels import SEPARATORS
from shared.data.readers import USUAL_DELIMITERS
from shared.data.writers import (
    as_cell,
    as_text,
    output_format,
    write_json_lines,
    write_parquet,
)

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
ADDED = ("labels", "scores")  # columns that are added to those of the input
DOUBT = ("confidence", "unsure")  # the columns of --abstain


def check_output(path: str, data: str | Path) -> None:
    """Refuse an output that cannot be written or would replace the input; before any work.

    Parameters
    ----------
    path : str
        The output.
    data : str or Path
        The input.

    Raises
    ------
    UserError
        For a suffix that is not in `SUFFIXES`, a folder in the place of the file, or a path that
        leads to the input, also through a link.
    """
    suffix, compressed = output_format(path)
    if suffix not in SUFFIXES or (suffix == ".parquet" and compressed):
        known = ", ".join(SUFFIXES)
        raise UserError(f"--output {path}: must end with {known} (all but the last also with .gz)")
    with suppress(OSError):  # one of them does not exist
        if os.path.samefile(path, data):
            raise UserError(f"--output {path}: is the same file as --data; choose another name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"--output {path}: not a file; choose another name")


# --- records that survive an interruption --------------------------------------------------------


class TaggedFile:
    """The records of the rows that are tagged so far, and in the end the output file.

    Used as a context manager. The records are removed when the output is complete; after an
    interruption they stay, for `resume`. All processes of a launch use it alike, on the same disk;
    only the first one writes.

    Parameters
    ----------
    path : str
        The output; its suffix chooses the format. See `check_output`.
    run : mapping
        JSON values that identify the run: flags, data and taggers.
    columns, label_names : sequences of str
        The columns of the input, and the labels.
    further : sequence of str
        Names of objects that each record has beside `ADDED`; JSON text in CSV and Parquet.
    all_scores : bool
        Whether each record has the scores of all labels. CSV and Parquet then have a place for each
        label; otherwise, with hundreds of labels, most of these places would be empty.
    resume : bool
        Whether to go on with the records of the same run, if it was stopped.

    Raises
    ------
    UserError
        For a place that cannot be written, or a column of the input that a CSV file could not hold.
    """

    def __init__(
        self,
        path: str,
        run: Mapping[str, Any],
        *,
        columns: Sequence[str],
        label_names: Sequence[str],
        further: Sequence[str] = (),
        all_scores: bool = True,
        resume: bool,
    ):
        self.path = Path(path)
        self._suffix, self._compressed = output_format(path)
        self._records = self.path.with_name(f".{self.path.name}.records")
        self._state = self.path.with_name(f".{self.path.name}.state")
        if self._suffix in USUAL_DELIMITERS and all_scores:
            for name in map(_score_column, label_names):
                if name in columns:
                    raise UserError(f"--output {path}: the input has a column {name!r}; rename it")
        self._run, self._label_names, self._all_scores = dict(run), label_names, all_scores
        self._further = further
        self.n_records, size = self._saved_state() if resume else (0, 0)
        # Other processes drop what they write; they must have read the state before it changes.
        wait_for_all_processes()
        records = self._records if is_main_process() else Path(os.devnull)
        try:
            records.parent.mkdir(parents=True, exist_ok=True)
            self._file = records.open("r+b" if size else "w+b")
            if is_main_process():
                # A block that was written in part, after the last state, is cut off.
                self._file.truncate(size)
                self._file.seek(size)
        except OSError as error:
            raise self._not_written(error) from error

    def __enter__(self) -> TaggedFile:
        return self

    def __exit__(self, _type: type | None, error: BaseException | None, _: object) -> None:
        self._file.close()
        if not is_main_process():
            return
        if error is None or not self.n_records:
            for path in (self._records, self._state):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        else:
            print(f"{self.n_records:,} rows are tagged; the same command goes on", flush=True)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Keep the records of a block; from now on, an interruption does not lose them."""
        try:
            for record in records:
                self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            if is_main_process():
                os.fsync(self._file.fileno())
                n_records, size = self.n_records + len(records), self._file.tell()
                write_json(self._state, {"run": self._run, "records": n_records, "bytes": size})
        except OSError as error:
            raise self._not_written(error) from error
        self.n_records += len(records)

    def finish(self, read_rows: Callable[[], Iterable[dict]]) -> None:
        """Write the output: the rows, each with its record.

        Parameters
        ----------
        read_rows : callable
            Returns the rows of the input. CSV and Parquet need two passes: one for the columns.
        """
        if not is_main_process():
            return

        def tagged_rows() -> Iterator[dict]:
            for row, record in zip(read_rows(), self._read_records(), strict=True):
                if self._suffix not in (".jsonl", ".ndjson"):
                    record |= {name: as_cell(record[name]) for name in self._further}
                yield kept_columns(row, self._further) | record

        try:
            with atomic_write(self.path, "wb") as file:
                if self._suffix == ".parquet":
                    _write_parquet(file, tagged_rows, self._label_names, self._all_scores)
                    return
                with as_text(file, self._compressed) as text:
                    if delimiter := USUAL_DELIMITERS.get(self._suffix):
                        _write_csv(
                            text, tagged_rows, self._label_names, delimiter, self._all_scores
                        )
                    else:
                        write_json_lines(text, tagged_rows())
        except OSError as error:
            raise self._not_written(error) from error

    def _saved_state(self) -> tuple[int, int]:
        """Return the number of records of the same run, if it was stopped, and their size."""
        try:
            state = json.loads(self._state.read_text("utf-8"))
            saved_run, n_records, size = state["run"], state["records"], state["bytes"]
            complete = self._records.stat().st_size >= size
        except (OSError, ValueError, KeyError):
            return 0, 0  # no run was stopped
        if saved_run == self._run and complete:
            return n_records, size
        different = [name for name, value in self._run.items() if saved_run.get(name) != value]
        print_once(
            f"note: {n_records:,} rows of a stopped run are tagged again: it had other "
            f"{' and '.join(different) or 'files'}"
        )
        return 0, 0

    def _read_records(self) -> Iterator[dict[str, Any]]:
        self._file.seek(0)
        return map(json.loads, self._file)

    def _not_written(self, error: OSError) -> UserError:
        return UserError(
            f"--output {self.path}: cannot be written ({error.strerror}); choose another place"
        )


def kept_columns(row: Mapping[str, Any], further: Sequence[str] = ()) -> dict[str, Any]:
    """Return the columns of an input row; labels and scores become input_labels and input_scores.

    So do columns with a name in `further`.

    Raises
    ------
    ValueError
        If the row has these columns, too.
    """
    added = (*ADDED, *further)
    kept = {f"input_{k}" if k in added else k: v for k, v in row.items()}
    if len(kept) < len(row):
        raise ValueError(
            f"{' and '.join(added)} are kept as {' and '.join(f'input_{name}' for name in added)}, "
            "but the row has these columns too; rename them"
        )
    return kept


# --- formats -------------------------------------------------------------------------------------


def _write_csv(
    file: IO[str],
    read_rows: Callable[[], Iterable[dict]],
    label_names: Sequence[str],
    delimiter: str,
    all_scores: bool,
) -> None:
    """Write the columns of the input, ``labels``, and a column ``scores.LABEL`` for each label.

    Without the scores of all labels, one column ``scores`` holds those of a row as JSON.
    """
    columns = dict.fromkeys(name for row in read_rows() for name in row if name not in ADDED)
    scores = {name: _score_column(name) for name in label_names}
    separators = (s for s in SEPARATORS if not any(s in name for name in label_names))
    separator = next(separators, None)
    score_columns = list(scores.values()) if all_scores else ["scores"]
    # All texts are quoted: some versions of Python do not quote one with a carriage return.
    writer = csv.DictWriter(
        file,
        [*columns, "labels", *score_columns],
        delimiter=delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_NONNUMERIC,
    )
    writer.writeheader()
    for row in read_rows():
        cells = {name: as_cell(value) for name, value in row.items() if name != "scores"}
        if separator:
            cells["labels"] = separator.join(row["labels"])
        if all_scores:
            cells |= {scores[name]: value for name, value in row["scores"].items()}
        else:
            cells["scores"] = as_cell(row["scores"])
        writer.writerow(cells)


def _score_column(label_name: str) -> str:
    return f"scores.{label_name}"


def _write_parquet(
    file: IO[bytes],
    read_rows: Callable[[], Iterable[dict]],
    label_names: Sequence[str],
    all_scores: bool,
) -> None:
    """Write the columns of the input, ``labels`` (a list) and ``scores``.

    Scores are a struct, or a map from label to score if a row has not those of all labels.
    """
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        "labels": pa.list_(pa.string()),
        "scores": pa.map_(pa.string(), pa.float64()),
    }
    if all_scores:
        types["scores"] = pa.struct([(name, pa.float64()) for name in label_names])
    write_parquet(file, read_rows, types)
