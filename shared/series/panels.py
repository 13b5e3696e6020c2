"""Which pieces of a series and its forecasts a picture shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from shared.series.table import TimeSeries

Panel = tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]
MOST_TARGETS = 3
N_WINDOWS = 3
SHORT = 4  # a horizon below this is drawn as a line through many windows
STRETCH = 200  # windows of such a line


def forecast_panels(
    series: TimeSeries,
    forecasts: Mapping[str, np.ndarray],
    starts: np.ndarray,
    input_size: int,
    targets: Sequence[str],
) -> list[Panel]:
    """Return panels of some windows, for `shared.plots.series.plot_forecasts`.

    A long horizon has a panel for each of three windows and up to three columns. Of a short one,
    the last step ahead is drawn through many windows in the middle.

    Parameters
    ----------
    forecasts : mapping of the name of a method to its forecasts (windows, horizon, targets)
        In the units of the series.
    starts : int array of shape (windows,)
    targets : sequence of str
    """
    horizon = next(iter(forecasts.values())).shape[1]
    panels: list[Panel] = []
    if horizon < SHORT:
        middle = max((len(starts) - STRETCH) // 2, 0)
        windows = np.arange(middle, min(middle + STRETCH, len(starts)))
        steps = starts[windows] + input_size + horizon - 1
        for i, target in enumerate(targets[:MOST_TARGETS]):
            lines = {"actual": _line(series, target, steps)}
            for name, values in forecasts.items():
                lines[name] = (_x(series, steps), values[windows, -1, i])
            ahead = f"{horizon} step" + ("s" if horizon > 1 else "")
            panels.append((f"{target}, {ahead} ahead", lines))
        return panels
    shares = (np.arange(N_WINDOWS) + 0.5) / N_WINDOWS
    for window in np.unique((shares * len(starts)).astype(int)):
        end = starts[window] + input_size
        past = np.arange(max(end - 2 * horizon, starts[window]), end + horizon)
        future = np.arange(end, end + horizon)
        for i, target in enumerate(targets[:MOST_TARGETS]):
            lines = {"actual": _line(series, target, past)}
            for name, values in forecasts.items():
                lines[name] = (_x(series, future), values[window, :, i])
            panels.append((target, lines))
    return panels


def end_panels(
    series: TimeSeries, forecast: np.ndarray, targets: Sequence[str], name: str
) -> list[Panel]:
    """Return panels of the end of a series and the forecast (horizon, targets) of what follows."""
    n, horizon = len(series.values), len(forecast)
    past = np.arange(max(n - 3 * horizon - 20, 0), n)
    future = np.arange(n, n + horizon)
    return [
        (
            target,
            {"actual": _line(series, target, past), name: (_x(series, future), forecast[:, i])},
        )
        for i, target in enumerate(targets[:MOST_TARGETS])
    ]


def _line(series: TimeSeries, target: str, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _x(series, steps), series.values[steps, series.columns.index(target)]


def _x(series: TimeSeries, steps: np.ndarray) -> np.ndarray:
    """Return the times of steps, also of those after the end; their numbers if none are known."""
    if series.step is None or series.times is None:
        return steps
    after = int(steps[-1]) - len(series.times) + 1
    times = series.times
    if after > 0:
        times = np.concatenate([times, series.step.times(times[-1], after + 1)[1:]])
    return times[steps]
