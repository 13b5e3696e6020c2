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
from shared.data.arguments import DEFAULT_TEXT_COLUMNS
from shared.data.columns import (
    LabelCells,
    find_annotator_column,
    find_label_cells,
    find_split_column,
    find_weight_column,
    join_text,
    read_weight,
    recognise_text_columns,
    unread_text_columns,
)
from shared.data.labels import LabelEncoder, is_missing, name_some
from shared.data.row_labels import (
    RowLabels,
    Vote,
    count_conflicts,
    first_of_duplicates,
    is_long_table,
)
from shared.data.split_columns import read_parts, read_times
from shared.data.words import count_words, has_unspaced

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from shared.data.arguments import DataArguments
    from shared.data.sources import Source


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
    encoder = LabelEncoder(
        args.label_separator,
        class_names,
        label_names or (),
        may_be_multi_hot=args.class_names is not None,
    )
    text_columns, why_text = recognise_text_columns(source, args.text_columns)
    unread = _unread_note(source, args, [*text_columns, *cells.needed])
    rows_file = folder / "rows.arrow"
    counts, annotator_names = _stream_rows(source, args, cells, encoder, text_columns, rows_file)
    with pa.memory_map(str(rows_file)) as file:
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

    # 3. Drop exact duplicates, or join their labels. Of the rows of a text, that with labels by
    # hand is kept; of several, that of the test set.
    empty_labels = args.empty_labels
    if empty_labels == "auto":
        zeros = cells.label_columns or encoder.multi_hot
        confirmed = cells.asked_for_one or cells.confirmed
        empty_labels = "negative" if zeros or confirmed else "unlabelled"
        if empty_labels == "negative" and not (zeros or cells.asked_for_one):
            # A person confirmed empty lists, and not those of which all labels are left out.
            had, has = np.zeros((2, len(labels.listed)), bool)
            had[source_labels.rows], has[labels.rows] = True, True
            labels = RowLabels(labels.rows, labels.ids, labels.listed & (has | ~had))
    known = labels.known(empty_labels)
    parts, times, times_note = _read_split(source, args, table, known)
    weighted = known & table["weight"].is_valid().to_numpy()
    priority = 4 * (known.astype(int) + (known & ~weighted)) + (0 if parts is None else parts)
    first = first_of_duplicates(table["key"].to_numpy(), priority)
    joining = _choose_joining(args, cells, table, first, source_labels)
    if joining == "separate":
        first = np.arange(len(first))
    kept = first == np.arange(len(first))
    joined, vote = 0, None
    if joining == "merge":
        joined = int((labels.listed & ~kept).sum())
        source_labels, labels = source_labels.join(first), labels.join(first)
    elif joining == "majority":
        if weighted.any():
            raise UserError(
                "--duplicate_labels majority: labels of --weight_column are no answers of "
                "annotators; give 'first'"
            )
        joined = int((labels.listed & ~kept).sum())
        annotators = _annotators(table)
        source_labels = source_labels.vote(first, annotators).labels
        vote = labels.vote(first, annotators)
        labels = vote.labels
    conflicts = count_conflicts(first, labels, labels.known(empty_labels))
    if vote is not None:
        conflicts = 0  # the vote has settled them
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
    known = labels.known(empty_labels)
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
        "layout": source.layout,
        "text_columns": text_columns,
        "label_columns": list(cells.label_columns) or cells.needed[:1],
        "recognised": {"text": why_text, "labels": cells.reason},
        "empty_labels": empty_labels,
        "notes": [
            *source.notes,
            *unread,
            *(source.count_notes() if source.count_notes else ()),
            *cells.notes(),
            *encoder.notes(),
            *_zeros_note(cells, encoder, empty_labels, labels, known, kept),
            *_joined_note(joined if vote is None else 0),
            *_vote_note(vote),
            *times_note,
        ],
        # The names of class numbers are not split in a held-out file.
        "label_separator": args.label_separator if class_names else encoder.separator,
        "joining": joining,
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
    extra = {}
    if weighted.any():
        extra["weight"] = pa.array(table["weight"].to_numpy(), mask=~weighted)
    if parts is not None:
        extra["part"] = pa.array(parts, pa.int8())
    if times is not None:
        extra["time"] = times
    if joining == "separate" and annotator_names:
        extra |= {name: table[name].combine_chunks() for name in ("annotator", "key")}
        report["annotators"] = annotator_names
    _write(path, table, kept, label_columns, groups, extra, report)
    return path


def _choose_joining(
    args: DataArguments,
    cells: LabelCells,
    table: pa.Table,
    first: np.ndarray,
    labels: RowLabels,
) -> str:
    """Return what becomes of rows with the same text: a value of `duplicate_labels` but auto."""
    import numpy as np

    if args.duplicate_labels != "auto":
        return args.duplicate_labels
    # Labels of two annotators on one text.
    is_given = table["annotator"].is_valid().to_numpy() & labels.listed
    pairs = np.unique(np.stack([first, _annotators(table)])[:, is_given], axis=1)
    if len(np.unique(pairs[0])) < len(pairs[0]):
        return "majority"
    return "merge" if cells.answers or is_long_table(first, labels) else "first"


def _annotators(table: pa.Table) -> np.ndarray:
    """Return the annotator of each row as a number; rows without one have one of their own."""
    import numpy as np
    import pyarrow.compute as pc

    column = table["annotator"]
    codes = pc.fill_null(column, -1).to_numpy()
    own = codes.max(initial=-1) + 1 + np.arange(len(codes))
    return np.where(codes < 0, own, codes).astype(np.int64)


