"""Folds of a cross-validation: documents, their labels, and the fold that holds out each of them.

Rows that belong together stay in one fold: near duplicates, and rows with the same value of a
column, such as the author or the repository.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import atomic_write, make_output_dir
from shared.cli.launch import print_once
from shared.data.arguments import NEGATIVE_HINT
from shared.data.corpus import load_corpus
from shared.data.labels import name_some
from shared.data.readers import open_data
from shared.data.split_columns import SplitMethod, hold_out_by_column
from shared.splitters.multilabel import MultilabelStratifiedKFold

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus


@dataclass(frozen=True)
class FoldedData:
    """The documents of a cross-validation, by part.

    "oof" (out of fold) are the labelled rows of `--data` that repeat no test row; "test", if there
    is a file of test rows, are its labelled rows, or those that a column says.

    Attributes
    ----------
    corpus : Corpus
        All rows of `--data`.
    documents : part to `datasets.Dataset` with the columns of `Corpus.dataset`.
    labels : part to uint8 array of shape (documents, labels), multi-hot.
    fold_of : int array of shape (documents of "oof",)
        The fold that holds out each document, from 0.
    fingerprints : list of str
        One for each file of rows: of `--data`, then of the test rows.
    method : SplitMethod
        How the test rows were chosen.
    """

    corpus: Corpus
    documents: dict[str, Dataset]
    labels: dict[str, np.ndarray]
    fold_of: np.ndarray
    fingerprints: list[str]
    method: SplitMethod = field(default_factory=lambda: SplitMethod("cross_validation"))


def load_and_fold(args: Any, *, folds: int, group_column: str | None, seed: int) -> FoldedData:
    """Read the data, assign a fold to each labelled row, and print a summary of both.

    Parameters
    ----------
    args : DataArguments
        May have a `test_data`, and the flags of `FoldSplitArguments`, in addition.
    folds : int
        Number of folds.
    group_column : str, optional
        Column of `--data` whose values stay in one fold each. Near duplicates always do. A note
        says how many values test rows of a column share with the folds.
    seed : int
        Same seed, same folds.

    Raises
    ------
    UserError
        As `shared.data.corpus.load_corpus`, `hold_out_by_column`, `read_column` and `assign_folds`
        do.
    """
    corpus, held_out = load_corpus(args)
    # Rows that repeat a test row are in no fold.
    rows = corpus.labelled[~corpus.repeats([*held_out.values()])[corpus.labelled]]
    sources = {"oof": (corpus, rows)}
    sources |= {part: (other, other.labelled) for part, other in held_out.items()}
    method = SplitMethod("cross_validation")
    values_of_group = read_column(args, corpus, group_column) if group_column else None
    if getattr(args, "split_by", None) or getattr(args, "split_time", None):
        values = corpus.split_values(args, rows)
        method, folded, test = hold_out_by_column(args, values, corpus.groups[rows])
        if n_repeated := len(rows) - len(folded) - len(test):
            print_once(f"left out: {n_repeated:,} texts that nearly repeat a test text")
        print_once(method.describe({"train": len(folded), "test": len(test)}))
        sources["test"] = (corpus, rows[test])
        if group_column and values_of_group is not None:
            shared_groups = values_of_group[rows[folded]], values_of_group[rows[test]]
            if note := note_shared_groups(*shared_groups, group_column):
                print_once(note)
        rows = rows[folded]
        sources["oof"] = (corpus, rows)
    labels = {part: source.label_matrix(rows) for part, (source, rows) in sources.items()}
    groups = corpus.groups[rows]
    if values_of_group is not None:
        groups = join_groups(groups, values_of_group[rows])
    fold_of = assign_folds(labels["oof"], folds, groups=groups, seed=seed)
    print_once(describe_folds(fold_of, labels["oof"], corpus.label_names))
    return FoldedData(
        corpus=corpus,
        documents={part: source.dataset.select(rows) for part, (source, rows) in sources.items()},
        labels=labels,
        fold_of=fold_of,
        fingerprints=list(dict.fromkeys(source.fingerprint for source, _ in sources.values())),
        method=method,
    )


def read_column(args: DataArguments, corpus: Corpus, column: str) -> np.ndarray:
    """Read another column of `--data`, such as the author or the repository of each text.

    Parameters
    ----------
    args : DataArguments
        The arguments that `corpus` was loaded with.
    corpus : Corpus
    column : str
        Name of the column. Its values may have any type, for example GitHub's user objects. Equal
        values form one group.

    Returns
    -------
    int array of shape (n,)
        The number of the group of each row of the corpus.

    Raises
    ------
    UserError
        If the column does not exist, or a labelled row has no value.
    """
    source = open_data(args)
    if column not in source.columns:
        raise UserError(f"{source.name}: no column {column!r} (found: {', '.join(source.columns)})")
    source_values = [row.get(column) for row in source.read([column])]
    # Reading the corpus left out some rows of the source; `row` is the 1-based row in the source.
    row_numbers = corpus.dataset["row"][:]
    values = [source_values[number - 1] for number in row_numbers]
    for index in corpus.labelled:  # unlabelled rows are in no fold and need no group
        if values[index] is None or values[index] == "":
            raise UserError(
                f"{source.place(row_numbers[index])}: no value in column {column!r}; every "
                "labelled row needs one"
            )
    # As sorted JSON, objects with the same content are equal strings.
    keys = [json.dumps(value, sort_keys=True, default=str) for value in values]
    return np.unique(keys, return_inverse=True)[1]


def note_shared_groups(folded: np.ndarray, test: np.ndarray, column: str) -> str | None:
    """Return a note on groups that are both in the folds and in the test; None if there are none.

    Parameters
    ----------
    folded, test : int arrays
        The group of each row.
    column : str
        That of the groups.
    """
    n_shared = len(np.intersect1d(folded, test))
    if not n_shared:
        return None
    return (
        f"note: {n_shared:,} of {len(np.union1d(folded, test)):,} values of {column!r} are both in "
        "the folds and in the test"
    )


def join_groups(*groupings: np.ndarray) -> np.ndarray:
    """Join groups that share a row: rows that are together in any grouping stay together.

    Parameters
    ----------
    *groupings : int arrays of shape (rows,)
        For example near duplicates and repositories. If a near duplicate appears in two
        repositories, the two repositories become one group.

    Returns
    -------
    int array of shape (rows,)
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A graph with a node for each row and for each group, and an edge from each row to each of its
    # groups. Two rows stay together if a path connects them, so each connected component is a
    # joined group. This needs one edge per row and grouping, not one per pair of rows.
    n_rows = len(groupings[0])
    group_nodes, n_nodes = [], n_rows
    for grouping in groupings:
        _, group = np.unique(grouping, return_inverse=True)
        group_nodes.append(n_nodes + group)
        n_nodes += group.max(initial=-1) + 1
    row_nodes = np.tile(np.arange(n_rows), len(groupings))
    edges = coo_array(
        (np.ones(len(row_nodes), bool), (row_nodes, np.concatenate(group_nodes))),
        (n_nodes, n_nodes),
    )
    return connected_components(edges, directed=False)[1][:n_rows]


