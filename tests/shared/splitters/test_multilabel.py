import os
import random
import shutil
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ShuffleSplit,
    check_cv,
    cross_val_score,
)

from shared.cli.errors import UserError
from shared.splitters._kernels import Items, State, distribute
from shared.splitters.multilabel import (
    MultilabelStratifiedKFold,
    MultilabelStratifiedShuffleSplit,
    RepeatedMultilabelStratifiedKFold,
    label_distribution_error,
    nested_slice,
    nested_slices,
    train_valid_test_split,
)

ROOT = Path(__file__).resolve().parents[3]
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def label_matrices(draw, min_rows=12, max_rows=60, max_labels=8):
    """Matrices with rare and frequent labels, and rows with no label and with many."""
    n_rows = draw(st.integers(min_rows, max_rows))
    n_labels = draw(st.integers(0, max_labels))
    rng = np.random.default_rng(draw(SEEDS))
    shares = rng.random(n_labels) ** draw(st.sampled_from([0.2, 1, 4]))
    return (rng.random((n_rows, n_labels)) < shares).astype(
        draw(st.sampled_from(["?", "u1", "f8"]))
    )


def parts_of(y, seed, order=1, groups=None):
    """Yield, for each splitter, the parts in which rare labels are promised."""
    kfold = MultilabelStratifiedKFold(4, order=order, random_state=seed)
    yield [test for _, test in kfold.split(None, y, groups)]
    shuffle = MultilabelStratifiedShuffleSplit(
        2, test_size=0.3, train_size=0.5, order=order, random_state=seed
    )
    yield from shuffle.split(None, y, groups)
    yield train_valid_test_split(y, groups=groups, order=order, random_state=seed)


def pairs(y):
    """Return the product of each pair of columns of y."""
    first, second = np.triu_indices(y.shape[1], 1)
    return y[:, first] & y[:, second]


def simple_matrix(n_rows=200, n_labels=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n_rows, n_labels)) < np.linspace(0.03, 0.5, n_labels)).astype(int)


# Partition, sizes, order of rows


@given(label_matrices(), st.integers(2, 7), st.sampled_from([1, 2]), SEEDS)
@settings(max_examples=60, deadline=None)
def test_kfold_partitions_rows_in_sizes_of_sklearn(y, n_splits, order, seed):
    splitter = MultilabelStratifiedKFold(n_splits, order=order, random_state=seed)
    splits = list(splitter.split(None, y))
    assert len(splits) == splitter.get_n_splits() == n_splits
    tests = [test for _, test in splits]
    np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(len(y)))
    assert [len(t) for t in tests] == [len(t) for _, t in KFold(n_splits).split(y)]
    for train, test in splits:
        np.testing.assert_array_equal(train, np.setdiff1d(np.arange(len(y)), test))
        assert np.all(np.diff(test) > 0)


@given(
    label_matrices(),
    st.one_of(st.none(), st.integers(1, 5), st.floats(0.05, 0.45)),
    st.one_of(st.none(), st.integers(1, 5), st.floats(0.1, 0.5)),
    SEEDS,
)
@settings(max_examples=60, deadline=None)
def test_shuffle_split_has_sizes_of_sklearn(y, test_size, train_size, seed):
    sizes = {"test_size": test_size, "train_size": train_size}
    expected = [(len(a), len(b)) for a, b in ShuffleSplit(3, **sizes).split(y)]
    splits = list(MultilabelStratifiedShuffleSplit(3, random_state=seed, **sizes).split(y, y))
    assert [(len(a), len(b)) for a, b in splits] == expected
    for train, test in splits:
        rows = np.concatenate([train, test])
        assert len(np.unique(rows)) == len(rows)
        assert rows.min() >= 0
        assert rows.max() < len(y)


@given(label_matrices(), st.sampled_from([1, 3, 0.07, 0.25]), st.sampled_from([2, 0.3]), SEEDS)
@settings(max_examples=40, deadline=None)
def test_train_valid_test_split_partitions_rows(y, valid_size, test_size, seed):
    parts = train_valid_test_split(y, valid_size=valid_size, test_size=test_size, random_state=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(y)))
    for part, size in zip(parts[1:], (valid_size, test_size), strict=True):
        assert len(part) == (size if isinstance(size, int) else int(np.ceil(size * len(y))))


