"""Losses whose scale does not depend on how an effective batch is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.training.collators import IGNORE_INDEX

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


# What `MultilabelLoss` takes for a loss with a name: the focal loss (Lin et al. 2017, "Focal Loss
# for Dense Object Detection", equation 4), and the asymmetric loss, for many labels of which few
# apply (Ridnik et al. 2021, "Asymmetric Loss For Multi-Label Classification", equation 7).
LOSS_SETTINGS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "focal": {"focus": (2, 2)},
    "asymmetric": {"focus": (0, 4), "margin": 0.05},
}


class MultilabelLoss:
    """Binary cross-entropy over all (row, label) pairs, for the Trainer's ``compute_loss_func``.

    The sum over a micro-batch is divided by the number of pairs in the whole effective batch
    (``num_items_in_batch``, counted by the Trainer over accumulation steps and processes), so that
    16 rows give the same loss and gradient at 1 x 16, at 4 accumulated x 4 and on 2 processes x 8.
    The plain mean that sequence-classification heads take is multiplied by the number of pieces.

    Parameters
    ----------
    pos_weight : torch.Tensor of shape (labels,), optional
        Weight of the positive term of each label; see `balanced_pos_weight`. None weighs all alike.
    r_drop : float
        Weight of the divergence between two passes of the same text under different dropout, in
        both directions (Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks",
        equation 4, divided by two so that 0 leaves plain cross-entropy). It applies where there are
        twice as many rows of logits as of labels, as with ``LengthGroupedTrainer(passes=2)``.
    focus : pair of float
        Powers by which positives and negatives count less the surer they are already; see `LOSS_SETTINGS`.
    margin : float
        Taken off the probability of a negative, which counts nothing below it.
    label_smoothing : float
        Targets become 1 - half of this and half of this.
    """

    def __init__(
        self,
        pos_weight: torch.Tensor | None = None,
        *,
        r_drop: float = 0.0,
        focus: tuple[float, float] = (0.0, 0.0),
        margin: float = 0.0,
        label_smoothing: float = 0.0,
    ):
        self.pos_weight = pos_weight
        self.r_drop = r_drop
        self.focus = focus
        self.margin = margin
        self.label_smoothing = label_smoothing

    def __call__(
        self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs.logits`` against multi-hot labels (rows, labels).

        The logits hold one or more passes over the rows, one after another; their losses are
        averaged. Labels may be probabilities.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = outputs["logits"].float()
        if self.pos_weight is not None:
            self.pos_weight = self.pos_weight.to(logits.device)
        passes = len(logits) // len(labels)
        targets = labels.float().repeat(passes, 1)
        targets = targets + self.label_smoothing * (0.5 - targets)
        if any(self.focus) or self.margin:
            loss = self._asymmetric(logits, targets)
        else:
            loss = binary_cross_entropy_with_logits(
                logits, targets, pos_weight=self.pos_weight, reduction="sum"
            )
        loss = loss / passes
        if passes == 2 and self.r_drop:
            # Between Bernoulli distributions the two divergences add up to this product.
            a, b = logits.chunk(2)
            loss = loss + self.r_drop / 4 * ((a.sigmoid() - b.sigmoid()) * (a - b)).sum()
        return loss / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

    def _asymmetric(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum the focused terms of positives and negatives."""
        import torch
        from torch.nn.functional import softplus

        p = logits.sigmoid()
        negative = softplus(logits)
        if self.margin:
            p = (p - self.margin).clamp(min=0)
            negative = -torch.log1p(-p)
        # The slope of a power below 1 has no end at 0.
        easy_positive, easy_negative = (-logits).sigmoid().clamp(min=1e-8), p.clamp(min=1e-8)
        positive = softplus(-logits) * easy_positive ** self.focus[0]
        negative = negative * easy_negative ** self.focus[1]
        if self.pos_weight is not None:
            positive = positive * self.pos_weight
        return (targets * positive + (1 - targets) * negative).sum()


