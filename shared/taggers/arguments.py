"""Flags of the recipes that apply saved taggers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

from transformers import TrainingArguments

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.launch import choose_precision
from shared.data.arguments import TOP_SCORES_HELP


@dataclass
class TaggerArguments(TrainingArguments):
    """How taggers are loaded and predict, and the Trainer defaults that this changes.

    A recipe adds `model`: the folders of the taggers.
    """

    threshold: float | None = flag(
        None,
        "One decision threshold for all labels, compared with the scores of the output (default: "
        "the rule saved with the tagger).",
        least=0,
        most=1,
    )
    target_precision: float | None = flag(
        None,
        "Give a label only where it was right in this share of the held-out texts of its training, "
        "such as .9, whatever recall that costs (default: the rule saved with the tagger).",
        above=0,
        below=1,
    )
    abstain: float | None = flag(
        None,
        "Mark a text as unsure if the probability that all its labels are right is below this "
        "number, such as .8; the output then also has the probability, which fits the rule saved "
        "with the tagger and is approximate with --threshold or --target_precision (default: no "
        "such mark).",
        above=0,
        below=1,
    )
    encoder: str | None = flag(
        None, "New place of the encoder of a tagger, if it was moved (default: as saved)."
    )
    top_scores: int | None = flag(None, TOP_SCORES_HELP, least=1)
    bf16: bool | None = flag(
        False, "Compute in bfloat16: faster, scores change by about .01 (default: false)."
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    # The Trainer creates its output folder, so this names one that always exists.
    output_dir: str = flag(tempfile.gettempdir(), "Not used: the Trainer writes nothing.")

    def __post_init__(self):
        if self.threshold is not None and self.target_precision is not None:
            raise UserError("--target_precision: chooses thresholds; remove --threshold")
        choose_precision(self)
        super().__post_init__()
