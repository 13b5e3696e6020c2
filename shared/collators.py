"""Batches for the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class MultilabelCollator:
    """Pad a batch to its longest text and turn class ids into float multi-hot rows.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Gives the padding token and side.
    n_labels : int
        Width of the label matrix.
    pad_to_multiple_of : int
        Lengths are rounded up to a multiple, which fits the tiles of matrix units.

    Notes
    -----
    Features are ``{"input_ids": [...], "labels": [class ids], ...}``; ``labels`` may be absent
    (prediction). The batch holds ``input_ids`` and ``attention_mask`` (rows, length), int64, and
    ``labels`` (rows, labels), float32: integer targets make binary cross-entropy fail. The
    mask is derived from the lengths, so tokenised data need not store it.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, n_labels: int, *, pad_to_multiple_of: int = 8
    ):
        self.pad_id = tokenizer.pad_token_id
        self.pad_left = tokenizer.padding_side == "left"
        self.n_labels = n_labels
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        lengths = np.array([len(feature["input_ids"]) for feature in features])
        width = -(-lengths.max() // self.pad_to_multiple_of) * self.pad_to_multiple_of
        positions = np.arange(width)
        mask = (
            positions >= width - lengths[:, None] if self.pad_left else positions < lengths[:, None]
        )
        input_ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        # A boolean mask is filled row by row, left to right: the order of the concatenation.
        input_ids[mask] = np.concatenate([feature["input_ids"] for feature in features])
        batch = {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        }
        if "labels" in features[0]:
            labels = np.zeros((len(features), self.n_labels), dtype=np.float32)
            for row, feature in enumerate(features):
                labels[row, feature["labels"]] = 1.0
            batch["labels"] = torch.from_numpy(labels)
        return batch


class AugmentingCollator:
    """Augment and tokenise the copies among the rows of a batch, then collate all.

    Parameters
    ----------
    collator : callable
        Makes a batch of tokenised rows.
    tokenizer : PreTrainedTokenizerBase
        Cuts texts at its `model_max_length`.
    augment : callable
        ``augment(texts, samples)`` returns as many texts; it is where the epoch comes in.

    Notes
    -----
    A row with ``sample`` of 0 or more is a copy: its ``text`` is augmented, and the tokens replace
    its ``input_ids``. Rows with a negative one, or none (evaluation), are collated as they are.
    """

    def __init__(
        self,
        collator: Callable,
        tokenizer: PreTrainedTokenizerBase,
        augment: Callable[[Sequence[str], Sequence[int]], list[str]],
    ):
        self.collator, self.tokenizer, self.augment = collator, tokenizer, augment

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        features = list(features)
        copies = [i for i, feature in enumerate(features) if feature.get("sample", -1) >= 0]
        if copies:
            texts = [features[i]["text"] for i in copies]
            texts = self.augment(texts, [features[i]["sample"] for i in copies])
            ids = self.tokenizer(texts, truncation=True)["input_ids"]
            for i, row in zip(copies, ids, strict=True):
                features[i] = {**features[i], "input_ids": row}
        return self.collator(features)
