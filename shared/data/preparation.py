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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.data.columns import (
    LabelCells,
    find_label_cells,
    find_text_columns,
    find_weight_column,
    join_text,
    read_weight,
)
from shared.data.labels import LabelEncoder
from shared.data.row_labels import RowLabels, count_conflicts, first_of_duplicates, is_long_table
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
    cells = find_label_cells(source, args, labels_required)
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
    known = labels.known(args.empty_labels)
    weighted = known & table["weight"].is_valid().to_numpy()
    first = first_of_duplicates(table["key"].to_numpy(), known.astype(int) + (known & ~weighted))
    kept = first == np.arange(len(first))
    joined = 0
    if args.duplicate_labels == "merge" or (
        args.duplicate_labels == "auto" and (cells.answers or is_long_table(first, source_labels))
    ):
        joined = int((labels.listed & ~kept).sum())
        source_labels, labels = source_labels.join(first), labels.join(first)
    conflicts = count_conflicts(first, labels, labels.known(args.empty_labels))
    if len(kept) > 1 and kept.sum() == 1:
        raise UserError(f"{source.name}: all {len(kept):,} texts are the same; nothing to learn")

    # 4. Count labels on the kept rows only, then leave out those that are too rare.
    source_counts = _counts_left_out(source_labels, kept, len(new_ids))
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
        all_counts = zip(frequency, _counts_left_out(labels, kept, len(frequency)), strict=True)
        left_out |= {name: count for name, count in all_counts if name not in names}
    else:
        names = list(label_names)
        others = [name for name in frequency if frequency[name] and name not in names]
        unknown = {name: frequency[name] for name in sorted(others, key=lambda n: -frequency[n])}
        if unknown and not keep_unknown_labels:
            first_row = encoder.first_rows[np.argmax(new_ids >= len(names))]
            raise _unexpected_labels(source, unknown, first_row, names)
    labels = labels.renumber(_positions(frequency, [*names, *unknown]))
    known = labels.known(args.empty_labels)
    weighted &= known

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
        "labelled": int((known & ~weighted)[kept].sum()),
        "pseudo_labelled": int(weighted[kept].sum()),
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
    weights = pa.array(table["weight"].to_numpy(), mask=~weighted) if weighted.any() else None
    _write(path, table, kept, label_columns, groups, weights, report)
    return path


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
    number); weight (null: no value in `args.weight_column`, or no such column is named).
    """
    import pyarrow as pa

    text_columns = find_text_columns(source.columns, args.text_columns, source.name)
    columns = [*text_columns, *cells.needed]
    weight_column = getattr(args, "weight_column", None)
    if weight_column is not None:
        columns.append(find_weight_column(source.columns, weight_column, source.name))
    if "pull_request" in source.columns:
        columns.append("pull_request")
    schema = pa.schema(
        {
            "text": pa.string(),
            "labels": pa.list_(pa.int32()),
            "row": pa.int64(),
            "key": pa.uint64(),
            "words": pa.int32(),
            "weight": pa.float32(),
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
            if not args.pull_requests and is_pull_request(row):
                pull_requests += 1
                continue
            try:
                text = join_text(row, text_columns)
                codes = encoder.encode(cells(row), number)
                weight = None if weight_column is None else read_weight(row, weight_column)
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
            key_number = int.from_bytes(key, "little")
            batch.append((text, codes, number, key_number, n_words, weight))
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


def is_pull_request(row: dict) -> bool:
    """Return whether a row of GitHub's REST JSON is a pull request.

    Pull requests have an object in the field `pull_request`; issues do not have the field, or it is
    null. A Parquet file may give issues an object, too, in which every value is null.
    """
    value = row.get("pull_request")
    return isinstance(value, dict) and any(part is not None for part in value.values())


# --- the names of the labels ---------------------------------------------------------------------


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


def _counts_left_out(labels: RowLabels, kept: np.ndarray, n_labels: int) -> list[int]:
    """Return the number of kept rows per label; of all rows if only dropped duplicates have it."""
    counts_of_all = labels.count(kept | True, n_labels)
    return [
        count or count_of_all
        for count, count_of_all in zip(labels.count(kept, n_labels), counts_of_all, strict=True)
    ]


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
    weights: pa.Array | None,
    report: dict[str, Any],
) -> None:
    """Write the kept rows, batch by batch, with the report in the metadata.

    `labels` maps each column of labels to the names of its labels, and to their ids per row.
    `table`, `kept`, the ids and the weights, if any, have all n rows; `groups` has only the kept
    ones.
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
            **({} if weights is None else {"weight": Value("float32")}),
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
                *([] if weights is None else [weights[part].filter(mask)]),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
