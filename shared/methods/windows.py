"""Long texts as overlapping windows of tokens: split texts, and pool the predictions of windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.data.mapped_rows import map_rows
from shared.models.lengths import limit_length
from shared.models.tokenizers import TEXTS_PER_CALL, forget_padding, with_prefix

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

WINDOW_POOLINGS = ("mean", "max")


# --- flags ---------------------------------------------------------------------------------------


@dataclass
class WindowArguments:
    """Flags about documents that are longer than the input of the model."""

    window: int = flag(256, "Length of a window, in tokens (default: 256).", least=1)
    stride: int = flag(64, "Tokens that neighbouring windows share (default: 64).", least=0)
    max_windows: int | None = flag(
        None,
        "Maximum number of windows per document, from its start, or from its end with "
        "--truncation_side left; 1 truncates the document (default: all).",
        least=1,
    )
    window_pooling: Literal["mean", "max"] = flag(
        "mean", "Pool the logits of a document's windows, per label: mean or max (default: mean)."
    )


def limit_windows(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, args: WindowArguments
) -> None:
    """Set the tokenizer's maximum length to that of a window; it is saved with the tokenizer.

    Raises
    ------
    UserError
        If a window is longer than the input of the model, if the tokenizer cannot make windows, or
        if windows share all the tokens that they have room for, so that the next window would start
        where the last one did.
    """
    limit_length(tokenizer, model, args.window, flag="window")
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__}: cannot split texts into windows; "
            "name a model with a fast tokenizer"
        )
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if args.stride >= room:
        raise UserError(
            f"--stride {args.stride}: must be 0 to {room - 1}, less than the {room} tokens of "
            "text that a window holds"
        )


def saved_windows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the windows that a trained model names in its config.

    A model that was not trained on windows reads one window: the truncated text.

    Returns
    -------
    dict with ``stride``, ``max_windows`` and ``pooling``.

    Raises
    ------
    UserError
        If the config names anything else, or values out of range.
    """
    default = {"stride": 0, "max_windows": 1, "pooling": "mean"}
    windows = getattr(model.config, "windows", default)
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    values = default | windows if isinstance(windows, dict) else {}
    stride, most = values.get("stride"), values.get("max_windows")
    if (
        values.keys() != default.keys()
        or values["pooling"] not in WINDOW_POOLINGS
        or not (type(stride) is int and 0 <= stride < room)
        or not (most is None or (type(most) is int and most >= 1))
    ):
        raise UserError(
            f"the config of the model names the windows {windows!r}; expected stride (0 to "
            f"{room - 1}), max_windows (1 or more, or null) and pooling (mean or max)"
        )
    return values


# --- windows of documents ------------------------------------------------------------------------


def split_into_windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    stride: int,
    max_windows: int | None = None,
) -> tuple[list[list[int]], np.ndarray]:
    """Split texts into windows of `tokenizer.model_max_length` tokens, special tokens included.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    texts : sequence of str
    stride : int
        Tokens that neighbouring windows of a text share.
    max_windows : int, optional
        Maximum number of windows per text, from its start, or from its end if the tokenizer
        truncates on the left; 1 truncates the text. None keeps all: every token is in a window.

    Returns
    -------
    input_ids : list of lists of int, one per window; at least one window per text.
    documents : int array of shape (windows,), ascending: the text of each window.
    """
    ids: list[list[int]] = []
    documents = [np.zeros(0, np.int64)]  # so that no texts give no windows
    # In batches: the tokenizer keeps the tokens beyond the truncation until a call ends.
    for start in range(0, len(texts), TEXTS_PER_CALL):
        columns, owners = encode_windows(
            tokenizer,
            texts[start : start + TEXTS_PER_CALL],
            stride=stride,
            max_windows=max_windows,
        )
        ids += columns["input_ids"]
        documents.append(start + owners)
    return ids, np.concatenate(documents)


def encode_windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    stride: int,
    max_windows: int | None = None,
    **options: bool,
) -> tuple[Mapping[str, list], np.ndarray]:
    """Return columns of the tokenizer, with an entry for each window, and the text of each window.

    The other parameters are those of `split_into_windows`; `options` are further ones of the call
    of the tokenizer, such as ``return_offsets_mapping``.
    """
    encoded = tokenizer(
        with_prefix(tokenizer, texts),
        truncation=True,
        stride=stride,
        return_overflowing_tokens=max_windows != 1,
        **options,
    )
    if max_windows == 1:
        return encoded, np.arange(len(texts))
    documents = np.array(encoded["overflow_to_sample_mapping"], dtype=np.int64)
    kept = np.arange(len(documents))
    if max_windows is not None:
        # `documents` is sorted, so searchsorted gives the first window of each window's document;
        # the distance to it is the number of the window within the document.
        number = kept - np.searchsorted(documents, documents)
        kept = np.flatnonzero(number < max_windows)
    columns = {name: [column[i] for i in kept] for name, column in encoded.items()}
    return columns, documents[kept]


