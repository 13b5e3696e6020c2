"""Whether a training has underfit or overfit, from its log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

FEWEST_POINTS = 3  # evaluations from which the curves say something
RISE = 0.05  # share of the lowest validation loss above which a rise is no noise
LAST_PART = 0.75  # where the last quarter of a training begins
STILL_FALLING = 0.05  # share of both losses that a training loses in its last quarter
FLAT = 0.03  # share of its loss that a training loses at least, if it has learned anything
GAP = 2.0  # how many times the training loss a validation loss may be
DIVERGED = 1.5  # how many times its lowest loss a training may end with


class FitVerdict(NamedTuple):
    """How a training went: one of five states, and a sentence with the figures and advice.

    `state` is "diverged", "overfit", "underfit", "flat" (the losses hardly changed) or "fits".
    """

    state: str
    sentence: str


class FitPoint(NamedTuple):
    """One evaluation: its epoch, the training loss since the one before, the validation loss."""

    epoch: float
    train: float
    valid: float


def fit_points(log_history: Sequence[Mapping[str, Any]]) -> list[FitPoint]:
    """Return the evaluations of a training at which both losses are known.

    Parameters
    ----------
    log_history : sequence of mappings
        ``trainer.state.log_history``. The training loss of a point is the mean of the entries since
        the evaluation before.
    """
    points: list[FitPoint] = []
    losses: list[float] = []
    for entry in log_history:
        if "loss" in entry:
            losses.append(float(entry["loss"]))
        # With `--logging_strategy epoch`, the loss of an epoch is logged before its evaluation.
        if "eval_loss" in entry and losses:
            points.append(
                FitPoint(float(entry["epoch"]), float(np.mean(losses)), float(entry["eval_loss"]))
            )
            losses = []
    return points


def judge_fit(
    log_history: Sequence[Mapping[str, Any]], *, uninformed: float | None = None
) -> FitVerdict | None:
    """Say whether a training has underfit, overfit or diverged, by its losses.

    The signs are those of Goodfellow, Bengio and Courville 2016, "Deep Learning", section 5.2 and
    figure 5.3: a training loss that stays high is underfitting; a validation loss that rises, or a
    gap between both, while the training loss falls is overfitting.

    Parameters
    ----------
    log_history : sequence of mappings
        ``trainer.state.log_history``. Dropout and other noise of a training raise its loss, not
        that of validation, so that only a validation loss above it counts as a gap.
    uninformed : float, optional
        Loss of uniform predictions. With it, a loss that ends near it is called underfitting.

    Returns
    -------
    FitVerdict or None
        None for fewer than three evaluations: they say nothing.
    """
    points = fit_points(log_history)
    if len(points) < FEWEST_POINTS:
        return None
    first, last = points[0], points[-1]
    ends = f"training loss {last.train:.3f}, validation loss {last.valid:.3f} at the end"
    if not all(math.isfinite(value) for point in points for value in point):
        return FitVerdict(
            "diverged", f"Diverged: {ends}. Try a lower learning rate, or stronger clipping."
        )
    best = min(points, key=lambda point: point.valid)
    lowest_train = min(point.train for point in points)
    if last.train > DIVERGED * lowest_train and last.train > 0.5 * first.train:
        return FitVerdict(
            "diverged",
            f"Diverged: the training loss rose from {lowest_train:.3f} to {last.train:.3f}. Try a "
            "lower learning rate, warm-up, or stronger clipping.",
        )
    if uninformed is not None and last.train > (1 - FLAT) * uninformed:
        return FitVerdict(
            "underfit",
            f"Underfit: {ends}; uniform predictions have {uninformed:.3f}. Nothing was learned: "
            "try another learning rate or other first weights, and check the labels.",
        )
    if last.valid > (1 + RISE) * best.valid and last.train < best.train:
        return FitVerdict(
            "overfit",
            f"Overfit: the validation loss rose from {best.valid:.3f} (epoch {best.epoch:.3g}) to "
            f"{last.valid:.3f} (epoch {last.epoch:.3g}), while the training loss fell from "
            f"{best.train:.3f} to {last.train:.3f}. Try fewer epochs, more dropout or weight "
            "decay, or more training data.",
        )
    is_gap = last.valid > GAP * last.train and last.valid - last.train > 0.1 * first.train
    if is_gap:
        return FitVerdict(
            "overfit",
            f"Overfit: {ends}, {last.valid / max(last.train, 1e-9):.1f} times as high, though it "
            "has not risen. More training data helps most; dropout and weight decay may.",
        )
    if last.train > (1 - FLAT) * first.train and last.valid > (1 - FLAT) * first.valid:
        return FitVerdict(
            "flat",
            f"The losses hardly changed: training {first.train:.3f} to {last.train:.3f}, "
            f"validation {first.valid:.3f} to {last.valid:.3f}. If the scores are poor, too, try "
            "another learning rate or a larger model.",
        )
    # The last quarter; of few evaluations, at least the last two.
    before = next(
        p for p in reversed(points[:-1]) if p.epoch <= LAST_PART * last.epoch or p is first
    )
    if (
        last.valid < (1 - STILL_FALLING) * before.valid
        and last.train < (1 - STILL_FALLING) * before.train
    ):
        return FitVerdict(
            "underfit",
            f"Underfit: from epoch {before.epoch:.3g} to the end ({last.epoch:.3g}) the training "
            f"loss still fell from {before.train:.3f} to {last.train:.3f}, the validation loss "
            f"from {before.valid:.3f} to {last.valid:.3f}. Train longer, or try a higher learning "
            "rate.",
        )
    return FitVerdict(
        "fits",
        f"Fits: {ends}; the validation loss no longer falls, and has not risen. If the scores are "
        "too low, try a larger model, more training data or a longer schedule.",
    )
