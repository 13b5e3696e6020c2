"""Plots of a classifier of rows with one class each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.plots.figures import BLUE, GREY, legend_below, new_figure, save_figure, short_label
from shared.plots.fonts import fonts_for


def plot_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Confusion matrix: colours are the share of each true class, numbers are rows.

    With more than 20 classes the numbers are left out.

    Parameters
    ----------
    counts : int array of shape (classes, classes)
        Rows of class i that were predicted as class j.
    names : sequence of str
    path : Path
    """
    size = 2.8 + 0.45 * min(len(names), 30)
    figure, axes = new_figure(size + 1, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 20:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.annotate(f"{count:,}", (j, i), ha="center", va="center", color=colour, fontsize=9)
    fonts, _ = fonts_for("".join(names))
    shown = [short_label(name) for name in names]
    style: dict[str, Any] = {"parse_math": False, "fontfamily": fonts}
    axes.set_xticks(range(len(names)), shown, rotation=90 if len(names) > 3 else 0, **style)
    axes.set_yticks(range(len(names)), shown, **style)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    save_figure(figure, path)


def plot_reliability(points: Mapping[str, np.ndarray], path: Path) -> None:
    """Reliability diagram: the share of right predictions over the score of the predicted class.

    Parameters
    ----------
    points : mapping of "score", "share" and "count" to array of shape (bins,)
        From `shared.evaluation.reliability.reliability`.
    path : Path
    """
    figure, axes = new_figure(5.2, 4.6)
    axes.plot([0, 1], [0, 1], "--", color=GREY, lw=1, label="calibrated")
    axes.plot(points["score"], points["share"], color=BLUE, lw=1)
    areas = 12 + 240 * points["count"] / points["count"].sum()
    axes.scatter(points["score"], points["share"], s=areas, color=BLUE, label="rows (area)")
    axes.set(xlabel="score of the predicted class", ylabel="share that is right", ylim=(0, 1.03))
    axes.set(xlim=(min(points["score"].min(), 0.5) - 0.03, 1.03), title="Reliability")
    legend_below(figure, *axes.get_legend_handles_labels())
    save_figure(figure, path)
