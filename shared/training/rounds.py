"""Several trainings in one run, one after another: their arguments and their checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from shared.training.checkpoints import ROUNDS_FOLDER, find_checkpoint


def round_arguments(args: Any, number: int, *, num_train_epochs: float) -> Any:
    """Return the arguments of one of several trainings, which has a folder of its own.

    `shared.training.remove_checkpoints` deletes these folders, too. Until then, a run that is
    resumed loads the end of each training that was complete.

    Parameters
    ----------
    args : TrainingArguments
        Of the recipe. They are not changed.
    number : int
        The number of the training.
    num_train_epochs : float

    Returns
    -------
    a copy of `args`
        Its `resume_from_checkpoint` is the checkpoint to resume this training from, or None.

    Raises
    ------
    UserError
        As `find_checkpoint`.
    """
    args, resume = copy.copy(args), args.resume_from_checkpoint
    args.output_dir = str(Path(args.output_dir) / ROUNDS_FOLDER / str(number))
    args.resume_from_checkpoint = find_checkpoint(args.output_dir, resume)
    args.num_train_epochs = num_train_epochs
    return args
