"""Train several tasks at once: their batches, and one loss of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.data.tasks import Task, TaskRows, task_columns
from shared.models.tokenizers import tokenize_texts
from shared.training.collators import SoftLabelCollator
from shared.training.losses import balanced_class_weight, balanced_pos_weight

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from shared.data.tasks import TaskData


@dataclass
class TaskWeightArguments:
    """Flags of the losses of several tasks; `check_task_weights` checks them."""

    task_weighting: Literal["uninformed", "uncertainty", "none"] = flag(
        "uninformed",
        "Losses of the tasks: divided by that of the best constant prediction, weighted by learned "
        "uncertainty, or as they are (default: uninformed).",
    )
    task_weights: list[float] = flag(
        [], "Weight of each task, in the order of --tasks (default: all equal).", least=0, most=1e6
    )
    sweep: list[float] = flag(
        [],
        "Also train both of two tasks with these weights of the first one; the second has the rest "
        "to 1 (default: none).",
        above=0,
        below=1,
    )
    class_weight: Literal["none", "balanced"] = flag(
        "balanced", "Loss weight of labels: all equal, or higher if rarer (default: balanced)."
    )


def check_task_weights(args: Any) -> None:
    """Refuse weights that do not fit the tasks or each other.

    Parameters
    ----------
    args : TaskWeightArguments and `shared.data.TaskArguments`
    """
    if args.task_weights and len(args.task_weights) != len(args.tasks):
        raise UserError(f"--task_weights: give {len(args.tasks)} numbers, one for each task")
    if args.task_weights and not all(args.task_weights):
        raise UserError("--task_weights: a task of weight 0 learns nothing; remove it instead")
    if args.task_weighting == "uncertainty" and (args.task_weights or args.sweep):
        raise UserError("--task_weighting uncertainty: learns the weights; give none")
    if args.sweep and len(args.tasks) != 2:
        raise UserError(f"--sweep: for two tasks, not {len(args.tasks)}")


def multi_task_loss(
    args: TaskWeightArguments, data: TaskData, weights: Sequence[float] | None
) -> MultiTaskLoss:
    """Return the loss of the tasks of some rows, for ``compute_loss_func``.

    Parameters
    ----------
    args : TaskWeightArguments
    data : TaskData
    weights : sequence of float, optional
        Of each task, in place of ``--task_weights``; None: all 1.
    """
    return MultiTaskLoss(
        data.tasks,
        data.parts["train"].targets,
        weights=weights,
        normalize=args.task_weighting == "uninformed",
        balanced=args.class_weight == "balanced",
    )


class MultiTaskCollator(SoftLabelCollator):
    """Pad the rows of a batch, and collect their numbers, categories and targets.

    Notes
    -----
    Features are those of `task_dataset`. A batch holds ``labels`` (rows, outputs of all tasks) and,
    if the rows have them, ``numbers`` (rows, 2 * columns), float32, and ``categories`` (rows,
    columns), int64.
    """

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows."""
        import torch

        batch = super().__call__(features)
        for name, dtype in (("numbers", torch.float32), ("categories", torch.int64)):
            if name in features[0]:
                batch[name] = torch.tensor([row[name] for row in features], dtype=dtype)
        return batch


