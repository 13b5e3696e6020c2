"""Fitted linear classifiers as plain arrays: they can be saved, and score texts without a fit.

`MixedFeatures` are features that are partly dense, partly sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.data.words import VERSION, WordAnalyzer, analyzer_of_version
from shared.evaluation.decisions import sigmoid, softmax

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer


@dataclass(frozen=True)
class MixedFeatures:
    """Rows of features: first the dense ones, such as embeddings, then the sparse ones: words.

    Attributes
    ----------
    dense : array of shape (rows, dense width)
    sparse : csr_matrix of shape (rows, sparse width)
    """

    dense: np.ndarray
    sparse: csr_matrix

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, width."""
        return len(self.dense), self.dense.shape[1] + self.sparse.shape[1]

    def __getitem__(self, rows: Any) -> MixedFeatures:
        return MixedFeatures(self.dense[rows], self.sparse[rows])

    def __matmul__(self, matrix: np.ndarray) -> np.ndarray:
        """Multiply with a matrix of shape (width, columns)."""
        width = self.dense.shape[1]
        return self.dense @ matrix[:width] + self.sparse @ matrix[width:]

    def transposed_matmul(self, matrix: np.ndarray) -> np.ndarray:
        """Multiply the transpose with a matrix of shape (rows, columns): (width, columns)."""
        return np.concatenate([self.dense.T @ matrix, self.sparse.T @ matrix])

    def inner_products(self) -> np.ndarray:
        """Return the inner product of every two rows: float64, of shape (rows, rows)."""
        dense = self.dense.astype(np.float64)
        return dense @ dense.T + (self.sparse @ self.sparse.T).toarray()


Features = np.ndarray | MixedFeatures


