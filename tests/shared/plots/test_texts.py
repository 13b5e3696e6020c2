import numpy as np
import pytest

from shared.plots import plot_label_counts, plot_words_per_text


def test_every_part_has_its_share_of_the_bars(drawn):
    counts = {f"fold {number}": {"a": 3, "b": number} for number in range(5)}
    (axes,) = drawn(plot_label_counts, counts).axes
    ends = [bar.get_x() + bar.get_width() for bars in axes.containers for bar in bars]
    assert max(ends) == 15
    assert len({bars[0].get_facecolor() for bars in axes.containers}) == 5


def labels_of(figure):
    """Return the names beside the bars, the first at the bottom, and the text below the plot."""
    (axes,) = figure.axes
    return [label.get_text() for label in axes.get_yticklabels()], axes.get_xlabel()


UNUSUAL = "\U0001333f"  # an Egyptian hieroglyph, which no usual font has
STIX_ONLY = "\u1d81"  # in a font that comes with matplotlib, but not in its default font


def test_labels_that_no_font_can_draw_are_numbered(drawn, written):
    counts = {"train": {"bug": 1, f"{UNUSUAL} x": 2, "спорт": 3}}
    names, note = labels_of(drawn(plot_label_counts, counts))
    assert names == ["bug", "label 2", "спорт"]
    assert "no installed font draws EGYPTIAN" in note
    written(plot_label_counts, counts)  # a missing glyph would be a warning, and this an error


def test_signs_are_no_script_and_many_scripts_are_not_listed(drawn):
    # Cuneiform, Deseret, Gothic, Linear B, Phoenician, Egyptian; then a sign.
    letters = "\U00012000\U00010400\U00010330\U00010000\U00010900\U00013000"
    counts = {"train": {letters: 1, "\U0001f680": 2}}
    _, note = labels_of(drawn(plot_label_counts, counts))
    assert note.count(", ") == 4 + 1  # scripts, and "such as"
    assert "others; install one" in note
    _, note = labels_of(drawn(plot_label_counts, {"train": {"\U0001f9ff": 2}}))
    assert "no installed font draws symbols" in note


def test_a_long_label_leaves_room_for_the_bars(drawn):
    names, _ = labels_of(drawn(plot_label_counts, {"train": {"a" * 40: 1, "b" * 41: 2}}))
    assert names == ["a" * 40, "b" * 39 + "…"]


def test_an_installed_font_draws_what_the_default_one_lacks(drawn):
    figure = drawn(plot_label_counts, {"train": {"bug": 1, STIX_ONLY: 2}})
    names, note = labels_of(figure)
    assert names == ["bug", STIX_ONLY]
    assert note == "texts"
    default, other = figure.axes[0].get_yticklabels()[1].get_fontfamily()
    assert default == "sans-serif"
    assert not other.startswith("Last Resort")


def test_bars_fill_the_height_whatever_their_number(drawn):
    for n in (1, 10, 100):
        figure = drawn(plot_label_counts, {"train": {str(i): i for i in range(n)}})
        assert np.diff(figure.axes[0].get_ylim()) <= n + 0.5


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
def test_words_per_text(written, words, max_words):
    assert written(plot_words_per_text, np.array(words), max_words=max_words) == (1050, 630)


def test_label_counts_grow_with_the_number_of_labels(written):
    parts = ("train", "valid", "test")
    heights = []
    for n in (1, 40):
        counts = {part: {f"label {i}": i * 10 for i in range(n)} for part in parts}
        heights.append(written(plot_label_counts, counts)[1])
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
def test_label_counts_of_odd_labels(written, counts):
    written(plot_label_counts, counts)


def test_of_very_many_labels_the_most_frequent_are_shown(written):
    # All of them would be an image higher than image files can be.
    counts = {"train": {f"label {i}": i for i in range(3000)}}
    assert written(plot_label_counts, counts)[1] < 6000
