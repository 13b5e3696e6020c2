"""Classic classifiers of texts or of their embeddings: the baselines of a fine-tuned model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.data.words import WordAnalyzer
from shared.evaluation.decisions import choose_labels
from shared.methods.linear import LinearClassifier, WordClassifier, WordFeatures
from shared.methods.strategies import fit_strategy

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from skmultilearn.problem_transform import BinaryRelevance

    from shared.data.splits import Split


# --- pipelines -----------------------------------------------------------------------------------


def naive_bayes() -> Pipeline:
    """Return word counts and one multinomial naive Bayes classifier per label, all defaults.

    The baseline of "Natural Language Processing with Transformers", chapter 9. What is a word
    depends on the script; see `shared.data.words`.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline
    from skmultilearn.problem_transform import BinaryRelevance

    return make_pipeline(
        CountVectorizer(analyzer=WordAnalyzer()),
        BinaryRelevance(MultinomialNB(), require_dense=[False, True]),
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
        TfidfVectorizer(analyzer=WordAnalyzer((1, 2)), sublinear_tf=True),
        BinaryRelevance(
            LogisticRegression(C=30, class_weight="balanced", max_iter=500),
            require_dense=[False, True],
        ),
    )


def logistic_probe() -> BinaryRelevance:
    """Return one logistic regression per label on vectors of length one, with balanced classes."""
    from sklearn.linear_model import LogisticRegression
    from skmultilearn.problem_transform import BinaryRelevance

    classifier = LogisticRegression(class_weight="balanced", max_iter=500)
    return BinaryRelevance(classifier, require_dense=[True, True])


# --- fitting and scoring -------------------------------------------------------------------------


def fit_words(
    pipeline: Pipeline, train_texts: Sequence[str], train_labels: np.ndarray
) -> WordClassifier:
    """Fit a pipeline to texts: `naive_bayes`, `tfidf_logistic_regression` or `word_pipeline`.

    A label that every training text has scores 1 for every text, a label that no training text has
    scores 0. If no training text holds a word, all other labels score 0, too.

    Parameters
    ----------
    pipeline : Pipeline
    train_texts : sequence of str
    train_labels : array of shape (train texts, labels)
        Multi-hot.

    Raises
    ------
    UserError
        If the options of the pipeline leave out all terms.
    """
    vectorizer, classifier = (step for _, step in pipeline.steps)
    try:
        counts = vectorizer.fit_transform(train_texts)
    except ValueError as error:
        if "no terms remain" in str(error) or "max_df corresponds" in str(error):
            raise UserError(
                f"--min_df, --max_df: no term of the {len(train_texts):,} training texts is left; "
                "change them"
            ) from error
        if "empty vocabulary" not in str(error):
            raise
        always = np.asarray(np.all(train_labels, axis=0))
        return WordClassifier(WordFeatures([], {}, None), LinearClassifier.of_labels({}, always, 0))
    fitted = fit_strategy(classifier, counts, train_labels)
    return WordClassifier(WordFeatures.of(vectorizer), fitted)


def fit_ridge_on_words(
    train_texts: Sequence[str], values: np.ndarray
) -> Callable[[Sequence[str]], np.ndarray]:
    """Fit ridge regression on TF-IDF of words and word pairs.

    The weights of the words are those of `tfidf_logistic_regression`. The strength of the penalty
    is chosen by leave-one-out errors of the training texts.

    Parameters
    ----------
    train_texts : sequence of str
    values : float array of shape (train texts, quantities)

    Returns
    -------
    callable
        Maps texts to predictions, a float array of shape (texts, quantities).
    """
    vectorizer = tfidf_logistic_regression().steps[0][1]
    try:
        features = vectorizer.fit_transform(train_texts)
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return lambda texts: np.tile(np.mean(values, axis=0), (len(texts), 1))
    predict = fit_ridge(features, values)

    def predict_texts(texts: Sequence[str]) -> np.ndarray:
        return (
            predict(vectorizer.transform(texts)) if len(texts) else np.zeros((0, values.shape[1]))
        )

    return predict_texts


def fit_ridge(vectors: Any, values: np.ndarray) -> Callable[[Any], np.ndarray]:
    """Fit ridge regression on vectors, (rows, width) or sparse, as `fit_ridge_on_words` does."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=np.geomspace(0.1, 100, 7)).fit(vectors, values)
    return lambda rows: model.predict(rows).reshape(-1, values.shape[1])


def fit_and_score(
    pipeline: Pipeline,
    train_texts: Sequence[str],
    train_labels: np.ndarray,
    *texts: Sequence[str],
) -> list[np.ndarray]:
    """Fit a pipeline (see `fit_words`) and score sets of texts; return one array for each set."""
    score = fit_words(pipeline, train_texts, train_labels)
    return [score(part) for part in texts]


def naive_bayes_labels(split: Split) -> np.ndarray:
    """Return the labels that naive Bayes predicts for the test rows: bool, of shape (rows, labels).

    A label applies from a probability of 0.5 up. If every text has exactly one label, only the best
    label applies.
    """
    train, test = (split.rows[part]["text"] for part in ("train", "test"))
    (scores,) = fit_and_score(naive_bayes(), train, split.labels["train"], test)
    return choose_labels(scores, 0.5, single_label=split.corpus.single_label)
