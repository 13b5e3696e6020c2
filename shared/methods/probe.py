"""The few-label probe: logistic regression on sentence embeddings and latent semantic analysis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

# --- latent semantic analysis --------------------------------------------------------------------


def latent_semantic_vectors(
    fit_texts: Sequence[str], *texts: Sequence[str], n_components: int = 256, seed: int = 0
) -> list[np.ndarray]:
    """Project TF-IDF vectors on the directions along which a collection of texts varies most.

    Deerwester et al. 1990, "Indexing by Latent Semantic Analysis". It adds to a sentence embedding
    what that is blind to, the vocabulary of the collection: names of modules, of products, of
    errors. Words in one text only and in more than half of them are left out; term frequencies
    count by their logarithm.

    Parameters
    ----------
    fit_texts : sequence of str
        Texts to learn from; unlabelled ones will do, the more the better.
    *texts : sequences of str
        Texts to project.
    n_components : int
        Dimensions at most; a collection with fewer words or texts has fewer.
    seed : int
        Of the randomised decomposition (Halko, Martinsson and Tropp 2011).

    Returns
    -------
    list of float32 arrays of shape (texts, dimensions)
        Of length one; zero for a text without a known word.
    """
    # A limit in texts rather than a share: half of three texts would be one.
    nothing = [np.zeros((len(part), 1), np.float32) for part in texts]
    most = max(2, len(fit_texts) // 2)
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, max_df=most)
    try:
        known = words.fit_transform(fit_texts)
    except ValueError as error:
        if "empty vocabulary" not in str(error) and "no terms remain" not in str(error):
            raise
        return nothing
    if min(known.shape) < 2:
        return nothing
    n_components = min(n_components, min(known.shape))
    decomposition = TruncatedSVD(n_components, random_state=seed).fit(known)
    vectors = []
    for part in texts:
        projected = np.zeros((0, n_components))
        if len(part):
            projected = decomposition.transform(words.transform(part))
        vectors.append(normalize(projected).astype(np.float32) if len(part) else projected)
    return vectors


# --- probe and self-training ---------------------------------------------------------------------


# Self-training: the share of the texts of each label that become examples, what one of them weighs
# beside a training text, and for how many rounds at most. Chosen on BANKING77 and the issues.
SURE, WEIGHT, ROUNDS = 0.7, 0.3, 4


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
    weights : array of shape (rows,), optional
        Of training texts, where they differ.
    single_label : bool
        Every text has exactly one label.

    Returns
    -------
    score : callable
        From array of shape (texts, width) to probabilities, float64, of shape (texts, labels). A
        label without any example has 0 throughout, one that all examples have, names included, 1.
    """
    n_labels = labels.shape[1]
    x = np.concatenate([vectors, name_vectors])
    y = np.concatenate([labels, np.eye(n_labels, dtype=labels.dtype)[name_labels]])
    phrases = np.bincount(name_labels, minlength=n_labels)[name_labels]
    weights = np.ones(len(vectors)) if weights is None else weights
    weight = np.concatenate([weights, name_weight / phrases])

    if single_label:
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
        weighed *= weights.sum() / weighed.sum()
        models[label] = LogisticRegression(C=C, max_iter=1000).fit(x, positive, weighed)

    def score(texts: np.ndarray) -> np.ndarray:
        found = np.tile(always.astype(np.float64), (len(texts), 1))
        for label, model in models.items():
            if len(texts):
                found[:, label] = model.predict_proba(texts)[:, 1]
        return found

    return score


def self_train(
    score: Callable[[np.ndarray], np.ndarray],
    fit: Callable[..., Callable[[np.ndarray], np.ndarray]],
    vectors: np.ndarray,
    labels: np.ndarray,
    unlabelled: np.ndarray,
    *,
    choose: Callable[[np.ndarray], np.ndarray],
    quality: Callable[[Callable[[np.ndarray], np.ndarray]], float],
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Let a probe learn from texts that it has labelled itself, while that makes it no worse.

    Self-training (Scudder 1965, "Probability of Error of Some Adaptive Pattern-Recognition
    Machines"). In each round, texts whose labels are surest become examples of less weight than
    those that a person has labelled; the probe fitted to both labels all of them anew.

    Parameters
    ----------
    score : callable
        The probe to begin with, as `fit_probe` returns it.
    fit : callable
        ``fit(vectors, labels, weights=...)`` returns a probe.
    vectors : array of shape (rows, width)
        Of training texts.
    labels : array of shape (rows, labels)
        Multi-hot.
    unlabelled : array of shape (texts, width)
    choose : callable
        From scores (texts, labels) to the labels that texts get, bool of that shape.
    quality : callable
        From a probe to a number that must not fall, such as F1 on validation.

    Returns
    -------
    probe, rounds : callable, int
        The last probe whose quality did not fall, after 0 to 4 rounds.
    """
    best, rounds = quality(score), 0
    while len(unlabelled) and rounds < ROUNDS:
        found = score(unlabelled)
        sure = most_confident(found, SURE)
        taught = fit(
            np.concatenate([vectors, unlabelled[sure]]),
            np.concatenate([labels, choose(found[sure])]),
            weights=np.concatenate([np.ones(len(labels)), np.full(len(sure), WEIGHT)]),
        )
        if (now := quality(taught)) < best:
            break
        score, best, rounds = taught, now, rounds + 1
    return score, rounds


def most_confident(scores: np.ndarray, share: float) -> np.ndarray:
    """The texts whose best label is surest: a share of those that have the same best label.

    The same share for each label, or a few easy labels would crowd out all others.

    Parameters
    ----------
    scores : array of shape (texts, labels)
    share : float
        Above 0, at most 1; rounded up.

    Returns
    -------
    int array, rows of ``scores`` in rising order
    """
    best, confidence = scores.argmax(axis=1), scores.max(axis=1, initial=0)
    kept = []
    for label in np.unique(best):
        rows = np.flatnonzero(best == label)
        order = np.argsort(-confidence[rows], kind="stable")
        kept.append(rows[order[: math.ceil(share * len(rows))]])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)
