"""Stratified splits for several labels per row: exact sizes, linear time.

`MultilabelStratifiedKFold` and `MultilabelStratifiedShuffleSplit` follow the splitter interface of
scikit-learn and can be passed as `cv=`. `train_valid_test_split` and `nested_slices` return arrays
of row numbers. `label_distribution_error` measures the quality of a split.

Method
------
Iterative stratification of the labels (order 1) [1]_, or of the labels and the pairs of labels that
occur together (order 2) [2]_, into parts of exact size. Then rows are swapped between parts, as
long as a swap brings the odds of the labels (with order 2, of the pairs too) nearer to those of the
whole data, or brings a rare label into a part that lacks it. Small tables are split several times,
and the best split is kept. If rows have more than five labels on average, swaps are searched for in
another way, which is faster there. Time and memory grow linearly with the number of positives, with
order 2 of pairs. A sparse y is never made dense. A split that takes long shows its progress, and
Ctrl-C ends it.

Rare labels
-----------
Without groups, a label with at least as many positives as there are parts has one in every part.
Labels that share rows can contradict each other here, and there may be no split that works for all.
The exact promise: such a label is missing from a part only in two cases. Either the part has fewer
rows than there are such labels. Or no positive of the label can leave its part, because each is the
only positive of this or of another such label there. If each row has one label, no such label is
missing from a part that has enough rows.

Groups
------
Rows of one group, such as near duplicates, stay in one part; labels are counted per group. Sizes
are then as close to the requested ones as the search gets with whole groups: with enough groups of
one row they are exact. Rare labels are spread as far as the groups allow.

Randomness
----------
An int as `random_state` gives the same split every time, for a dense and for a sparse y. None gives
a different split each time. A Generator or RandomState is used to draw random numbers, which
advances its state. NumPy's global generator is not used.

References
----------
.. [1] Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data. ECML PKDD 2011.
.. [2] Szymanski, Kajdanowicz: A Network Perspective on Stratification of Multi-Label Data. LIDTA
   2017.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.splitters._table import read_labels, read_table, split_rows, stratify

RandomSource = int | np.random.Generator | np.random.RandomState | None


@dataclass(eq=False)
class MultilabelStratifiedKFold:
    """K-fold cross-validation with every label spread evenly over the folds.

    Fold sizes are those of scikit-learn's `KFold`: they differ by one row at most. The docstring of
    `shared.splitters.multilabel` describes the method and the promise for rare labels.

    Parameters
    ----------
    n_splits : int, default 5
        Number of folds, at least 2.
    order : {1, 2}, default 1
        1 spreads the labels; 2 spreads the labels and the pairs of labels.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default None
        Seed, or source of random numbers. None gives new splits on each call of `split`.

    Raises
    ------
    UserError
        If a parameter is out of range; on `split`, also if y has fewer rows, or groups, than folds.
    """

    n_splits: int = 5
    _: KW_ONLY
    order: int = 1
    random_state: RandomSource = None

    def __post_init__(self) -> None:
        _check_n_splits(self.n_splits, 2)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds; the arguments are ignored."""
        return self.n_splits

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test) for each fold: arrays of row numbers in ascending order.

        Parameters
        ----------
        X : array-like (rows, ...) or None
            Only its number of rows is checked.
        y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
        groups : array-like (rows,), optional
            Rows of one group stay in one fold.
        """
        table = read_table(y, order=self.order, groups=groups, X=X)
        if self.n_splits > table.n_rows:
            raise UserError(f"n_splits={self.n_splits} is more than the {table.n_rows} rows of y")
        sizes = np.full(self.n_splits, table.n_rows // self.n_splits)
        sizes[: table.n_rows % self.n_splits] += 1
        part = split_rows(table, sizes, self.n_splits, _generator(self.random_state))
        for fold in range(self.n_splits):
            yield np.flatnonzero(part != fold), np.flatnonzero(part == fold)


@dataclass(eq=False)
class RepeatedMultilabelStratifiedKFold:
    """`MultilabelStratifiedKFold`, several times, with other folds each time.

    For scikit-learn's functions that take a ``cv``. The flag ``--repeats`` of the recipes makes
    repeat r with the seed + r instead, so that a repeat can be run alone.

    Parameters
    ----------
    n_splits : int, default 5
        Number of folds, at least 2.
    n_repeats : int, default 10
        Number of times, at least 1.
    order, random_state
        As for `MultilabelStratifiedKFold`. The first folds are those it has with the same seed.

    Raises
    ------
    UserError
        As `MultilabelStratifiedKFold`.
    """

    n_splits: int = 5
    _: KW_ONLY
    n_repeats: int = 10
    order: int = 1
    random_state: RandomSource = None

    def __post_init__(self) -> None:
        _check_n_splits(self.n_splits, 2)
        if not isinstance(self.n_repeats, Integral) or self.n_repeats < 1:
            raise UserError(
                f"n_repeats must be a whole number of at least 1, not {self.n_repeats!r}"
            )

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds of all repeats; the arguments are ignored."""
        return self.n_splits * self.n_repeats

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test) for each fold of each repeat; see `MultilabelStratifiedKFold`."""
        generator = _generator(self.random_state)
        for _ in range(self.n_repeats):
            folds = MultilabelStratifiedKFold(
                self.n_splits, order=self.order, random_state=generator
            )
            yield from folds.split(X, y, groups)


@dataclass(eq=False)
class MultilabelStratifiedShuffleSplit:
    """Random splits into train and test with every label spread in proportion.

    The docstring of `shared.splitters.multilabel` describes the method and the promise for rare
    labels.

    Parameters
    ----------
    n_splits : int, default 10
        Number of splits, drawn independently of each other.
    test_size, train_size : float, int or None, default None
        A fraction of the rows (rounded up for test, down for train, as in scikit-learn) or a number
        of rows. If only one is set, the other side gets the rest; if none is set, test gets a
        tenth.
    order : {1, 2}, default 1
        1 spreads the labels; 2 spreads the labels and the pairs of labels.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default None
        Seed, or source of random numbers. None gives new splits on each call of `split`.

    Raises
    ------
    UserError
        If a parameter is out of range; on `split`, also if the sizes exceed the rows of y.
    """

    n_splits: int = 10
    _: KW_ONLY
    test_size: float | int | None = None
    train_size: float | int | None = None
    order: int = 1
    random_state: RandomSource = None

    def __post_init__(self) -> None:
        _check_n_splits(self.n_splits, 1)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits; the arguments are ignored."""
        return self.n_splits

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test) for each split: arrays of row numbers in ascending order.

        Parameters
        ----------
        X : array-like (rows, ...) or None
            Only its number of rows is checked.
        y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
        groups : array-like (rows,), optional
            Rows of one group stay on one side.
        """
        table = read_table(y, order=self.order, groups=groups, X=X)
        n = table.n_rows
        n_test: int | None = None
        n_train: int | None = None
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
        # Unused rows form a third part, in which no label is required.
        sizes = np.array([n_train, n_test, unused] if unused else [n_train, n_test])
        rng = _generator(self.random_state)
        for _ in range(self.n_splits):
            part = split_rows(table, sizes, 2, rng)
            yield np.flatnonzero(part == 0), np.flatnonzero(part == 1)


def train_valid_test_split(
    y: Any,
    *,
    valid_size: float | int = 0.25,
    test_size: float | int = 0.25,
    groups: Any = None,
    order: int = 1,
    random_state: RandomSource = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split once into train, validation and test with every label spread in proportion.

    The docstring of `shared.splitters.multilabel` describes the method and the promise for rare
    labels.

    Parameters
    ----------
    y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
    valid_size, test_size : float or int, default 0.25
        A fraction of the rows, rounded up, or a number of rows. 0 makes an empty part, for data
        whose validation or test rows come from another source. Train gets the rest.
    groups : array-like (rows,), optional
        Rows of one group stay in one part.
    order : {1, 2}, default 1
        1 spreads the labels; 2 spreads the labels and the pairs of labels.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default None
        Seed, or source of random numbers.

    Returns
    -------
    train, valid, test : int arrays
        Row numbers in ascending order. Each row is in one of the arrays.

    Raises
    ------
    UserError
        If a parameter is out of range, or nothing is left to train on.
    """
    table = read_table(y, order=order, groups=groups)
    n_valid = _n_rows("valid_size", valid_size, table.n_rows, math.ceil) if valid_size != 0 else 0
    n_test = _n_rows("test_size", test_size, table.n_rows, math.ceil) if test_size != 0 else 0
    n_train = table.n_rows - n_valid - n_test
    if n_train < 1:
        raise UserError(
            f"valid_size={valid_size} and test_size={test_size} are {n_valid} and {n_test} of the "
            f"{table.n_rows} rows of y and leave none to train on"
        )
    sizes = np.array([n_train, n_valid, n_test])
    # Parts of no rows are left out of the split, because each of its parts gets at least one row.
    # `non_empty` maps the numbers of the parts back.
    non_empty = np.flatnonzero(sizes)
    part = non_empty[split_rows(table, sizes[non_empty], len(non_empty), _generator(random_state))]
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part == 2)


