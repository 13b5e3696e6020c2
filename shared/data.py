"""`--data`: any source of labelled and unlabelled texts as one memory-mapped data set.

Rows are streamed into an Arrow file, and everything after that (labels, duplicates, statistics)
works on its columns, so that a million rows are never held as Python objects. The finished file is
kept in the data sets cache and used again for as long as the source and the flags stay the same.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shared._labels import LabelEncoder, RowLabels, shown
from shared.errors import UserError
from shared.progress import progress
from shared.readers import Source, expand_path, open_source

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

DEFAULT_TEXT_COLUMNS = ("title", "body")
DEFAULT_LABEL_COLUMN = "labels"
NEAR_DUPLICATE = 0.8  # Jaccard similarity of five-word shingles from which texts are alike

CACHE_FORMAT = 2  # raise it whenever the same source and flags lead to another file
BATCH_ROWS, BATCH_CHARACTERS = 1000, 1 << 24


@dataclass
class DataArguments:
    """Flags about data, common to all recipes; a recipe's arguments inherit them."""

    data: str = field(
        default="sample",
        metadata={
            "help": "What to learn from: 'sample' (issues shipped with the project, the default), "
            "a file (.jsonl, .json, .csv, .tsv, each also .gz, or .parquet; GitHub REST JSON is "
            "recognised; $NAME and ~ are filled in), or the id of a hub data set."
        },
    )
    data_config: str | None = field(
        default=None,
        metadata={"help": "Configuration of a hub data set (default: its only one)."},
    )
    data_split: str = field(
        default="train", metadata={"help": "Split of a hub data set (default: train)."}
    )
    column_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the columns of a CSV or TSV file that has no header line "
            "(default: the first line is the header)."
        },
    )
    text_columns: list[str] = field(
        default_factory=lambda: list(DEFAULT_TEXT_COLUMNS),
        metadata={
            "help": "Columns that make up the text, joined by a blank line; blank ones are left "
            "out (default: title body, as far as they exist, else text)."
        },
    )
    label_column: str = field(
        default=DEFAULT_LABEL_COLUMN,
        metadata={
            "help": "Column with the labels of a row: names, whole numbers, a list of these, or "
            "GitHub's label objects (default: labels, else label)."
        },
    )
    label_separator: str = field(
        default=",",
        metadata={
            "help": "What separates several labels in one string; '' if a string is always one "
            "label (default: a comma)."
        },
    )
    label_map: str | None = field(
        default=None,
        metadata={
            "help": "YAML file: a list of the labels to keep, or a mapping from each label to keep "
            "to its new name, several to one if wanted (default: keep all as they are)."
        },
    )
    drop_labels: list[str] = field(
        default_factory=list,
        metadata={"help": "Labels to leave out, by their name after --label_map (default: none)."},
    )
    min_label_count: int = field(
        default=1,
        metadata={"help": "Labels on fewer rows than this are left out (default: 1 row)."},
    )
    pull_requests: bool = field(
        default=False,
        metadata={"help": "Keep GitHub pull requests, not only issues (default: false)."},
    )
    empty_labels: Literal["unlabelled", "negative"] = field(
        default="unlabelled",
        metadata={
            "help": "What an empty list of labels means, also where every label of a row is left "
            "out: 'unlabelled', nobody has looked at the row, or 'negative', none of the labels "
            "applies (default: unlabelled). A null is always unlabelled."
        },
    )
    cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder for prepared data (default: recipes/ in the cache of the datasets "
            "library, which HF_DATASETS_CACHE moves)."
        },
    )


