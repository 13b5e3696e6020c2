"""Train and predict on two processes; started by torchrun, see test_losses.py."""

import json
import os
import sys
from pathlib import Path

import torch
from tiny_training import SOFT, history, make_rows, make_trainer, weighted_rows

from shared.cli.errors import exit_on_user_error
from shared.training.losses import MultilabelLoss


class BrokenLoss(MultilabelLoss):
    """Return NaN at the second step, in the second process only."""

    calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        loss = super().__call__(*args, **kwargs)
        return loss * torch.nan if os.environ["RANK"] == "1" and self.calls == 2 else loss


def main(model, folder):
    results = {}
    for weight in (None, [1.0, 2.0, 3.0, 4.0]):
        for accumulation in (1, 4):
            loss = MultilabelLoss(None if weight is None else torch.tensor(weight))
            trainer = make_trainer(
                model,
                folder / "run",
                loss=loss,
                per_device_train_batch_size=8 // accumulation,
                gradient_accumulation_steps=accumulation,
                optim="sgd",
                num_train_epochs=1,
            )
            trainer.train()
            results[f"{weight} {accumulation}"] = history(trainer, "loss", "grad_norm")
    # An odd number of rows, so that the last batch is filled with rows that must be removed again.
    results["predictions"] = trainer.predict(make_rows(41, seed=2)).predictions.tolist()
    for accumulation in (1, 4):
        weighted = make_trainer(
            model,
            folder / "run",
            rows=weighted_rows(),
            collator=SOFT,
            per_device_train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation,
            optim="sgd",
            num_train_epochs=1,
        )
        weighted.train()
        results[f"weighted {accumulation}"] = history(weighted, "loss", "grad_norm")
    if os.environ["RANK"] == "0":
        (folder / "results.json").write_text(json.dumps(results))
        trainer.save_model(folder / "model")
    with exit_on_user_error():
        make_trainer(model, folder / "run", loss=BrokenLoss()).train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
