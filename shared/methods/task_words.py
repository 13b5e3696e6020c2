"""A baseline of several tasks by words alone: a linear model on TF-IDF for each."""

from __future__ import annotations

import numpy as np

from shared.data.tasks import TaskData, task_columns
from shared.methods.baselines import (
    fit_and_score,
    fit_ridge_on_words,
    tfidf_logistic_regression,
)


def words_of_tasks(data: TaskData) -> dict[str, np.ndarray]:
    """Fit a linear model on words for each task: logistic regression, or ridge of numbers.

    Returns
    -------
    dict of "valid" and "test" to float array of shape (rows, outputs of all tasks)
        As the logits of a model of these tasks.
    """
    parts = ("valid", "test")
    train, tasks = data.parts["train"], data.tasks
    logits = {part: np.zeros(data.parts[part].targets.shape) for part in parts}
    for task, columns in zip(tasks, task_columns(tasks), strict=True):
        known = np.flatnonzero(~np.isnan(train.targets[:, columns]).any(axis=1))
        train_texts, targets = [train.texts[i] for i in known], train.targets[known, columns]
        texts = [data.parts[part].texts for part in parts]
        if task.is_regression:
            predict = fit_ridge_on_words(train_texts, targets)
            outputs = [predict(part) for part in texts]
        else:
            scores = fit_and_score(
                tfidf_logistic_regression(), train_texts, targets.astype(np.uint8), *texts
            )
            # The logit of a probability; it keeps the order of the classes of a single label.
            clipped = [np.clip(values, 1e-9, 1 - 1e-9) for values in scores]
            outputs = [np.log(values / (1 - values)) for values in clipped]
        for part, values in zip(parts, outputs, strict=True):
            logits[part][:, columns] = values
    return logits
