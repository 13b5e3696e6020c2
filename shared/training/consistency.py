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
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch.utils.data import ConcatDataset, DataLoader, Sampler

from shared.cli.files import write_json
from shared.training.batches import LengthGroupedBatches
from shared.training.checkpoints import rows_digest
from shared.training.losses import MultilabelLoss, SingleLabelLoss
from shared.training.trainer import LengthGroupedTrainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.trainer_utils import TrainOutput

Schedule = Literal["none", "linear", "log", "exp"]
_ALIGNMENT_FILE, _TEACHER_FILE = "alignment.json", "teacher.safetensors"  # in each checkpoint

# --- the loss of labelled rows -------------------------------------------------------------------


def annealing_threshold(schedule: Schedule, progress: float, n_classes: int) -> float:
    """Return the probability from which on a labelled row counts as learned.

    It rises from that of a guess to 1 (section 2.3 of the paper; "training signal annealing").

    Parameters
    ----------
    schedule : {"none", "linear", "log", "exp"}
        "log" releases the labels early, for a model that hardly overfits, "exp" at the end, for one
        that learns few labels by heart at once. "none": the threshold is always 1.
    progress : float
        Share of the training that is done, from 0 to 1.
    n_classes : int
        2 for labels that do not exclude each other.
    """
    rise = {
        "none": 1.0,
        "linear": progress,
        "log": 1 - math.exp(-5 * progress),
        "exp": math.exp(5 * (progress - 1)),
    }[schedule]
    return rise * (1 - 1 / n_classes) + 1 / n_classes


class AnnealedLoss:
    """A loss of labelled rows without the gradient of those that are learned already.

    Parameters
    ----------
    loss : SingleLabelLoss or MultilabelLoss
    schedule : {"none", "linear", "log", "exp"}
        See `annealing_threshold`.
    progress : callable
        Returns the share of the training that is done, from 0 to 1.

    Notes
    -----
    Of labels that do not exclude each other, each (row, label) pair is judged by itself. The value
    of the loss is that of `loss`, so it has the same scale for every split of an effective batch;
    learned rows only have no gradient. In the paper they do not count in the mean either.
    """

    def __init__(
        self,
        loss: SingleLabelLoss | MultilabelLoss,
        schedule: Schedule,
        progress: Callable[[], float],
    ):
        self.loss, self.schedule, self.progress = loss, schedule, progress
        self.label_smoothing = loss.label_smoothing

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs["logits"]`` for labels, both (rows, labels)."""
        logits = outputs["logits"].float()
        if self.schedule != "none":
            if isinstance(self.loss, SingleLabelLoss):
                n_classes = labels.shape[1]
                correct = (logits.softmax(-1) * labels).sum(-1, keepdim=True)  # (rows, 1)
            else:
                n_classes = 2
                p = logits.sigmoid()
                correct = torch.where(labels > 0.5, p, 1 - p)
            learned = correct > annealing_threshold(self.schedule, self.progress(), n_classes)
            logits = torch.where(learned, logits.detach(), logits)
        return self.loss({"logits": logits}, labels, num_items_in_batch)


# --- the loss of unlabelled rows -----------------------------------------------------------------


class ConsistencyLoss:
    """Divergence of the predictions on changed texts from those on the texts themselves.

    KL(target, prediction), where the target is the prediction on the text itself, sharpened, and
    counts only if it is confident (sections 2.2 and 2.3 of the paper). Of labels that do not
    exclude each other, each has its own target, confidence and divergence, as a pair of classes.

    Parameters
    ----------
    single_label : bool
        Whether the labels exclude each other: softmax over them. Otherwise a sigmoid of each.
    temperature : float
        Divides the logits of the target; below 1 the target is more certain than the prediction.
    confidence : float
        A prediction counts if its highest probability is above it, before it is sharpened.
    weight : torch.Tensor of shape (labels,), optional
        Weight of a target whose most probable class is this one (without `single_label`: of a
        target with this label). It balances the classes as the weights of the supervised loss do.
        None: 1 for all.
    """

    def __init__(
        self,
        *,
        single_label: bool,
        temperature: float = 0.4,
        confidence: float = 0.8,
        weight: torch.Tensor | None = None,
    ):
        self.single_label = single_label
        self.temperature = temperature
        self.confidence = confidence
        self.weight = weight

    def is_confident(self, target_logits: torch.Tensor) -> torch.Tensor:
        """Return which targets count: bool (rows,), without `single_label` (rows, labels)."""
        if self.single_label:
            return target_logits.float().softmax(-1).amax(-1) > self.confidence
        p = target_logits.float().sigmoid()
        return torch.maximum(p, 1 - p) > self.confidence

    def __call__(
        self,
        logits: torch.Tensor,
        target_logits: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of logits on changed texts, (rows, labels).

        Parameters
        ----------
        logits, target_logits : torch.Tensor of shape (rows, labels)
            On the changed texts, and on the texts themselves (without gradient).
        num_items_in_batch : scalar, optional
            Number of unlabelled texts in the effective batch, over processes and accumulation
            steps. None: the number of rows.
        """
        logits, target_logits = logits.float(), target_logits.float()
        confident = self.is_confident(target_logits)
        n_rows, n_labels = logits.shape
        if not self.single_label:
            # A label has the odds exp(logit) : 1, that is a softmax of the logit and 0.
            # (rows, labels) becomes (rows, labels, 2).
            logits, target_logits = (
                torch.stack([values, torch.zeros_like(values)], dim=-1)
                for values in (logits, target_logits)
            )
        log_target = (target_logits / self.temperature).log_softmax(-1)
        divergence = (log_target.exp() * (log_target - logits.log_softmax(-1))).sum(-1)
        divergence = torch.where(confident, divergence, 0.0)
        if self.weight is not None:
            best = target_logits.argmax(-1)
            self.weight = self.weight.to(logits.device)
            # (rows,), or (rows, labels) with a weight of 1 where the label does not apply.
            weight = (
                self.weight[best] if self.single_label else torch.where(best == 0, self.weight, 1.0)
            )
            divergence = divergence * weight
        n_items = n_rows if num_items_in_batch is None else num_items_in_batch
        return divergence.sum() / (n_items * (1 if self.single_label else n_labels))


