"""Collators: make a batch of tensors from tokenised rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.models.tokenizers import PADDING_MULTIPLE, with_prefix

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # PyTorch's cross-entropy ignores targets with this value


def token_mask(lengths: np.ndarray, width: int, padding_side: str) -> np.ndarray:
    """Return where the tokens of padded rows are: bool, of shape (rows, width).

    Parameters
    ----------
    lengths : int array of shape (rows,)
        Tokens of each row.
    width : int
        Tokens and padding of each row.
    padding_side : {"left", "right"}
    """
    positions = np.arange(width)
    if padding_side == "left":
        return positions >= width - lengths[:, None]
    return positions < lengths[:, None]


class PaddingCollator:
    """Pad the rows of a batch to the length of the longest.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Gives the padding token and the side to pad, which `shared.models.load_encoder` and the
        other loading functions set as the model needs it.
    pad_to_multiple_of : int
        The length is rounded up to a multiple of this number, which suits the tile sizes of matrix
        units.

    Notes
    -----
    Features are ``{"input_ids": [...], "labels": class id}``; ``labels`` may be missing
    (prediction). The batch holds ``input_ids`` and ``attention_mask`` (rows, length) and ``labels``
    (rows,), all int64. The mask is computed from the lengths, so tokenised data need not store it.
    If the features have ``token_type_ids``, which tell the two texts of a pair apart, these are
    padded with 0.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, pad_to_multiple_of: int = PADDING_MULTIPLE
    ):
        self._tokenizer = tokenizer  # the Trainer would save a public one
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows."""
        import torch

        lengths = np.array([len(feature["input_ids"]) for feature in features])
        # Ceiling division, with integers only.
        width = -(-lengths.max() // self.pad_to_multiple_of) * self.pad_to_multiple_of
        mask = token_mask(lengths, width, self._tokenizer.padding_side)
        batch = {"attention_mask": mask.astype(np.int64)}
        for name, padding in (("input_ids", self._tokenizer.pad_token_id), ("token_type_ids", 0)):
            if name in features[0]:
                batch[name] = np.full(mask.shape, padding, dtype=np.int64)
                # NumPy fills the true places of a mask row by row and from left to right. This is
                # the order of the tokens in the concatenated rows.
                batch[name][mask] = np.concatenate([feature[name] for feature in features])
        if "labels" in features[0]:
            batch["labels"] = self.labels([feature["labels"] for feature in features])
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def labels(self, labels: list[Any]) -> np.ndarray:
        """Return the labels of a batch as an array (rows,)."""
        return np.array(labels, dtype=np.int64)


class MultilabelCollator(PaddingCollator):
    """Pad the rows of a batch and turn their class ids into multi-hot rows.

    Parameters
    ----------
    tokenizer, pad_to_multiple_of
        As in `PaddingCollator`.
    n_labels : int
        Width of the label matrix.

    Notes
    -----
    The ``labels`` of a feature are a list of class ids. The ``labels`` of a batch are an array
    (rows, labels) of float32, because binary cross-entropy fails for integer targets.
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
        """Return the labels of a batch as multi-hot rows (rows, labels)."""
        rows = np.zeros((len(labels), self.n_labels), dtype=np.float32)
        for row, ids in zip(rows, labels, strict=True):
            row[ids] = 1.0
        return rows


class SoftLabelCollator(PaddingCollator):
    """Pad the rows of a batch whose labels are probabilities, and collect the weights of the rows.

    Notes
    -----
    The ``labels`` of a feature are a probability for each label, as `with_soft_labels` makes them;
    its ``weight``, which may be missing, is a factor of its loss. A batch holds ``labels`` (rows,
    labels) and ``weight`` (rows,), both float32.
    """

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows."""
        import torch

        batch = super().__call__(features)
        if "weight" in features[0]:
            batch["weight"] = torch.tensor([feature["weight"] for feature in features])
        return batch

    def labels(self, labels: list[Any]) -> np.ndarray:
        """Return the labels of a batch as an array (rows, labels)."""
        return np.array(labels, dtype=np.float32)


def with_soft_labels(
    tokens: Dataset, labels: np.ndarray, weight: np.ndarray | None = None
) -> Dataset:
    """Return tokenised rows with the labels and the weights that `SoftLabelCollator` reads.

    Parameters
    ----------
    tokens : Dataset
        From `shared.models.tokenize`. Its other columns are left out.
    labels : array of shape (rows, labels)
        Multi-hot, or probabilities.
    weight : array of shape (rows,), optional
        None: the rows have no weights.
    """
    rows = tokens.select_columns(["input_ids", "length"])
    rows = rows.add_column("labels", list(np.asarray(labels, dtype=np.float32)))
    if weight is None:
        return rows
    return rows.add_column("weight", np.asarray(weight, dtype=np.float32))


class NextTokenCollator:
    """Make inputs and targets of blocks of tokens, for a language model.

    Parameters
    ----------
    pad_token_id : int
        Read after the end of a block that is shorter than the longest of the batch. Padding is on
        the right, where no token attends to it; so no attention mask is needed.

    Notes
    -----
    Features are ``{"input_ids": [n + 1 tokens]}``, from `shared.training.token_blocks`. The batch
    holds ``input_ids``, the first n tokens of each row, and ``labels``, the token after each of
    them, or `IGNORE_INDEX` for padding and after the first ``n_earlier`` tokens (default 0); both
    int64 of shape (rows, length).
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch."""
        import torch

        lengths = np.array([len(feature["input_ids"]) for feature in features])
        tokens = np.full((len(features), lengths.max()), IGNORE_INDEX, np.int64)
        tokens[token_mask(lengths, lengths.max(), "right")] = np.concatenate(
            [feature["input_ids"] for feature in features]
        )
        inputs, labels = torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:])
        n_earlier = torch.tensor([feature.get("n_earlier", 0) for feature in features])
        is_earlier = torch.arange(labels.shape[1]) < n_earlier[:, None]
        return {
            "input_ids": inputs.masked_fill(labels == IGNORE_INDEX, self.pad_token_id),
            "labels": labels.masked_fill(is_earlier, IGNORE_INDEX),
        }


class TableCollator:
    """Make batches of table rows: ``numbers``, ``codes`` and ``labels``, a row of each per row.

    Numbers and labels (a 1 for the class of the row) are floats; codes of categories are integers.
    """

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch."""
        import torch

        types = {"numbers": torch.float32, "codes": torch.int64, "labels": torch.float32}
        return {
            name: torch.tensor([feature[name] for feature in features], dtype=dtype)
            for name, dtype in types.items()
            if name in features[0]
        }


