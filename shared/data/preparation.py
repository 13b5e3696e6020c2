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
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.data.arguments import DEFAULT_LABEL_COLUMN, DEFAULT_TEXT_COLUMNS

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
    label_column = find_label_column(
        source.columns, args.label_column, source.name, required=labels_required
    )
    class_names = None if label_column is None else source.class_names.get(label_column)
    encoder = LabelEncoder(args.label_separator, class_names)
    counts = _stream_rows(source, args, label_column, encoder, folder / "rows.arrow")
    with pa.memory_map(str(folder / "rows.arrow")) as file:
        table = pa.ipc.open_stream(file).read_all()
    if not len(table):
        raise UserError(
            f"{source.name}: no text left of {counts['rows_read']:,} rows: "
            f"{counts['pull_requests']:,} are pull requests (--pull_requests keeps them), "
            f"{counts['blank_texts']:,} are blank"
        )

    # 2. Rename and select labels. This comes before duplicates are dropped, because a row whose
    # labels are all left out counts as unlabelled, and a labelled duplicate replaces it.
    names, new_ids = _select_labels(encoder, source, args, label_map, label_names)
    source_labels = RowLabels.from_arrow(table["labels"])
    labels = source_labels.renumber(new_ids)

    # 3. Drop exact duplicates.
    kept, conflicts = _drop_duplicates(
        table["key"].to_numpy(), labels, labels.known(args.empty_labels)
    )
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
            assert label_column is not None  # else find_label_column has raised an error
            raise _no_labels(source, label_column, frequency, args)
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
        "exact_duplicates": int((~kept).sum()),
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


def _missing_column(name: str, columns: Sequence[str], flag: str, source: str) -> UserError:
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"name the right one with {flag}"
    return UserError(f"{source}: no column {name!r} (found: {', '.join(columns)}); {hint}")


# --- the text of a row ---------------------------------------------------------------------------


def join_text(row: dict, columns: Sequence[str]) -> str:
    """Return the text of a row: its text columns, joined by a blank line.

    Columns that are null or blank are left out. Half a surrogate pair is replaced by U+FFFD: JSON
    can hold one, but UTF-8 and tokenizers cannot.

    Raises
    ------
    ValueError : a column holds something other than text.
    """
    parts = []
    for column in columns:
        value = row.get(column)
        if value is None:
            continue
        if not isinstance(value, str):
            raise ValueError(f"column {column!r} holds {_describe_value(value)}, not text")
        if value and not value.isspace():
            parts.append(value)
    text = "\n\n".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 can write half a pair; reading it back replaces the half and keeps whole pairs.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _describe_value(value: Any) -> str:
    """Return the words for a value in an error message."""
    words = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    return words.get(type(value)) or f"{json.dumps(value, default=str)} ({type(value).__name__})"


# --- the labels of a row -------------------------------------------------------------------------


# Class numbers look like this once a table of floats has been written as CSV.
_FRACTION = re.compile(r"nan|[+-]?\d+\.\d*", re.IGNORECASE)


class LabelEncoder:
    """Turn cells of the label column into codes, numbered in order of first appearance.

    Parameters
    ----------
    separator : separates several labels in one string; "" if each string is one label.
    class_names : name of each class number; None if labels are not class numbers.

    Attributes
    ----------
    first_rows : for each code, the 1-based row in which it first occurred.
    """

    def __init__(self, separator: str, class_names: list[str] | None) -> None:
        self.separator = separator
        self.class_names = class_names
        self.first_rows: list[int] = []
        self._codes: dict[str, int] = {}
        self._type: type | None = None  # type of the first label; all others must have it, too

    @property
    def names(self) -> list[str]:
        """Label of each code."""
        return list(self._codes)

    def encode(self, cell: Any, row: int) -> list[int] | None:
        """Return the codes of the labels in a cell; None if the row is unlabelled.

        Raises
        ------
        ValueError : the cell holds something other than labels.
        """
        # Hub data sets write -1 for hidden test labels.
        if cell is None or (cell == -1 and self.class_names):
            return None
        items: list[Any]
        if isinstance(cell, str):
            if cell.startswith(("['", '["')):
                raise ValueError(
                    f"the label {cell[:40]!r} is a printed list; write the labels with "
                    f"{self.separator!r} between them (--label_separator)"
                )
            if _FRACTION.fullmatch(cell.strip()):
                raise ValueError(f"the label is {cell.strip()}; give names or whole numbers")
            items = cell.split(self.separator) if self.separator else [cell]
        else:
            items = cell if isinstance(cell, list) else [cell]
            # Repeated numbers are most likely one 0 or 1 per label, which would be read as ids.
            if len(items) > 1 and type(items[0]) is int and len(set(items)) < len(items):
                raise ValueError(
                    f"labels {str(items)[:40]} repeat; list the names or ids of the labels that "
                    "apply, not a 0 or 1 for each label"
                )
        return [self._code(name, row) for item in items if (name := self._name(item))]

    def _code(self, name: str, row: int) -> int:
        code = self._codes.setdefault(name, len(self._codes))
        if code == len(self.first_rows):  # a new label
            self.first_rows.append(row)
        return code

    def _name(self, item: Any) -> str:
        """Return the name of one label; "" for an empty string, which is no label."""
        if isinstance(item, dict):  # GitHub's label objects
            item = item.get("name")
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise ValueError(f"the label is {_describe_value(item)}; give names or whole numbers")
        if self._type is None:
            self._type = type(item)
        if type(item) is not self._type:
            raise ValueError(
                f"the label is {_describe_value(item)}, but the labels before it are not; "
                "use only names or only whole numbers"
            )
        if isinstance(item, str):
            item = item.strip()
            if not (item and self.class_names):
                return item
            if not item.isdecimal():
                raise ValueError(
                    f"the label is {item[:40]!r}; labels with class names must be whole numbers"
                )
            item = int(item)
        if self.class_names:
            if not 0 <= item < len(self.class_names):
                raise ValueError(
                    f"there is no class {item}; the {len(self.class_names)} classes are numbered "
                    "from 0"
                )
            return self.class_names[item]
        return str(item)


