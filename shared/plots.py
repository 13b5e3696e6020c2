"""Plots of a run, as PNG files. They need only arrays and mappings."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
MOST_TICKS = 9  # of a logarithmic axis


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
    figure, axes = _figure()
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
    _save(figure, path)


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
    fonts, undrawable = _fonts_for("".join(labels))
    numbers = {label: number for number, label in enumerate(total, 1) if {*label} & undrawable}
    if len(labels) < len(total):
        title = f"{title} (the {len(labels)} most frequent of {len(total):,})"
    # The height of the legend below the axes is added.
    figure, axes = _figure(height=1.4 + 0.3 * len(labels) + 0.25 * -(-len(parts) // LEGEND_COLUMNS))
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
    names = [f"label {numbers[label]}" if label in numbers else _short(label) for label in labels]
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
    _legend_below(figure, *axes.get_legend_handles_labels())
    _save(figure, path)


def _short(label: str) -> str:
    """Return a label that leaves most of the width to the bars."""
    return label if len(label) <= LABEL_WIDTH else f"{label[: LABEL_WIDTH - 1]}…"


def _script(character: str) -> str:
    """Return the script of a letter, such as THAI; of other signs "symbols"."""
    if not unicodedata.category(character).startswith(("L", "M")):
        return "symbols"
    return unicodedata.name(character, "UNKNOWN").split()[0]


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
    figure, axes = _figure()
    for key, label, colour in (
        ("loss", "training loss", GREY),
        ("eval_loss", "validation loss", BLUE),
    ):
        points = _points(log_history, key)
        if points:
            # Without a marker, a single point is invisible.
            marker = "o" if key == "eval_loss" or len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker, ms=4)
    axes.set(xlabel="epoch", ylabel="loss", title="Training", ylim=(0, None))
    points = _points(log_history, metric)
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
    _legend_below(figure, handles, names)
    _save(figure, path)


def plot_neighbour_grid(
    grids: Mapping[str, np.ndarray], best: tuple[int, int], path: Path, *, title: str = "Neighbours"
) -> None:
    """Heat maps of F1 over k, the number of neighbours, and m, the votes that a label needs.

    Parameters
    ----------
    grids : mapping of "micro_f1" and "macro_f1" to array of shape (K, K)
        From `shared.methods.neighbours.f1_grid`.
    best : (k, m)
        Marked with a cross.
    path : Path
    title : str
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, (name, grid) in zip(figure.subplots(1, len(grids)), grids.items(), strict=True):
        edge = len(grid) + 0.5
        image = axes.imshow(grid, origin="lower", cmap="viridis", extent=(0.5, edge, 0.5, edge))
        axes.plot(best[1], best[0], "x", color=ORANGE, ms=9, mew=2)
        axes.set(xlabel="m, votes needed", ylabel="k, neighbours")
        axes.set_title(f"{title}: {name.replace('_f1', '')} F1")
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True)
        figure.colorbar(image, ax=axes, shrink=0.85)
    _save(figure, path)