def _read_split(
    source: Source, args: DataArguments, table: pa.Table, known: np.ndarray
) -> tuple[np.ndarray | None, pa.Array | None, list[str]]:
    """Return the part or the time of each row as `read_parts` and `read_times` do, and notes."""
    rows = table["row"].to_numpy()
    if column := getattr(args, "split_by", None):
        place = source.place
        return read_parts(table["split"], known, rows, column, source.name, place), None, []
    if column := getattr(args, "split_time", None):
        times, notes = read_times(table["split"], known, rows, column, source.name)
        return None, times, notes
    return None, None, []


# --- from rows to an Arrow file ------------------------------------------------------------------


# A batch is written once it has this many rows or characters, so that rows of very long texts do
# not fill the memory.
BATCH_ROWS, BATCH_CHARACTERS = 1000, 1 << 24
MOST_BLANK_ROWS = 100  # whose numbers the report names


def _stream_rows(
    source: Source,
    args: DataArguments,
    cells: LabelCells,
    encoder: LabelEncoder,
    text_columns: list[str],
    path: Path,
) -> tuple[dict[str, Any], list[str]]:
    """Write every row that has a text to an Arrow file.

    Returns counts of all other rows, and the names of the annotators.

    Columns: text; labels (the encoder's codes; null: unlabelled); row (1-based, in the source);
    key (equal for texts that differ only in white space or in their Unicode form); words (their
    number); weight (null: no value in `args.weight_column`, or no such column is named); annotator
    (a number for each; null: not known); split (the value of the column that divides the rows, as
    text; null: none).
    """
    import pyarrow as pa

    annotator_column = find_annotator_column(source, args.annotator_column)
    split_column = find_split_column(source, args, targets=cells.needed)
    columns = [*text_columns, *cells.needed]
    columns += [column for column in (annotator_column, split_column) if column is not None]
    annotators: dict[str, int] = {}
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
            "annotator": pa.int32(),
            "split": pa.string(),
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
                raise UserError(f"{source.place(number)}: {error}") from error
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
            who = None if annotator_column is None else cell_as_text(row.get(annotator_column))
            annotator = None if who is None else annotators.setdefault(who, len(annotators))
            part = None if split_column is None else cell_as_text(row.get(split_column))
            batch.append((text, codes, number, key_number, n_words, weight, annotator, part))
            characters += len(text)
            if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
                flush()
                characters = 0
        if batch:
            flush()
    counts = {
        "rows_read": number,
        "pull_requests": pull_requests,
        "unspaced_texts": unspaced,
        "blank_texts": len(blank_rows),
        "first_blank_rows": blank_rows[:MOST_BLANK_ROWS],
    }
    return counts, list(annotators)


def cell_as_text(value: Any) -> str | None:
    """Return a cell as text, None if it is blank; whole numbers without a fraction."""
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value).strip()
    return text or None


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


def _unread_note(source: Source, args: DataArguments, read: list[str]) -> list[str]:
    """Return the columns that hold texts, too, if no flag has said which ones to read."""
    if args.text_columns != list(DEFAULT_TEXT_COLUMNS):
        return []
    if not (unread := unread_text_columns(source, read)):
        return []
    return [f"not read, but with sentences: {name_some(unread, 3)} (--text_columns)"]


def _vote_note(vote: Vote | None) -> list[str]:
    if vote is None or not vote.several:
        return []
    undecided = f", {vote.undecided:,} without a majority (unlabelled)" if vote.undecided else ""
    return [
        "several annotators: a text has the labels that more than half of them gave; of "
        f"{vote.several:,} texts with several, {vote.unanimous:,} in full agreement{undecided} "
        "(--duplicate_labels)"
    ]


def _zeros_note(
    cells: LabelCells,
    encoder: LabelEncoder,
    empty_labels: str,
    labels: RowLabels,
    known: np.ndarray,
    kept: np.ndarray,
) -> list[str]:
    """Return how many texts were said to have no label, if their form can say so."""
    import numpy as np

    rejected = cells.answers["reject"] and empty_labels == "negative"
    if not (cells.label_columns or encoder.multi_hot or rejected or cells.confirmed):
        return []
    has_label = np.zeros(len(kept), bool)
    has_label[labels.rows] = True
    if not (zeros := int((labels.listed & ~has_label & kept).sum())):
        return []
    meaning = "no label applies" if empty_labels == "negative" else "they count as unlabelled"
    form = "only rejected labels" if rejected else "a 0 for each label"
    if cells.confirmed:
        form = "an empty list that a person confirmed"
    return [f"{zeros:,} texts have {form}: {meaning} (--empty_labels)"]


# --- the prepared file ---------------------------------------------------------------------------


def _write(
    path: Path,
    table: pa.Table,
    kept: np.ndarray,
    labels: dict[str, tuple[list[str], pa.ListArray]],
    groups: np.ndarray,
    extra: dict[str, pa.Array],
    report: dict[str, Any],
) -> None:
    """Write the kept rows, batch by batch, with the report in the metadata.

    `labels` maps each column of labels to the names of its labels, and to their ids per row.
    `table`, `kept`, the ids and the columns of `extra` have all n rows; `groups` has only the kept
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
            **{name: Value(str(values.type)) for name, values in extra.items()},
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
                *(values[part].filter(mask) for values in extra.values()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
