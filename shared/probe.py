"""Logistic regression on vectors of texts, with the labels' names as examples of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def fit_probe(
    vectors: np.ndarray,
    labels: np.ndarray,
    name_vectors: np.ndarray,
    name_labels: np.ndarray,
    *,
    C: float,
    balance: float,
    name_weight: float,
    one_each: bool = False,
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit one logistic regression per label, or one over classes that exclude each other.

    The name of a label is a text about it, if a short one: as one more example, of less weight than
    a real one, it lets a label be found that the few labelled texts lack, and loses its say where
    they are many. Similarity to a name alone, without examples, is what `recipes/zero_shot.py`
    measures.

    Parameters
    ----------
    vectors : array of shape (rows, width)
        Of training texts, of length about one.
    labels : array of shape (rows, labels)
        Multi-hot.
    name_vectors : array of shape (phrases, width)
        Of what labels are called; may be empty.
    name_labels : int array of shape (phrases,)
        The label that each phrase stands for.
    C : float
        Inverse strength of the regularisation, as in scikit-learn.
    balance : float
        Power of the odds against a label by which its positives are weighed up: 1 gives both sides
        the same weight, 0 each text. Not used for classes.
    name_weight : float
        Weight of all phrases of a label together; a training text has 1.
    one_each : bool
        Every text has exactly one label.

    Returns
    -------
    score : callable
        From array of shape (texts, width) to probabilities, float64, of shape (texts, labels). A
        label without any example has 0 throughout, one that all training texts have 1.
    """
    from sklearn.linear_model import LogisticRegression

    n_labels = labels.shape[1]
    x = np.concatenate([vectors, name_vectors])
    y = np.concatenate([labels, np.eye(n_labels, dtype=labels.dtype)[name_labels]])
    phrases = np.bincount(name_labels, minlength=n_labels)[name_labels]
    weight = np.concatenate([np.ones(len(vectors)), name_weight / phrases])

    if one_each:
        known = np.flatnonzero(y.any(axis=0))
        model = LogisticRegression(C=C, max_iter=1000)
        if len(known) > 1:
            model.fit(x, y.argmax(axis=1), weight)

        def score(texts: np.ndarray) -> np.ndarray:
            found = np.zeros((len(texts), n_labels))
            if len(texts):
                found[:, known] = model.predict_proba(texts) if len(known) > 1 else 1.0
            return found

        return score

    always = y.all(axis=0)
    models = {}
    for label in np.flatnonzero(y.any(axis=0) & ~always):
        positive = y[:, label] > 0
        odds = weight[~positive].sum() / weight[positive].sum()
        weighed = weight * np.where(positive, odds**balance, 1.0)
        weighed *= len(vectors) / weighed.sum()
        models[label] = LogisticRegression(C=C, max_iter=1000).fit(x, positive, weighed)

    def score(texts: np.ndarray) -> np.ndarray:
        found = np.tile(always.astype(np.float64), (len(texts), 1))
        for label, model in models.items():
            if len(texts):
                found[:, label] = model.predict_proba(texts)[:, 1]
        return found

    return score
