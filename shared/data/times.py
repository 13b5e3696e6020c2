"""Times in a column: ISO 8601 and other dates, or numbers since 1970."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)
# Day and month in numbers; which comes first is not said. With points it is the day.
_NUMERIC_DATE = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2\d{4}\b.*")
_YEAR = re.compile(r"\d{4}")
# Units of numbers since 1970: the first number (of 1973) and nanoseconds per unit.
_UNITS = {
    "seconds": (1e8, 10**9),
    "milliseconds": (1e11, 10**6),
    "microseconds": (1e14, 10**3),
    "nanoseconds": (1e17, 1),
}


@dataclass(frozen=True)
class Times:
    """Times of n cells.

    Attributes
    ----------
    nanoseconds : int64 array of shape (n,): since 1970 in UTC; 0 where `readable` is false.
    readable : bool array of shape (n,).
    form : how the cells were read, such as "seconds since 1970".
    """

    nanoseconds: np.ndarray
    readable: np.ndarray
    form: str


def parse_times(cells: Sequence[str]) -> Times:
    """Read times. Those without a time zone are taken as UTC.

    Numbers are years (four digits), dates (eight digits) or, by their size, seconds, milliseconds,
    microseconds or nanoseconds since 1970. Other texts are dates as pandas reads them, if they have
    a year of four digits.

    Parameters
    ----------
    cells : sequence of str
        Without blank ones.

    Raises
    ------
    UserError
        If all dates are such as 03/04/2024, where the month may come first or second.
    """
    import numpy as np
    import pandas as pd

    texts = pd.Series(list(cells), dtype=str).str.strip()
    if len(texts) and texts.map(lambda text: _NUMBER.fullmatch(text) is not None).mean() > 0.5:
        return _parse_numbers(texts)
    day_first, form = _day_comes_first(texts)
    # Each different text once: dates that are not ISO 8601 are read slowly.
    different = pd.Series(texts.unique(), dtype=str)
    times = pd.to_datetime(different, format="ISO8601", utc=True, errors="coerce")
    # pandas also reads "now", and numbers.
    has_year = different.map(
        lambda text: _YEAR.search(text) is not None and _NUMBER.fullmatch(text) is None
    ).astype(bool)
    times = times.where(has_year)
    rest = times.isna() & has_year
    if rest.any():
        others = pd.to_datetime(
            different[rest], format="mixed", dayfirst=day_first, utc=True, errors="coerce"
        )
        times = times.where(~rest, others)
    times = texts.map(dict(zip(different, times, strict=True)))
    times = pd.to_datetime(times, utc=True)
    readable = times.notna().to_numpy()
    stamps = times.fillna(pd.Timestamp(0, tz="UTC")).dt.as_unit("ns").astype("int64").to_numpy()
    return Times(np.where(readable, stamps, 0), readable, form)


def _parse_numbers(texts: pd.Series) -> Times:
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(texts, errors="coerce")
    digits = texts.str.fullmatch(r"\d{4}"), texts.str.fullmatch(r"\d{8}")
    for is_date, format, form in zip(digits, ("%Y", "%Y%m%d"), ("years", "dates"), strict=True):
        if is_date.mean() > 0.5:
            times = pd.to_datetime(texts.where(is_date), format=format, errors="coerce", utc=True)
            readable = times.notna().to_numpy()
            stamps = times.fillna(pd.Timestamp(0, tz="UTC")).dt.as_unit("ns").astype("int64")
            return Times(np.where(readable, stamps.to_numpy(), 0), readable, form)
    values = numbers.to_numpy(float)
    middle = np.nanmedian(np.abs(values))
    unit = next((name for name in reversed(_UNITS) if middle >= _UNITS[name][0]), "seconds")
    low, factor = _UNITS[unit]
    with np.errstate(invalid="ignore"):
        readable = (np.abs(values) >= low) & (np.abs(values) < 1000 * low)
    # Whole numbers are exact; a float has only about microseconds.
    whole = texts.str.fullmatch(r"[+-]?\d+").to_numpy()
    stamps = [
        (int(text) * factor if is_whole else round(value * factor)) if is_readable else 0
        for text, value, is_whole, is_readable in zip(texts, values, whole, readable, strict=True)
    ]
    in_range = np.array([abs(stamp) < 2**63 for stamp in stamps], bool)
    stamps = [stamp if fits else 0 for stamp, fits in zip(stamps, in_range, strict=True)]
    return Times(np.array(stamps, np.int64), readable & in_range, f"{unit} since 1970")


def _day_comes_first(texts: pd.Series) -> tuple[bool, str]:
    """Return whether numeric dates begin with the day, and the form of all dates in words.

    Raises
    ------
    UserError
        If no date tells.
    """
    dates = [match for text in texts.unique() if (match := _NUMERIC_DATE.fullmatch(text))]
    if not dates:
        return False, "dates"
    if all(match[2] == "." for match in dates):
        return True, "dates such as day.month.year"
    first = any(int(match[1]) > 12 for match in dates)
    second = any(int(match[3]) > 12 for match in dates)
    if first == second:
        problem = (
            "begin with the day, others with the month"
            if first
            else "may begin with the day or the month"
        )
        raise UserError(
            f"some dates such as {dates[0][0][:20]!r} {problem}; write dates as year-month-day"
        )
    return first, "dates such as day/month/year" if first else "dates such as month/day/year"
