import warnings
from pathlib import Path

import numpy as np
import pytest

from shared.plots import (
    plot_forecasts,
    plot_label_counts,
    plot_learning_curves,
    plot_next_tokens,
    plot_step_errors,
    plot_training_curve,
    plot_words_per_text,
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def png_size(path):
    """Return width and height from the header of a PNG file."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_every_part_has_its_share_of_the_bars(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("shared.plots._save", lambda figure, path: figures.append(figure))
    counts = {f"fold {number}": {"a": 3, "b": number} for number in range(5)}
    plot_label_counts(counts, tmp_path / "plot.png")
    (axes,) = figures[0].axes
    ends = [bar.get_x() + bar.get_width() for bars in axes.containers for bar in bars]
    assert max(ends) == 15
    assert len({bars[0].get_facecolor() for bars in axes.containers}) == 5


def drawn_labels(monkeypatch, counts):
    """Return the names beside the bars, the first at the bottom, and the text below the plot."""
    figures = []
    monkeypatch.setattr("shared.plots._save", lambda figure, path: figures.append(figure))
    plot_label_counts(counts, Path("plot.png"))
    (axes,) = figures[0].axes
    return [label.get_text() for label in axes.get_yticklabels()], axes.get_xlabel(), axes


UNUSUAL = "\U0001333f"  # an Egyptian hieroglyph, which no usual font has
STIX_ONLY = "\u1d81"  # in a font that comes with matplotlib, but not in its default font


def test_labels_that_no_font_can_draw_are_numbered(monkeypatch, tmp_path):
    counts = {"train": {"bug": 1, f"{UNUSUAL} x": 2, "спорт": 3}}
    names, note, _ = drawn_labels(monkeypatch, counts)
    assert names == ["bug", "label 2", "спорт"]
    assert "no installed font draws EGYPTIAN" in note
    monkeypatch.undo()
    with warnings.catch_warnings():  # a missing glyph would be a warning, and this one an error
        warnings.simplefilter("error")
        plot_label_counts(counts, tmp_path / "plot.png")


def test_signs_are_no_script_and_many_scripts_are_not_listed(monkeypatch):
    # Cuneiform, Deseret, Gothic, Linear B, Phoenician, Egyptian; then a sign.
    letters = "\U00012000\U00010400\U00010330\U00010000\U00010900\U00013000"
    _, note, _ = drawn_labels(monkeypatch, {"train": {letters: 1, "\U0001f680": 2}})
    assert note.count(", ") == 4 + 1  # scripts, and "such as"
    assert "others; install one" in note
    _, note, _ = drawn_labels(monkeypatch, {"train": {"\U0001f9ff": 2}})
    assert "no installed font draws symbols" in note


def test_a_long_label_leaves_room_for_the_bars(monkeypatch):
    names, _, _ = drawn_labels(monkeypatch, {"train": {"a" * 40: 1, "b" * 41: 2}})
    assert names == ["a" * 40, "b" * 39 + "…"]


def test_an_installed_font_draws_what_the_default_one_lacks(monkeypatch):
    names, note, axes = drawn_labels(monkeypatch, {"train": {"bug": 1, STIX_ONLY: 2}})
    assert names == ["bug", STIX_ONLY]
    assert note == "texts"
    default, other = axes.get_yticklabels()[1].get_fontfamily()
    assert default == "sans-serif"
    assert not other.startswith("Last Resort")


def drawn(monkeypatch, plot, *args):
    """Return the figure of a plot, with its layout computed, and the names in its legend."""
    figures = []
    monkeypatch.setattr("shared.plots._save", lambda figure, path: figures.append(figure))
    plot(*args, None)
    figures[0].draw_without_rendering()
    return figures[0], [text.get_text() for legend in figures[0].legends for text in legend.texts]


BALANCED = {"train": dict.fromkeys("abcdef", 60), "valid": dict.fromkeys("abcdef", 20)}
CURVE = (np.array([0.2, 0.5]), np.array([0.1, 0.1]))
NO_CURVE = (np.full(2, np.nan), np.full(2, np.nan))


@pytest.mark.parametrize(
    ("plot", "args", "names"),
    [
        (plot_label_counts, [BALANCED], ["train", "valid"]),
        (plot_label_counts, [BALANCED | {"test": dict.fromkeys("abcdef", 0)}], ["train", "valid"]),
        (plot_label_counts, [{f"fold {i}": {"a": 5, "b": 5} for i in range(10)}], None),
        (
            plot_training_curve,
            [
                [
                    {"epoch": 1.0, "loss": 0.4},
                    {"epoch": 1.0, "eval_loss": float("nan"), "eval_micro_f1": 0.5},
                ]
            ],
            ["training loss", "validation micro F1"],
        ),
        (
            plot_learning_curves,
            [
                {
                    "a": {"micro_f1": CURVE, "macro_f1": CURVE},
                    "b": {"micro_f1": NO_CURVE, "macro_f1": NO_CURVE},
                },
                np.array([8, 16]),
            ],
            ["a"],
        ),
    ],
    ids=["balanced", "empty part", "folds", "one point", "no values"],
)
def test_legends_name_what_is_drawn_and_cover_nothing(monkeypatch, plot, args, names):
    figure, in_legend = drawn(monkeypatch, plot, *args)
    assert names is None or in_legend == names
    legend = figure.legends[0].get_window_extent()
    assert legend.y0 >= 0
    for axes in figure.axes:
        assert axes.get_legend() is None
        assert not legend.overlaps(axes.get_tightbbox())
        for line in axes.lines:
            assert len(line.get_xdata()) > 1 or line.get_marker() != "None"


def test_bars_fill_the_height_whatever_their_number(monkeypatch):
    for n in (1, 10, 100):
        figure, _ = drawn(monkeypatch, plot_label_counts, {"train": {str(i): i for i in range(n)}})
        assert np.diff(figure.axes[0].get_ylim()) <= n + 0.5


def written(tmp_path, plot, *args, **kwargs):
    path = tmp_path / "plot.png"
    plot(*args, path, **kwargs)
    return png_size(path)


@pytest.mark.parametrize(
    "words",
    [
        np.random.default_rng(0).lognormal(4.5, 0.8, 3000).astype(int),
        [7],
        [0, 0, 0],
        [1, 100_000],
        [50] * 200,
    ],
    ids=["usual", "one row", "empty texts", "a giant", "all alike"],
)
@pytest.mark.parametrize("max_words", [None, 180])
def test_words_per_text(tmp_path, words, max_words):
    width, height = written(
        tmp_path, lambda path: plot_words_per_text(np.array(words), path, max_words=max_words)
    )
    assert (width, height) == (1050, 630)


def test_label_counts_grow_with_the_number_of_labels(tmp_path):
    parts = ("train", "valid", "test")
    heights = []
    for n in (1, 40):
        counts = {part: {f"label {i}": i * 10 for i in range(n)} for part in parts}
        heights.append(written(tmp_path, plot_label_counts, counts)[1])
    assert heights[0] < heights[1]


@pytest.mark.parametrize(
    "counts",
    [
        {"train": {"a": 3}, "valid": {"a": 0}, "test": {"a": 1}},
        {"train": {"a": 0, "b": 0}, "valid": {"a": 0, "b": 0}, "test": {"a": 0, "b": 0}},
        {"rows": {"a": 1, "b": 2}},
        {"train": {"price in $": 1, r"$\nonsense$": 2, "a_b^c": 3, "x" * 80: 4}},
        {"train": {"🐛 bug": 1, "文档": 2, "пример": 3}},
        {"train": {"long " * 60: 1, "b": 2}},
    ],
    ids=["one label", "no positives", "one part", "mathematics", "other scripts", "long"],
)
def test_label_counts_of_odd_labels(tmp_path, counts):
    written(tmp_path, plot_label_counts, counts)


def test_of_very_many_labels_the_most_frequent_are_shown(tmp_path):
    # All of them would be an image higher than image files can be.
    counts = {"train": {f"label {i}": i for i in range(3000)}}
    assert written(tmp_path, plot_label_counts, counts)[1] < 6000


HISTORY = [
    {"epoch": 1.0, "loss": 0.7, "grad_norm": 1.0},
    {"epoch": 1.0, "eval_loss": 0.6, "eval_micro_f1": 0.4},
    {"epoch": 2.0, "loss": 0.5},
    {"epoch": 2.0, "eval_loss": 0.55, "eval_micro_f1": 0.6},
    {"epoch": 2.0, "train_runtime": 3.0},
]


@pytest.mark.parametrize(
    "log_history",
    [HISTORY, [], HISTORY[:1], HISTORY[1:2], [{"epoch": 1.0, "eval_loss": float("nan")}]],
    ids=["usual", "no log", "training only", "validation only", "nan"],
)
def test_training_curve(tmp_path, log_history):
    written(tmp_path, plot_training_curve, log_history)


def test_training_curve_shows_the_metric_asked_for(tmp_path):
    sizes = []
    for metric in ("eval_micro_f1", "eval_none"):
        plot_training_curve(HISTORY, tmp_path / "plot.png", metric=metric)
        sizes.append((tmp_path / "plot.png").read_bytes())
    assert sizes[0] != sizes[1]


@pytest.mark.parametrize("n_methods", [1, 10, 13])
def test_learning_curves(tmp_path, n_methods):
    some, missing = np.array([0.2, 0.5, 0.7]), np.array([0.3, np.nan, np.nan])
    curves = {
        f"method_{i}": {"micro_f1": (some, 0.1 * some), "macro_f1": (missing, 0 * some)}
        for i in range(n_methods)
    }
    path = tmp_path / "plot.png"
    plot_learning_curves(curves, np.array([8, 64, 768]), path, flat=["method_0"])
    width, height = png_size(path)
    assert width >= 1400
    assert height >= 650
    plot_learning_curves(curves, np.array([8, 64, 768]), tmp_path / "other.png")
    assert (tmp_path / "other.png").read_bytes() != path.read_bytes()  # nothing is dashed


@pytest.mark.parametrize(
    "tokens", [["a", "b"], ["<|endoftext|>", "$", "$", "\\n"], ["中", "\ue123"]]
)
def test_next_tokens(tmp_path, tokens):
    path = tmp_path / "plot.png"
    plot_next_tokens(np.full((len(tokens),) * 2, 1 / len(tokens)), tokens, path)
    assert png_size(path)[0] > 300


def test_forecasts_have_a_panel_each_and_one_legend(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("shared.plots._save", lambda figure, path: figures.append(figure))
    times = np.datetime64("2024-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h")
    lines = {"actual": (times, np.arange(3.0)), "gru": (times[2:], np.ones(1))}
    plot_forecasts([("cost in $", lines)] * 3, tmp_path / "plot.png", n_columns=2)
    drawn = [axes for axes in figures[0].axes if axes.get_visible()]
    assert [len(axes.lines) for axes in drawn] == [2, 2, 2]
    assert drawn[0].lines[1].get_marker() == "o"  # one point
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["actual", "gru"]


def test_errors_by_step_are_drawn(tmp_path):
    errors = [{"step": step, "gru": 0.1 * step, "last value": 0.2} for step in range(1, 60)]
    plot_step_errors(errors, tmp_path / "plot.png")
    assert png_size(tmp_path / "plot.png")[0] > 500
