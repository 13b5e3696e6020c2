"""Cloze training: a masked language model learns to fill in the word that stands for a label.

Schick and Schütze 2021, "Exploiting Cloze Questions for Few Shot Text Classification and Natural
Language Inference" (PET), and Tam et al. 2021, "Improving and Simplifying Pattern Exploiting
Training" (ADAPET). In the order of a step: `ClozeCollator` makes batches of rows with a mask,
`LabelWords` scores the labels there, and `ClozeTrainer` adds the loss of masked tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch.nn.functional import softplus

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.training.collators import (
    IGNORE_INDEX,
    MaskingCollator,
    SoftLabelCollator,
    with_soft_labels,
)
from shared.training.losses import MultilabelLoss, SingleLabelLoss, masked_token_loss
from shared.training.trainer import LengthGroupedTrainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_MASKED_WEIGHTS = {"pet": 1e-4, "adapet": 1.0}  # those of the papers
MASKED_SHARE = 0.15  # of the tokens of a text (Devlin et al. 2019)

# --- scores and losses ---------------------------------------------------------------------------


class LabelWords:
    """From the scores of all words at a mask to those of the labels.

    The score of a label is the mean score of its words, less the log of the sum of the exponentials
    of the scores of all words that stand for no label. So a softmax over the labels is that of PET,
    and a sigmoid is the probability of the label's word where no other label is in question.

    Parameters
    ----------
    word_ids : sequence of sequences of int
        The token ids of the words of each label.
    """

    def __init__(self, word_ids: Sequence[Sequence[int]]):
        self.word_ids = [list(ids) for ids in word_ids]

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of the labels, (rows, labels), from those of words, (rows, words)."""
        labels = torch.stack([scores[:, ids].mean(dim=1) for ids in self.word_ids], dim=1)
        all_ids = [i for ids in self.word_ids for i in ids]
        others = scores.index_fill(1, torch.tensor(all_ids, device=scores.device), -torch.inf)
        return labels - others.logsumexp(dim=1, keepdim=True)


