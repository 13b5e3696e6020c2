"""Compiled kernels of `shared.splitters`: the greedy assignment and its refinement by swaps.

Both assign *items* (rows, or groups of rows) to *parts* of a split. An item has *columns* (labels,
or pairs of labels), and each column should be spread over the parts in proportion to their sizes.
The kernels have their own module so that numba is imported only when something is split.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

# Limits on the effort of `refine`. They are constants, so that its time does not depend on how many
# items a column has. For a part that has too few rows with a column, `TRIES` items with the column
# are tried, each with `TRIES` items of the part in exchange. The next pass tries all columns again
# only if this pass lowered the cost by the share `LEAST_GAIN`.
TRIES = 64
LEAST_GAIN = 0.005

# Cost of a required column that is missing from a part: more than all that one swap can change in
# the rest of the cost.
MISSING = 1e6
EPSILON = 1e-9  # smaller differences in cost are rounding errors


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call; cache the machine code on disk where a folder is writable."""
    # Without the global interpreter lock, so that another thread can interrupt the kernel.
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the folder of this file nor the user's cache is writable
        return njit(nogil=True)(function)


class Items(NamedTuple):
    """The items in compressed rows, all int64.

    Item i stands for `sizes[i]` rows. Its columns are `columns[indptr[i]:indptr[i + 1]]`, in
    ascending order; `values` has, at the same positions, in how many rows of the item each occurs.
    """

    indptr: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    sizes: np.ndarray


class State(NamedTuple):
    """The counts of a split and what they cost; each array has shape (columns, parts)."""

    counts: np.ndarray  # int64, rows of the part that have the column
    target: np.ndarray  # float64, how many there should be
    weight: np.ndarray  # float64, cost of one row more or less than the target
    required: np.ndarray  # bool, whether a count of 0 costs `MISSING`


@_compile
def _counting_sort(members, keys, n_keys):
    """Return bounds and the sorted members; those with key k are at bounds[k]:bounds[k + 1]."""
    # The members with key k are counted two places further on, at k + 2. After the cumulative sum,
    # bounds[k + 1] is the first position of key k. The second loop writes there and advances it,
    # which leaves it at the end of key k, that is where key k + 1 begins.
    bounds = np.zeros(n_keys + 2, np.int64)
    for member in members:
        bounds[keys[member] + 2] += 1
    for k in range(n_keys):
        bounds[k + 2] += bounds[k + 1]
    ordered = np.empty(members.size, np.int64)
    for member in members:
        ordered[bounds[keys[member] + 1]] = member
        bounds[keys[member] + 1] += 1
    return bounds, ordered


@_compile
def _holders(items, free, n_columns):
    """Return the free items that have each column; those of c are at start[c]:start[c + 1]."""
    # A counting sort like the one above, with one entry for each column of each item. Within a
    # column the items keep the order of `free`.
    start = np.zeros(n_columns + 2, np.int64)
    for i in free:
        for e in range(items.indptr[i], items.indptr[i + 1]):
            start[items.columns[e] + 2] += 1
    for c in range(n_columns):
        start[c + 2] += start[c + 1]
    holders = np.empty(start[n_columns + 1], np.int64)
    for i in free:
        for e in range(items.indptr[i], items.indptr[i + 1]):
            c = items.columns[e]
            holders[start[c + 1]] = i
            start[c + 1] += 1
    return start, holders


@_compile
def _count(items, state, i, part, sign):
    """Add item i to the counts of the part (sign = 1) or remove it from them (sign = -1)."""
    for e in range(items.indptr[i], items.indptr[i + 1]):
        state.counts[items.columns[e], part] += sign * items.values[e]


