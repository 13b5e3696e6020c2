"""Plots of a model of several tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from shared.plots.figures import (
    BLUE,
    ORANGE,
    SERIES,
    legend_below,
    new_figure,
    save_figure,
    short_label,
)


def plot_task_scores(
    scores: Mapping[str, Mapping[str, Sequence[float]]], path: Path, *, title: str
) -> None:
    """Figures of several tasks: a group of dots for each task, one row for each model.

    Parameters
    ----------
    scores : mapping of task to mapping of model to its figures, one for each seed
        All tasks have the same models; a model without a figure has an empty sequence.
    path : Path
    title : str
    """
    models = list(next(iter(scores.values())))
    figure, axes = new_figure(7.0, 1.4 + len(scores) * (0.35 + 0.3 * len(models)))
    for number, figures in enumerate(scores.values()):
        for i, (model, values) in enumerate(figures.items()):
            if not len(values):
                continue
            colour, marker = SERIES[i % len(SERIES)]
            y = number + 0.7 * (i + 0.5) / len(models) - 0.35
            mean = float(np.mean(values))
            label = model if number == 0 else None
            axes.plot(values, [y] * len(values), marker, color=colour, ms=4, alpha=0.4, lw=0)
            axes.plot(mean, y, marker, color=colour, ms=8, lw=0, label=label)
            axes.annotate(f"{mean:.3f}", (mean, y), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(scores)), [short_label(task).replace("$", r"\$") for task in scores])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(alpha=0.25, axis="x")
    axes.set(title=title)
    legend_below(figure, *axes.get_legend_handles_labels())
    save_figure(figure, path)


def plot_trade_off(
    points: Mapping[float, tuple[float, float]],
    alone: tuple[float, float] | None,
    names: tuple[str, str],
    path: Path,
) -> None:
    """Two figures against each other, one point for each weight of the first task.

    Parameters
    ----------
    points : mapping of weight to the figures of the first and of the second task
    alone : pair of float, optional
        Those of a model for each task, drawn as lines.
    names : pair of str
        What the figures are.
    path : Path
    """
    figure, axes = new_figure(6.0, 5.0)
    weights = sorted(points)
    x, y = np.array([points[weight] for weight in weights]).T
    axes.plot(x, y, color=BLUE, marker="o", ms=6, lw=1, label="both tasks, by weight of the first")
    for weight, point in points.items():
        axes.annotate(f"{weight:g}", point, (7, 5), textcoords="offset points")
    if alone is not None:
        axes.axvline(alone[0], color=ORANGE, ls="--", lw=1.2, label="a model for each task")
        axes.axhline(alone[1], color=ORANGE, ls="--", lw=1.2)
    axes.margins(0.15)
    axes.grid(alpha=0.25)
    axes.set(xlabel=names[0], ylabel=names[1], title="Trade-off between two tasks")
    legend_below(figure, *axes.get_legend_handles_labels())
    save_figure(figure, path)
