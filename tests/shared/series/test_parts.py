"""Parts by time, their windows, and what these may see."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.series.arguments import SeriesArguments
from shared.series.windows import (
    Scaler,
    WindowCollator,
    fill_forward,
    future_columns,
    part_borders,
    split_windows,
    window_rows,
)


def arguments(**settings):
    return dataclasses.replace(SeriesArguments(), **settings)


sizes = {
    "input_size": st.integers(1, 9),
    "horizon": st.integers(1, 6),
    "gap": st.none() | st.integers(0, 12),
    "valid_size": st.sampled_from([0, 0.1, 0.2, 20]),
    "test_size": st.sampled_from([0, 0.2, 30]),
    "train_size": st.sampled_from([0, 40, 0.3]),
}


@given(st.fixed_dictionaries(sizes), st.integers(100, 200), st.data())
@settings(deadline=None)
def test_no_window_sees_what_a_later_part_forecasts(flags, n_steps, data):
    """Each value is its step, so that a leak shows in the values of the windows."""
    args = arguments(**flags)
    values = np.arange(n_steps, dtype=float)[:, None]
    missing = data.draw(st.sets(st.integers(0, n_steps - 1), max_size=5))
    values[sorted(missing)] = np.nan
    try:
        borders, starts = split_windows(values, args, [0])
    except UserError:
        assume(False)
    collator = WindowCollator(values, args.input_size, args.horizon, [0])
    windows = {part: collator.cut(of_part) for part, of_part in starts.items()}
    steps = {part: [set(a.ravel().tolist()) for a in pair] for part, pair in windows.items()}
    parts = list(windows)
    for i, part in enumerate(parts):
        read, forecast = steps[part]
        first, end = borders[part]
        assert all(first <= step < end for step in forecast)
        assert not any(np.isnan(step) for step in read | forecast)
        # The inputs of a window come right before what it forecasts.
        past, later = windows[part]
        whole = np.concatenate([past, later], axis=1)[..., 0]
        assert (np.diff(whole, axis=1) == 1).all()
        for other in parts[i + 1 :]:
            later_steps = steps[other][1]
            assert max(read | forecast) < min(later_steps)
            gap = args.input_size if args.gap is None else args.gap
            assert borders[other][0] - end >= gap
            if args.gap is None:
                assert not forecast & steps[other][0]
    if not missing:
        # Nothing that could be forecast is left out.
        first, end = borders["train"]
        assert len(starts["train"]) == end - args.input_size - args.horizon + 1


def test_the_borders_of_etth1_are_the_published_ones():
    args = arguments(
        input_size=336, horizon=96, gap=0, train_size=8640, valid_size=2880, test_size=2880
    )
    borders, starts = split_windows(np.zeros((17_420, 7)), args, list(range(7)))
    assert borders == {"train": (0, 8640), "valid": (8640, 11_520), "test": (11_520, 14_400)}
    assert [len(starts[part]) for part in borders] == [8209, 2785, 2785]


def test_gaps_are_left_out_or_filled_but_never_forecast():
    values = np.arange(60, dtype=float)[:, None]
    values[20] = np.nan
    args = arguments(input_size=4, horizon=2, valid_size=0, test_size=0)
    starts = split_windows(values, args, [0])[1]["train"]
    assert not {*range(15, 21)} & {*starts}
    assert {14, 21} <= {*starts}
    args.fill_gaps = True
    starts = split_windows(values, args, [0])[1]["train"]
    assert not {15, 16} & {*starts}
    assert {17, 20} <= {*starts}
    np.testing.assert_array_equal(fill_forward(values)[19:22, 0], [19, 19, 21])
    values[0] = np.nan
    assert np.isnan(fill_forward(values)[0, 0])
    assert split_windows(values, args, [0])[1]["train"][0] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"valid_size": 0.6, "test_size": 0.5}, r"has 100 steps, and .*\(--gap 96\) need 302"),
        ({"test_size": 1.5, "gap": 0}, "--test_size 1.5: must be a whole number, or below 1"),
        ({"test_size": 0.001}, "--test_size 0.001: is less than one of 100 steps"),
        ({"input_size": 5, "horizon": 12}, "the valid part has 10 steps, too few for a window"),
    ],
)
def test_parts_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        split_windows(np.zeros((100, 1)), arguments(**flags), [0])


def test_a_part_of_gaps_only_says_what_to_do():
    values = np.arange(100, dtype=float)[:, None]
    values[::2] = np.nan
    with pytest.raises(UserError, match="each window of the train part has a gap; give --fill_g"):
        split_windows(values, arguments(input_size=4, horizon=1), [0])


def test_parts_without_a_share_are_left_out():
    assert part_borders(50, arguments(valid_size=0, test_size=0)) == {"train": (0, 50)}
    borders = part_borders(500, arguments(valid_size=0, test_size=0.2, gap=10))
    assert borders == {"train": (0, 390), "test": (400, 500)}


def test_a_column_of_the_future_is_reported():
    rng = np.random.default_rng(0)
    target, other = rng.normal(size=(2, 400)).cumsum(axis=1)
    leak = np.roll(target, -3) * 2 + 7  # 3 steps later
    late = np.roll(target, 5)
    columns = np.stack([target, other, leak, late, np.ones(400)], axis=1)
    assert future_columns(columns, [0], horizon=6) == [(2, 0, 3)]
    assert future_columns(columns, [0], horizon=2) == []
    with_gaps = columns.copy()
    with_gaps[::50] = np.nan
    assert future_columns(with_gaps, [0], horizon=6) == [(2, 0, 3)]
    # A season is no leak: what is to come stood there before, too.
    wave = np.sin(np.arange(400) * 2 * np.pi / 24)
    assert future_columns(np.stack([wave, np.roll(wave, -3)], axis=1), [0], horizon=30) == []


def test_the_scale_is_that_of_the_values_that_are_known():
    values = np.array([[1, 5, 2.0], [3, 5, np.nan], [5, 5, 4]])
    scaler = Scaler.of(values, ["a", "b", "c"], ["a"])
    np.testing.assert_allclose(scaler.mean, [3, 5, 3])
    np.testing.assert_allclose(scaler.scale, [np.sqrt(8 / 3), 1, 1])
    np.testing.assert_allclose(scaler.apply(values)[:, 1], 0)
    with pytest.raises(UserError, match="'b' is always 5 in the training part"):
        Scaler.of(values, ["a", "b", "c"], ["a", "b"])
    with pytest.raises(UserError, match="'c' has no value in the training part"):
        Scaler.of(values * [1, 1, np.nan], ["a", "b", "c"], ["a"])


def test_a_batch_holds_the_windows_of_its_rows():
    values = np.arange(40, dtype=float).reshape(20, 2)
    collator = WindowCollator(values, 3, 2, [1])
    rows = window_rows(np.array([4, 0]))
    batch = collator([rows[0], rows[1]])
    np.testing.assert_array_equal(batch["past_values"][0], values[4:7])
    np.testing.assert_array_equal(batch["labels"][0], values[7:9, 1:])
    np.testing.assert_array_equal(batch["labels"][1], values[3:5, 1:])
