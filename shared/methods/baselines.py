"""Classic classifiers, of texts or of their vectors: what a fine-tuned model must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.evaluation.decisions import choose_labels

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from shared.data.splits import Split


def naive_bayes() -> Pipeline:
    """Word counts and one multinomial naive Bayes classifier per label, defaults throughout.

    The baseline of "Natural Language Processing with Transformers", chapter 9.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline
    from skmultilearn.problem_transform import BinaryRelevance

    return make_pipeline(
        CountVectorizer(), BinaryRelevance(MultinomialNB(), require_dense=[False, True])
    )


def tfidf_logistic_regression() -> Pipeline:
    """TF-IDF of words and pairs of words, and one logistic regression per label.

    The strongest of the classics from a few hundred labels up: term frequencies count by their
    logarithm, rare labels weigh as much as frequent ones, and little regularisation suits rows of
    length one.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from skmultilearn.problem_transform import BinaryRelevance

    return make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
        BinaryRelevance(
            LogisticRegression(C=30, class_weight="balanced", max_iter=500),
            require_dense=[False, True],
        ),
    )


def logistic_probe() -> Pipeline:
    """One logistic regression per label on vectors of length one, rare labels weighed up."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from skmultilearn.problem_transform import BinaryRelevance

    classifier = LogisticRegression(class_weight="balanced", max_iter=500)
    return make_pipeline(BinaryRelevance(classifier, require_dense=[True, True]))


def fit_scorer(
    pipeline: Pipeline, train_texts: Sequence[str] | np.ndarray, train_labels: np.ndarray
) -> Callable[[Sequence[str] | np.ndarray], np.ndarray]:
    """Fit a pipeline; return the function that scores texts with it.

    A label that all training rows have, or none, scores 1 or 0 throughout; so does each label where
    no training text holds a word.

    Parameters
    ----------
    pipeline : Pipeline
        One of this module.
    train_texts : sequence of str, or array of shape (train rows, width)
        What the pipeline takes: texts, or their vectors.
    train_labels : array of shape (train rows, labels)
        Multi-hot.

    Returns
    -------
    callable
        Takes what the pipeline takes, returns probabilities: a float64 array of shape
        (texts, labels).
    """
    train_labels = np.asarray(train_labels, dtype=np.int64)
    always = train_labels.all(axis=0)
    learnable = train_labels.any(axis=0) & ~always
    if learnable.any():
        try:
            pipeline.fit(train_texts, train_labels[:, learnable])
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            learnable[:] = False

    def score(texts):
        scores = np.tile(always.astype(np.float64), (len(texts), 1))
        if len(texts) and learnable.any():
            scores[:, learnable] = pipeline.predict_proba(texts).toarray()
        return scores

    return score


def naive_bayes_labels(split: Split) -> np.ndarray:
    """Return the labels that naive Bayes gives the test rows: bool, of shape (rows, labels).

    A label applies from a probability of 0.5, or the best label alone if every text has exactly one.
    """
    train, test = (split.rows[part]["text"] for part in ("train", "test"))
    (scores,) = fit_and_score(naive_bayes(), train, split.labels["train"], test)
    return choose_labels(scores, 0.5, single_label=split.corpus.single_label)


def fit_and_score(
    pipeline: Pipeline,
    train_texts: Sequence[str] | np.ndarray,
    train_labels: np.ndarray,
    *texts: Sequence[str] | np.ndarray,
) -> list[np.ndarray]:
    """Fit a pipeline (see `fit_scorer`) and score sets of texts: one array for each."""
    score = fit_scorer(pipeline, train_texts, train_labels)
    return [score(part) for part in texts]