class SingleLabelLoss:
    """Cross-entropy over classes of which every text has one, for ``compute_loss_func``.

    Scaled as `MultilabelLoss` is.

    Parameters
    ----------
    weight : torch.Tensor of shape (classes,), optional
        Of the rows of each class; see `balanced_class_weight`.
    focus : float
        Power by which rows count less the surer they are already (focal loss, Lin et al. 2017,
        equation 4). 0: not at all.
    label_smoothing : float
        Share of the target that all classes get in equal parts (Szegedy et al. 2016, "Rethinking
        the Inception Architecture for Computer Vision", section 7).
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        *,
        focus: float = 0.0,
        label_smoothing: float = 0.0,
    ):
        self.weight = weight
        self.focus = focus
        self.label_smoothing = label_smoothing

    def __call__(
        self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs.logits`` against one-hot labels (rows, classes).

        Of shapes, passes and probabilities the same holds as for `MultilabelLoss`.
        """
        log_p = outputs["logits"].float().log_softmax(-1)
        passes, n_classes = len(log_p) // len(labels), labels.shape[1]
        targets = labels.float().repeat(passes, 1)
        targets = targets + self.label_smoothing * (1 / n_classes - targets)
        terms = -targets * log_p
        if self.focus:
            terms = terms * (1 - log_p.exp()).clamp(min=1e-8) ** self.focus
        if self.weight is not None:
            self.weight = self.weight.to(terms.device)
            terms = terms * self.weight
        n_items = labels.numel() if num_items_in_batch is None else num_items_in_batch
        return terms.sum() / passes * n_classes / n_items


