"""Forecasts without a network: repeat the last value, repeat a period, ridge regression.

All take scaled values (steps, columns) in which gaps are filled with the value before them, and the
first steps of windows, and return forecasts (windows, horizon, targets).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from shared.cli.launch import progress

LONGEST_LAG = 1024  # steps that ridge regression reads: the normal equations are of this size
LEAST_CORRELATION = 0.1  # of a series with itself a period later
MOST_PERIODS = 200  # that are compared
ROWS_AT_ONCE = 20_000
# Penalties for each training row, of which the validation part chooses.
PENALTIES = np.logspace(-6, 0, 7)


def persistence(
    values: np.ndarray, starts: np.ndarray, input_size: int, horizon: int, places: list[int]
) -> np.ndarray:
    """Repeat the last value."""
    last = values[starts + input_size - 1][:, places]
    return np.repeat(last[:, None], horizon, axis=1)


def seasonal_naive(
    values: np.ndarray,
    starts: np.ndarray,
    input_size: int,
    horizon: int,
    places: list[int],
    *,
    period: int,
) -> np.ndarray:
    """Repeat the last period, also where it is longer than a window.

    Where the series is not that old, the last value is repeated.
    """
    ends = starts + input_size
    steps = ends[:, None] - period + np.arange(horizon) % period
    forecasts = values[np.maximum(steps, 0)][:, :, places]
    is_too_old = (ends < period) | ~np.isfinite(forecasts).all(axis=(1, 2))
    forecasts[is_too_old] = persistence(values, starts[is_too_old], input_size, horizon, places)
    return forecasts


def baseline_forecasts(
    values: np.ndarray,
    starts: np.ndarray,
    input_size: int,
    horizon: int,
    places: list[int],
    *,
    ridge: Ridge,
    period: int,
) -> dict[str, np.ndarray]:
    """Return the forecasts of all baselines by name; without a period, none of a season."""
    cutting = (values, starts, input_size, horizon, places)
    forecasts = {"ridge": ridge.forecast(values, starts, input_size, places)}
    if period:
        forecasts[f"period of {period}"] = seasonal_naive(*cutting, period=period)
    return forecasts | {"last value": persistence(*cutting)}


def guess_period(values: np.ndarray) -> int:
    """Return the number of steps after which a series repeats itself best; 0 for none.

    The candidates are the high local maxima of the autocorrelation of the differences, the mean
    over the columns: a trend has no influence on differences. Of these, the shortest lag is taken
    at which values differ from those a lag before about as little as at any. Lags of up to a third
    of the series are compared.

    Parameters
    ----------
    values : float array of shape (steps, columns)
        Scaled, without gaps, such as the training part after filling.
    """
    differences = np.diff(values, axis=0)
    differences = differences[:, np.ptp(differences, axis=0) > 0]
    n = len(differences)
    longest = n // 3
    if longest < 3 or not differences.shape[1]:
        return 0
    differences = differences - differences.mean(axis=0)
    # Padded, so that the end of the series is not compared with its beginning.
    spectrum = np.abs(np.fft.rfft(differences, 2 * n, axis=0)) ** 2
    products = np.fft.irfft(spectrum, axis=0)[: longest + 1]
    # Each lag compares another number of pairs.
    correlations = (products / products[0]).mean(axis=1) * n / (n - np.arange(longest + 1))
    inner = correlations[2:-1]
    is_peak = (inner > correlations[1:-2]) & (inner >= correlations[3:])
    is_peak &= inner > LEAST_CORRELATION
    peaks = np.flatnonzero(is_peak) + 2
    if not len(peaks):
        return 0
    # Multiples of a period are as good, and there may be many.
    peaks = peaks[correlations[peaks] > correlations[peaks].max() / 2][:MOST_PERIODS]
    errors = np.array([np.abs(values[lag:] - values[:-lag]).mean() for lag in peaks])
    return int(peaks[errors <= 1.1 * errors.min()][0])


@dataclass(frozen=True)
class Ridge:
    """A linear map from the last steps of a column to its next ones, the same for all columns.

    Attributes
    ----------
    weights : float array of shape (lags + 1, horizon), the last row the intercept. It reads and
        returns differences from the last value.
    penalty : that was chosen, for each training row.
    """

    weights: np.ndarray
    penalty: float

    def forecast(
        self, values: np.ndarray, starts: np.ndarray, input_size: int, places: list[int]
    ) -> np.ndarray:
        """Forecast (windows, horizon, targets)."""
        lags, horizon = len(self.weights) - 1, self.weights.shape[1]
        forecasts = np.empty((len(starts), horizon, len(places)), np.float32)
        for rows, past, _, last in _rows(values, starts, input_size, lags, 0, places):
            outputs = past @ self.weights + last
            n = len(starts[rows])
            forecasts[rows] = outputs.reshape(n, len(places), horizon).swapaxes(1, 2)
        return forecasts


def fit_ridge(
    values: np.ndarray,
    starts: np.ndarray,
    valid_starts: np.ndarray,
    input_size: int,
    horizon: int,
    places: list[int],
) -> Ridge:
    """Fit a ridge regression in closed form, for all steps ahead at once.

    The penalty is the one with the lowest squared error on the validation windows; without such
    windows it is 1e-3 for each training row. Of long windows the last 1,024 steps are read.

    Parameters
    ----------
    starts, valid_starts : int arrays
        First steps of windows to fit and to choose on.
    """
    lags = min(input_size, LONGEST_LAG)

    def sums(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        gram, cross = np.zeros((lags + 1, lags + 1)), np.zeros((lags + 1, horizon))
        square = 0.0
        for _, past, later, _ in _rows(values, windows, input_size, lags, horizon, places):
            gram += past.T @ past
            cross += past.T @ later
            square += float((later**2).sum())
        return gram, cross, square

    gram, cross, _ = sums(starts)
    n_rows = gram[-1, -1]
    # The intercept is not penalised: solve for what is left of inputs and outputs without means.
    mean_in, mean_out = gram[-1, :-1] / n_rows, cross[-1] / n_rows
    centred = gram[:-1, :-1] - n_rows * np.outer(mean_in, mean_in)
    roots, vectors = np.linalg.eigh(centred)
    rotated = vectors.T @ (cross[:-1] - n_rows * np.outer(mean_in, mean_out))
    candidates = []
    for penalty in PENALTIES if len(valid_starts) else (1e-3,):
        slopes = vectors @ (rotated / (np.maximum(roots, 0) + penalty * n_rows)[:, None])
        candidates.append(Ridge(np.vstack([slopes, mean_out - mean_in @ slopes]), float(penalty)))
    if len(candidates) == 1:
        return candidates[0]
    gram, cross, square = sums(valid_starts)
    return min(
        candidates,
        key=lambda model: (
            square
            - 2 * (model.weights * cross).sum()
            + ((gram @ model.weights) * model.weights).sum()
        ),
    )


def _rows(
    values: np.ndarray,
    starts: np.ndarray,
    input_size: int,
    lags: int,
    horizon: int,
    places: list[int],
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield pieces of windows: which, and what a regression reads, forecasts, and adds.

    A row is a window and a target. The first array is (rows, lags + 1), the last steps less the
    very last one, and 1; the second (rows, horizon), less the same; the third that value (rows, 1).
    """
    view = sliding_window_view(values[:, places], lags + horizon, axis=0)
    n_at_once = max(ROWS_AT_ONCE // len(places), 1)
    for first in progress(range(0, len(starts), n_at_once), "ridge regression", unit="pieces"):
        rows = slice(first, first + n_at_once)
        windows = view[starts[rows] + input_size - lags].astype(np.float64)
        windows = windows.reshape(-1, lags + horizon)
        last = windows[:, lags - 1 : lags]
        past = np.hstack([windows[:, :lags] - last, np.ones_like(last)])
        yield rows, past, windows[:, lags:] - last, last