@given(label_matrices(), st.sets(st.integers(1, 12), min_size=1), st.sampled_from([1, 2]), SEEDS)
@settings(max_examples=60, deadline=None)
def test_nested_slices_begin_with_the_smaller_ones(y, sizes, order, seed):
    sizes = sorted(sizes)
    slices = nested_slices(y, sizes, order=order, random_state=seed)
    assert [len(s) for s in slices] == sizes
    assert len(np.unique(slices[-1])) == sizes[-1]
    for smaller, larger in pairwise(slices):
        np.testing.assert_array_equal(larger[: len(smaller)], smaller)


def test_slices_of_separate_calls_are_nested():
    y = np.random.default_rng(0).random((300, 5)) < [0.4, 0.2, 0.1, 0.05, 0.02]
    sizes = [1, 2, 7, 8, 60, 61, 299, 300]
    slices = [nested_slice(y, size, random_state=3) for size in sizes]
    for size, rows in zip(sizes, slices, strict=True):
        assert np.array_equal(rows, np.unique(rows))
        assert len(rows) == size
    assert all(set(a) < set(b) for a, b in pairwise(slices))
    assert y[slices[4]].any(axis=0).all()
    assert not np.array_equal(slices[4], nested_slice(y, 60, random_state=4))
    for size in (0, 301):
        with pytest.raises(UserError, match=f"size must be from 1 to 300, .* not {size}$"):
            nested_slice(y, size, random_state=3)


def test_nested_slices_may_end_with_all_rows():
    y = simple_matrix(50)
    slices = nested_slices(y, [10, 50], random_state=0)
    np.testing.assert_array_equal(np.sort(slices[1]), np.arange(50))


# Randomness


@given(label_matrices(), st.sampled_from([1, 2]), SEEDS)
@settings(max_examples=40, deadline=None)
def test_same_seed_same_split_of_dense_and_sparse(y, order, seed):
    before = np.random.get_state()[1].copy(), random.getstate()

    def splits(form):
        return [*parts_of(form, seed, order), nested_slices(form, [4, 9], random_state=seed)]

    expected = splits(y)
    for form in (y, y.tolist(), np.asfortranarray(y), sp.csr_array(y), sp.coo_matrix(y)):
        for parts, same in zip(expected, splits(form), strict=True):
            for part, same_part in zip(parts, same, strict=True):
                np.testing.assert_array_equal(part, same_part)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


def test_split_is_the_same_on_every_run():
    """If this test fails, every published split changes: only do that on purpose."""
    train, valid, test = train_valid_test_split(simple_matrix(20), random_state=7)
    assert train.tolist() == [1, 2, 3, 5, 10, 12, 13, 14, 16, 18]
    assert valid.tolist() == [4, 8, 9, 11, 15]
    assert test.tolist() == [0, 6, 7, 17, 19]


@pytest.mark.parametrize("source", [np.random.default_rng, np.random.RandomState])
def test_generator_is_advanced(source):
    y = simple_matrix()
    rng = source(3)
    first, second = (nested_slices(y, [50], random_state=rng)[0] for _ in range(2))
    assert set(first) != set(second)
    np.testing.assert_array_equal(first, nested_slices(y, [50], random_state=source(3))[0])


def test_seeds_and_splits_differ():
    y = simple_matrix()
    slices = [nested_slices(y, [50], random_state=s)[0] for s in (0, 1, None, None)]
    tests = [t for _, t in MultilabelStratifiedShuffleSplit(4, random_state=0).split(None, y)]
    assert len({frozenset(s) for s in slices}) == 4
    assert len({frozenset(t) for t in tests}) == 4


# Quality


@given(st.integers(2, 6), st.integers(1, 6), st.integers(40, 90), SEEDS)
@settings(max_examples=60, deadline=None)
def test_one_label_per_row_is_in_every_part(n_splits, n_labels, n_rows, seed):
    y = np.random.default_rng(seed).integers(0, n_labels, n_rows)
    for _, test in MultilabelStratifiedKFold(n_splits, random_state=seed).split(None, y):
        for label in range(n_labels):
            if np.sum(y == label) >= n_splits:
                assert label in y[test]
    for part in train_valid_test_split(y, valid_size=6, test_size=6, random_state=seed):
        assert {c for c in range(n_labels) if np.sum(y == c) >= 3} <= set(y[part])


