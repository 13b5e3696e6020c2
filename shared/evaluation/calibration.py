"""Calibration: scores that are probabilities, and what held-out rows say about their use.

A classifier that says .8 should be right in 80 of 100 such cases. Scores of most classifiers are
not like that: those of naive Bayes lie near 0 and 1, and a loss that weighs rare labels more raises
theirs. `calibrate` learns from held-out rows how to correct them. The corrected scores are for
reading, sorting and rejecting; the decision rule of a tagger goes on reading the scores that it was
tuned on, so that calibration changes no label.

`Calibration` holds what was learned: how scores become probabilities, the confidence in the labels
of a row, and thresholds that reach a precision. `shared.evaluation.reliability` measures how far
scores are from probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from shared.evaluation.decisions import (
    as_multi_hot,
    candidate_thresholds,
    sigmoid,
    softmax,
    sort_by_score,
    top_k,
)
from shared.evaluation.rules import NEVER, DecisionRule

_SMALLEST = 1e-6  # scores of 0 and 1 have no logit
_LEAST_FACTOR = 0.05  # the order of the scores of a label must not change
# Of the precision in `Calibration.precision`: hundredths, and thousandths above .99.
_LEVELS = np.append(np.arange(10, 1000, 10), np.arange(991, 1000)) / 1000
_BLOCK = 4_000_000  # scores that are fitted at a time


# --- calibration ---------------------------------------------------------------------------------


class CalibratedScores(NamedTuple):
    """The scores of rows after calibration, and how sure their labels are.

    Attributes
    ----------
    scores : array of shape (rows, labels)
    confidence : array of shape (rows,)
        The probability that all labels of a row are right.
    """

    scores: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """What held-out rows say about the scores of a classifier.

    Attributes
    ----------
    factors, biases : tuple of float
        The logit of a score is multiplied by the factor, the inverse of a temperature, and the bias
        is added. One pair per label; one pair for all, with `single_label`.
    single_label : bool
        Every text has exactly one label: the probabilities of a row have the sum 1.
    sum_to_one : bool
        Only with `single_label`: whether the scores have that sum, too, as those of a softmax.
        Their logarithms are then scaled, else their logits.
    confidence_factor, confidence_bias : float
        The same for the logit of the probability that all labels of a row are right.
    precision : tuple of tuples of (threshold, precision, recall)
        For each label, in ascending order of precision: the lowest thresholds that reach it on the
        held-out rows. They are for scores before calibration; with `single_label`, where a
        probability depends on all scores of a row, for those after it.
    """

    factors: tuple[float, ...]
    biases: tuple[float, ...]
    single_label: bool
    sum_to_one: bool = False
    confidence_factor: float = 1.0
    confidence_bias: float = 0.0
    precision: tuple[tuple[tuple[float, float, float], ...], ...] = ()

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Return the probabilities of scores before calibration; both are (rows, labels)."""
        if self.single_label:
            return softmax(self.factors[0] * _class_logits(scores, self.sum_to_one))
        return sigmoid(np.asarray(self.factors) * _logits(scores) + np.asarray(self.biases))

    def thresholds(self, thresholds: Sequence[float]) -> np.ndarray:
        """Return thresholds, one per label, as they are after calibration: (labels,).

        With `single_label` they stay as they are: no threshold corresponds to them, since a
        probability depends on all scores.
        """
        values = np.asarray(thresholds, dtype=np.float64)
        return values if self.single_label else np.where(values > 1, values, self(values[None])[0])

    def confidence(self, scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the probability that the chosen labels of a row are right, all of them.

        Parameters
        ----------
        scores : array of shape (rows, labels)
            Before calibration.
        chosen : bool array of shape (rows, labels)

        Returns
        -------
        array of shape (rows,)
        """
        logits = _logits(joint_probability(self(scores), chosen, self.single_label))
        return sigmoid(self.confidence_factor * logits + self.confidence_bias)

    def apply(self, scores: np.ndarray, chosen: np.ndarray) -> CalibratedScores:
        """Return the probabilities and the confidence of scores before calibration."""
        return CalibratedScores(self(scores), self.confidence(scores, chosen))

    def rule_of_precision(self, target: float) -> DecisionRule:
        """Return the rule that gives a text the labels that are right with a precision.

        A label that reached the precision with no threshold is never given.

        Parameters
        ----------
        target : float
            Between 0 and 1; reached on the held-out rows, label by label.
        """
        thresholds = []
        for points in self.precision:
            reaching = [threshold for threshold, precision, _ in points if precision >= target]
            thresholds.append(min(reaching, default=NEVER))
        if self.single_label:
            return DecisionRule(tuple(thresholds), top_k=1, reads_calibrated=True)
        return DecisionRule(tuple(thresholds))

    def recall_of_precision(self, target: float) -> np.ndarray:
        """Return the recall of each label with the rule of `rule_of_precision`: (labels,)."""
        recalls = (
            max((recall for _, precision, recall in points if precision >= target), default=0.0)
            for points in self.precision
        )
        return np.fromiter(recalls, np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], n_labels: int) -> Calibration:
        """Return the calibration that `to_json` wrote.

        Raises
        ------
        ValueError
            If it is not one for this number of labels.
        """
        values = dict(values)
        points = [np.array(label, dtype=float).reshape(-1, 3) for label in values["precision"]]
        calibration = cls(
            **values
            | {name: tuple(map(float, values[name])) for name in ("factors", "biases")}
            | {"precision": tuple(tuple(map(tuple, label.tolist())) for label in points)}
        )
        n_fits = 1 if calibration.single_label else n_labels
        numbers = [*calibration.factors, *calibration.biases]
        numbers += [calibration.confidence_factor, calibration.confidence_bias]
        if (
            not len(calibration.factors) == len(calibration.biases) == n_fits
            or len(points) != n_labels
            or not np.isfinite(numbers).all()
            or not all(((label >= 0) & (label <= 1)).all() for label in points)
        ):
            raise ValueError("calibration")
        return calibration


def fit_calibration(
    scores: np.ndarray, y_true: np.ndarray, chosen: np.ndarray, *, single_label: bool = False
) -> Calibration:
    """Learn a calibration from held-out rows.

    Parameters
    ----------
    scores, y_true : array of shape (rows, labels)
        Scores from 0 to 1, multi-hot labels. Without rows, scores stay as they are.
    chosen : bool array of shape (rows, labels)
        The labels that the decision rule gives.
    single_label : bool, default False
        Every text has exactly one label.

    Notes
    -----
    *Several labels*: logistic regression on the logit of the score, for each label (Platt 1999,
    Probabilistic Outputs for Support Vector Machines): a temperature and a bias. Weights of rare
    labels in a loss shift the logits, which a temperature alone (Guo et al. 2017, On Calibration of
    Modern Neural Networks) cannot undo. *One label*: a temperature, then a softmax. Both have
    normal priors, with factors around 1 and biases around 0 and a deviation of 1, so that a label
    with few rows keeps its scores.
    """
    y = as_multi_hot(y_true, "y_true") if len(y_true) else np.zeros(np.shape(y_true), dtype=bool)
    scores = np.asarray(scores, dtype=np.float64)
    calibration = fit_probabilities(scores, y, single_label=single_label)
    probabilities = calibration(scores)
    joint = joint_probability(probabilities, chosen, single_label)
    right = (y == chosen).all(axis=1)
    (factor,), (bias,) = _logistic_fit(_logits(joint)[:, None], right[:, None])
    if single_label:
        points = _precision_points(probabilities, y, top_k(scores, 1))
    else:
        points = _precision_points(scores, y, np.ones(y.shape, dtype=bool))
    return replace(
        calibration,
        confidence_factor=float(factor),
        confidence_bias=float(bias),
        precision=points,
    )


def fit_probabilities(
    scores: np.ndarray, y_true: np.ndarray, *, single_label: bool = False
) -> Calibration:
    """Learn how scores become probabilities, and nothing else; see `fit_calibration`."""
    scores, y = np.asarray(scores, dtype=np.float64), np.asarray(y_true, dtype=bool)
    sum_to_one = single_label and bool(np.allclose(scores.sum(axis=1), 1, atol=1e-3))
    if single_label:
        logits = _class_logits(scores, sum_to_one)
        factors, biases = np.array([_inverse_temperature(logits, y)]), np.zeros(1)
    else:
        block = max(1, _BLOCK // max(len(y), 1))
        starts = range(0, y.shape[1], block)
        parts = [slice(start, start + block) for start in starts]
        fits = [_logistic_fit(_logits(scores[:, part]), y[:, part]) for part in parts]
        factors, biases = np.concatenate(fits, axis=1)
    return Calibration(tuple(factors.tolist()), tuple(biases.tolist()), single_label, sum_to_one)


def _logits(scores: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(scores, dtype=np.float64), _SMALLEST, 1 - _SMALLEST)
    return np.log(p) - np.log1p(-p)


def _class_logits(scores: np.ndarray, sum_to_one: bool) -> np.ndarray:
    """Return logits of scores of which each row has one true label, for a softmax."""
    return np.log(np.maximum(scores, _SMALLEST)) if sum_to_one else _logits(scores)


def joint_probability(
    probabilities: np.ndarray, chosen: np.ndarray, single_label: bool
) -> np.ndarray:
    """Return the probability that all labels are right, as if they were independent: (rows,).

    `probabilities`, and `chosen`, the labels that a text gets, are of shape (rows, labels).
    """
    if single_label:  # several labels, or none, cannot be right
        return np.where(chosen.sum(axis=1) == 1, (probabilities * chosen).sum(axis=1), 0)
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(chosen, probabilities, 1 - probabilities))
    return np.exp(logs.sum(axis=1))


def _logistic_fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and bias of each column by Newton's method; x and y are (rows, columns)."""

    def loss(x: np.ndarray, y: np.ndarray, factor: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return the loss of each column, with the priors N(1, 1) and N(0, 1)."""
        z = factor * x + bias
        return (np.logaddexp(0, z) - z * y).sum(axis=0) + ((factor - 1) ** 2 + bias**2) / 2

    factors, biases = np.ones(x.shape[1]), np.zeros(x.shape[1])
    columns = np.arange(x.shape[1])  # those that have not converged
    value = loss(x, y, factors, biases)
    for _ in range(100):
        factor, bias = factors[columns], biases[columns]
        p = sigmoid(factor * x + bias)
        gradient_f = ((p - y) * x).sum(axis=0) + factor - 1
        gradient_b = (p - y).sum(axis=0) + bias
        weight = p * (1 - p)
        h_ff, h_bb = (weight * x * x).sum(axis=0) + 1, weight.sum(axis=0) + 1
        h_fb = (weight * x).sum(axis=0)
        determinant = h_ff * h_bb - h_fb * h_fb
        step_f = (h_bb * gradient_f - h_fb * gradient_b) / determinant
        step_b = (h_ff * gradient_b - h_fb * gradient_f) / determinant
        # Where scores are near 0 and 1, a full step overshoots: halve it until the loss is lower.
        new_value = loss(x, y, factor - step_f, bias - step_b)
        for _ in range(40):
            worse = np.flatnonzero(new_value > value)
            if not len(worse):
                break
            step_f[worse] /= 2
            step_b[worse] /= 2
            steps = factor[worse] - step_f[worse], bias[worse] - step_b[worse]
            new_value[worse] = loss(x[:, worse], y[:, worse], *steps)
        factors[columns], biases[columns] = factor - step_f, bias - step_b
        moving = np.maximum(np.abs(step_f), np.abs(step_b)) >= 1e-6
        if not moving.any():
            break
        if not moving.all():
            x, y, columns = x[:, moving], y[:, moving], columns[moving]
        value = new_value[moving]
    return np.maximum(factors, _LEAST_FACTOR), biases


def _inverse_temperature(logits: np.ndarray, y: np.ndarray) -> float:
    """Return the factor of logits with the highest likelihood, with a prior N(1, 1)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    def loss(factor: float) -> float:
        scaled = factor * logits
        return float((logsumexp(scaled, axis=1) - scaled[y]).sum() + (factor - 1) ** 2 / 2)

    return float(minimize_scalar(loss, bounds=(_LEAST_FACTOR, 20), method="bounded").x)


def _precision_points(
    scores: np.ndarray, y: np.ndarray, predicted: np.ndarray
) -> tuple[tuple[tuple[float, float, float], ...], ...]:
    """Return threshold, precision and recall of each label where a higher one raises precision.

    The precision of k rows, of which h have the label, is (h + 1) / (k + 2), the rule of succession
    of Laplace: a label that was right three times out of three has not reached .9. `predicted` has
    the pairs of row and label that a threshold may choose.
    """
    all_points = []
    for label in range(y.shape[1]):
        rows = np.flatnonzero(predicted[:, label])
        descending, hits = sort_by_score(y[rows, label][:, None], scores[rows, label][:, None])
        # The threshold that chooses the first k rows lies midway to the next score.
        thresholds = candidate_thresholds(descending)[0, 1:]
        precision = (hits[0] + 1) / (np.arange(len(rows)) + 3)
        recall = hits[0] / max(int(y[:, label].sum()), 1)
        # From the lowest threshold up, keep the points that are more precise than all before.
        usable = np.flatnonzero(~np.isnan(thresholds) & (hits[0] > 0))[::-1]
        before = np.maximum.accumulate(np.concatenate([[0.0], precision[usable]]))[:-1]
        kept = usable[precision[usable] > before]
        # Targets are seldom finer than a hundredth: for each of them, one point is enough.
        first = np.searchsorted(precision[kept], _LEVELS)
        kept = kept[np.unique(first[first < len(kept)])]
        figures = (values[kept].round(6) for values in (precision, recall))
        points = np.stack([thresholds[kept], *figures], axis=1)
        all_points.append(tuple(map(tuple, points.tolist())))
    return tuple(all_points)


# --- use in recipes ------------------------------------------------------------------------------


def calibrate(
    scores: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    *,
    single_label: bool = False,
    fold_of: np.ndarray | None = None,
) -> tuple[Calibration | None, CalibratedScores | None]:
    """Learn a calibration from rows that the classifier has not seen, and apply it to test scores.

    Parameters
    ----------
    scores, predicted, labels : mapping of "valid" and "test" to array of shape (rows, labels)
    single_label : bool, default False
        Every text has exactly one label.
    fold_of : int array of shape (test rows,), optional
        In a cross-validation, the fold that holds out each row. The calibration is then learned
        from all out-of-fold scores, and the scores of each fold are calibrated by what the other
        folds say. Without it, the calibration is learned from the validation set.

    Returns
    -------
    calibration : Calibration or None
        None without validation rows.
    calibrated : CalibratedScores or None
        Of the test rows.
    """

    def fit(part: str, rows: Any = slice(None)) -> Calibration:
        arrays = (values[part][rows] for values in (scores, labels, predicted))
        return fit_calibration(*arrays, single_label=single_label)

    if fold_of is None:
        if not len(labels["valid"]):
            return None, None
        calibration = fit("valid")
        return calibration, calibration.apply(scores["test"], predicted["test"])
    calibrated = CalibratedScores(np.zeros(scores["test"].shape), np.zeros(len(fold_of)))
    for number in np.unique(fold_of):
        held_out = fold_of == number
        of_fold = scores["test"][held_out], predicted["test"][held_out]
        of_fold = fit("test", ~held_out).apply(*of_fold)
        calibrated.scores[held_out], calibrated.confidence[held_out] = of_fold
    return fit("test"), calibrated