@_compile
def distribute(
    items: Items,
    free: np.ndarray,
    tie_breakers: np.ndarray,
    room: np.ndarray,
    state: State,
    part: np.ndarray,
    control: np.ndarray,
) -> None:
    """Assign the free items by iterative stratification, into parts of exact size.

    The algorithm is that of Sechidis et al. (2011). The column with the fewest remaining items is
    next. Each of its items goes to the part that is furthest below its target for the column; if
    several are equally far below, to the one with the most room; if these are equal too, one is
    drawn at random. At the end, items without any column fill the remaining room.

    No part stays empty. A part gets more rows than it has room for only if an item fits nowhere.

    Parameters
    ----------
    items : Items
    free : int64 array
        The items to assign, in the order in which they are considered.
    tie_breakers : float64 array (items,)
        One random number per item, uniform in [0, 1), that decides between equal parts.
    room : int64 array (parts,), changed
        How many rows each part takes, those of the items that already have a part included.
    state : State
        Its counts are changed.
    part : int64 array (items,), changed
        The part of each item, -1 for the free ones.
    control : int64 array (2,), changed
        The kernel returns unfinished if another thread sets `control[0]` to 1. Each assignment of
        an item, and each swap, adds 1 to `control[1]`.
    """
    indptr, columns, _, sizes = items
    n_columns, n_parts = state.counts.shape
    for i in range(part.size):
        if part[i] >= 0:
            room[part[i]] -= sizes[i]
            _count(items, state, i, part[i], 1)
    start, holders = _holders(items, free, n_columns)

    # A bucket queue finds the rarest column in constant time. `queue` holds the columns in
    # ascending order of their remaining items; those with m remaining items, bucket m, begin at
    # `bucket[m]`. `position` is the inverse of `queue`.
    remaining = np.empty(n_columns, np.int64)
    queue = np.empty(n_columns, np.int64)
    for c in range(n_columns):
        remaining[c] = start[c + 1] - start[c]
        queue[c] = c
    bucket, queue = _counting_sort(queue, remaining, free.size + 1)
    position = np.empty(n_columns, np.int64)
    for p in range(n_columns):
        position[queue[p]] = p

    n_left = free.size
    n_empty = n_parts
    empty = np.ones(n_parts, np.bool_)  # parts that have got no free item yet
    while n_left > 0 and not control[0]:
        # Bucket 0 holds the finished columns, so the rarest unfinished one begins bucket 1. If
        # there is none, only items without columns remain.
        column = queue[bucket[1]] if bucket[1] < n_columns else -1
        candidates = holders[start[column] : start[column + 1]] if column >= 0 else free
        for i in candidates:
            if part[i] >= 0:
                continue
            tie_breaker = tie_breakers[i]
            best, best_fits, ties = -1, False, 0
            for j in range(n_parts):
                # With as many items as empty parts left, each must go to an empty part.
                if n_left == n_empty and not empty[j]:
                    continue
                # `lead` > 0: part j is better than the best so far; 0: they are equal. Room for
                # the item counts first, then the distance to the target, then the amount of room.
                fits = room[j] >= sizes[i]
                lead = 1.0
                if best >= 0 and fits != best_fits:
                    lead = 1.0 if fits else -1.0
                elif best >= 0:
                    lead = 0.0
                    if fits and column >= 0:
                        lead = state.target[column, j] - state.counts[column, j]
                        lead -= state.target[column, best] - state.counts[column, best]
                    if lead == 0:
                        lead = float(room[j] - room[best])
                if lead > 0:
                    best, best_fits, ties = j, fits, 1
                elif lead == 0:
                    # Reservoir sampling: the t-th of equal parts replaces the best with
                    # probability 1 / t, so that all are equally likely. One random number is
                    # enough: scaled by t, it is below 1 in one case of t and uniform in [0, 1)
                    # then; otherwise it is uniform in [1, t), which is mapped back to [0, 1).
                    ties += 1
                    tie_breaker *= ties
                    if tie_breaker < 1:
                        best = j
                    else:
                        tie_breaker = (tie_breaker - 1) / (ties - 1)
            part[i] = best
            room[best] -= sizes[i]
            n_left -= 1
            control[1] += 1
            n_empty -= int(empty[best])
            empty[best] = False
            _count(items, state, i, best, 1)
            # Each column of the item moves to the bucket below. It changes places with the first
            # column of its bucket, and the bucket then begins one place later: the place left
            # over is now the last one of the bucket below.
            for e in range(indptr[i], indptr[i + 1]):
                c = columns[e]
                first = bucket[remaining[c]]
                other = queue[first]
                queue[position[c]] = other
                position[other] = position[c]
                queue[first] = c
                position[c] = first
                bucket[remaining[c]] += 1
                remaining[c] -= 1


@_compile
def _change(state, column, part, rows):
    """Return how the cost changes if the part gets `rows` more rows (< 0: fewer) of the column."""
    before = state.counts[column, part]
    after = before + rows
    target = state.target[column, part]
    cost = state.weight[column, part] * (abs(after - target) - abs(before - target))
    if state.required[column, part]:
        cost += MISSING * (int(after == 0) - int(before == 0))
    return cost


@_compile
def _transfer_cost(items, state, i, a, b, returned):
    """Return how the cost changes if item i moves from part a to part b.

    At the same time `returned[column]` rows with each column move from b to a. The cost of that
    move alone is not included: a swap costs the move of its first item alone, plus the move of its
    second item with the rows of the first one as `returned`.
    """
    cost = 0.0
    for e in range(items.indptr[i], items.indptr[i + 1]):
        c = items.columns[e]
        rows = items.values[e] - returned[c]  # net move from a to b
        cost += _change(state, c, a, -rows) + _change(state, c, b, rows)
        if returned[c] > 0:  # counted in the net move, and already in the cost of the first item
            cost -= _change(state, c, a, returned[c]) + _change(state, c, b, -returned[c])
    return cost


