"""Losses whose scale does not depend on how an effective batch is cut into pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.collators import IGNORED

if TYPE_CHECKING:
    import torch


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
    """

    def __init__(self, pos_weight: torch.Tensor | None = None, *, r_drop: float = 0.0):
        self.pos_weight = pos_weight
        self.r_drop = r_drop

    def __call__(
        self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs.logits`` against multi-hot labels (rows, labels).

        The logits hold one or more passes over the rows, one after another; their losses are
        averaged.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = outputs["logits"].float()
        if self.pos_weight is not None:
            self.pos_weight = self.pos_weight.to(logits.device)
        passes = len(logits) // len(labels)
        targets = labels.float().repeat(passes, 1)
        loss = binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.pos_weight, reduction="sum"
        )
        loss = loss / passes
        if passes == 2 and self.r_drop:
            # Between Bernoulli distributions the two divergences add up to this product.
            a, b = logits.chunk(2)
            loss = loss + self.r_drop / 4 * ((a.sigmoid() - b.sigmoid()) * (a - b)).sum()
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


def hidden_token_loss(
    outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy over the hidden tokens of an effective batch, for ``compute_loss_func``.

    Pieces of a batch hide different numbers of tokens, so that the mean over the means of pieces is
    not that over the tokens.

    Parameters
    ----------
    outputs : mapping
        ``logits`` of shape (rows, length): the log-probability of each hidden token, as
        `shared.masking.score_hidden_tokens_only` makes them.
    labels : torch.Tensor of shape (rows, length)
        `IGNORED` where nothing is hidden.
    num_items_in_batch : scalar, optional
        Hidden tokens of the effective batch. None counts those of `labels`.
    """
    hidden = labels != IGNORED
    loss = -outputs["logits"][hidden].sum()
    return loss / (hidden.sum() if num_items_in_batch is None else num_items_in_batch)


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
