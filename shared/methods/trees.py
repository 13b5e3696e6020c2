"""Fitted gradient-boosted trees as plain arrays: they can be saved, and score without a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from shared.evaluation.decisions import sigmoid, softmax

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.ensemble import GradientBoostingClassifier

_ROWS = 256  # rows that are dense, and pass through all trees, at a time


@dataclass(frozen=True)
class BoostedTrees:
    """Probabilities from sums over regression trees (Friedman 2001).

    The trees lie one after another in arrays of nodes. A node sends a row to `left` if its feature
    is at most `threshold`, otherwise to `right`. A leaf is its own `left` and `right`; its `value`
    is added to the logit of the tree's column.

    Attributes
    ----------
    feature : int32 array of shape (nodes,)
    threshold : float64 array of shape (nodes,)
    left, right : int32 arrays of shape (nodes,)
        Numbers of nodes. They are larger than the node's own number, except those of a leaf.
    value : float64 array of shape (nodes,)
    root : int32 array of shape (trees,)
    column : int32 array of shape (trees,)
    bias : float64 array of shape (columns,)
        Infinite for a label that all texts have, negative infinite for one that none has.
    width : int
        Number of features.
    single_label : bool
        A softmax over the columns. False: a sigmoid for each.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    root: np.ndarray
    column: np.ndarray
    bias: np.ndarray
    width: int
    single_label: bool = False

    @classmethod
    def of_columns(
        cls,
        fitted: Mapping[int, GradientBoostingClassifier],
        bias: np.ndarray,
        width: int,
        *,
        single_label: bool = False,
    ) -> BoostedTrees:
        """Combine fitted classifiers.

        Parameters
        ----------
        fitted : dict of int to GradientBoostingClassifier
            The column of a classifier of two classes, or the first column of one of more classes,
            which has one column per class.
        bias : float array of shape (columns,)
            Of the columns without a classifier.
        width : int
            Number of features.
        single_label : bool
        """
        from scipy.sparse import csr_matrix

        parts: dict[str, list[np.ndarray]] = {
            name: [] for name in ("feature", "threshold", "left", "right", "value")
        }
        root, column, bias, n_nodes = [], [], bias.astype(np.float64), 0
        for first, model in fitted.items():
            zeros = csr_matrix((1, model.n_features_in_), dtype=np.float32)
            start = np.zeros(model.estimators_.shape[1])
            for trees in model.estimators_:
                for number, estimator in enumerate(trees):
                    tree = estimator.tree_
                    own = np.arange(tree.node_count)
                    leaf = tree.children_left < 0
                    values = np.where(leaf, model.learning_rate * tree.value[:, 0, 0], 0.0)
                    start[number] += estimator.predict(zeros)[0] * model.learning_rate
                    parts["feature"].append(np.where(leaf, 0, tree.feature))
                    parts["threshold"].append(np.where(leaf, 0.0, tree.threshold))
                    parts["left"].append(np.where(leaf, own, tree.children_left) + n_nodes)
                    parts["right"].append(np.where(leaf, own, tree.children_right) + n_nodes)
                    parts["value"].append(values)
                    root.append(n_nodes)
                    column.append(first + number)
                    n_nodes += tree.node_count
            # What the trees do not explain for a row of zeros is the start of the boosting.
            logits = model.decision_function(zeros).reshape(-1)
            bias[first : first + len(start)] = logits - start
        arrays = {name: np.concatenate(values or [np.zeros(0)]) for name, values in parts.items()}
        return cls(
            arrays["feature"].astype(np.int32),
            arrays["threshold"].astype(np.float64),
            arrays["left"].astype(np.int32),
            arrays["right"].astype(np.int32),
            arrays["value"].astype(np.float64),
            np.array(root, np.int32),
            np.array(column, np.int32),
            bias,
            width,
            single_label,
        )

    def __post_init__(self) -> None:
        nodes, n = np.arange(len(self.feature)), len(self.feature)
        leaf = (self.left == nodes) & (self.right == nodes)
        if not (
            {len(self.threshold), len(self.left), len(self.right), len(self.value)} == {n}
            and len(self.root) == len(self.column)
            and _within(self.feature, self.width)
            and _within(self.root, n)
            and _within(self.column, len(self.bias))
            and _within(self.left, n)
            and _within(self.right, n)
            and (leaf | ((self.left > nodes) & (self.right > nodes))).all()
        ):
            raise ValueError("arrays of the trees")

    @cached_property
    def _used(self) -> np.ndarray:
        """The features that a node asks for."""
        return np.unique(self.feature)

    def select(self, column: int) -> BoostedTrees:
        """Return the trees of one column, which must have some, and the nodes of these trees."""
        trees = np.flatnonzero(self.column == column)
        ends = np.append(self.root, len(self.feature))  # a tree ends where the next one begins
        start, stop = ends[trees[0]], ends[trees[-1] + 1]
        return BoostedTrees(
            self.feature[start:stop],
            self.threshold[start:stop],
            self.left[start:stop] - start,
            self.right[start:stop] - start,
            self.value[start:stop],
            self.root[trees] - start,
            np.zeros(len(trees), np.int32),
            self.bias[column : column + 1],
            self.width,
        )

    def logits(self, features: csr_matrix) -> np.ndarray:
        """Return the logits of features (rows, width): float64, of shape (rows, columns)."""
        from scipy.sparse import csr_matrix

        logits = np.tile(self.bias, (features.shape[0], 1))
        if not len(self.root):
            return logits
        n_trees = len(self.root)
        # (trees, columns), 1 where a tree belongs to a column
        belongs = csr_matrix(
            (np.ones(n_trees), (np.arange(n_trees), self.column)), (n_trees, len(self.bias))
        )
        feature = np.searchsorted(self._used, self.feature)
        used = features.tocsc()[:, self._used].tocsr().astype(np.float32)
        for start in range(0, len(logits), _ROWS):
            dense = used[start : start + _ROWS].toarray()
            rows = np.arange(len(dense))[:, None]
            node, before = np.tile(self.root, (len(dense), 1)), None  # (rows, trees)
            while before is None or (node != before).any():
                before = node
                goes_left = dense[rows, feature[node]] <= self.threshold[node]
                node = np.where(goes_left, self.left[node], self.right[node])
            logits[start : start + _ROWS] += self.value[node] @ belongs
        return logits

    def __call__(self, features: csr_matrix) -> np.ndarray:
        """Return probabilities: float64, of shape (rows, columns)."""
        logits = self.logits(features)
        return softmax(logits) if self.single_label else sigmoid(logits)

    def effects(self) -> np.ndarray:
        """Return what a large value of each feature adds to each logit: float64, (columns, width).

        The sum over nodes that ask for the feature: the mean of the subtree to the right minus that
        of the subtree to the left. The mean of a leaf is its value, that of a subtree the mean of
        the means of its two subtrees.
        """
        mean, effects = self.value.copy(), np.zeros((len(self.bias), self.width))
        # Nodes of a tree lie between its root and the next one.
        tree = np.searchsorted(self.root, np.arange(len(mean)), side="right") - 1
        for node in range(len(mean) - 1, -1, -1):  # children before parents
            left, right = self.left[node], self.right[node]
            if left != node:
                mean[node] = (mean[left] + mean[right]) / 2
                effects[self.column[tree[node]], self.feature[node]] += mean[right] - mean[left]
        return effects


def _within(numbers: np.ndarray, stop: int) -> bool:
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < stop)
