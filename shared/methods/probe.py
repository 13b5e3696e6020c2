"""The few-label probe: logistic regression on sentence embeddings and latent semantic analysis.

Three steps: `latent_semantic_vectors` makes features from the vocabulary of the texts, `fit_probe`
fits the classifier on training texts and label names, `self_train` adds unlabelled texts to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

# Maps vectors (texts, width) to probabilities (texts, labels).
Probe = Callable[[np.ndarray], np.ndarray]


# --- latent semantic analysis --------------------------------------------------------------------


def latent_semantic_vectors(
    fit_texts: Sequence[str], *texts: Sequence[str], n_components: int = 256, seed: int = 0
) -> list[np.ndarray]:
    """Project TF-IDF vectors on the directions along which a collection of texts varies most.

    Deerwester et al. 1990, "Indexing by Latent Semantic Analysis". The vectors add what a sentence
    embedding does not know, the vocabulary of the collection: names of modules, of products, of
    errors. Words that occur in one text only, or in more than half of the texts, are left out. Term
    frequencies enter by their logarithm.

    Parameters
    ----------
    fit_texts : sequence of str
        Texts to learn from. They need no labels; more texts are better.
    *texts : sequences of str
        Texts to project.
    n_components : int
        Maximum number of dimensions; fewer if the collection has fewer words or texts.
    seed : int
        Seed of the randomised decomposition (Halko, Martinsson and Tropp 2011).

    Returns
    -------
    list of float32 arrays of shape (texts, dimensions)
        Vectors of length one; zero for a text without a known word. If the collection is too small
        to learn from, all vectors are zero, with one dimension.
    """
    too_small = [np.zeros((len(part), 1), np.float32) for part in texts]
    # A number of texts, not a share: half of three texts would be one, below the minimum of two.
    max_df = max(2, len(fit_texts) // 2)
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, max_df=max_df)
    try:
        tfidf = vectorizer.fit_transform(fit_texts)  # sparse, (fit texts, words)
    except ValueError as error:
        if "empty vocabulary" not in str(error) and "no terms remain" not in str(error):
            raise
        return too_small
    if min(tfidf.shape) < 2:
        return too_small
    n_components = min(n_components, min(tfidf.shape))
    decomposition = TruncatedSVD(n_components, random_state=seed).fit(tfidf)
    vectors = []
    for part in texts:
        projected = np.zeros((0, n_components))
        # scikit-learn refuses to transform an empty list.
        if len(part):
            projected = decomposition.transform(vectorizer.transform(part))
        vectors.append(normalize(projected).astype(np.float32) if len(part) else projected)
    return vectors


# --- probe ---------------------------------------------------------------------------------------


def fit_probe(
    vectors: np.ndarray,
    labels: np.ndarray,
    name_vectors: np.ndarray,
    name_labels: np.ndarray,
    *,
    C: float,
    balance: float,
    name_weight: float,
    weights: np.ndarray | None = None,
    single_label: bool = False,
) -> Probe:
    """Fit one logistic regression per label, or one multinomial one if classes exclude each other.

    The name of a label is treated as a short text with that label. As one more example, with a
    smaller weight than a real one, it makes it possible to predict a label that the few labelled
    texts lack; it matters little for a label with many texts. `recipes/zero_shot.py` measures how
    well the similarity to a name works alone, without examples.

    Parameters
    ----------
    vectors : array of shape (rows, width)
        Vectors of the training texts, of length about one.
    labels : array of shape (rows, labels)
        Multi-hot.
    name_vectors : array of shape (phrases, width)
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
    score : callable
        Maps an array of shape (texts, width) to probabilities, float64, of shape (texts, labels).
        A label without any example has probability 0 for every text; a label that all examples
        have, names included, has probability 1.
    """
    # Phrases become rows behind the training texts.
    n_labels = labels.shape[1]
    x = np.concatenate([vectors, name_vectors])
    y = np.concatenate([labels, np.eye(n_labels, dtype=labels.dtype)[name_labels]])
    # The phrases of a label share its `name_weight` evenly.
    phrases_of_label = np.bincount(name_labels, minlength=n_labels)[name_labels]
    weights = np.ones(len(vectors)) if weights is None else weights
    row_weights = np.concatenate([weights, name_weight / phrases_of_label])

    if single_label:
        return _fit_classes(x, y, row_weights, C)

    always = y.all(axis=0)
    models = {}
    for label in np.flatnonzero(y.any(axis=0) & ~always):
        positive = y[:, label] > 0
        odds = row_weights[~positive].sum() / row_weights[positive].sum()
        balanced = row_weights * np.where(positive, odds**balance, 1.0)
        # Keep the total weight at that of the training texts: a larger total would weaken the
        # regularisation, and differently for each label.
        balanced *= weights.sum() / balanced.sum()
        models[label] = LogisticRegression(C=C, max_iter=1000).fit(x, positive, balanced)

    def score(texts: np.ndarray) -> np.ndarray:
        scores = np.tile(always.astype(np.float64), (len(texts), 1))
        for label, model in models.items():
            if len(texts):
                scores[:, label] = model.predict_proba(texts)[:, 1]
        return scores

    return score


def _fit_classes(x: np.ndarray, y: np.ndarray, row_weights: np.ndarray, C: float) -> Probe:
    """Fit one logistic regression over classes that exclude each other, given one-hot labels."""
    classes = np.flatnonzero(y.any(axis=0))  # classes with an example, the model's columns
    model = LogisticRegression(C=C, max_iter=1000)
    if len(classes) > 1:  # scikit-learn refuses a single class
        model.fit(x, y.argmax(axis=1), row_weights)

    def score(texts: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(texts), y.shape[1]))
        if len(texts):
            scores[:, classes] = model.predict_proba(texts) if len(classes) > 1 else 1.0
        return scores

    return score


# --- self-training -------------------------------------------------------------------------------


# The share of the texts of each label that become examples, the weight of such an example (a
# training text has 1), and the maximum number of rounds. Chosen on BANKING77 and the issues.
SURE, WEIGHT, ROUNDS = 0.7, 0.3, 4


def self_train(
    score: Probe,
    fit: Callable[..., Probe],
    vectors: np.ndarray,
    labels: np.ndarray,
    unlabelled: np.ndarray,
    *,
    choose: Callable[[np.ndarray], np.ndarray],
    quality: Callable[[Probe], float],
) -> tuple[Probe, int]:
    """Fit a probe to texts that it has labelled itself, as long as its quality does not fall.

    Self-training (Scudder 1965, "Probability of Error of Some Adaptive Pattern-Recognition
    Machines"). In each round, the unlabelled texts with the most confident predictions become
    examples, with a smaller weight than human-labelled texts. The probe that is fitted to both
    predicts all unlabelled texts again in the next round.

    Parameters
    ----------
    score : callable
        The first probe, from `fit_probe`.
    fit : callable
        ``fit(vectors, labels, weights=...)`` returns a probe.
    vectors : array of shape (rows, width)
        Vectors of the training texts.
    labels : array of shape (rows, labels)
        Multi-hot.
    unlabelled : array of shape (texts, width)
        Vectors of the unlabelled texts.
    choose : callable
        Maps scores (texts, labels) to predicted labels, bool of the same shape.
    quality : callable
        Maps a probe to a number that must not fall, such as F1 on the validation set.

    Returns
    -------
    probe, rounds : callable, int
        The last probe before the quality fell, after 0 to 4 rounds.
    """
    best_quality, rounds = quality(score), 0
    while len(unlabelled) and rounds < ROUNDS:
        # Predictions always replace those of the round before: a wrong label can be corrected.
        scores = score(unlabelled)
        confident = most_confident(scores, SURE)
        candidate = fit(
            np.concatenate([vectors, unlabelled[confident]]),
            np.concatenate([labels, choose(scores[confident])]),
            weights=np.concatenate([np.ones(len(labels)), np.full(len(confident), WEIGHT)]),
        )
        if (candidate_quality := quality(candidate)) < best_quality:
            break
        score, best_quality, rounds = candidate, candidate_quality, rounds + 1
    return score, rounds


def most_confident(scores: np.ndarray, share: float) -> np.ndarray:
    """Return the rows with the most confident predictions: a share of the rows of each best label.

    The share is the same for each label. Otherwise a few easy labels would make up most of the
    rows.

    Parameters
    ----------
    scores : array of shape (texts, labels)
    share : float
        Above 0, at most 1; the number of rows is rounded up.

    Returns
    -------
    int array, rows of ``scores`` in ascending order
    """
    best, confidence = scores.argmax(axis=1), scores.max(axis=1, initial=0)
    kept = []
    for label in np.unique(best):
        rows = np.flatnonzero(best == label)
        order = np.argsort(-confidence[rows], kind="stable")
        kept.append(rows[order[: math.ceil(share * len(rows))]])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)
