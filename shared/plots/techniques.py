"""Plots that compare settings of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.plots.figures import LEGEND_COLUMNS, SERIES, legend_below, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_setting_curves(
    curves: Mapping[str, Mapping[str, Sequence[float | None]]],
    path: Path,
    *,
    score: str,
    title: str,
) -> None:
    """Training loss, validation loss and score over the steps, one line per setting.

    Parameters
    ----------
    curves : mapping of setting to mapping of "step", "train", "valid" and "score" to values
        None is a gap. A setting without steps is named only.
    path : Path
    score : str
        What the score is.
    title : str
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2 + 0.22 * -(-len(curves) // LEGEND_COLUMNS)))
    figure.set_layout_engine("constrained")
    names = {"train": "training loss", "valid": "validation loss", "score": score}
    all_axes = figure.subplots(1, len(names))
    for axes, (key, name) in zip(all_axes, names.items(), strict=True):
        for i, (setting, lines) in enumerate(curves.items()):
            colour, marker = SERIES[i % len(SERIES)]
            values = np.array(lines[key], dtype=float)
            label = setting if len(values) else f"{setting} (diverged)"
            axes.plot(lines["step"], values, color=colour, marker=marker, ms=3, lw=1.2, label=label)
        axes.set(xlabel="step", title=name)
        _cut_outliers(axes, [line[key] for line in curves.values()])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    legend_below(figure, *all_axes[0].get_legend_handles_labels())
    save_figure(figure, path)


def _cut_outliers(axes: Axes, lines: Sequence[Sequence[float | None]]) -> None:
    """End the axis at twice the range of the middle values, so that one line hides no others."""
    values = np.array([value for line in lines for value in line if value is not None])
    if len(values):
        low, middle, high = np.percentile(values, [0, 50, 95])
        top = min(values.max(), max(high, middle + 2 * (middle - low)))
        margin = 0.05 * (top - low) or 0.05
        axes.set_ylim(low - margin, top + margin)


def plot_layer_magnitudes(
    signals: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]],
    edges: np.ndarray,
    path: Path,
) -> None:
    """Histograms of the sizes of activations and gradients, a line per layer, a column per setting.

    Parameters
    ----------
    signals : mapping of setting to layer to "activations" and "gradients"
        Each with ``magnitudes``, the share of the values between two edges, and ``zeros``.
    edges : array of shape (bins + 1,)
        Powers of ten.
    path : Path
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(signals) + 0.8, 5.4), layout="constrained")
    grid = figure.subplots(2, len(signals), sharex=True, sharey="row", squeeze=False)
    for column, (setting, layers) in enumerate(signals.items()):
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(layers)))
        for row, quantity in enumerate(("activations", "gradients")):
            axes = grid[row, column]
            for (layer, shapes), colour in zip(layers.items(), colours, strict=True):
                axes.stairs(shapes[quantity]["magnitudes"], edges, color=colour, label=layer)
            zeros = [shapes[quantity]["zeros"] for shapes in layers.values()]
            axes.annotate(
                f"0: {min(zeros):.0%} to {max(zeros):.0%}",
                (0.03, 0.97),
                xycoords="axes fraction",
                va="top",
                fontsize=8,
            )
            axes.xaxis.set_major_formatter(lambda power, _: f"$10^{{{power:.0f}}}$")
            axes.spines[["top", "right"]].set_visible(False)
        grid[0, column].set_title(setting)
        grid[1, column].set_xlabel("size (log scale)")
    grid[0, 0].set_ylabel("activations")
    grid[1, 0].set_ylabel("gradients")
    figure.suptitle("Before training: sizes of the values of each layer, and share of zeros")
    legend_below(figure, *grid[0, 0].get_legend_handles_labels())
    save_figure(figure, path)
