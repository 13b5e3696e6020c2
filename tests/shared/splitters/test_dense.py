"""Rows with many labels, and splits that are interrupted."""

import _thread
import hashlib

import numpy as np
import pytest

from shared.splitters import _table
from shared.splitters._background import run_in_background
from shared.splitters._exchange import exchange
from shared.splitters._kernels import Items, State, distribute, refine
from shared.splitters.multilabel import (
    MultilabelStratifiedKFold,
    label_distribution_error,
    nested_slices,
    train_valid_test_split,
)


def dense_matrix(n_rows, n_labels=60, labels_per_row=12, seed=0):
    """Make a matrix with frequent and rare labels."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(4, n_labels + 4)
    shares = labels_per_row * popularity / popularity.sum()
    return rng.random((n_rows, n_labels)) < np.minimum(shares, 0.9)


def folds(y, order=1, groups=None, seed=0):
    splits = MultilabelStratifiedKFold(5, order=order, random_state=seed).split(None, y, groups)
    return [test for _, test in splits]


# Sizes, labels, pairs


@pytest.mark.parametrize("order", [1, 2])
def test_labels_of_dense_rows_are_spread_to_the_row(order):
    y = dense_matrix(600)
    tests = folds(y, order)
    assert [len(test) for test in tests] == [120] * 5
    np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(600))
    deviations = np.abs([y[test].sum(0) - y.sum(0) / 5 for test in tests])
    assert deviations.mean() < (0.8 if order == 1 else 2)
    assert all(y[test].any(axis=0).all() for test in tests)


def test_many_rows_with_the_same_labels_are_spread():
    rng = np.random.default_rng(0)
    label_sets = rng.random((30, 30)) < 11 / 30
    y = label_sets[rng.integers(30, size=20_000)]
    counts = np.array([y[test].sum(axis=0) for test in folds(y)])
    assert np.abs(counts - y.sum(axis=0) / 5).max() < 20  # of about 1,500


@pytest.mark.parametrize("order", [1, 2])
def test_fewer_rare_labels_of_dense_rows_are_missing(order, monkeypatch):
    y = dense_matrix(300, n_labels=500, labels_per_row=14)
    enough = y.sum(axis=0) >= 5

    def n_missing():
        counts = [y[test].sum(axis=0) for seed in range(3) for test in folds(y, order, seed=seed)]
        return (np.array(counts) == 0)[:, enough].sum()

    missing = n_missing()
    monkeypatch.setattr(_table, "REPEATS", 0)
    assert missing < 0.7 * n_missing()


def test_order_2_spreads_pairs_of_dense_rows_better():
    y = dense_matrix(600)
    first, second = np.triu_indices(y.shape[1], 1)
    pairs = y[:, first] & y[:, second]
    errors = {order: label_distribution_error(pairs, folds(y, order)) for order in (1, 2)}
    assert errors[2] < errors[1]


def test_parts_of_unequal_sizes_and_slices_of_dense_rows():
    y = dense_matrix(600)
    parts = train_valid_test_split(y, valid_size=40, test_size=0.1, random_state=0)
    assert [len(part) for part in parts] == [500, 40, 60]
    small, large = nested_slices(y, [30, 300], random_state=0)
    assert set(small) < set(large)
    assert y[small].any(axis=0).all()
    assert np.abs(y[large].sum(0) - y.sum(0) / 2).mean() < 1


def test_groups_of_dense_rows_keep_together_in_parts_of_exact_size():
    y = dense_matrix(600)
    groups = np.arange(600)
    groups[:200] //= 4
    tests = folds(y, groups=groups)
    assert [len(test) for test in tests] == [120] * 5
    assert sum(len(set(groups[test])) for test in tests) == len(set(groups))
    deviations = np.abs([y[test].sum(0) - y.sum(0) / 5 for test in tests])
    assert deviations.mean() < 1


# Splits of the same seed


def digest(parts):
    return hashlib.sha256(b"|".join(np.asarray(p, "<i8").tobytes() for p in parts)).hexdigest()[:12]


@pytest.mark.parametrize(
    ("n_rows", "n_labels", "share", "expected"),
    [
        (441, 9, 0.13, ["bc897d0bb15d", "7a0ecda44939", "fb890584fc4a"]),
        (2000, 300, 0.01, ["6279d3951f2b", "1eb1e7f24860", "2cb2523fcced"]),
        (9000, 28, 0.05, ["13800c8b666f", "ac66a64430db", "560eeed03b54"]),
        (300, 60, 0.2, ["2e098612feec", "044826203de3", "aa8bb6d88542"]),
    ],
)
def test_splits_of_a_seed_stay_as_they_are(n_rows, n_labels, share, expected):
    """If this test fails, every published split changes: only do that on purpose."""
    rng = np.random.default_rng(n_rows)
    y = rng.random((n_rows, n_labels)) < share * 2 * rng.random(n_labels)
    groups = np.where(np.arange(n_rows) < n_rows // 5, np.arange(n_rows) // 2, np.arange(n_rows))
    parts = train_valid_test_split(y, groups=groups, random_state=2)
    assert [digest(folds(y)), digest(folds(y, order=2)), digest(parts)] == expected


# Interruption


def test_an_interrupt_ends_the_wait_and_tells_the_kernel():
    control = np.zeros(2, np.int64)
    ended = _thread.allocate_lock()
    ended.acquire()

    def kernel():
        _thread.interrupt_main()
        while not control[0]:
            pass
        ended.release()

    with pytest.raises(KeyboardInterrupt):
        run_in_background(kernel, control, "test")
    assert ended.acquire(timeout=60)


def test_errors_of_the_background_are_raised():
    for error in (ValueError, TimeoutError):

        def fail(error=error):
            raise error("no")

        with pytest.raises(error, match="no"):
            run_in_background(fail, np.zeros(2, np.int64), "test")


def test_kernels_return_unfinished_if_they_are_told_to():
    y = dense_matrix(100)
    rows, columns = np.nonzero(y)
    indptr = np.searchsorted(rows, np.arange(101))
    columns = columns.copy()  # a contiguous array, for which the kernels are compiled already
    items = Items(indptr, columns, np.ones_like(columns), np.ones(100, int))
    sizes, order = np.array([50, 50]), np.arange(100)
    target = np.outer(y.sum(0), [0.5, 0.5])
    required = np.zeros(target.shape, bool)

    def state_of(part):
        counts = np.stack([y[part == j].sum(0) for j in range(2)], axis=1)
        return State(counts, target, np.ones_like(target), required)

    stopped, running = np.array([1, 0]), np.zeros(2, int)
    part = np.full(100, -1)
    distribute(items, order, np.zeros(100), sizes, state_of(part), part, stopped)
    assert np.all(part == -1)
    halves = np.repeat([0, 1], 50)
    for control, changed in ((stopped, False), (running, True)):
        for search in (
            lambda part, control: exchange(items, order, state_of(part), part, True, 16, control),
            lambda part, control: refine(items, order, state_of(part), part, 0, control),
        ):
            part = halves.copy()
            before = control[1]
            search(part, control)
            assert np.any(part != halves) == changed
            assert (control[1] > before) == changed
