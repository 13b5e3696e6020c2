"""Consistency training: predictions of unlabelled texts must survive changes to their words.

Xie et al. 2020, "Unsupervised Data Augmentation for Consistency Training" (UDA). A step has two
losses: the supervised one of labelled rows, and one that pulls the prediction on a changed text
towards that on the text itself. In the order of a step: `ConsistencyBatches` choose the rows,
`ConsistencyCollator` makes tensors of them, `ConsistencyTrainer` computes both losses with
`AnnealedLoss` and `ConsistencyLoss`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch.utils.data import ConcatDataset, DataLoader, Sampler

from shared.cli.arguments import flag
from shared.cli.files import write_json
from shared.training.batches import LengthGroupedBatches
from shared.training.checkpoints import rows_digest
from shared.training.consistency_losses import ConsistencyLoss, LabelAlignment, Schedule
from shared.training.trainer import LengthGroupedTrainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.trainer_utils import TrainOutput

_ALIGNMENT_FILE, _TEACHER_FILE = "alignment.json", "teacher.safetensors"  # in each checkpoint

# --- flags ---------------------------------------------------------------------------------------


@dataclass
class ConsistencyArguments:
    """Flags of the training on both kinds of texts."""

    unlabelled_ratio: int = flag(
        3, "Unlabelled texts per labelled text in a training step (default: 3).", least=1
    )
    temperature: float = flag(
        0.4,
        "Divides the logits of a prediction that is a target; below 1 sharpens it (default: .4).",
        above=0,
        most=1,
    )
    confidence: float = flag(
        0.95,
        "Probability that a prediction must exceed to be a target (default: .95).",
        least=0,
        below=1,
    )
    consistency_weight: float = flag(
        1.0, "Weight of the loss of unlabelled texts (default: 1).", least=0
    )
    alignment: bool = flag(
        True,
        "Keep the labels of the targets as frequent as among the labelled texts or, if a text can "
        "have several, as in the predictions of the first training. If each text has one label, "
        "the final predictions on unlabelled texts keep these shares as well; false, if the "
        "labelled texts were not drawn at random (default: true).",
    )
    teacher_decay: float = flag(
        0.99,
        "The targets come from a moving mean of the weights, which keeps this share at each step; "
        "0: from the weights themselves (default: .99).",
        least=0,
        below=1,
    )
    annealing: Schedule = flag(
        "none",
        "Schedule of the probability up to which labelled texts are trained on: those that the "
        "model has learned are left out, until late in the training (default: none).",
    )


# --- batches -------------------------------------------------------------------------------------


class ConsistencyBatches(Sampler):
    """Batches of labelled rows and of unlabelled rows of similar length.

    An epoch contains every unlabelled row once, and as many labelled rows as fit: they are shuffled
    and repeated. The rows of one data set follow those of the other: those from ``n_labelled`` on
    are unlabelled.

    All depends on (seed, epoch) only, as in `LengthGroupedBatches`.

    Parameters
    ----------
    n_labelled : int
        Number of labelled rows.
    batch_size : int
        Labelled rows per step of the optimiser, over all devices and accumulation steps.
    unlabelled : LengthGroupedBatches
        Of the unlabelled rows; with a multiple of `batch_size`.
    """

    def __init__(self, n_labelled: int, batch_size: int, unlabelled: LengthGroupedBatches):
        self.n_labelled = n_labelled
        self.n_labelled_per_step = batch_size  # `batch_size` would tell accelerate to cut batches
        self.unlabelled = unlabelled

    def __len__(self) -> int:
        return len(self.unlabelled)

    def __iter__(self) -> Iterator[list[int]]:
        pieces = self.unlabelled.pieces
        rng = np.random.default_rng((self.unlabelled.seed, self.unlabelled.epoch(), 1))
        n_rows = self.unlabelled.n_batches * self.n_labelled_per_step
        rounds = -(-n_rows // self.n_labelled)
        order = np.concatenate([rng.permutation(self.n_labelled) for _ in range(rounds)])[:n_rows]
        labelled = [
            piece
            for batch in order.reshape(-1, self.n_labelled_per_step)
            for piece in np.array_split(batch, pieces)
        ]
        for rows, unlabelled in zip(labelled, self.unlabelled, strict=True):
            yield [*rows.tolist(), *(self.n_labelled + row for row in unlabelled)]


class ConsistencyCollator:
    """Make a batch of labelled rows, unlabelled rows and their changed copies.

    Parameters
    ----------
    collator : callable
        Makes a batch of tokenised rows.
    epoch : callable
        Returns the number of the current epoch.

    Notes
    -----
    A row with ``copies``, the token ids of one or more changed copies, is unlabelled: each epoch
    takes the next copy. The batch is that of `collator` for the labelled rows, with two more such
    batches: ``texts``, the unlabelled rows, and ``changed``, one copy of each. Without unlabelled
    rows (evaluation) it is that of `collator` alone. Three batches are padded apart, so that short
    texts are not padded to the length of long ones.
    """

    def __init__(self, collator: Callable, epoch: Callable[[], int]):
        self.collator, self.epoch = collator, epoch

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch of some rows."""
        unlabelled = [feature for feature in features if "copies" in feature]
        batch = self.collator([feature for feature in features if "copies" not in feature])
        if unlabelled:
            epoch = self.epoch()
            changed = [row["copies"][epoch % len(row["copies"])] for row in unlabelled]
            for name, rows in (
                ("texts", [row["input_ids"] for row in unlabelled]),
                ("changed", changed),
            ):
                batch[name] = self.collator([{"input_ids": ids} for ids in rows])
        return batch


