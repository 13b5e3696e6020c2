"""Cross-validation: folds, the files of a fold, and out-of-fold scores."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import atomic_write, write_json
from shared.data.readers import open_source
from shared.evaluation.decisions import choose_labels, tune_thresholds
from shared.evaluation.metrics import (
    f1_scores,
    ranking_scores,
)
from shared.splitters.multilabel import MultilabelStratifiedKFold

if TYPE_CHECKING:
    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus


# --- folds ---------------------------------------------------------------------------------------


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


def make_folds(
    output_dir: Path, fold_of: np.ndarray, flags: Sequence[str], data: Sequence[str]
) -> list[Fold]:
    """Return the folds with a folder each below `output_dir`, finished or not.

    Parameters
    ----------
    output_dir : Path
    fold_of : int array of shape (rows,)
    flags : sequence of str
        `shared.cli.arguments.result_flags` of the run.
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


# --- out-of-fold scores --------------------------------------------------------------------------


METRICS = {"micro_f1": "micro F1", "macro_f1": "macro F1", "roc_auc": "ROC-AUC"}


def score_folds(
    fit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]],
    inputs: Mapping[str, np.ndarray],
    y: np.ndarray,
    fold_of: np.ndarray,
) -> list[dict[str, np.ndarray]]:
    """Fit a classifier without each fold in turn, and score the rows that the fold holds out.

    Parameters
    ----------
    fit : callable
        ``fit(inputs, labels)`` returns a function from inputs to probabilities, such as
        `shared.methods.baselines.fit_scorer` of a pipeline.
    inputs : part to array of shape (rows, ...)
        Texts or vectors. "oof" are the rows of `y`; another part is scored by every fold.
    y : array of shape (rows, labels)
        Multi-hot.
    fold_of : int array of shape (rows,)

    Returns
    -------
    list, for each fold, of dict of part to array of shape (rows, labels)
        Probabilities; of "oof" the rows that the fold holds out.
    """
    found = []
    for number in range(fold_of.max() + 1):
        held = fold_of == number
        score = fit(inputs["oof"][~held], y[~held])
        parts = {**inputs, "oof": inputs["oof"][held]}
        found.append({part: score(values) for part, values in parts.items()})
    return found


def join_folds(
    found: Sequence[Mapping[str, np.ndarray]], fold_of: np.ndarray
) -> dict[str, np.ndarray]:
    """Put the scores of the folds together.

    Parameters
    ----------
    found : for each fold, part to array of shape (rows, labels)
        "oof" has the rows that the fold holds out, ascending; "test", if any, those of all folds.
    fold_of : int array of shape (rows,)
        The fold that holds out each row.

    Returns
    -------
    dict of part to array of shape (rows, labels)
        The scores of "test" are the mean over the folds.
    """
    joined = {"oof": np.zeros((len(fold_of), found[0]["oof"].shape[1]))}
    for number, scores in enumerate(found):
        joined["oof"][fold_of == number] = scores["oof"]
    if "test" in found[0]:
        joined["test"] = np.mean([scores["test"] for scores in found], axis=0)
    return joined


def choose_out_of_fold(
    scores: np.ndarray, y: np.ndarray, fold_of: np.ndarray, *, single_label: bool = False
) -> np.ndarray:
    """Choose the labels of each fold by a threshold that was tuned on the other folds.

    Parameters
    ----------
    scores, y : arrays of shape (rows, labels)
        Probabilities from the model that has not seen the row; multi-hot labels.
    fold_of : int array of shape (rows,)
    single_label : bool
        Every text has exactly one label: the best, without a threshold.

    Returns
    -------
    bool array of shape (rows, labels)
    """
    predicted = np.zeros(scores.shape, dtype=bool)
    for number in np.unique(fold_of):
        here, threshold = fold_of == number, 0.5
        if not single_label:
            threshold = tune_thresholds(scores[~here], y[~here], tolerance=2)
        predicted[here] = choose_labels(scores[here], threshold, single_label=single_label)
    return predicted


def fold_metrics(
    y: np.ndarray, scores: np.ndarray, predicted: np.ndarray, fold_of: np.ndarray
) -> dict[str, float]:
    """Return mean and standard deviation over the folds of each of `METRICS`.

    ROC-AUC of a fold is the mean over the labels with both positive and negative rows there; a
    fold without any such label has none and is left out of the mean.

    Returns
    -------
    dict
        ``micro_f1``, ``micro_f1_std`` and so on.
    """
    found = []
    for number in np.unique(fold_of):
        here = fold_of == number
        found.append(f1_scores(y[here], predicted[here]) | ranking_scores(y[here], scores[here]))
    figures = {}
    for name in METRICS:
        values = [figure[name] for figure in found if name in figure]
        if values:
            figures[name] = mean(values)
            figures[f"{name}_std"] = stdev(values) if len(values) > 1 else 0.0
    return figures
