"""Compiled kernels of `shared.splitters.multilabel`: the greedy pass and its refinement by swaps.

Both distribute *items* (rows, or groups of rows) that carry *columns* (labels, or pairs of labels)
over *parts*. They stand apart from `shared.splitters.multilabel` so that numba is imported only when something
is split.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

# Effort of `refine`, in constants, so that the time does not depend on the number of items: for a
# part that has too little of a column so many items with it are tried, each with so many items of
# the part in exchange; and all columns once more, as long as that lowers the cost by this share.
TRIES = 64
LEAST_GAIN = 0.005

MISSING = 1e6  # cost of a required column that a part lacks: above all deviations in one swap
EPSILON = 1e-9  # differences in cost below this are rounding


def _compile(function):
    """Compile on the first call; keep the machine code on disk where there is a place to write."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # neither beside this file nor in the user's cache folder
        return njit(function)


class Items(NamedTuple):
    """Item i stands for `sizes[i]` rows and carries `columns[indptr[i]:indptr[i + 1]]`, ascending,
    each in as many of its rows as `values` says."""

    indptr: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    sizes: np.ndarray


class State(NamedTuple):
    """What is counted and what it costs, each an array (columns, parts)."""

    counts: np.ndarray  # int64, rows with the column in the part
    target: np.ndarray  # float64, how many there should be
    weight: np.ndarray  # float64, cost of one row more or less than that
    required: np.ndarray  # bool, whether a count of 0 costs `MISSING`


@_compile
def _counting_sort(members, keys, n_keys):
    """Members by ascending key; those with key k lie between bound[k] and bound[k + 1]."""
    bound = np.zeros(n_keys + 2, np.int64)
    for member in members:
        bound[keys[member] + 2] += 1
    for k in range(n_keys):
        bound[k + 2] += bound[k + 1]
    ordered = np.empty(members.size, np.int64)
    for member in members:
        ordered[bound[keys[member] + 1]] = member
        bound[keys[member] + 1] += 1
    return bound, ordered


@_compile
def _holders(items, free, n_columns):
    """The free items of each column: those of column c lie between start[c] and start[c + 1]."""
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
    """Count item i in the part (sign = 1) or no more in the part (sign = -1)."""
    for e in range(items.indptr[i], items.indptr[i + 1]):
        state.counts[items.columns[e], part] += sign * items.values[e]


@_compile
def distribute(items, free, lots, room, state, part):
    """Iterative stratification (Sechidis et al. 2011) into parts of exact size.

    The column with the fewest items left comes first. Each of its items goes to the part that
    desires the column most, among equals to the one with most room, among equals by lot. At the
    end, what carries no column fills the room that is left.

    No part stays empty; a part takes more than it has room for only when an item fits nowhere.

    Parameters
    ----------
    items : Items
    free : int64 array
        The items to distribute, in the order in which they take their turn.
    lots : float64 array (items,)
        Uniform in [0, 1).
    room : int64 array (parts,), changed
        How many more rows each part takes.
    state : State
        Its counts are changed.
    part : int64 array (items,), changed
        The part of each item, -1 for the free ones.
    """
    indptr, columns, _, sizes = items
    n_columns, n_parts = state.counts.shape
    for i in range(part.size):
        if part[i] >= 0:
            room[part[i]] -= sizes[i]
            _count(items, state, i, part[i], 1)
    start, holders = _holders(items, free, n_columns)

    # A bucket queue: `queue` has the columns by ascending number of items left, those with m of
    # them from `bucket[m]` on. A column that loses an item changes places with the first of its
    # bucket, whose bound then steps over it: the order holds at constant cost.
    left = np.empty(n_columns, np.int64)
    queue = np.empty(n_columns, np.int64)
    for c in range(n_columns):
        left[c] = start[c + 1] - start[c]
        queue[c] = c
    bucket, queue = _counting_sort(queue, left, free.size + 1)
    position = np.empty(n_columns, np.int64)
    for p in range(n_columns):
        position[queue[p]] = p

    n_left = free.size
    n_empty = n_parts
    empty = np.ones(n_parts, np.bool_)
    while n_left > 0:
        column = queue[bucket[1]] if bucket[1] < n_columns else -1
        turns = holders[start[column] : start[column + 1]] if column >= 0 else free
        for i in turns:
            if part[i] >= 0:
                continue
            lot = lots[i]
            best, best_fits, ties = -1, False, 0
            for j in range(n_parts):
                if n_left == n_empty and not empty[j]:  # no part may stay without an item
                    continue
                fits = room[j] >= sizes[i]
                more = 1.0
                if best >= 0 and fits != best_fits:
                    more = 1.0 if fits else -1.0
                elif best >= 0:
                    more = 0.0
                    if fits and column >= 0:
                        more = state.target[column, j] - state.counts[column, j]
                        more -= state.target[column, best] - state.counts[column, best]
                    if more == 0:
                        more = float(room[j] - room[best])
                if more > 0:
                    best, best_fits, ties = j, fits, 1
                elif more == 0:  # the t-th of equals takes over with probability 1 / t
                    ties += 1
                    lot *= ties
                    if lot < 1:
                        best = j
                    else:
                        lot = (lot - 1) / (ties - 1)
            part[i] = best
            room[best] -= sizes[i]
            n_left -= 1
            n_empty -= int(empty[best])
            empty[best] = False
            _count(items, state, i, best, 1)
            for e in range(indptr[i], indptr[i + 1]):
                c = columns[e]
                first = bucket[left[c]]
                other = queue[first]
                queue[position[c]] = other
                position[other] = position[c]
                queue[first] = c
                position[c] = first
                bucket[left[c]] += 1
                left[c] -= 1


