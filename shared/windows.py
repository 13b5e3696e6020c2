"""Long texts as overlapping windows of tokens: cut them, and pool what a model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

WINDOW_POOLINGS = ("mean", "max")


def check_stride(tokenizer: PreTrainedTokenizerBase, stride: int) -> None:
    """Refuse windows that would not move on.

    Raises
    ------
    UserError
        If windows share as many tokens as they have room for, or fewer than none.
    """
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if not 0 <= stride < room:
        raise UserError(
            f"--stride {stride}: must be 0 to {room - 1}, less than the {room} tokens of text that "
            "a window holds"
        )


def cut_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    stride: int,
    max_windows: int | None = None,
) -> tuple[list[list[int]], np.ndarray]:
    """Cut texts into windows of `tokenizer.model_max_length` tokens, special ones included.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    texts : sequence of str
    stride : int
        Tokens that neighbouring windows of a text share.
    max_windows : int, optional
        Windows of a text, at most, from its start; 1 cuts the text off. None keeps all: every
        token is in a window.

    Returns
    -------
    input_ids : list of lists of int, one for each window; at least one for each text.
    documents : int array of shape (windows,), ascending: the text of each window.
    """
    found = tokenizer(
        list(texts), truncation=True, stride=stride, return_overflowing_tokens=max_windows != 1
    )
    if max_windows == 1:
        return found["input_ids"], np.arange(len(texts))
    ids = found["input_ids"]
    documents = np.array(found["overflow_to_sample_mapping"], dtype=np.int64)
    if max_windows is not None:
        number = np.arange(len(documents)) - np.searchsorted(documents, documents)
        kept = np.flatnonzero(number < max_windows)
        ids, documents = [ids[i] for i in kept], documents[kept]
    return ids, documents


def window_rows(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stride: int,
    max_windows: int | None = None,
) -> Dataset:
    """Make a data set of windows from one of texts.

    Parameters
    ----------
    dataset : Dataset
        With a column ``text``, and ``labels`` if known.
    tokenizer, stride, max_windows
        As in `cut_texts`.

    Returns
    -------
    Dataset
        ``input_ids``, ``length`` (tokens), ``document`` (row in `dataset`) and ``labels``, those of
        the document.
    """

    def cut(batch, rows):
        ids, documents = cut_texts(tokenizer, batch["text"], stride=stride, max_windows=max_windows)
        windows = {"input_ids": ids, "length": [len(window) for window in ids]}
        windows["document"] = np.array(rows)[documents]
        if "labels" in batch:
            windows["labels"] = [batch["labels"][i] for i in documents]
        return windows

    return dataset.map(
        cut,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        desc="tokenising",
    )


def pool_windows(
    values: np.ndarray,
    documents: np.ndarray,
    *,
    pooling: str = "mean",
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Make one row of the rows of each document's windows.

    Parameters
    ----------
    values : array of shape (windows, width)
        Logits, or vectors.
    documents : int array of shape (windows,)
        The document of each window, in any order.
    pooling : {"mean", "max"}
        The mean, or the largest value of each column.
    weights : array of shape (windows,), optional
        Of the windows in the mean, above 0, such as their tokens. None: all alike.

    Returns
    -------
    float64 array of shape (documents, width)
        One row for each number that occurs in `documents`, ascending.

    Raises
    ------
    ValueError
        For another pooling.
    """
    if pooling not in WINDOW_POOLINGS:
        raise ValueError(f"pooling {pooling!r}: there are {', '.join(WINDOW_POOLINGS)}")
    order = np.argsort(documents, kind="stable")
    values = np.asarray(values, dtype=np.float64)[order]
    starts = np.unique(np.asarray(documents)[order], return_index=True)[1]
    if pooling == "max":
        return np.maximum.reduceat(values, starts)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)[order]
    sums = np.add.reduceat(values * weights[:, None], starts)
    return sums / np.add.reduceat(weights, starts)[:, None]
