"""Several labels per text from classifiers of one answer: three strategies, fitted to arrays.

- Binary relevance: one classifier per label, each on its own.
- Label powerset: one classifier of the *sets* of labels that occur in training.
- Classifier chain: one classifier per label, which also sees the labels decided before it.

`fit_strategy` fits a classifier of scikit-multilearn and returns plain arrays that score and can be
saved. Read et al. 2011, "Classifier Chains for Multi-label Classification", compares the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.evaluation.decisions import sigmoid
from shared.methods.linear import LinearClassifier
from shared.methods.trees import BoostedTrees

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scipy.sparse import csr_matrix
    from skmultilearn.base import MLClassifierBase


# --- fitted strategies ---------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelPowerset:
    """The score of each label, from those of the sets of labels.

    If the classifier gives the sets probabilities (``single_label``), a label has the sum over its
    sets. If it gives them margins, a label has the sigmoid of the difference between the best set
    with it and the best set without it: it is above .5 if the label is in the best set.

    Attributes
    ----------
    classifier : LinearClassifier or BoostedTrees
        Of the sets.
    label_sets : float array of shape (sets, labels)
        Multi-hot.
    """

    classifier: LinearClassifier | BoostedTrees
    label_sets: np.ndarray

    def __call__(self, features: csr_matrix) -> np.ndarray:
        """Return scores of features (rows, width): float64, of shape (rows, labels)."""
        if self.classifier.single_label:
            # The sum can exceed 1 by a rounding error.
            return np.minimum(self.classifier(features) @ self.label_sets, 1.0)
        margins = self.classifier.logits(features)  # (rows, sets)
        logits = np.empty((len(margins), self.label_sets.shape[1]))
        for label, members in enumerate(self.label_sets.T > 0):
            best = [margins[:, each].max(axis=1, initial=-np.inf) for each in (members, ~members)]
            logits[:, label] = best[0] - best[1]
        return sigmoid(logits)


@dataclass(frozen=True)
class ClassifierChain:
    """Labels decided one after another; each decision is a feature of the next ones.

    Attributes
    ----------
    classifier : LinearClassifier or BoostedTrees
        Column i decides on label ``order[i]``. Its last features are the labels, in this order.
    order : int array of shape (chain,)
    constant : float array of shape (labels,)
        Score of each label that is not in the chain: 1 if all training texts had it, otherwise 0.
    """

    classifier: LinearClassifier | BoostedTrees
    order: np.ndarray
    constant: np.ndarray

    @cached_property
    def _columns(self) -> list[LinearClassifier | BoostedTrees]:
        """The classifier of each label in the chain."""
        return [self.classifier.select(position) for position in range(len(self.order))]

    def __call__(self, features: csr_matrix) -> np.ndarray:
        """Return probabilities of features (rows, width): float64, of shape (rows, labels)."""
        from scipy.sparse import csr_matrix, hstack

        n_rows = features.shape[0]
        scores = np.tile(self.constant, (n_rows, 1))
        decided = np.zeros((n_rows, len(self.order)))
        for position, label in enumerate(self.order.tolist()):
            wide = hstack([features, csr_matrix(decided)], format="csr")
            scores[:, label] = self._columns[position](wide)[:, 0]
            decided[:, position] = scores[:, label] > 0.5
        return scores


MultilabelClassifier = LinearClassifier | BoostedTrees | LabelPowerset | ClassifierChain


# --- fitting -------------------------------------------------------------------------------------


def fit_strategy(
    strategy: MLClassifierBase, features: np.ndarray | csr_matrix, labels: np.ndarray
) -> MultilabelClassifier:
    """Fit one of the three strategies.

    A label that every row has scores 1, a label that no row has scores 0. A chain begins with the
    most frequent label.

    Parameters
    ----------
    strategy : BinaryRelevance, LabelPowerset or ClassifierChain of scikit-multilearn
        Of `MultinomialNB`, `LogisticRegression`, `LinearSVC` or `GradientBoostingClassifier`.
    features : array or sparse array of shape (rows, width)
    labels : array of shape (rows, labels)
        Multi-hot.
    """
    from sklearn.base import clone
    from skmultilearn import problem_transform

    labels, width = np.asarray(labels, dtype=np.int64), features.shape[1]
    # A classifier needs both classes of a label, so constant labels are left out of the fit.
    always = np.asarray(labels.all(axis=0))  # (labels,)
    learnable = np.flatnonzero(labels.any(axis=0) & ~always)
    constant = np.where(always, np.inf, -np.inf)
    if not len(learnable):
        return LinearClassifier.of_labels({}, always, width)
    if isinstance(strategy, problem_transform.LabelPowerset):
        strategy.fit(features, labels)
        sets = np.zeros((len(strategy.reverse_combinations_), labels.shape[1]))
        for number, members in enumerate(strategy.reverse_combinations_):
            sets[number, members] = 1
        return LabelPowerset(_of_classes(strategy.classifier, len(sets), width), sets)
    if isinstance(strategy, problem_transform.ClassifierChain):
        order = learnable[np.argsort(-labels[:, learnable].sum(axis=0), kind="stable")]
        strategy.order = None  # that of the columns
        strategy.fit(features, labels[:, order])
        chain = _of_labels(enumerate(strategy.classifiers_), constant[order], width + len(order))
        return ClassifierChain(chain, order, always.astype(np.float64))
    # Binary relevance. `strategy.fit` would keep all classifiers, which take several times the
    # memory of the weights that are kept of them.
    models = (
        (label, clone(strategy.classifier).fit(features, labels[:, label]))
        for label in learnable.tolist()
    )
    return _of_labels(models, constant, width)


def _of_labels(
    models: Iterable[tuple[int, Any]], constant: np.ndarray, width: int
) -> LinearClassifier | BoostedTrees:
    """Combine classifiers of one label each; `constant` are the logits of the other labels."""
    trees, linear = {}, {}
    for label, model in models:
        if hasattr(model, "estimators_"):
            trees[label] = model
        else:
            weights, bias = _linear_logits(model)
            # In a chain, the first labels do not see the later ones.
            linear[label] = np.pad(weights[-1], (0, width - len(weights[-1]))), bias[-1]
    if trees:
        return BoostedTrees.of_columns(trees, constant, width)
    return LinearClassifier.of_labels(linear, constant > 0, width)


def _of_classes(model: Any, n_classes: int, width: int) -> LinearClassifier | BoostedTrees:
    """Return a classifier of classes that exclude each other; there are two or more."""
    if hasattr(model, "estimators_"):
        # Of two classes, the trees give the logit of the second; that of the first is 0.
        first = 1 if n_classes == 2 else 0
        return BoostedTrees.of_columns(
            {first: model}, np.zeros(n_classes), width, single_label=True
        )
    weights, intercept = _linear_logits(model)
    missing = n_classes - len(weights)  # 1, if there are two classes
    weights = np.pad(weights, ((missing, 0), (0, 0)))
    # A support vector machine has margins, and no probabilities.
    options = {"single_label": hasattr(model, "predict_proba")}
    return LinearClassifier(weights, np.pad(intercept, (missing, 0)), **options)


def _linear_logits(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (classes, width) and bias (classes,); of two classes, for the second only."""
    if hasattr(model, "feature_log_prob_"):
        weights, bias = model.feature_log_prob_, model.class_log_prior_
        if len(weights) == 2:
            # The log-odds of naive Bayes: the difference of the log-likelihoods of its two classes.
            return weights[1:] - weights[:1], bias[1:] - bias[:1]
        return weights, bias
    return model.coef_, model.intercept_


