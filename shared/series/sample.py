"""A year of hours that the project makes itself: the electric load of a town, and its temperature.

Load follows the hour, the day of the week and the temperature of the hours before; temperature
follows the season, the hour, and weather that lasts for days. No figure is that of a real place.
"""

from __future__ import annotations

import numpy as np

N_HOURS = 24 * 365
START = "2023-01-01T00"  # a Sunday


def make_sample() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the times, datetime64[ns] (8760,), and the columns load (MW) and temperature (°C)."""
    rng = np.random.default_rng(0)
    hour = np.arange(N_HOURS)
    weather = np.zeros(N_HOURS)
    noise = rng.normal(0, 0.35, N_HOURS)
    for i in range(1, N_HOURS):
        weather[i] = 0.99 * weather[i - 1] + noise[i]
    season = -np.cos(2 * np.pi * (hour / 24 - 20) / 365)
    temperature = 10 + 9 * season - 3.5 * np.cos(2 * np.pi * (hour % 24 - 3) / 24) + weather

    of_day = hour % 24
    is_weekend = np.isin(hour // 24 % 7, (0, 6))
    morning = np.exp(-(((of_day - 8) / 2.0) ** 2)) * np.where(is_weekend, 0.5, 1.0)
    evening = np.exp(-(((of_day - 19) / 2.5) ** 2))
    # Buildings warm up and cool down slowly.
    felt = np.convolve(temperature, np.ones(6) / 6)[:N_HOURS]
    heating = np.maximum(15 - felt, 0)
    load = 50 + 12 * morning + 16 * evening - 5 * is_weekend + 0.9 * heating
    load += rng.normal(0, 1.2, N_HOURS)
    times = (np.datetime64(START, "h") + hour).astype("datetime64[ns]")
    return times, {"load": load.round(2), "temperature": temperature.round(2)}