@dataclass(frozen=True)
class Corpus:
    """Texts, their labels, and what was found out while reading them.

    Attributes
    ----------
    dataset : memory-mapped `datasets.Dataset` of n rows in the order of the source, with columns
        `text` (string); `labels` (sorted list of ClassLabel; null: unlabelled, empty: none of the
        labels applies); `row` (int64, 1-based row in the source); `group` (int64, the same for
        near duplicates); `words` (int32, words of the text).
    report : counts of what was read, kept and left out, as plain JSON values.
    """

    dataset: Dataset
    report: dict[str, Any]

    @property
    def label_names(self) -> list[str]:
        """Name of each label id."""
        return self.dataset.features["labels"].feature.names

    @cached_property
    def labelled(self) -> np.ndarray:
        """int64 indices of the rows that have labels (or are known to have none)."""
        return self._rows(labelled=True)

    @cached_property
    def unlabelled(self) -> np.ndarray:
        """int64 indices of the rows nobody has labelled."""
        return self._rows(labelled=False)

    @cached_property
    def groups(self) -> np.ndarray:
        """int64 array of shape (n,): near-duplicate group of each row, for splitters."""
        return self.dataset.data["group"].to_numpy()

    def _rows(self, labelled: bool) -> np.ndarray:
        import numpy as np

        return np.flatnonzero(self.dataset.data["labels"].is_valid().to_numpy() == labelled)

    def label_matrix(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Multi-hot labels.

        Parameters
        ----------
        rows : indices into `dataset`, in any order (default: all). Unlabelled rows come out as
            zeros, so pass `labelled` or a part of it.

        Returns
        -------
        uint8 array of shape (rows, labels).
        """
        import numpy as np
        import pyarrow.compute as pc

        labels = self.dataset.data["labels"]
        if rows is not None:
            labels = labels.take(np.asarray(rows, np.int64))
        lengths = pc.list_value_length(labels).fill_null(0).to_numpy()
        matrix = np.zeros((len(labels), len(self.label_names)), np.uint8)
        matrix[np.repeat(np.arange(len(labels)), lengths), pc.list_flatten(labels).to_numpy()] = 1
        return matrix

    def labelled_outside(self, others: Sequence[Corpus]) -> np.ndarray:
        """Labelled rows without a near duplicate in other data sets.

        What the test holds must not be trained or tuned on.

        Returns
        -------
        int64 indices, a part of `labelled`.
        """
        import numpy as np
        import pyarrow as pa

        from shared.duplicates import near_duplicate_groups

        if not others:
            return self.labelled
        chunks = [chunk for c in (self, *others) for chunk in c.dataset.data["text"].chunks]
        groups = near_duplicate_groups(pa.chunked_array(chunks), threshold=NEAR_DUPLICATE)
        own, other = np.split(groups, [len(self.dataset)])
        return self.labelled[~np.isin(own[self.labelled], other)]

    def describe(self, *, brief: bool = False) -> str:
        """Summary of the report in about ten lines; brief: what was read and what left out."""
        r = self.report
        rows = ", ".join(map(str, r["first_blank_rows"]))
        rows += ", ..." if r["blank_texts"] > len(r["first_blank_rows"]) else ""
        left_out = _counts(
            {
                "pull requests": r["pull_requests"],
                f"blank texts (rows {rows})": r["blank_texts"],
                "exact duplicates": r["exact_duplicates"],
            }
        )
        conflicts = _counts(
            {"sets of exact duplicates with different labels": r["label_conflicts"]}
        )
        words, labels = r["words"], r["labels"]
        per_text = sum(labels.values()) / max(r["labelled"], 1)
        lines = [
            f"{r['source']}: {r['rows_read']:,} rows read"
            + (f"; left out: {', '.join(left_out)}" if left_out else ""),
            f"{r['rows']:,} texts: {r['labelled']:,} labelled, {r['unlabelled']:,} unlabelled "
            f"({r['unlabelled'] / r['rows']:.0%})",
            f"words per text: median {words['p50']:,.0f}, 5% at most {words['p5']:,.0f}, "
            f"95% at most {words['p95']:,.0f}, longest {words['max']:,.0f}",
            f"near duplicates: {r['near_duplicates']:,} texts in {r['near_duplicate_groups']:,} "
            "groups, each kept on one side of a split",
            *conflicts,
            f"{len(labels)} labels, {per_text:.2f} per labelled text, two or more on "
            f"{r['multilabel']:,} texts:",
            _wrapped(labels, 20),
        ]
        if brief:
            lines = lines[:2]
        if r["labels_left_out"]:
            lines += [f"{len(r['labels_left_out'])} labels left out:"]
            lines += [_wrapped(r["labels_left_out"], 10)]
        return "\n".join(lines)


def _counts(numbers: dict[str, int]) -> list[str]:
    return [f"{name} {number:,}" for name, number in numbers.items() if number]


def _wrapped(numbers: dict[str, int], most: int) -> str:
    """The largest numbers with their names, indented, no name broken over two lines."""
    largest = dict(sorted(numbers.items(), key=lambda item: -item[1])[:most])
    items = [item.replace(" ", "\u00a0") for item in _counts(largest)]
    if len(numbers) > most:
        items.append(f"and {len(numbers) - most:,} more")
    text = textwrap.fill(
        ", ".join(items), 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return text.replace("\u00a0", " ")


def load_data(args: DataArguments, *, label_names: Sequence[str] | None = None) -> Corpus:
    """Read what `args.data` names, or take it from the cache.

    In order: pull requests and blank texts are left out; labels are renamed and selected
    (`label_map`), then dropped (`drop_labels`); of texts that are equal but for white space the
    first labelled one stays; labels on too few of the remaining rows are left out
    (`min_label_count`); near duplicates are grouped (see `shared.duplicates`).

    Label ids follow the order of `label_map`, else that of the hub data set's classes, else the
    names sorted (whole numbers by value).

    Parameters
    ----------
    args : the flags; only those of `DataArguments` matter.
    label_names : names that label ids must follow, those of a trained model. Then
        `min_label_count` does not apply, and a label that is not among them is an error.

    Raises
    ------
    UserError : whatever is wrong with the flags, the file, a row or a label, in one line.
    """
    import datasets

    if args.min_label_count < 1:
        raise UserError(f"--min_label_count {args.min_label_count}: must be at least 1")
    source = open_source(
        args.data, column_names=args.column_names, config=args.data_config, split=args.data_split
    )
    label_map = _read_label_map(args.label_map) if args.label_map else None
    folder = Path(args.cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "recipes")
    stem = Path(source.name).name.split(".")[0]
    path = folder / f"{stem}-{_cache_key(source, args, label_map, label_names)}.arrow"
    corpus = _open_prepared(path)
    if corpus is not None:
        return corpus
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Prepared beside its final place and renamed at the end: a file with the final name is
        # whole, however many processes prepare it at once and whatever stops them.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            prepared = _prepare(source, args, label_map, label_names, Path(scratch))
            os.replace(prepared, path)
    except OSError as error:
        raise UserError(
            f"--cache_dir {folder}: cannot be written ({error.strerror or error}); "
            "free some space or name another folder"
        ) from error
    return _open_prepared(path)


def load_held_out(data: str, args: DataArguments, corpus: Corpus) -> Corpus:
    """Read a validation or test file of its own, with the labels that `corpus` has.

    Labels left out of `corpus`, by a flag or because they are too rare, are left out here as well.

    Raises
    ------
    UserError : as `load_data`.
    """
    # By their name in the file; one that another label was renamed to stays.
    absent = [name for name in corpus.report["labels_left_out"] if name not in corpus.label_names]
    args = replace(args, data=data, drop_labels=[*args.drop_labels, *absent])
    return load_data(args, label_names=corpus.label_names)


def find_text_columns(columns: Sequence[str], args: DataArguments, source: str) -> list[str]:
    """The columns of a source that make up its texts.

    Raises
    ------
    UserError : a column of `args.text_columns` is not among `columns`.
    """
    wanted = args.text_columns
    if wanted == list(DEFAULT_TEXT_COLUMNS):
        found = [name for name in wanted if name in columns]
        wanted = found or (["text"] if "text" in columns else wanted)
    for name in wanted:
        if name not in columns:
            raise _missing_column(name, columns, "--text_columns", source)
    return wanted


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


def _find_label_column(args: DataArguments, source: Source) -> str:
    names = [args.label_column]
    if args.label_column == DEFAULT_LABEL_COLUMN:
        names.append("label")
    for name in names:
        if name in source.columns:
            return name
    raise _missing_column(args.label_column, source.columns, "--label_column", source.name)


def _read_label_map(path: str) -> dict[str, str]:
    """Old name -> new name of the labels to keep."""
    import yaml

    try:
        content = yaml.safe_load(expand_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--label_map {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--label_map {path}: not valid YAML: {reason}") from error
    if not isinstance(content, (list, dict)) or not content:
        raise UserError(f"--label_map {path}: expected a list of labels or a mapping old: new")
    new_names = content.values() if isinstance(content, dict) else content
    for name in (*content, *new_names):
        # YAML reads an unquoted yes, no or null as something else than a name.
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise UserError(f"--label_map {path}: {name!r} is not a label name; put it in quotes")
    return {str(old): str(new) for old, new in zip(content, new_names, strict=True)}


def _cache_key(source: Source, args: DataArguments, label_map, label_names) -> str:
    """Changes whenever the prepared data would."""
    key = [
        CACHE_FORMAT,
        source.name,
        source.version,
        args.column_names,
        args.text_columns,
        args.label_column,
        args.label_separator,
        list(label_map.items()) if label_map else None,
        args.drop_labels,
        args.min_label_count,
        args.pull_requests,
        args.empty_labels,
        label_names and list(label_names),
    ]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _open_prepared(path: Path) -> Corpus | None:
    """The prepared file, memory-mapped; None if there is none or it is damaged."""
    import pyarrow as pa
    from datasets import Dataset

    try:
        with pa.memory_map(str(path)) as file:
            report = json.loads(pa.ipc.open_stream(file).schema.metadata[b"report"])
        dataset = Dataset.from_file(str(path))
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    return Corpus(dataset, report) if len(dataset) == report["rows"] else None


def _prepare(
    source: Source,
    args: DataArguments,
    label_map: dict[str, str] | None,
    label_names: Sequence[str] | None,
    folder: Path,
) -> Path:
    """Write the finished Arrow file into `folder` and return its path."""
    import numpy as np
    import pyarrow as pa

    from shared.duplicates import near_duplicate_groups

    label_column = _find_label_column(args, source)
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
        if not names:
            raise _no_labels(source, label_column, frequency, args)
        left_out |= {name: n for name, n in frequency.items() if name not in names}
        position = {name: new for new, name in enumerate(names)}
        labels = labels.renumber(np.array([position.get(name, -1) for name in frequency]))
    known = labels.known(args.empty_labels)

    groups = near_duplicate_groups(table["text"], threshold=NEAR_DUPLICATE)[kept]
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
    source: Source, args: DataArguments, label_column: str, encoder: LabelEncoder, path: Path
) -> dict[str, Any]:
    """Write every row that has a text to an Arrow file; return the counts of those that do not.

    Columns: text; labels (the encoder's codes; null for unlabelled); row (1-based, in the source);
    key (the same for texts that are equal but for white space); words (their number).
    """
    import pyarrow as pa

    text_columns = find_text_columns(source.columns, args, source.name)
    columns = [*text_columns, label_column]
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
                    f"{source.name}, row {row}: the model does not know the label {name!r} (it "
                    f"knows {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}); leave "
                    "it out with --drop_labels or rename it with --label_map"
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
