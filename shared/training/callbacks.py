"""Trainer callbacks: stop without losing anything, and say in few words where a run stands."""

import os
import signal
import sys
from pathlib import Path

from tqdm import tqdm
from transformers import TrainerCallback

from shared.cli.files import write_json
from shared.cli.launch import max_over_processes
from shared.plots import plot_training_curve


class CheckpointOnSignal(TrainerCallback):
    """On Ctrl-C or SIGTERM: finish the step, save a checkpoint, stop, and say how to go on.

    A second Ctrl-C stops at once. In a distributed run all processes stop after the same step.
    The process ends with 128 + the signal's number, as shells report it.
    """

    def __init__(self):
        self.received = 0
        self.agreed = 0
        self._previous = {}

    def on_train_begin(self, args, state, control, **kwargs):
        """Take over the two signals for the length of the training."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number, frame):
        if self.received:
            raise KeyboardInterrupt
        self.received = number

    def on_step_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint if any process has received a signal.

        Not after the last step of an epoch: what belongs to the epoch's end comes first.
        """
        self.agreed = max_over_processes(self.received)
        control.should_save |= self.agreed > 0 and not state.epoch.is_integer()

    def on_epoch_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint at the end of an epoch."""
        control.should_save |= self.agreed > 0

    def on_save(self, args, state, control, **kwargs):
        """End the process once the checkpoint is written.

        Here rather than by ``should_training_stop``, after which the Trainer evaluates as at the
        end of an epoch, draws random numbers for it, and deletes all but the best checkpoint.
        """
        if not self.agreed:
            return
        max_over_processes(0)  # until the other processes have written their part
        if state.is_world_process_zero:
            print(
                f"\nstopped by {signal.Signals(self.agreed).name} after step {state.global_step} "
                f"of {state.max_steps}; checkpoint in "
                f"{os.path.join(args.output_dir, f'checkpoint-{state.global_step}')}; "
                "continue with the same command and --resume_from_checkpoint true",
                file=sys.stderr,
            )
        self._stop(self.agreed)

    def on_train_end(self, args, state, control, **kwargs):
        """Give the signals back; one that came after the last step still ends the process."""
        self._stop(max_over_processes(self.received))

    def _stop(self, number):
        for received, handler in self._previous.items():
            signal.signal(received, handler)
        if number:
            sys.exit(128 + number)


class ReadableProgress(TrainerCallback):
    """One line per evaluation instead of dictionaries; progress bars only on a terminal.

    Without evaluations there is a line per entry of the log.

    Replaces the Trainer's `PrinterCallback` and `ProgressCallback`.
    """

    def __init__(self):
        self.training_bar = None
        self.prediction_bar = None
        self.loss = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Open the bar at the step the run starts or resumes from."""
        self.training_bar = self._bar(state, "training", state.max_steps, state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        """Move the bar."""
        self.training_bar.update(state.global_step - self.training_bar.n)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """Move the bar of an evaluation or prediction."""
        if self.prediction_bar is None and eval_dataloader is not None:
            self.prediction_bar = self._bar(state, "predicting", len(eval_dataloader))
        if self.prediction_bar is not None:
            self.prediction_bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep the training loss for the next line, or write one where no evaluation will."""
        if "loss" in (logs or {}):
            self.loss = logs["loss"]
            if args.eval_strategy == "no":
                self._write(state, {"loss": self.loss})

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Write the line."""
        self._close_prediction_bar()
        shown = {"loss": self.loss, "valid loss": metrics.get("eval_loss")}
        shown["accuracy"] = metrics.get("eval_accuracy")
        if shown["accuracy"] is None:  # with one label per text micro F1 is the same
            shown["micro F1"] = metrics.get("eval_micro_f1")
        shown["macro F1"] = metrics.get("eval_macro_f1")
        self._write(state, shown)

    @staticmethod
    def _write(state, shown):
        cells = [f"{name} {value:.3f}" for name, value in shown.items() if value is not None]
        if state.is_world_process_zero:
            tqdm.write(f"  epoch {state.epoch or 0:5.2f}   " + "   ".join(cells), file=sys.stdout)

    def on_predict(self, args, state, control, **kwargs):
        """Close the bar of a prediction."""
        self._close_prediction_bar()

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar of the training."""
        self.training_bar.close()

    def _close_prediction_bar(self):
        if self.prediction_bar is not None:
            self.prediction_bar.close()
            self.prediction_bar = None

    @staticmethod
    def _bar(state, name, total, initial=0):
        # disable=None: only where stderr is a terminal.
        disable = None if state.is_world_process_zero else True
        return tqdm(
            desc=name, total=total, initial=initial, unit=" steps", leave=False, disable=disable
        )


class TrainingLog(TrainerCallback):
    """Collect the log of a training and plot it, anew after each evaluation.

    ``training_log.json`` holds all entries, ``plots/training_curve.png`` shows the losses and a
    validation metric. A resumed run goes on with those of the run before it.

    Parameters
    ----------
    folder : Path
    metric : str
        Key of the validation metric in the log.
    """

    def __init__(self, folder: Path, metric: str = "eval_micro_f1"):
        self.folder, self.metric = folder, metric

    def on_evaluate(self, args, state, control, **kwargs):
        """Write the log so far, so that one can look in while it runs."""
        self._write(state)

    def on_train_end(self, args, state, control, **kwargs):
        """Write the whole log."""
        self._write(state)

    def _write(self, state):
        if state.is_world_process_zero:
            write_json(self.folder / "training_log.json", {"log_history": state.log_history})
            path = self.folder / "plots" / "training_curve.png"
            path.parent.mkdir(exist_ok=True)
            plot_training_curve(state.log_history, path, metric=self.metric)
