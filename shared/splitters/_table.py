"""Read labels and groups into the table that the kernels split, and assign its rows to parts."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.cli.errors import UserError
from shared.splitters._background import run_in_background

if TYPE_CHECKING:
    from shared.splitters._kernels import Items

# In small tables the quality of a split depends much on chance. They are therefore split several
# times, and the best split is kept: at most `DRAWS` times, and at most so often that all attempts
# together go through `DRAWN_POSITIVES` positives.
DRAWS = 20
DRAWN_POSITIVES = 50_000

# Tables with more labels per row, or labels and pairs of them, are dense: they are split by
# `shared.splitters._exchange`. The limit of order 2 is what five labels and their pairs make. The
# search gives up two parts after `PATIENCE` rows without a swap, in small tables `LONG_PATIENCE`.
DENSE = {1: 5, 2: 15}
PATIENCE, LONG_PATIENCE = 16, 64
# If rare labels are missing from parts of a dense table of at most `REPEATED_POSITIVES` positives,
# they are brought there and the search is repeated, so many times.
REPEATS, REPEATED_POSITIVES = 4, 250_000

# With groups, the size of a part is only as exact as the search makes it, so that a wrong size has
# a cost: this much for one row too many or too few. The unit is one row of the label with the
# highest weight. A rare label that is missing from a part costs ten times as much.
SIZE_WEIGHT = 1e5


class Labels(NamedTuple):
    """The positives of y in compressed rows.

    Row i has the labels `labels[indptr[i]:indptr[i + 1]]`, in ascending order. The arrays are
    int64.
    """

    indptr: np.ndarray
    labels: np.ndarray
    n_labels: int


class Table(NamedTuple):
    """The items that `stratify` assigns to parts. Their first `n_labels` columns are the labels."""

    items: "Items"
    item_of_row: np.ndarray | None  # None if each row is an item
    n_rows: int
    n_labels: int
    totals: np.ndarray  # int64 (columns,), rows with each column
    weight: np.ndarray  # float64 (columns,), weight of each column in the cost


def read_labels(y: Any) -> Labels:
    """Convert y, in any of its forms, to compressed rows, and check its values."""
    if hasattr(y, "tocsr"):
        if y.ndim != 2:
            raise UserError(f"y must have two dimensions if it is sparse, not {y.ndim}")
        # A copy, because the next two calls change the matrix in place. Duplicates are added up
        # (the labels of a row are also sorted), and stored zeros are not positives.
        y = y.tocsr(copy=True)
        y.sum_duplicates()
        y.eliminate_zeros()
        indptr, labels, values, n_labels = y.indptr, y.indices, y.data, y.shape[1]
    else:
        try:
            y = np.asarray(y)
        except ValueError:
            raise UserError(
                "y must be a matrix of 0 and 1, but its rows differ in length"
            ) from None
        if y.ndim == 1:  # one class per row
            classes = _number("y of one dimension", y)
            return Labels(np.arange(y.size + 1), classes, classes.max(initial=-1) + 1)
        if y.ndim != 2:
            raise UserError(f"y must have one or two dimensions, not {y.ndim}")
        n_rows, n_labels = y.shape
        # Positions in the flattened matrix are in order of rows, then labels, as compressed rows
        # need them. NaN differs from 0, too, and is found below.
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
        # tolist() makes a Python value, which is printed without the name of its NumPy type.
        raise UserError(
            f"y must hold only 0 and 1, but row {row}, label {labels[e]} is "
            f"{values[e : e + 1].tolist()[0]!r}"
        )
    return Labels(indptr.astype(np.int64), labels.astype(np.int64), n_labels)


def _number(name: str, values: Any) -> np.ndarray:
    """Number the distinct values from 0; they must be whole numbers or strings."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise UserError(f"{name} must have one dimension, not {values.ndim}")
    if values.dtype.kind == "O":
        types = {type(value) for value in values}
        valid = types in ({str}, {int}, {bool})
    else:
        types = {values.dtype.type}
        # NaN is not equal to itself, so that it counts as no whole number.
        valid = values.dtype.kind != "f" or bool(np.all(values == np.floor(values)))
    if not valid:
        names = ", ".join(sorted(t.__name__ for t in types))
        raise UserError(
            f"{name} must hold whole numbers or strings, all of one type and none missing, but it "
            f"has values of type {names}"
        )
    return np.unique(values, return_inverse=True)[1]


