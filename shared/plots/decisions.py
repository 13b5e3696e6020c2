"""Plots of F1 over what decides which labels a text gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shared.plots.figures import BLUE, ORANGE, legend_below, save_figure


def plot_neighbour_grid(
    grids: Mapping[str, np.ndarray], best: tuple[int, int], path: Path, *, title: str = "Neighbours"
) -> None:
    """Heat maps of F1 over k, the number of neighbours, and m, the votes that a label needs.

    Parameters
    ----------
    grids : mapping of "micro_f1" and "macro_f1" to array of shape (K, K)
        From `shared.methods.neighbours.f1_grid`.
    best : (k, m)
        Marked with a cross.
    path : Path
    title : str
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, (name, grid) in zip(figure.subplots(1, len(grids)), grids.items(), strict=True):
        edge = len(grid) + 0.5
        image = axes.imshow(grid, origin="lower", cmap="viridis", extent=(0.5, edge, 0.5, edge))
        axes.plot(best[1], best[0], "x", color=ORANGE, ms=9, mew=2)
        axes.set(xlabel="m, votes needed", ylabel="k, neighbours")
        axes.set_title(f"{title}: {name.replace('_f1', '')} F1")
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True)
        figure.colorbar(image, ax=axes, shrink=0.85)
    save_figure(figure, path)


def plot_cutoffs(
    by_k: Mapping[str, np.ndarray],
    thresholds: np.ndarray,
    by_threshold: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    """F1 over the number of labels per text, and over the threshold on the score of a label.

    Parameters
    ----------
    by_k : mapping of "micro_f1" and "macro_f1" to array of shape (labels,)
        From `shared.evaluation.decisions.f1_by_top_k`.
    thresholds : array of shape (n,)
    by_threshold : mapping of the same metrics to array of shape (n,)
        From `shared.evaluation.decisions.f1_by_threshold`.
    path : Path
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, colour in (("micro_f1", BLUE), ("macro_f1", ORANGE)):
        ks = np.arange(1, len(by_k[name]) + 1)
        label = name.replace("_f1", " F1")
        left.plot(ks, by_k[name], color=colour, marker="o", ms=4, label=label)
        right.plot(thresholds, by_threshold[name], color=colour, label=label)
    left.set(xlabel="labels per text", ylabel="F1 on validation", title="The k best labels")
    left.xaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel="threshold", title="Labels with a score at or above the threshold")
    for axes in (left, right):
        axes.set_ylim(0, None)
        axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, *right.get_legend_handles_labels())
    save_figure(figure, path)