class RegressionLoss:
    """Squared error of all (row, quantity) pairs, for ``compute_loss_func``.

    Scaled as `MultilabelLoss` is.
    """

    def __call__(
        self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs.logits`` against labels, both (rows, quantities)."""
        values = outputs["logits"].float()
        passes = len(values) // len(labels)
        loss = (values - labels.float().repeat(passes, 1)).square().sum() / passes
        return loss / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


class EntailmentLoss:
    """Cross-entropy over entailment, neutral and contradiction, for ``compute_loss_func``.

    Many data sets say only that a sentence is not entailed. Such a pair counts by the probability
    of either other class, so that they train a model of three classes together with full ones.
    """

    NOT_ENTAILED = 3

    def __call__(
        self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs.logits`` (rows, 3) against labels (rows,).

        0 is entailment, 1 neutral, 2 contradiction, `NOT_ENTAILED` either of these two.
        """
        import torch

        log_p = outputs["logits"].float().log_softmax(-1)
        either = torch.logsumexp(log_p[:, 1:], dim=-1, keepdim=True)
        loss = -torch.cat([log_p, either], dim=-1).gather(1, labels[:, None]).sum()
        return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def masked_token_loss(
    outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy over the hidden tokens of an effective batch, for ``compute_loss_func``.

    Pieces of a batch hide different numbers of tokens, so that the mean over the means of pieces is
    not that over the tokens.

    Parameters
    ----------
    outputs : mapping
        ``logits`` of shape (rows, length): the log-probability of each hidden token, as
        `shared.training.losses.score_masked_tokens_only` makes them.
    labels : torch.Tensor of shape (rows, length)
        `IGNORE_INDEX` where nothing is hidden.
    num_items_in_batch : scalar, optional
        Hidden tokens of the effective batch. None counts those of `labels`.
    """
    hidden = labels != IGNORE_INDEX
    loss = -outputs["logits"][hidden].sum()
    return loss / (hidden.sum() if num_items_in_batch is None else num_items_in_batch)


def classification_loss(
    labels: np.ndarray,
    label_names: Sequence[str],
    *,
    single_label: bool,
    balanced: bool,
    totals: np.ndarray | None = None,
    focus: float = 0.0,
    label_smoothing: float = 0.0,
) -> MultilabelLoss | SingleLabelLoss:
    """Return the loss that suits some training rows.

    Parameters
    ----------
    labels : array of shape (rows, labels)
        Multi-hot.
    label_names : sequence of str
    single_label : bool
        Every row has exactly one label: cross-entropy over classes, else over each label.
    balanced : bool
        Weigh what is rare up: `balanced_class_weight` or `balanced_pos_weight`.
    totals : array of shape (labels,), optional
        Rows of each label in all folds: what only another fold has weighs as if it had one row
        here.
    focus, label_smoothing : float
        As in these losses.

    Raises
    ------
    UserError
        If a class is to be weighed that no row has.
    """
    counts, weight = labels.sum(axis=0), None
    if totals is not None:
        counts = np.maximum(counts, np.minimum(totals, 1))
    if single_label:
        if balanced:
            weight = balanced_class_weight(counts, label_names)
        return SingleLabelLoss(weight, focus=focus, label_smoothing=label_smoothing)
    if balanced:
        weight = balanced_pos_weight(counts, len(labels))
    return MultilabelLoss(weight, focus=(focus, focus), label_smoothing=label_smoothing)


def balanced_pos_weight(label_counts, n_rows: int, *, power: float = 0.5, cap: float = 20.0):
    """Weight positives by how rare they are: ``((rows - positives) / positives) ** power``.

    Parameters
    ----------
    label_counts : array of shape (labels,)
        Positives of each label among the training rows.
    n_rows : int
        Training rows.
    power : float
        1 gives both classes of a label the same total weight, 0 none; the square root in between
        lifts rare labels without drowning the frequent ones in false positives.
    cap : float
        Upper bound, so that a label with one positive does not dominate the gradient. A label
        without any counts as if it had one; one that most rows have keeps weight 1.

    Returns
    -------
    torch.Tensor of shape (labels,)
    """
    import torch

    counts = torch.as_tensor(label_counts, dtype=torch.float32).clamp(min=1)
    return ((n_rows - counts) / counts).pow(power).clamp(min=1.0, max=cap)


def balanced_class_weight(
    class_counts, class_names: Sequence[str], *, cap: float = 10.0
) -> torch.Tensor:
    """Weight classes by how rare they are: ``rows / (classes * rows of the class)``.

    Every class has the same weight in total then, and a row weighs 1 on average (scikit-learn's
    ``class_weight="balanced"``).

    Parameters
    ----------
    class_counts : array of shape (classes,)
        Training rows of each class.
    class_names : sequence of str
    cap : float
        Upper bound, so that a class with one row does not dominate the gradient.

    Returns
    -------
    torch.Tensor of shape (classes,)

    Raises
    ------
    UserError
        For a class without rows, which has no weight.
    """
    import torch

    counts = torch.as_tensor(class_counts, dtype=torch.float32)
    if (counts == 0).any():
        name = class_names[int(counts.argmin())]
        raise UserError(
            f"class {name!r} has no training row, so no weight; label some, or weigh all alike"
        )
    return (counts.sum() / (len(counts) * counts)).clamp(max=cap)


def score_masked_tokens_only(model: PreTrainedModel) -> None:
    """Let a masked language model apply its head to the hidden tokens of a batch alone.

    The head scores every word of the vocabulary at every token, which takes a small encoder as long
    as all its layers, and most of the memory; the loss reads one score in seven.

    From here on the model wants ``targets`` by name: int64, shape (rows, length), the hidden tokens
    and `IGNORE_INDEX` elsewhere. Its ``logits`` become the log-probabilities of these tokens, float32,
    of the same shape and 0 elsewhere: few enough to keep those of a whole evaluation, of which
    `shared.training.losses.masked_token_loss` takes the mean.

    Parameters
    ----------
    model : PreTrainedModel
        With a head for masked-language modelling; gets three hooks.
    """
    from torch.nn.functional import cross_entropy

    targets = None

    def before(module, args, kwargs):
        nonlocal targets
        targets = kwargs["targets"]
        return args, {name: value for name, value in kwargs.items() if name != "targets"}

    def after_encoder(module, args, output):
        output.last_hidden_state = output.last_hidden_state[targets != IGNORE_INDEX]
        return output

    def after(module, args, output):
        hidden = targets != IGNORE_INDEX
        scores = output.logits.float()
        log_p = scores.new_zeros(targets.shape)
        log_p[hidden] = -cross_entropy(scores, targets[hidden], reduction="none")
        output.logits = log_p
        return output

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.base_model.register_forward_hook(after_encoder)
    model.register_forward_hook(after)