def read_table(y: Any, *, order: int, groups: Any = None, X: Any = None) -> Table:
    """Check the arguments of a splitter and lay them out for `stratify`."""
    from shared.splitters._kernels import Items  # here, so that numba is imported only to split

    if order not in (1, 2):
        raise UserError(f"order must be 1 (labels) or 2 (labels and pairs of them), not {order!r}")
    labels = read_labels(y)
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
    # The weight is how much one row more or less changes the odds p / (1 - p) of a column, whose
    # derivative is 1 / (1 - p)^2. The size of the part is added in `stratify`. The lower limit
    # keeps the weight of a column that all rows have finite.
    weight = 1 / np.maximum(1 - totals / n_rows, 1e-3) ** 2
    # There can be far more pairs than labels. They are scaled by labels / pairs, so that all pairs
    # together count as much as all labels.
    weight[labels.n_labels :] *= labels.n_labels / max(n_columns - labels.n_labels, 1)

    if groups is None:
        items = Items(indptr, columns, np.ones(columns.size, np.int64), np.ones(n_rows, np.int64))
        return Table(items, None, n_rows, labels.n_labels, totals, weight)

    # Each group is an item. It has one more column, the last one, whose value is its number of
    # rows: the sizes of the parts are then balanced in the same way as the labels.
    item_of_row = _number("groups", groups)
    row = np.repeat(np.arange(n_rows), np.diff(indptr))
    item = np.concatenate([item_of_row[row], item_of_row])
    column = np.concatenate([columns, np.full(n_rows, n_columns)])
    # One number for each (item, column), so that `unique` sorts by item, then column, and counts
    # the rows of the item that have the column.
    entries, values = np.unique(item * (n_columns + 1) + column, return_counts=True)
    item, column = np.divmod(entries, n_columns + 1)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(item))])
    items = Items(indptr, column, values, np.bincount(item_of_row))
    totals, weight = np.append(totals, n_rows), np.append(weight, 1.0)
    return Table(items, item_of_row, n_rows, labels.n_labels, totals, weight)


def _with_pairs(labels: Labels) -> Labels:
    """Add to the labels of each row its pairs of labels, numbered after the last label."""
    indptr, label, n_labels = labels
    row = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))  # (entries,)
    # Each entry forms a pair with each entry that follows it in its row. `left` and `right` are the
    # entries of each pair, shape (pairs,); the pairs of an entry begin at `start[entry]`.
    entry = np.arange(label.size)
    followers = indptr[row + 1] - entry - 1
    start = np.cumsum(followers) - followers
    left = np.repeat(entry, followers)
    right = left + 1 + np.arange(left.size) - np.repeat(start, followers)
    # Only pairs that occur get a number. int64, because the square of n_labels may be large.
    codes, pair = np.unique(label[left] * np.int64(n_labels) + label[right], return_inverse=True)

    # Merge both into one array: in each row the labels first, then the pairs. A label moves back by
    # the pairs of the rows before; a pair by the labels up to the end of its row.
    pair_indptr = np.concatenate(
        [[0], np.cumsum(np.bincount(row[left], minlength=indptr.size - 1))]
    )
    columns = np.empty(label.size + pair.size, np.int64)
    columns[entry + pair_indptr[row]] = label
    columns[np.arange(pair.size) + indptr[row[left] + 1]] = n_labels + pair
    return Labels(indptr + pair_indptr, columns, n_labels + codes.size)


