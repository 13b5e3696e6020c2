"""Batches for the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.models.tokenizers import PADDING_MULTIPLE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # torch's cross-entropy leaves out targets of this value


class PaddingCollator:
    """Pad a batch to its longest row.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Gives the padding token and side.
    pad_to_multiple_of : int
        Lengths are rounded up to a multiple, which fits the tiles of matrix units.

    Notes
    -----
    Features are ``{"input_ids": [...], "labels": class id}``; ``labels`` may be absent
    (prediction). The batch holds ``input_ids`` and ``attention_mask`` (rows, length) and ``labels``
    (rows,), all int64. The mask is derived from the lengths, so tokenised data need not store it.
    ``token_type_ids``, which tell the two texts of a pair apart, are padded where features have
    them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, pad_to_multiple_of: int = PADDING_MULTIPLE
    ):
        self.pad_id = tokenizer.pad_token_id
        self.pad_left = tokenizer.padding_side == "left"
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        lengths = np.array([len(feature["input_ids"]) for feature in features])
        width = -(-lengths.max() // self.pad_to_multiple_of) * self.pad_to_multiple_of
        positions = np.arange(width)
        mask = (
            positions >= width - lengths[:, None] if self.pad_left else positions < lengths[:, None]
        )
        batch = {"attention_mask": mask.astype(np.int64)}
        for name, padding in (("input_ids", self.pad_id), ("token_type_ids", 0)):
            if name in features[0]:
                batch[name] = np.full(mask.shape, padding, dtype=np.int64)
                # A boolean mask is filled row by row, left to right: as they are concatenated.
                batch[name][mask] = np.concatenate([feature[name] for feature in features])
        if "labels" in features[0]:
            batch["labels"] = self.labels([feature["labels"] for feature in features])
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def labels(self, labels: list[Any]) -> np.ndarray:
        """Make one array of the labels of a batch."""
        return np.array(labels, dtype=np.int64)


class MultilabelCollator(PaddingCollator):
    """Pad a batch to its longest text and turn class ids into float multi-hot rows.

    Parameters
    ----------
    tokenizer, pad_to_multiple_of
        As in `PaddingCollator`.
    n_labels : int
        Width of the label matrix.

    Notes
    -----
    Here ``labels`` of a feature are a list of class ids, and of a batch an array (rows, labels),
    float32: integer targets make binary cross-entropy fail.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        n_labels: int,
        *,
        pad_to_multiple_of: int = PADDING_MULTIPLE,
    ):
        super().__init__(tokenizer, pad_to_multiple_of=pad_to_multiple_of)
        self.n_labels = n_labels

    def labels(self, labels: list[list[int]]) -> np.ndarray:
        """Turn lists of class ids into multi-hot rows."""
        rows = np.zeros((len(labels), self.n_labels), dtype=np.float32)
        for row, ids in zip(rows, labels, strict=True):
            row[ids] = 1.0
        return rows


class MaskingCollator(PaddingCollator):
    """Pad a batch and hide some of its tokens, for masked-language modelling.

    Of the tokens chosen, 80 % become the mask token, 10 % a random one, 10 % stay (Devlin et al.
    2019, "BERT", section 3.1). What is hidden in a text depends on (seed, epoch, sample) alone, so
    that a resumed run equals an uninterrupted one, whatever the batches.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a mask token.
    share : float
        Of the tokens of a text, those to hide; special tokens never are.
    seed : int
    epoch : callable
        Returns the number of the current epoch.

    Notes
    -----
    Features are ``{"input_ids": [...], "sample": number of the text}``; with an ``"epoch"`` of its
    own, a text hides the same tokens each time, as an evaluation wants it. A text of special tokens
    alone hides nothing, and a batch of such texts has no loss: leave them out. ``labels`` of the
    batch, int64 (rows, length), hold the hidden tokens and `IGNORE_INDEX` elsewhere; ``targets`` are the
    same, for the model, which is not given what the Trainer keeps for the loss.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        share: float,
        *,
        seed: int,
        epoch: Callable[[], int],
    ):
        super().__init__(tokenizer)
        self.share, self.seed, self.epoch = share, seed, epoch
        self.mask_id = tokenizer.mask_token_id
        self.special = np.array(sorted(tokenizer.all_special_ids))
        self.ordinary = np.setdiff1d(np.arange(len(tokenizer)), self.special)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        epoch = self.epoch()
        hidden = [self._hide(feature, epoch) for feature in features]
        batch = super().__call__([{"input_ids": ids} for ids, _ in hidden])
        labels = batch["input_ids"].new_full(batch["input_ids"].shape, IGNORE_INDEX)
        labels[batch["attention_mask"].bool()] = labels.new_tensor(
            np.concatenate([targets for _, targets in hidden])
        )
        return batch | {"labels": labels, "targets": labels}

    def _hide(self, feature: dict[str, Any], epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what the model sees of a text, and its targets."""
        rng = np.random.default_rng((self.seed, feature.get("epoch", epoch), feature["sample"]))
        ids = np.array(feature["input_ids"])
        ordinary = ~np.isin(ids, self.special)
        drawn = np.where(ordinary, rng.random(len(ids)), np.inf)
        # One at least of a text that has an ordinary token: a batch of short texts would have no
        # loss where none of them hides any.
        chosen = ordinary & (drawn <= max(self.share, drawn.min()))
        targets = np.where(chosen, ids, IGNORE_INDEX)
        how = rng.random(len(ids))
        ids[chosen & (how < 0.8)] = self.mask_id
        random = chosen & (how >= 0.9)
        ids[random] = rng.choice(self.ordinary, random.sum())
        return ids, targets


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