class DecoupledLabelLoss(MultilabelLoss):
    """The decoupled label loss of ADAPET (section 3.1), for labels that exclude each other.

    A label competes with all words of the vocabulary: its probability q has them in its
    denominator. The loss is -log q of the right label and -log(1 - q) of each wrong one, as a mean
    over (row, label) pairs. Labels of a text that do not exclude each other compete with the words
    of no label only; `MultilabelLoss` of the scores is then the same loss.
    """

    def __call__(
        self, outputs: Mapping[str, torch.Tensor], labels: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return the scalar loss of the scores of `LabelWords`, (rows, labels)."""
        scores = outputs["logits"].float()
        return super().__call__({"logits": against_all_words(scores)}, labels, *args, **kwargs)


@dataclass
class ClozeArguments:
    """The flags that `cloze_objective` reads."""

    loss: Literal["auto", "pet", "adapet"] = flag(
        "auto",
        "pet: cross-entropy over the labels' words; adapet: against all words, for one or several "
        "labels per text; auto: pet where each text has one label (default: auto).",
    )
    masked_weight: float | None = flag(
        None,
        "Weight of the loss of masked tokens; 0: none (default: .0001 with pet, 1 with adapet).",
        least=0,
    )


class ClozeObjective(NamedTuple):
    """What a masked language model learns from texts in a pattern.

    Attributes
    ----------
    loss : {"pet", "adapet"}
    masked_weight : float
        Weight of the loss of masked tokens.
    label_loss : type
        Class of the loss of the labels.
    """

    loss: str
    masked_weight: float
    label_loss: type[SingleLabelLoss | MultilabelLoss]


def cloze_objective(args: ClozeArguments, *, single_label: bool) -> ClozeObjective:
    """Return the objective that flags name.

    Parameters
    ----------
    args : ClozeArguments
    single_label : bool
        Whether each text has exactly one label.

    Raises
    ------
    UserError
        For the loss of PET where texts have another number of labels.
    """
    loss: str = args.loss
    if loss == "auto":
        loss = "pet" if single_label else "adapet"
    if loss == "pet" and not single_label:
        raise UserError(
            "--loss pet: takes one label per text, and the data has texts with another number; use "
            "--loss adapet"
        )
    label_loss: type[SingleLabelLoss | MultilabelLoss] = SingleLabelLoss
    if loss == "adapet":
        label_loss = DecoupledLabelLoss if single_label else MultilabelLoss
    weight = _MASKED_WEIGHTS[loss] if args.masked_weight is None else args.masked_weight
    return ClozeObjective(loss, weight, label_loss)


def cloze_rows(tokens: Dataset, labels: np.ndarray) -> Dataset:
    """Return the training rows that `ClozeCollator` reads.

    Parameters
    ----------
    tokens : Dataset
        Of texts in a pattern, with ``place``, the position of the mask.
    labels : array of shape (rows, labels)
    """
    rows = with_soft_labels(tokens, labels).add_column("place", tokens["place"][:])
    return rows.add_column("sample", np.arange(len(rows)))


def against_all_words(scores: torch.Tensor) -> torch.Tensor:
    """Return the logit of q, the probability of each label among all words: (rows, labels).

    Parameters
    ----------
    scores : tensor of shape (rows, labels)
        Of `LabelWords`, where the words of no label together have the score 0.
    """
    n_labels = scores.shape[1]
    # (rows, labels, labels): for each label the scores of all, its own left out.
    others = scores[:, None].expand(-1, n_labels, -1)
    own = torch.eye(n_labels, dtype=torch.bool, device=scores.device)
    return scores - softplus(others.masked_fill(own, -torch.inf).logsumexp(dim=2))


def conditioned_token_loss(
    log_p: torch.Tensor,
    targets: torch.Tensor,
    is_right: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Return the loss of tokens that are predicted beside a filled-in label (ADAPET, section 3.2).

    The tokens of a text become more probable beside a right label, and less beside a wrong one.

    Parameters
    ----------
    log_p : tensor of shape (rows, length)
        The log-probability of each masked token, as `score_masked_tokens_only` makes them.
    targets : int64 tensor of shape (rows, length)
        `IGNORE_INDEX` where no token is masked.
    is_right : bool tensor of shape (rows,)
    num_items_in_batch : scalar, optional
        Number of masked tokens in the effective batch. None: the number in `targets`.
    """
    masked = targets != IGNORE_INDEX
    log_p = log_p[masked]
    # 1 - p rounds to 0 for a p near 1, and its logarithm would be infinite.
    log_not_p = torch.log((-torch.expm1(log_p)).clamp(min=1e-6))
    right = is_right[:, None].expand(masked.shape)[masked]
    loss = -torch.where(right, log_p, log_not_p).sum()
    return loss / (masked.sum() if num_items_in_batch is None else num_items_in_batch)


# --- batches -------------------------------------------------------------------------------------


class ClozeCollator(SoftLabelCollator):
    """Pad rows with a mask; add rows with masked tokens for training.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    seed : int
    epoch : callable
        Returns the number of the current epoch.
    texts : Dataset, optional
        Rows with ``input_ids``: each training row brings one of them along, whose tokens are
        masked.
    label_words : LabelWords, optional
        Each training row comes a second time, with the word of a label filled in and with masked
        tokens: a right label in half of the rows, else a wrong one.

    Notes
    -----
    Features are those of `SoftLabelCollator` with ``place``, the position of the mask in
    ``input_ids``. A batch also has ``place``, int64 (rows,). A feature with a number, ``sample``,
    is for training: what is drawn for it depends on (seed, epoch, sample) only. The rows with
    masked tokens are in ``masked``, a batch of its own (`MaskingCollator`); those with a label have
    ``is_right`` there, bool (rows,).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        texts: Dataset | None = None,
        label_words: LabelWords | None = None,
    ):
        super().__init__(tokenizer)
        self.seed, self.epoch, self.texts, self.label_words = seed, epoch, texts, label_words
        self._mask_tokens = MaskingCollator(tokenizer, MASKED_SHARE, seed=seed, epoch=epoch)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch of some rows."""
        batch: dict[str, Any] = super().__call__(features)
        batch["place"] = self._places(features, batch)
        if "sample" in features[0] and (self.texts is not None or self.label_words is not None):
            generators = [
                # Other draws than those of the masking collator.
                np.random.default_rng((self.seed, self.epoch(), feature["sample"], 1))
                for feature in features
            ]
            if self.texts is not None:
                batch["masked"] = self._unlabelled(generators)
            else:
                batch["masked"] = self._conditioned(features, batch, generators)
        return batch

    def _places(self, features: list[dict[str, Any]], batch: dict[str, Any]) -> torch.Tensor:
        """Return the positions of the masks in the padded rows."""
        places = torch.tensor([feature["place"] for feature in features])
        if self._tokenizer.padding_side == "left":
            places += batch["input_ids"].shape[1] - batch["attention_mask"].sum(dim=1)
        return places

    def _unlabelled(self, generators: list[np.random.Generator]) -> dict[str, torch.Tensor]:
        """Return a batch of unlabelled texts with masked tokens, one for each row."""
        assert self.texts is not None
        chosen = [int(rng.integers(len(self.texts))) for rng in generators]
        rows = [{"input_ids": self.texts[i]["input_ids"], "sample": i} for i in chosen]
        masked = self._mask_tokens(rows)
        return {name: masked[name] for name in ("input_ids", "attention_mask", "targets")}

    def _conditioned(
        self,
        features: list[dict[str, Any]],
        batch: dict[str, Any],
        generators: list[np.random.Generator],
    ) -> dict[str, torch.Tensor]:
        """Return the rows with masked tokens, and with a label in place of the mask."""
        assert self.label_words is not None
        masked = self._mask_tokens(features)
        words, is_right = [], []
        for feature, rng in zip(features, generators, strict=True):
            applies = np.asarray(feature["labels"]) > 0.5
            right = bool(rng.random() < 0.5)
            # Where all labels apply to a text, or none, there is only one kind to choose from.
            right = right if applies.any() and not applies.all() else bool(applies.all())
            label = int(rng.choice(np.flatnonzero(applies == right)))
            words.append(int(rng.choice(self.label_words.word_ids[label])))
            is_right.append(right)
        # The mask is a special token, so that the masking collator has not chosen it.
        masked["input_ids"][range(len(words)), batch["place"]] = torch.tensor(words)
        kept = {name: masked[name] for name in ("input_ids", "attention_mask", "targets")}
        return kept | {"is_right": torch.tensor(is_right)}


# --- the Trainer ---------------------------------------------------------------------------------


class ClozeTrainer(LengthGroupedTrainer):
    """`LengthGroupedTrainer` for the batches of `ClozeCollator`.

    The model is one of `score_masked_tokens_only` with `LabelWords`.

    Parameters
    ----------
    masked_weight : float
        Weight of the loss of masked tokens, beside that of the labels.
    """

    def __init__(self, *args: Any, masked_weight: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.masked_weight = masked_weight

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns
        columns += [name for name in ("place", "sample") if name not in columns]

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor:
        """Return the (row, label) pairs and the masked tokens of a step: int64, shape (2,)."""
        counts = torch.zeros(1, 2, dtype=torch.int64, device=device)
        for batch in batch_samples:
            counts[0, 0] += batch["labels"].numel()
            if "masked" in batch:
                counts[0, 1] += (batch["masked"]["targets"] != IGNORE_INDEX).sum().to(device)
        return self.accelerator.gather(counts).sum(0)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Return the loss of the labels, in training with that of the masked tokens."""
        n_pairs, n_masked = (None, None) if num_items_in_batch is None else num_items_in_batch
        inputs = dict(inputs)
        masked = inputs.pop("masked", None)
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch=n_pairs)
        if masked is None:
            return result
        masked = dict(masked)
        is_right = masked.pop("is_right", None)
        outputs = model(**masked)
        if is_right is None:
            loss = masked_token_loss(outputs, masked["targets"], n_masked)
        else:
            loss = conditioned_token_loss(outputs["logits"], masked["targets"], is_right, n_masked)
        # Gradients are averaged over processes; the Trainer scales the loss of the labels as well.
        return result + self.masked_weight * self.accelerator.num_processes * loss