def assign_folds(
    y: np.ndarray, n_splits: int, *, groups: np.ndarray, seed: int, unit: str = "texts"
) -> np.ndarray:
    """Assign each row to a fold, with labels spread evenly and each group inside one fold.

    Parameters
    ----------
    y : array of shape (rows, labels)
        Multi-hot.
    n_splits : int
        Number of folds.
    groups : int array of shape (rows,)
        Rows of the same group get the same fold.
    seed : int
        The same seed gives the same folds.
    unit : str, default "texts"
        What rows are, in messages.

    Returns
    -------
    int array of shape (rows,)
        The fold that holds out each row, from 0 to n_splits - 1.

    Raises
    ------
    UserError
        If there are no rows, every row has every label, there are fewer than two folds or fewer
        groups than folds, or a fold gets no row because the groups are too uneven.
    """
    if not len(y):
        raise UserError(
            "no labelled text is left for the folds: --test_data contains all labelled texts of "
            "--data; remove them from one of the two files"
        )
    if y.all():
        raise UserError(
            f"every labelled text has every label: there is nothing to learn; {NEGATIVE_HINT}"
        )
    if n_splits < 2:
        raise UserError(f"--folds {n_splits}: must be 2 or more")
    n_groups = len(np.unique(groups))
    if n_groups < n_splits:
        raise UserError(
            f"--folds {n_splits}: the {len(y):,} {unit} are in only {n_groups} groups, and a group "
            "cannot be divided between folds; choose fewer folds, or smaller groups"
        )
    fold_of = np.empty(len(y), np.int64)
    splitter = MultilabelStratifiedKFold(n_splits, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(None, y, groups)):
        fold_of[held_out] = number
    sizes = np.bincount(fold_of, minlength=n_splits)
    if not sizes.all():
        largest_group = np.unique(groups, return_counts=True)[1].max()
        raise UserError(
            f"--folds {n_splits}: fold {sizes.argmin()} got no row, because the largest group has "
            f"{largest_group:,} of {len(y):,} {unit}; choose fewer folds"
        )
    return fold_of


