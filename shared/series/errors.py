"""The errors of forecasts: scaled, in the units of the data, and against a naive forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def forecast_errors(
    forecasts: np.ndarray, actual: np.ndarray, naive_error: np.ndarray
) -> dict[str, float]:
    """Return the errors over all windows, steps and columns.

    Parameters
    ----------
    forecasts, actual : float arrays of shape (windows, horizon, targets)
        Scaled.
    naive_error : float array of shape (targets,)
        From `naive_errors`.

    Returns
    -------
    dict
        ``mse`` and ``mae`` of the scaled values, and ``mase``, the mean over the columns of the
        absolute error divided by that of a naive forecast in the training part (Hyndman and Koehler
        2006, "Another look at measures of forecast accuracy").
    """
    difference = forecasts.astype(np.float64) - actual
    absolute = np.abs(difference)
    return {
        "mse": float((difference**2).mean()),
        "mae": float(absolute.mean()),
        "mase": float((absolute.mean(axis=(0, 1)) / naive_error).mean()),
    }


def naive_errors(values: np.ndarray, period: int) -> np.ndarray:
    """Return the mean absolute difference of each column from its value a period before.

    Parameters
    ----------
    values : float array of shape (steps, targets)
        The training part, scaled, without gaps.
    period : int
        0: the value before.
    """
    lag = period if 0 < period < len(values) else 1
    errors = np.abs(values[lag:] - values[:-lag]).mean(axis=0)
    return np.where(errors > 0, errors, 1.0)


def column_errors(
    forecasts: Mapping[str, np.ndarray],
    actual: np.ndarray,
    targets: Sequence[str],
    scale: np.ndarray,
) -> list[dict[str, Any]]:
    """Return the errors of each column and method, in the units of the data.

    Parameters
    ----------
    forecasts : mapping of the name of a method to its scaled forecasts
    actual : float array of shape (windows, horizon, targets)
    targets : sequence of str
    scale : float array of shape (targets,)
        What the values were divided by.
    """
    rows = []
    for i, target in enumerate(targets):
        for method, values in forecasts.items():
            difference = (values[..., i].astype(np.float64) - actual[..., i]) * scale[i]
            rmse, mae = float(np.sqrt((difference**2).mean())), float(np.abs(difference).mean())
            rows.append({"column": target, "method": method, "rmse": rmse, "mae": mae})
    return rows


def step_errors(forecasts: Mapping[str, np.ndarray], actual: np.ndarray) -> list[dict[str, Any]]:
    """Return the mean squared error of each method at each step ahead, scaled; from step 1."""
    by_method = {
        method: ((values.astype(np.float64) - actual) ** 2).mean(axis=(0, 2))
        for method, values in forecasts.items()
    }
    return [
        {"step": step + 1} | {method: float(errors[step]) for method, errors in by_method.items()}
        for step in range(actual.shape[1])
    ]


def difference_interval(
    errors: np.ndarray, other: np.ndarray, block: int, *, seed: int, n_samples: int = 2000
) -> tuple[float, float]:
    """Return a 95 % interval of the mean difference of two errors, by a block bootstrap.

    Neighbouring windows overlap, so that blocks of them are drawn, not single ones (Politis and
    Romano 1992, the circular block bootstrap).

    Parameters
    ----------
    errors, other : float arrays of shape (windows,)
        In the order of time.
    block : int
        Windows of a block; at most half of all are used.
    """
    difference = errors - other
    n = len(difference)
    block = int(np.clip(block, 1, max(n // 2, 1)))
    twice = np.concatenate([[0.0], np.cumsum(np.concatenate([difference, difference]))])
    sums = twice[block : n + block] - twice[:n]
    rng = np.random.default_rng(seed)
    n_blocks = -(-n // block)
    means = np.array(
        [sums[rng.integers(0, n, n_blocks)].sum() / (n_blocks * block) for _ in range(n_samples)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def compare(
    forecasts: Mapping[str, np.ndarray], actual: np.ndarray, block: int, *, seed: int
) -> str:
    """Return a sentence: is the first method better than the best of the others?

    Parameters
    ----------
    forecasts : mapping of the name of a method to its scaled forecasts
    actual : float array of shape (windows, horizon, targets)
    block : int
        As in `difference_interval`.
    """
    squares = {
        method: ((values.astype(np.float64) - actual) ** 2).mean(axis=(1, 2))
        for method, values in forecasts.items()
    }
    name, *others = squares
    best = min(others, key=lambda other: squares[other].mean())
    low, high = difference_interval(squares[name], squares[best], block, seed=seed)
    mean = squares[name].mean() - squares[best].mean()
    verdict = "better" if high < 0 else "worse" if low > 0 else "neither better nor worse"
    return (
        f"Test MSE of {name} less that of {best}, the best of the others: {mean:+.4f} "
        f"({low:+.4f} to {high:+.4f}, 95 %, blocks of {block:,} windows): {verdict}."
    )


def error_table(errors: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a table of `forecast_errors`, by method and part."""
    parts = list(next(iter(errors.values())))
    width = max(len(method) for method in errors) + 2
    heads = [f"{f'{part} {name}':>12}" for part in parts for name in ("MSE", "MAE", "MASE")]
    lines = [" " * width + "".join(heads)]
    for method, of_parts in errors.items():
        cells = [
            f"{of_parts[part][name]:>12.4f}" for part in parts for name in ("mse", "mae", "mase")
        ]
        lines.append(f"{method:<{width}}" + "".join(cells))
    return "\n".join(lines)
