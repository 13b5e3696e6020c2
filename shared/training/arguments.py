"""The training flags of all recipes, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import TrainingArguments

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.launch import choose_precision


@dataclass
class CheckpointArguments(TrainingArguments):
    """Flags that evaluate, log and save after each epoch, and keep the best checkpoint.

    Without validation rows (``--valid_size 0``) all epochs are trained and the last one is kept. A
    recipe with a flag ``predict`` trains nothing if it is set.
    """

    eval_strategy: str = flag(
        "epoch", "When to evaluate on the validation set: no, steps, epoch (default: epoch)."
    )
    save_strategy: str = flag(
        "epoch", "When to save a checkpoint: no, steps, epoch, best (default: epoch)."
    )
    save_total_limit: int | None = flag(
        1, "Number of checkpoints to keep besides the best (default: 1)."
    )
    logging_strategy: str = flag(
        "epoch", "When to log the training loss: no, steps, epoch (default: epoch)."
    )
    load_best_model_at_end: bool = flag(
        True, "Use the checkpoint with the best validation metric, not the last (default: true)."
    )
    restore_callback_states_from_checkpoint: bool = flag(
        True, "When resuming, restore the state of early stopping, too (default: true)."
    )

    def __post_init__(self):
        is_prediction = bool(getattr(self, "predict", None))
        if is_prediction and self.resume_from_checkpoint:
            raise UserError(
                "--resume_from_checkpoint: --predict trains nothing; remove one of them"
            )
        has_no_file = getattr(self, "valid_data", None) is None
        if is_prediction or (getattr(self, "valid_size", None) == 0 and has_no_file):
            self.eval_strategy, self.load_best_model_at_end = "no", False
        choose_precision(self)  # before the Trainer checks that the device supports bfloat16
        super().__post_init__()


@dataclass
class EpochTrainingArguments(CheckpointArguments):
    """`CheckpointArguments` with defaults that suit the fine-tuning of an encoder on texts."""

    num_train_epochs: float = flag(8, "Maximum number of epochs (default: 8).")
    learning_rate: float = flag(
        1e-4, "Peak learning rate (default: 1e-4; for BERT-base and larger use 3e-5)."
    )
    warmup_steps: float = flag(
        0.1, "Number of warm-up steps; below 1: their share of all steps (default: .1)."
    )
    warmup_factor: float | None = flag(
        None,
        "Learning rate of all warm-up steps, as a share of --learning_rate (default: it rises in "
        "equal steps from 0).",
        least=0,
        most=1,
    )
    per_device_train_batch_size: int = flag(16, "Texts per training step and device (default: 16).")
    per_device_eval_batch_size: int = flag(
        64, "Texts per evaluation batch and device (default: 64)."
    )
    bf16: bool | None = flag(
        None, "Train in bfloat16 (default: if the hardware has native bfloat16)."
    )
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "group_by_length",
        "Order of the training rows; group_by_length: random, with texts of similar length in a "
        "batch (default: group_by_length).",
    )
    metric_for_best_model: str | None = flag(
        "micro_f1", "Validation metric that selects the best checkpoint (default: micro_f1)."
    )
    ddp_find_unused_parameters: bool | None = flag(
        False,
        "On several processes: set to true for a model that does not use all its weights in every "
        "step (default: false).",
    )


@dataclass
class TableTrainingArguments(EpochTrainingArguments):
    """`EpochTrainingArguments` with defaults that suit small networks for the rows of a table."""

    lr_scheduler_type: str = flag("constant", "Course of the learning rate (default: constant).")
    warmup_steps: float = flag(0, "Warm-up steps; below 1: share of all steps (default: 0).")
    per_device_train_batch_size: int = flag(256, "Rows per step and device (default: 256).")
    per_device_eval_batch_size: int = flag(1024, "Rows per evaluation batch (default: 1024).")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "random", "Order of the training rows (default: random)."
    )
    bf16: bool | None = flag(False, "Train in bfloat16 (default: false; the networks are small).")


@dataclass
class ImageTrainingArguments(EpochTrainingArguments):
    """`EpochTrainingArguments` with defaults that suit small networks for images."""

    per_device_train_batch_size: int = flag(32, "Images per step and device (default: 32).")
    per_device_eval_batch_size: int = flag(64, "Images per evaluation batch (default: 64).")
    train_sampling_strategy: Literal["random", "sequential"] = flag(
        "random", "Order of the training images (default: random)."
    )
    remove_unused_columns: bool = flag(False, "Must stay false (default: false).")

    def __post_init__(self):
        self.label_names = ["labels"]  # not all of the networks name it
        super().__post_init__()
