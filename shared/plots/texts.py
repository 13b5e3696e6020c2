"""Plots of labelled texts: their lengths, and how many have each label."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.plots.figures import (
    BLUE,
    GREY,
    LEGEND_COLUMNS,
    ORANGE,
    legend_below,
    new_figure,
    save_figure,
    short_label,
)
from shared.plots.fonts import fonts_for


def plot_words_per_text(
    n_words: np.ndarray, path: Path, *, max_words: int | None = None, title: str = "Words per text"
) -> None:
    """Histogram of text lengths in words, on a logarithmic axis, with median and 95th percentile.

    Parameters
    ----------
    n_words : array of shape (rows,)
    path : Path
    max_words : int, optional
        Length at which the model truncates a text, marked in the plot.
    title : str
    """
    figure, axes = new_figure()
    words = np.maximum(np.asarray(n_words), 1)
    edges = np.geomspace(1, max(words.max(), 10), 40)
    # Short texts make several edges equal after rounding; each is needed once.
    axes.hist(words, bins=np.unique(np.round(edges, 3)).tolist(), color=BLUE, alpha=0.85)
    axes.set_xscale("log")
    marks = {"median": np.median(words), "95 %": np.percentile(words, 95)}
    if max_words is not None:
        marks["model reads to about"] = max_words
    top = axes.get_ylim()[1]
    for i, (name, value) in enumerate(marks.items()):
        axes.axvline(value, color=ORANGE, linewidth=1.2, linestyle="-" if i == 0 else "--")
        axes.annotate(
            f"{name} {value:,.0f}",
            (value, top * (0.97 - 0.09 * i)),
            (4, 0),
            textcoords="offset points",
            color=ORANGE,
            va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        )
    axes.set(xlabel="words (log scale)", ylabel="texts", title=title)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    save_figure(figure, path)


def plot_label_counts(
    counts: Mapping[str, Mapping[str, int]], path: Path, *, title: str = "Texts per label"
) -> None:
    """Horizontal bars of the number of texts with each label, stacked by part of the data.

    With more than 100 labels, the 100 most frequent are shown. A label that no installed font can
    draw appears by its number in `counts`, counted from 1, and a note says so.

    Parameters
    ----------
    counts : mapping of part ("train", ..., or any number of folds) to mapping of label to count
    path : Path
    title : str
    """
    parts = list(counts)
    total = {label: sum(counts[part][label] for part in parts) for label in counts[parts[0]]}
    labels = sorted(total, key=lambda label: total[label])[-100:]
    fonts, undrawable = fonts_for("".join(labels))
    numbers = {label: number for number, label in enumerate(total, 1) if {*label} & undrawable}
    if len(labels) < len(total):
        title = f"{title} (the {len(labels)} most frequent of {len(total):,})"
    # The height of the legend below the axes is added.
    figure, axes = new_figure(
        height=1.4 + 0.3 * len(labels) + 0.25 * -(-len(parts) // LEGEND_COLUMNS)
    )
    positions, left = np.arange(len(labels)), np.zeros(len(labels))
    colours: Sequence[Any] = (BLUE, ORANGE, GREY)[: len(parts)]
    if len(parts) > len(colours):  # the folds of a cross-validation
        import matplotlib

        colours = list(matplotlib.colormaps["viridis"](np.linspace(0.1, 0.9, len(parts))))
    for part, colour in zip(parts, colours, strict=True):
        widths = np.array([counts[part][label] for label in labels])
        if not widths.any():
            continue  # so that the legend names only what is drawn
        axes.barh(positions, widths, left=left, color=colour, label=part)
        left += widths
    names = [
        f"label {numbers[label]}" if label in numbers else short_label(label) for label in labels
    ]
    # A label may contain $.
    axes.set_yticks(positions, names, parse_math=False, fontfamily=fonts)
    for position, label in enumerate(labels):
        axes.annotate(f" {total[label]:,}", (left[position], position), va="center", fontsize=9)
    # Room for the numbers on the right. The default margins grow with the number of bars.
    axes.set(xlim=(0, 1.1 * max(1, left.max())), ylim=(-0.6, len(labels) - 0.4))
    note = ""
    if numbers:
        scripts = sorted({_script(character) for character in undrawable})
        scripts[4:] = ["others"] * (len(scripts) > 4)
        note = f"\nno installed font draws {', '.join(scripts)}; install one, such as Noto;"
        note += "\nnumbers are rows of per_label.csv"
    axes.set(xlabel=f"texts{note}", title=title)
    legend_below(figure, *axes.get_legend_handles_labels())
    save_figure(figure, path)


def _script(character: str) -> str:
    """Return the script of a letter, such as THAI; of other signs "symbols"."""
    if not unicodedata.category(character).startswith(("L", "M")):
        return "symbols"
    return unicodedata.name(character, "UNKNOWN").split()[0]