def describe_folds(
    fold_of: np.ndarray, y: np.ndarray, label_names: Sequence[str], *, unit: str = "texts"
) -> str:
    """Return the sizes of the folds, and which labels are missing from some of them, as text.

    Parameters
    ----------
    fold_of : int array of shape (rows,)
    y : array of shape (rows, labels)
        Multi-hot.
    label_names : sequence of str
    unit : str, default "texts"
        What rows are.
    """
    sizes, one = np.bincount(fold_of), unit.removesuffix("s")
    lines = [f"folds: {', '.join(f'{size:,}' for size in sizes)} {unit}"]
    for number in range(len(sizes)):
        missing = [
            name
            for name, count in zip(label_names, y[fold_of == number].sum(axis=0), strict=True)
            if not count
        ]
        if missing:
            lines.append(f"note: no {one} of fold {number} has the label {name_some(missing)}")
    counts = dict(zip(label_names, y.sum(axis=0).tolist(), strict=True))
    rare = [f"{name} ({count})" for name, count in counts.items() if count < len(sizes)]
    if rare:
        line = f"note: labels on fewer {unit} than the {len(sizes)} folds: {name_some(rare)}"
        if 1 in counts.values():
            line += f"; a label on one {one} is tested only by the fold that has not learned it"
        lines.append(line)
    return "\n".join(lines)


def write_outer_folds(
    args: DataArguments, folds: int, folder: Path, *, seed: int
) -> Generator[tuple[Path, Path]]:
    """Write the labelled rows of `--data` once for each fold, as two files that any recipe reads.

    Near duplicates stay in one fold. Of each row there are its text and a list of its labels.

    Parameters
    ----------
    args : DataArguments
    folds : int
        Number of folds.
    folder : Path
        Receives a folder ``fold_1``, and so on, for each fold.
    seed : int
        Same seed, same folds.

    Yields
    ------
    train, test : the files with the rows of the other folds, and of this one.

    Raises
    ------
    UserError
        As `shared.data.corpus.load_corpus` and `assign_folds` do.
    """
    data = load_and_fold(args, folds=folds, group_column=None, seed=seed)
    names = np.array(data.corpus.label_names)
    texts = data.documents["oof"]["text"]
    rows = [
        {"text": text, "labels": names[labels.astype(bool)].tolist()}
        for text, labels in zip(texts, data.labels["oof"], strict=True)
    ]
    for fold in range(folds):
        paths = []
        for name, chosen in (("train", data.fold_of != fold), ("test", data.fold_of == fold)):
            path = make_output_dir(str(folder / f"fold_{fold + 1}")) / f"{name}.jsonl"
            content = "".join(
                json.dumps(row, ensure_ascii=False) + "\n"
                for row, is_chosen in zip(rows, chosen, strict=True)
                if is_chosen
            )
            # Files that stay as they are keep the trials that were run on them.
            if not path.exists() or path.read_text(encoding="utf-8") != content:
                with atomic_write(path) as file:
                    file.write(content)
            paths.append(path)
        yield paths[0], paths[1]
