"""Plots of the training of a generator and a discriminator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.plots.figures import BLUE, GREY, ORANGE, save_figure
from shared.plots.training import epoch_points


def plot_adversarial_curve(
    log_history: Sequence[Mapping[str, Any]], path: Path, *, metric: str = "frechet_distance"
) -> None:
    """Losses of generator and discriminator, its accuracy, and a metric of the samples, by epoch.

    Parameters
    ----------
    log_history : sequence of mappings
        Of an `shared.training.adversarial.AdversarialTrainer`.
    path : Path
    metric : str
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    parts = {
        "loss": {"generator_loss": BLUE, "discriminator_loss": ORANGE},
        "accuracy of the discriminator": {"discriminator_accuracy": ORANGE},
        metric.replace("_", " "): {f"eval_{metric}": BLUE},
    }
    for axes, (title, lines) in zip(figure.subplots(1, len(parts)), parts.items(), strict=True):
        for key, colour in lines.items():
            if points := epoch_points(log_history, key):
                marker = "o" if len(points) < 30 else None
                label = key.removesuffix("_loss")
                axes.plot(
                    *zip(*points, strict=True), color=colour, marker=marker, ms=3, label=label
                )
        axes.set(xlabel="epoch", title=title)
        if len(lines) > 1:
            axes.legend(frameon=False)
        if "accuracy" in title:
            axes.set_ylim(0, 1)
            axes.axhline(0.5, color=GREY, lw=1, ls="--")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
