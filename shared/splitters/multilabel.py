"""Stratified splits for several labels per row: exact sizes, linear time.

`MultilabelStratifiedKFold` and `MultilabelStratifiedShuffleSplit` follow scikit-learn's splitter
interface, so that any `cv=` takes them; `train_valid_test_split` and `nested_slices` return index
arrays; `label_distribution_error` judges a split.

Method
------
Iterative stratification of the labels (order 1) [1]_, or of the labels and the pairs of labels that
occur together (order 2) [2]_, into parts of exact size. Rows then change places between parts as
long as that brings the odds of the labels, at order 2 of the pairs too, nearer to those of the
whole, or a rare label into a part that lacks it. Small tables are split several times over and the
best split is taken. Time and memory grow linearly with the number of positives, at order 2 of
pairs; a sparse y is never made dense.

Rare labels
-----------
Without groups, a label with at least as many positives as there are parts has one in every part.
Labels that share rows can be at odds about this, and there may be no split that serves all.
Exactly: such a label is missing from a part only if the part has fewer rows than there are such
labels, or if none of the label's positives can be spared where it is, each being its part's only
positive of this or of another such label. Where rows have one label each all can be served.

Groups
------
Rows of one group, such as near duplicates, stay in one part; labels are counted per group. Sizes
are then as close to those asked for as the search gets with whole groups: with enough groups of one
row they are exact. Rare labels are spread as far as that goes.

Randomness
----------
An int `random_state` gives the same split every time, of a dense and of a sparse y; None another
each time; a Generator or RandomState is drawn from. NumPy's global generator is left alone.

References
----------
.. [1] Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data. ECML PKDD 2011.
.. [2] Szymanski, Kajdanowicz: A Network Perspective on Stratification of Multi-Label Data. LIDTA
   2017.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from shared.cli.errors import UserError

# Chance decides how good a split gets where room is tight, that is in small tables: these are split
# several times over, up to this many times and this many positives, and the best split is taken.
DRAWS = 20
DRAWN_POSITIVES = 50_000

# What a row too many or too few in a part costs when groups make sizes a matter of search, in rows
# of the label that weighs most: a rare label that is missing costs ten times as much.
SIZE_WEIGHT = 1e5


@dataclass(eq=False)
class MultilabelStratifiedKFold:
    """K-fold cross-validation with every label spread evenly over the folds.

    Fold sizes are those of scikit-learn's `KFold`: they differ by one row at most. For the method,
    and for what is promised to rare labels, see `shared.splitters.multilabel`.

    Parameters
    ----------
    n_splits : int, default 5
        Number of folds, at least 2.
    order : {1, 2}, default 1
        Whether to spread labels, or labels and pairs of them.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default None
        Seed, or source of randomness. None draws anew for each call of `split`.

    Raises
    ------
    UserError
        If a parameter is out of range; on `split`, also if y has fewer rows, or groups, than folds.
    """

    n_splits: int = 5
    _: KW_ONLY
    order: int = 1
    random_state: Any = None

    def __post_init__(self):
        _check_n_splits(self.n_splits, 2)

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        """The number of folds; the arguments are ignored."""
        return self.n_splits

    def split(self, X, y, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test), ascending row numbers, for each fold in turn.

        Parameters
        ----------
        X : array-like (rows, ...) or None
            Only its number of rows is looked at.
        y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
        groups : array-like (rows,), optional
            Rows of one group stay in one fold.
        """
        table = _read(y, order=self.order, groups=groups, X=X)
        if self.n_splits > table.n_rows:
            raise UserError(f"n_splits={self.n_splits} is more than the {table.n_rows} rows of y")
        sizes = np.full(self.n_splits, table.n_rows // self.n_splits)
        sizes[: table.n_rows % self.n_splits] += 1
        part = _split(table, sizes, self.n_splits, _generator(self.random_state))
        for fold in range(self.n_splits):
            yield np.flatnonzero(part != fold), np.flatnonzero(part == fold)


@dataclass(eq=False)
class MultilabelStratifiedShuffleSplit:
    """Random splits into train and test with every label spread in proportion.

    For the method, and for what is promised to rare labels, see `shared.splitters.multilabel`.

    Parameters
    ----------
    n_splits : int, default 10
        Number of splits, drawn independently of each other.
    test_size, train_size : float, int or None, default None
        A fraction of the rows (rounded up for test, down for train, as in scikit-learn) or a number
        of rows. One alone leaves the rest to the other; without either, test gets a tenth.
    order : {1, 2}, default 1
        Whether to spread labels, or labels and pairs of them.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default None
        Seed, or source of randomness. None draws anew for each call of `split`.

    Raises
    ------
    UserError
        If a parameter is out of range; on `split`, also if the sizes are beyond the rows of y.
    """

    n_splits: int = 10
    _: KW_ONLY
    test_size: float | int | None = None
    train_size: float | int | None = None
    order: int = 1
    random_state: Any = None

    def __post_init__(self):
        _check_n_splits(self.n_splits, 1)

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        """The number of splits; the arguments are ignored."""
        return self.n_splits

    def split(self, X, y, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test), ascending row numbers, for each split in turn.

        Parameters
        ----------
        X : array-like (rows, ...) or None
            Only its number of rows is looked at.
        y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
        groups : array-like (rows,), optional
            Rows of one group stay on one side.
        """
        table = _read(y, order=self.order, groups=groups, X=X)
        n = table.n_rows
        n_test = n_train = None
        if self.test_size is not None:
            n_test = _n_rows("test_size", self.test_size, n, math.ceil)
        if self.train_size is not None:
            n_train = _n_rows("train_size", self.train_size, n, math.floor)
        if n_test is None:
            n_test = _n_rows("test_size", 0.1, n, math.ceil) if n_train is None else n - n_train
        if n_train is None:
            n_train = n - n_test
        unused = n - n_train - n_test
        if unused < 0:
            raise UserError(
                f"train_size={self.train_size} and test_size={self.test_size} are {n_train} and "
                f"{n_test} rows, together more than the {n} of y"
            )
        sizes = np.array([n_train, n_test, unused] if unused else [n_train, n_test])
        rng = _generator(self.random_state)
        for _ in range(self.n_splits):
            part = _split(table, sizes, 2, rng)
            yield np.flatnonzero(part == 0), np.flatnonzero(part == 1)


def train_valid_test_split(
    y, *, valid_size=0.25, test_size=0.25, groups=None, order=1, random_state=None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split once into train, validation and test with every label spread in proportion.

    For the method, and for what is promised to rare labels, see `shared.splitters.multilabel`.

    Parameters
    ----------
    y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
    valid_size, test_size : float or int, default 0.25
        A fraction of the rows, rounded up, or a number of rows; 0 for none, where these rows come
        from elsewhere. Train gets the rest.
    groups : array-like (rows,), optional
        Rows of one group stay in one part.
    order : {1, 2}, default 1
        Whether to spread labels, or labels and pairs of them.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default None
        Seed, or source of randomness.

    Returns
    -------
    train, valid, test : int arrays
        Ascending row numbers. Each row is in one of them.

    Raises
    ------
    UserError
        If a parameter is out of range, or nothing is left to train on.
    """
    table = _read(y, order=order, groups=groups)
    n_valid = _n_rows("valid_size", valid_size, table.n_rows, math.ceil) if valid_size != 0 else 0
    n_test = _n_rows("test_size", test_size, table.n_rows, math.ceil) if test_size != 0 else 0
    n_train = table.n_rows - n_valid - n_test
    if n_train < 1:
        raise UserError(
            f"valid_size={valid_size} and test_size={test_size} are {n_valid} and {n_test} of the "
            f"{table.n_rows} rows of y and leave none to train on"
        )
    sizes = np.array([n_train, n_valid, n_test])
    wanted = np.flatnonzero(sizes)
    part = wanted[_split(table, sizes[wanted], len(wanted), _generator(random_state))]
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part == 2)


