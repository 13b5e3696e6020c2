"""Train on two processes; started by torchrun, see test_consistency.py."""

import json
import os
import sys
from pathlib import Path

from tiny_consistency import make_consistency_trainer
from tiny_training import history


def main(model, folder):
    results = {}
    for single_label in (True, False):
        for accumulation in (1, 2):
            trainer = make_consistency_trainer(
                model,
                folder / "run",
                single_label=single_label,
                per_device_train_batch_size=4 // accumulation,
                gradient_accumulation_steps=accumulation,
            )
            trainer.train()
            results[f"{single_label} {accumulation}"] = history(trainer, "loss", "grad_norm")
    if os.environ["RANK"] == "0":
        (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
