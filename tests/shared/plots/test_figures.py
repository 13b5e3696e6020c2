import numpy as np
import pytest

from shared.plots import plot_label_counts, plot_learning_curves, plot_training_curve

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
def test_legends_name_what_is_drawn_and_cover_nothing(drawn, plot, args, names):
    figure = drawn(plot, *args)
    figure.draw_without_rendering()  # computes the layout
    (legend,) = figure.legends
    assert names is None or [text.get_text() for text in legend.texts] == names
    place = legend.get_window_extent()
    assert place.y0 >= 0
    for axes in figure.axes:
        assert axes.get_legend() is None
        assert not place.overlaps(axes.get_tightbbox())
        for line in axes.lines:
            assert len(line.get_xdata()) > 1 or line.get_marker() != "None"