def plot_cutoffs(
    by_k: Mapping[str, np.ndarray],
    thresholds: np.ndarray,
    by_threshold: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    """F1 over the number of labels per text, and over the threshold on the score of a label.

    Parameters
    ----------
    by_k : mapping of "micro_f1" and "macro_f1" to array of shape (labels,)
        From `shared.evaluation.decisions.f1_by_top_k`.
    thresholds : array of shape (n,)
    by_threshold : mapping of the same metrics to array of shape (n,)
        From `shared.evaluation.decisions.f1_by_threshold`.
    path : Path
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, colour in (("micro_f1", BLUE), ("macro_f1", ORANGE)):
        ks = np.arange(1, len(by_k[name]) + 1)
        label = name.replace("_f1", " F1")
        left.plot(ks, by_k[name], color=colour, marker="o", ms=4, label=label)
        right.plot(thresholds, by_threshold[name], color=colour, label=label)
    left.set(xlabel="labels per text", ylabel="F1 on validation", title="The k best labels")
    left.xaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel="threshold", title="Labels with a score at or above the threshold")
    for axes in (left, right):
        axes.set_ylim(0, None)
        axes.spines[["top", "right"]].set_visible(False)
    _legend_below(figure, *right.get_legend_handles_labels())
    _save(figure, path)


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
    _legend_below(figure, list(handles.values()), list(handles))
    _save(figure, path)


def _spread_ticks(values: np.ndarray) -> list[int]:
    """Return those of ascending numbers whose names do not overlap on a logarithmic axis."""
    ticks = [int(values[-1])]
    least = np.log(values[-1] / values[0]) / MOST_TICKS
    for value in values[-2::-1]:
        if np.log(ticks[-1] / value) >= least:
            ticks.append(int(value))
    return ticks[::-1]


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
    figure, axes = _figure()
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
    _save(figure, path)


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
    _legend_below(figure, *all_axes[0].get_legend_handles_labels())
    _save(figure, path)


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
    _legend_below(figure, *grid[0, 0].get_legend_handles_labels())
    _save(figure, path)


def plot_next_tokens(probabilities: np.ndarray, tokens: Sequence[str], path: Path) -> None:
    """Heat map of the probability of each token after each other one.

    Parameters
    ----------
    probabilities : float array of shape (tokens, tokens)
        Row i: of the tokens after token i.
    tokens : sequence of str
        As they are to be shown.
    path : Path
    """
    size = 2.5 + 0.16 * len(tokens)
    figure, axes = _figure(size + 1, size)
    # The root makes small probabilities visible beside large ones.
    image = axes.imshow(np.sqrt(probabilities), cmap="Blues", vmin=0, vmax=1)
    fonts, undrawable = _fonts_for("".join(tokens))
    tokens = ["?" if {*token} & undrawable else token.replace("$", r"\$") for token in tokens]
    rotation = 90 if max(map(len, tokens)) > 2 else 0
    axes.set_xticks(range(len(tokens)), tokens, fontsize=7, family=fonts, rotation=rotation)
    axes.set_yticks(range(len(tokens)), tokens, fontsize=7, family=fonts)
    axes.set(xlabel="next token", ylabel="token", title="Probability of the next token")
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    shares = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    bar.set_ticks(list(np.sqrt(shares)), labels=[f"{share:g}" for share in shares])
    axes.grid(visible=False)
    _save(figure, path)


def plot_image_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    path: Path,
    *,
    boxes: Sequence[Sequence[tuple[Sequence[float], str, str]]] | None = None,
    columns: int = 6,
) -> None:
    """Images side by side, each with a caption above it.

    Parameters
    ----------
    images : sequence of uint8 arrays of shape (height, width, 3)
    captions : sequence of str
    path : Path
    boxes : sequence, optional
        For each image, what to draw: x1, y1, x2, y2 in pixels, a colour, and a word beside the box.
    columns : int, default 6
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = images[0].shape[:2]
    lines = max(caption.count("\n") for caption in captions) + 1
    side = 12 / columns
    figure = Figure(
        figsize=(12, rows * (side * height / width + 0.22 * lines)), layout="constrained"
    )
    fonts, _ = _fonts_for("".join(captions))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, axes in enumerate(grid):
        axes.axis("off")
        if number >= len(images):
            continue
        axes.imshow(images[number], interpolation="nearest")
        axes.set_title(captions[number], fontsize=9, parse_math=False, fontfamily=fonts)
        for (x1, y1, x2, y2), colour, word in boxes[number] if boxes is not None else ():
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.2))
            axes.annotate(
                word, (x1, y1), (1, 1), textcoords="offset points", color=colour, fontsize=6
            )
    _save(figure, path)


def _points(log_history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Return (epoch, value) of the entries with a finite value."""
    return [
        (entry["epoch"], entry[key])
        for entry in log_history
        if key in entry and np.isfinite(entry[key])
    ]


def _legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Place the legend below the axes, where it covers nothing."""
    if handles:
        columns = min(LEGEND_COLUMNS, len(handles))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def _figure(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Axes]:
    # Figure() instead of pyplot: it needs no window system and keeps no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _fonts_for(text: str) -> tuple[list[str], set[str]]:
    """Return font families that draw a text together, and the characters that none of them has.

    The default family comes first; matplotlib takes each character from the first family that has
    it. Other fonts are only searched for characters that the default one lacks.
    """
    from matplotlib import font_manager, rcParams

    def characters(path: Any) -> set[int]:
        return {*font_manager.get_font(path).get_charmap()}

    # Spaces, and signs that change the form of others, need no glyph.
    missing = {ord(c) for c in text if not c.isspace() and unicodedata.category(c) != "Cf"}
    missing -= characters(font_manager.findfont(font_manager.FontProperties()))
    families = list(rcParams["font.family"])
    if missing:
        # Of the fonts of a family, matplotlib draws with the one of the usual weight; put it last.
        usual = (400, "normal", "regular")
        fonts = sorted(font_manager.fontManager.ttflist, key=lambda font: font.weight in usual)
        coverage = {
            font.name: missing & characters(font.fname)
            for font in fonts
            # The font of last resort has a box for each character.
            if font.style == "normal" and not font.name.startswith("Last Resort")
        }
        while missing and coverage:
            best = max(coverage, key=lambda name: len(coverage[name] & missing))
            if not coverage[best] & missing:
                break
            families.append(best)
            missing -= coverage[best]
    return families, {chr(code) for code in missing}


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        # Warnings about characters that the font lacks and about labels that are too long.
        warnings.simplefilter("ignore", UserWarning)
        with atomic_write(path, "wb") as file:
            figure.savefig(file, dpi=150, format=path.suffix[1:])
