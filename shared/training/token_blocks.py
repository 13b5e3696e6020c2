"""Blocks of tokens for language models: texts, one after another, cut into pieces of equal length.

A boundary token stands before, between and after the texts. A block of n tokens is read, and the
token after each of them predicted; a row of a data set therefore holds n + 1 tokens, and the last
token of a row is the first of the next one. Every token but the first is predicted exactly once.
For models that read the last k tokens only, a row can begin k - 1 tokens earlier, so that the block
cuts no context; these tokens are read, but not predicted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.launch import progress

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_TEXTS_PER_CALL = 1000


def token_stream(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, boundary: int | None
) -> np.ndarray:
    """Return the tokens of all texts, one after another.

    Parameters
    ----------
    texts : sequence of str
    tokenizer : PreTrainedTokenizerBase
        What looks like a special token in a text is text like other.
    boundary : int, optional
        The token before, between and after the texts. None: there is none, and the texts follow
        each other as one.

    Returns
    -------
    int32 array of shape (tokens,)
    """
    mark = [] if boundary is None else [boundary]
    pieces = [np.array(mark, np.int32)]
    for start in progress(range(0, len(texts), _TEXTS_PER_CALL), "tokenising", unit="batches"):
        rows = tokenizer(
            list(texts[start : start + _TEXTS_PER_CALL]),
            add_special_tokens=False,
            split_special_tokens=True,
            verbose=False,
        )["input_ids"]
        pieces += [np.array([*row, *mark], np.int32) for row in rows]
    return np.concatenate(pieces)


def packed_spans(n_tokens: int, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return start and stop of blocks that follow each other; the last one may be shorter.

    Returns
    -------
    starts, stops : int arrays of shape (blocks,)
        Block i reads the tokens ``starts[i]`` to ``stops[i] - 1`` and predicts those one later.
    """
    starts = np.arange(0, n_tokens - 1, block_size)
    return starts, np.minimum(starts + block_size, n_tokens - 1)


def document_spans(
    stream: np.ndarray, block_size: int, boundary: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return start and stop of blocks that each belong to one document; see `packed_spans`.

    A block begins with the boundary before the document. A document that is too long for a block
    has several.
    """
    marks = np.flatnonzero(stream == boundary)
    lengths = np.diff(marks)  # tokens of a document and one boundary
    per_document = -(-lengths // block_size)
    document = np.repeat(np.arange(len(lengths)), per_document)
    before = np.cumsum(per_document) - per_document
    starts = marks[document] + block_size * (np.arange(len(document)) - before[document])
    return starts, np.minimum(starts + block_size, marks[document + 1])


def token_blocks(
    stream: np.ndarray, block_size: int, *, boundary: int | None = None, context_size: int = 1
) -> Dataset:
    """Return blocks as rows of a data set.

    Parameters
    ----------
    stream : int array of shape (tokens,)
        At least two, from `token_stream`.
    block_size : int
        Most tokens of a block.
    boundary : int, optional
        The token between two documents: each block then belongs to one (`document_spans`). None:
        documents are packed one after another (`packed_spans`).
    context_size : int, default 1
        Tokens that the model reads for a prediction, if it is a fixed number. A block after the
        first one of the stream, or of its document, begins so many tokens less one earlier.

    Returns
    -------
    datasets.Dataset
        With ``input_ids`` (the tokens to read and one more), ``length``, the number of tokens to
        read, and ``n_earlier``, how many of these come before the block; what follows each of
        them is predicted in the row before. `shared.training.NextTokenCollator` makes batches.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    if boundary is None:
        starts, stops = packed_spans(len(stream), block_size)
        first = np.zeros_like(starts)
    else:
        starts, stops = document_spans(stream, block_size, boundary)
        marks = np.flatnonzero(stream == boundary)
        first = marks[np.searchsorted(marks, starts, side="right") - 1]  # of the document
    n_earlier = np.minimum(max(context_size - 1, 0), starts - first)
    starts = starts - n_earlier
    lengths = stops - starts + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    rows = pa.LargeListArray.from_arrays(offsets, pa.array(stream[index], pa.int32()))
    columns = {
        "input_ids": rows,
        "length": pa.array(lengths - 1, pa.int64()),
        "n_earlier": pa.array(n_earlier, pa.int64()),
    }
    return Dataset(InMemoryTable(pa.table(columns)))
