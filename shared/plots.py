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
            axes.set_xticks(range(len(choices)), [_short(choice) for choice in choices])
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
    _legend_below(figure, list(handles.values()), list(handles))
    _save(figure, path)


def plot_step_errors(errors: Sequence[Mapping[str, float]], path: Path) -> None:
    """Mean squared error by the number of steps ahead, a line for each method.

    Parameters
    ----------
    errors : sequence of mappings
        One for each step, with ``step`` and the error of each method.
    path : Path
    """
    figure, axes = _figure()
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
    _legend_below(figure, *axes.get_legend_handles_labels())
    _save(figure, path)


def plot_task_scores(
    scores: Mapping[str, Mapping[str, Sequence[float]]], path: Path, *, title: str
) -> None:
    """Figures of several tasks: a group of dots for each task, one row for each model.

    Parameters
    ----------
    scores : mapping of task to mapping of model to its figures, one for each seed
        All tasks have the same models; a model without a figure has an empty sequence.
    path : Path
    title : str
    """
    models = list(next(iter(scores.values())))
    figure, axes = _figure(7.0, 1.4 + len(scores) * (0.35 + 0.3 * len(models)))
    for number, figures in enumerate(scores.values()):
        for i, (model, values) in enumerate(figures.items()):
            if not len(values):
                continue
            colour, marker = SERIES[i % len(SERIES)]
            y = number + 0.7 * (i + 0.5) / len(models) - 0.35
            mean = float(np.mean(values))
            label = model if number == 0 else None
            axes.plot(values, [y] * len(values), marker, color=colour, ms=4, alpha=0.4, lw=0)
            axes.plot(mean, y, marker, color=colour, ms=8, lw=0, label=label)
            axes.annotate(f"{mean:.3f}", (mean, y), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(scores)), [_short(task).replace("$", r"\$") for task in scores])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(alpha=0.25, axis="x")
    axes.set(title=title)
    _legend_below(figure, *axes.get_legend_handles_labels())
    _save(figure, path)


