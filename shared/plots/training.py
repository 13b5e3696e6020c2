"""Plots of one training: losses and a metric by epoch, and the learning-rate range test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.plots.figures import BLUE, GREY, ORANGE, legend_below, new_figure, save_figure


def plot_training_curve(
    log_history: Sequence[Mapping[str, Any]], path: Path, *, metric: str = "eval_micro_f1"
) -> None:
    """Training loss and validation loss by epoch, with a validation metric on a second axis.

    Parameters
    ----------
    log_history : sequence of mappings
        ``trainer.state.log_history``.
    path : Path
    metric : str
        Key of the validation metric.
    """
    figure, axes = new_figure()
    for key, label, colour in (
        ("loss", "training loss", GREY),
        ("eval_loss", "validation loss", BLUE),
    ):
        points = epoch_points(log_history, key)
        if points:
            # Without a marker, a single point is invisible.
            marker = "o" if key == "eval_loss" or len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker, ms=4)
    axes.set(xlabel="epoch", ylabel="loss", title="Training", ylim=(0, None))
    points = epoch_points(log_history, metric)
    handles, names = axes.get_legend_handles_labels()
    if points:
        right = axes.twinx()
        name = "validation " + metric.removeprefix("eval_").replace("_", " ").replace("f1", "F1")
        right.plot(*zip(*points, strict=True), color=ORANGE, label=name, marker="o", ms=4)
        best = max(points, key=lambda point: point[1])
        right.annotate(f"{best[1]:.3f}", best, (0, 7), textcoords="offset points", ha="center")
        right.set(ylim=(0, 1), ylabel=name)
        right.spines[["top"]].set_visible(False)
        handles, names = (
            handles + right.get_legend_handles_labels()[0],
            names + right.get_legend_handles_labels()[1],
        )
    legend_below(figure, handles, names)
    save_figure(figure, path)


def plot_rate_test(
    rates: np.ndarray, losses: np.ndarray, path: Path, *, used: float, suggested: float
) -> None:
    """Loss over a learning rate that rises with every step (log scale), with two rates marked.

    Parameters
    ----------
    rates, losses : array of shape (steps,)
    path : Path
    used : float
        The learning rate of the run.
    suggested : float
        The learning rate that the curve suggests.
    """
    figure, axes = new_figure()
    axes.plot(rates, losses, color=BLUE, alpha=0.6, lw=1.2, marker=".", ms=4)
    marks = {"set": (used, ORANGE, "-"), "suggested": (suggested, GREY, "--")}
    for i, (name, (rate, colour, line)) in enumerate(marks.items()):
        axes.axvline(rate, color=colour, lw=1.2, ls=line)
        axes.annotate(
            f"{name} {rate:.0e}",
            (rate, 0.97 - 0.08 * i),
            (4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=colour,
            va="top",
        )
    axes.set_xscale("log")
    axes.set(xlabel="learning rate (log scale)", ylabel="loss", title="Learning-rate range test")
    save_figure(figure, path)


def epoch_points(log_history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Return (epoch, value) of the entries with a finite value."""
    return [
        (entry["epoch"], entry[key])
        for entry in log_history
        if key in entry and np.isfinite(entry[key])
    ]
