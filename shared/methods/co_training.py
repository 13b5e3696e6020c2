"""Co-training: two classifiers that see the same texts in different ways teach each other.

Blum and Mitchell 1998, "Combining Labeled and Unlabeled Data with Co-Training". Each view has a
classifier of its own. The unlabelled texts of which one is sure become examples of the other. What
is wrong with one view, such as a text that was cut, is rarely wrong with the other in the same way.

In difference to the paper, the examples of a round replace those of the round before, so that a
wrong label can be corrected, and the labels of later rounds come from both views together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from shared.methods.linear import Features, LinearClassifier, stack
from shared.methods.pseudo_labels import student_weights
from shared.methods.self_training import Choose, most_confident

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# The share of the texts of each predicted label that become examples, and the least share of the
# labelled texts in all weights. The first was chosen on AG News and IMDB, among .5 and .7.
SURE, LABELLED_SHARE = 0.7, 0.1
# Of an alignment: a class that is hardly predicted would get all doubtful texts.
LARGEST_FACTOR = 10


class Fit(Protocol):
    """Fits a classifier: `fit_probe` with all but these arguments."""

    def __call__(
        self,
        vectors: Features | csr_matrix,
        labels: np.ndarray,
        *,
        weights: np.ndarray | None = None,
    ) -> LinearClassifier:
        """Fit features (rows, width) and multi-hot labels (rows, labels)."""


class View(NamedTuple):
    """What a classifier sees of the texts, and how it is fitted.

    Attributes
    ----------
    labelled, unlabelled : array, MixedFeatures or csr_matrix of shape (texts, width)
    fit : callable
        ``fit(features, labels, weights=None)`` returns a `LinearClassifier`.
    """

    labelled: Features | csr_matrix
    unlabelled: Features | csr_matrix
    fit: Fit


def co_train(
    first: View,
    second: View,
    labels: np.ndarray,
    choose: Choose,
    *,
    shares: np.ndarray | None = None,
) -> Iterator[tuple[LinearClassifier, LinearClassifier]]:
    """Yield the classifiers of both views after each round, without end.

    At the start, the first view is fitted to the labelled texts alone. In each round, its scores
    (later, the mean scores of both views) choose and label examples for the second view; then the
    mean scores of both choose and label those of the first. The logits of both views are scaled to
    the same spread (`equalize`): the mean of the probabilities that they return is the combined
    score.

    Parameters
    ----------
    first, second : View
        Of the same labelled and unlabelled texts.
    labels : array of shape (labelled texts, labels)
        Multi-hot.
    choose : callable
        Maps scores (texts, labels) to predicted labels, bool of the same shape.
    shares : array of shape (labels,), optional
        Share of each class, for texts that have exactly one: the scores of the unlabelled texts are
        aligned to it (`align`). None: they are not.
    """

    def teach(view: View, scores: np.ndarray) -> LinearClassifier:
        if shares is not None:
            scores = align(scores, shares)
        rows = most_confident(scores, SURE)
        return view.fit(
            stack([view.labelled, view.unlabelled[rows]]),
            np.concatenate([labels, choose(scores[rows])]),
            weights=student_weights(np.ones(len(labels)), np.ones(len(rows)), LABELLED_SHARE),
        )

    classifiers = [first.fit(first.labelled, labels)]
    while True:
        classifiers[1:] = [teach(second, _mean_scores((first, second), classifiers))]
        classifiers = equalize((first, second), classifiers)
        classifiers[0] = teach(first, _mean_scores((first, second), classifiers))
        classifiers = equalize((first, second), classifiers)
        yield classifiers[0], classifiers[1]


def equalize(
    views: tuple[View, View], classifiers: list[LinearClassifier]
) -> list[LinearClassifier]:
    """Scale classifiers so that their logits vary equally over the unlabelled texts.

    A view with many features and strong regularisation is under-confident, and would have no say in
    a mean. Which label is best does not change, nor which logits are above 0. The common standard
    deviation is the mean of both. A view with constant logits leaves them as they are.
    """
    spreads = [
        _spread(classifier.logits(view.unlabelled), classifier)
        for view, classifier in zip(views, classifiers, strict=True)
    ]
    if not all(spreads):
        return classifiers
    common = sum(spreads) / len(spreads)
    return [
        classifier.scaled(common / spread)
        for classifier, spread in zip(classifiers, spreads, strict=True)
    ]


def align(scores: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return class probabilities whose mean is nearer to wanted shares.

    Without it, a class that is predicted a little too often gets more examples, and takes over
    (Berthelot et al. 2020, "ReMixMatch", section 3.1, "distribution alignment").

    Parameters
    ----------
    scores : array of shape (texts, classes)
        Rows have the sum 1.
    shares : array of shape (classes,)
        A class is scaled by the wanted over the mean share, by a factor of 1/10 to 10.
    """
    factor = shares / np.maximum(scores.mean(axis=0), 1e-9)
    aligned = scores * np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    return aligned / aligned.sum(axis=1, keepdims=True)


def _mean_scores(views: tuple[View, View], classifiers: list[LinearClassifier]) -> np.ndarray:
    """Return the mean probabilities of the unlabelled texts, of the views that are fitted."""
    pairs = zip(views, classifiers, strict=False)  # at the start there is only the first one
    return np.mean([classifier(view.unlabelled) for view, classifier in pairs], axis=0)


def _spread(logits: np.ndarray, classifier: LinearClassifier) -> float:
    """Return the standard deviation of logits (texts, labels), of labels with an example."""
    logits = logits[:, np.isfinite(classifier.bias)]
    if not logits.size:
        return 0.0
    if classifier.single_label:  # a constant of all logits of a text has no meaning
        logits = logits - logits.mean(axis=1, keepdims=True)
    return float(logits.std())