def nested_slices(y, sizes: Sequence[int], *, order=1, random_state=None) -> list[np.ndarray]:
    """Draw samples of growing size, each of which contains the smaller ones.

    Each slice is filled up from the one before: first with as many of the labels as the search
    finds room for, then for odds of the labels as near as possible to those of the whole. A slice
    of fewer rows than there are labels therefore leans towards rows with several labels.

    Parameters
    ----------
    y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
    sizes : sequence of int
        Rows in each slice, ascending, at most all rows.
    order : {1, 2}, default 1
        Whether to spread labels, or labels and pairs of them.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default None
        Seed, or source of randomness.

    Returns
    -------
    slices : list of int arrays
        Row numbers, exactly `sizes[i]` in slice i; they begin with those of slice i - 1.

    Raises
    ------
    UserError
        If sizes are not whole numbers, not ascending, or beyond the rows of y.
    """
    table = _read(y, order=order)
    n = table.n_rows
    sizes = list(sizes)
    for size in sizes:
        if not isinstance(size, Integral) or not 1 <= size <= n:
            raise UserError(
                f"sizes must be whole numbers from 1 to {n}, the rows of y: not {size!r}"
            )
    if not sizes or any(a >= b for a, b in pairwise(sizes)):
        raise UserError(f"sizes must be given, ascending and each once: not {sizes}")
    rng = _generator(random_state)

    required = np.zeros((table.totals.size, 2), bool)
    required[: table.n_labels, 0] = table.totals[: table.n_labels] > 0
    part = np.full(n, -1, np.int64)  # 0 once a row is in the slice
    slices = [np.empty(0, np.int64)]
    for size in sizes:
        drawn = np.zeros_like(part)
        if size < n:
            drawn = _stratify(table, np.array([size, n - size]), required, part, rng)
        added = np.flatnonzero((drawn == 0) & (part < 0))
        slices.append(np.concatenate([slices[-1], added]))
        part[added] = 0
    return slices[1:]


