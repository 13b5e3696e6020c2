"""A consistency training of under a second, for tests and for the scripts that tests start."""

import numpy as np
from datasets import Dataset
from tiny_training import COLLATOR, LABELS, make_rows
from transformers import TrainingArguments, set_seed

from shared.models.loading import load_sequence_classifier
from shared.training.consistency import ConsistencyTrainer
from shared.training.consistency_losses import (
    AnnealedLoss,
    ConsistencyLoss,
    LabelAlignment,
)
from shared.training.losses import MultilabelLoss, SingleLabelLoss


def make_unlabelled(n=40, seed=3):
    """Return random texts of 3 to 39 tokens, each with two copies that have other tokens."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        ids = rng.integers(5, 175, size=rng.integers(3, 40))
        copies = [np.where(rng.random(len(ids)) < 0.3, 7, ids) for _ in range(2)]
        rows.append({"input_ids": ids, "copies": copies, "length": len(ids)})
    return Dataset.from_list(rows)


def make_consistency_trainer(
    model,
    output_dir,
    *,
    single_label=False,
    annealing="none",
    unlabelled=None,
    weight=1.0,
    temperature=0.5,
    confidence=0.5,
    dropout=0.0,
    aligned=True,
    teacher_decay=0.0,
    **flags,
):
    """Return a trainer of a new copy of a saved model: an epoch has three steps of 8 + 16 rows."""
    set_seed(0)
    flags = {
        "use_cpu": True,
        "disable_tqdm": True,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "optim": "sgd",
        "logging_steps": 1,
        "save_strategy": "no",
        "train_sampling_strategy": "group_by_length",
        **flags,
    }
    rows = make_rows(20)
    if single_label:
        rows = rows.map(lambda row, i: {"labels": [i % len(LABELS)]}, with_indices=True)
    loss = SingleLabelLoss() if single_label else MultilabelLoss()
    alignment = LabelAlignment(
        [0.25] * 4, np.array([[0.4, 0.3, 0.2, 0.1]]), single_label=single_label
    )
    trainer = ConsistencyTrainer(
        model=load_sequence_classifier(str(model), LABELS, dropout=dropout),
        args=TrainingArguments(output_dir=str(output_dir), **flags),
        train_dataset=rows,
        data_collator=COLLATOR,
        compute_loss_func=AnnealedLoss(loss, annealing, lambda: trainer.progress),
        unlabelled=make_unlabelled() if unlabelled is None else unlabelled,
        ratio=2,
        consistency_loss=ConsistencyLoss(
            single_label=single_label, temperature=temperature, confidence=confidence
        ),
        consistency_weight=weight,
        alignment=alignment if aligned else None,
        teacher_decay=teacher_decay,
    )
    return trainer
