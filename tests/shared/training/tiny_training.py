"""A training of under a second, for tests and for the scripts that tests start."""

from types import SimpleNamespace

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments, set_seed

from shared.models.loading import load_sequence_classifier
from shared.training.collators import MultilabelCollator, SoftLabelCollator, with_soft_labels
from shared.training.losses import MultilabelLoss
from shared.training.trainer import LengthGroupedTrainer

LABELS = list("abcd")
_PADDING = SimpleNamespace(pad_token_id=0, padding_side="right")
COLLATOR = MultilabelCollator(_PADDING, len(LABELS))
SOFT = SoftLabelCollator(_PADDING)


def make_rows(n=48, seed=0):
    """Return random texts of 3 to 59 tokens; the labels follow from the first three tokens."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        ids = rng.integers(5, 175, size=rng.integers(3, 60))
        rows.append({"input_ids": ids, "labels": np.flatnonzero(ids[:3].sum() % [2, 3, 5, 7] == 0)})
    return Dataset.from_list([{**row, "length": len(row["input_ids"])} for row in rows])


def weighted_rows(n=48):
    """Return such rows with soft labels, and weights from 0 to 3."""
    rows, rng = make_rows(n), np.random.default_rng(0)
    return with_soft_labels(rows, rng.dirichlet(np.ones(len(LABELS)), n), 3 * rng.random(n))


def make_trainer(
    model,
    output_dir,
    *,
    dropout=0.0,
    loss=None,
    rows=None,
    collator=None,
    callbacks=(),
    options=None,
    **flags,
):
    """Return a trainer of a new copy of a saved model; `options` are arguments of the trainer."""
    set_seed(0)
    flags = {
        "use_cpu": True,
        "disable_tqdm": True,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "train_sampling_strategy": "group_by_length",
        **flags,
    }
    trainer = LengthGroupedTrainer(
        model=load_sequence_classifier(str(model), LABELS, dropout=dropout),
        args=TrainingArguments(output_dir=str(output_dir), **flags),
        train_dataset=make_rows() if rows is None else rows,
        eval_dataset=make_rows(20, seed=1),
        data_collator=collator or COLLATOR,
        compute_loss_func=loss or MultilabelLoss(),
        callbacks=list(callbacks),
        **(options or {}),
    )
    return trainer


def history(trainer, *names):
    """Return the logged values of each name as one list."""
    return [[entry[name] for entry in trainer.state.log_history if name in entry] for name in names]


def weights(model):
    """Return all weights as one flat array."""
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
