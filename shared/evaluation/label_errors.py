"""Likely label errors: rows whose labels contradict the scores of a classifier.

`find_label_errors` ranks them, `recovery_table` measures a ranking on labels with planted errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.evaluation.calibration import fit_probabilities
from shared.evaluation.decisions import top_k

_DEPTHS = (0.05, 0.1, 0.2, 0.3)
_MOST_NAMED = 3  # labels that a reason names of each kind


@dataclass(frozen=True)
class LabelError:
    """A row that is likely to have a wrong label.

    Attributes
    ----------
    row : int
        Index into the arrays.
    score : float
        The probability of the label that fits worst, or of its absence: near 0 for a sure error.
    labels, suggested : tuple of str
        The labels that the row has, and those that its scores suggest.
    reason : str
    """

    row: int
    score: float
    labels: tuple[str, ...]
    suggested: tuple[str, ...]
    reason: str


def find_label_errors(
    y_true: np.ndarray,
    scores: np.ndarray,
    label_names: Sequence[str],
    *,
    single_label: bool = False,
) -> tuple[list[LabelError], np.ndarray]:
    """Rank the rows by how much their scores contradict their labels.

    Parameters
    ----------
    y_true, scores : array of shape (rows, labels)
        Multi-hot labels, and scores from 0 to 1 of classifiers that have not seen the row: those of
        a test set or out-of-fold scores. They are calibrated on the same rows before use.
    label_names : sequence of str
    single_label : bool, default False
        Every text has exactly one label.

    Returns
    -------
    errors : list of LabelError
        The rows for which other labels are more probable, the likeliest errors first.
    quality : array of shape (rows,)
        The `LabelError.score` of all rows.

    Notes
    -----
    The quality of a row is cleanlab's self-confidence: the probability of its label, or, with
    several labels, of the label that fits worst (Northcutt, Jiang and Chuang 2021, Confident
    Learning; Thyagarajan et al. 2022, Identifying Incorrect Annotations in Multi-Label
    Classification Data). Of all options of cleanlab, this was the best on seven data sets with
    10 % planted errors (recipes/FIGURES.md): the default aggregation, a moving average over the
    labels, and adjusted probabilities find fewer; calibration finds more.
    """
    from cleanlab import rank

    y = np.asarray(y_true, dtype=bool)
    if not len(y):
        return [], np.zeros(0)
    p = fit_probabilities(scores, y, single_label=single_label)(scores)
    if single_label:
        quality = rank.get_label_quality_scores(y.argmax(axis=1), p)
        suggested = top_k(p, 1)
    else:
        # As cleanlab's with the minimum as aggregator; cleanlab refuses some labels, such as a
        # single one.
        quality = np.where(y, p, 1 - p).min(axis=1)
        suggested = p > 0.5
    order = np.argsort(quality, kind="stable")
    order = order[(suggested != y)[order].any(axis=1)]
    names = np.array(label_names, dtype=object)
    errors = [
        LabelError(
            row,
            float(quality[row]),
            tuple(names[y[row]]),
            tuple(names[suggested[row]]),
            _reason(y[row], suggested[row], p[row], names),
        )
        for row in order.tolist()
    ]
    return errors, quality


def _reason(y: np.ndarray, suggested: np.ndarray, p: np.ndarray, names: np.ndarray) -> str:
    """Say which labels contradict the probabilities of a row; arrays are of shape (labels,)."""
    missing, wrong = np.flatnonzero(suggested & ~y), np.flatnonzero(y & ~suggested)
    parts = []
    for labels, fact in (
        (missing[np.argsort(-p[missing])], "which it does not have"),
        (wrong[np.argsort(p[wrong])], "which it has"),
    ):
        shown = [f"{p[label]:.2f} for `{names[label]}`" for label in labels[:_MOST_NAMED]]
        if len(labels) > _MOST_NAMED:
            shown.append(f"{len(labels) - _MOST_NAMED} more")
        if shown:
            parts.append(f"{', '.join(shown)}, {fact}")
    return f"scored {'; '.join(parts)}"


def recovery_table(quality: np.ndarray, planted: np.ndarray) -> str:
    """Return, as text, how many planted errors are among the first rows of a ranking.

    The last column has the number that a random order would have.

    Parameters
    ----------
    quality : array of shape (rows,)
        From `find_label_errors`.
    planted : bool array of shape (rows,)
        The rows that got a wrong label.
    """
    hits = planted[np.argsort(quality, kind="stable")].cumsum()
    n_rows, n_planted = len(planted), int(planted.sum())
    titles = ("rows read, by rank", "planted", "precision", "recall", "by chance")
    lines = ["{:>20}{:>10}{:>12}{:>9}{:>12}".format(*titles)]
    for depth in _DEPTHS:
        n_read = max(1, round(depth * n_rows))
        n_hits = int(hits[n_read - 1])
        rows = f"first {100 * depth:.0f} % ({n_read:,})"
        lines.append(
            f"{rows:>20}{n_hits:>10,}{n_hits / n_read:>12.2f}{n_hits / n_planted:>9.2f}"
            f"{n_planted * n_read / n_rows:>12.0f}"
        )
    return "\n".join(lines)
