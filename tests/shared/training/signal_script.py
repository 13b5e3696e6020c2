"""Interrupt a training, resume it, and compare it with an uninterrupted one; see test_callbacks.py.

The settings are those of the recipes: an evaluation and a checkpoint per epoch (of six steps); the
best checkpoint and one other are kept. The last interruption ends the process.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from tiny_training import history, make_trainer, weights
from transformers import TrainerCallback

from shared.training.callbacks import CheckpointOnSignal
from shared.training.checkpoints import newest_complete_checkpoint

INTERRUPTIONS = {"in an epoch": 9, "at the end of an epoch": 12, "in the first epoch": 2}


class Interrupt(TrainerCallback):
    """Send a signal to this process during step `step`."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


class Last(TrainerCallback):
    """Keep the weights after the last step, before the best ones are loaded."""

    def on_step_end(self, args, state, control, model, **kwargs):
        self.weights = weights(model)


def build(model, folder, *callbacks):
    return make_trainer(
        model,
        folder,
        dropout=0.1,
        callbacks=[CheckpointOnSignal(), *callbacks],
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # so that the best epoch is the first, not the newest
    )


def run(trainer, checkpoint=None):
    """Train to the end; return evaluations, the best step, the last and the best weights."""
    last = Last()
    trainer.add_callback(last)
    trainer.train(resume_from_checkpoint=checkpoint)
    (evaluations,) = history(trainer, "eval_loss")
    return evaluations, trainer.state.best_global_step, last.weights, weights(trainer.model)


def main(model, folder):
    expected = run(build(model, folder / "whole"))
    results = {"evaluations": len(expected[0]), "best step": expected[1]}
    for name, step in INTERRUPTIONS.items():
        code = None
        try:
            build(model, folder / name, Interrupt(step, signal.SIGINT)).train()
        except SystemExit as exit:
            code = exit.code
        newest = newest_complete_checkpoint(folder / name)
        resumed = build(model, folder / name)
        evaluations, best, *arrays = run(resumed, newest)
        results[name] = {
            "code": code,
            "newest": newest and Path(newest).name,
            "steps": resumed.state.global_step,
            "same evaluations": evaluations == expected[0],
            "same best step": best == expected[1],
            "same weights": [
                np.array_equal(*pair) for pair in zip(arrays, expected[2:], strict=True)
            ],
            "handler restored": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        }
    (folder / "results.json").write_text(json.dumps(results))
    build(model, folder / "terminated", Interrupt(4, signal.SIGTERM)).train()
    print("not reached", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
