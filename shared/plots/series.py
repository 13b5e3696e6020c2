"""Plots of time series and their forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.plots.figures import GREY, SERIES, legend_below, new_figure, save_figure


def plot_forecasts(
    panels: Sequence[tuple[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]],
    path: Path,
    *,
    n_columns: int,
) -> None:
    """Lines over time, a panel for each piece of a series.

    Parameters
    ----------
    panels : sequence of (title, lines)
        Lines are given as x (numbers or datetime64) and y, by name. The first is the actual values.
    path : Path
    n_columns : int
        Panels side by side.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(1.5 + 4.0 * n_columns, 0.8 + 2.3 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    handles: dict[str, Any] = {}
    for axes, (title, lines) in zip(grid.flat, panels, strict=False):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title.replace("$", r"\$"), fontsize=9)
        for i, (name, (x, y)) in enumerate(lines.items()):
            colour = GREY if i == 0 else SERIES[i - 1][0]
            # Without a marker, a single point is invisible.
            marker = "o" if len(x) == 1 else None
            (line,) = axes.plot(x, y, color=colour, lw=1.2, marker=marker, ms=3, label=name)
            handles.setdefault(name, line)
        if any(np.issubdtype(x.dtype, np.datetime64) for x, _ in lines.values()):
            locator = AutoDateLocator(minticks=3, maxticks=6)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.tick_params(labelsize=8)
    legend_below(figure, list(handles.values()), list(handles))
    save_figure(figure, path)


def plot_step_errors(errors: Sequence[Mapping[str, float]], path: Path) -> None:
    """Mean squared error by the number of steps ahead, a line for each method.

    Parameters
    ----------
    errors : sequence of mappings
        One for each step, with ``step`` and the error of each method.
    path : Path
    """
    figure, axes = new_figure()
    steps = [row["step"] for row in errors]
    for (colour, marker), name in zip(SERIES, (n for n in errors[0] if n != "step"), strict=False):
        every = max(len(errors) // 20, 1)
        values = [row[name] for row in errors]
        axes.plot(steps, values, color=colour, label=name, marker=marker, ms=4, markevery=every)
    axes.set(
        xlabel="steps ahead",
        ylabel="mean squared error (scaled)",
        title="Test errors",
        ylim=(0, None),
    )
    legend_below(figure, *axes.get_legend_handles_labels())
    save_figure(figure, path)
