"""A second training on all labelled rows, after the evaluation: its flag, arguments and length.

The model that is evaluated has not seen the validation and the test set. A tagger may learn from
them, too. Nothing is left to choose its epoch by, so it trains for the epochs that the first
training found.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.training.checkpoints import REFIT_FOLDER, check_resume_switch, find_checkpoint

if TYPE_CHECKING:
    from shared.training.trainer import LengthGroupedTrainer


@dataclass
class RefitArguments:
    """The flag of recipes that may train twice."""

    refit: bool = flag(
        False,
        "After the evaluation, train the tagger once more, on all labelled rows of --data and for "
        "the epochs found; figures and thresholds are those of the first training (default: "
        "false).",
    )


def refit_arguments(args: Any) -> Any:
    """Return the arguments of the second training: another folder, no evaluation.

    Parameters
    ----------
    args : SplitArguments, RefitArguments and TrainingArguments
        Of the recipe. They are not changed.

    Returns
    -------
    a copy of `args`
        Its `resume_from_checkpoint` is the checkpoint to resume the second training from, or None.

    Raises
    ------
    UserError
        If ``--refit`` is set with flags that do not fit it, or as `find_checkpoint`.
    """
    again = copy.copy(args)
    if not args.refit:
        return again
    for name in ("train_size", "train_per_label"):
        if getattr(args, name) is not None:
            raise UserError(f"--refit: trains on all labelled rows; remove --{name}")
    if args.test_data and (args.valid_data or not args.valid_size):
        raise UserError("--refit: all rows of --data are training rows already; remove the flag")
    check_resume_switch(args, "--refit trains twice")
    again.output_dir = str(Path(args.output_dir) / REFIT_FOLDER)
    again.resume_from_checkpoint = find_checkpoint(again.output_dir, args.resume_from_checkpoint)
    again.eval_strategy, again.eval_on_start, again.load_best_model_at_end = "no", False, False
    if again.save_strategy == "best":
        again.save_strategy = "epoch"
    return again


def train_again(trainer: LengthGroupedTrainer, first: LengthGroupedTrainer) -> None:
    """Train for the epochs that the first training found, with its learning rates.

    An epoch has more steps now, and the learning rate falls as slowly as it was planned for the
    first training: a schedule for 8 epochs of which the best was the third stops after the third.

    Parameters
    ----------
    trainer : LengthGroupedTrainer
        Its arguments are those of `refit_arguments`.
    first : LengthGroupedTrainer
        Already trained.
    """
    steps = first.state.global_step
    if first.args.load_best_model_at_end:
        steps = first.state.best_global_step or steps
    longer = _steps_per_epoch(trainer) / _steps_per_epoch(first)
    trainer.args.max_steps = round(steps * longer)
    trainer.schedule_steps = round(first.state.max_steps * longer)
    first.optimizer = None  # make room for that of the second training
    first.accelerator.free_memory()
    trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)


def _steps_per_epoch(trainer: LengthGroupedTrainer) -> int:
    batches = len(trainer.get_train_dataloader())
    return math.ceil(batches / trainer.args.gradient_accumulation_steps)
