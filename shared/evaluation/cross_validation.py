"""Cross-validation: assign rows to folds, save the scores of each fold, and evaluate all of them.

Every row is held out by exactly one fold. The model of that fold is trained on the rows of the
other folds and then scores the held-out rows: their *out-of-fold* scores. Put together, these
scores cover all rows, and every score comes from a model that has not seen the row.

- Folds: groups of rows that must stay together (near duplicates, or the values of a column), and
  the fold of each row.
- Folds on disk: one folder for each fold, so that a finished fold is not trained again.
- Out-of-fold scores: put the folds together, choose labels, compute metrics over the folds.
"""

from __future__ import annotations

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
from shared.evaluation.metrics import f1_scores, ranking_scores
from shared.splitters.multilabel import MultilabelStratifiedKFold

if TYPE_CHECKING:
    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus

# --- folds ---------------------------------------------------------------------------------------


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
    source = open_source(
        args.data, column_names=args.column_names, config=args.data_config, split=args.data_split
    )
    if column not in source.columns:
        raise UserError(f"{source.name}: no column {column!r} (found: {', '.join(source.columns)})")
    source_values = [row.get(column) for row in source.read([column])]
    # Reading the corpus left out some rows of the source; `row` is the 1-based row in the source.
    row_numbers = corpus.dataset["row"][:]
    values = [source_values[number - 1] for number in row_numbers]
    for index in corpus.labelled:  # unlabelled rows are in no fold and need no group
        if values[index] is None or values[index] == "":
            raise UserError(
                f"{source.name}, row {row_numbers[index]}: no value in column {column!r}; every "
                "labelled row needs one"
            )
    # As sorted JSON, objects with the same content are equal strings.
    keys = [json.dumps(value, sort_keys=True, default=str) for value in values]
    return np.unique(keys, return_inverse=True)[1]


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


def assign_folds(y: np.ndarray, n_splits: int, *, groups: np.ndarray, seed: int) -> np.ndarray:
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
        raise UserError("every labelled text has every label: there is nothing to learn")
    if n_splits < 2:
        raise UserError(f"--folds {n_splits}: must be 2 or more")
    n_groups = len(np.unique(groups))
    if n_groups < n_splits:
        raise UserError(
            f"--folds {n_splits}: the {len(y):,} texts are in only {n_groups} groups, and a group "
            "cannot be divided between folds; choose fewer folds, or another --group_column"
        )
    fold_of = np.empty(len(y), np.int64)
    splitter = MultilabelStratifiedKFold(n_splits, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(None, y, groups)):
        fold_of[held_out] = number
    sizes = np.bincount(fold_of, minlength=n_splits)
    if not sizes.all():
        largest_group = np.unique(groups, return_counts=True)[1].max()
        raise UserError(
            f"--folds {n_splits}: fold {sizes.argmin()} got no text, because the largest group has "
            f"{largest_group:,} of {len(y):,} texts; choose fewer folds"
        )
    return fold_of


def describe_folds(fold_of: np.ndarray, y: np.ndarray, label_names: Sequence[str]) -> str:
    """Return the sizes of the folds, and which labels are missing from some of them, as text.

    Parameters
    ----------
    fold_of : int array of shape (rows,)
    y : array of shape (rows, labels)
        Multi-hot.
    label_names : sequence of str
    """
    sizes = np.bincount(fold_of)
    lines = [f"folds: {', '.join(f'{size:,}' for size in sizes)} texts"]
    for number in range(len(sizes)):
        missing = [
            name
            for name, count in zip(label_names, y[fold_of == number].sum(axis=0), strict=True)
            if not count
        ]
        if missing:
            lines.append(f"note: no text of fold {number} has the label {', '.join(missing)}")
    for name, count in zip(label_names, y.sum(axis=0), strict=True):
        if count < len(sizes):
            lines.append(
                f"note: the label {name} is on {count} texts, fewer than the {len(sizes)} folds"
            )
    return "\n".join(lines)


# --- folds on disk -------------------------------------------------------------------------------


def make_folds(
    output_dir: Path, fold_of: np.ndarray, flags: Sequence[str], data: Sequence[str]
) -> list[Fold]:
    """Return the folds, each with its own folder below `output_dir`. No folder is created.

    Parameters
    ----------
    output_dir : Path
    fold_of : int array of shape (rows,)
        The fold that holds out each row.
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
    """One fold: it is trained once and keeps its scores in its own folder.

    The folder holds two files. ``scores.npz`` has the scores. ``fold.json`` has `run`, and is
    written last: if it exists, the fold is finished.

    Attributes
    ----------
    number : int
        From 0.
    folder : Path
    run : mapping
        The flags, data and held-out rows of the run, as JSON values. They identify the fold: a
        finished fold of another run is not used again but refused.
    """

    number: int
    folder: Path
    run: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether this fold, with the same flags, data and rows, was finished before.

        Raises
        ------
        UserError
            If the folder holds a fold of another run.
        """
        try:
            saved_run = json.loads((self.folder / "fold.json").read_text("utf-8"))
        except FileNotFoundError:
            return False
        if saved_run != self.run:
            different = [name for name, value in self.run.items() if saved_run.get(name) != value]
            raise UserError(
                f"{self.folder} was trained with other {' and '.join(different)}; choose another "
                "--output_dir, or remove that folder"
            )
        return True

    def save(self, **scores: np.ndarray) -> None:
        """Save the scores of each part, of shape (rows, labels), and mark the fold as finished."""
        with atomic_write(self.folder / "scores.npz", "wb") as file:
            np.savez(file, allow_pickle=False, **scores)
        # Last: an interruption before this line leaves an unfinished fold.
        write_json(self.folder / "fold.json", self.run)

    def scores(self) -> dict[str, np.ndarray]:
        """Return the scores of each part that a finished fold has saved."""
        with np.load(self.folder / "scores.npz", allow_pickle=False) as arrays:
            return dict(arrays)


