"""What a fine-tuned model must beat."""

from collections.abc import Sequence

import numpy as np


def naive_bayes(
    train_texts: Sequence[str], train_labels: np.ndarray, test_texts: Sequence[str]
) -> np.ndarray:
    """Predict labels by word counts and one multinomial naive Bayes classifier per label.

    The baseline of "Natural Language Processing with Transformers", chapter 9: binary relevance
    over `MultinomialNB` on `CountVectorizer`, defaults throughout, no threshold to tune.

    Parameters
    ----------
    train_texts, test_texts : sequence of str
    train_labels : array of shape (train rows, labels)
        Multi-hot.

    Returns
    -------
    array of shape (test rows, labels), bool
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from skmultilearn.problem_transform import BinaryRelevance

    vectorizer = CountVectorizer()
    classifier = BinaryRelevance(MultinomialNB(), require_dense=[False, True])
    try:
        counts = vectorizer.fit_transform(train_texts)
    except ValueError:  # no text holds a word
        return np.zeros((len(test_texts), train_labels.shape[1]), dtype=bool)
    classifier.fit(counts, np.asarray(train_labels, dtype=np.int64))
    return classifier.predict(vectorizer.transform(test_texts)).toarray().astype(bool)