def nested_slice(y, size: int, *, random_state: int) -> np.ndarray:
    """Draw one sample such that those of separate calls are nested, whatever their sizes.

    The first `size` rows of an order that y and the seed alone decide: that of `nested_slices` at
    a hundred sizes from one row to all. Between two of these a slice is not stratified.

    Parameters
    ----------
    y : array or scipy sparse (rows, labels) of 0 and 1
    size : int
        Rows, at most all.
    random_state : int
        Seed.

    Returns
    -------
    rows : int array of shape (size,), ascending

    Raises
    ------
    UserError
        If size is not a number of rows of y.
    """
    n = y.shape[0]
    if not 1 <= size <= n:
        raise UserError(f"a slice of {size} rows: there are {n} to draw from")
    rows = np.random.default_rng(random_state).permutation(n)
    sizes = np.unique(np.geomspace(1, n, 100).round().astype(int)).tolist()
    order = nested_slices(y[rows], sizes, random_state=random_state)[-1]
    return np.sort(rows[order[:size]])


def label_distribution_error(y, parts: Sequence[np.ndarray]) -> float:
    """How far the odds of the labels in the parts are from those in the whole: 0 is perfect.

    The measure "labels distribution" (LD) of Sechidis et al. (2011): the absolute difference of
    positives / negatives in the part and in the whole, averaged over parts, then over labels. Where
    only the part has no negatives one is assumed, to keep the odds finite.

    Parameters
    ----------
    y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
    parts : sequence of int arrays
        Row numbers of each part: of the test folds, or of train and test.

    Raises
    ------
    UserError
        If there are no parts, or one has no rows.
    """
    indptr, labels, n_labels = _read_labels(y)
    n_rows = indptr.size - 1
    row = np.repeat(np.arange(n_rows), np.diff(indptr))
    if not len(parts):
        raise UserError("parts is empty")

    def odds(members):
        positives = np.bincount(labels[members[row]], minlength=n_labels)
        return positives / np.maximum(np.count_nonzero(members) - positives, 1)

    whole = odds(np.ones(n_rows, bool))
    errors = np.zeros(n_labels)
    for i, part in enumerate(parts):
        if not len(part):
            raise UserError(f"parts[{i}] has no rows")
        members = np.zeros(n_rows, bool)
        members[part] = True
        errors += np.abs(odds(members) - whole)
    errors[np.bincount(labels, minlength=n_labels) == n_rows] = 0  # no negatives anywhere
    return float(np.mean(errors / len(parts)))


class _Labels(NamedTuple):
    """The positives of y: row i has `labels[indptr[i]:indptr[i + 1]]`, ascending; int64."""

    indptr: np.ndarray
    labels: np.ndarray
    n_labels: int


