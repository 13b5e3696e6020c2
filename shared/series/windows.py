"""Parts of a series by time, the windows of each, and batches of windows.

A window is `input_size` steps that are read and the `horizon` steps after them, which are forecast.
It is known by its first step; its values are cut from the series when a batch is made, so that
overlapping windows take no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from shared.cli.errors import UserError
from shared.cli.launch import progress

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from shared.series.arguments import SeriesArguments
    from shared.series.table import TimeSeries

PARTS = ("train", "valid", "test")
# Steps and lags that are compared to see whether a column holds the future of another one.
LEAST_COMPARED, MOST_COMPARED, MOST_LAGS, SAME = 10, 2000, 100, 0.9999


# --- parts ---------------------------------------------------------------------------------------


def part_borders(n_steps: int, args: SeriesArguments) -> dict[str, tuple[int, int]]:
    """Return first step and end of each part; a part without steps is left out.

    Raises
    ------
    UserError
        If the parts and the gaps between them do not fit into the series.
    """
    sizes = {}
    for name in PARTS:
        size = getattr(args, f"{name}_size")
        if size >= 1 and size != int(size):
            raise UserError(f"--{name}_size {size}: must be a whole number, or below 1")
        sizes[name] = round(size * n_steps) if size < 1 else int(size)
        if size and not sizes[name]:
            raise UserError(f"--{name}_size {size}: is less than one of {n_steps:,} steps")
    gap = args.input_size if args.gap is None else args.gap
    gaps = gap * sum(sizes[name] > 0 for name in ("valid", "test"))
    needed = sum(sizes.values()) + gaps
    rest = n_steps - needed
    if not sizes["train"]:
        sizes["train"], rest = rest, 0
    if rest < 0 or sizes["train"] < 1:
        raise UserError(
            f"the series has {n_steps:,} steps, and validation, test, --train_size and the gaps "
            f"between them (--gap {gap}) need {needed:,} and more to train on; lower them"
        )
    borders, start = {}, 0
    for name in PARTS:
        if sizes[name]:
            borders[name] = (start, start + sizes[name])
            start += sizes[name] + gap
    return borders


def split_windows(
    values: np.ndarray, args: SeriesArguments, places: list[int]
) -> tuple[dict[str, tuple[int, int]], dict[str, np.ndarray]]:
    """Return the parts of a series, and the first steps of the windows of each.

    What a window forecasts lies within its part; what it reads may lie before it, but what a window
    of an earlier part forecasts, or reads, never lies in a later one. Windows with a missing value
    are left out; with `args.fill_gaps` only those that have one in what they forecast, or nothing
    before one that they read.

    Parameters
    ----------
    values : float array of shape (steps, columns)
        NaN where a value is missing.
    args : SeriesArguments
    places : list of int
        Which columns are forecast.

    Raises
    ------
    UserError
        If a part has no window; as `part_borders`.
    """
    borders = part_borders(len(values), args)
    inputs, horizon = args.input_size, args.horizon
    is_gap = np.isnan(fill_forward(values) if args.fill_gaps else values).any(axis=1)
    is_unknown = np.isnan(values[:, places]).any(axis=1)
    gaps_before = np.concatenate([[0], is_gap.cumsum()])
    unknown_before = np.concatenate([[0], is_unknown.cumsum()])
    starts = {}
    for name, (first, end) in borders.items():
        possible = np.arange(max(first - inputs, 0), end - inputs - horizon + 1)
        middles, ends = possible + inputs, possible + inputs + horizon
        is_whole = gaps_before[middles] == gaps_before[possible]
        is_whole &= unknown_before[ends] == unknown_before[middles]
        starts[name] = possible[is_whole]
        if not len(possible):
            raise UserError(
                f"the {name} part has {end - first:,} steps, too few for a window of --input_size "
                f"{inputs} and --horizon {horizon}; lower these, or raise --{name}_size"
            )
        if not is_whole.any():
            hint = "lower --input_size" if args.fill_gaps else "give --fill_gaps true"
            raise UserError(
                f"each window of the {name} part has a gap; {hint}, leave out columns with gaps "
                "(--columns), or count each row as a step (--steps rows)"
            )
    return borders, starts


def fill_forward(values: np.ndarray) -> np.ndarray:
    """Replace each missing value by the last one before it; (steps, columns).

    Values between those around a gap would show a window what comes after it. Where nothing stands
    before a gap it stays.
    """
    is_known = ~np.isnan(values)
    last = np.where(is_known, np.arange(len(values))[:, None], 0)
    last = np.maximum.accumulate(last, axis=0)
    return np.take_along_axis(values, last, axis=0)


def describe_parts(
    series: TimeSeries,
    borders: Mapping[str, tuple[int, int]],
    starts: Mapping[str, np.ndarray],
    places: list[int],
    horizon: int,
) -> str:
    """Return a line for the columns to forecast, for each part, and for each of `future_columns`.

    Parameters
    ----------
    series : TimeSeries
    borders, starts
        From `split_windows`.
    places, horizon
        As for `future_columns`.
    """
    lines = [f"forecast: {', '.join(series.columns[place] for place in places)}"]
    for part, (first, end) in borders.items():
        times = " to ".join(filter(None, series.time_texts(first, end)[:: max(end - first - 1, 1)]))
        sizes = f"{end - first:,} steps, {len(starts[part]):,} windows"
        lines.append(f"{part}: {sizes} {times}".rstrip())
    train = series.values[slice(*borders["train"])]
    for column, target, ahead in future_columns(train, places, horizon):
        lines.append(
            f"note: {series.columns[column]!r} has the value of {series.columns[target]!r} of "
            f"{ahead} steps later; if it was computed from it, leave it out with --columns"
        )
    return "\n".join(lines)


def future_columns(
    values: np.ndarray, places: list[int], horizon: int
) -> list[tuple[int, int, int]]:
    """Return columns that hold what is to be forecast: (column, target, steps ahead).

    A column is reported if it is, at each step, a linear function of the value that a target has
    some steps later (correlation .9999), and of no value that it has by then. Such a column was
    computed from the future, and forecasts with it are worth nothing.

    Parameters
    ----------
    values : float array of shape (steps, columns)
        The training part.
    places : list of int
        Columns to forecast.
    horizon : int
        Steps ahead to compare; at most 100.
    """
    lags = min(horizon, MOST_LAGS, len(values) // 3)
    steps = np.arange(lags, len(values) - lags)
    steps = steps[np.linspace(0, len(steps) - 1, min(len(steps), MOST_COMPARED)).astype(int)]
    around = steps[:, None] + np.arange(-lags, lags + 1)
    reports = []
    for target in progress(places, "looking for the future in columns", unit="columns"):
        is_known = np.isfinite(values[steps]).all(axis=1)
        is_known &= np.isfinite(values[around, target]).all(axis=1)
        if is_known.sum() < LEAST_COMPARED:
            continue
        now, near = values[steps[is_known]], values[around[is_known], target]
        now, near = now - now.mean(axis=0), near - near.mean(axis=0)
        norms = np.linalg.norm(now, axis=0)[:, None] * np.linalg.norm(near, axis=0)
        similar = np.abs(now.T @ near) / np.where(norms > 0, norms, np.inf)
        for column in np.flatnonzero(similar.max(axis=1) > SAME):
            best = int(similar[column].argmax())
            known_by_then = similar[column, : lags + 1].max()
            if column != target and best > lags and known_by_then <= SAME:
                reports.append((int(column), target, best - lags))
    return reports


# --- values and batches --------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each column of the training part; float64 (columns,).

    A column that is constant there has the scale 1.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, columns: list[str], targets: list[str]) -> Scaler:
        """Measure a training part (steps, columns) with NaN where a value is missing.

        Raises
        ------
        UserError
            If a column has no value there, or a target has only one.
        """
        for column, of_column in zip(columns, values.T, strict=True):
            known = of_column[np.isfinite(of_column)]
            if not len(known):
                raise UserError(
                    f"column {column!r} has no value in the training part; leave it out with "
                    "--columns"
                )
            if column in targets and (known == known[0]).all():
                raise UserError(
                    f"column {column!r} is always {known[0]:g} in the training part; nothing can "
                    "be learned: choose others with --target_columns"
                )
        scale = np.nanstd(values, axis=0)
        return cls(np.nanmean(values, axis=0), np.where(scale > 0, scale, 1.0))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return scaled values."""
        return (values - self.mean) / self.scale


