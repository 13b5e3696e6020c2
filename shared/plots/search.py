"""Plots of a hyper-parameter search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.plots.figures import GREY, save_figure, short_label


def plot_search(trials: Sequence[Mapping[str, Any]], path: Path, *, score: str) -> None:
    """Scores of trials in their order, and by the value of each flag, one panel each.

    Parameters
    ----------
    trials : sequence of mappings
        With "trial" (its number), "score" (None: not drawn) and "values" (flag to value).
    path : Path
    score : str
        What the score is.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = [trial for trial in trials if trial["score"] is not None]
    scores = [trial["score"] for trial in drawn]
    order = [trial["trial"] for trial in drawn]
    names = list(drawn[0]["values"])
    columns = min(3, len(names) + 1)
    rows = -(-(len(names) + 1) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, name in zip(panels, ["trial", *names], strict=False):
        values = order if name == "trial" else [trial["values"][name] for trial in drawn]
        if any(isinstance(value, str) for value in values):
            choices = sorted({*values})
            axes.set_xticks(range(len(choices)), [short_label(choice) for choice in choices])
            values = [choices.index(value) for value in values]
            axes.set_xlim(-0.5, len(choices) - 0.5)
        elif name == "trial":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        elif min(values) > 0 and max(values) >= 30 * min(values):
            axes.set_xscale("log")
        # Later trials are darker: the sampler goes where the scores are good.
        axes.scatter(values, scores, c=order, cmap="Blues", vmin=-len(order) / 2, edgecolors=GREY)
        axes.set_xlabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(names) + 1 :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(score)
    save_figure(figure, path)
