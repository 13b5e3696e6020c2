"""The batches of a prediction on a CPU: few tokens each, and hardly any padding."""

from __future__ import annotations

import numpy as np


def prediction_batches(
    lengths: np.ndarray,
    *,
    max_tokens: int,
    max_padding: int,
    max_rows: int | None = None,
    multiple_of: int = 1,
) -> list[np.ndarray]:
    """Divide rows into batches of similar length, from the longest row to the shortest.

    A batch ends where one more row would be too many tokens, or too much padding. A row with more
    tokens is a batch alone.

    Parameters
    ----------
    lengths : int array of shape (rows,)
        Tokens of each row.
    max_tokens : int
        Maximum number of tokens per batch, padding included. The activations of a small batch stay
        in the caches of the processor.
    max_padding : int
        Maximum number of padding tokens per batch. More cost more than another batch does.
    max_rows : int, optional
        Maximum number of rows per batch (default: no limit).
    multiple_of : int
        Rows are padded to a multiple of this number.

    Returns
    -------
    list of int arrays
        The numbers of the rows of each batch; rows of equal length keep their order.
    """
    order = np.argsort(-lengths, kind="stable")
    padded = -(-lengths[order] // multiple_of) * multiple_of  # rounded up
    starts: list[int] = []
    width, padding = 0, 0
    for i, length in enumerate(padded.tolist()):
        padding += width - length
        n_rows = i + 1 - starts[-1] if starts else 0
        if (
            not starts
            or padding > max_padding
            or n_rows * width > max_tokens
            or (max_rows is not None and n_rows > max_rows)
        ):
            starts.append(i)
            width, padding = length, 0
    return np.split(order, starts)[1:]