@_compile
def _find_swap(
    items, state, part, column, b, holders, partners, offset, balance, returned, control
):
    """Return an item with the column for part b and an item of b in exchange, or (-1, -1).

    The search goes through the holders of the column and the partners in part b from `offset` on,
    in a circle. If the column is required and missing, it tries all holders; for a holder that can
    leave its part without making another required column go missing, it tries all partners until
    one is good enough. If the column is not missing, it tries `TRIES` holders with `TRIES` partners
    each if `balance` is set, and nothing otherwise.
    """
    missing = state.required[column, b] and state.counts[column, b] == 0
    if not missing and not balance:
        return -1, -1
    # Stop early if one more row in b costs more than the cheapest source of that row saves.
    gain = _change(state, column, b, 1)
    loss = np.inf
    for a in range(state.counts.shape[1]):
        if a != b and state.counts[column, a] > 0:
            loss = min(loss, _change(state, column, a, -1))
    if loss + gain > -EPSILON:
        return -1, -1

    # A swap must lower the cost by more than this: without `balance`, by a missing column.
    enough = EPSILON if balance else MISSING / 2
    first_partner = offset
    tries = 0
    for t in range(holders.size):
        if control[0] or (tries == TRIES and not missing):
            break
        r = holders[(offset + t) % holders.size]
        a = part[r]
        if a == b or _change(state, column, a, -1) + gain > -EPSILON:
            continue
        tries += 1
        cost_alone = _transfer_cost(items, state, r, a, b, returned)  # `returned` is all 0
        # If the move of r makes another required column go missing, the benefit is cancelled, and
        # it is not worthwhile to try all partners.
        exhaustive = missing and cost_alone < -MISSING / 2
        for e in range(items.indptr[r], items.indptr[r + 1]):
            returned[items.columns[e]] = items.values[e]
        least, s = -enough - cost_alone, -1
        for u in range(partners.size):
            if u >= TRIES and (s >= 0 or not exhaustive):
                break
            partner = partners[(first_partner + u) % partners.size]
            cost = _transfer_cost(items, state, partner, b, a, returned)
            if cost < least:
                least, s = cost, partner
        for e in range(items.indptr[r], items.indptr[r + 1]):
            returned[items.columns[e]] = 0
        if s >= 0:
            return r, s
        first_partner += TRIES  # the next holder tries other partners
    return -1, -1


@_compile
def _cost(state):
    """Return how often a required column is missing, and the cost of all deviations."""
    misses, imbalance = 0, 0.0
    for c in range(state.counts.shape[0]):
        for j in range(state.counts.shape[1]):
            imbalance += state.weight[c, j] * abs(state.counts[c, j] - state.target[c, j])
            misses += int(state.required[c, j] and state.counts[c, j] == 0)
    return misses, imbalance


@_compile
def refine(
    items: Items,
    free: np.ndarray,
    state: State,
    part: np.ndarray,
    first_balanced: int,
    control: np.ndarray,
) -> tuple[int, float]:
    """Lower the cost by swaps of two items in different parts.

    The cost is the sum over columns and parts of weight * |count - target|, plus `MISSING` for
    each required column with count 0. The search ends when a pass over all columns hardly lowers
    the cost and everything has been tried for the columns that are missing.

    Parameters
    ----------
    items : Items
    free : int64 array
        The items that may be swapped, in random order.
    state : State
        Its counts are changed.
    part : int64 array (items,), changed
        The part of each item.
    first_balanced : int
        Columns before this one are only searched for where they are missing.
    control : int64 array (2,), changed
        As in `distribute`.

    Returns
    -------
    misses, imbalance : int, float
        How often a required column has count 0 in the end, and the rest of the cost.
    """
    n_columns, n_parts = state.counts.shape
    start, holders = _holders(items, free, n_columns)
    # The free items in the order of their parts: part j has the places bounds[j]:bounds[j + 1]. A
    # swap exchanges the places of two items, so that the bounds stay valid.
    bounds, by_part = _counting_sort(free, part, n_parts)
    place_of = np.empty(part.size, np.int64)
    for place in range(by_part.size):
        place_of[by_part[place]] = place

    returned = np.zeros(n_columns, np.int64)  # buffer of `_find_swap`, all 0 between its calls
    # Where the next search begins. np.int64, because numba would compile another version of
    # `_find_swap` for the type of a literal 0.
    offset = np.int64(0)
    misses, imbalance = _cost(state)
    balance = misses >= 0  # always true; a literal True would have the same effect as a literal 0
    changed = True
    while changed:
        changed = False
        for column in range(n_columns):
            if control[0]:
                break
            column_holders = holders[start[column] : start[column + 1]]
            for b in range(n_parts):
                partners = by_part[bounds[b] : bounds[b + 1]]  # a view: it follows the swaps
                while True:
                    r, s = _find_swap(
                        items,
                        state,
                        part,
                        column,
                        b,
                        column_holders,
                        partners,
                        offset,
                        balance and column >= first_balanced,
                        returned,
                        control,
                    )
                    offset += TRIES
                    if r < 0:
                        break
                    changed = True
                    control[1] += 1
                    a = part[r]
                    _count(items, state, r, a, -1)
                    _count(items, state, r, b, 1)
                    _count(items, state, s, b, -1)
                    _count(items, state, s, a, 1)
                    part[r], part[s] = b, a
                    place_of[r], place_of[s] = place_of[s], place_of[r]
                    by_part[place_of[r]], by_part[place_of[s]] = r, s
        # Once a pass gains too little, the further passes only look for missing columns.
        misses_before, imbalance_before = misses, imbalance
        misses, imbalance = _cost(state)
        balance = balance and (
            misses < misses_before or imbalance < (1 - LEAST_GAIN) * imbalance_before
        )
    return misses, imbalance
