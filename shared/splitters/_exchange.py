"""Compiled search for swaps in dense tables, whose rows have many labels.

`refine` of `_kernels` searches column by column, and it tries thousands of pairs of rows for each
column. If each row has many columns, this takes long, and few swaps help one column without harm
to others. The search here goes through the pairs of parts. For each pair, it ranks the rows by what
their move costs over all columns, and tries only the best rows of both parts with each other.

It first lowers the sum of the squared deviations from the targets, and then the sum of the absolute
deviations, which is the cost of a split. The square counts a large deviation more than several
small ones. With absolute deviations from the start, the search ends at a higher cost.
"""

import numpy as np

from shared.splitters._kernels import (
    EPSILON,
    LEAST_GAIN,
    MISSING,
    Items,
    State,
    _change,
    _compile,
    _count,
    _counting_sort,
)

# In one round, so many rows of one part are tried with so many rows of another part.
SHORTLIST = 256


@_compile
def _square_change(state, column, part, rows):
    """Return the change of `_change` for squared deviations from the target."""
    before = state.counts[column, part]
    deviation = before - state.target[column, part]
    cost = state.weight[column, part] * rows * (2 * deviation + rows)
    if state.required[column, part]:
        cost += MISSING * (int(before + rows == 0) - int(before == 0))
    return cost


@_compile
def _set_move_costs(state, column, a, b, squared, costs):
    """Set what it costs to move one row with the column from a to b, and from b to a."""
    if squared:
        costs[0, column] = _square_change(state, column, a, -1) + _square_change(
            state, column, b, 1
        )
        costs[1, column] = _square_change(state, column, b, -1) + _square_change(
            state, column, a, 1
        )
    else:
        costs[0, column] = _change(state, column, a, -1) + _change(state, column, b, 1)
        costs[1, column] = _change(state, column, b, -1) + _change(state, column, a, 1)


@_compile
def _sum(items, i, costs):
    """Return the sum of the costs (columns,) over the columns of item i."""
    total = 0.0
    # An unsigned index is faster: the compiled code does not check whether it is below 0.
    for e in range(items.indptr[i], items.indptr[i + 1]):
        total += costs[np.uintp(items.columns[np.uintp(e)])]
    return total


@_compile
def _shortlist(items, members, costs):
    """Return the places of the `SHORTLIST` members with the least costs, in ascending order."""
    totals = np.empty(members.size)
    for place in range(members.size):
        totals[place] = _sum(items, members[place], costs)
    if members.size <= SHORTLIST:
        return np.argsort(totals, kind="mergesort")
    limit = np.partition(totals, SHORTLIST)[SHORTLIST]
    below = np.flatnonzero(totals < limit)
    # Rows with the same columns have the same cost, so that many can be at the limit.
    at_limit = np.flatnonzero(totals == limit)[: SHORTLIST - below.size]
    return np.concatenate((below[np.argsort(totals[below], kind="mergesort")], at_limit))


@_compile
def _exchange_between(items, state, part, a, b, rows_a, rows_b, squared, patience, costs, control):
    """Swap rows of part a for rows of part b, and return the number of swaps.

    `rows_a` and `rows_b` are the rows that may be swapped, and follow the swaps; `costs` is a
    buffer of shape (2, columns).
    """
    for column in range(costs.shape[1]):
        _set_move_costs(state, column, a, b, squared, costs)
    shortlist_b = _shortlist(items, rows_b, costs[1])
    saved = np.empty(costs.shape[1])
    swaps, failures = 0, 0
    for place_a in _shortlist(items, rows_a, costs[0]):
        if failures == patience or control[0]:
            break
        r = rows_a[place_a]
        least, place_b = -EPSILON - _sum(items, r, costs[0]), -1
        # A column that both rows have stays as it is: the row that comes back makes up for the
        # cost of the row that goes.
        for e in range(items.indptr[r], items.indptr[r + 1]):
            column = items.columns[e]
            saved[column] = costs[1, column]
            costs[1, column] = -costs[0, column]
        for place in shortlist_b:
            cost = _sum(items, rows_b[place], costs[1])
            if cost < least:
                least, place_b = cost, place
        for e in range(items.indptr[r], items.indptr[r + 1]):
            costs[1, items.columns[e]] = saved[items.columns[e]]
        if place_b < 0:
            failures += 1
            continue
        failures = 0
        swaps += 1
        s = rows_b[place_b]
        rows_a[place_a], rows_b[place_b] = s, r
        part[r], part[s] = b, a
        for i, source, destination in ((r, a, b), (s, b, a)):
            _count(items, state, i, source, -1)
            _count(items, state, i, destination, 1)
        for i in (r, s):
            for e in range(items.indptr[i], items.indptr[i + 1]):
                _set_move_costs(state, items.columns[e], a, b, squared, costs)
    return swaps


