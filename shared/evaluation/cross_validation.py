"""Cross-validation: save the scores of each fold, and evaluate all folds together.

Every row is held out by exactly one fold. The model of that fold is trained on the rows of the
other folds and then scores the held-out rows: their *out-of-fold* scores. Put together, these
scores cover all rows, and every score comes from a model that has not seen the row.

- Folds on disk: one folder for each fold, so that a finished fold is not trained again.
- Out-of-fold scores: put the folds together, choose labels, compute metrics over the folds.

`shared.data.folds` says which row is in which fold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import atomic_write, write_json
from shared.evaluation.decisions import choose_labels, tune_thresholds
from shared.evaluation.metrics import f1_scores, ranking_scores
from shared.training.checkpoints import find_checkpoint

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


def unfinished_folds(folds: Sequence[Fold], args: Any) -> list[tuple[Fold, str | None]]:
    """Return the folds to train, each with the checkpoint that its training resumes from, or None.

    Parameters
    ----------
    folds : sequence of Fold
    args : TrainingArguments with `health_check`
        With ``--health_check``, finished folds are among them.

    Raises
    ------
    UserError
        As `Fold.finished` and `shared.training.checkpoints.find_checkpoint`.
    """
    to_train = [fold for fold in folds if args.health_check or not fold.finished]
    resume = args.resume_from_checkpoint
    return [(fold, find_checkpoint(str(fold.folder), resume)) for fold in to_train]


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
        `shared.methods.baselines.fit_words` of a pipeline.
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
