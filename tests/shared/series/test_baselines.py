"""Forecasts without a network, their errors, and what a picture shows of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.series.baselines import (
    LONGEST_LAG,
    fit_ridge,
    guess_period,
    persistence,
    seasonal_naive,
)
from shared.series.errors import (
    column_errors,
    compare,
    difference_interval,
    error_table,
    forecast_errors,
    naive_errors,
    step_errors,
)
from shared.series.panels import end_panels, forecast_panels
from shared.series.steps import Step
from shared.series.table import TimeSeries


def waves(n, period=7, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    pattern = rng.normal(size=(period, 2))
    return np.tile(pattern, (n // period + 1, 1))[:n] + noise * rng.normal(size=(n, 2))


@given(st.integers(2, 30), st.integers(1, 40), st.integers(1, 10))
@settings(deadline=None)
def test_a_season_is_repeated_as_it_was(period, horizon, input_size):
    values = waves(200, period)
    starts = np.arange(max(period - input_size, 0), 200 - input_size - horizon)
    forecasts = seasonal_naive(values, starts, input_size, horizon, [1], period=period)
    for start, forecast in zip(starts, forecasts, strict=True):
        end = start + input_size
        np.testing.assert_array_equal(forecast[:, 0], values[end : end + horizon, 1])


def test_before_the_first_period_the_last_value_is_repeated():
    values = np.arange(20, dtype=float)[:, None]
    args = (values, np.array([0, 6]), 2, 3, [0])
    np.testing.assert_array_equal(persistence(*args)[..., 0], [[1, 1, 1], [7, 7, 7]])
    forecasts = seasonal_naive(*args, period=5)
    np.testing.assert_array_equal(forecasts[..., 0], [[1, 1, 1], [3, 4, 5]])


@pytest.mark.parametrize("period", [2, 7, 24, 168])
def test_the_period_of_a_season_is_found(period):
    trend = np.linspace(0, 9, 1200)[:, None]
    assert guess_period(waves(1200, period, noise=0.1) + trend) == period


def test_noise_has_no_period():
    rng = np.random.default_rng(0)
    assert guess_period(rng.normal(size=(2000, 1))) == 0
    assert guess_period(rng.normal(size=(2000, 1)).cumsum(axis=0)) == 0
    assert guess_period(np.ones((100, 2))) == 0
    assert guess_period(np.ones((4, 1))) == 0


def test_ridge_equals_that_of_scikit_learn():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 2)).cumsum(axis=0)
    starts, inputs, horizon = np.arange(250), 6, 3
    model = fit_ridge(values, starts, np.array([], int), inputs, horizon, [0, 1])
    windows = np.stack([values[s : s + inputs + horizon] for s in starts])
    rows = windows.swapaxes(1, 2).reshape(-1, inputs + horizon)
    rows = rows - rows[:, [inputs - 1]]
    other = Ridge(alpha=model.penalty * len(rows)).fit(rows[:, :inputs], rows[:, inputs:])
    np.testing.assert_allclose(model.weights[:-1], other.coef_.T, atol=1e-8)
    np.testing.assert_allclose(model.weights[-1], other.intercept_, atol=1e-8)
    forecasts = model.forecast(values, starts, inputs, [0, 1])
    expected = other.predict(rows[:, :inputs]).reshape(250, 2, horizon).swapaxes(1, 2)
    last = windows[:, inputs - 1][:, None]
    np.testing.assert_allclose(forecasts, expected + last, atol=1e-5)


def test_the_penalty_of_ridge_is_chosen_on_the_validation_part(monkeypatch):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(400, 1))
    args = (6, 1, [0])
    train, valid = np.arange(30), np.arange(100, 390)
    chosen = fit_ridge(values, train, valid, *args)
    errors = {}
    for penalty in (1e-6, chosen.penalty, 1.0):
        monkeypatch.setattr("shared.series.baselines.PENALTIES", [penalty])
        model = fit_ridge(values, train, valid, *args)
        actual = values[valid + 6][:, None]
        errors[penalty] = ((model.forecast(values, valid, 6, [0]) - actual) ** 2).mean()
    assert errors[chosen.penalty] == min(errors.values())
    assert chosen.penalty > 1e-6  # thirty windows of noise


def test_ridge_reads_the_end_of_long_windows(monkeypatch):
    monkeypatch.setattr("shared.series.baselines.LONGEST_LAG", 3)
    assert LONGEST_LAG > 3
    values = waves(200)
    model = fit_ridge(values, np.arange(50), np.arange(60, 90), 20, 2, [1])
    assert model.weights.shape == (4, 2)
    assert model.forecast(values, np.array([5]), 20, [1]).shape == (1, 2, 1)


def test_errors_are_means_over_all_values():
    actual = np.zeros((5, 2, 2))
    forecasts = np.zeros((5, 2, 2))
    forecasts[..., 1] = [3, -1]
    errors = forecast_errors(forecasts, actual, np.array([1.0, 4.0]))
    assert errors == {"mse": 2.5, "mae": 1.0, "mase": pytest.approx(0.25)}
    rows = column_errors({"m": forecasts}, actual, ["a", "b"], np.array([1.0, 10.0]))
    assert rows[1] == {
        **{"column": "b", "method": "m", "mae": pytest.approx(20)},
        "rmse": pytest.approx(np.sqrt(500)),
    }
    assert step_errors({"m": forecasts}, actual) == [{"step": 1, "m": 4.5}, {"step": 2, "m": 0.5}]
    table = error_table({"m": {"valid": errors, "test": errors}})
    assert table.splitlines()[1].split() == ["m", *["2.5000", "1.0000", "0.2500"] * 2]


def test_the_naive_error_is_that_of_a_period_before():
    values = np.array([[1.0, 5], [2, 5], [4, 5], [8, 5]])
    np.testing.assert_allclose(naive_errors(values, 0), [7 / 3, 1])
    np.testing.assert_allclose(naive_errors(values, 2), [4.5, 1])
    np.testing.assert_allclose(naive_errors(values, 9), [7 / 3, 1])


def test_overlapping_windows_make_an_interval_wider():
    rng = np.random.default_rng(3)
    errors = np.convolve(rng.normal(size=520), np.ones(20) / 20, "valid")
    zero = np.zeros_like(errors)
    narrow, wide = (
        np.diff(difference_interval(errors, zero, block, seed=0))[0] for block in (1, 40)
    )
    assert wide > 2 * narrow
    low, high = difference_interval(errors + 5, zero, 40, seed=0)
    assert low < 5 + errors.mean() < high


def test_the_comparison_is_with_the_best_of_the_others():
    rng = np.random.default_rng(4)
    actual = rng.normal(size=(200, 3, 1))
    forecasts = {"gru": actual + 0.1, "ridge": actual + 0.2, "last value": actual + 0.9}
    text = compare(forecasts, actual, 10, seed=0)
    assert text.startswith("Test MSE of gru less that of ridge, the best of the others: -0.0300")
    assert text.endswith("better.")
    forecasts["gru"] = actual + 0.3
    assert compare(forecasts, actual, 10, seed=0).endswith(": worse.")
    forecasts["gru"] = actual + rng.permutation([0.1, np.sqrt(0.07)] * 100)[:, None, None]
    assert compare(forecasts, actual, 10, seed=0).endswith("neither better nor worse.")


@pytest.mark.parametrize("timed", [True, False])
def test_pictures_show_what_was_known_and_what_followed(timed):
    values = np.arange(60, dtype=float)[:, None]
    step = Step(nanoseconds=3600 * 10**9) if timed else None
    times = None if step is None else step.times(np.datetime64("2024-01-01", "ns"), 60)
    series = TimeSeries("s", ["a"], values, times, step)
    starts = np.arange(20, 40)
    long = {"m": np.zeros((20, 5, 1))}
    panels = forecast_panels(series, long, starts, 8, ["a"])
    assert [title for title, _ in panels] == ["a"] * 3
    _, lines = panels[0]
    start = starts[20 // 6]
    x, y = lines["actual"]
    np.testing.assert_array_equal(y, np.arange(start, start + 13))
    np.testing.assert_array_equal(lines["m"][0], x[-5:])
    ((title, lines),) = forecast_panels(series, {"m": np.zeros((20, 1, 1))}, starts, 8, ["a"])
    assert title == "a, 1 step ahead"
    np.testing.assert_array_equal(lines["actual"][1], starts + 8)
    ((_, lines),) = end_panels(series, np.ones((4, 1)), ["a"], "m")
    x, y = lines["m"]
    assert len(x) == len(y) == 4
    if step is None:
        np.testing.assert_array_equal(x, np.arange(60, 64))
    else:
        assert x[0] == np.datetime64("2024-01-03T12")