def window_rows(starts: np.ndarray) -> Dataset:
    """Return windows as rows of a data set: `start`, their first step, and `length` 1."""
    from datasets import Dataset

    return Dataset.from_dict({"start": starts, "length": np.ones(len(starts), np.int64)})


class WindowCollator:
    """Cut the windows of a batch from a series.

    Parameters
    ----------
    values : float array of shape (steps, columns)
        Scaled, without gaps in the windows.
    input_size, horizon : int
    places : list of int
        Columns to forecast.

    Notes
    -----
    Features are rows of `window_rows`. The batch holds ``past_values`` (rows, input_size, columns)
    and ``labels`` (rows, horizon, targets), float32.
    """

    def __init__(self, values: np.ndarray, input_size: int, horizon: int, places: list[int]):
        self.values = np.ascontiguousarray(values, np.float32)
        self.input_size, self.horizon, self.places = input_size, horizon, places

    def cut(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what windows read (rows, input_size, columns) and forecast."""
        size = self.input_size + self.horizon
        windows = sliding_window_view(self.values, size, axis=0)[starts].swapaxes(1, 2)
        return windows[:, : self.input_size], windows[:, self.input_size :, self.places]

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows."""
        import torch

        past, labels = self.cut(np.array([row["start"] for row in features]))
        return {
            "past_values": torch.from_numpy(np.ascontiguousarray(past)),
            "labels": torch.from_numpy(np.ascontiguousarray(labels)),
        }
