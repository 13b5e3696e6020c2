"""The metrics of `shared.evaluation.metrics` as modules of the `evaluate` library, without the hub.

    metrics = evaluate.combine([MultilabelF1("micro"), MultilabelF1("macro"), SubsetAccuracy()])
    metrics.compute(predictions=scores, references=labels)

Every multilabel module takes ``predictions``, (rows, labels) scores from 0 to 1 (predicted labels
as 0 and 1 are allowed), and ``references``, the multi-hot labels. All of them can therefore be
combined. The single-label modules, `Accuracy` and `F1`, take one class number per row. The results
have the names and values of `multilabel_metrics` and `single_label_metrics`.

Rows are held in memory and no file is written. Importing this module imports `evaluate`, which
takes seconds. The metrics of generated texts are in `text_modules`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np

from shared.evaluation.decisions import as_multi_hot
from shared.evaluation.evaluate_base import InMemoryMetric
from shared.evaluation.metrics import (
    multilabel_averages,
    ranking_scores,
    single_label_scores,
    subset_accuracy,
)

_SCORES = dict.fromkeys(("predictions", "references"), datasets.Sequence(datasets.Value("float64")))
_CLASSES = dict.fromkeys(("predictions", "references"), datasets.Value("int64"))


# --- multilabel metrics of predicted labels ------------------------------------------------------


class _ThresholdMetric(InMemoryMetric):
    """A metric of the labels whose scores reach their thresholds."""

    inputs = _SCORES

    def __init__(
        self,
        config_name: str = "default",
        *,
        thresholds: float | Sequence[float] = 0.5,
        **kwargs: Any,
    ):
        super().__init__(config_name, **kwargs)
        self.thresholds = np.asarray(thresholds, dtype=np.float64)

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        y_true, scores = _matrices(predictions, references)
        return self._score(y_true, scores >= self.thresholds)

    def _score(self, y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
        raise NotImplementedError


class _AveragedMetric(_ThresholdMetric):
    """Precision, recall or F1, averaged over labels or rows."""

    averages = ("micro", "macro", "weighted", "samples")
    quantity: ClassVar[str]

    def _score(self, y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
        values = multilabel_averages(y_true, y_pred)[self.config_name]
        value = dict(zip(("precision", "recall", "f1"), values, strict=True))[self.quantity]
        return {f"{self.config_name}_{self.quantity}": float(value)}


class MultilabelF1(_AveragedMetric):
    """F1 of multilabel predictions: ``MultilabelF1(average, thresholds=0.5)``.

    The average is "micro", "macro", "weighted" or "samples". A label is predicted if its score is
    at or above the threshold, which is one number, or one number for each label.
    """

    quantity = "f1"


class MultilabelPrecision(_AveragedMetric):
    """Precision of multilabel predictions; arguments as in `MultilabelF1`."""

    quantity = "precision"


class MultilabelRecall(_AveragedMetric):
    """Recall of multilabel predictions; arguments as in `MultilabelF1`."""

    quantity = "recall"


class SubsetAccuracy(_ThresholdMetric):
    """Share of rows with all labels right: ``SubsetAccuracy(thresholds=0.5)``."""

    def _score(self, y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
        return {"subset_accuracy": subset_accuracy(y_true, y_pred)}


# --- multilabel metrics of scores ----------------------------------------------------------------


class _RankingMetric(InMemoryMetric):
    """A metric of the order of the scores; no threshold is needed."""

    inputs = _SCORES
    keys: ClassVar[dict[str, str]]

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        key = self.keys[self.config_name]
        scores = ranking_scores(*_matrices(predictions, references))
        return {key: scores[key]} if key in scores else {}


class AveragePrecision(_RankingMetric):
    """Area under the precision-recall curve: ``AveragePrecision("micro" or "macro")``.

    Micro treats all pairs of row and label as one label; macro is the mean over the labels with a
    positive row. Without any positive row, the result is empty.
    """

    averages = ("micro", "macro")
    keys: ClassVar = {"micro": "average_precision", "macro": "macro_average_precision"}


class RocAuc(_RankingMetric):
    """Area under the ROC curve, mean over labels with a positive and a negative row: ``RocAuc()``.

    Without any such label, the result is empty.
    """

    keys: ClassVar = {"default": "roc_auc"}


# --- metrics of class numbers --------------------------------------------------------------------


class Accuracy(InMemoryMetric):
    """Share of rows with the right class number: ``Accuracy()``."""

    inputs = _CLASSES

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


class F1(InMemoryMetric):
    """F1 of class numbers: ``F1("macro" or "weighted", num_labels=...)``.

    Macro is the mean over all ``num_labels`` classes, including those absent from the rows.
    """

    averages = ("macro", "weighted")
    inputs = _CLASSES

    def __init__(self, config_name: str, *, num_labels: int, **kwargs: Any):
        super().__init__(config_name, **kwargs)
        self.num_labels = num_labels

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        key = f"{self.config_name}_f1"
        y_true, y_pred = np.asarray(references), np.asarray(predictions)
        return {key: single_label_scores(y_true, y_pred, self.num_labels)[key]}


# --- input ---------------------------------------------------------------------------------------


def _matrices(predictions: list, references: list) -> tuple[np.ndarray, np.ndarray]:
    """Return multi-hot labels and scores as (rows, labels) arrays; check both."""
    lengths = {len(row) for row in [*predictions, *references]}
    if len(lengths) != 1:
        raise ValueError(f"all rows must have the same number of labels, found {sorted(lengths)}")
    scores = np.asarray(predictions, dtype=np.float64)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("predictions must lie between 0 and 1: pass logits through a sigmoid")
    return as_multi_hot(np.asarray(references), "references"), scores