@dataclass(frozen=True)
class Windows:
    """The windows of some documents.

    Attributes
    ----------
    rows : Dataset with ``input_ids``, ``length`` (tokens) and the ``labels`` of the document, if
        the documents have labels; one row per window.
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
        """Split the texts of a data set with the column ``text`` and, optionally, ``labels``.

        The other parameters are those of `split_into_windows`.
        """

        def split(batch: Mapping[str, list], numbers: list[int]) -> dict[str, Any]:
            ids, owners = split_into_windows(
                tokenizer, batch["text"], stride=stride, max_windows=max_windows
            )
            columns: dict[str, Any] = {"input_ids": ids, "length": [len(window) for window in ids]}
            if "labels" in batch:
                columns["labels"] = [batch["labels"][i] for i in owners]
            # `owners` counts within the batch, `numbers` are the rows of the whole data set.
            return {**columns, "document": np.array(numbers)[owners]}

        # `map` may change the number of rows only if the old columns are removed.
        settings = {"remove_columns": dataset.column_names, "desc": "tokenising"}
        forget_padding(tokenizer)  # it is part of the key of the cache
        rows = map_rows(dataset, split, with_indices=True, **settings)
        return cls(rows.remove_columns("document"), rows.with_format("numpy")["document"][:])

    @classmethod
    def of_strings(
        cls,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        stride: int,
        max_windows: int | None = None,
    ) -> Windows:
        """Split texts; the other parameters are those of `split_into_windows`."""
        from datasets import Dataset

        ids, documents = split_into_windows(
            tokenizer, texts, stride=stride, max_windows=max_windows
        )
        rows = Dataset.from_dict({"input_ids": ids, "length": [len(window) for window in ids]})
        return cls(rows, documents)

    def of(self, selected: np.ndarray) -> Windows:
        """Return the windows of the documents that a bool array of shape (documents,) selects."""
        kept = np.flatnonzero(selected[self.documents])
        return Windows(self.rows.select(kept), self.documents[kept])

    @property
    def tokens(self) -> np.ndarray:
        """Total number of tokens in the windows of each document: int array, (documents,)."""
        lengths = self.rows.with_format("numpy")["length"][:]
        # `reduceat` sums from each first window of a document to the next one.
        return np.add.reduceat(lengths, np.unique(self.documents, return_index=True)[1])

    def predict(self, trainer: Trainer, pooling: str = "mean") -> np.ndarray:
        """Return a trainer's predictions, pooled by document: shape (documents, width).

        See `pool_windows`. In the mean, the weight of a window is its number of tokens.
        """
        rows = self.rows.select_columns(["input_ids", "length"])
        predictions = trainer.predict(rows).predictions
        lengths = self.rows.with_format("numpy")["length"][:]
        return pool_windows(predictions, self.documents, pooling=pooling, weights=lengths)


# --- pooling -------------------------------------------------------------------------------------


def pool_windows(
    values: np.ndarray,
    documents: np.ndarray,
    *,
    pooling: str = "mean",
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Pool the rows of the windows of each document into one row.

    Parameters
    ----------
    values : array of shape (windows, width)
        Logits, or vectors.
    documents : int array of shape (windows,)
        The document of each window, in any order.
    pooling : {"mean", "max"}
        The mean, or the largest value of each column.
    weights : array of shape (windows,), optional
        Weights of the windows in the mean, above 0, such as their numbers of tokens. None: all 1.

    Returns
    -------
    float64 array of shape (documents, width)
        One row for each number that occurs in `documents`, in ascending order.

    Raises
    ------
    ValueError
        For another pooling.
    """
    if pooling not in WINDOW_POOLINGS:
        raise ValueError(f"pooling {pooling!r}: there are {', '.join(WINDOW_POOLINGS)}")
    # Windows of a document must stand together: `reduceat` pools each slice between two starts.
    order = np.argsort(documents, kind="stable")
    values = np.asarray(values, dtype=np.float64)[order]
    starts = np.unique(np.asarray(documents)[order], return_index=True)[1]
    if pooling == "max":
        return np.maximum.reduceat(values, starts)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)[order]
    sums = np.add.reduceat(values * weights[:, None], starts)
    return sums / np.add.reduceat(weights, starts)[:, None]
