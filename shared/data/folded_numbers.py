"""Folds of a cross-validation of a regression: documents with a number each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import print_once
from shared.data.arguments import check_split_flags
from shared.data.columns import find_split_column, missing_column, recognise_text_columns
from shared.data.folds import assign_folds, join_groups, note_shared_groups
from shared.data.preparation import cell_as_text
from shared.data.readers import open_data
from shared.data.split_columns import SplitMethod, hold_out_by_column, split_values
from shared.data.task_tables import collect_rows, number_bins, numbers_of

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class FoldedNumbers:
    """The documents of a cross-validation of a regression, by part.

    Attributes that are not named are those of `shared.data.folds.FoldedData`.

    Attributes
    ----------
    documents : part to `datasets.Dataset` with ``text``, ``labels`` (a list of the number) and
        ``row``.
    labels : part to float array of shape (documents, 1), the numbers.
    name : str
        Their column.
    description : str
        What was read, a line each.
    """

    documents: dict[str, Dataset]
    labels: dict[str, np.ndarray]
    fold_of: np.ndarray
    fingerprints: list[str]
    name: str
    description: str
    method: SplitMethod = field(default_factory=lambda: SplitMethod("cross_validation"))


def load_and_fold_numbers(
    args: Any, *, folds: int, group_column: str | None, seed: int
) -> FoldedNumbers:
    """Read texts with a number each, assign a fold to each, and print a summary.

    Parameters and errors are those of `shared.data.folds.load_and_fold`. The numbers are in the
    column of ``--label_column``; their quintiles are spread evenly over the folds. Rows without a
    number or a text are left out.
    """
    import pyarrow as pa
    from datasets import Dataset

    from shared.data.near_duplicates import near_duplicate_groups, repeats

    check_split_flags(args)
    column = args.label_column
    split_column, values_of_column = None, None
    files = {"oof": args.data}
    if test_data := getattr(args, "test_data", None):
        files["test"] = test_data
    texts, rows, values, notes = {}, {}, {}, []
    versions, groups, text_columns = [], None, None
    for part, path in files.items():
        source = open_data(replace(args, data=path))
        if text_columns is None:
            text_columns, _ = recognise_text_columns(source, args.text_columns)
        if part == "oof":
            split_column = find_split_column(source, args, targets=[column], inputs=text_columns)
        if column not in source.columns:
            raise missing_column(column, source.columns, "--label_column", source.name)
        splitting = [split_column] if split_column else []
        grouping = [group_column] if group_column and part == "oof" else []
        table = collect_rows(
            source,
            text_columns,
            tasks=[column, *splitting],
            category_columns=grouping,
            pull_requests=args.pull_requests,
        )
        numbers = numbers_of(table, column)
        known = np.isfinite(numbers)
        if not known.any():
            raise UserError(f"{source.name}: no row has a text and a number in column {column!r}")
        notes += table.notes
        if not known.all():
            notes.append(f"{source.name}: left out {int((~known).sum()):,} rows without a number")
        kept = np.flatnonzero(known)
        for name in grouping:
            missing = [table.rows[i] for i in kept if table.categories[name][i] is None]
            if missing:
                raise UserError(
                    f"{source.place(missing[0])}: no value in column {name!r}; every row needs one"
                )
            groups = np.unique([table.categories[name][i] for i in kept], return_inverse=True)[1]
        if split_column:
            cells = [cell_as_text(table.cells[split_column][i]) for i in kept]
            numbers_of_rows = np.array(table.rows)[kept]
            values_of_column, more = split_values(
                args, cells, numbers_of_rows, source.name, source.place
            )
            notes += more
        strings = pa.array([table.texts[i] for i in kept], pa.string())
        texts[part] = pa.chunked_array([strings])
        rows[part] = np.array(table.rows)[kept]
        values[part] = numbers[kept, None]
        versions.append(source.version)
    if "test" in files:
        new = ~repeats(texts["oof"], texts["test"])
        if not new.all():
            notes.append(f"left out: {int((~new).sum()):,} rows that repeat a test text")
        texts["oof"] = texts["oof"].filter(new)
        rows["oof"], values["oof"] = rows["oof"][new], values["oof"][new]
        groups = None if groups is None else groups[new]
    method = SplitMethod("cross_validation")
    near = near_duplicate_groups(texts["oof"])
    if values_of_column is not None:
        method, folded, test = hold_out_by_column(args, values_of_column, near)
        if n_repeated := len(near) - len(folded) - len(test):
            notes.append(f"left out: {n_repeated:,} texts that nearly repeat a test text")
        notes.append(method.describe({"train": len(folded), "test": len(test)}))
        texts = {"oof": texts["oof"].take(folded), "test": texts["oof"].take(test)}
        rows = {"oof": rows["oof"][folded], "test": rows["oof"][test]}
        values = {"oof": values["oof"][folded], "test": values["oof"][test]}
        near = near[folded]
        if group_column and groups is not None:
            if note := note_shared_groups(groups[folded], groups[test], group_column):
                notes.append(note)
            groups = groups[folded]
    if not len(values["oof"]) or np.ptp(values["oof"]) == 0:
        raise UserError(f"{args.data}: all numbers in column {column!r} are equal")
    bins = number_bins(values["oof"][:, 0])
    joined = near if groups is None else join_groups(near, groups)
    fold_of = assign_folds(bins, folds, groups=joined, seed=seed)
    sizes = ", ".join(f"{part} {len(v):,}" for part, v in values.items())
    mean, spread = values["oof"].mean(), values["oof"].std()
    description = "\n".join(
        [
            f"{'; '.join(files.values())}: {sizes} texts",
            f"{column}: mean {mean:,.4g}, standard deviation {spread:,.4g}",
            f"folds: {', '.join(f'{n:,}' for n in np.bincount(fold_of))} texts",
            *notes,
        ]
    )
    print_once(f"\nData\n{description}")
    documents = {
        part: Dataset.from_dict(
            {
                "text": texts[part].to_pylist(),
                "labels": values[part].tolist(),
                "row": rows[part].tolist(),
            }
        )
        for part in texts
    }
    return FoldedNumbers(documents, values, fold_of, versions, column, description, method)
