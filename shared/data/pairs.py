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
from shared.data.arguments import DataArguments
from shared.data.columns import missing_column
from shared.data.documents import PARTS, split_groups
from shared.data.preparation import cell_as_text, is_pull_request, join_counts
from shared.data.readers import open_data

# Columns that are taken without a flag, the first pair that a file has.
USUAL_COLUMNS = (("source", "target"), ("body", "title"))


@dataclass
class PairArguments(DataArguments):
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
        "Leave out training pairs whose source nearly repeats one of --valid_data or --test_data, "
        "and such validation pairs of --test_data. Use false only to compare with published "
        "results (default: true).",
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
    """

    sources: dict[str, list[str]]
    references: dict[str, list[list[str]]]
    source: str
    columns: tuple[str, str]
    notes: list[str]

    def targets(self, part: str) -> list[str]:
        """Return the text to write for each source of a part: its first reference."""
        return [texts[0] for texts in self.references[part]]

    def describe(self) -> str:
        """Return the source, the sizes of the parts, and the notes, a line each."""
        sizes = ", ".join(f"{part} {len(texts):,}" for part, texts in self.sources.items())
        of, to = self.columns
        return "\n".join([f"{self.source}: {of} -> {to}; {sizes} pairs", *self.notes])


def load_pairs(args: Any) -> Pairs:
    """Read and split the pairs that `args.data` names.

    Pairs that lack a text are left out, and so are repeated pairs. In a random split, pairs with
    equal or nearly equal sources stay on one side.

    Parameters
    ----------
    args : PairArguments
        With a flag `seed`: the same seed gives the same random split.

    Raises
    ------
    UserError
        If a file cannot be read or lacks a column, or there are too few pairs for all parts.
    """
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
    if any(sizes):
        from shared.data.near_duplicates import near_duplicate_groups

        groups = near_duplicate_groups([row[0] for row in parts["train"]])
        drawn = split_groups(groups, sizes, seed=args.seed)
        rows = parts["train"]
        for part, chosen in zip(PARTS, drawn, strict=True):
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
    )


def replace_data(args: Any, path: str) -> Any:
    """Return flags that read another file in the form of ``--data``."""
    own = {name: getattr(args, name) for name in PairArguments.__dataclass_fields__}
    return replace(PairArguments(**own), data=path)


@dataclass(frozen=True)
class _File:
    """The pairs of a file: a source and its references each."""

    rows: list[tuple[str, list[str]]]
    columns: tuple[str, str]
    source: str
    notes: list[str]


def _read(args: Any) -> _File:
    """Read the pairs of ``args.data`` in their order; the first of repeated pairs stays."""
    source = open_data(args)
    columns = _columns(args, source.columns, source.name)
    wanted = [*columns, *(["pull_request"] if "pull_request" in source.columns else [])]
    pairs: dict[tuple[str, ...], None] = {}
    left_out: Counter[str] = Counter()
    rows = progress(source.read(wanted, list(columns)), "reading pairs", unit="rows")
    n_rows = 0
    for row in rows:
        n_rows += 1
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
        pair = (text, *references)
        left_out["repeated"] += pair in pairs
        pairs[pair] = None
    if not pairs:
        raise UserError(
            f"{source.name}: none of {n_rows:,} rows has a text in both columns, {columns[0]} and "
            f"{columns[1]}"
        )
    notes = list(source.notes)
    if any(left_out.values()):
        notes.append(f"{source.name}: left out {join_counts(+left_out)}")
    kept = [(text, list(references)) for text, *references in pairs]
    return _File(kept, columns, f"{source.name}: {len(kept):,} of {n_rows:,} rows", notes)


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