@given(label_matrices(), st.sampled_from([1, 2]), SEEDS)
@settings(max_examples=60, deadline=None)
def test_rare_labels_miss_a_part_only_if_none_can_be_spared(y, order, seed):
    for parts in parts_of(y, seed, order):
        counts = np.array([np.sum(y[part], axis=0) for part in parts], int)
        promised = np.sum(y, axis=0) >= len(parts)
        last = [promised & (c == 1) for c in counts]
        unused = np.setdiff1d(np.arange(len(y)), np.concatenate(parts))
        for j, label in np.argwhere((counts == 0) & promised):
            if len(parts[j]) < promised.sum():
                continue
            assert not np.any(y[unused, label])
            for part, needed in zip(parts, last, strict=True):
                for row in part:
                    if y[row, label]:
                        assert np.any(y[row].astype(bool) & needed)


@pytest.mark.parametrize("n_splits", [2, 3, 5])
def test_rare_labels_are_in_every_part_if_such_a_split_exists(n_splits):
    """Small tables, made so that one split has every label in every part; seeds are fixed."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n_labels, part_size = rng.integers(2, 9), rng.integers(3, 8)
        part = rng.permutation(np.repeat(np.arange(n_splits), part_size))
        y = (rng.random((part.size, n_labels)) < 0.05).astype(int)
        for j in range(n_splits):
            y[rng.choice(np.flatnonzero(part == j), n_labels), np.arange(n_labels)] = 1
        for _, test in MultilabelStratifiedKFold(n_splits, random_state=seed).split(None, y):
            assert np.all(y[test].any(axis=0)), seed


@pytest.mark.parametrize("order", [1, 2])
def test_labels_are_spread_to_the_row(order):
    """In a table of this size, each label can be within one row of its share."""
    y = simple_matrix(1003, 8)
    for _, test in MultilabelStratifiedKFold(5, order=order, random_state=0).split(None, y):
        np.testing.assert_array_less(np.abs(y[test].sum(0) - y.sum(0) * len(test) / len(y)), 1)
    _, test = next(MultilabelStratifiedShuffleSplit(1, test_size=200, order=order).split(None, y))
    np.testing.assert_array_less(np.abs(y[test].sum(0) - y.sum(0) * 200 / len(y)), 1)


def test_order_2_spreads_pairs_better():
    rng = np.random.default_rng(0)
    y = (rng.random((600, 6)) < 0.35).astype(int)
    errors = {}
    for order in (1, 2):
        splits = [
            [
                test
                for _, test in MultilabelStratifiedKFold(5, order=order, random_state=s).split(
                    None, y
                )
            ]
            for s in range(5)
        ]
        errors[order] = np.mean([label_distribution_error(pairs(y), tests) for tests in splits])
    assert errors[2] < 0.6 * errors[1]


def test_nested_slices_cover_labels_and_keep_their_odds():
    y = simple_matrix(400, 9)
    rng = np.random.default_rng(0)
    for size, rows in zip(
        (9, 40, 120), nested_slices(y, [9, 40, 120], random_state=0), strict=True
    ):
        assert np.all(y[rows].any(axis=0))
        draws = [rng.permutation(400)[:size] for _ in range(50)]
        assert label_distribution_error(y, [rows]) < min(
            label_distribution_error(y, [draw]) for draw in draws
        )


def test_nested_slice_with_fewer_rows_than_labels_has_a_label_per_row():
    classes = np.repeat(np.arange(30), 10)
    (rows,) = nested_slices(classes, [20], random_state=0)
    assert len(np.unique(classes[rows])) == 20


def test_greedy_pass_is_iterative_stratification():
    """Compare with a simple version of the published algorithm, if no two labels are tied."""
    compared = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        y = rng.random((30, 4)) < [0.1, 0.3, 0.5, 0.8]
        sizes = np.array([15, 9, 6])
        shuffled, tie_breakers = rng.permutation(30), rng.random(30)
        expected = plain_stratification(y, sizes, shuffled, tie_breakers)
        if expected is None:
            continue
        compared += 1
        rows, columns = np.nonzero(y)
        indptr = np.searchsorted(rows, np.arange(31))
        items = Items(indptr, columns, np.ones_like(columns), np.ones(30, int))
        target = np.outer(y.sum(0), sizes / 30)
        required = np.zeros(target.shape, bool)
        state = State(np.zeros(target.shape, int), target, target, required)
        part = np.full(30, -1)
        distribute(items, shuffled, tie_breakers, sizes.copy(), state, part, np.zeros(2, int))
        np.testing.assert_array_equal(part, expected)
        for j in range(3):
            np.testing.assert_array_equal(state.counts[:, j], y[part == j].sum(0))
    assert compared > 50


def plain_stratification(y, sizes, shuffled, tie_breakers):
    """Run Sechidis et al. (2011) with parts of exact size; None if two labels are equally rare."""
    desired = np.outer(y.sum(0), sizes / len(y))
    room = sizes.copy()
    part = np.full(len(y), -1)
    while np.any(part < 0):
        left = y[part < 0].sum(0)
        rarest = left[left > 0].min(initial=len(y))
        if np.sum(left == rarest) > 1:
            return None
        label = np.argmax(left == rarest) if left.any() else None
        for row in shuffled:
            if part[row] >= 0 or (label is not None and not y[row, label]):
                continue
            open_parts = [j for j in range(len(sizes)) if room[j] > 0]
            if label is not None:
                most = max(desired[label, j] for j in open_parts)
                open_parts = [j for j in open_parts if desired[label, j] == most]
            most = max(room[j] for j in open_parts)
            open_parts = [j for j in open_parts if room[j] == most]
            j, tie_breaker = open_parts[0], tie_breakers[row]
            for ties, other in enumerate(open_parts[1:], 2):
                tie_breaker *= ties
                if tie_breaker < 1:
                    j = other
                else:
                    tie_breaker = (tie_breaker - 1) / (ties - 1)
            part[row] = j
            room[j] -= 1
            desired[y[row], j] -= 1
    return part


# Groups


@given(label_matrices(min_rows=20), st.integers(6, 60), st.sampled_from([1, 2]), SEEDS)
@settings(max_examples=60, deadline=None)
def test_groups_never_cross(y, n_groups, order, seed):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(6), rng.integers(0, n_groups, len(y) - 6)])
    for parts in parts_of(y, seed, order, groups):
        members = [set(groups[part]) for part in parts]
        assert all(members)
        assert sum(map(len, members)) == len(set().union(*members))
        assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))


def test_sizes_are_exact_with_enough_groups_of_one_row():
    y = simple_matrix(500)
    groups = np.arange(500)
    groups[:60] //= 3
    names = np.array([f"group {g}" for g in groups])
    train, valid, test = train_valid_test_split(y, groups=names, random_state=0)
    assert (len(train), len(valid), len(test)) == (250, 125, 125)
    for part in (train, valid, test):
        np.testing.assert_array_less(np.abs(y[part].sum(0) - y.sum(0) * len(part) / 500), 1)


def test_sizes_are_close_with_large_groups():
    y = simple_matrix(1000)
    groups = np.random.default_rng(0).integers(0, 60, 1000)
    for _, test in MultilabelStratifiedKFold(5, random_state=0).split(None, y, groups):
        assert abs(len(test) - 200) <= 5


# The forms of y


def test_classes_are_labels():
    classes = np.random.default_rng(0).integers(3, 7, 90)
    one_hot = (classes[:, None] == np.unique(classes)).astype(int)
    names = np.array(["a", "b", "c", "d"])[classes - 3]
    expected = train_valid_test_split(one_hot, random_state=1)
    for form in (classes, classes.astype(float), names, names.tolist(), names.astype(object)):
        for part, same in zip(train_valid_test_split(form, random_state=1), expected, strict=True):
            np.testing.assert_array_equal(part, same)


def test_sparse_y_is_not_changed_and_may_store_zeros():
    y = sp.coo_array(([1, 0, 1, 1], ([5, 2, 0, 3], [1, 1, 0, 1])), shape=(8, 2)).tocsr()
    before = y.copy()
    parts = [t for _, t in MultilabelStratifiedKFold(2, random_state=0).split(None, y)]
    dense = [t for _, t in MultilabelStratifiedKFold(2, random_state=0).split(None, y.toarray())]
    for part, same in zip(parts, dense, strict=True):
        np.testing.assert_array_equal(part, same)
    np.testing.assert_array_equal(y.indices, before.indices)
    np.testing.assert_array_equal(y.data, before.data)


def test_sparse_y_is_never_made_dense():
    rng = np.random.default_rng(0)
    n_rows, n_labels, n_positives = 30_000, 20_000, 60_000
    entries = rng.integers(0, n_rows, n_positives), rng.integers(0, n_labels, n_positives)
    y = sp.csr_array((np.ones(n_positives, bool), entries), shape=(n_rows, n_labels))
    tracemalloc.start()
    parts = [t for _, t in MultilabelStratifiedKFold(2, random_state=0).split(None, y)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, parts)) == n_rows
    assert peak < 30e6  # a dense y has 600e6 bytes at least


# The measure


def test_label_distribution_error_by_hand():
    y = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    # Label 0: odds 1, in the parts 2 / 1 (one negative assumed) and 0 / 2.
    # Label 1: odds 1 everywhere.
    assert label_distribution_error(y, [[0, 1], [2, 3]]) == pytest.approx((1 + 1) / 2 / 2)
    assert label_distribution_error(sp.csr_array(y), [[0, 2], [1, 3]]) == pytest.approx(0)
    assert label_distribution_error(np.ones((4, 1)), [[0, 1], [2, 3]]) == 0


# With scikit-learn


def test_as_cv_of_scikit_learn():
    y = simple_matrix()
    X = np.arange(len(y))[:, None]
    for splitter in (
        MultilabelStratifiedKFold(3, random_state=0),
        MultilabelStratifiedShuffleSplit(3, test_size=0.2, random_state=0),
    ):
        assert check_cv(splitter) is splitter
        model = DummyClassifier(strategy="prior")
        assert len(cross_val_score(model, X, y, cv=splitter)) == 3
        assert len(cross_val_score(model, X, y, cv=splitter, groups=np.arange(200) // 2)) == 3
        search = GridSearchCV(model, {"strategy": ["prior", "uniform"]}, cv=splitter).fit(X, y)
        assert search.n_splits_ == 3


def test_repr():
    assert repr(MultilabelStratifiedKFold(3, random_state=0)) == (
        "MultilabelStratifiedKFold(n_splits=3, order=1, random_state=0)"
    )
    assert repr(MultilabelStratifiedShuffleSplit(test_size=0.2)) == (
        "MultilabelStratifiedShuffleSplit(n_splits=10, test_size=0.2, train_size=None, order=1, "
        "random_state=None)"
    )


# Error messages


def kfold(y, groups=None, X=None, **parameters):
    return list(MultilabelStratifiedKFold(**parameters).split(X, y, groups))


def shuffle_split(y, **parameters):
    return list(MultilabelStratifiedShuffleSplit(**parameters).split(None, y))


Y = simple_matrix(10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kfold(Y, n_splits=1), "n_splits must be .* not 1"),
        (lambda: kfold(Y, n_splits=2.0), "n_splits must be .* not 2.0"),
        (lambda: kfold(Y, n_splits=11), "n_splits=11 is more than the 10 rows"),
        (lambda: kfold(Y, order=3), "order must be .* not 3"),
        (lambda: kfold(Y, random_state=-1), "random_state must be .* not -1"),
        (lambda: kfold(Y, random_state="a"), "random_state must be .* not 'a'"),
        (lambda: kfold(Y, X=np.ones((9, 2))), "X has 9 rows, but y has 10"),
        (lambda: kfold(Y, groups=[1, 2]), "groups has 2 rows, but y has 10"),
        (lambda: kfold(Y, groups=[0] * 7 + [1, 2, 3]), "groups has 4 .* too few for 5 parts"),
        (lambda: kfold(Y, groups=[np.nan] + [1.0] * 9), "groups must hold .* none missing"),
        (lambda: kfold(Y, groups=[None] + ["a"] * 9), "groups must hold .* NoneType, str"),
        (lambda: kfold(Y, groups=np.ones((10, 1))), "groups must have one dimension, not 2"),
        (lambda: kfold(None), "y must have one or two dimensions, not 0"),
        (lambda: kfold(np.ones((10, 2, 2))), "y must have one or two dimensions, not 3"),
        (lambda: kfold([[0, 1], [1]]), "y must be a matrix .* rows differ in length"),
        (lambda: kfold(np.empty((0, 3))), "y has no rows"),
        (lambda: kfold(np.where(np.eye(10) > 0, np.nan, 0.0)), "row 0, label 0 is nan"),
        (lambda: kfold(np.eye(10) * 2), "row 0, label 0 is 2.0"),
        (lambda: kfold(np.eye(10) - np.eye(10, k=-1)), "row 1, label 0 is -1.0"),
        (lambda: kfold(np.full((10, 2), "0")), "row 0, label 0 is '0'"),
        (lambda: kfold(sp.csr_array(np.eye(10) * 0.5)), "row 0, label 0 is 0.5"),
        (lambda: kfold([0.5] * 10), "y of one dimension must hold whole numbers or strings"),
        (lambda: kfold([np.nan] * 10), "y of one dimension must hold .* none missing"),
        (lambda: kfold(["a", None] * 5), "y of one dimension must hold .* NoneType, str"),
        (lambda: shuffle_split(Y, n_splits=0), "n_splits must be .* not 0"),
        (lambda: shuffle_split(Y, test_size=10), "test_size=10 is 10 of the 10 rows"),
        (lambda: shuffle_split(Y, test_size=1.5), "test_size must be .* not 1.5"),
        (lambda: shuffle_split(Y, test_size=np.nan), "test_size must be .* not nan"),
        (lambda: shuffle_split(Y, train_size="all"), "train_size must be .* not 'all'"),
        (lambda: shuffle_split(Y, train_size=0.05), "train_size=0.05 is 0 of the 10 rows"),
        (
            lambda: shuffle_split(Y, train_size=0.8, test_size=3),
            "train_size=0.8 and test_size=3 are 8 and 3 rows, together more than the 10",
        ),
        (
            lambda: train_valid_test_split(Y, valid_size=5, test_size=0.5),
            "valid_size=5 and test_size=0.5 are 5 and 5 of the 10 rows",
        ),
        (lambda: train_valid_test_split(Y, valid_size=-1), "valid_size=-1 is -1 of the 10 rows"),
        (lambda: nested_slices(Y, []), r"sizes must be one or more numbers .* not \[\]"),
        (lambda: nested_slices(Y, [4, 2]), r"sizes must be .* ascending .* not \[4, 2\]"),
        (lambda: nested_slices(Y, [2, 2]), r"sizes must be .* each once, not \[2, 2\]"),
        (lambda: nested_slices(Y, [2, 11]), "sizes must be whole numbers from 1 to 10, .* not 11"),
        (lambda: nested_slices(Y, [0.5]), "sizes must be whole numbers .* not 0.5"),
        (lambda: label_distribution_error(Y, []), "parts is empty"),
        (lambda: label_distribution_error(Y, [[0], []]), r"parts\[1\] has no rows"),
    ],
)
def test_errors_name_the_parameter_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# The cost of the import, and the cache of compiled code


def run(code, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_import_loads_nothing_heavy():
    heavy = "'numba', 'scipy', 'sklearn', 'torch', 'pandas'"
    code = f"import sys, shared.splitters.multilabel; print({{{heavy}}} & set(sys.modules))"
    assert run(code, ROOT).strip() == "set()"


def test_works_without_a_folder_for_compiled_code(tmp_path):
    shared = tmp_path / "shared"
    for folder, *names in (
        ("cli", "__init__", "errors"),
        ("splitters", "__init__", "multilabel", "_table", "_kernels", "_exchange", "_background"),
    ):
        (shared / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(ROOT / "shared" / folder / f"{name}.py", shared / folder)
    (shared / "splitters" / "__pycache__").touch()  # a file, so that no such folder can be made
    code = (
        "from shared.splitters.multilabel import *; print(nested_slices([0, 1] * 4, [4])[0].size)"
    )
    nowhere = {"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull, "NUMBA_CACHE_DIR": ""}
    assert run(code, tmp_path, **nowhere).strip() == "4"


@pytest.mark.parametrize(("valid_size", "test_size"), [(0, 0.25), (0.25, 0), (0, 0)])
def test_a_part_of_no_rows_is_empty(valid_size, test_size):
    y = np.random.default_rng(0).random((40, 3)) < 0.3
    parts = train_valid_test_split(y, valid_size=valid_size, test_size=test_size, random_state=0)
    assert [len(part) for part in parts[1:]] == [valid_size * 40, test_size * 40]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(40))


def test_repeated_folds_differ_and_the_first_are_those_without_repeats():
    y = np.random.default_rng(0).random((60, 4)) < 0.3
    splitter = RepeatedMultilabelStratifiedKFold(3, n_repeats=4, random_state=5)
    parts = [test.tolist() for _, test in splitter.split(None, y)]
    assert len(parts) == splitter.get_n_splits() == 12
    for start in range(0, 12, 3):
        assert sorted(np.concatenate(parts[start : start + 3])) == list(range(60))
    assert len({tuple(part) for part in parts}) == 12
    single = MultilabelStratifiedKFold(3, random_state=5).split(None, y)
    assert parts[:3] == [test.tolist() for _, test in single]
    assert parts == [test.tolist() for _, test in splitter.split(None, y)]
    with pytest.raises(UserError, match="n_repeats must be a whole number of at least 1, not 0"):
        RepeatedMultilabelStratifiedKFold(n_repeats=0)
