"""Which labels are taken for each other, and which occur together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def confused_labels(y_true: np.ndarray, y_pred: np.ndarray) -> csr_array:
    """Return how many rows miss one label and wrongly have another.

    With one label per row, these are the numbers off the diagonal of the confusion matrix.

    Parameters
    ----------
    y_true, y_pred : bool array of shape (rows, labels)

    Returns
    -------
    sparse array of shape (labels, labels)
        Entry (i, j): rows that have label i, which was not predicted, and not label j, which was.
    """
    y_true, y_pred = np.asarray(y_true, dtype=bool), np.asarray(y_pred, dtype=bool)
    missed, wrong = (_sparse_counts(y) for y in (y_true & ~y_pred, y_pred & ~y_true))
    return missed.T @ wrong


def co_occurrences(y: np.ndarray) -> csr_array:
    """Return how many rows have both of two labels.

    Parameters
    ----------
    y : bool array of shape (rows, labels)

    Returns
    -------
    sparse array of shape (labels, labels)
        Symmetric; the diagonal has the rows with each label.
    """
    labels = _sparse_counts(np.asarray(y, dtype=bool))
    return labels.T @ labels


def _sparse_counts(y: np.ndarray) -> csr_array:
    """Return a bool array as a sparse one of integers, without a dense one of integers."""
    from scipy.sparse import csr_array

    return csr_array(y).astype(np.int64)


def largest_pairs(counts: csr_array, most: int) -> list[tuple[int, int, int]]:
    """Return the entries with the highest counts as (row, column, count), the highest first."""
    pairs = counts.tocoo()
    order = np.argsort(-pairs.data, kind="stable")[:most]
    columns = (values[order].tolist() for values in (pairs.row, pairs.col, pairs.data))
    return list(zip(*columns, strict=True))
