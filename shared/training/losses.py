"""Loss functions for the Trainer's ``compute_loss_func``, and weights for rare classes and labels.

A step of the optimiser uses one effective batch. It may be split into micro-batches: over processes
and over accumulation steps. All losses here have the same scale for every split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.training.collators import IGNORE_INDEX

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from transformers import PreTrainedModel

# --- settings ------------------------------------------------------------------------------------

# Arguments of `MultilabelLoss` for each named loss: the focal loss (Lin et al. 2017, "Focal Loss
# for Dense Object Detection", equation 4), and the asymmetric loss for data with many labels, few
# of which apply to a text (Ridnik et al. 2021, "Asymmetric Loss For Multi-Label Classification",
# equation 7).
LOSS_SETTINGS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "focal": {"focus": (2, 2)},
    "asymmetric": {"focus": (0, 4), "margin": 0.05},
}


# --- loss functions ------------------------------------------------------------------------------


class MultilabelLoss:
    """Binary cross-entropy over all (row, label) pairs, for the Trainer's ``compute_loss_func``.

    The sum over a micro-batch is divided by the number of pairs in the whole effective batch
    (``num_items_in_batch``, which the Trainer counts over accumulation steps and processes). So 16
    rows give the same loss and gradient as one batch of 16, as 4 accumulated batches of 4, and on 2
    processes with 8 each. With the plain mean of the sequence-classification heads, the loss would
    be multiplied by the number of micro-batches.

    Parameters
    ----------
    pos_weight : torch.Tensor of shape (labels,), optional
        Weight of the positive term of each label; see `balanced_pos_weight`. None: 1 for all.
    r_drop : float
        Weight of the divergence between two passes of the same text with different dropout, in
        both directions (Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks",
        equation 4, divided by two, so that 0 gives plain cross-entropy). It is used if there are
        twice as many rows of logits as of labels, as with ``LengthGroupedTrainer(passes=2)``.
    focus : pair of float
        Focusing exponents of positives and of negatives. The higher the exponent, the less a pair
        counts that the model already predicts well. See `LOSS_SETTINGS`.
    margin : float
        Subtracted from the probability of a negative. A negative below it does not count.
    label_smoothing : float
        Targets of 1 become 1 - label_smoothing / 2, targets of 0 become label_smoothing / 2.
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
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs["logits"]`` for multi-hot labels (rows, labels).

        The logits have the shape (passes * rows, labels): one or more passes over the rows, one
        after another. The losses of the passes are averaged. Labels may be probabilities. `weight`,
        (rows,), multiplies the loss of each row, but does not count in the mean: with weights of
        mean 1 over a training set, the loss has the scale of one without weights.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        # Single precision, also where autocast made logits of half precision.
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
                logits, targets, pos_weight=self.pos_weight, reduction="none"
            )
        loss = _sum_rows(loss, weight) / passes
        if passes == 2 and self.r_drop:
            # For Bernoulli distributions with probabilities p, q and logits a, b the divergences in
            # both directions add up to KL(p, q) + KL(q, p) = (p - q) * (a - b). Equation 4 halves
            # this sum. It is halved again because the cross-entropy above is the mean, not the sum,
            # of the two passes.
            a, b = logits.chunk(2)
            divergence = (a.sigmoid() - b.sigmoid()) * (a - b)
            loss = loss + self.r_drop / 4 * _sum_rows(divergence, weight)
        # Without a count, as in an evaluation, this is the mean over all pairs.
        return loss / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

    def _asymmetric(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the asymmetric loss of all pairs; inputs and output have the same shape.

        With p the probability of a label, p_m = max(p - margin, 0) and the exponents f_+ and f_-, a
        positive costs -log(p) * (1 - p) ** f_+, and a negative -log(1 - p_m) * p_m ** f_-.
        """
        import torch
        from torch.nn.functional import softplus

        p = logits.sigmoid()
        # softplus(x) is -log(1 - sigmoid(x)), and finite where the probability rounds to 1.
        negative = softplus(logits)
        if self.margin:
            p = (p - self.margin).clamp(min=0)
            negative = -torch.log1p(-p)  # finite, because p is now at most 1 - margin
        # The gradient of x ** f is infinite at 0 for an exponent below 1, so keep away from 0.
        # The sigmoid of -logits is 1 - p, and is accurate for p close to 1.
        positive_error, negative_error = (-logits).sigmoid().clamp(min=1e-8), p.clamp(min=1e-8)
        positive = softplus(-logits) * positive_error ** self.focus[0]
        negative = negative * negative_error ** self.focus[1]
        if self.pos_weight is not None:
            positive = positive * self.pos_weight
        return targets * positive + (1 - targets) * negative


class SingleLabelLoss:
    """Cross-entropy over classes, of which each text has exactly one, for ``compute_loss_func``.

    It has the same scale for every split of an effective batch, as `MultilabelLoss`.

    Parameters
    ----------
    weight : torch.Tensor of shape (classes,), optional
        Weight of the rows of each class; see `balanced_class_weight`. None: 1 for all.
    r_drop : float
        Weight of the divergence between two passes of the same text, as for `MultilabelLoss`.
    focus : float
        Focusing exponent: the higher it is, the less a row counts that the model already predicts
        well (focal loss, Lin et al. 2017, equation 4). 0: plain cross-entropy.
    label_smoothing : float
        Share of the target that is divided equally among all classes (Szegedy et al. 2016,
        "Rethinking the Inception Architecture for Computer Vision", section 7).
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        *,
        r_drop: float = 0.0,
        focus: float = 0.0,
        label_smoothing: float = 0.0,
    ):
        self.weight = weight
        self.r_drop = r_drop
        self.focus = focus
        self.label_smoothing = label_smoothing

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs["logits"]`` for one-hot labels (rows, classes).

        The logits may hold several passes, the labels probabilities, and `weight`, (rows,), a
        factor of the loss of each row, as for `MultilabelLoss`.
        """
        log_p = outputs["logits"].float().log_softmax(-1)  # (passes * rows, classes)
        passes, n_classes = len(log_p) // len(labels), labels.shape[1]
        targets = labels.float().repeat(passes, 1)
        targets = targets + self.label_smoothing * (1 / n_classes - targets)
        terms = -targets * log_p
        if self.focus:
            # Kept away from 0, where the gradient of a power below 1 is infinite.
            terms = terms * (1 - log_p.exp()).clamp(min=1e-8) ** self.focus
        if self.weight is not None:
            self.weight = self.weight.to(terms.device)
            terms = terms * self.weight
        loss = _sum_rows(terms, weight) / passes
        if passes == 2 and self.r_drop:
            # KL(p, q) + KL(q, p), with the same factor as in `MultilabelLoss`.
            log_a, log_b = log_p.chunk(2)
            divergence = (log_a.exp() - log_b.exp()) * (log_a - log_b)
            loss = loss + self.r_drop / 4 * _sum_rows(divergence, weight)
        # The Trainer counts the elements of `labels`, that is rows * classes. The loss is a mean
        # over rows, so the number of classes cancels out.
        n_items = labels.numel() if num_items_in_batch is None else num_items_in_batch
        return loss * n_classes / n_items


def _sum_rows(losses: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Return the sum of losses (passes * rows, labels), each row times its weight (rows,)."""
    if weight is None:
        return losses.sum()
    passes = len(losses) // len(weight)
    return (losses.sum(dim=1) * weight.to(losses.device).repeat(passes)).sum()


