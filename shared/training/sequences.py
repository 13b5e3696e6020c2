"""Training of models that read a text and write another one: rows, batches, and the Trainer.

`shared.training.losses.SequenceLoss` is the loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Seq2SeqTrainer
from transformers.trainer_utils import EvalLoopOutput

from shared.training.collators import IGNORE_INDEX, PaddingCollator, token_mask
from shared.training.losses import token_losses
from shared.training.trainer import LengthGroupedTrainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


_NOTHING = contextlib.nullcontext()


def tokenize_pairs(
    sources: Sequence[str],
    targets: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_source_length: int,
    max_target_length: int,
    start_token_id: int | None = None,
) -> Dataset:
    """Return pairs as rows of tokens, truncated; what looks like a special token is plain text.

    Parameters
    ----------
    start_token_id : int, optional
        What the decoder starts with. If the tokenizer also begins a target with it, as that of BERT
        does, the target loses it, because the decoder is not to write it.

    Returns
    -------
    datasets.Dataset
        With ``input_ids``, those of the source, ``labels``, those of the target, both with the end
        token that the tokenizer adds, and ``length``, the number of both together.
    """
    from datasets import Dataset

    common: dict[str, Any] = {"truncation": True, "split_special_tokens": True}
    of_sources = tokenizer(list(sources), max_length=max_source_length, **common)["input_ids"]
    of_targets = tokenizer(text_target=list(targets), max_length=max_target_length, **common)
    labels = [ids[ids[:1] == [start_token_id] :] for ids in of_targets["input_ids"]]
    lengths = [len(a) + len(b) for a, b in zip(of_sources, labels, strict=True)]
    return Dataset.from_dict({"input_ids": of_sources, "labels": labels, "length": lengths})


class SequenceCollator(PaddingCollator):
    """Pad sources and targets, and make what the decoder reads from the targets.

    Parameters
    ----------
    tokenizer, pad_to_multiple_of
        As in `PaddingCollator`.
    shift_right : callable
        Maps labels (rows, length) to what the decoder reads, the labels before each:
        ``model.prepare_decoder_input_ids_from_labels``.

    Notes
    -----
    Features are ``{"input_ids": [...], "labels": [...]}``, from `tokenize_pairs`; ``labels`` may be
    missing (generation). The batch holds
    ``input_ids`` and ``attention_mask`` (rows, source length), ``labels``, padded on the right with
    `IGNORE_INDEX`, and ``decoder_input_ids``, both (rows, target length); all int64.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        shift_right: Callable[[torch.Tensor], torch.Tensor],
        **settings: Any,
    ):
        super().__init__(tokenizer, **settings)
        self.shift_right = shift_right

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows."""
        batch = super().__call__(features)
        if "labels" in batch:
            batch["decoder_input_ids"] = self.shift_right(batch["labels"])
        return batch

    def labels(self, labels: list[list[int]]) -> np.ndarray:
        """Return the labels of a batch as an array (rows, length)."""
        lengths = np.array([len(row) for row in labels])
        padded = np.full((len(labels), lengths.max()), IGNORE_INDEX, np.int64)
        padded[token_mask(lengths, lengths.max(), "right")] = np.concatenate(labels)
        return padded


def losses_of_tokens(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the `token_losses` of an encoder-decoder, whose outputs are a tuple."""
    return token_losses(logits[0] if isinstance(logits, tuple) else logits, labels)


class SequenceTrainer(LengthGroupedTrainer, Seq2SeqTrainer):
    """`LengthGroupedTrainer` that can also generate.

    With ``--predict_with_generate``, an evaluation generates texts and gives their tokens to the
    metric function; else it computes the loss of each token of the right text.

    Parameters
    ----------
    optimizer_cls_and_kwargs : tuple, optional
        As for `transformers.Trainer`; `transformers.Seq2SeqTrainer` does not take it.
    **kwargs
        As for `LengthGroupedTrainer`.
    """

    def __init__(self, *args: Any, optimizer_cls_and_kwargs: Any = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs

    @contextlib.contextmanager
    def fast_attention(self) -> Iterator[None]:
        """Train in bfloat16 on a CPU without the fused kernel also where a model calls it itself.

        A step of a transformer from its parts (16 tokens a side) takes two thirds of the time.
        """
        plain = self.args.bf16 and self.args.device.type == "cpu"
        with super().fast_attention(), sdpa_kernel(SDPBackend.MATH) if plain else _NOTHING:
            yield

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate or predict; tokens that were generated are returned as they are."""
        if not self.args.predict_with_generate:
            return super().evaluation_loop(*args, **kwargs)
        # Generated tokens have no loss; the model itself computes that of the right text.
        own: Any = self
        functions = own.compute_loss_func, own.preprocess_logits_for_metrics
        own.compute_loss_func = own.preprocess_logits_for_metrics = None
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            own.compute_loss_func, own.preprocess_logits_for_metrics = functions

    def generate(self, rows: Dataset, **settings: Any) -> np.ndarray:
        """Return the tokens that the model writes for each row: (rows, length), -100 for padding.

        Parameters
        ----------
        rows : Dataset
            From `tokenize_pairs`; their labels are not read.
        **settings
            As for ``model.generate``.
        """
        before, self.args.predict_with_generate = self.args.predict_with_generate, True
        try:
            return self.predict(rows.remove_columns("labels"), **settings).predictions
        finally:
            self.args.predict_with_generate = before


def decode_texts(tokenizer: PreTrainedTokenizerBase, tokens: np.ndarray) -> list[str]:
    """Return the texts of rows of tokens (rows, length), in which -100 is padding."""
    ids = np.where(tokens == IGNORE_INDEX, tokenizer.pad_token_id, tokens)
    texts: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in texts]
