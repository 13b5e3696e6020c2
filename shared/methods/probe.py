"""The probe: logistic regression on sentence embeddings, latent semantic analysis, and words.

`LatentSemanticAnalysis` makes features from the vocabulary of the texts, `fit_probe` fits the
classifier on training texts and label names. `shared.methods.self_training` adds unlabelled texts,
and chooses the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from shared.methods.linear import (
    Features,
    LinearClassifier,
    MixedFeatures,
    WordFeatures,
    fit_tfidf,
    stack,
)
from shared.methods.titles import titles

# --- latent semantic analysis --------------------------------------------------------------------


class LatentSemanticAnalysis:
    """TF-IDF vectors projected on the directions along which a collection of texts varies most.

    Deerwester et al. 1990, "Indexing by Latent Semantic Analysis". The vectors add what a sentence
    embedding does not know, the vocabulary of the collection: names of modules, of products, of
    errors. Words that occur in one text only, or in more than half of the texts, are left out. Term
    frequencies enter by their logarithm.

    Parameters
    ----------
    features : WordFeatures
        TF-IDF.
    components : float array of shape (dimensions, words)
        The directions.
    title_weight : float
        Weight of the vectors of titles, which follow those of the texts. 0: there are none.
    """

    def __init__(
        self, features: WordFeatures, components: np.ndarray, *, title_weight: float = 0.0
    ):
        self.features, self.components = features, components
        self.title_weight = title_weight

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        *,
        n_components: int = 256,
        pairs: bool = False,
        title_weight: float = 0.0,
        seed: int = 0,
    ) -> LatentSemanticAnalysis:
        """Learn the words and the directions of a collection of texts.

        Parameters
        ----------
        texts : sequence of str
            They need no labels; more texts are better.
        n_components : int
            Maximum number of dimensions; fewer if the collection has fewer words or texts. If it
            is too small to learn from, all vectors are zero, with one dimension.
        pairs : bool
            Whether pairs of adjacent words count as words, too.
        title_weight : float
        seed : int
            Seed of the randomised decomposition (Halko, Martinsson and Tropp 2011).
        """
        build = partial(cls, title_weight=title_weight)
        too_small = build(WordFeatures([], {}, None), np.zeros((1, 0)))
        # A number of texts, not a share: half of three texts would be one, below the minimum of
        # two.
        max_df = max(2, len(texts) // 2)
        features, tfidf = fit_tfidf(texts, pairs=pairs, max_df=max_df)
        if min(tfidf.shape) < 2:
            return too_small
        decomposition = TruncatedSVD(min(n_components, *tfidf.shape), random_state=seed).fit(tfidf)
        components = decomposition.components_.astype(np.float32)
        return build(features, components)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Project texts: float32, of shape (texts, dimensions), or twice as wide with titles.

        The vectors have length one, or are zero for a text without a known word.
        """
        return self.project(texts, self.features(texts))

    def project(self, texts: Sequence[str], tfidf: csr_matrix) -> np.ndarray:
        """Project texts whose TF-IDF vectors are there already."""
        vectors = self._directions(tfidf)
        if not self.title_weight:
            return vectors
        title_vectors = self._directions(self.features(titles(texts)))
        return np.concatenate([vectors, self.title_weight * title_vectors], axis=1)

    def _directions(self, tfidf: csr_matrix) -> np.ndarray:
        projected = tfidf @ self.components.T
        return normalize(projected).astype(np.float32) if len(projected) else projected


def probe_features(
    embeddings: np.ndarray, words: np.ndarray, word_weight: float, tfidf: csr_matrix | None = None
) -> Features:
    """Join the features of a probe: embeddings, weighted word vectors, and TF-IDF of all words.

    TF-IDF beside the dense features makes a probe wide, as in a wide and deep model (Cheng et al.
    2016, "Wide & Deep Learning for Recommender Systems"). All have one row per text.
    """
    dense = np.concatenate([embeddings, word_weight * words], axis=1)
    return dense if tfidf is None else MixedFeatures(dense, tfidf)


# --- probe ---------------------------------------------------------------------------------------