class RegressionLoss:
    """Squared error over all (row, quantity) pairs, for ``compute_loss_func``.

    It has the same scale for every split of an effective batch, as `MultilabelLoss`.

    Parameters
    ----------
    mean, scale : float
        The outputs are compared with ``(value - mean) / scale``, usually of the mean and standard
        deviation of the training rows: bfloat16 has three digits, too few for numbers far from 0.
        `shared.models.heads.PooledForSequenceClassification.rescale` turns the trained outputs
        into values.
    """

    def __init__(self, mean: float = 0.0, scale: float = 1.0):
        self.mean, self.scale = mean, scale

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs["logits"]`` for labels, both (rows, quantities).

        Quantities can have several dimensions, such as steps and columns. The logits may hold
        several passes, as for `MultilabelLoss`.
        """
        values = outputs["logits"].float()
        passes = len(values) // len(labels)
        copies = labels.float().repeat(passes, *(1,) * (labels.ndim - 1))
        loss = (values - (copies - self.mean) / self.scale).square().sum() / passes
        return loss / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


class EntailmentLoss:
    """Cross-entropy over entailment, neutral and contradiction, for ``compute_loss_func``.

    Many data sets only say that a sentence is not entailed. For such a pair the loss is the
    negative log-probability of neutral or contradiction together. So these data sets can train a
    model of three classes together with fully labelled ones.
    """

    NOT_ENTAILED = 3

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of ``outputs["logits"]`` (rows, 3) for labels (rows,).

        0 is entailment, 1 neutral, 2 contradiction; `NOT_ENTAILED` is neutral or contradiction.
        """
        import torch

        log_p = outputs["logits"].float().log_softmax(-1)
        # A fourth column: the log of the sum of the two probabilities.
        not_entailed = torch.logsumexp(log_p[:, 1:], dim=-1, keepdim=True)
        loss = -torch.cat([log_p, not_entailed], dim=-1).gather(1, labels[:, None]).sum()
        return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