# --- the Trainer ---------------------------------------------------------------------------------


class ConsistencyTrainer(LengthGroupedTrainer):
    """`LengthGroupedTrainer` that also trains on unlabelled texts.

    Parameters
    ----------
    unlabelled : Dataset
        With the columns ``input_ids``, ``length`` and ``copies``: the token ids of one or more
        changed copies of each text.
    ratio : int
        Unlabelled texts per labelled one: a device reads ``per_device_train_batch_size`` labelled
        texts and so many times as many unlabelled ones in a step.
    consistency_loss : ConsistencyLoss
    consistency_weight : float
        Weight of this loss beside the supervised one.
    alignment : LabelAlignment, optional
        Shifts the targets. Its state is saved with each checkpoint.
    teacher_decay : float
        The targets are those of a teacher, a copy of the model whose weights are a moving mean of
        the model's: after each step, it keeps this share of its own (Tarvainen and Valpola 2017,
        "Mean teachers are better role models"). 0: the model itself makes the targets; with few
        labels it then follows its own mistakes.

    Attributes
    ----------
    teacher : torch.nn.Module, optional
        Made in the first step. Its weights are saved with each checkpoint.

    Notes
    -----
    The prediction on a text itself is computed without dropout and without gradient, with the
    weights of the moment and in the precision of the training.
    """

    def __init__(
        self,
        *args: Any,
        unlabelled: Dataset,
        ratio: int,
        consistency_loss: ConsistencyLoss,
        consistency_weight: float = 1.0,
        alignment: LabelAlignment | None = None,
        teacher_decay: float = 0.0,
        **kwargs: Any,
    ):
        collator = ConsistencyCollator(
            kwargs.pop("data_collator"), lambda: int(self.state.epoch or 0)
        )
        super().__init__(*args, data_collator=collator, **kwargs)
        self.unlabelled = unlabelled
        self.ratio = ratio
        self.consistency_loss = consistency_loss
        self.consistency_weight = consistency_weight
        self.alignment = alignment
        self.teacher_decay = teacher_decay
        self.teacher: torch.nn.Module | None = None
        self._teacher_file: Path | None = None  # of the checkpoint that the training goes on from
        self._teacher_step = 0  # the step whose weights the teacher has counted
        self._n_texts = self._n_confident = 0  # of this process, since the last log entry

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the share of the unlabelled texts that had a confident target as ``confident``."""
        if "loss" in logs and self._n_texts:
            logs["confident"] = self._n_confident / self._n_texts
            self._n_texts = self._n_confident = 0
        super().log(logs, *args, **kwargs)

    @property
    def progress(self) -> float:
        """Share of the training that is done, from 0 to 1."""
        return self.state.global_step / max(self.state.max_steps, 1)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train, as `LengthGroupedTrainer` does."""
        path = Path(str(resume_from_checkpoint), _ALIGNMENT_FILE)
        if self.alignment is not None and path.is_file():
            state = json.loads(path.read_text("utf-8"))
            self.alignment.shift, self.alignment.mean = map(
                np.array, (state["shift"], state["mean"])
            )
        path = Path(str(resume_from_checkpoint), _TEACHER_FILE)
        self.teacher, self._teacher_file = None, path if path.is_file() else None
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.alignment is not None and self.args.should_save:
            values = {"shift": self.alignment.shift, "mean": self.alignment.mean}
            state = {name: value.tolist() for name, value in values.items()}
            write_json(Path(output_dir, _ALIGNMENT_FILE), state)
        if self.teacher is not None and self.args.should_save:
            save_model(self.teacher, str(Path(output_dir, _TEACHER_FILE)))

    def get_train_dataloader(self) -> DataLoader:
        """Return batches of labelled and unlabelled rows, the same for any number of processes."""
        args = self.args
        pieces = args.gradient_accumulation_steps * args.world_size
        batch_size = self._train_batch_size * pieces
        unlabelled = LengthGroupedBatches(
            self._lengths(self.unlabelled),
            batch_size * self.ratio,
            args.seed if args.data_seed is None else args.data_seed,
            lambda: int(self.state.epoch or 0),
            pieces,
        )
        labelled = self.train_dataset.select_columns(["input_ids", "labels"])
        columns = self.unlabelled.select_columns(["input_ids", "copies"])
        batches = ConsistencyBatches(len(labelled), batch_size, unlabelled)
        return self._train_loader(ConcatDataset([labelled, columns]), batches)

    @cached_property
    def _rows_digest(self) -> str:
        digests = [rows_digest(rows) for rows in (self.train_dataset, self.unlabelled)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor:
        """Return the (row, label) pairs and the unlabelled texts of a step: int64, shape (2,)."""
        counts = torch.tensor(
            [
                [
                    batch["labels"].numel(),
                    len(batch["texts"]["input_ids"]) if "texts" in batch else 0,
                ]
                for batch in batch_samples
            ],
            device=device,
        ).sum(0, keepdim=True)
        return self.accelerator.gather(counts).sum(0)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Return the supervised loss, in training with that of the unlabelled texts."""
        if "texts" not in inputs:  # evaluation
            return super().compute_loss(model, inputs, return_outputs)
        assert num_items_in_batch is not None  # `_get_num_items_in_batch` counts every step
        n_pairs, n_texts = num_items_in_batch
        texts, changed = inputs.pop("texts"), inputs.pop("changed")
        supervised = super().compute_loss(model, inputs, num_items_in_batch=n_pairs)
        # The model without its wrapper for several processes, which would wait for gradients.
        target_model = self._update_teacher(self.accelerator.unwrap_model(model))
        target_model.eval()
        with torch.no_grad():
            targets = target_model(**texts)["logits"]
        model.train()
        if self.alignment is not None:
            probabilities = self.alignment.probabilities(targets)
            totals = torch.cat([probabilities, torch.ones_like(probabilities[:, :1])], dim=1).sum(0)
            *total, n_rows = self.accelerator.gather(totals[None]).sum(0).tolist()
            targets = self.alignment(targets)
            self.alignment.update(np.array(total), round(n_rows), int(n_texts))
        # Texts without a target need no prediction. One text stays, whose loss is 0, since each
        # process must call the model.
        counts = self.consistency_loss.is_confident(targets).reshape(len(targets), -1).any(1)
        rows = counts.nonzero()[:, 0]
        self._n_texts += len(counts)
        self._n_confident += len(rows)
        rows = rows if len(rows) else rows.new_zeros(1)
        changed = {name: values[rows] for name, values in changed.items()}
        loss = self.consistency_loss(model(**changed)["logits"], targets[rows], n_texts)
        # Gradients are averaged over processes; the Trainer scales the supervised loss as well.
        return supervised + self.consistency_weight * self.accelerator.num_processes * loss

    def _update_teacher(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return what makes the targets: the teacher, after it has counted the last step.

        The first batch of a step counts the step before, so a checkpoint has it still to count.
        """
        if not self.teacher_decay:
            return model
        step = self.state.global_step
        if self.teacher is None:
            # Only now the model computes in the precision of the training, and so does its copy.
            self.teacher = copy.deepcopy(model).requires_grad_(False)
            self._teacher_step = step
            if self._teacher_file is not None:
                load_model(self.teacher, str(self._teacher_file))
                self._teacher_step -= 1
        if step != self._teacher_step:
            self._teacher_step = step
            pairs = zip(self.teacher.parameters(), model.parameters(), strict=True)
            with torch.no_grad():
                for mean, weight in pairs:
                    mean.lerp_(weight, 1 - self.teacher_decay)
        return self.teacher
