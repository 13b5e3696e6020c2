"""Pairs of texts, such as a sentence and its translation or a body and its title, and their split.

A model reads the source of a pair and writes the target. The two come from two columns of a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.data.arguments import DataArguments, SplitColumnArguments, check_split_flags
from shared.data.columns import find_split_column, missing_column
from shared.data.documents import split_groups, split_groups_by_column
from shared.data.preparation import cell_as_text, is_pull_request, join_counts
from shared.data.readers import open_data
from shared.data.split_columns import PARTS, SplitMethod, split_values

# Columns that are taken without a flag, the first pair that a file has.
USUAL_COLUMNS = (("source", "target"), ("body", "title"))


@dataclass
class PairArguments(SplitColumnArguments, DataArguments):
    """Flags of recipes that read and split pairs. `seed` is a flag of `TrainingArguments`."""

    source_column: str | None = flag(
        None, "Column with the texts to read (default: source, else body)."
    )
    target_column: str | None = flag(
        None,
        "Column with the texts to write; of a list, the first is learned and all count as right "
        "in the evaluation (default: target, else title).",
    )
    valid_data: str | None = flag(
        None, "File with the validation pairs, in the form of --data (default: a part of --data)."
    )
    test_data: str | None = flag(
        None, "File with the test pairs, in the form of --data (default: a part of --data)."
    )
    valid_size: float = flag(
        0.1, "Share of the pairs for validation; 0: none (default: .1).", least=0, below=1
    )
    test_size: float = flag(
        0.1, "Share of the pairs for the test; 0: none (default: .1).", least=0, below=1
    )
    drop_repeated: bool = flag(
        True,
        "Leave out training pairs whose source nearly repeats a validation or test pair, and such "
        "validation pairs of test pairs. Use false only to compare with published results "
        "(default: true).",
    )


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts, divided into parts.

    Attributes
    ----------
    sources : dict of "train", "valid" and "test" to the texts to read
    references : dict of the same parts to the right texts of each source, one or several
    source : what was read, in a line.
    columns : the names of the two columns.
    notes : what was left out, in a line each.
    method : how the pairs were divided.
    """

    sources: dict[str, list[str]]
    references: dict[str, list[list[str]]]
    source: str
    columns: tuple[str, str]
    notes: list[str]
    method: SplitMethod

    def targets(self, part: str) -> list[str]:
        """Return the text to write for each source of a part: its first reference."""
        return [texts[0] for texts in self.references[part]]

    def describe(self) -> str:
        """Return the source, the sizes of the parts, and the notes, a line each."""
        counts = {part: len(texts) for part, texts in self.sources.items()}
        sizes = ", ".join(f"{part} {count:,}" for part, count in counts.items())
        of, to = self.columns
        lines = [f"{self.source}: {of} -> {to}; {sizes} pairs", *self.notes]
        if self.method.column:
            lines.append(self.method.describe(counts, "pairs"))
        return "\n".join(lines)


def load_pairs(args: Any) -> Pairs:
    """Read and split the pairs that `args.data` names.

    Pairs that lack a text are left out, and so are repeated pairs. In a random split, pairs with
    equal or nearly equal sources stay on one side. Of a pair that a column of parts or times has
    several times, the one of the latest part or time stays.

    Parameters
    ----------
    args : PairArguments
        With a flag `seed`: the same seed gives the same random split.

    Raises
    ------
    UserError
        If a file cannot be read or lacks a column, or there are too few pairs for all parts.
    """
    check_split_flags(args)
    files = {"valid": args.valid_data, "test": args.test_data}
    sizes = [0.0 if files[part] else getattr(args, f"{part}_size") for part in ("valid", "test")]
    if sum(sizes) >= 1:
        raise UserError(
            f"--valid_size {args.valid_size}, --test_size {args.test_size}: leave nothing to learn "
            "from; lower them"
        )
    read = {"train": _read(args)}
    read |= {part: _read(replace_data(args, path)) for part, path in files.items() if path}
    notes = [note for pairs in read.values() for note in pairs.notes]
    parts = {part: pairs.rows for part, pairs in read.items()}
    if args.drop_repeated:
        for part, others in (("train", ("valid", "test")), ("valid", ("test",))):
            held_out = [row for other in others if other in read for row in parts[other]]
            if part in read and held_out:
                kept = _without_repeats(parts[part], held_out)
                if n := len(parts[part]) - len(kept):
                    notes.append(f"left out: {n:,} {part} pairs that repeat a held-out source")
                parts[part] = kept
    method = SplitMethod("files" if any(files.values()) else "random")
    rows = parts["train"]
    if any(sizes):
        from shared.data.near_duplicates import near_duplicate_groups

        groups = near_duplicate_groups([row[0] for row in rows])
        values = read["train"].values
        if values is None:
            drawn = dict(zip(PARTS, split_groups(groups, sizes, seed=args.seed), strict=True))
        else:
            method, drawn, note = split_groups_by_column(
                args, values, groups, drop_repeated=args.drop_repeated, unit="pairs"
            )
            notes += [note] * bool(note)
        for part, chosen in drawn.items():
            if part not in files or not files[part]:
                parts[part] = [rows[i] for i in chosen]
    if not parts["train"]:
        raise UserError(f"{args.data}: no pair is left to learn from")
    return Pairs(
        {part: [source for source, _ in parts.get(part, [])] for part in PARTS},
        {part: [targets for _, targets in parts.get(part, [])] for part in PARTS},
        "; ".join(pairs.source for pairs in read.values()),
        read["train"].columns,
        notes,
        method,
    )


