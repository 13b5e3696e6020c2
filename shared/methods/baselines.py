"""Classic classifiers of texts or of their embeddings: the baselines of a fine-tuned model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.evaluation.decisions import choose_labels

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from shared.data.splits import Split


# --- pipelines -----------------------------------------------------------------------------------


def naive_bayes() -> Pipeline:
    """Return word counts and one multinomial naive Bayes classifier per label, all defaults.

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
    """Return TF-IDF of words and word pairs, and one logistic regression per label.

    The strongest of the classic classifiers from a few hundred labels up. Term frequencies enter by
    their logarithm (``sublinear_tf``). Rare labels weigh as much as frequent ones
    (``class_weight="balanced"``). Regularisation is weak (``C=30``), which suits rows of length
    one.
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
    """Return one logistic regression per label on vectors of length one, with balanced classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from skmultilearn.problem_transform import BinaryRelevance

    classifier = LogisticRegression(class_weight="balanced", max_iter=500)
    return make_pipeline(BinaryRelevance(classifier, require_dense=[True, True]))


# --- fitting and scoring -------------------------------------------------------------------------


def fit_scorer(
    pipeline: Pipeline, train_texts: Sequence[str] | np.ndarray, train_labels: np.ndarray
) -> Callable[[Sequence[str] | np.ndarray], np.ndarray]:
    """Fit a pipeline; return the function that scores texts with it.

    A label that every training row has scores 1 for every text, a label that no training row has
    scores 0. If no training text holds a word, all other labels score 0, too.

    Parameters
    ----------
    pipeline : Pipeline
        From a function of this module.
    train_texts : sequence of str, or array of shape (train rows, width)
        The input of the pipeline: texts, or their vectors.
    train_labels : array of shape (train rows, labels)
        Multi-hot.

    Returns
    -------
    callable
        Maps texts or vectors, as the pipeline takes them, to probabilities: a float64 array of
        shape (texts, labels).
    """
    train_labels = np.asarray(train_labels, dtype=np.int64)
    # Constant labels are left out of the fit: a classifier needs both classes of a label.
    always = train_labels.all(axis=0)  # (labels,)
    learnable = train_labels.any(axis=0) & ~always  # (labels,)
    if learnable.any():
        try:
            pipeline.fit(train_texts, train_labels[:, learnable])
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            learnable = np.zeros_like(learnable)

    def score(texts: Sequence[str] | np.ndarray) -> np.ndarray:
        scores = np.tile(always.astype(np.float64), (len(texts), 1))
        if len(texts) and learnable.any():
            scores[:, learnable] = pipeline.predict_proba(texts).toarray()
        return scores

    return score


def fit_and_score(
    pipeline: Pipeline,
    train_texts: Sequence[str] | np.ndarray,
    train_labels: np.ndarray,
    *texts: Sequence[str] | np.ndarray,
) -> list[np.ndarray]:
    """Fit a pipeline (see `fit_scorer`) and score sets of texts; return one array for each set."""
    score = fit_scorer(pipeline, train_texts, train_labels)
    return [score(part) for part in texts]


def naive_bayes_labels(split: Split) -> np.ndarray:
    """Return the labels that naive Bayes predicts for the test rows: bool, of shape (rows, labels).

    A label applies from a probability of 0.5 up. If every text has exactly one label, only the best
    label applies.
    """
    train, test = (split.rows[part]["text"] for part in ("train", "test"))
    (scores,) = fit_and_score(naive_bayes(), train, split.labels["train"], test)
    return choose_labels(scores, 0.5, single_label=split.corpus.single_label)
