"""Cross-validation: which rows a fold holds out, and what it leaves for the next run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.errors import UserError
from shared.files import atomic_write, write_json
from shared.readers import open_source
from shared.splitters import MultilabelStratifiedKFold

if TYPE_CHECKING:
    from shared.corpus import Corpus
    from shared.data_arguments import DataArguments


def read_column(args: DataArguments, corpus: Corpus, column: str) -> np.ndarray:
    """Read one more column of `--data`, such as the author or the repository of each text.

    Parameters
    ----------
    args : DataArguments
        Those that `corpus` was loaded with.
    corpus : Corpus
    column : str
        Values of any kind; equal ones count as one, so that GitHub's user objects will do.

    Returns
    -------
    int array of shape (n,)
        The number of its value for each row of the corpus.

    Raises
    ------
    UserError
        If there is no such column, or a row has no value.
    """
    source = open_source(
        args.data, column_names=args.column_names, config=args.data_config, split=args.data_split
    )
    if column not in source.columns:
        raise UserError(f"{source.name}: no column {column!r} (found: {', '.join(source.columns)})")
    values = [row.get(column) for row in source.read([column])]
    numbers = corpus.dataset["row"][:]
    found = [values[number - 1] for number in numbers]
    for index in corpus.labelled:
        if found[index] is None or found[index] == "":
            raise UserError(
                f"{source.name}, row {numbers[index]}: no value in column {column!r}; which group "
                "is it in?"
            )
    keys = [json.dumps(value, sort_keys=True, default=str) for value in found]
    return np.unique(keys, return_inverse=True)[1]


def join_groups(*groupings: np.ndarray) -> np.ndarray:
    """Join groups that share a row: rows that are together in any grouping stay together.

    Parameters
    ----------
    *groupings : int arrays of shape (rows,)
        Near duplicates and repositories, say: where two repositories have a near duplicate in
        common, they become one group.

    Returns
    -------
    int array of shape (rows,)
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_rows = len(groupings[0])
    # A node for each row and for each group; a row is connected to its groups.
    nodes, n_nodes = [], n_rows
    for grouping in groupings:
        _, group = np.unique(grouping, return_inverse=True)
        nodes.append(n_nodes + group)
        n_nodes += group.max(initial=-1) + 1
    row = np.tile(np.arange(n_rows), len(groupings))
    edges = coo_array((np.ones(len(row), bool), (row, np.concatenate(nodes))), (n_nodes, n_nodes))
    return connected_components(edges, directed=False)[1][:n_rows]


def assign_folds(y: np.ndarray, n_splits: int, *, groups: np.ndarray, seed: int) -> np.ndarray:
    """Give each row the fold that holds it out: labels spread evenly, groups in one fold each.

    Parameters
    ----------
    y : array of shape (rows, labels)
        Multi-hot.
    n_splits : int
    groups : int array of shape (rows,)
    seed : int
        Same seed, same folds.

    Returns
    -------
    int array of shape (rows,), from 0 to n_splits - 1

    Raises
    ------
    UserError
        For no row, or none without a label, fewer than two folds, fewer groups than folds, or
        groups so uneven that a fold gets none.
    """
    if not len(y):
        raise UserError("no labelled text is left to fold: --test_data repeats those of --data")
    if y.all():
        raise UserError("every labelled text has every label: nothing to learn")
    if n_splits < 2:
        raise UserError(f"--folds {n_splits}: must be 2 or more")
    n_groups = len(np.unique(groups))
    if n_groups < n_splits:
        raise UserError(
            f"--folds {n_splits}: the {len(y):,} texts are in {n_groups} groups only, and a group "
            "is in one fold; choose fewer folds, or another --group_column"
        )
    fold = np.empty(len(y), np.int64)
    splitter = MultilabelStratifiedKFold(n_splits, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(None, y, groups)):
        fold[held_out] = number
    sizes = np.bincount(fold, minlength=n_splits)
    if not sizes.all():
        raise UserError(
            f"--folds {n_splits}: fold {sizes.argmin()} got no text, since the largest group has "
            f"{np.unique(groups, return_counts=True)[1].max():,} of {len(y):,}; choose fewer folds"
        )
    return fold


def describe_folds(fold: np.ndarray, y: np.ndarray, label_names: Sequence[str]) -> str:
    """Return the sizes of the folds, and which labels are missing from some of them."""
    sizes = np.bincount(fold)
    lines = [f"folds: {', '.join(f'{size:,}' for size in sizes)} texts"]
    for number in range(len(sizes)):
        absent = [
            name
            for name, count in zip(label_names, y[fold == number].sum(axis=0), strict=True)
            if not count
        ]
        if absent:
            lines.append(f"note: no text of fold {number} has the label {', '.join(absent)}")
    for name, count in zip(label_names, y.sum(axis=0), strict=True):
        if count < len(sizes):
            lines.append(
                f"note: the label {name} is on {count} texts, fewer than the {len(sizes)} folds"
            )
    return "\n".join(lines)


def kept_folds(
    output_dir: Path, fold_of: np.ndarray, flags: Sequence[str], data: Sequence[str]
) -> list[Fold]:
    """Return the folds with a folder each below `output_dir`, finished or not.

    Parameters
    ----------
    output_dir : Path
    fold_of : int array of shape (rows,)
    flags : sequence of str
        `shared.arguments.deciding_flags` of the run.
    data : sequence of str
        Fingerprints of the data sets and of the model.
    """
    return [
        Fold(
            number,
            output_dir / f"fold_{number}",
            {
                "flags": [*flags],
                "data": [*data],
                "rows": np.flatnonzero(fold_of == number).tolist(),
            },
        )
        for number in range(fold_of.max() + 1)
    ]


@dataclass(frozen=True)
class Fold:
    """One fold, which is trained once and leaves its scores in a folder of its own.

    Attributes
    ----------
    number : from 0.
    folder : receives ``scores.npz`` and, when all else is there, ``fold.json``.
    what : what was run; a finished fold of anything else is refused.
    """

    number: int
    folder: Path
    what: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether this very fold has ended well before.

        Raises
        ------
        UserError
            If the folder holds a fold of other data or flags.
        """
        with contextlib.suppress(FileNotFoundError):
            found = json.loads((self.folder / "fold.json").read_text("utf-8"))
            if found != self.what:
                differ = [name for name, value in self.what.items() if found.get(name) != value]
                raise UserError(
                    f"{self.folder} was trained with other {' and '.join(differ)}; choose another "
                    "--output_dir, or remove that folder"
                )
            return True
        return False

    def save(self, **scores: np.ndarray) -> None:
        """Keep scores, each an array of shape (rows, labels), and call the fold finished."""
        with atomic_write(self.folder / "scores.npz", "wb") as file:
            np.savez(file, allow_pickle=False, **scores)
        write_json(self.folder / "fold.json", self.what)

    def scores(self) -> dict[str, np.ndarray]:
        """What a finished fold has kept."""
        with np.load(self.folder / "scores.npz", allow_pickle=False) as kept:
            return dict(kept)
