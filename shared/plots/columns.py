"""Plots of the columns of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.plots.figures import BLUE, ORANGE, new_figure, save_figure, short_label
from shared.plots.fonts import fonts_for


def plot_importance(importances: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Horizontal bars of the importance of each column: the mean over folds, and their range.

    With more than 30 columns, the 30 most important ones are shown.

    Parameters
    ----------
    importances : float array of shape (folds, columns)
        See `shared.evaluation.importance.permutation_importance`.
    names : sequence of str
    path : Path
    """
    mean = importances.mean(axis=0)
    order = np.argsort(mean, kind="stable")[-30:]
    figure, axes = new_figure(height=1.4 + 0.26 * len(order))
    axes.barh(np.arange(len(order)), mean[order], color=BLUE)
    axes.hlines(
        *(np.arange(len(order)), importances.min(axis=0)[order], importances.max(axis=0)[order]),
        color=ORANGE,
        lw=1.5,
    )
    fonts, _ = fonts_for("".join(names))
    axes.set_yticks(
        np.arange(len(order)),
        [short_label(names[column]) for column in order],
        parse_math=False,
        fontfamily=fonts,
    )
    title = "Importance of columns"
    if len(order) < len(names):
        title += f" (the {len(order)} highest of {len(names):,})"
    axes.set(xlabel="rise of the log loss when shuffled (line: range over folds)", title=title)
    save_figure(figure, path)