def _read_labels(y) -> _Labels:
    """Bring y, in any of its forms, to one, and check it."""
    if hasattr(y, "tocsr"):
        if y.ndim != 2:
            raise UserError(f"y must have two dimensions if it is sparse, not {y.ndim}")
        y = y.tocsr(copy=True)
        y.sum_duplicates()  # which also sorts
        y.eliminate_zeros()
        indptr, labels, values, n_labels = y.indptr, y.indices, y.data, y.shape[1]
    else:
        try:
            y = np.asarray(y)
        except ValueError:
            raise UserError(
                "y must be a matrix of 0 and 1, but its rows differ in length"
            ) from None
        if y.ndim == 1:
            classes = _number("y of one dimension", y)
            return _Labels(np.arange(y.size + 1), classes, classes.max(initial=-1) + 1)
        if y.ndim != 2:
            raise UserError(f"y must have one or two dimensions, not {y.ndim}")
        n_rows, n_labels = y.shape
        flat = y.reshape(-1)
        entries = np.flatnonzero(flat != 0)
        values = flat[entries]
        row = entries // max(n_labels, 1)
        labels = entries - row * n_labels
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))])
    wrong = np.flatnonzero(values != 1)
    if wrong.size:
        e = wrong[0]
        row = np.searchsorted(indptr, e, side="right") - 1
        raise UserError(
            f"y must hold only 0 and 1, but row {row}, label {labels[e]} is "
            f"{values[e : e + 1].tolist()[0]!r}"
        )
    return _Labels(indptr.astype(np.int64), labels.astype(np.int64), n_labels)


