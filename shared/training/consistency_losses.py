"""The losses of consistency training: that of labelled rows, and that of unlabelled ones.

Xie et al. 2020, "Unsupervised Data Augmentation for Consistency Training" (UDA), the paper below.
`AnnealedLoss` is supervised; `ConsistencyLoss` pulls the prediction on a changed text towards that
on the text itself, whose labels `LabelAlignment` keeps as frequent as they should be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch

from shared.training.losses import MultilabelLoss, SingleLabelLoss

Schedule = Literal["none", "linear", "log", "exp"]

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