# --- terms ---------------------------------------------------------------------------------------


def feature_weights(classifier: MultilabelClassifier, width: int) -> np.ndarray:
    """Return how much each feature speaks for each label: float64, of shape (labels, width).

    Of a linear classifier, the weight in the logit. Of a label powerset, the mean weight over the
    sets with the label minus that over the sets without it. Of trees, the change of the logit at
    the nodes that ask for the feature (`BoostedTrees.effects`). Labels that all texts or no texts
    have get zeros.

    Parameters
    ----------
    classifier : from `fit_strategy`
    width : int
        Number of features, without the labels that a chain adds.
    """
    if isinstance(classifier, BoostedTrees):
        return classifier.effects()[:, :width]
    if isinstance(classifier, LinearClassifier):
        return classifier.weights[:, :width]
    inner = feature_weights(classifier.classifier, width)
    if isinstance(classifier, ClassifierChain):
        weights = np.zeros((len(classifier.constant), width))
        weights[classifier.order] = inner
        return weights
    sets = classifier.label_sets.T  # (labels, sets)
    means = [each / np.maximum(each.sum(axis=1, keepdims=True), 1) for each in (sets, 1 - sets)]
    varies = sets.any(axis=1) & ~sets.all(axis=1)  # (labels,)
    return varies[:, None] * ((means[0] - means[1]) @ inner)
