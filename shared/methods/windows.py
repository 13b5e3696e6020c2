"""Long texts as overlapping windows of tokens: cut them, and pool what a model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.models.loading import limit_length

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

WINDOW_POOLINGS = ("mean", "max")


@dataclass
class WindowArguments:
    """Flags about documents longer than the model."""

    window: int = flag(256, "Tokens of a window (default: 256).")
    stride: int = flag(64, "Tokens that neighbouring windows share (default: 64).")
    max_windows: int | None = flag(
        None, "Windows of a document, from its start; 1 cuts it off (default: all)."
    )
    window_pooling: Literal["mean", "max"] = flag(
        "mean", "What a document gets of its windows' logits, by label (default: mean)."
    )


def limit_windows(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, args: WindowArguments
) -> None:
    """Let the tokenizer cut at a window's length, here and wherever it is saved to.

    Raises
    ------
    UserError
        If a window is longer than what the model reads, if windows would not move on since they
        share as many tokens as they have room for, or if there are to be none.
    """
    limit_length(tokenizer, model, args.window, flag="window")
    if not tokenizer.is_fast:
        raise UserError(f"{type(tokenizer).__name__} cuts no windows; name a model with another")
    if args.max_windows is not None and args.max_windows < 1:
        raise UserError(f"--max_windows {args.max_windows}: must be 1 or more")
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if not 0 <= args.stride < room:
        raise UserError(
            f"--stride {args.stride}: must be 0 to {room - 1}, less than the {room} tokens of "
            "text that a window holds"
        )


def split_into_windows(
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


@dataclass(frozen=True)
class Windows:
    """The windows of some documents.

    Attributes
    ----------
    rows : Dataset of ``input_ids``, ``length`` (tokens) and ``labels``, those of the document.
    documents : int64 array of shape (windows,), ascending: the document of each window.
    """

    rows: Dataset
    documents: np.ndarray

    @classmethod
    def of_texts(
        cls,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stride: int,
        max_windows: int | None = None,
    ) -> Windows:
        """Cut the texts of a data set: a column ``text``, and maybe ``labels``; see `split_into_windows`."""

        def cut(batch, numbers):
            ids, owners = split_into_windows(
                tokenizer, batch["text"], stride=stride, max_windows=max_windows
            )
            windows = {"input_ids": ids, "length": [len(window) for window in ids]}
            if "labels" in batch:
                windows["labels"] = [batch["labels"][i] for i in owners]
            return {**windows, "document": np.array(numbers)[owners]}

        settings = {"remove_columns": dataset.column_names, "desc": "tokenising"}
        rows = dataset.map(cut, batched=True, with_indices=True, **settings)
        return cls(rows.remove_columns("document"), rows.with_format("numpy")["document"][:])

    def of(self, chosen: np.ndarray) -> Windows:
        """Return the windows of those documents where a bool array of shape (documents,) says."""
        kept = np.flatnonzero(chosen[self.documents])
        return Windows(self.rows.select(kept), self.documents[kept])

    @property
    def tokens(self) -> np.ndarray:
        """Tokens in the windows of each document together: int array of shape (documents,)."""
        lengths = self.rows.with_format("numpy")["length"][:]
        return np.add.reduceat(lengths, np.unique(self.documents, return_index=True)[1])

    def predict(self, trainer: Trainer, pooling: str = "mean") -> np.ndarray:
        """Return what a trainer predicts, pooled: shape (documents, width); see `pool_windows`.

        In the mean, windows weigh by their tokens.
        """
        found = trainer.predict(self.rows.select_columns(["input_ids", "length"])).predictions
        lengths = self.rows.with_format("numpy")["length"][:]
        return pool_windows(found, self.documents, pooling=pooling, weights=lengths)


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