class MaskingCollator(PaddingCollator):
    """Pad the rows of a batch and mask some of their tokens, for masked-language modelling.

    Of the chosen tokens, 80 % become the mask token, 10 % a random token, and 10 % stay as they are
    (Devlin et al. 2019, "BERT", section 3.1). Which tokens of a text are chosen depends on (seed,
    epoch, sample) only, not on the batch. So a resumed run masks the same tokens as an
    uninterrupted one.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Must have a mask token.
    share : float
        Share of the tokens of a text to choose; special tokens are never chosen.
    seed : int
    epoch : callable
        Returns the number of the current epoch.

    Notes
    -----
    Features are ``{"input_ids": [...], "sample": number of the text}``. A feature with its own
    ``"epoch"`` has the same tokens masked each time, as an evaluation needs it. A text of special
    tokens only has no chosen token, and a batch of such texts has no loss: leave them out.
    ``labels`` of the batch, int64 (rows, length), hold the original ids of the chosen tokens and
    `IGNORE_INDEX` elsewhere. ``targets`` are the same array for the model, because the Trainer
    keeps ``labels`` for the loss and does not pass them to the model.
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
        """Return the batch of some rows, with other tokens masked in each epoch."""
        epoch = self.epoch()
        masked = [self._mask_tokens(feature, epoch) for feature in features]
        batch = super().__call__([{"input_ids": ids} for ids, _ in masked])
        labels = batch["input_ids"].new_full(batch["input_ids"].shape, IGNORE_INDEX)
        # Fills row by row, like the ids in `PaddingCollator`; the padding keeps IGNORE_INDEX.
        labels[batch["attention_mask"].bool()] = labels.new_tensor(
            np.concatenate([targets for _, targets in masked])
        )
        return batch | {"labels": labels, "targets": labels}

    def _mask_tokens(self, feature: dict[str, Any], epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids that the model reads, and the targets, both (length,)."""
        # A generator per text: the result is the same in every batch and on every process, and the
        # global generators are not touched.
        rng = np.random.default_rng((self.seed, feature.get("epoch", epoch), feature["sample"]))
        ids = np.array(feature["input_ids"])
        ordinary = ~np.isin(ids, self.special)
        draws = np.where(ordinary, rng.random(len(ids)), np.inf)
        # The token with the lowest draw is always chosen. Otherwise a batch of short texts could
        # have no chosen token, and so no loss.
        chosen = ordinary & (draws <= max(self.share, draws.min()))
        targets = np.where(chosen, ids, IGNORE_INDEX)
        # A second draw decides: below 0.8 the mask token, from 0.9 a random token, else unchanged.
        draws = rng.random(len(ids))
        ids[chosen & (draws < 0.8)] = self.mask_id
        randomised = chosen & (draws >= 0.9)
        ids[randomised] = rng.choice(self.ordinary, randomised.sum())
        return ids, targets


class AugmentingCollator:
    """Augment and tokenise the copies among the rows of a batch, then collate all rows.

    Parameters
    ----------
    collator : callable
        Makes a batch of tokenised rows.
    tokenizer : PreTrainedTokenizerBase
        Truncates texts to its `model_max_length`.
    augment : callable
        ``augment(texts, samples)`` returns one text for each given text. It must take account of
        the epoch itself.

    Notes
    -----
    A row whose ``sample`` is 0 or more is a copy: its ``text`` is augmented and tokenised, and the
    new ids replace its ``input_ids``. A row with a negative ``sample``, or with none (evaluation),
    is collated unchanged.
    """

    def __init__(
        self,
        collator: Callable,
        tokenizer: PreTrainedTokenizerBase,
        augment: Callable[[Sequence[str], Sequence[int]], list[str]],
    ):
        self.collator, self.tokenizer, self.augment = collator, tokenizer, augment

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows."""
        features = list(features)
        copies = [i for i, feature in enumerate(features) if feature.get("sample", -1) >= 0]
        if copies:
            texts = [features[i]["text"] for i in copies]
            texts = self.augment(texts, [features[i]["sample"] for i in copies])
            ids = self.tokenizer(with_prefix(self.tokenizer, texts), truncation=True)["input_ids"]
            for i, row in zip(copies, ids, strict=True):
                # A new dict: the features of the caller stay as they are.
                features[i] = {**features[i], "input_ids": row}
        return self.collator(features)