@_compile
def _change(state, column, part, rows):
    """How the cost changes when the part gets this many more rows with the column."""
    before = state.counts[column, part]
    after = before + rows
    target = state.target[column, part]
    cost = state.weight[column, part] * (abs(after - target) - abs(before - target))
    if state.required[column, part]:
        cost += MISSING * (int(after == 0) - int(before == 0))
    return cost


@_compile
def _transfer_cost(items, state, i, a, b, back):
    """How the cost changes when item i goes from part a to part b.

    For each column, `back[column]` rows come back in exchange; what that costs by itself is left
    out.
    """
    cost = 0.0
    for e in range(items.indptr[i], items.indptr[i + 1]):
        c = items.columns[e]
        rows = items.values[e] - back[c]
        cost += _change(state, c, a, -rows) + _change(state, c, b, rows)
        if back[c] > 0:
            cost -= _change(state, c, a, back[c]) + _change(state, c, b, -back[c])
    return cost


@_compile
def _find_swap(items, state, part, column, b, holders, partners, turn, balance, back):
    """An item with the column for part b and one of part b in exchange, or (-1, -1).

    From `turn` on, round and round, some holders of the column are tried, each with some partners
    in part b. If the column is required and missing all holders are, and those that can be spared
    with all partners until one will do; if it is not, none are unless told to balance.
    """
    missing = state.required[column, b] and state.counts[column, b] == 0
    if not missing and not balance:
        return -1, -1
    gain = _change(state, column, b, 1)
    loss = np.inf
    for a in range(state.counts.shape[1]):
        if a != b and state.counts[column, a] > 0:
            loss = min(loss, _change(state, column, a, -1))
    if loss + gain > -EPSILON:
        return -1, -1

    enough = EPSILON if balance else MISSING / 2
    first_partner = turn
    tries = 0
    for t in range(holders.size):
        if tries == TRIES and not missing:
            break
        r = holders[(turn + t) % holders.size]
        a = part[r]
        if a == b or _change(state, column, a, -1) + gain > -EPSILON:
            continue
        tries += 1
        alone = _transfer_cost(items, state, r, a, b, back)
        exhaustive = missing and alone < -MISSING / 2  # else another column would go missing
        for e in range(items.indptr[r], items.indptr[r + 1]):
            back[items.columns[e]] = items.values[e]
        least, s = -enough - alone, -1
        for u in range(partners.size):
            if u >= TRIES and (s >= 0 or not exhaustive):
                break
            partner = partners[(first_partner + u) % partners.size]
            cost = _transfer_cost(items, state, partner, b, a, back)
            if cost < least:
                least, s = cost, partner
        for e in range(items.indptr[r], items.indptr[r + 1]):
            back[items.columns[e]] = 0
        if s >= 0:
            return r, s
        first_partner += TRIES
    return -1, -1


@_compile
def _cost(state):
    """How often a required column is missing, and the cost of all else."""
    misses, imbalance = 0, 0.0
    for c in range(state.counts.shape[0]):
        for j in range(state.counts.shape[1]):
            imbalance += state.weight[c, j] * abs(state.counts[c, j] - state.target[c, j])
            misses += int(state.required[c, j] and state.counts[c, j] == 0)
    return misses, imbalance


@_compile
def refine(items, free, state, part):
    """Lower the cost by swaps of two items in different parts.

    The cost is the sum over columns and parts of weight * |count - target|, plus `MISSING` for
    each required column with count 0. The search ends when it hardly lowers the cost any more and
    has tried everything for the columns that are missing.

    Parameters
    ----------
    items : Items
    free : int64 array
        The items that may be swapped, in random order.
    state : State
        Its counts are changed.
    part : int64 array (items,), changed
        The part of each item.

    Returns
    -------
    misses, imbalance : int, float
        How often a required column has count 0 in the end, and the rest of the cost.
    """
    n_columns, n_parts = state.counts.shape
    start, holders = _holders(items, free, n_columns)
    bound, seats = _counting_sort(free, part, n_parts)  # a swap exchanges two seats
    seat_of = np.empty(part.size, np.int64)
    for seat in range(seats.size):
        seat_of[seats[seat]] = seat

    back = np.zeros(n_columns, np.int64)  # scratch of `_transfer_cost`
    turn = np.int64(0)  # a plain 0 would make numba compile a version for it alone
    misses, imbalance = _cost(state)
    balance = misses >= 0  # true, for the same reason not written so
    changed = True
    while changed:
        changed = False
        for column in range(n_columns):
            own = holders[start[column] : start[column + 1]]
            for b in range(n_parts):
                partners = seats[bound[b] : bound[b + 1]]
                while True:
                    r, s = _find_swap(
                        items, state, part, column, b, own, partners, turn, balance, back
                    )
                    turn += TRIES
                    if r < 0:
                        break
                    changed = True
                    a = part[r]
                    _count(items, state, r, a, -1)
                    _count(items, state, r, b, 1)
                    _count(items, state, s, b, -1)
                    _count(items, state, s, a, 1)
                    part[r], part[s] = b, a
                    seat_of[r], seat_of[s] = seat_of[s], seat_of[r]
                    seats[seat_of[r]], seats[seat_of[s]] = r, s
        misses_before, imbalance_before = misses, imbalance
        misses, imbalance = _cost(state)
        balance = balance and (
            misses < misses_before or imbalance < (1 - LEAST_GAIN) * imbalance_before
        )
    return misses, imbalance
