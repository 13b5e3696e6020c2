"""The step between two times of a series: a fixed time, or a number of months."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SHORTEST_MONTH = np.timedelta64(27, "D")
_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


@dataclass(frozen=True)
class Step:
    """A step of time.

    Attributes
    ----------
    nanoseconds : its length; 0 for months.
    months : its months; 0 for a fixed length.
    """

    nanoseconds: int = 0
    months: int = 0

    def places(self, times: np.ndarray) -> np.ndarray:
        """Return at which step after the first time each one is: float array (n,).

        A time between two steps has a fraction. With months, times are those of `find_step`.
        """
        if self.months:
            months = times.astype("datetime64[M]").astype(int)
            return (months - months[0]) / self.months
        return (times - times[0]).astype("timedelta64[ns]").astype(np.int64) / self.nanoseconds

    def times(self, first: np.datetime64, n: int) -> np.ndarray:
        """Return n times, the first one and those one, two and more steps later."""
        if not self.months:
            return first + np.arange(n) * np.timedelta64(self.nanoseconds, "ns")
        month = first.astype("datetime64[M]")
        starts = month + np.arange(n + 1) * np.timedelta64(self.months, "M")
        within = first - month.astype("datetime64[ns]")
        times = starts[:n].astype("datetime64[ns]") + within
        next_starts = (starts[:n] + np.timedelta64(1, "M")).astype("datetime64[ns]")
        if first + np.timedelta64(1, "D") >= next_starts[0]:  # the end of a month
            times = next_starts - (next_starts[0] - first)
        return times

    def __str__(self) -> str:
        """Return the step in words, such as "15 minutes"."""
        if self.months:
            number, unit = float(self.months), "month"
            if self.months % 12 == 0:
                number, unit = self.months / 12, "year"
        else:
            seconds = self.nanoseconds / 1e9
            unit, size = next(
                ((name, size) for name, size in _UNITS if seconds % size == 0), ("second", 1)
            )
            number = seconds / size
        return f"{number:g} {unit}" + ("s" if number != 1 else "")


def find_step(times: np.ndarray) -> Step:
    """Return the step of ascending times, the most frequent difference.

    Where it is 27 days or longer, and all times stand at the same place of a month (the same day
    and hour, or the same time before its end), the step is a number of months.

    Parameters
    ----------
    times : datetime64[ns] array of shape (n,), n at least 2
    """
    differences, counts = np.unique(np.diff(times), return_counts=True)
    usual = differences[counts.argmax()]
    months = times.astype("datetime64[M]")
    from_start = times - months.astype("datetime64[ns]")
    to_end = (months + 1).astype("datetime64[ns]") - times
    same_place = any((part == part[0]).all() for part in (from_start, to_end))
    if same_place and usual >= _SHORTEST_MONTH:
        between, counts = np.unique(np.diff(months.astype(int)), return_counts=True)
        return Step(months=int(between[counts.argmax()]))
    return Step(nanoseconds=int(usual.astype("timedelta64[ns]").astype(np.int64)))
