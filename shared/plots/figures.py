"""Figures without a window system: size, colours, labels, legend, and how they are saved."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_WIDTH = 40  # characters of a label on an axis
BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#8a8f98"
# Ten colours with a marker each, so that lines differ also for readers who are colour-blind.
SERIES = tuple(
    zip(
        (
            *(BLUE, ORANGE, "#3a9d6b", "#a23b72", "#4c4c4c"),
            *("#d4a017", "#6a5acd", "#c0392b", "#17a2b8", GREY),
        ),
        "osD^vPX*<>",
        strict=True,
    )
)
LEGEND_COLUMNS = 4


def new_figure(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return a figure of a size in inches, with axes that have no frame above and on the right."""
    # Figure() instead of pyplot: it needs no window system and keeps no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Place the legend below the axes, where it covers nothing."""
    if handles:
        columns = min(LEGEND_COLUMNS, len(handles))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def short_label(label: str, width: int = LABEL_WIDTH) -> str:
    """Return a label that leaves most of the width to the plot."""
    return label if len(label) <= width else f"{label[: width - 1]}…"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's ending, at 150 dots per inch."""
    with warnings.catch_warnings():
        # Warnings about characters that the font lacks and about labels that are too long.
        warnings.simplefilter("ignore", UserWarning)
        with atomic_write(path, "wb") as file:
            figure.savefig(file, dpi=150, format=path.suffix[1:])