def _number(name, values) -> np.ndarray:
    """Number the different values, which must be whole numbers or strings, from 0."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise UserError(f"{name} must have one dimension, not {values.ndim}")
    if values.dtype.kind == "O":
        types = {type(value) for value in values}
        fit = types in ({str}, {int}, {bool})
    else:
        types = {values.dtype.type}
        fit = values.dtype.kind != "f" or np.all(values == np.floor(values))  # NaN equals nothing
    if not fit:
        names = ", ".join(sorted(t.__name__ for t in types))
        raise UserError(
            f"{name} must hold whole numbers or strings, one kind and none missing, but it has "
            f"values of type {names}"
        )
    return np.unique(values, return_inverse=True)[1]


class _Table(NamedTuple):
    """What `_stratify` distributes. Of the columns of its items the first are the labels."""

    items: Any  # shared.splitters._kernels.Items
    item_of_row: np.ndarray | None  # None if each row is an item
    n_rows: int
    n_labels: int
    totals: np.ndarray  # int64, rows with each column
    weight: np.ndarray  # float64, of each column in the cost


def _read(y, *, order, groups=None, X=None) -> _Table:
    """Check what is passed to a splitter, and lay it out for `_stratify`."""
    from shared.splitters._kernels import Items  # here, so that numba is imported only to split

    if order not in (1, 2):
        raise UserError(f"order must be 1 (labels) or 2 (labels and pairs of them), not {order!r}")
    labels = _read_labels(y)
    n_rows = labels.indptr.size - 1
    if n_rows == 0:
        raise UserError("y has no rows")
    for name, value in (("X", X), ("groups", groups)):
        if value is not None:
            n = value.shape[0] if hasattr(value, "shape") else len(value)
            if n != n_rows:
                raise UserError(f"{name} has {n} rows, but y has {n_rows}")

    indptr, columns, n_columns = labels if order == 1 else _with_pairs(labels)
    totals = np.bincount(columns, minlength=n_columns)
    # What one row more or less does to the odds, but for the size of the part. All pairs together
    # have as much say as all labels.
    weight = 1 / np.maximum(1 - totals / n_rows, 1e-3) ** 2
    weight[labels.n_labels :] *= labels.n_labels / max(n_columns - labels.n_labels, 1)

    if groups is None:
        items = Items(indptr, columns, np.ones(columns.size, np.int64), np.ones(n_rows, np.int64))
        return _Table(items, None, n_rows, labels.n_labels, totals, weight)

    # Groups are items with one column more, their size: so sizes are balanced as labels are.
    item_of_row = _number("groups", groups)
    row = np.repeat(np.arange(n_rows), np.diff(indptr))
    item = np.concatenate([item_of_row[row], item_of_row])
    column = np.concatenate([columns, np.full(n_rows, n_columns)])
    entries, values = np.unique(item * (n_columns + 1) + column, return_counts=True)
    item, column = np.divmod(entries, n_columns + 1)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(item))])
    items = Items(indptr, column, values, np.bincount(item_of_row))
    totals, weight = np.append(totals, n_rows), np.append(weight, 1.0)
    return _Table(items, item_of_row, n_rows, labels.n_labels, totals, weight)


def _with_pairs(labels: _Labels) -> _Labels:
    """Append to the labels of each row the pairs of them, numbered on from the labels."""
    indptr, label, n_labels = labels
    row = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    # Each entry pairs with those that follow it in its row.
    entry = np.arange(label.size)
    followers = indptr[row + 1] - entry - 1
    start = np.cumsum(followers) - followers
    left = np.repeat(entry, followers)
    right = left + 1 + np.arange(left.size) - np.repeat(start, followers)
    codes, pair = np.unique(label[left] * np.int64(n_labels) + label[right], return_inverse=True)

    pair_indptr = np.concatenate(
        [[0], np.cumsum(np.bincount(row[left], minlength=indptr.size - 1))]
    )
    columns = np.empty(label.size + pair.size, np.int64)
    columns[entry + pair_indptr[row]] = label
    columns[np.arange(pair.size) + indptr[row[left] + 1]] = n_labels + pair
    return _Labels(indptr + pair_indptr, columns, n_labels + codes.size)


def _split(table: _Table, sizes, n_required, rng) -> np.ndarray:
    """The part of each row, in parts of the given sizes.

    Of these the first `n_required` shall have each label that has enough positives for them.
    """
    n_items = table.items.sizes.size
    if n_items < sizes.size:
        raise UserError(f"groups has {n_items} different groups, too few for {sizes.size} parts")
    enough = np.bincount(table.items.columns, minlength=table.totals.size) >= n_required
    enough[table.n_labels :] = False
    required = np.outer(enough, np.arange(sizes.size) < n_required)
    part = _stratify(table, sizes, required, np.full(n_items, -1, np.int64), rng)
    return part if table.item_of_row is None else part[table.item_of_row]


def _stratify(table: _Table, sizes, required, part, rng) -> np.ndarray:
    """Fill up `part`, the part of each item, where it is -1."""
    from shared.splitters._kernels import State, distribute, refine

    target = np.outer(table.totals, sizes / table.n_rows)
    weight = table.weight[:, None] / sizes
    weight /= weight.max(initial=0) or 1
    if table.item_of_row is not None:
        weight[-1] = SIZE_WEIGHT
    free = np.flatnonzero(part < 0)

    best, least = part, (np.inf, np.inf)
    for _ in range(max(1, min(DRAWS, DRAWN_POSITIVES // max(1, table.items.columns.size)))):
        state = State(np.zeros(required.shape, np.int64), target, weight, required)
        drawn = part.copy()
        turns = rng.permutation(free)
        distribute(table.items, turns, rng.random(part.size), sizes.copy(), state, drawn)
        cost = refine(table.items, turns, state, drawn)
        if cost < least:
            best, least = drawn, cost
    return best


def _generator(random_state) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(2**31, size=4)
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError):
        raise UserError(
            "random_state must be None, a whole number from 0, a numpy.random.Generator or a "
            f"numpy.random.RandomState, not {random_state!r}"
        ) from None


def _check_n_splits(n_splits, least):
    if not isinstance(n_splits, Integral) or n_splits < least:
        raise UserError(f"n_splits must be a whole number from {least}, not {n_splits!r}")


def _n_rows(name, size, n, rounding) -> int:
    """How many of n rows a size, given as a fraction or as a number of rows, stands for."""
    if isinstance(size, Integral):
        rows = int(size)
    elif isinstance(size, Real) and 0 < size < 1:
        rows = rounding(size * n)
    else:
        raise UserError(
            f"{name} must be a fraction between 0 and 1 or a number of rows, not {size!r}"
        )
    if not 0 < rows < n:
        raise UserError(
            f"{name}={size} is {rows} of the {n} rows of y, but it must be 1 to {n - 1}"
        )
    return rows
