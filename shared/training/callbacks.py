"""Trainer callbacks: a checkpoint on Ctrl-C, early stopping, readable progress, training log."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState, TrainingArguments

from shared.cli.arguments import flag
from shared.cli.files import write_json
from shared.cli.launch import max_over_processes, progress_bar
from shared.plots.training import plot_training_curve
from shared.training.fit import judge_fit


class CheckpointOnSignal(TrainerCallback):
    """On Ctrl-C or SIGTERM: finish the step, save a checkpoint, and stop.

    The message on stderr says how to resume. A second signal stops the process at once, without a
    checkpoint. In a distributed run all processes stop after the same step. The exit code is 128 +
    the number of the signal, as is usual for shells.

    Attributes
    ----------
    received : int
        Number of the signal that this process has received, 0 before.
    agreed : int
        The same over all processes: the highest of their numbers at the end of the last step.
    """

    def __init__(self) -> None:
        self.received = 0
        self.agreed = 0
        self._previous_handlers: dict[int, Any] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        """Install the signal handlers for the time of the training."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous_handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A handler runs in the middle of a step, where nothing can be saved. It only records the
        # number.
        if self.received:
            raise KeyboardInterrupt
        self.received = number

    def on_step_end(self, args, state, control, **kwargs):
        """Request a checkpoint if any process has received a signal.

        After the last step of an epoch `on_epoch_end` does it instead, so that the evaluation and
        the log entry of the epoch come before the checkpoint.
        """
        # A signal often reaches one process only, or the processes in different steps. Saving a
        # checkpoint needs all of them, so they agree on the signal after every step.
        self.agreed = max_over_processes(self.received)
        control.should_save |= self.agreed > 0 and not state.epoch.is_integer()

    def on_epoch_end(self, args, state, control, **kwargs):
        """Request a checkpoint at the end of an epoch."""
        control.should_save |= self.agreed > 0

    def on_save(self, args, state, control, **kwargs):
        """End the process once the checkpoint is written.

        ``should_training_stop`` is not used: after it the Trainer evaluates as at the end of an
        epoch, which draws random numbers, and deletes all checkpoints but the best.
        """
        if not self.agreed:
            return
        max_over_processes(0)  # a barrier: wait until every process has written its part
        if state.is_world_process_zero:
            print(
                f"\nstopped by {signal.Signals(self.agreed).name} after step {state.global_step} "
                f"of {state.max_steps}; checkpoint in "
                f"{os.path.join(args.output_dir, f'checkpoint-{state.global_step}')}; "
                "continue with the same command and --resume_from_checkpoint true",
                file=sys.stderr,
            )
        self._restore_handlers_and_exit(self.agreed)

    def on_train_end(self, args, state, control, **kwargs):
        """Restore the signal handlers; end the process if a signal came after the last step."""
        self._restore_handlers_and_exit(max_over_processes(self.received))

    def _restore_handlers_and_exit(self, received: int) -> None:
        """Restore the handlers; exit only if `received` is the number of a signal, not 0."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        if received:
            sys.exit(128 + received)


@dataclass
class EarlyStoppingArguments:
    """Flags of recipes that stop a training which no longer improves."""

    patience: int = flag(
        4, "Early stopping: evaluations in a row without a better metric (default: 4).", least=1
    )
    early_stopping_threshold: float = flag(
        0.0,
        "Early stopping: a metric is better only if it is higher by more than this (default: 0).",
        least=0,
        below=1,
    )


def early_stopping(args: TrainingArguments) -> list[TrainerCallback]:
    """Return the callback of early stopping; none if no best checkpoint is kept.

    Parameters
    ----------
    args : EarlyStoppingArguments and EpochTrainingArguments
    """
    if not args.load_best_model_at_end:
        return []
    return [EarlyStoppingCallback(args.patience, args.early_stopping_threshold)]


class ReadableProgress(TrainerCallback):
    """Print one line per evaluation instead of dictionaries; show progress bars.

    Without evaluations it prints one line per log entry. After a training with three evaluations or
    more, it prints the sentence of `shared.training.fit.judge_fit`. It replaces the Trainer's
    `PrinterCallback` and `ProgressCallback`.
    """

    def __init__(self) -> None:
        self.training_bar: tqdm | None = None
        self.prediction_bar: tqdm | None = None
        self.loss: float | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Open the progress bar at the step where the run starts or resumes."""
        self.training_bar = progress_bar(
            "training", state.max_steps, unit="steps", initial=state.global_step
        )

    def on_step_end(self, args, state, control, **kwargs):
        """Advance the progress bar of the training."""
        assert self.training_bar is not None
        self.training_bar.update(state.global_step - self.training_bar.n)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """Advance the progress bar of an evaluation or prediction; open it at the first step."""
        if self.prediction_bar is None and eval_dataloader is not None:
            self.prediction_bar = progress_bar("predicting", len(eval_dataloader), unit="steps")
        if self.prediction_bar is not None:
            self.prediction_bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep the training loss for the line of the evaluation; print it if there is none."""
        if logs and "loss" in logs:
            self.loss = logs["loss"]
            if args.eval_strategy == "no":
                self._write(state, {"loss": self.loss, "confident": logs.get("confident")})

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Print the line of an evaluation."""
        self._close_prediction_bar()
        shown = {"loss": self.loss, "valid loss": metrics.get("eval_loss")}
        shown["accuracy"] = metrics.get("eval_accuracy")
        if shown["accuracy"] is None:  # with one label per text, accuracy equals micro F1
            shown["micro F1"] = metrics.get("eval_micro_f1")
        shown["macro F1"] = metrics.get("eval_macro_f1")
        best = (getattr(args, "metric_for_best_model", None) or "loss").removeprefix("eval_")
        if best not in ("loss", "accuracy", "micro_f1", "macro_f1"):
            shown[best] = metrics.get(f"eval_{best}")
        self._write(state, shown)

    @staticmethod
    def _write(state: TrainerState, values: Mapping[str, float | None]) -> None:
        cells = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
        if state.is_world_process_zero:
            # tqdm.write moves open progress bars out of the way; print would break them.
            tqdm.write(f"  epoch {state.epoch or 0:5.2f}   " + "   ".join(cells), file=sys.stdout)

    def on_predict(self, args, state, control, **kwargs):
        """Close the progress bar of a prediction."""
        self._close_prediction_bar()

    def on_train_end(self, args, state, control, **kwargs):
        """Close the progress bar of the training; say whether it has underfit or overfit."""
        assert self.training_bar is not None
        self.training_bar.close()
        verdict = judge_fit(state.log_history)
        if verdict is not None and state.is_world_process_zero:
            print(f"  {verdict.sentence}", flush=True)

    def _close_prediction_bar(self) -> None:
        if self.prediction_bar is not None:
            self.prediction_bar.close()
            self.prediction_bar = None


class TrainingLog(TrainerCallback):
    """Write the log of a training and its plot, updated after each evaluation.

    ``training_log.json`` holds all entries. ``plots/training_curve.png`` shows the losses and one
    validation metric. A resumed run continues the log of the interrupted run.

    Parameters
    ----------
    folder : Path
        Folder of the two files.
    metric : str
        Key of the validation metric in the log.
    """

    def __init__(self, folder: Path, metric: str = "eval_micro_f1") -> None:
        self.folder, self.metric = folder, metric

    def on_evaluate(self, args, state, control, **kwargs):
        """Write the log so far, so that it can be read during the training."""
        self._write(state)

    def on_train_end(self, args, state, control, **kwargs):
        """Write the complete log."""
        self._write(state)

    def _write(self, state: TrainerState) -> None:
        if state.is_world_process_zero:
            write_json(self.folder / "training_log.json", {"log_history": state.log_history})
            path = self.folder / "plots" / "training_curve.png"
            path.parent.mkdir(exist_ok=True)
            plot_training_curve(state.log_history, path, metric=self.metric)