# --- from rows to an Arrow file ------------------------------------------------------------------


# A batch is written once it has this many rows or characters, so that rows of very long texts do
# not fill the memory.
BATCH_ROWS, BATCH_CHARACTERS = 1000, 1 << 24


def _stream_rows(
    source: Source, args: DataArguments, label_column: str | None, encoder: LabelEncoder, path: Path
) -> dict[str, Any]:
    """Write every row that has a text to an Arrow file; return counts of all other rows.

    Columns: text; labels (the encoder's codes; null: unlabelled); row (1-based, in the source);
    key (equal for texts that differ only in white space); words (their number).
    """
    import pyarrow as pa

    text_columns = find_text_columns(source.columns, args.text_columns, source.name)
    columns = list(text_columns)
    if label_column is not None:
        columns.append(label_column)
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
    number, pull_requests = 0, 0
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
                cell = None if label_column is None else row.get(label_column)
                codes = encoder.encode(cell, number)
            except ValueError as error:
                raise UserError(f"{source.name}, row {number}: {error}") from error
            words = text.split()
            if not words:
                blank_rows.append(number)
                continue
            # The key is a hash of the words. It has 64 bits: the probability that two of a million
            # different texts get the same key is below 1 in 10^7.
            key = hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest()
            batch.append((text, codes, number, int.from_bytes(key, "little"), len(words)))
            characters += len(text)
            if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
                flush()
                characters = 0
        if batch:
            flush()
    return {
        "rows_read": number,
        "pull_requests": pull_requests,
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
    source: Source, column: str, frequency: dict[str, int], args: DataArguments
) -> UserError:
    if not frequency:
        return UserError(
            f"{source.name}: no row has a label to learn in column {column!r}; check "
            "--label_column, --label_map and --drop_labels"
        )
    name = max(frequency, key=lambda name: frequency[name])
    return UserError(
        f"{source.name}: no label occurs on {args.min_label_count} rows (--min_label_count); the "
        f"most frequent, {name!r}, occurs on {frequency[name]}"
    )


# --- exact duplicates ----------------------------------------------------------------------------


def _drop_duplicates(
    keys: np.ndarray, labels: RowLabels, labelled: np.ndarray
) -> tuple[np.ndarray, int]:
    """Choose one row of each set of exact duplicates: the first labelled one, else the first.

    Parameters
    ----------
    keys : uint64 array of shape (n,); rows with the same key are duplicates.
    labels : labels of the n rows.
    labelled : bool array of shape (n,).

    Returns
    -------
    kept : bool array of shape (n,).
    conflicts : number of sets of duplicates in which two labelled rows have different labels.
    """
    import numpy as np

    # Sort by key, within a key labelled rows first. The sort is stable, so that rows which agree in
    # both stay in the order of the source, and the row to keep is the first with its key.
    order = np.lexsort((~labelled, keys))
    is_first = np.ones(len(keys), bool)  # whether a row in sorted order is the first with its key
    is_first[1:] = keys[order][1:] != keys[order][:-1]
    kept = np.zeros(len(keys), bool)
    kept[order[is_first]] = True

    # Compare sets of labels by one number each: give every label a random 64-bit number and add
    # those of a row (modulo 2^64). Equal sets have equal sums; different sets have, in practice,
    # different sums.
    label_numbers = np.random.default_rng(0).integers(
        2**64, size=labels.ids.max(initial=0) + 1, dtype=np.uint64
    )
    label_sums = np.zeros(len(keys), np.uint64)
    np.add.at(label_sums, labels.rows, label_numbers[labels.ids])
    # A labelled row conflicts if its sum differs from that of the kept row of its set. If the set
    # has a labelled row, the kept row is labelled, too.
    duplicate_set = np.cumsum(is_first) - 1  # number of the set, per row in sorted order
    kept_sums = label_sums[order[is_first]][duplicate_set]
    differs = labelled[order] & (label_sums[order] != kept_sums)
    return kept, len(np.unique(duplicate_set[differs]))


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
