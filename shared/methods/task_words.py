"""A baseline of several tasks by words alone: a linear model on TF-IDF for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.data.tasks import TaskData, task_columns
from shared.data.words import WordAnalyzer
from shared.methods.baselines import fit_and_score, tfidf_logistic_regression


def ridge_on_words(
    train_texts: Sequence[str], values: np.ndarray, *texts: Sequence[str]
) -> list[np.ndarray]:
    """Fit ridge regression on TF-IDF of words and word pairs; predict sets of texts.

    The strength of the penalty is chosen by leave-one-out errors of the training texts.

    Parameters
    ----------
    train_texts : sequence of str
    values : float array of shape (train texts,)
    *texts : sequences of str

    Returns
    -------
    list of float arrays of shape (texts,)
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(analyzer=WordAnalyzer((1, 2)), sublinear_tf=True)
    pipeline = make_pipeline(vectorizer, RidgeCV(alphas=np.geomspace(0.1, 100, 7)))
    try:
        pipeline.fit(train_texts, values)
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return [np.full(len(part), values.mean()) for part in texts]
    return [pipeline.predict(part) if len(part) else np.zeros(0) for part in texts]


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
            outputs = [v[:, None] for v in ridge_on_words(train_texts, targets[:, 0], *texts)]
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
