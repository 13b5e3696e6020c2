"""Plots that compare methods by the number of labelled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from shared.plots.figures import SERIES, legend_below, save_figure

MOST_TICKS = 9  # of a logarithmic axis


def plot_learning_curves(
    curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    n_rows: np.ndarray,
    path: Path,
    *,
    flat: Sequence[str] = (),
) -> None:
    """Metrics over the size of the training set (log scale), one line per method.

    A band shows the spread of a method.

    Parameters
    ----------
    curves : mapping of method to mapping of metric to (mean, spread)
        Arrays of shape (sizes,); NaN where there is no value. All methods have the same metrics;
        each metric is drawn in axes of its own.
    n_rows : array of shape (sizes,)
        Training rows, in ascending order.
    path : Path
    flat : sequence of str
        Methods that do not learn from labelled rows; their lines are dashed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6 + 0.22 * -(-len(curves) // 4)), layout="constrained")
    metrics = next(iter(curves.values()))
    all_axes = figure.subplots(1, len(metrics), sharex=True, squeeze=False)[0]
    for axes, metric in zip(all_axes, metrics, strict=True):
        for i, (method, values) in enumerate(curves.items()):
            colour, marker = SERIES[i % len(SERIES)]
            mean, spread = values[metric]
            if not np.isfinite(mean).any():
                continue
            line = "--" if method in flat else "-"
            axes.plot(n_rows, mean, line, color=colour, marker=marker, ms=5, label=method)
            axes.fill_between(n_rows, mean - spread, mean + spread, color=colour, alpha=0.13, lw=0)
        axes.set_xscale("log")
        ticks = _spread_ticks(n_rows)
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        axes.set(xlabel="training texts (log scale)", ylim=(0, None))
        axes.set_title(metric.replace("_f1", " F1"))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Test metrics by number of training texts")
    # A method may have values of only one of the metrics.
    handles = {
        name: handle
        for axes in all_axes
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    legend_below(figure, list(handles.values()), list(handles))
    save_figure(figure, path)


def _spread_ticks(values: np.ndarray) -> list[int]:
    """Return those of ascending numbers whose names do not overlap on a logarithmic axis."""
    ticks = [int(values[-1])]
    least = np.log(values[-1] / values[0]) / MOST_TICKS
    for value in values[-2::-1]:
        if np.log(ticks[-1] / value) >= least:
            ticks.append(int(value))
    return ticks[::-1]