# --- answers in texts ----------------------------------------------------------------------------


def span_loss(
    outputs: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Return the mean cross-entropy of the starts and the ends of answers.

    Parameters
    ----------
    outputs : mapping
        ``logits`` of shape (rows, length, 2), of start and end.
    labels : int64 tensor of shape (rows, 5)
        Start, end, first token of the context, the token after its last, and a number that is not
        read: `shared.methods.answer_windows`. 0 as start and end: there is no answer. The softmax
        is that over the first token and the context, whatever else a row has: the loss does not
        depend on padding.
    num_items_in_batch : tensor or int, optional
        Numbers in the labels of the whole effective batch, as the Trainer counts them.

    Notes
    -----
    If the rows were cut to fewer tokens, as for a health check, an answer that is no longer in them
    counts as none.
    """
    import torch

    logits = outputs["logits"].float()
    length = logits.shape[1]
    positions = torch.arange(length, device=logits.device)
    ends, first, stop = labels[:, :2], labels[:, 2:3], labels[:, 3:4]
    ends = ends * (ends < length).all(dim=1, keepdim=True)
    is_choice = (positions == 0) | ((positions >= first) & (positions < stop))
    log_p = logits.masked_fill(~is_choice[..., None], -torch.inf).log_softmax(dim=1)
    losses = -log_p.gather(1, ends[:, None, :])  # (rows, 1, 2)
    n_items = labels.numel() if num_items_in_batch is None else num_items_in_batch
    return losses.sum() / 2 * labels.shape[1] / n_items


# --- masked-language modelling -------------------------------------------------------------------


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of each next token, 0 where a label does not count.

    For ``preprocess_logits_for_metrics``: the Trainer then collects one number per token, not one
    per token of the vocabulary.

    Parameters
    ----------
    logits : tensor of shape (rows, length, tokens of the vocabulary)
    labels : int64 tensor of shape (rows, length)
        The token after each position, or `IGNORE_INDEX`.

    Returns
    -------
    float32 tensor of shape (rows, length)
    """
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )
    return losses.view_as(labels)


