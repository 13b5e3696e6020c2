"""Which columns a classifier of table rows relies on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shared.cli.launch import progress

MOST_ROWS = 2000


def log_loss(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean negative log-probability of the class of each row, both (rows, classes)."""
    probabilities = np.asarray(scores, np.float64)[np.asarray(y, bool)]
    return float(-np.log(np.maximum(probabilities, 1e-12)).mean())


def permutation_importance(
    score: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    y: np.ndarray,
    *,
    repeats: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Return how much the log loss rises when the values of a column are shuffled.

    Breiman (2001, "Random Forests", section 10). A column that says the same as another one can
    have a low importance although the classifier reads it.

    Parameters
    ----------
    score : callable
        Makes probabilities (rows, classes) of features (rows, columns).
    features : array of shape (rows, columns)
        Rows that the classifier was not trained on. Of more than 2,000, some are drawn.
    y : array of shape (rows, classes)
        One-hot.
    repeats : int, default 5
        Shuffles of each column, whose mean is taken.
    seed : int, default 0

    Returns
    -------
    float array of shape (columns,)
        In nats; about 0, also below, for a column that is not used.
    """
    generator = np.random.default_rng(seed)
    if len(features) > MOST_ROWS:
        rows = np.sort(generator.choice(len(features), MOST_ROWS, replace=False))
        features, y = features[rows], y[rows]
    before = log_loss(y, score(features))
    copies = np.tile(y, (repeats, 1))
    rises = []
    for column in progress(range(features.shape[1]), "shuffling columns", unit="columns"):
        shuffled = np.tile(features, (repeats, 1))
        for part in np.split(shuffled, repeats):
            part[:, column] = generator.permutation(part[:, column])
        rises.append(log_loss(copies, score(shuffled)) - before)
    return np.array(rises)
