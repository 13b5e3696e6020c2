"""`transformers.TrainingArguments` with the defaults of a small encoder and texts of any length."""

from dataclasses import dataclass
from typing import Literal

from transformers import TrainingArguments

from shared.arguments import flag
from shared.errors import UserError
from shared.hardware import choose_precision


@dataclass
class EpochTrainingArguments(TrainingArguments):
    """Validate, log and save after each epoch, and keep the best.

    Raises
    ------
    UserError
        For a rate, a number of epochs, a batch size or a patience that is not above 0.
    """

    num_train_epochs: float = flag(8, "Passes over the training rows, at most (default: 8).")
    learning_rate: float = flag(1e-4, "Peak rate (default: 1e-4; BERT-base and larger: 3e-5).")
    warmup_steps: float = flag(0.1, "Warm-up: steps, or below 1 a share of them (default: .1).")
    per_device_train_batch_size: int = flag(16, "Texts per step and device (default: 16).")
    per_device_eval_batch_size: int = flag(64, "Texts per evaluation batch (default: 64).")
    bf16: bool | None = flag(None, "Train in bfloat16 (default: where the hardware has it).")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "group_by_length", "Order of the training rows (default: group_by_length)."
    )
    eval_strategy: str = flag("epoch", "When to validate: no, steps, epoch (default: epoch).")
    save_strategy: str = flag("epoch", "When to save: no, steps, epoch, best (default: epoch).")
    save_total_limit: int | None = flag(1, "Checkpoints to keep beside the best (default: 1).")
    logging_strategy: str = flag("epoch", "When to log the loss: as for saving (default: epoch).")
    load_best_model_at_end: bool = flag(True, "Keep the best epoch, not the last (default: true).")
    metric_for_best_model: str | None = flag("micro_f1", "What is best (default: micro_f1).")
    restore_callback_states_from_checkpoint: bool = flag(True, "Resume patience, too.")
    ddp_find_unused_parameters: bool | None = flag(False, "For models that use only some weights.")

    def __post_init__(self):
        for name in ("learning_rate", "num_train_epochs", "per_device_train_batch_size"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name} {getattr(self, name)}: must be above 0")
        if getattr(self, "patience", 1) < 1:
            raise UserError(f"--patience {self.patience}: must be 1 or more")
        choose_precision(self)
        super().__post_init__()