def nested_slices(
    y: Any, sizes: Sequence[int], *, order: int = 1, random_state: RandomSource = None
) -> list[np.ndarray]:
    """Draw samples of growing size, each of which contains the smaller ones.

    Each slice adds rows to the one before. The first aim is that it has as many of the labels as
    the search finds room for; the second, that the odds of its labels are as near as possible to
    those of the whole data. A slice with fewer rows than there are labels therefore prefers rows
    with several labels.

    Parameters
    ----------
    y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
    sizes : sequence of int
        Rows in each slice, in ascending order; the last may be all rows.
    order : {1, 2}, default 1
        1 spreads the labels; 2 spreads the labels and the pairs of labels.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default None
        Seed, or source of random numbers.

    Returns
    -------
    slices : list of int arrays
        Row numbers, exactly `sizes[i]` in slice i. The first ones are those of slice i - 1.

    Raises
    ------
    UserError
        If sizes are not whole numbers, not in ascending order, or exceed the rows of y.
    """
    table = read_table(y, order=order)
    n = table.n_rows
    sizes = list(sizes)
    for size in sizes:
        if not isinstance(size, Integral) or not 1 <= size <= n:
            raise UserError(
                f"sizes must be whole numbers from 1 to {n}, the number of rows of y, not {size!r}"
            )
    if not sizes or any(a >= b for a, b in pairwise(sizes)):
        raise UserError(
            f"sizes must be one or more numbers in ascending order, each once, not {sizes}"
        )
    rng = _generator(random_state)

    # Part 0 is the slice, part 1 the rest. Each label that occurs is required in the slice.
    required = np.zeros((table.totals.size, 2), bool)
    required[: table.n_labels, 0] = table.totals[: table.n_labels] > 0
    part = np.full(n, -1, np.int64)  # 0: the row is in the slice; -1: it can still be drawn
    slices = [np.empty(0, np.int64)]
    for size in sizes:
        drawn = np.zeros_like(part)
        if size < n:
            drawn = stratify(table, np.array([size, n - size]), required, part, rng)
        added = np.flatnonzero((drawn == 0) & (part < 0))
        slices.append(np.concatenate([slices[-1], added]))
        part[added] = 0
    return slices[1:]


