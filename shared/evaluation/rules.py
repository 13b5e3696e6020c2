"""Decision rules: which labels a text gets. A tagger carries its rule, so that it can be saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.evaluation.decisions import at_least_one, choose_labels, top_k

NEVER = 2.0  # the threshold of a label that no score reaches


@dataclass(frozen=True)
class DecisionRule:
    """How the scores of a text become its labels.

    Attributes
    ----------
    thresholds : tuple of float
        One per label, from 0 to 1 or `NEVER`: a label applies if its score is at or above its
        threshold. With `top_k` there may be none.
    at_least_one : bool, default False
        The best label applies, too, even below its threshold.
    top_k : int, optional
        The k best labels apply; 1 if every text has exactly one label. With thresholds, those of
        them that reach theirs.
    reads_calibrated : bool, default False
        Whether it reads scores after the calibration of a tagger, or before.
    """

    thresholds: tuple[float, ...] = ()
    at_least_one: bool = False
    top_k: int | None = None
    reads_calibrated: bool = False

    @classmethod
    def of(
        cls,
        thresholds: float | Sequence[float] | np.ndarray,
        n_labels: int,
        *,
        single_label: bool = False,
        at_least_one: bool = False,
        reads_calibrated: bool = False,
    ) -> DecisionRule:
        """Return the rule of a classifier: thresholds, or the best label if a text has one label.

        Parameters
        ----------
        thresholds : float or array of shape (labels,)
        n_labels : int
        single_label : bool
            Every text has exactly one label: the thresholds are not used.
        at_least_one : bool
            Every text has a label.
        reads_calibrated : bool
            As the attribute.
        """
        if single_label:
            return cls(top_k=1)
        per_label = np.broadcast_to(np.asarray(thresholds, dtype=float), n_labels)
        thresholds_of_labels = tuple(per_label.tolist())
        return cls(thresholds_of_labels, at_least_one, reads_calibrated=reads_calibrated)

    def choose(self, scores: np.ndarray) -> np.ndarray:
        """Return the labels of each row: bool, of the shape of `scores`, (rows, labels)."""
        thresholds = np.asarray(self.thresholds)
        if self.top_k is not None:
            best = top_k(scores, self.top_k)
            return best & (scores >= thresholds) if self.thresholds else best
        return (at_least_one if self.at_least_one else choose_labels)(scores, thresholds)

    def margin(self, scores: np.ndarray) -> np.ndarray:
        """Return how far each row is from other labels: 0 if the smallest change of a score does.

        Parameters
        ----------
        scores : array of shape (rows, labels)

        Returns
        -------
        float array of shape (rows,)
            The distance between the worst chosen and the best other label, if the rule compares
            labels. Else the distance of the score that is nearest to its threshold.
        """
        if self.top_k is not None:
            if self.top_k >= scores.shape[1]:
                return np.ones(len(scores))
            descending = -np.sort(-scores, axis=1)
            distance = descending[:, self.top_k - 1] - descending[:, self.top_k]
            if self.thresholds:  # a label of the best could be refused, or no longer be
                to_threshold = np.abs(scores - np.asarray(self.thresholds))
                best = top_k(scores, self.top_k)
                distance = np.minimum(distance, np.where(best, to_threshold, np.inf).min(axis=1))
            return distance
        distance = np.abs(scores - np.asarray(self.thresholds)).min(axis=1)
        if not self.at_least_one:
            return distance
        # The best label could change, too. That matters if it applies only because it is the best,
        # or if its successor does not apply yet.
        reached = scores >= np.asarray(self.thresholds)
        rows, best = np.arange(len(scores)), scores.argmax(axis=1)
        successors = np.where(reached[rows, best, None] & reached, -np.inf, scores)
        successors[rows, best] = -np.inf
        return np.minimum(distance, scores[rows, best] - successors.max(axis=1))

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON values: ``{"top_k": 1}``, or its thresholds."""
        value: dict[str, Any] = {} if self.top_k is None else {"top_k": self.top_k}
        if self.thresholds:
            value |= {"thresholds": list(self.thresholds), "at_least_one": self.at_least_one}
        if self.reads_calibrated:
            value["reads_calibrated"] = True
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], n_labels: int) -> DecisionRule:
        """Return the rule that `to_json` wrote.

        Raises
        ------
        ValueError
            If it is not a rule for this number of labels.
        """
        k, thresholds = value.get("top_k"), value.get("thresholds")
        if k is not None and (not isinstance(k, int) or not 1 <= k <= n_labels):
            raise ValueError(f"top_k {k!r}: must be 1 to {n_labels}, the number of labels")
        if k is None or thresholds is not None:
            if not isinstance(thresholds, list) or len(thresholds) != n_labels:
                raise ValueError(f"it has no threshold for each of the {n_labels} labels")
            numbers = all(isinstance(t, (int, float)) for t in thresholds)
            if not numbers or not all(0 <= t <= 1 or t == NEVER for t in thresholds):
                raise ValueError("a threshold is not a number from 0 to 1")
        return cls(
            tuple(map(float, thresholds or ())),
            bool(value.get("at_least_one", False)),
            k,
            bool(value.get("reads_calibrated", False)),
        )

    @staticmethod
    def mean(rules: Sequence[DecisionRule]) -> DecisionRule:
        """Return the rule for the mean scores of several taggers: the mean of their thresholds.

        The best label always applies if one of the taggers has learned that every text has a label.

        Raises
        ------
        UserError
            If one rule chooses a fixed number of labels and another does not, or another number.
        """
        if len({rule.top_k for rule in rules}) > 1:
            raise UserError(
                "the taggers cannot be averaged: one chooses a fixed number of labels for each "
                "text, another decides on each label, or the numbers differ"
            )
        if rules[0].top_k is not None:
            return rules[0]
        thresholds = np.mean([rule.thresholds for rule in rules], axis=0)
        return DecisionRule(tuple(thresholds.tolist()), any(rule.at_least_one for rule in rules))


# --- records of predictions ----------------------------------------------------------------------


ALL_SCORES = 50  # up to this number of labels, a file of predictions has the scores of all
TOP_SCORES = 20  # with more labels, it has this number of scores for each text


def scores_per_text(n_labels: int, top_scores: int | None) -> int:
    """Return how many scores of each text are written, from the value of ``--top_scores``."""
    if top_scores is None:
        top_scores = n_labels if n_labels <= ALL_SCORES else TOP_SCORES
    return min(top_scores, n_labels)


def prediction_records(
    scores: np.ndarray,
    predicted: np.ndarray,
    label_names: Sequence[str],
    n_scores: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield, for each row, its predicted labels and the scores of labels, both best first.

    Parameters
    ----------
    scores : array of shape (rows, labels)
        Probabilities.
    predicted : array of shape (rows, labels)
        Bool: the predicted labels.
    label_names : sequence of str
    n_scores : int, optional
        The number of scores of each row: those of the best labels. The predicted labels always have
        their score, so that there can be more. None: the scores of all labels.

    Yields
    ------
    record : dict
        ``labels``, a list of names, and ``scores``, a dict of name to score.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    # Row by row: as Python objects, all scores of many labels would take gigabytes.
    for row_scores, best_first, chosen in zip(scores, order, predicted, strict=True):
        labels = best_first[chosen[best_first].astype(bool)].tolist()
        kept = dict.fromkeys([*best_first[:n_scores].tolist(), *labels])  # each once, in this order
        yield {
            "labels": [label_names[i] for i in labels],
            "scores": {label_names[i]: round(float(row_scores[i]), 6) for i in kept},
        }