def plot_importance(importances: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Horizontal bars of the importance of each column: the mean over folds, and their range.

    With more than 30 columns, the 30 most important ones are shown.

    Parameters
    ----------
    importances : float array of shape (folds, columns)
        See `shared.evaluation.importance.permutation_importance`.
    names : sequence of str
    path : Path
    """
    mean = importances.mean(axis=0)
    order = np.argsort(mean, kind="stable")[-30:]
    figure, axes = _figure(height=1.4 + 0.26 * len(order))
    axes.barh(np.arange(len(order)), mean[order], color=BLUE)
    axes.hlines(
        *(np.arange(len(order)), importances.min(axis=0)[order], importances.max(axis=0)[order]),
        color=ORANGE,
        lw=1.5,
    )
    fonts, _ = _fonts_for("".join(names))
    axes.set_yticks(
        np.arange(len(order)),
        [_short(names[column]) for column in order],
        parse_math=False,
        fontfamily=fonts,
    )
    title = "Importance of columns"
    if len(order) < len(names):
        title += f" (the {len(order)} highest of {len(names):,})"
    axes.set(xlabel="rise of the log loss when shuffled (line: range over folds)", title=title)
    _save(figure, path)


def plot_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Confusion matrix: colours are the share of each true class, numbers are rows.

    With more than 20 classes the numbers are left out.

    Parameters
    ----------
    counts : int array of shape (classes, classes)
        Rows of class i that were predicted as class j.
    names : sequence of str
    path : Path
    """
    size = 2.8 + 0.45 * min(len(names), 30)
    figure, axes = _figure(size + 1, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 20:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.annotate(f"{count:,}", (j, i), ha="center", va="center", color=colour, fontsize=9)
    fonts, _ = _fonts_for("".join(names))
    shown = [_short(name) for name in names]
    style: dict[str, Any] = {"parse_math": False, "fontfamily": fonts}
    axes.set_xticks(range(len(names)), shown, rotation=90 if len(names) > 3 else 0, **style)
    axes.set_yticks(range(len(names)), shown, **style)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    _save(figure, path)


def plot_reliability(points: Mapping[str, np.ndarray], path: Path) -> None:
    """Reliability diagram: the share of right predictions over the score of the predicted class.

    Parameters
    ----------
    points : mapping of "score", "share" and "count" to array of shape (bins,)
        From `shared.evaluation.reliability.reliability`.
    path : Path
    """
    figure, axes = _figure(5.2, 4.6)
    axes.plot([0, 1], [0, 1], "--", color=GREY, lw=1, label="calibrated")
    axes.plot(points["score"], points["share"], color=BLUE, lw=1)
    areas = 12 + 240 * points["count"] / points["count"].sum()
    axes.scatter(points["score"], points["share"], s=areas, color=BLUE, label="rows (area)")
    axes.set(xlabel="score of the predicted class", ylabel="share that is right", ylim=(0, 1.03))
    axes.set(xlim=(min(points["score"].min(), 0.5) - 0.03, 1.03), title="Reliability")
    _legend_below(figure, *axes.get_legend_handles_labels())
    _save(figure, path)


def plot_trade_off(
    points: Mapping[float, tuple[float, float]],
    alone: tuple[float, float] | None,
    names: tuple[str, str],
    path: Path,
) -> None:
    """Two figures against each other, one point for each weight of the first task.

    Parameters
    ----------
    points : mapping of weight to the figures of the first and of the second task
    alone : pair of float, optional
        Those of a model for each task, drawn as lines.
    names : pair of str
        What the figures are.
    path : Path
    """
    figure, axes = _figure(6.0, 5.0)
    weights = sorted(points)
    x, y = np.array([points[weight] for weight in weights]).T
    axes.plot(x, y, color=BLUE, marker="o", ms=6, lw=1, label="both tasks, by weight of the first")
    for weight, point in points.items():
        axes.annotate(f"{weight:g}", point, (7, 5), textcoords="offset points")
    if alone is not None:
        axes.axvline(alone[0], color=ORANGE, ls="--", lw=1.2, label="a model for each task")
        axes.axhline(alone[1], color=ORANGE, ls="--", lw=1.2)
    axes.margins(0.15)
    axes.grid(alpha=0.25)
    axes.set(xlabel=names[0], ylabel=names[1], title="Trade-off between two tasks")
    _legend_below(figure, *axes.get_legend_handles_labels())
    _save(figure, path)


def plot_predicted_numbers(y_true: np.ndarray, y_pred: np.ndarray, name: str, path: Path) -> None:
    """Predicted numbers against the true ones, with the line on which they are equal.

    Parameters
    ----------
    y_true, y_pred : float arrays of shape (rows,)
    name : str
        What the numbers are.
    path : Path
    """
    figure, axes = _figure(5.5, 5.0)
    low = min(y_true.min(), y_pred.min())
    high = max(y_true.max(), y_pred.max())
    axes.plot([low, high], [low, high], color=GREY, lw=1)
    axes.plot(y_true, y_pred, "o", color=BLUE, ms=4, alpha=0.4, lw=0)
    shown = _short(name).replace("$", r"\$")
    axes.set(xlabel=f"true {shown}", ylabel=f"predicted {shown}", title="Test rows")
    axes.grid(alpha=0.25)
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
            if points := _points(log_history, key):
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
    _save(figure, path)


def write_image_grid(
    images: np.ndarray, path: Path, *, columns: int | None = None, side: int = 640
) -> None:
    """Write images as the tiles of one picture.

    Parameters
    ----------
    images : uint8 array of shape (images, height, width, 3)
    path : Path
    columns : int, optional
        Default: as many as rows.
    side : int, default 640
        Pixels of the width, about: each pixel is enlarged by a whole number.
    """
    from PIL import Image

    n, height, width = images.shape[:3]
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 128, np.uint8)
    for number, image in enumerate(images):
        top, left = (
            place * (size + 1) + 1
            for place, size in zip(divmod(number, columns), (height, width), strict=True)
        )
        grid[top : top + height, left : left + width] = image
    scale = max(1, round(side / grid.shape[1]))
    with atomic_write(path, "wb") as file:
        Image.fromarray(grid.repeat(scale, axis=0).repeat(scale, axis=1)).save(file, "PNG")


def write_animation(paths: Sequence[Path], path: Path, *, seconds: float = 6.0) -> None:
    """Write pictures of one size as a GIF that repeats; the last one stays longer.

    Parameters
    ----------
    paths : sequence of Path
    path : Path
    seconds : float, default 6
        Of all but the last picture.
    """
    from PIL import Image

    frames = [Image.open(file).convert("P", palette=Image.Palette.ADAPTIVE) for file in paths]
    times = [max(40, int(1000 * seconds / len(frames)))] * len(frames)
    times[-1] = 2000
    with atomic_write(path, "wb") as file:
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)


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