# --- out-of-fold scores --------------------------------------------------------------------------

# Metrics over the folds, with the names that tables show.
METRICS = {"micro_f1": "micro F1", "macro_f1": "macro F1", "roc_auc": "ROC-AUC"}


def score_folds(
    fit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]],
    inputs: Mapping[str, np.ndarray],
    y: np.ndarray,
    fold_of: np.ndarray,
) -> list[dict[str, np.ndarray]]:
    """Fit one classifier per fold on the rows of the other folds, and score the held-out rows.

    Parameters
    ----------
    fit : callable
        ``fit(inputs, labels)`` returns a function from inputs to probabilities, such as
        `shared.methods.baselines.fit_scorer` of a pipeline.
    inputs : mapping of part to array of shape (rows, ...)
        Texts or vectors. The part "oof" has the rows of `y`. All rows of any other part are scored
        by every fold.
    y : array of shape (rows, labels)
        Multi-hot.
    fold_of : int array of shape (rows,)
        The fold that holds out each row.

    Returns
    -------
    list, with one dict of part to array of shape (rows, labels) for each fold
        Probabilities. The part "oof" has only the rows that the fold holds out.
    """
    fold_scores = []
    for number in range(fold_of.max() + 1):
        held_out = fold_of == number
        score = fit(inputs["oof"][~held_out], y[~held_out])
        to_score = {**inputs, "oof": inputs["oof"][held_out]}
        fold_scores.append({part: score(values) for part, values in to_score.items()})
    return fold_scores


def join_folds(
    fold_scores: Sequence[Mapping[str, np.ndarray]], fold_of: np.ndarray
) -> dict[str, np.ndarray]:
    """Combine the scores of all folds.

    Parameters
    ----------
    fold_scores : sequence, with one mapping of part to array of shape (rows, labels) for each fold
        The part "oof" has the rows that the fold holds out, in ascending order. The part "test" is
        optional and has all test rows in every fold.
    fold_of : int array of shape (rows,)
        The fold that holds out each row.

    Returns
    -------
    dict of part to array of shape (rows, labels)
        "oof" has one score for each row and label; "test" has the mean over the folds.
    """
    joined = {"oof": np.zeros((len(fold_of), fold_scores[0]["oof"].shape[1]))}
    for number, scores in enumerate(fold_scores):
        joined["oof"][fold_of == number] = scores["oof"]
    if "test" in fold_scores[0]:
        joined["test"] = np.mean([scores["test"] for scores in fold_scores], axis=0)
    return joined


def choose_out_of_fold(
    scores: np.ndarray, y: np.ndarray, fold_of: np.ndarray, *, single_label: bool = False
) -> np.ndarray:
    """Choose the labels of each fold with a threshold that was tuned on the other folds.

    Parameters
    ----------
    scores, y : arrays of shape (rows, labels)
        Out-of-fold probabilities, and multi-hot labels.
    fold_of : int array of shape (rows,)
        The fold that holds out each row.
    single_label : bool, default False
        Every text has exactly one label: choose the best label, without a threshold.

    Returns
    -------
    bool array of shape (rows, labels)
    """
    predicted = np.zeros(scores.shape, dtype=bool)
    for number in np.unique(fold_of):
        in_fold = fold_of == number
        threshold: float | np.ndarray = 0.5
        if not single_label:
            # The labels of the fold itself must not influence its threshold.
            threshold = tune_thresholds(scores[~in_fold], y[~in_fold], tolerance=2)
        predicted[in_fold] = choose_labels(scores[in_fold], threshold, single_label=single_label)
    return predicted


def fold_metrics(
    y: np.ndarray, scores: np.ndarray, predicted: np.ndarray, fold_of: np.ndarray
) -> dict[str, float]:
    """Return the mean and the standard deviation over the folds of each of `METRICS`.

    The ROC-AUC of a fold is the mean over the labels that have positive and negative rows in the
    fold. A fold without such a label has no ROC-AUC and is left out of the mean.

    Parameters
    ----------
    y, scores, predicted : arrays of shape (rows, labels)
        Multi-hot labels, out-of-fold probabilities, chosen labels.
    fold_of : int array of shape (rows,)
        The fold that holds out each row.

    Returns
    -------
    dict of float
        ``micro_f1``, ``micro_f1_std`` and so on. A metric that no fold has is left out.
    """
    metrics_of_folds = []
    for number in np.unique(fold_of):
        in_fold = fold_of == number
        metrics_of_folds.append(
            f1_scores(y[in_fold], predicted[in_fold]) | ranking_scores(y[in_fold], scores[in_fold])
        )
    summary = {}
    for name in METRICS:
        values = [metrics[name] for metrics in metrics_of_folds if name in metrics]
        if values:
            summary[name] = mean(values)
            summary[f"{name}_std"] = stdev(values) if len(values) > 1 else 0.0
    return summary