class LabelAlignment:
    """Keep the labels of the targets as frequent as they should be.

    Without it, a label that the model predicts a little too often takes over: its targets train the
    model to predict it more often still. The logits of all targets are shifted, by label, so that
    the mean probability of each label is the wanted share of the texts. This is distribution
    alignment (Berthelot et al. 2020, "ReMixMatch", section 3.1), but iterated: their single factor,
    wanted over predicted share, hardly moves the targets of a model that is sure of itself.

    Parameters
    ----------
    shares : array of shape (labels,)
        Wanted share of the texts that have each label.
    scores : array of shape (texts, labels)
        Probabilities that the model predicts for unlabelled texts at the start.
    single_label : bool
        Whether the labels exclude each other.

    Attributes
    ----------
    shift : float64 array of shape (labels,)
        Added to logits. Solved for `scores`, then moved after each step.
    mean : float64 array of shape (labels,)
        Moving mean, over the steps so far, of the shifted probabilities. Both change only when all
        texts of a step are counted, so the targets do not depend on how it is split.
    """

    MOMENTUM = 0.9  # of the mean: about ten steps count
    RATE = 0.1  # a step makes up this part of what is missing, on the scale of logits
    LARGEST = 5.0  # shift; a label that no text has would otherwise get some all the same

    def __init__(self, shares: np.ndarray, scores: np.ndarray, *, single_label: bool):
        self.shares = np.clip(np.asarray(shares, np.float64), 1e-9, 1 - 1e-9)
        self.single_label = single_label
        self.shift = np.zeros_like(self.shares)
        self._total, self._rows = np.zeros_like(self.shares), 0  # of the step so far
        scores = np.clip(np.asarray(scores, np.float64), 1e-9, 1 - 1e-9)
        logits = torch.from_numpy(np.log(scores) if single_label else np.log(scores / (1 - scores)))
        for _ in range(100):
            self.mean = self.probabilities(logits).mean(0).numpy()
            self._move(1.0)

    def _move(self, rate: float) -> None:
        """Move the shift by a part of what the mean lacks, at most a factor of ten."""
        mean = np.clip(self.mean, self.shares / 10, 1 - (1 - self.shares) / 10)
        lacking = np.log(self.shares / mean)
        if not self.single_label:
            lacking -= np.log((1 - self.shares) / (1 - mean))
        self.shift = np.clip(self.shift + rate * lacking, -self.LARGEST, self.LARGEST)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Return shifted logits, (rows, labels), in at least single precision."""
        precision = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(precision) + torch.as_tensor(self.shift, dtype=precision).to(logits.device)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability of each label, (rows, labels), after the shift."""
        shifted = self(logits)
        return shifted.softmax(-1) if self.single_label else shifted.sigmoid()

    def update(self, total: np.ndarray, n_rows: int, n_texts: int) -> None:
        """Count a micro-batch; the last one of a step moves the mean and the shift.

        Parameters
        ----------
        total : array of shape (labels,)
            Sum of the shifted probabilities of its texts, over all processes.
        n_rows, n_texts : int
            Number of its texts, and of those of the whole step.
        """
        self._total, self._rows = self._total + total, self._rows + n_rows
        if self._rows >= n_texts:
            of_step = self._total / self._rows
            self.mean = self.MOMENTUM * self.mean + (1 - self.MOMENTUM) * of_step
            self._move(self.RATE)
            self._total, self._rows = np.zeros_like(self._total), 0


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
