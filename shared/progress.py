"""A progress bar that shows itself only where someone may be waiting."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable


def progress(iterable: Iterable, description: str, *, unit: str = "rows", total=None) -> Iterable:
    """Pass `iterable` on, with a bar on stderr once it has taken more than two seconds.

    Only the first process of a launch shows one, and only on a terminal.
    """
    from tqdm import tqdm

    first = os.environ.get("RANK", "0") == "0"
    # disable=None leaves the bar out where stderr is not a terminal.
    return tqdm(
        iterable,
        description,
        total,
        unit=f" {unit}",
        unit_scale=True,
        delay=2,
        leave=False,
        disable=None if first else True,
    )


def quiet_libraries() -> None:
    """Leave out the bars of `datasets` where nobody watches, and the chatter of transformers.

    It draws a bar for each file of weights it reads or writes.
    """
    from datasets import disable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    # It warns of sorting checkpoints by number where two are less than a second apart.
    logging.get_logger("transformers.trainer_utils").setLevel(logging.ERROR)
    # The Trainer asks for pinned memory also where there is no accelerator to copy it to.
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
    # peft asks transformers by a name that is about to change.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    if not sys.stderr.isatty():
        disable_progress_bars()
