"""From the rows of a source to one Arrow file: texts, labels, duplicates, statistics.

Rows are streamed into an Arrow file, and everything after that works on its columns, so that a
million rows are never held as Python objects.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
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


# --- columns and texts ---------------------------------------------------------------------------


def find_text_columns(columns: Sequence[str], wanted: list[str], source: str) -> list[str]:
    """The columns of a source that make up its texts; `wanted`, unless that is the default.

    Raises
    ------
    UserError : a column of `wanted` is not among `columns`.
    """
    if wanted == list(DEFAULT_TEXT_COLUMNS):
        found = [name for name in wanted if name in columns]
        wanted = found or (["text"] if "text" in columns else wanted)
    for name in wanted:
        if name not in columns:
            raise _missing_column(name, columns, "--text_columns", source)
    return wanted


def find_label_column(
    columns: Sequence[str], wanted: str, source: str, *, required: bool = True
) -> str | None:
    """The column of a source that holds its labels; `wanted`, unless that is the default.

    None where the default is not there and none is required.

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


def join_text(row: dict, columns: Sequence[str]) -> str:
    """Text of a row: its text columns, joined by a blank line; null and blank ones left out.

    Half a surrogate pair, which JSON can hold but UTF-8 and tokenizers cannot, becomes U+FFFD.

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
            raise ValueError(f"column {column!r} holds {shown(value)}, not text")
        if value and not value.isspace():
            parts.append(value)
    text = "\n\n".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _missing_column(name: str, columns: Sequence[str], flag: str, source: str) -> UserError:
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"name the right one with {flag}"
    return UserError(f"{source}: no column {name!r} (found: {', '.join(columns)}); {hint}")


# --- labels --------------------------------------------------------------------------------------


# What class numbers turn into when a table of floats is written as CSV.
_FRACTION = re.compile(r"nan|[+-]?\d+\.\d*", re.IGNORECASE)


def shown(value: Any) -> str:
    """A value as an error message names it."""
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    return kinds.get(type(value)) or f"{json.dumps(value, default=str)} ({type(value).__name__})"


class LabelEncoder:
    """Turns cells of the label column into codes, numbered in order of appearance."""

    def __init__(self, separator: str, class_names: list[str] | None) -> None:
        self.separator = separator
        self.class_names = class_names
        self.first_rows: list[int] = []  # row in which each code was met first
        self._codes: dict[str, int] = {}
        self._type: type | None = None

    @property
    def names(self) -> list[str]:
        """Label of each code."""
        return list(self._codes)

    def encode(self, cell: Any, row: int) -> list[int] | None:
        """Codes of the labels in a cell; None where the row is unlabelled."""
        if cell is None or (cell == -1 and self.class_names):  # -1: the hub's hidden test labels
            return None
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
            if len(items) > 1 and type(items[0]) is int and len(set(items)) < len(items):
                raise ValueError(f"labels {str(items)[:40]} repeat; give names or ids, not 0 and 1")
        return [self._code(name, row) for item in items if (name := self._name(item))]

    def _code(self, name: str, row: int) -> int:
        code = self._codes.setdefault(name, len(self._codes))
        if code == len(self.first_rows):
            self.first_rows.append(row)
        return code

    def _name(self, item: Any) -> str:
        if isinstance(item, dict):  # GitHub's label objects
            item = item.get("name")
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise ValueError(f"the label is {shown(item)}; give names or whole numbers")
        if self._type is None:
            self._type = type(item)
        if type(item) is not self._type:
            raise ValueError(
                f"the label is {shown(item)}, those before it are not; "
                "give names throughout, or whole numbers throughout"
            )
        if isinstance(item, str):
            item = item.strip()
            if not (item and self.class_names):
                return item
            if not item.isdecimal():
                raise ValueError(f"the label is {item[:40]!r}; with class names give numbers")
            item = int(item)
        if self.class_names:
            if not 0 <= item < len(self.class_names):
                raise ValueError(f"there is no class {item} among {len(self.class_names)}")
            return self.class_names[item]
        return str(item)


@dataclass(frozen=True)
class RowLabels:
    """Labels of n rows as pairs (row, id), sorted, each pair once.

    `listed` (bool, n) tells an empty list of labels from none at all.
    """

    rows: np.ndarray
    ids: np.ndarray
    listed: np.ndarray

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> RowLabels:
        import numpy as np
        import pyarrow.compute as pc

        lengths = pc.list_value_length(column).fill_null(0).to_numpy()
        rows = np.repeat(np.arange(len(column)), lengths)
        ids = pc.list_flatten(column).to_numpy().astype(np.int64)
        return cls(rows, ids, column.is_valid().to_numpy()).renumber(
            np.arange(ids.max(initial=-1) + 1)
        )

    def renumber(self, new_ids: np.ndarray) -> RowLabels:
        """Give each id its new one; -1 removes it."""
        import numpy as np

        n_labels = new_ids.max(initial=0) + 1
        ids = new_ids[self.ids]
        pairs = np.unique((self.rows * n_labels + ids)[ids >= 0])
        return RowLabels(*np.divmod(pairs, n_labels), self.listed)

    def known(self, empty_labels: str) -> np.ndarray:
        """Which rows are labelled (bool, n)."""
        import numpy as np

        some = np.zeros(len(self.listed), bool)
        some[self.rows] = True
        return some | self.listed if empty_labels == "negative" else some

    def count(self, kept: np.ndarray, n_labels: int) -> list[int]:
        """Number of kept rows per label."""
        import numpy as np

        return np.bincount(self.ids[kept[self.rows]], minlength=n_labels).tolist()

    def to_arrow(self, known: np.ndarray) -> pa.ListArray:
        """A list of ids per row, null where not known."""
        import numpy as np
        import pyarrow as pa

        lengths = np.bincount(self.rows, minlength=len(known))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, self.ids, mask=pa.array(~known))


# --- preparation ---------------------------------------------------------------------------------


BATCH_ROWS, BATCH_CHARACTERS = 1000, 1 << 24


def prepare(
    source: Source,
    args: DataArguments,
    label_map: dict[str, str] | None,
    label_names: Sequence[str] | None,
    folder: Path,
    *,
    labels_required: bool = True,
) -> Path:
    """Write the finished Arrow file into `folder` and return its path."""
    import numpy as np
    import pyarrow as pa

    from shared.data.near_duplicates import near_duplicate_groups

    label_column = find_label_column(
        source.columns, args.label_column, source.name, required=labels_required
    )
    encoder = LabelEncoder(args.label_separator, source.class_names.get(label_column))
    counts = _stream_rows(source, args, label_column, encoder, folder / "rows.arrow")
    with pa.memory_map(str(folder / "rows.arrow")) as file:
        table = pa.ipc.open_stream(file).read_all()
    if not len(table):
        raise UserError(
            f"{source.name}: no text left of {counts['rows_read']:,} rows: "
            f"{counts['pull_requests']:,} are pull requests (--pull_requests keeps them), "
            f"{counts['blank_texts']:,} are blank"
        )
    in_file = RowLabels.from_arrow(table["labels"])
    names, new_ids = _select_labels(encoder, source, args, label_map, label_names)
    labels = in_file.renumber(new_ids)
    kept, conflicts = _drop_duplicates(
        table["key"].to_numpy(), labels, labels.known(args.empty_labels)
    )
    if len(kept) > 1 and kept.sum() == 1:
        raise UserError(f"{source.name}: all {len(kept):,} texts are the same; nothing to learn")
    left_out = {
        name: count
        for name, count, new in zip(
            encoder.names, in_file.count(kept, len(new_ids)), new_ids, strict=True
        )
        if new < 0
    }
    frequency = dict(zip(names, labels.count(kept, len(names)), strict=True))
    if label_names is None:
        names = [name for name in names if frequency[name] >= args.min_label_count]
        if not names and labels_required:
            raise _no_labels(source, label_column, frequency, args)
        left_out |= {name: n for name, n in frequency.items() if name not in names}
        position = {name: new for new, name in enumerate(names)}
        new_ids = np.array([position.get(name, -1) for name in frequency], np.int64)
        labels = labels.renumber(new_ids)
    known = labels.known(args.empty_labels)

    groups = near_duplicate_groups(table["text"])[kept]
    groups = np.unique(groups, return_inverse=True)[1]
    group_sizes = np.bincount(groups)
    words = table["words"].to_numpy()[kept]
    quantiles = np.percentile(words, [5, 25, 50, 75, 95]).tolist()
    report = {
        "source": source.name,
        **counts,
        "exact_duplicates": int((~kept).sum()),
        "label_conflicts": conflicts,
        "rows": int(kept.sum()),
        "labelled": int(known[kept].sum()),
        "unlabelled": int((~known[kept]).sum()),
        "multilabel": int((np.bincount(labels.rows, minlength=len(kept))[kept] > 1).sum()),
        "near_duplicates": int(group_sizes[group_sizes > 1].sum()),
        "near_duplicate_groups": int((group_sizes > 1).sum()),
        "words": dict(zip(("p5", "p25", "p50", "p75", "p95"), quantiles, strict=True))
        | {"max": int(words.max())},
        "labels": {name: frequency[name] for name in names},
        "labels_left_out": left_out,
    }
    _write(folder / "prepared.arrow", table, kept, labels.to_arrow(known), groups, names, report)
    return folder / "prepared.arrow"


def _stream_rows(
    source: Source, args: DataArguments, label_column: str | None, encoder: LabelEncoder, path: Path
) -> dict[str, Any]:
    """Write every row that has a text to an Arrow file; return the counts of those that do not.

    Columns: text; labels (the encoder's codes; null for unlabelled); row (1-based, in the source);
    key (the same for texts that are equal but for white space); words (their number).
    """
    import pyarrow as pa

    text_columns = find_text_columns(source.columns, args.text_columns, source.name)
    columns = [*text_columns, *([label_column] if label_column else [])]
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
    number, pull_requests, blank = 0, 0, []
    batch, characters = [], 0
    rows = progress(source.read(list(dict.fromkeys(columns))), "reading")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:

        def flush() -> None:
            values = zip(*batch, strict=True)
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
                labels = encoder.encode(row.get(label_column), number)
            except ValueError as error:
                raise UserError(f"{source.name}, row {number}: {error}") from error
            words = text.split()
            if not words:
                blank.append(number)
                continue
            # 64 bits: among a million texts, two different ones meet with a chance of 1 in 10^7.
            key = hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest()
            batch.append((text, labels, number, int.from_bytes(key, "little"), len(words)))
            characters += len(text)
            if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
                flush()
                characters = 0
        if batch:
            flush()
    return {
        "rows_read": number,
        "pull_requests": pull_requests,
        "blank_texts": len(blank),
        "first_blank_rows": blank[:5],
    }


def _is_pull_request(row: dict) -> bool:
    """GitHub's REST JSON marks a pull request by an object; a column of Parquet has it null."""
    value = row.get("pull_request")
    return isinstance(value, dict) and any(part is not None for part in value.values())


def _select_labels(
    encoder: LabelEncoder,
    source: Source,
    args: DataArguments,
    label_map: dict[str, str] | None,
    label_names: Sequence[str] | None,
) -> tuple[list[str], np.ndarray]:
    """Names of the labels to keep, in order, and for each code its index there, else -1."""
    import numpy as np

    old_names = encoder.names
    if label_map is None:
        new_names = old_names
    else:
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
        names = list(label_names)
        for name, row in zip(new_names, encoder.first_rows, strict=True):
            if name is not None and name not in names:
                raise UserError(
                    f"{source.name}, row {row}: the label {name!r} is none of those asked for "
                    f"({', '.join(names[:10])}{', ...' if len(names) > 10 else ''}); leave it out "
                    "with --drop_labels or rename it with --label_map"
                )
    elif label_map is not None:
        names = [name for name in dict.fromkeys(label_map.values()) if name in present]
    elif encoder.class_names:
        names = [name for name in encoder.class_names if name in present]
    elif all(name.isdecimal() for name in present):
        names = sorted(present, key=int)
    else:
        names = sorted(present)
    position = {name: index for index, name in enumerate(names)}
    return names, np.array([position.get(name, -1) for name in new_names], np.int64)


def _no_labels(
    source: Source, column: str, frequency: dict[str, int], args: DataArguments
) -> UserError:
    if not frequency:
        return UserError(
            f"{source.name}: no row has a label to learn in column {column!r}; look at "
            "--label_column, --label_map and --drop_labels"
        )
    name = max(frequency, key=frequency.get)
    return UserError(
        f"{source.name}: no label is on {args.min_label_count} rows (--min_label_count); the most "
        f"frequent, {name!r}, is on {frequency[name]}"
    )


def _drop_duplicates(
    keys: np.ndarray, labels: RowLabels, labelled: np.ndarray
) -> tuple[np.ndarray, int]:
    """Of the rows with the same key keep the first labelled one, else the first.

    Returns which rows are kept (bool, n), and in how many sets of duplicates labels disagree.
    """
    import numpy as np

    order = np.lexsort((~labelled, keys))  # stable: equal ones stay in the order of the rows
    new = np.ones(len(keys), bool)
    new[1:] = keys[order][1:] != keys[order][:-1]
    kept = np.zeros(len(keys), bool)
    kept[order[new]] = True

    # A sum of random numbers, one per label, tells sets of labels apart.
    number = np.random.default_rng(0).integers(
        2**64, size=labels.ids.max(initial=0) + 1, dtype=np.uint64
    )
    label_set = np.zeros(len(keys), np.uint64)
    np.add.at(label_set, labels.rows, number[labels.ids])
    duplicate_set = np.cumsum(new) - 1
    differs = labelled[order] & (label_set[order] != label_set[order[new]][duplicate_set])
    return kept, len(np.unique(duplicate_set[differs]))


def _write(
    path: Path,
    table: pa.Table,
    kept: np.ndarray,
    labels: pa.ListArray,
    groups: np.ndarray,
    names: list[str],
    report: dict[str, Any],
) -> None:
    """Write the kept rows, batch by batch, with the report in the metadata."""
    import pyarrow as pa
    from datasets import ClassLabel, Features, List, Value

    features = Features(
        {
            "text": Value("string"),
            "labels": List(ClassLabel(names=names)),
            "row": Value("int64"),
            "group": Value("int64"),
            "words": Value("int32"),
        }
    )
    schema = features.arrow_schema
    schema = schema.with_metadata(schema.metadata | {b"report": json.dumps(report).encode()})
    start, written = 0, 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in table.to_batches():
            part = slice(start, start := start + len(batch))
            here = pa.array(kept[part])
            rows = batch["row"].filter(here)
            columns = [
                batch["text"].filter(here),
                labels[part].filter(here),
                rows,
                pa.array(groups[written : (written := written + len(rows))]),
                batch["words"].filter(here),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
