"""Plots of predicted numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shared.plots.figures import BLUE, GREY, new_figure, save_figure, short_label


def plot_predicted_numbers(y_true: np.ndarray, y_pred: np.ndarray, name: str, path: Path) -> None:
    """Predicted numbers against the true ones, with the line on which they are equal.

    Parameters
    ----------
    y_true, y_pred : float arrays of shape (rows,)
    name : str
        What the numbers are.
    path : Path
    """
    figure, axes = new_figure(5.5, 5.0)
    low = min(y_true.min(), y_pred.min())
    high = max(y_true.max(), y_pred.max())
    axes.plot([low, high], [low, high], color=GREY, lw=1)
    axes.plot(y_true, y_pred, "o", color=BLUE, ms=4, alpha=0.4, lw=0)
    shown = short_label(name).replace("$", r"\$")
    axes.set(xlabel=f"true {shown}", ylabel=f"predicted {shown}", title="Test rows")
    axes.grid(alpha=0.25)
    save_figure(figure, path)