def task_dataset(rows: TaskRows, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return tokenised rows for `MultiTaskCollator`.

    Returns
    -------
    datasets.Dataset
        With ``input_ids``, ``length`` and, where the rows have them, ``labels``, ``numbers`` and
        ``categories``.
    """
    dataset = tokenize_texts(tokenizer, rows.texts)
    columns = {"labels": rows.targets, "numbers": rows.numbers, "categories": rows.categories}
    for name, values in columns.items():
        if values.shape[1]:
            dataset = dataset.add_column(name, list(values))
    return dataset


class MultiTaskLoss:
    """The weighted mean of the losses of several tasks, for the Trainer's ``compute_loss_func``.

    Cross-entropy over the labels of a single-label task, the mean binary cross-entropy over those
    of a multi-label task, the squared error of a scaled number. A row that lacks a task does not
    count in its loss, which is a mean over the rows that have it.

    The tasks differ in the size of their losses. So each loss is divided by its uninformed value,
    that of the best constant prediction of the training rows: 1 then means that nothing was
    learned. Or the model learns a log variance for each task, by which the losses are weighed
    (Kendall, Gal and Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
    Geometry and Semantics", equations 7 to 10).

    It has the same scale for every split of an effective batch, as
    `shared.training.losses.MultilabelLoss`: the sum over a micro-batch is divided by the rows of
    the effective batch, times the share of training rows that have the task.

    Parameters
    ----------
    tasks : sequence of Task
    targets : float array of shape (training rows, outputs)
        Gives uninformed losses, shares of rows, and the weights of labels. NaN is missing.
    weights : sequence of float, optional
        Weight of each task; only their proportions matter. None: all 1.
    normalize : bool, default True
        Whether losses are divided by their uninformed values.
    balanced : bool, default False
        Rarer labels get higher weights: `balanced_pos_weight`, `balanced_class_weight`.

    Attributes
    ----------
    uninformed : float array of shape (tasks,)
        Loss of the best constant prediction of the training rows for each task.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        targets: np.ndarray,
        *,
        weights: Sequence[float] | None = None,
        normalize: bool = True,
        balanced: bool = False,
    ):
        self.tasks, self.columns = tasks, task_columns(tasks)
        self.shares, self.uninformed = np.ones(len(tasks)), np.ones(len(tasks))
        self.label_weights: list[torch.Tensor | None] = [None] * len(tasks)
        for i, (task, columns) in enumerate(zip(tasks, self.columns, strict=True)):
            known = targets[~np.isnan(targets[:, columns]).any(axis=1), columns]
            self.shares[i] = len(known) / len(targets)
            if balanced and task.problem == "multi_label":
                self.label_weights[i] = balanced_pos_weight(known.sum(axis=0), len(known))
            elif balanced and task.problem == "single_label":
                self.label_weights[i] = balanced_class_weight(known.sum(axis=0), task.labels)
            self.uninformed[i] = self._constant_loss(i, known)
        weights_of_tasks = np.ones(len(tasks)) if weights is None else np.asarray(weights, float)
        self.factors = weights_of_tasks / weights_of_tasks.sum()
        if normalize:
            self.factors = self.factors / self.uninformed

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss.

        Parameters
        ----------
        outputs : mapping
            ``logits`` of shape (passes * rows, outputs). With ``log_variances``, (tasks,), the
            losses are weighed by them, else by the weights of the tasks.
        labels : float tensor of shape (rows, outputs)
        num_items_in_batch : tensor or int, optional
            Numbers in the labels of the whole effective batch, as the Trainer counts them. None, as
            in an evaluation: the mean over the rows given.
        """
        means = self.task_losses(outputs["logits"], labels, num_items_in_batch)
        log_variances = outputs.get("log_variances")
        if log_variances is None:
            return sum(f * mean for f, mean in zip(self.factors.tolist(), means, strict=True))
        # Micro-batches are added up, so each gets its share of the terms without a loss.
        share = 1.0 if num_items_in_batch is None else labels.numel() / num_items_in_batch
        total = means[0].new_zeros(())
        for task, mean, s in zip(self.tasks, means, log_variances, strict=True):
            half = 0.5 if task.is_regression else 1.0
            total = total + half * (-s).exp() * mean + 0.5 * s * share
        return total

    def task_losses(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> list[torch.Tensor]:
        """Return the loss of each task, not weighted and not divided; arguments as for a call."""
        means = []
        logits = logits.float()
        passes = len(logits) // len(labels)
        labels = labels.to(logits.device, logits.dtype)
        for i, columns in enumerate(self.columns):
            known = ~labels[:, columns].isnan().any(dim=1)
            losses = self._row_losses(
                i, logits[:, columns], labels[:, columns].nan_to_num().repeat(passes, 1)
            )
            total = (losses * known.repeat(passes)).sum() / passes
            if num_items_in_batch is None:
                means.append(total / known.sum().clamp(min=1))
            else:
                n_rows = num_items_in_batch / labels.shape[1]
                means.append(total / (n_rows * self.shares[i]))
        return means

    def _row_losses(self, i: int, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of task i for each row, (rows,)."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        task, weight = self.tasks[i], self.label_weights[i]
        weight = None if weight is None else weight.to(logits.device)
        if task.is_regression:
            return (logits - targets).square().mean(dim=1)
        if task.problem == "multi_label":
            return binary_cross_entropy_with_logits(
                logits, targets, pos_weight=weight, reduction="none"
            ).mean(dim=1)
        losses = -targets * logits.log_softmax(dim=1)
        return (losses if weight is None else losses * weight).sum(dim=1)

    def _constant_loss(self, i: int, known: np.ndarray) -> float:
        """Return the loss of the constant prediction for task i that suits its rows best."""
        import torch

        targets = torch.from_numpy(known).double()
        mean, weight = targets.mean(dim=0), self.label_weights[i]
        if self.tasks[i].is_regression:
            logits = mean
        elif self.tasks[i].problem == "multi_label":
            positive = mean * (1 if weight is None else weight)
            logits = (positive.clamp(min=1e-12) / (1 - mean).clamp(min=1e-12)).log()
        else:
            logits = (mean * (1 if weight is None else weight)).clamp(min=1e-12).log()
        loss = self._row_losses(i, logits.expand_as(targets), targets).mean()
        return max(float(loss), 1e-6)
