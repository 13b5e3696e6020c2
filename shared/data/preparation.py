"""Prepare a data set: from the rows of a source to one Arrow file.

The file holds the texts, their labels, near-duplicate groups and statistics. Rows are streamed into
a first Arrow file; every later step works on the columns of that file. A million rows are
therefore never in memory as Python objects.

`prepare` comes first; the steps follow in the order in which it takes them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.data.arguments import DEFAULT_LABEL_COLUMN, DEFAULT_TEXT_COLUMNS
from shared.data.labels import (
    LabelCells,
    LabelEncoder,
    columns_of_zeros_and_ones,
    describe_value,
    is_missing,
)
from shared.data.words import count_words, has_unspaced

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from shared.data.arguments import DataArguments
    from shared.data.readers import Source


def prepare(
    source: Source,
    args: DataArguments,
    label_map: dict[str, str] | None,
    label_names: Sequence[str] | None,
    folder: Path,
    *,
    labels_required: bool = True,
    keep_unknown_labels: bool = False,
) -> Path:
    """Write the prepared Arrow file into `folder` and return its path.

    Parameters
    ----------
    source : the rows.
    args : the flags about columns, labels and pull requests.
    label_map : old name -> new name of the labels to keep; None keeps all.
    label_names : names that label ids must follow; None: the labels in the source decide.
    folder : existing folder; a second file with all rows is left in it.
    labels_required : whether a source without any label is an error.
    keep_unknown_labels : whether labels that are not in `label_names` are kept, in a column of
        their own, `unknown_labels`. Otherwise they are an error.

    Raises
    ------
    UserError : a column is missing, a row is invalid, or nothing is left to learn from.
    """
    import numpy as np
    import pyarrow as pa

    from shared.data.near_duplicates import near_duplicate_groups

    # 1. Stream the rows into an Arrow file, and map that file into memory.
    cells = _label_cells(source, args, labels_required)
    class_names = source.class_names.get(cells.label_column) if cells.label_column else None
    encoder = LabelEncoder(args.label_separator, class_names, label_names or ())
    counts = _stream_rows(source, args, cells, encoder, folder / "rows.arrow")
    with pa.memory_map(str(folder / "rows.arrow")) as file:
        table = pa.ipc.open_stream(file).read_all()
    if not len(table):
        raise UserError(
            f"{source.name}: no text left of {counts['rows_read']:,} rows: "
            f"{counts['pull_requests']:,} are pull requests (--pull_requests keeps them), "
            f"{counts['blank_texts']:,} are blank"
        )

    # 2. Split strings of several labels. Rename and select labels. This comes before duplicates are
    # dropped, because a row whose labels are all left out counts as unlabelled, and a labelled
    # duplicate replaces it.
    try:
        source_labels = RowLabels.from_arrow(table["labels"]).split(encoder.split_strings())
    except ValueError as error:
        raise UserError(f"{source.name}: {error}") from error
    names, new_ids = _select_labels(encoder, source, args, label_map, label_names)
    labels = source_labels.renumber(new_ids)

    # 3. Drop exact duplicates, or join their labels.
    first = _first_of_duplicates(table["key"].to_numpy(), labels.known(args.empty_labels))
    kept = first == np.arange(len(first))
    joined = 0
    if args.duplicate_labels == "merge" or (
        args.duplicate_labels == "auto" and (cells.answers or _is_long_table(first, source_labels))
    ):
        joined = int((labels.listed & ~kept).sum())
        source_labels, labels = source_labels.join(first), labels.join(first)
    conflicts = _count_conflicts(first, labels, labels.known(args.empty_labels))
    if len(kept) > 1 and kept.sum() == 1:
        raise UserError(f"{source.name}: all {len(kept):,} texts are the same; nothing to learn")

    # 4. Count labels on the kept rows only, then leave out those that are too rare.
    source_counts = source_labels.count(kept, len(new_ids))
    left_out = {
        name: count
        for name, count, new_id in zip(encoder.names, source_counts, new_ids, strict=True)
        if new_id < 0
    }
    frequency = dict(zip(names, labels.count(kept, len(names)), strict=True))
    unknown: dict[str, int] = {}  # labels that are not in label_names, the most frequent first
    if label_names is None:
        names = [name for name in names if frequency[name] >= args.min_label_count]
        if not names and labels_required:
            raise _no_labels(source, cells.needed, frequency, args)
        left_out |= {name: count for name, count in frequency.items() if name not in names}
    else:
        names = list(label_names)
        others = [name for name in frequency if frequency[name] and name not in names]
        unknown = {name: frequency[name] for name in sorted(others, key=lambda n: -frequency[n])}
        if unknown and not keep_unknown_labels:
            first_row = encoder.first_rows[np.argmax(new_ids >= len(names))]
            raise _unexpected_labels(source, unknown, first_row, names)
    labels = labels.renumber(_positions(frequency, [*names, *unknown]))
    known = labels.known(args.empty_labels)

    # 5. Group near duplicates. All rows are hashed in place; the groups of the kept rows are then
    # numbered from 0 without gaps.
    groups = near_duplicate_groups(table["text"])[kept]
    groups = np.unique(groups, return_inverse=True)[1]
    group_sizes = np.bincount(groups)

    # 6. Write the kept rows, with the statistics in the metadata of the file.
    words = table["words"].to_numpy()[kept]
    percentiles = np.percentile(words, [5, 25, 50, 75, 95]).tolist()
    labels_per_row = np.bincount(labels.rows, minlength=len(kept))
    report = {
        "source": source.name,
        **counts,
        "notes": [*source.notes, *cells.notes(), *encoder.notes(), *_joined_note(joined)],
        # The names of class numbers are not split in a held-out file.
        "label_separator": args.label_separator if class_names else encoder.separator,
        "joined_rows": joined,
        "exact_duplicates": int((~kept).sum()) - joined,
        "label_conflicts": conflicts,
        "rows": int(kept.sum()),
        "labelled": int(known[kept].sum()),
        "unlabelled": int((~known[kept]).sum()),
        "multilabel": int((labels_per_row[kept] > 1).sum()),
        "near_duplicates": int(group_sizes[group_sizes > 1].sum()),
        "near_duplicate_groups": int((group_sizes > 1).sum()),
        "words": dict(zip(("p5", "p25", "p50", "p75", "p95"), percentiles, strict=True))
        | {"max": int(words.max())},
        "labels": {name: frequency[name] for name in names},
        "labels_left_out": left_out,
        "unknown_labels": unknown,
    }
    path = folder / "prepared.arrow"
    columns = {"labels": names} | ({"unknown_labels": list(unknown)} if unknown else {})
    label_columns = {
        column: (
            column_names,
            labels.renumber(_positions([*names, *unknown], column_names)).to_arrow(known),
        )
        for column, column_names in columns.items()
    }
    _write(path, table, kept, label_columns, groups, report)
    return path


# --- columns -------------------------------------------------------------------------------------


ROWS_TO_RECOGNISE = 1000  # of a layout without a column of labels


def find_text_columns(columns: Sequence[str], wanted: list[str], source: str) -> list[str]:
    """Return the columns of a source that make up its texts.

    These are the columns in `wanted`. If `wanted` is the default, title and body, they are those
    of the two that exist; if neither exists, the column text.

    Raises
    ------
    UserError : a column of `wanted` is not among `columns`.
    """
    if wanted == list(DEFAULT_TEXT_COLUMNS):
        present = [name for name in wanted if name in columns]
        wanted = present or (["text"] if "text" in columns else wanted)
    for name in wanted:
        if name not in columns:
            raise _missing_column(name, columns, "--text_columns", source)
    return wanted


def find_label_column(
    columns: Sequence[str], wanted: str, source: str, *, required: bool = True
) -> str | None:
    """Return the column of a source that holds its labels.

    This is the column `wanted`. If `wanted` is the default, labels, and does not exist, it is the
    column label. If that does not exist either, and `required` is false, it is None.

    Raises
    ------
    UserError : `wanted` is not among `columns`.
    """
    for name in (wanted, "label") if wanted == DEFAULT_LABEL_COLUMN else (wanted,):
        if name in columns:
            return name
    if not required and wanted == DEFAULT_LABEL_COLUMN:
        return None
    raise _missing_column(wanted, columns, "--label_column", source)


def _label_cells(source: Source, args: DataArguments, required: bool) -> LabelCells:
    """Return what takes the labels from the rows of a source.

    Raises
    ------
    UserError : a column of labels is missing; the message names the layouts that are recognised.
    """
    for name in args.label_columns:
        if name not in source.columns:
            raise _missing_column(name, source.columns, "--label_columns", source.name)
    if args.label_columns and args.label_column != DEFAULT_LABEL_COLUMN:
        raise UserError("--label_columns and --label_column: give one of them")
    label_column = None
    if not args.label_columns:
        try:
            label_column = find_label_column(
                source.columns, args.label_column, source.name, required=required
            )
        except UserError as error:
            raise UserError(f"{error}{_layout_hint(source)}") from error
    unlabelled_zeros = args.empty_labels == "unlabelled"
    return LabelCells(
        source.columns, label_column, args.label_columns, unlabelled_zeros=unlabelled_zeros
    )


def _layout_hint(source: Source) -> str:
    """Return what to do with a layout that has no column of labels, as the end of a message."""
    if {"accept", "answer"} <= set(source.columns):
        return "; for choices made with Prodigy: --label_column accept"
    if {"annotations", "data"} <= set(source.columns):
        return (
            "; an export of Label Studio must be CSV or JSON-MIN, with the column of the choices "
            "named by --label_column"
        )
    rows = list(islice(source.read(None), ROWS_TO_RECOGNISE))
    flags = columns_of_zeros_and_ones(rows, source.columns)
    if len(flags) > 1:
        return f"; for columns of 0 and 1: --label_columns {' '.join(flags)}"
    if len(rows) == 1 and any(isinstance(value, (list, dict)) for value in rows[0].values()):
        return "; the file is one object: write one object per row"
    return ""


def _missing_column(name: str, columns: Sequence[str], flag: str, source: str) -> UserError:
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"name the right one with {flag}"
    return UserError(f"{source}: no column {name!r} (found: {', '.join(columns)}); {hint}")


# --- the text of a row ---------------------------------------------------------------------------


def join_text(row: dict, columns: Sequence[str]) -> str:
    """Return the text of a row: its text columns, joined by a blank line.

    Columns that are null, NaN or blank are left out. Half a surrogate pair is replaced by U+FFFD:
    JSON can hold one, but UTF-8 and tokenizers cannot.

    Raises
    ------
    ValueError : a column holds something other than text.
    """
    parts = []
    for column in columns:
        value = row.get(column)
        if is_missing(value):
            continue
        if not isinstance(value, str):
            raise ValueError(f"column {column!r} holds {describe_value(value)}, not text")
        if value and not value.isspace():
            parts.append(value)
    text = "\n\n".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 can write half a pair; reading it back replaces the half and keeps whole pairs.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# --- from rows to an Arrow file ------------------------------------------------------------------


# A batch is written once it has this many rows or characters, so that rows of very long texts do
# not fill the memory.
BATCH_ROWS, BATCH_CHARACTERS = 1000, 1 << 24


def _stream_rows(
    source: Source, args: DataArguments, cells: LabelCells, encoder: LabelEncoder, path: Path
) -> dict[str, Any]:
    """Write every row that has a text to an Arrow file; return counts of all other rows.

    Columns: text; labels (the encoder's codes; null: unlabelled); row (1-based, in the source);
    key (equal for texts that differ only in white space or in their Unicode form); words (their
    number).
    """
    import pyarrow as pa

    text_columns = find_text_columns(source.columns, args.text_columns, source.name)
    columns = [*text_columns, *cells.needed]
    if "pull_request" in source.columns:
        columns.append("pull_request")
    schema = pa.schema(
        {
            "text": pa.string(),
            "labels": pa.list_(pa.int32()),
            "row": pa.int64(),
            "key": pa.uint64(),
            "words": pa.int32(),
        }
    )
    number, pull_requests, unspaced = 0, 0, 0
    blank_rows: list[int] = []
    batch: list[tuple] = []  # the next rows to write, one tuple each, in the order of the schema
    characters = 0  # in the texts of the batch
    # One column may hold both text and labels; dict.fromkeys asks for it once.
    rows = progress(source.read(list(dict.fromkeys(columns))), "reading")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:

        def flush() -> None:
            values = zip(*batch, strict=True)  # from rows to columns
            writer.write_batch(
                pa.record_batch(dict(zip(schema.names, values, strict=True)), schema)
            )
            batch.clear()

        for number, row in enumerate(rows, 1):
            if not args.pull_requests and _is_pull_request(row):
                pull_requests += 1
                continue
            try:
                text = join_text(row, text_columns)
                codes = encoder.encode(cells(row), number)
            except ValueError as error:
                raise UserError(f"{source.name}, row {number}: {error}") from error
            normalized = " ".join(unicodedata.normalize("NFC", text).split())
            if not normalized:
                blank_rows.append(number)
                continue
            # The key is a hash of the text. It has 64 bits: the probability that two of a million
            # different texts get the same key is below 1 in 10^7.
            key = hashlib.blake2b(normalized.encode(), digest_size=8).digest()
            n_words = count_words(normalized)
            unspaced += has_unspaced(normalized)
            batch.append((text, codes, number, int.from_bytes(key, "little"), n_words))
            characters += len(text)
            if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
                flush()
                characters = 0
        if batch:
            flush()
    return {
        "rows_read": number,
        "pull_requests": pull_requests,
        "unspaced_texts": unspaced,
        "blank_texts": len(blank_rows),
        "first_blank_rows": blank_rows[:5],
    }


def _is_pull_request(row: dict) -> bool:
    """Return whether a row of GitHub's REST JSON is a pull request.

    Pull requests have an object in the field `pull_request`; issues do not have the field, or it is
    null. A Parquet file may give issues an object, too, in which every value is null.
    """
    value = row.get("pull_request")
    return isinstance(value, dict) and any(part is not None for part in value.values())


# --- the labels of all rows ----------------------------------------------------------------------


@dataclass(frozen=True)
class RowLabels:
    """Labels of n rows as pairs (row, label id).

    Attributes
    ----------
    rows, ids : int64 arrays with one entry per pair: 0-based row and label id. Pairs are sorted by
        row, then by id; each occurs once.
    listed : bool array of shape (n,): whether the row has a list of labels in the source. The list
        may be empty; a row without any list is unlabelled.
    """

    rows: np.ndarray
    ids: np.ndarray
    listed: np.ndarray

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> RowLabels:
        """Return the labels in an Arrow column of lists of ids; null: no list."""
        import numpy as np
        import pyarrow.compute as pc

        lengths = pc.list_value_length(column).fill_null(0).to_numpy()
        rows = np.repeat(np.arange(len(column)), lengths)
        ids = pc.list_flatten(column).to_numpy().astype(np.int64)
        row_labels = cls(rows, ids, column.is_valid().to_numpy())
        # Renumbering each id to itself sorts the pairs and removes repeated ones.
        return row_labels.renumber(np.arange(ids.max(initial=-1) + 1))

    def split(self, parts: Sequence[Sequence[int]]) -> RowLabels:
        """Replace each id i by the ids in ``parts[i]``."""
        import numpy as np

        lengths = np.array([len(ids) for ids in parts], np.int64)
        starts = np.cumsum(lengths) - lengths
        repeats = lengths[self.ids]
        # Position of each new pair within the parts of its old one.
        within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        flat = np.array([i for ids in parts for i in ids], np.int64)
        ids = flat[np.repeat(starts[self.ids], repeats) + within]
        row_labels = RowLabels(np.repeat(self.rows, repeats), ids, self.listed)
        return row_labels.renumber(np.arange(len(flat)))

    def join(self, first: np.ndarray) -> RowLabels:
        """Give the labels of each row to the row ``first[row]``, which has them in addition."""
        import numpy as np

        listed = np.zeros_like(self.listed)
        listed[first[self.listed]] = True
        row_labels = RowLabels(first[self.rows], self.ids, listed)
        return row_labels.renumber(np.arange(self.ids.max(initial=-1) + 1))

    def renumber(self, new_ids: np.ndarray) -> RowLabels:
        """Replace each id i by `new_ids[i]`; -1 removes the label.

        Two ids may become the same one. `listed` does not change, so that a row whose labels are
        all removed has an empty list.
        """
        import numpy as np

        n_labels = new_ids.max(initial=0) + 1
        ids = new_ids[self.ids]
        # Each pair as one number, row * n_labels + id: np.unique then sorts the pairs by row and id
        # and removes those that occur twice, and divmod turns the numbers back into pairs.
        pairs = np.unique((self.rows * n_labels + ids)[ids >= 0])
        return RowLabels(*np.divmod(pairs, n_labels), self.listed)

    def known(self, empty_labels: str) -> np.ndarray:
        """Return which rows count as labelled (bool, n).

        Rows with a label always do. Rows with an empty list do if `empty_labels` is "negative":
        none of the labels applies to them. Rows without a list never do.
        """
        import numpy as np

        has_label = np.zeros(len(self.listed), bool)
        has_label[self.rows] = True
        return has_label | self.listed if empty_labels == "negative" else has_label

    def count(self, kept: np.ndarray, n_labels: int) -> list[int]:
        """Return the number of kept rows (bool, n) per label."""
        import numpy as np

        return np.bincount(self.ids[kept[self.rows]], minlength=n_labels).tolist()

    def to_arrow(self, known: np.ndarray) -> pa.ListArray:
        """Return a list of ids per row; null where `known` (bool, n) is false."""
        import numpy as np
        import pyarrow as pa

        # The ids are sorted by row: the list of row i is ids[offsets[i]:offsets[i + 1]].
        lengths = np.bincount(self.rows, minlength=len(known))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, self.ids, mask=pa.array(~known))


def _select_labels(
    encoder: LabelEncoder,
    source: Source,
    args: DataArguments,
    label_map: dict[str, str] | None,
    label_names: Sequence[str] | None,
) -> tuple[list[str], np.ndarray]:
    """Rename and select labels, and decide their order.

    Returns
    -------
    names : names of the labels to keep, in the order of their new ids: those of `label_names`, then
        all others in the source.
    new_ids : int64 array with the new id of each code of the encoder, -1 for labels left out.
    """
    old_names = encoder.names
    new_names: list[str | None]  # of each code; None: left out
    if label_map is None:
        new_names = list(old_names)
    else:
        # Held-out files, for which label_names is given, need not have every label of the map.
        absent = [old for old in label_map if old not in old_names]
        if absent and label_names is None:
            close = difflib.get_close_matches(absent[0], old_names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"--label_map {args.label_map}: no row of {source.name} has the label "
                f"{absent[0]!r}{hint}"
            )
        new_names = [label_map.get(old) for old in old_names]
    new_names = [None if name in args.drop_labels else name for name in new_names]
    present = {name for name in new_names if name is not None}
    if label_names is not None:
        names = [*label_names, *sorted(present.difference(label_names))]
    elif label_map is not None:
        names = [name for name in dict.fromkeys(label_map.values()) if name in present]
    elif encoder.class_names:
        names = [name for name in encoder.class_names if name in present]
    elif all(name.isdecimal() for name in present):
        names = sorted(present, key=int)
    else:
        names = sorted(present)
    return names, _positions(new_names, names)


def _positions(labels: Iterable[str | None], names: Sequence[str]) -> np.ndarray:
    """Return the index in `names` of each label, int64; -1 for those that are not in it."""
    import numpy as np

    position: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    return np.array([position.get(label, -1) for label in labels], np.int64)


def _unexpected_labels(
    source: Source, counts: dict[str, int], first_row: int, expected: list[str]
) -> UserError:
    return UserError(
        f"{source.name}: labels that are not among the expected ones: {join_counts(counts)} (the "
        f"first is in row {first_row}; expected are {', '.join(expected[:10])}"
        f"{', ...' if len(expected) > 10 else ''}); leave them out with --drop_labels or rename "
        "them with --label_map"
    )


def join_counts(counts: dict[str, int]) -> str:
    """Return "name number, name number, ..."."""
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _no_labels(
    source: Source, columns: Sequence[str], frequency: dict[str, int], args: DataArguments
) -> UserError:
    if not frequency:
        return UserError(
            f"{source.name}: no row has a label to learn in column {columns[0]!r}; check "
            "--label_column, --label_map and --drop_labels"
        )
    name = max(frequency, key=lambda name: frequency[name])
    return UserError(
        f"{source.name}: no label occurs on {args.min_label_count} rows (--min_label_count); the "
        f"most frequent, {name!r}, occurs on {frequency[name]}"
    )


# --- exact duplicates ----------------------------------------------------------------------------


def _first_of_duplicates(keys: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return the row to keep of each set of exact duplicates: the first labelled one, or the first.

    Parameters
    ----------
    keys : uint64 array of shape (n,); rows with the same key are duplicates.
    labelled : bool array of shape (n,).

    Returns
    -------
    int64 array of shape (n,) : the kept row of the set that each row belongs to.
    """
    import numpy as np

    # Sort by key, within a key labelled rows first. The sort is stable, so that rows which agree in
    # both stay in the order of the source, and the row to keep is the first with its key.
    order = np.lexsort((~labelled, keys))
    is_first = np.ones(len(keys), bool)  # whether a row in sorted order is the first with its key
    is_first[1:] = keys[order][1:] != keys[order][:-1]
    duplicate_set = np.cumsum(is_first) - 1  # number of the set, per row in sorted order
    first = np.empty(len(keys), np.int64)
    first[order] = order[is_first][duplicate_set]
    return first


def _count_conflicts(first: np.ndarray, labels: RowLabels, labelled: np.ndarray) -> int:
    """Return the number of sets of duplicates in which two labelled rows have different labels."""
    import numpy as np

    # Compare sets of labels by one number each: give every label a random 64-bit number and add
    # those of a row (modulo 2^64). Equal sets have equal sums; different sets have, in practice,
    # different sums.
    label_numbers = np.random.default_rng(0).integers(
        2**64, size=labels.ids.max(initial=0) + 1, dtype=np.uint64
    )
    label_sums = np.zeros(len(first), np.uint64)
    np.add.at(label_sums, labels.rows, label_numbers[labels.ids])
    # A labelled row conflicts if its sum differs from that of the kept row of its set. If the set
    # has a labelled row, the kept row is labelled, too.
    return len(np.unique(first[labelled & (label_sums != label_sums[first])]))


# In a table with one row per text and label, at least this share of the labelled texts have several
# rows, and in this share of their sets each row has another label.
LONG_TABLE_SHARE, LONG_TABLE_DIFFERENT = 0.05, 0.9


def _is_long_table(first: np.ndarray, labels: RowLabels) -> bool:
    """Return whether the source has one row per text and label ("long format").

    Each row then has one label, and no pair of text and label occurs twice. Where annotators
    disagree, or texts were collected twice, some duplicates agree.

    Parameters
    ----------
    first : int64 array of shape (n,), from `_first_of_duplicates`.
    labels : labels of the n rows.
    """
    import numpy as np

    if not len(labels.rows) or np.bincount(labels.rows).max() > 1:
        return False
    rows_per_set = np.bincount(first[labels.rows])
    labels_per_set = np.bincount(labels.join(first).rows, minlength=len(rows_per_set))
    several = rows_per_set > 1
    different = several & (labels_per_set == rows_per_set)
    # One pair alone may as well be a mistake in the labels.
    often = several.sum() >= max(LONG_TABLE_SHARE * (rows_per_set > 0).sum(), 2)
    return bool(often and different.sum() >= LONG_TABLE_DIFFERENT * several.sum())


def _joined_note(rows: int) -> list[str]:
    if not rows:
        return []
    return [
        f"one row per text and label: the labels of {rows:,} rows were added to the first row of "
        "the same text (--duplicate_labels)"
    ]


# --- the prepared file ---------------------------------------------------------------------------


def _write(
    path: Path,
    table: pa.Table,
    kept: np.ndarray,
    labels: dict[str, tuple[list[str], pa.ListArray]],
    groups: np.ndarray,
    report: dict[str, Any],
) -> None:
    """Write the kept rows, batch by batch, with the report in the metadata.

    `labels` maps each column of labels to the names of its labels, and to their ids per row.
    `table`, `kept` and the ids have all n rows; `groups` has only the kept ones.
    """
    import pyarrow as pa
    from datasets import ClassLabel, Features, List, Value

    features = Features(
        {
            "text": Value("string"),
            **{column: List(ClassLabel(names=names)) for column, (names, _) in labels.items()},
            "row": Value("int64"),
            "group": Value("int64"),
            "words": Value("int32"),
        }
    )
    # The metadata of `datasets` keeps the names of the labels; the report is added to it.
    schema = features.arrow_schema
    schema = schema.with_metadata(schema.metadata | {b"report": json.dumps(report).encode()})
    start, written = 0, 0  # rows of the table read, and rows of them kept
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in table.to_batches():
            part = slice(start, start := start + len(batch))
            mask = pa.array(kept[part])
            rows = batch["row"].filter(mask)
            columns = [
                batch["text"].filter(mask),
                *(ids[part].filter(mask) for _, ids in labels.values()),
                rows,
                pa.array(groups[written : (written := written + len(rows))]),
                batch["words"].filter(mask),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