def nested_slice(y: Any, size: int, *, random_state: int) -> np.ndarray:
    """Draw one sample; the samples of separate calls with the same y and seed are nested.

    The sample is the first `size` rows of an order that depends only on y and the seed. It is the
    order of `nested_slices` for a hundred sizes from one row to all rows. The rows between two of
    these sizes are not stratified.

    Parameters
    ----------
    y : array or scipy sparse (rows, labels) of 0 and 1
    size : int
        Number of rows, at most all.
    random_state : int
        Seed.

    Returns
    -------
    rows : int array (size,)
        Row numbers in ascending order.

    Raises
    ------
    UserError
        If size is not from 1 to the number of rows of y.
    """
    n = y.shape[0]
    if not 1 <= size <= n:
        raise UserError(f"size must be from 1 to {n}, the number of rows of y, not {size}")
    # `nested_slices` adds rows in ascending order. The shuffle makes the order of the rows that are
    # added between two sizes random.
    rows = np.random.default_rng(random_state).permutation(n)
    sizes = np.unique(np.geomspace(1, n, 100).round().astype(int)).tolist()
    order = nested_slices(y[rows], sizes, random_state=random_state)[-1]
    return np.sort(rows[order[:size]])


def label_distribution_error(y: Any, parts: Sequence[np.ndarray]) -> float:
    """Return how far the odds of the labels in the parts are from those in all rows; 0 is best.

    The measure "labels distribution" (LD) of Sechidis et al. (2011): the absolute difference of
    positives / negatives in the part and in all rows, averaged over parts, then over labels. If a
    part has no negatives of a label but other parts have, one is assumed, to keep the odds finite.

    Parameters
    ----------
    y : array-like or scipy sparse (rows, labels) of 0 and 1, or array-like (rows,) of classes
    parts : sequence of int arrays
        Row numbers of each part, for example of the test folds, or of train and test.

    Raises
    ------
    UserError
        If there are no parts, or one has no rows.
    """
    indptr, labels, n_labels = read_labels(y)
    n_rows = indptr.size - 1
    row = np.repeat(np.arange(n_rows), np.diff(indptr))
    if not len(parts):
        raise UserError("parts is empty")

    def odds(members: np.ndarray) -> np.ndarray:
        # members: bool (rows,); result: float (labels,)
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
    errors[np.bincount(labels, minlength=n_labels) == n_rows] = 0  # labels that all rows have
    return float(np.mean(errors / len(parts)))


def _generator(random_state: RandomSource) -> np.random.Generator:
    """Return a generator for any form of random_state."""
    seed: Any = random_state
    if isinstance(random_state, np.random.RandomState):  # draw a seed from it
        seed = random_state.randint(2**31, size=4)
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise UserError(
            "random_state must be None, a whole number of at least 0, a numpy.random.Generator "
            f"or a numpy.random.RandomState, not {random_state!r}"
        ) from None


def _check_n_splits(n_splits: int, least: int) -> None:
    """Check that n_splits is a whole number of at least `least`."""
    if not isinstance(n_splits, Integral) or n_splits < least:
        raise UserError(f"n_splits must be a whole number of at least {least}, not {n_splits!r}")


def _n_rows(name: str, size: float | int, n: int, rounding: Callable[[float], int]) -> int:
    """Return the number of rows for a size: a fraction of n rows, or a number of rows."""
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