def split_rows(
    table: Table, sizes: np.ndarray, n_required: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the part of each row, for parts of the given sizes.

    A label with at least `n_required` positives (with groups: groups that have it) is required in
    each of the first `n_required` parts.
    """
    n_items = table.items.sizes.size
    if n_items < sizes.size:
        raise UserError(f"groups has {n_items} different groups, too few for {sizes.size} parts")
    enough = np.bincount(table.items.columns, minlength=table.totals.size) >= n_required
    enough[table.n_labels :] = False  # pairs and group sizes are never required
    required = np.outer(enough, np.arange(sizes.size) < n_required)
    part = stratify(table, sizes, required, np.full(n_items, -1, np.int64), rng)
    return part if table.item_of_row is None else part[table.item_of_row]


def stratify(
    table: Table,
    sizes: np.ndarray,
    required: np.ndarray,
    part: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a copy of `part` in which all items have a part; -1 marks those without one.

    Parameters
    ----------
    table : Table
    sizes : int array (parts,)
        Rows in each part.
    required : bool array (columns, parts)
        Whether the part must have the column, if that is possible.
    part : int64 array (items,)
        The part of each item. Items that have one keep it.
    rng : numpy.random.Generator
    """
    from shared.splitters._exchange import bring_missing, exchange
    from shared.splitters._kernels import State, distribute, refine

    target = np.outer(table.totals, sizes / table.n_rows)  # (columns, parts)
    # One row changes the odds in a small part more than in a large one. Scaled so that the highest
    # weight is 1: the fixed costs `MISSING` and `SIZE_WEIGHT` are relative to it.
    weight = table.weight[:, None] / sizes
    weight /= weight.max(initial=0) or 1
    if table.item_of_row is not None:
        weight[-1] = SIZE_WEIGHT
    items = table.items
    free = np.flatnonzero(part < 0)
    # If a table is dense, swaps of single rows balance its labels. Then `refine` only looks for
    # missing labels and, with groups, balances the sizes. If most rows are in groups, single rows
    # are too few for that.
    single = items.sizes == 1
    n_columns = table.totals.size - (table.item_of_row is not None)
    order = 2 if n_columns > table.n_labels else 1
    dense = (
        table.totals[:n_columns].sum() > DENSE[order] * table.n_rows
        and 2 * single.sum() > table.n_rows
    )
    # The effort of `exchange` grows with the number of parts, too.
    work = max(1, items.columns.size) * (max(1, sizes.size - 1) if dense else 1)
    n_draws = max(1, min(DRAWS, DRAWN_POSITIVES // work))
    n_repeats = REPEATS if dense and items.columns.size <= REPEATED_POSITIVES else 0
    patience = LONG_PATIENCE if items.columns.size <= DRAWN_POSITIVES else PATIENCE
    control = np.zeros(2, np.int64)

    def draw_best() -> np.ndarray:
        best, best_counts, least = part, np.zeros(required.shape, np.int64), (np.inf, np.inf)
        for draw in range(n_draws + n_repeats):
            if draw >= n_draws and least[0] == 0:
                break  # no label is missing
            shuffled = rng.permutation(free)
            rows = shuffled[single[shuffled]]
            if draw < n_draws:
                drawn, counts = part.copy(), np.zeros(required.shape, np.int64)
                state = State(counts, target, weight, required)
                tie_breakers = rng.random(part.size)
                distribute(items, shuffled, tie_breakers, sizes.copy(), state, drawn, control)
                if dense:
                    exchange(items, rows, state, drawn, True, patience, control)
                    exchange(items, rows, state, drawn, False, patience, control)
            else:
                drawn = best.copy()
                state = State(best_counts.copy(), target, weight, required)
                bring_missing(items, rows, state, drawn)
                exchange(items, rows, state, drawn, False, PATIENCE, control)
            cost = refine(items, shuffled, state, drawn, n_columns if dense else 0, control)
            if cost < least:  # first by missing labels, then by the rest of the cost
                best, best_counts, least = drawn, state.counts, cost
        return best

    return run_in_background(draw_best, control, f"splitting {table.n_rows:,} rows")
