"""Batches for the Trainer."""

from __future__ import annotations

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
