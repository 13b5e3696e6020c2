import numpy as np

from shared.plots import plot_forecasts, plot_step_errors


def test_forecasts_have_a_panel_each_and_one_legend(drawn):
    times = np.datetime64("2024-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h")
    lines = {"actual": (times, np.arange(3.0)), "gru": (times[2:], np.ones(1))}
    figure = drawn(plot_forecasts, [("cost in $", lines)] * 3, n_columns=2)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [len(axes.lines) for axes in panels] == [2, 2, 2]
    assert panels[0].lines[1].get_marker() == "o"  # one point
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["actual", "gru"]


def test_errors_by_step_are_drawn(written):
    errors = [{"step": step, "gru": 0.1 * step, "last value": 0.2} for step in range(1, 60)]
    assert written(plot_step_errors, errors)[0] > 500