def replace_data(args: Any, path: str) -> Any:
    """Return flags that read another file in the form of ``--data``."""
    own = {name: getattr(args, name) for name in PairArguments.__dataclass_fields__}
    return replace(PairArguments(**own), data=path)


@dataclass(frozen=True)
class _File:
    """The pairs of a file: a source and its references each; and their parts or times, if any."""

    rows: list[tuple[str, list[str]]]
    columns: tuple[str, str]
    source: str
    notes: list[str]
    values: np.ndarray | None


def _read(args: Any) -> _File:
    """Read the pairs of ``args.data`` in their order, each once."""
    source = open_data(args)
    columns = _columns(args, source.columns, source.name)
    split_column = find_split_column(source, args)
    wanted = [*columns, *([split_column] if split_column else [])]
    wanted += ["pull_request"] if "pull_request" in source.columns else []
    # Each pair, with its part or time as text, and its first row.
    pairs: dict[tuple[tuple[str, ...], str | None], int] = {}
    left_out: Counter[str] = Counter(repeated=0)
    rows = progress(source.read(wanted, list(columns)), "reading pairs", unit="rows")
    n_rows, n_pairs = 0, 0
    for n_rows, row in enumerate(rows, 1):
        if not args.pull_requests and is_pull_request(row):
            left_out["pull requests"] += 1
            continue
        text = cell_as_text(row.get(columns[0]))
        cell = row.get(columns[1])
        targets = [cell_as_text(value) for value in (cell if isinstance(cell, list) else [cell])]
        references = [target for target in targets if target]
        if text is None or not references:
            left_out[f"without {columns[0] if text is None else columns[1]}"] += 1
            continue
        cell = cell_as_text(row.get(split_column)) if split_column else None
        pairs.setdefault(((text, *references), cell), n_rows)
        n_pairs += 1
    if not pairs:
        raise UserError(
            f"{source.name}: none of {n_rows:,} rows has a text in both columns, {columns[0]} and "
            f"{columns[1]}"
        )
    notes, values = list(source.notes), None
    kept = list(range(len(pairs)))
    if split_column:
        cells = [cell for _, cell in pairs]
        values, more = split_values(args, cells, [*pairs.values()], source.name, source.place)
        notes += more
        order = np.argsort(values, kind="stable").tolist()
        texts = [pair for pair, _ in pairs]
        kept = sorted({texts[i]: i for i in order}.values())  # the last one in this order
        values = values[kept]
    left_out["repeated"] = n_pairs - len(kept)
    if any(left_out.values()):
        notes.append(f"{source.name}: left out {join_counts(+left_out)}")
    every = [(text, list(references)) for (text, *references), _ in pairs]
    about = f"{source.name}: {len(kept):,} of {n_rows:,} rows"
    return _File([every[i] for i in kept], columns, about, notes, values)


def _columns(args: Any, columns: Sequence[str], source: str) -> tuple[str, str]:
    """Return the names of the two columns: those of the flags, else the usual ones."""
    usual = next((pair for pair in USUAL_COLUMNS if set(pair) <= set(columns)), (None, None))
    chosen = []
    for name, default in zip(("source_column", "target_column"), usual, strict=True):
        column = getattr(args, name) or default
        if column is None:
            raise UserError(
                f"{source}: which column has the texts to "
                f"{'read' if name == 'source_column' else 'write'}? Name it with --{name}; there "
                f"are {', '.join(columns)}"
            )
        if column not in columns:
            raise missing_column(column, columns, f"--{name}", source)
        chosen.append(column)
    if chosen[0] == chosen[1]:
        raise UserError(f"--source_column, --target_column: both are {chosen[0]}")
    return chosen[0], chosen[1]


def _without_repeats(
    rows: list[tuple[str, list[str]]], held_out: list[tuple[str, list[str]]]
) -> list[tuple[str, list[str]]]:
    """Return the pairs whose source has no near duplicate among those held out."""
    import pyarrow as pa

    from shared.data.near_duplicates import repeats

    texts, others = (
        pa.chunked_array([pa.array([source for source, _ in pairs], pa.string())])
        for pairs in (rows, held_out)
    )
    is_repeat = repeats(texts, others)
    return [rows[i] for i in np.flatnonzero(~is_repeat)]