def fit_probe(
    vectors: Features | csr_matrix,
    labels: np.ndarray,
    name_vectors: Features | csr_matrix,
    name_labels: np.ndarray,
    *,
    C: float,
    balance: float,
    name_weight: float,
    weights: np.ndarray | None = None,
    single_label: bool = False,
) -> LinearClassifier:
    """Fit one logistic regression per label, or one multinomial one if classes exclude each other.

    The name of a label is treated as a short text with that label. As one more example, with a
    smaller weight than a real one, it makes it possible to predict a label that the few labelled
    texts lack; it matters little for a label with many texts. The similarity to a name also works
    alone, without examples (recipes/zero_shot.py).

    Parameters
    ----------
    vectors : array, csr_matrix or MixedFeatures of shape (rows, width)
        Vectors of the training texts, of length about one. Without any, the phrases alone are
        learned from.
    labels : array of shape (rows, labels)
        Multi-hot.
    name_vectors : like `vectors`, of shape (phrases, width)
        Vectors of the phrases that name labels; may be empty.
    name_labels : int array of shape (phrases,)
        The label that each phrase names.
    C : float
        Inverse strength of the regularisation, as in scikit-learn.
    balance : float
        Exponent of the class weights: the positives of a label get the weight (negatives /
        positives) ** balance. With 1, both classes have the same total weight; with 0, every text
        has the same weight. Not used with `single_label`.
    name_weight : float
        Total weight of the phrases of a label; a training text has weight 1.
    weights : array of shape (rows,), optional
        Weights of the training texts. None: all 1.
    single_label : bool
        Every text has exactly one label.

    Returns
    -------
    LinearClassifier
        A label without any example has probability 0 for every text; a label that all examples
        have, names included, has probability 1.
    """
    # Phrases become rows behind the training texts.
    n_labels = labels.shape[1]
    x, to_weights = _coordinates(stack([vectors, name_vectors]))
    y = np.concatenate([labels, np.eye(n_labels, dtype=labels.dtype)[name_labels]])
    # The phrases of a label share its `name_weight` evenly.
    phrases_of_label = np.bincount(name_labels, minlength=n_labels)[name_labels]
    weights = np.ones(len(labels)) if weights is None else weights
    row_weights = np.concatenate([weights, name_weight / phrases_of_label])

    if single_label:
        weights, bias = _fit_classes(x, y, row_weights, C)
        return LinearClassifier(to_weights(weights), bias, single_label=True)

    always = np.asarray(y.all(axis=0))
    fitted = {}
    for label in np.flatnonzero(y.any(axis=0) & ~always):
        positive = y[:, label] > 0
        odds = row_weights[~positive].sum() / row_weights[positive].sum()
        balanced = row_weights * np.where(positive, odds**balance, 1.0)
        # Keep the total weight at that of the training texts, or without any of the phrases: a
        # larger total would weaken the regularisation, and differently for each label.
        balanced *= (weights.sum() or row_weights.sum()) / balanced.sum()
        model = LogisticRegression(C=C, max_iter=1000).fit(x, positive, balanced)
        fitted[int(label)] = model.coef_[0], model.intercept_[0]
    probe = LinearClassifier.of_labels(fitted, always, x.shape[1])
    return replace(probe, weights=to_weights(probe.weights))


def _coordinates(
    x: Features | csr_matrix,
) -> tuple[np.ndarray | csr_matrix, Callable[[np.ndarray], np.ndarray]]:
    """Return few coordinates of mixed features of many words, and the way back for weights.

    The weights of a regularised linear model lie in the span of its rows (representer theorem). In
    orthonormal coordinates of that span, the rows are the Cholesky factor of their inner products:
    as wide as there are rows, instead of words. Fits are fast then. It takes several matrices of
    rows^2 numbers.
    """
    if isinstance(x, np.ndarray):
        return x, lambda weights: weights
    if not isinstance(x, MixedFeatures):  # fits of a sparse matrix are fast as it is
        return x, lambda weights: weights.astype(np.float32)
    products = x.inner_products()
    # Rows that repeat each other would make it singular.
    products[np.diag_indices(len(x))] += 1e-6 * products.diagonal().mean()
    factor = cholesky(products, lower=True)

    def to_weights(weights: np.ndarray) -> np.ndarray:
        rows = solve_triangular(factor, weights.T, lower=True, trans="T")  # (rows, labels)
        return x.transposed_matmul(rows).T.astype(np.float32)

    return factor, to_weights


def _fit_classes(
    x: np.ndarray | csr_matrix, y: np.ndarray, row_weights: np.ndarray, C: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit one logistic regression over classes that exclude each other, given one-hot labels.

    Returns weights of shape (labels, width), and biases.
    """
    classes = np.flatnonzero(y.any(axis=0))  # classes with an example, the model's columns
    weights = np.zeros((y.shape[1], x.shape[1]))
    bias = np.full(y.shape[1], -np.inf)
    bias[classes] = 0
    if len(classes) > 1:  # scikit-learn refuses a single class
        model = LogisticRegression(C=C, max_iter=1000).fit(x, y.argmax(axis=1), row_weights)
        # Of two classes, the model has only the logit of the second one.
        fitted = classes[1:] if len(classes) == 2 else classes
        weights[fitted], bias[fitted] = model.coef_, model.intercept_
    return weights, bias
