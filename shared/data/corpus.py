"""Load the data set that `--data` names: texts, labels and statistics, mapped into memory.

`Corpus` is a loaded data set; `load_corpus`, `load_data` and `load_held_out` make one from the
flags. The prepared file is kept in the cache of the datasets library and is reused as long as the
source and the flags stay the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.cli.files import expand_path, remove_abandoned, temporary_folder
from shared.cli.launch import print_once
from shared.cli.yaml_files import read_yaml
from shared.data.arguments import DataArguments, check_split_flags
from shared.data.labels import name_some
from shared.data.preparation import join_counts, prepare
from shared.data.readers import open_data
from shared.data.sources import Source
from shared.data.split_columns import missing_value

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

    from shared.data.arguments import SplitColumnArguments


MOST_ROWS_NAMED = 5  # of the blank rows
MOST_LABELS_PER_TEXT = 6  # the summary counts texts with so many labels or more together


# --- a loaded data set ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """Texts, their labels, and statistics about them.

    Attributes
    ----------
    dataset : memory-mapped `datasets.Dataset` of n rows in the order of the source, with columns
        `text` (string); `labels` (sorted list of ClassLabel; null: unlabelled, empty: none of the
        labels applies); `row` (int64, 1-based row in the source); `group` (int64, the same for
        near duplicates); `words` (int32, number of words in the text, see
        `shared.data.words.count_words`). A file of held-out rows with
        labels that `--data` does not have has them in a further column, `unknown_labels` (see
        `append_unknown_labels`). With ``--weight_column`` there is a column `weight` (float32; null
        where the labels, if there are any, were given by hand). With ``--split_by`` there is a
        column `part` (int8, see `shared.data.split_columns.read_parts`), with ``--split_time`` a
        column `time` (int64, nanoseconds since 1970 in UTC; null: not known). With
        ``--duplicate_labels separate``, rows that name annotators have the columns `annotator`
        (int32, the index of a name in ``report["annotators"]``; null: not known) and `key` (uint64,
        the same for texts that are exact duplicates).
    report : counts of the rows and labels that were read, kept and left out, as plain JSON values.
    """

    dataset: Dataset
    report: dict[str, Any]

    @property
    def label_names(self) -> list[str]:
        """Name of each label id."""
        return self.dataset.features["labels"].feature.names

    @cached_property
    def labelled(self) -> np.ndarray:
        """int64 indices of the rows whose labels are known, also where none of them applies.

        Those of `pseudo_labelled` are not among them.
        """
        import numpy as np

        return np.setdiff1d(self._rows(labelled=True), self.pseudo_labelled)

    @cached_property
    def pseudo_labelled(self) -> np.ndarray:
        """int64 indices of the rows whose labels no person has given (``--weight_column``)."""
        import numpy as np

        if "weight" not in self.dataset.column_names:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.dataset.data["weight"].is_valid().to_numpy())

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Return the weights of rows of `pseudo_labelled`: float32, of their shape."""
        import numpy as np

        if not len(rows):  # there need be no such column
            return np.zeros(0, np.float32)
        return self.dataset.data["weight"].take(np.asarray(rows, np.int64)).to_numpy()

    @cached_property
    def unlabelled(self) -> np.ndarray:
        """int64 indices of the rows whose labels are not known."""
        return self._rows(labelled=False)

    @property
    def single_label(self) -> bool:
        """Whether every labelled row has exactly one label, so that classes exclude each other."""
        r = self.report
        # With at most one label per row, the two numbers are equal only if no list is empty.
        known = r["labelled"] + r["pseudo_labelled"]
        return r["multilabel"] == 0 and sum(r["labels"].values()) == known

    @property
    def empty_labels(self) -> str:
        """What a row without labels means: "unlabelled" or "negative" (``--empty_labels``)."""
        return self.report["empty_labels"]

    @cached_property
    def groups(self) -> np.ndarray:
        """int64 array of shape (n,): near-duplicate group of each row, for splitters."""
        return self.dataset.data["group"].to_numpy()

    def split_values(self, args: SplitColumnArguments, rows: np.ndarray) -> np.ndarray:
        """Return the parts or times of rows, for `shared.data.split_columns.split_by_column`.

        Raises
        ------
        UserError : one of the rows has none, which only unlabelled rows may lack.
        """
        import numpy as np

        name = "split_time" if args.split_time else "split_by"
        column = self.dataset.data["time" if args.split_time else "part"].take(rows)
        values = column.fill_null(-1).to_numpy()
        is_missing = column.is_null().to_numpy() if args.split_time else values < 0
        if is_missing.any():
            numbers = np.asarray(self.dataset[rows[is_missing]]["row"])
            raise missing_value(self.report["source"], getattr(args, name), name, numbers)
        return values

    @property
    def fingerprint(self) -> str:
        """Hash of the rows and labels; the place and the time stamp of the file do not matter."""
        names = [*self.label_names, *unknown_label_names(self.dataset)]
        digest = hashlib.blake2b(repr(names).encode(), digest_size=16)
        for column in self.dataset.data.columns:
            for chunk in column.chunks:
                for buffer in filter(None, chunk.buffers()):
                    digest.update(buffer)
        return digest.hexdigest()

    def _rows(self, labelled: bool) -> np.ndarray:
        import numpy as np

        return np.flatnonzero(self.dataset.data["labels"].is_valid().to_numpy() == labelled)

    def label_matrix(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Return multi-hot labels.

        Parameters
        ----------
        rows : indices into `dataset`, in any order (default: all). Unlabelled rows give zeros,
            like rows to which no label applies; to leave them out, pass rows of `labelled` only.

        Returns
        -------
        uint8 array of shape (rows, labels).
        """
        import numpy as np

        labels = self.dataset.data["labels"]
        if rows is not None:
            labels = labels.take(np.asarray(rows, np.int64))
        return _multi_hot(labels, len(self.label_names))

    def repeats(self, others: Sequence[Corpus]) -> np.ndarray:
        """Return which rows have a near duplicate in other data sets: bool, shape (n,).

        A model must not be trained or tuned on texts of the test set.
        """
        import numpy as np
        import pyarrow as pa

        from shared.data.near_duplicates import repeats

        if not others:
            return np.zeros(len(self.dataset), bool)
        texts, *other_texts = (c.dataset.data["text"] for c in (self, *others))
        chunks = [chunk for column in other_texts for chunk in column.chunks]
        return repeats(texts, pa.chunked_array(chunks))

    def describe(self, *, brief: bool = False) -> str:
        """Return a summary of the report in about ten lines.

        With `brief`, it has only the rows that were read, labelled and left out, conflicting and
        unknown labels, and those that were left out.
        """
        r = self.report
        blank_rows = ", ".join(map(str, r["first_blank_rows"][:MOST_ROWS_NAMED]))
        blank_rows += ", ..." if r["blank_texts"] > MOST_ROWS_NAMED else ""
        left_out = _counts(
            {
                "pull requests": r["pull_requests"],
                f"blank texts (rows {blank_rows})": r["blank_texts"],
                "exact duplicates": r["exact_duplicates"],
            }
        )
        conflicts = [
            f"{line} (--duplicate_labels merge joins them)"
            for line in _counts(
                {"sets of exact duplicates with different labels": r["label_conflicts"]}
            )
        ]
        notes = [f"note: {note}" for note in r["notes"]]
        words, labels = r["words"], r["labels"]
        # Each character of a script without spaces counts as a word.
        words_name = "words or characters" if r["unspaced_texts"] else "words"
        n_known = r["labelled"] + r["pseudo_labelled"]
        per_text = sum(labels.values()) / max(n_known, 1)
        pseudo_labelled = [
            f"{line} (--weight_column)"
            for line in _counts(
                {"texts with labels that no person has given": r["pseudo_labelled"]}
            )
        ]
        lines = [
            f"{r['source']}: {r['rows_read']:,} rows read"
            + (f"; left out: {', '.join(left_out)}" if left_out else ""),
            f"format: {r['layout']}; {self.describe_columns()}",
            f"{r['rows']:,} texts: {r['labelled']:,} labelled, {r['unlabelled']:,} unlabelled "
            f"({r['unlabelled'] / r['rows']:.0%})",
            *pseudo_labelled,
            f"{words_name} per text: median {words['p50']:,.0f}, 5% at most {words['p5']:,.0f}, "
            f"95% at most {words['p95']:,.0f}, longest {words['max']:,.0f}",
            f"near duplicates: {r['near_duplicates']:,} texts in {r['near_duplicate_groups']:,} "
            "groups, each kept on one side of a split",
            *conflicts,
            *notes,
        ]
        if n_known:
            lines += [
                self._labels_per_text(),
                f"{len(labels)} labels, {per_text:.2f} per labelled text:",
                _wrapped(labels, 20, total=n_known),
            ]
        if brief:
            lines = [*lines[:3], *conflicts, *notes]
        if r["labels_left_out"]:
            lines += [f"{len(r['labels_left_out'])} labels left out:"]
            lines += [_wrapped(r["labels_left_out"], 10)]
        if note := self.describe_unknown_labels():
            lines += [note]
        return "\n".join(lines)

    def describe_columns(self) -> str:
        """Return which columns hold the texts and the labels, and why if it is not their names."""
        parts = []
        for name, title in (("text", "texts"), ("labels", "labels")):
            columns = self.report["text_columns" if name == "text" else "label_columns"]
            why = self.report["recognised"][name]
            text = name_some(columns) if columns else "none"
            parts.append(f"{title}: {text}" + (f" ({why})" if why else ""))
        return "; ".join(parts)

    def _labels_per_text(self) -> str:
        """Return how many labelled texts have no label, one, two and so on, and their shares."""
        import numpy as np
        import pyarrow.compute as pc

        numbers = pc.list_value_length(self.dataset.data["labels"]).drop_null().to_numpy()
        counts = np.bincount(np.minimum(numbers, MOST_LABELS_PER_TEXT))
        names = [*map(str, range(MOST_LABELS_PER_TEXT)), f"{MOST_LABELS_PER_TEXT} or more"]
        parts = [
            f"{name} on {count:,} ({count / len(numbers):.0%})"
            for name, count in zip(names, counts.tolist(), strict=False)
            if count
        ]
        if len(counts) > MOST_LABELS_PER_TEXT:
            parts.append(f"at most {numbers.max():,}")
        text = f"labels per labelled text: {', '.join(parts)}"
        return textwrap.fill(text, 98, subsequent_indent="  ")

    def describe_unknown_labels(self) -> str:
        """Return a note about the labels that only this file of held-out rows has; "" if none."""
        counts = self.report.get("unknown_labels")
        if not counts:
            return ""
        return (
            f"note: {self.report['source']} has labels that --data does not have: "
            f"{join_counts(counts)}; they count as misses (--unknown_labels)"
        )


def unknown_label_names(rows: Dataset) -> list[str]:
    """Return the labels that rows of `Corpus.dataset` have and `--data` does not have."""
    feature = rows.features.get("unknown_labels")
    return feature.feature.names if feature else []


def append_unknown_labels(
    rows: Dataset, y_true: np.ndarray, *values: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Append the unknown labels of held-out rows, so that metrics count them as misses.

    A classifier cannot predict a label that `--data` does not have. Each unknown label becomes a
    column: its positive rows in `y_true`, and the lowest value, the same for all rows, in `values`.

    Parameters
    ----------
    rows : Dataset
        n rows of `Corpus.dataset`. Without unknown labels, the arrays are returned unchanged.
    y_true : array of shape (n, labels)
        Multi-hot, from `Corpus.label_matrix`.
    *values : arrays of shape (n, labels)
        Predicted labels, or scores from 0 to 1.

    Returns
    -------
    tuple of arrays of shape (n, labels + unknown labels)
        `y_true`, then `values`.
    """
    import numpy as np

    names = unknown_label_names(rows)
    if not names:
        return y_true, *values
    ids = rows.with_format("arrow")["unknown_labels"][:]
    y_unknown = _multi_hot(ids, len(names)).astype(y_true.dtype)
    return np.concatenate([y_true, y_unknown], axis=1), *(
        np.pad(array, ((0, 0), (0, len(names))), constant_values=array.min(initial=0))
        for array in values
    )


def _multi_hot(ids: pa.ChunkedArray, n_labels: int) -> np.ndarray:
    """Return lists of label ids as a uint8 array of shape (rows, labels); null gives zeros."""
    import numpy as np
    import pyarrow.compute as pc

    # One entry of the matrix per pair (row, label id), all set in one step.
    lengths = pc.list_value_length(ids).fill_null(0).to_numpy()
    matrix = np.zeros((len(ids), n_labels), np.uint8)
    matrix[np.repeat(np.arange(len(ids)), lengths), pc.list_flatten(ids).to_numpy()] = 1
    return matrix


def _counts(numbers: dict[str, int]) -> list[str]:
    """Return "name number" for each number that is not 0."""
    return [f"{name} {number:,}" for name, number in numbers.items() if number]


def _wrapped(numbers: dict[str, int], most: int, *, total: int | None = None) -> str:
    """Return the largest numbers (at most `most`) with their names, wrapped and indented.

    With `total`, the numbers have their shares of it, and the range of the others is named.
    """
    ranked = sorted(numbers.items(), key=lambda item: -item[1])
    items = _counts(dict(ranked[:most]))
    if total:
        shares = [f"{number / total:.0%}" for _, number in ranked[:most] if number]
        items = [f"{item} ({share})" for item, share in zip(items, shares, strict=True)]
    # No-break spaces inside an item, so that a label name is never broken over two lines.
    items = [item.replace(" ", "\u00a0") for item in items]
    if len(numbers) > most:
        others = [number for _, number in ranked[most:]]
        span = f" with {others[-1]:,} to {others[0]:,} texts" if total else ""
        items.append(f"and {len(others):,} more{span}")
    text = textwrap.fill(
        ", ".join(items), 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return text.replace("\u00a0", " ")


# --- loading -------------------------------------------------------------------------------------


def load_corpus(
    args: DataArguments,
    *,
    label_names: Sequence[str] | None = None,
    labels_required: bool = True,
) -> tuple[Corpus, dict[str, Corpus]]:
    """Load `--data` and the files of held-out rows, and print a summary of each.

    Parameters
    ----------
    args : DataArguments
        With `valid_data` and `test_data` if the recipe has files of held-out rows.
    label_names, labels_required
        As in `load_data`.

    Returns
    -------
    corpus : Corpus
        The data set of `--data`.
    held_out : dict of "valid" and "test" to Corpus
        From `load_held_out`.
    """
    check_split_flags(args)
    if (most := getattr(args, "tag_unlabelled", 0)) < 0:
        raise UserError(f"--tag_unlabelled {most}: must be 0 or more")
    # The main process prepares the data; the other processes then read them from the cache.
    # Only arguments that extend TrainingArguments have this method.
    main_process_first = getattr(args, "main_process_first", contextlib.nullcontext)
    with main_process_first():
        corpus = load_data(args, label_names=label_names, labels_required=labels_required)
        held_out = load_held_out(args, corpus)
    print_once(f"\nData\n{corpus.describe()}")
    for part, other in held_out.items():
        print_once(f"{part} rows: {other.describe(brief=True)}")
    return corpus, held_out


def load_data(
    args: DataArguments,
    *,
    label_names: Sequence[str] | None = None,
    labels_required: bool = True,
    keep_unknown_labels: bool = False,
) -> Corpus:
    """Load the data set that `args.data` names, from the cache if it has been prepared before.

    The preparation has these steps, in this order:

    1. Leave out pull requests and blank texts.
    2. Rename and select labels (`label_map`), then drop some (`drop_labels`).
    3. Of texts that differ only in white space or in their Unicode form, keep the first labelled
       one (one by hand before one of `weight_column`), or the first if none of them is labelled. In
       a table with one row per text and label, it gets the labels of all (`duplicate_labels`).
    4. Leave out labels that occur on too few of the remaining rows (`min_label_count`).
    5. Group near duplicates (see `shared.data.near_duplicates`).

    Label ids follow the order of `label_map`. Without a map they follow the order of `class_names`
    or of the classes of the hub data set; without these, names are sorted (whole numbers by value).

    Parameters
    ----------
    args : the flags; those of `DataArguments` are read, and `weight_column` if there is one.
    label_names : names that label ids must follow, such as those of a trained model. Then
        `min_label_count` does not apply, and any other label is unknown.
    labels_required : whether a source without any label is an error.
    keep_unknown_labels : whether unknown labels are kept, in the column `unknown_labels`. Otherwise
        they are an error.

    Raises
    ------
    UserError : a flag, the file, a row or a label is wrong; the message has one line.
    """
    if args.min_label_count < 1:
        raise UserError(f"--min_label_count {args.min_label_count}: must be at least 1")
    source = open_data(args)
    if args.class_names:
        # The names apply to the label column; `prepare` finds out which column that is.
        names = _read_class_names(args.class_names)
        source = replace(source, class_names=dict.fromkeys(source.columns, names))
    label_map = _read_label_map(args.label_map) if args.label_map else None
    folder = cache_folder(args.cache_dir)
    stem = re.sub(r"[^\w-]+", "_", Path(source.name).name.split(".")[0])
    key = _cache_key(source, args, label_map, label_names, keep_unknown_labels)
    path = folder / f"{stem}-{key}.arrow"
    remove_abandoned(folder)  # by processes that were killed while they prepared data
    cached = _open_prepared(path)
    # `labels_required` is not part of the key: a cached file without labels may have been prepared
    # when they were not required. Preparing it again raises the error.
    if cached is not None and (cached.label_names or not labels_required):
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Prepare the file in a temporary folder on the same disk and rename it at the end. A file
        # with the final name is then always complete, even if several processes prepare it at the
        # same time or one of them is stopped.
        with temporary_folder(folder) as scratch:
            prepared = prepare(
                source,
                args,
                label_map,
                label_names,
                scratch,
                labels_required=labels_required,
                keep_unknown_labels=keep_unknown_labels,
            )
            os.replace(prepared, path)
    except OSError as error:
        raise UserError(
            f"--cache_dir {folder}: cannot be written ({error.strerror or error}); "
            "free some space or name another folder"
        ) from error
    corpus = _open_prepared(path)
    assert corpus is not None, f"{path} was written but cannot be opened"
    return corpus


def load_held_out(args: DataArguments, corpus: Corpus) -> dict[str, Corpus]:
    """Load `args.valid_data` and `args.test_data` with the label ids of `corpus`.

    Labels that were left out of `corpus`, by a flag or because they are too rare, are left out of
    these files as well. Other labels that `corpus` does not have are unknown: with
    ``--unknown_labels miss`` they are kept for the metrics (`append_unknown_labels`), with
    ``error`` they are an error. If `corpus` has no labels, the files may have any labels, or none.

    Returns
    -------
    dict of "valid" and "test" to Corpus; without those for which no file is given.

    Raises
    ------
    UserError : as `load_data`.
    """
    # Labels are dropped by their names after --label_map, but the report has some names from before
    # it. A name that is also the new name of a label in `corpus` must not be dropped.
    absent = [name for name in corpus.report["labels_left_out"] if name not in corpus.label_names]
    drop_labels = [*args.drop_labels, *absent]
    # Strings of labels are split, and the rows of a text joined, in the same way.
    report = corpus.report
    reading: dict[str, Any] = {
        "label_separator": report["label_separator"],
        "empty_labels": report["empty_labels"],
        **dict.fromkeys(("split_by", "split_time")),
    }
    # Columns that were recognised by what they hold in --data must not be others here.
    if report["recognised"]["text"]:
        reading["text_columns"] = report["text_columns"]
    if report["recognised"]["labels"]:
        several = len(report["label_columns"]) > 1
        names = report["label_columns"]
        reading |= {"label_columns": names} if several else {"label_column": names[0]}
    if report["joined_rows"]:
        reading["duplicate_labels"] = report["joining"]
    if hasattr(args, "weight_column"):
        reading["weight_column"] = None  # held-out rows are labelled by hand
    return {
        part: load_data(
            replace(args, data=data, drop_labels=drop_labels, **_fields_of(args, reading)),
            label_names=corpus.label_names or None,
            labels_required=bool(corpus.label_names),
            keep_unknown_labels=getattr(args, "unknown_labels", "error") == "miss",
        )
        for part in ("valid", "test")
        if (data := getattr(args, f"{part}_data", None)) is not None
    }


def _fields_of(args: DataArguments, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are flags of `args`."""
    return {name: value for name, value in values.items() if hasattr(args, name)}


# --- files that flags name -----------------------------------------------------------------------


def _read_class_names(path: str) -> list[str]:
    """Return the name of each class, in the order of their numbers."""
    try:
        lines = expand_path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"--class_names {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--class_names {path}: not UTF-8 ({error})") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:  # blank lines at the end
        names.pop()
    if not names:
        raise UserError(f"--class_names {path}: the file is empty; write one name per line")
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            problem = f"{name!r} is on an earlier line, too" if name else "the line is blank"
            raise UserError(
                f"--class_names {path}, line {number}: {problem}; give each class its own name"
            )
    return names


def _read_label_map(path: str) -> dict[str, str]:
    """Return old name -> new name of the labels to keep."""
    try:
        content = read_yaml(expand_path(path))
    except UserError as error:
        raise UserError(f"--label_map {path}: {error}") from error
    if not isinstance(content, (list, dict)) or not content:
        raise UserError(f"--label_map {path}: expected a list of labels or a mapping 'old: new'")
    new_names = content.values() if isinstance(content, dict) else content
    for name in (*content, *new_names):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"--label_map {path}: {name!r} is not a label name")
    return dict(zip(content, new_names, strict=True))


# --- the cache -----------------------------------------------------------------------------------


CACHE_FORMAT = 9  # raise it whenever the same source and flags give a different file


def cache_folder(cache_dir: str | None) -> Path:
    """Return the folder for prepared data and embeddings: `--cache_dir`, or the default one."""
    import datasets

    return Path(cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "recipes")


def _cache_key(
    source: Source,
    args: DataArguments,
    label_map: dict[str, str] | None,
    label_names: Sequence[str] | None,
    keep_unknown_labels: bool,
) -> str:
    """Return a hash of everything that the prepared file depends on."""
    key = [
        CACHE_FORMAT,
        source.name,
        source.version,
        source.class_names,
        args.column_names,
        args.delimiter,
        args.quoting,
        args.encoding,
        args.text_columns,
        args.label_column,
        args.label_columns,
        args.label_separator,
        args.annotator_column,
        args.duplicate_labels,
        list(label_map.items()) if label_map else None,  # the order of the map counts
        args.drop_labels,
        args.min_label_count,
        args.pull_requests,
        args.empty_labels,
        *(getattr(args, name, None) for name in ("weight_column", "split_by", "split_time")),
        getattr(args, "annotator_columns", None),
        label_names and list(label_names),
        keep_unknown_labels,
    ]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _open_prepared(path: Path) -> Corpus | None:
    """Open a prepared file, mapped into memory; None if there is none or it is damaged."""
    import pyarrow as pa
    from datasets import Dataset

    try:
        with pa.memory_map(str(path)) as file:
            report = json.loads(pa.ipc.open_stream(file).schema.metadata[b"report"])
        dataset = Dataset.from_file(str(path))
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    # A file that was cut off between two batches can be read, but has too few rows.
    return Corpus(dataset, report) if len(dataset) == report["rows"] else None