@_compile
def _total_cost(state, squared):
    """Return the weighted sum of the deviations, or of their squares, and of `MISSING`."""
    cost = 0.0
    for column in range(state.counts.shape[0]):
        for j in range(state.counts.shape[1]):
            deviation = abs(state.counts[column, j] - state.target[column, j])
            cost += state.weight[column, j] * deviation * (deviation if squared else 1.0)
            if state.required[column, j] and state.counts[column, j] == 0:
                cost += MISSING
    return cost


@_compile
def bring_missing(items: Items, rows: np.ndarray, state: State, part: np.ndarray) -> None:
    """Swap a row with each missing required column into its part, whatever that costs.

    From there, `exchange` ends in another split. Far fewer columns are missing from the best of
    several such splits than from the best of as many splits from the start.

    Parameters
    ----------
    items : Items
    rows : int64 array
        The items that may be swapped: those of one row. Their order decides which are.
    state : State
        Its counts are changed.
    part : int64 array (items,), changed
        The part of each item.
    """
    offset = 0
    # Those that go missing on the way are left to `exchange`.
    missing = np.argwhere(state.required & (state.counts == 0))
    for m in range(len(missing)):
        column, b = missing[m]
        r = s = -1  # a row with the column, and a row of part b
        for place in range(rows.size):
            i = rows[(offset + place) % rows.size]
            if part[i] == b:
                s = i if s < 0 else s
            elif r < 0 and np.any(items.columns[items.indptr[i] : items.indptr[i + 1]] == column):
                r = i
            if r >= 0 and s >= 0:
                break
        if r < 0 or s < 0:
            continue
        offset += place + 1  # so that the row does not leave again at once
        a = part[r]
        part[r], part[s] = b, a
        for i, source, destination in ((r, a, b), (s, b, a)):
            _count(items, state, i, source, -1)
            _count(items, state, i, destination, 1)


@_compile
def exchange(
    items: Items,
    rows: np.ndarray,
    state: State,
    part: np.ndarray,
    squared: bool,
    patience: int,
    control: np.ndarray,
) -> None:
    """Lower the cost by swaps of two rows in different parts.

    A round goes through all pairs of parts, in time linear in the number of positives. The rounds
    end when one hardly lowers the cost.

    Parameters
    ----------
    items : Items
    rows : int64 array
        The items that may be swapped: those of one row.
    state : State
        Its counts are changed.
    part : int64 array (items,), changed
        The part of each item.
    squared : bool
        Whether the cost is that of the squared deviations.
    patience : int
        The search goes on to the next two parts after so many rows in a row without a swap.
    control : int64 array (2,), changed
        As in `shared.splitters._kernels.distribute`.
    """
    n_columns, n_parts = state.counts.shape
    costs = np.empty((2, n_columns))
    cost = _total_cost(state, squared)
    before = np.inf
    while cost < (1 - LEAST_GAIN) * before and not control[0]:
        before = cost
        bounds, by_part = _counting_sort(rows, part, n_parts)
        for j in range(n_parts):
            for k in range(j):
                if control[0]:
                    return
                # Part a is the larger one, so that its shortlist leaves out more rows.
                a, b = j, k
                if bounds[k + 1] - bounds[k] > bounds[j + 1] - bounds[j]:
                    a, b = k, j
                control[1] += _exchange_between(
                    items,
                    state,
                    part,
                    a,
                    b,
                    by_part[bounds[a] : bounds[a + 1]],
                    by_part[bounds[b] : bounds[b + 1]],
                    squared,
                    patience,
                    costs,
                    control,
                )
        cost = _total_cost(state, squared)