def stack(parts: Sequence[Any]) -> Any:
    """Return the rows of several features: all arrays, all sparse, or all `MixedFeatures`."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from scipy.sparse import vstack

    if not isinstance(parts[0], MixedFeatures):
        return vstack(parts, format="csr")
    sparse = vstack([part.sparse for part in parts], format="csr")
    return MixedFeatures(np.concatenate([part.dense for part in parts]), sparse)


@dataclass(frozen=True)
class LinearClassifier:
    """Probabilities from a weighted sum of features: logistic regression, or naive Bayes.

    Attributes
    ----------
    weights : float array of shape (labels, width)
    bias : float array of shape (labels,)
        Infinite for a label that all texts have, negative infinite for one that none has.
    single_label : bool
        Labels exclude each other: a softmax over them. False: a sigmoid for each label.
    """

    weights: np.ndarray
    bias: np.ndarray
    single_label: bool = False

    def __call__(self, features: Features | csr_matrix) -> np.ndarray:
        """Return probabilities of features (rows, width): float64, of shape (rows, labels)."""
        logits = self.logits(features)
        return softmax(logits) if self.single_label else sigmoid(logits)

    def logits(self, features: Features | csr_matrix) -> np.ndarray:
        """Return the weighted sums of features (rows, width): of shape (rows, labels)."""
        return features @ self.weights.T + self.bias

    def scaled(self, factor: float) -> LinearClassifier:
        """Return the classifier whose logits are multiplied by a number above 0."""
        return replace(self, weights=self.weights * factor, bias=self.bias * factor)

    def select(self, label: int) -> LinearClassifier:
        """Return the classifier of one label."""
        return LinearClassifier(self.weights[label : label + 1], self.bias[label : label + 1])

    @classmethod
    def of_labels(
        cls, fitted: dict[int, tuple[np.ndarray, float]], always: np.ndarray, width: int
    ) -> LinearClassifier:
        """Combine classifiers of one label each.

        Parameters
        ----------
        fitted : dict of label number to its weights, of shape (width,), and its bias
        always : bool array of shape (labels,)
            Labels without a classifier that every text has. No text has the other ones.
        width : int
        """
        bias = np.where(always, np.inf, -np.inf)
        weights = np.zeros((len(always), width))
        for label, (label_weights, label_bias) in fitted.items():
            weights[label], bias[label] = label_weights, label_bias
        return cls(weights, bias)


@dataclass(frozen=True)
class LinearEnsemble:
    """The mean of the probabilities of several linear classifiers of the same features."""

    members: Sequence[LinearClassifier]

    def __call__(self, features: Features | csr_matrix) -> np.ndarray:
        """Return probabilities of features (rows, width): float64, of shape (rows, labels)."""
        return np.mean([member(features) for member in self.members], axis=0)


class WordFeatures:
    """Counts or TF-IDF of the words of texts, from the vocabulary that was fitted.

    Parameters
    ----------
    words : sequence of str
        The vocabulary, in the order of the features; may be empty.
    options : dict
        JSON values: ``ngram_range``, [1, 2] for words and pairs of words; ``sublinear_tf``, as in
        scikit-learn's ``TfidfVectorizer``; ``words_version``, the way in which texts are cut into
        words (see `shared.data.words`), or ``analyzer``, "char" or "char_wb", for characters.
    idf : float array of shape (words,), optional
        The weight of each word. None: words are counted.
    """

    def __init__(self, words: Sequence[str], options: dict[str, Any], idf: np.ndarray | None):
        from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

        self.words, self.options, self.idf = words, options, idf
        low, high = options.get("ngram_range", (1, 1))
        analyzer: Callable[[str], list[str]]
        if "analyzer" in options:
            characters = CountVectorizer(analyzer=options["analyzer"], ngram_range=(low, high))
            analyzer = characters.build_analyzer()
        else:
            # Folders of taggers from before there were versions do not name any.
            analyzer = analyzer_of_version(options.get("words_version", 1), (low, high))
        if not len(words):
            self._vectorizer = None
        elif idf is None:
            self._vectorizer = CountVectorizer(vocabulary=words, analyzer=analyzer)
        else:
            self._vectorizer = TfidfVectorizer(
                vocabulary=words,
                analyzer=analyzer,
                sublinear_tf=options.get("sublinear_tf", False),
            )
            self._vectorizer.idf_ = idf

    @classmethod
    def of(cls, vectorizer: CountVectorizer) -> WordFeatures:
        """Return the features of a fitted vectorizer of characters or with a `WordAnalyzer`."""
        words = vectorizer.get_feature_names_out().tolist()
        analyzer = vectorizer.analyzer
        options: dict[str, Any] = {"sublinear_tf": getattr(vectorizer, "sublinear_tf", False)}
        if isinstance(analyzer, WordAnalyzer):
            options |= {"ngram_range": list(analyzer.ngram_range), "words_version": VERSION}
        else:
            options |= {"ngram_range": list(vectorizer.ngram_range), "analyzer": analyzer}
        return cls(words, options, getattr(vectorizer, "idf_", None))

    def __call__(self, texts: Sequence[str]) -> csr_matrix:
        """Return the features of texts: sparse, of shape (texts, words)."""
        from scipy.sparse import csr_matrix

        # scikit-learn refuses an empty list of texts and an empty vocabulary.
        if self._vectorizer is None or not len(texts):
            return csr_matrix((len(texts), len(self.words)))
        return self._vectorizer.transform(texts)


def fit_tfidf(
    texts: Sequence[str], *, pairs: bool = False, max_df: float = 1.0
) -> tuple[WordFeatures, csr_matrix]:
    """Learn the words of texts that need no labels.

    Words of one text only are left out. Term frequencies enter by their logarithm.

    Parameters
    ----------
    texts : sequence of str
    pairs : bool
        Whether pairs of adjacent words count as words, too.
    max_df : float or int
        Words of more texts are left out: a share, or with an int a number of texts.

    Returns
    -------
    features : WordFeatures
        TF-IDF; without any word if none is left.
    tfidf : csr_matrix of shape (texts, words)
        The features of the texts.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    analyzer = WordAnalyzer((1, 1 + pairs))
    vectorizer = TfidfVectorizer(analyzer=analyzer, sublinear_tf=True, min_df=2, max_df=max_df)
    try:
        tfidf = vectorizer.fit_transform(texts)
    except ValueError as error:
        if "empty vocabulary" not in str(error) and "no terms remain" not in str(error):
            raise
        return WordFeatures([], {}, None), csr_matrix((len(texts), 0))
    return WordFeatures.of(vectorizer), tfidf


@dataclass(frozen=True)
class WordClassifier:
    """A classifier of texts by their words; `classifier` is one of `fit_strategy`."""

    features: WordFeatures
    classifier: Callable[[csr_matrix], np.ndarray]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return probabilities: float64, of shape (texts, labels)."""
        return self.classifier(self.features(texts))