def next_token_loss(
    outputs: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Return the negative log-likelihood per token, for ``compute_loss_func``.

    Parameters
    ----------
    outputs : mapping
        ``logits`` of shape (rows, length, tokens of the vocabulary); in an evaluation the
        `token_losses`, of shape (rows, length).
    labels : int64 tensor of shape (rows, length)
        The token after each position, or `IGNORE_INDEX`; see
        `shared.training.collators.NextTokenCollator`.
    num_items_in_batch : scalar, optional
        Number of labels that count in the effective batch. None: the number in `labels`.
    """
    counted = labels != IGNORE_INDEX
    losses = outputs["logits"]
    if losses.ndim == 3:
        losses = token_losses(losses, labels)
    loss = losses[counted].sum()
    return loss / (counted.sum() if num_items_in_batch is None else num_items_in_batch)


class SequenceLoss:
    """Cross-entropy over the tokens of the texts to write, for ``compute_loss_func``.

    It has the same scale for every split of an effective batch, as `MultilabelLoss`.

    Parameters
    ----------
    label_smoothing : float
        Share of the target that is divided equally among all tokens of the vocabulary, as in
        `SingleLabelLoss`. An evaluation has the loss without smoothing.
    """

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss; the parameters are those of `next_token_loss`."""
        from torch.nn.functional import cross_entropy

        logits = outputs["logits"]
        if logits.ndim == 2:
            return next_token_loss(outputs, labels)
        loss = cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        n_items = (labels != IGNORE_INDEX).sum()
        return loss / (n_items if num_items_in_batch is None else num_items_in_batch)


def masked_token_loss(
    outputs: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Return the cross-entropy over the masked tokens, for ``compute_loss_func``.

    The micro-batches of an effective batch have different numbers of masked tokens. So the mean of
    their means is not the mean over the tokens; the sum is divided by the total number instead.

    Parameters
    ----------
    outputs : mapping
        ``logits`` of shape (rows, length): the log-probability of each masked token, as
        `score_masked_tokens_only` makes them.
    labels : torch.Tensor of shape (rows, length)
        `IGNORE_INDEX` where no token is masked.
    num_items_in_batch : scalar, optional
        Number of masked tokens in the effective batch. None: the number in `labels`.
    """
    masked = labels != IGNORE_INDEX
    loss = -outputs["logits"][masked].sum()
    return loss / (masked.sum() if num_items_in_batch is None else num_items_in_batch)


def score_masked_tokens_only(
    model: PreTrainedModel,
    label_scores: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Make a masked language model apply its head to the masked tokens only.

    The head scores every word of the vocabulary for every token. In a small encoder this takes as
    long as all its layers, and most of the memory, but the loss needs one score in seven.

    Afterwards the model needs ``targets`` as a keyword: int64, shape (rows, length), the original
    ids of the masked tokens and `IGNORE_INDEX` elsewhere. Its ``logits`` become the
    log-probabilities of these tokens, float32, of the same shape and 0 elsewhere. They are small
    enough to keep those of a whole evaluation. `masked_token_loss` takes their mean.

    Parameters
    ----------
    model : PreTrainedModel
        With a head for masked-language modelling. Three hooks are added to it.
    label_scores : callable, optional
        The model then also takes ``place`` instead of ``targets``: int64 (rows,), one token of each
        row. Its ``logits`` are what ``label_scores`` returns for the scores of all words there,
        float32 of shape (rows, vocabulary).
    """
    from torch.nn.functional import cross_entropy

    # The model itself has no argument for these, so the first hook takes them out of the call and
    # the other two read them here.
    targets: torch.Tensor | None = None
    place: torch.Tensor | None = None

    def before_model(module, args, kwargs):
        nonlocal targets, place
        targets, place = kwargs.get("targets"), kwargs.get("place")
        return args, {k: value for k, value in kwargs.items() if k not in ("targets", "place")}

    def after_encoder(module, args, output):
        # (rows, length, width) becomes (scored tokens, width), which is what the head scores.
        states = output.last_hidden_state
        if place is not None:
            output.last_hidden_state = states[range(len(place)), place]
        else:
            assert targets is not None
            output.last_hidden_state = states[targets != IGNORE_INDEX]
        return output

    def after_model(module, args, output):
        scores = output.logits.float()  # (scored tokens, vocabulary)
        if place is not None:
            assert label_scores is not None
            output.logits = label_scores(scores)
            return output
        assert targets is not None
        masked = targets != IGNORE_INDEX
        # Back to (rows, length), so that the Trainer can gather and pad the logits like the labels.
        log_p = scores.new_zeros(targets.shape)
        log_p[masked] = -cross_entropy(scores, targets[masked], reduction="none")
        output.logits = log_p
        return output

    model.register_forward_pre_hook(before_model, with_kwargs=True)
    model.base_model.register_forward_hook(after_encoder)
    model.register_forward_hook(after_model)


# --- choice of a loss, class weights -------------------------------------------------------------


def classification_loss(
    labels: np.ndarray,
    label_names: Sequence[str],
    *,
    single_label: bool,
    balanced: bool,
    totals: np.ndarray | None = None,
    focus: float = 0.0,
    r_drop: float = 0.0,
    label_smoothing: float = 0.0,
) -> MultilabelLoss | SingleLabelLoss:
    """Return the loss function that fits the labels of the training rows.

    Parameters
    ----------
    labels : array of shape (rows, labels)
        Multi-hot.
    label_names : sequence of str
    single_label : bool
        True: every row has exactly one label, so `SingleLabelLoss`. False: `MultilabelLoss`.
    balanced : bool
        Give rare labels a higher weight, with `balanced_class_weight` or `balanced_pos_weight`.
    totals : array of shape (labels,), optional
        Rows of each label in all folds. A label that only other folds have gets the weight of a
        label with one row.
    focus, r_drop, label_smoothing : float
        As in these losses.

    Raises
    ------
    UserError
        With `balanced` and `single_label`, if a class has no row.
    """
    counts, weight = labels.sum(axis=0), None
    options = {"r_drop": r_drop, "label_smoothing": label_smoothing}
    if totals is not None:
        # At least 1 for every label that any fold has; 0 stays 0 and raises below.
        counts = np.maximum(counts, np.minimum(totals, 1))
    if single_label:
        if balanced:
            weight = balanced_class_weight(counts, label_names)
        return SingleLabelLoss(weight, focus=focus, **options)
    if balanced:
        weight = balanced_pos_weight(counts, len(labels))
    return MultilabelLoss(weight, focus=(focus, focus), **options)


def balanced_pos_weight(
    label_counts: ArrayLike, n_rows: int, *, power: float = 0.5, cap: float = 20.0
) -> torch.Tensor:
    """Return higher weights for rarer labels: ``((rows - positives) / positives) ** power``.

    Parameters
    ----------
    label_counts : array of shape (labels,)
        Number of positives of each label in the training set.
    n_rows : int
        Number of training rows.
    power : float
        1: positives and negatives of a label have the same total weight. 0: all weights are 1. The
        square root in between raises rare labels without too many false positives for frequent
        ones.
    cap : float
        Upper bound, so that a label with one positive does not dominate the gradient. A label
        without positives counts as if it had one. The lower bound is 1, for a label that most rows
        have.

    Returns
    -------
    torch.Tensor of shape (labels,)
    """
    import torch

    counts = torch.as_tensor(label_counts, dtype=torch.float32).clamp(min=1)
    return ((n_rows - counts) / counts).pow(power).clamp(min=1.0, max=cap)


def balanced_class_weight(
    class_counts: ArrayLike, class_names: Sequence[str], *, cap: float = 10.0
) -> torch.Tensor:
    """Return higher weights for rarer classes: ``rows / (classes * rows of the class)``.

    With these weights all classes have the same total weight, and the mean weight of a row is 1
    (scikit-learn's ``class_weight="balanced"``).

    Parameters
    ----------
    class_counts : array of shape (classes,)
        Number of training rows of each class.
    class_names : sequence of str
    cap : float
        Upper bound, so that a class with one row does not dominate the gradient.

    Returns
    -------
    torch.Tensor of shape (classes,)

    Raises
    ------
    UserError
        If a class has no rows, because its weight would be infinite.
    """
    import torch

    counts = torch.as_tensor(class_counts, dtype=torch.float32)
    if (counts == 0).any():
        name = class_names[int(counts.argmin())]
        raise UserError(
            f"class {name!r} has no training row, so it cannot get a balanced weight; label some "
            "rows, or use equal weights"
        )
    return (counts.sum() / (len(counts) * counts)).clamp(max=cap)
