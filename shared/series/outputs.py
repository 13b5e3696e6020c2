"""What a run writes about its forecasts: tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.cli.files import write_csv
from shared.plots.series import plot_forecasts, plot_step_errors
from shared.series.errors import column_errors, step_errors
from shared.series.panels import MOST_TARGETS, end_panels, forecast_panels
from shared.series.table import TimeSeries
from shared.series.windows import Scaler, fill_forward

N_DRAWN = 2  # methods in a picture: the first ones


def write_test_forecasts(
    folder: Path,
    series: TimeSeries,
    forecasts: Mapping[str, np.ndarray],
    actual: np.ndarray,
    starts: np.ndarray,
    *,
    input_size: int,
    targets: Sequence[str],
    scaler: Scaler,
) -> None:
    """Write ``columns.csv`` and ``step_errors.csv``, and pictures into ``plots``.

    Parameters
    ----------
    forecasts : mapping of the name of a method to its scaled forecasts (windows, horizon, targets)
    actual : float array of the same shape
    starts : int array of shape (windows,)
    targets : sequence of str
    scaler : Scaler
        Of all columns of the series.
    """
    places = [series.columns.index(name) for name in targets]
    scale, mean = scaler.scale[places], scaler.mean[places]
    write_csv(folder / "columns.csv", column_errors(forecasts, actual, targets, scale))
    (folder / "plots").mkdir(exist_ok=True)
    by_step = step_errors(forecasts, actual)
    write_csv(folder / "step_errors.csv", by_step)
    if len(by_step) > 1:
        plot_step_errors(by_step, folder / "plots" / "step_errors.png")
    drawn = {name: forecasts[name] * scale + mean for name in list(forecasts)[:N_DRAWN]}
    plot_forecasts(
        forecast_panels(series, drawn, starts, input_size, targets),
        folder / "plots" / "test_forecasts.png",
        n_columns=min(len(targets), MOST_TARGETS),
    )


def write_forecast(folder: Path, series: TimeSeries, model: Any, *, fill_gaps: bool) -> None:
    """Forecast what comes after the end; write ``forecast.csv`` and ``plots/forecast.png``.

    Parameters
    ----------
    model : shared.models.Forecaster
    fill_gaps : bool
        Whether a missing value is read as the value before it.

    Raises
    ------
    ValueError
        If the series is too short, or its end has a gap.
    """
    targets, horizon = model.config.targets, model.config.horizon
    forecast = model.forecast(fill_forward(series.values) if fill_gaps else series.values)
    n = len(series.values)
    times = series.time_texts(n, n + horizon)
    rows = [
        {"step": i + 1, "time": time, **dict(zip(targets, row.tolist(), strict=True))}
        for i, (time, row) in enumerate(zip(times, forecast, strict=True))
    ]
    write_csv(folder / "forecast.csv", rows)
    (folder / "plots").mkdir(exist_ok=True)
    panels = end_panels(series, forecast, targets, model.config.architecture)
    plot_forecasts(panels, folder / "plots" / "forecast.png", n_columns=len(panels))
