"""A quick estimate of what a classifier would reach: a classifier of words, out of fold.

As a program (``python -m shared.methods.words_estimate``) it reads the arguments from its input and
writes the estimate to its output, both as JSON: for a server whose answers must not wait.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from shared.evaluation.bootstrap import bootstrap_interval
from shared.evaluation.cross_validation import choose_out_of_fold, join_folds, score_folds
from shared.evaluation.metrics import f1_scores
from shared.methods.baselines import fit_words, tfidf_logistic_regression
from shared.splitters import MultilabelStratifiedKFold


@dataclass(frozen=True)
class WordsEstimate:
    """The F1 of a classifier of words, out of fold.

    Attributes
    ----------
    micro_f1, low, high : float
        With its interval of 95 % (bootstrap of the texts).
    macro_f1 : float
    n_texts, n_labels : int
        That it was computed on.
    """

    micro_f1: float
    low: float
    high: float
    macro_f1: float
    n_texts: int
    n_labels: int


def words_out_of_fold(
    texts: Sequence[str],
    y: np.ndarray,
    *,
    single_label: bool,
    least_texts: int = 20,
    n_folds: int = 5,
    seed: int = 0,
) -> WordsEstimate | None:
    """Return the F1 that logistic regression on TF-IDF reaches in a cross-validation.

    Parameters
    ----------
    texts : sequence of str
    y : array of shape (texts, labels)
        Multi-hot. Labels with fewer texts than folds are left out, and with `single_label` their
        texts, too.
    single_label : bool
        Every text has exactly one label.
    least_texts : int
    n_folds : int
    seed : int
        Of the folds.

    Returns
    -------
    WordsEstimate, or None if fewer than `least_texts` are left, or no label to tell from others.
    """
    frequent = y.sum(axis=0) >= n_folds
    rows = np.flatnonzero(y[:, frequent].any(axis=1)) if single_label else np.arange(len(y))
    y = y[rows][:, frequent].astype(np.uint8)
    if len(y) < least_texts or y.all(axis=0).all():
        return None
    strings: np.ndarray = np.array([texts[row] for row in rows.tolist()], dtype=object)
    fold_of = np.zeros(len(y), int)
    folds = MultilabelStratifiedKFold(n_folds, random_state=seed)
    for number, (_, held_out) in enumerate(folds.split(strings, y)):
        fold_of[held_out] = number
    fit: Any = partial(fit_words, tfidf_logistic_regression())
    scores = join_folds(score_folds(fit, {"oof": strings}, y, fold_of), fold_of)["oof"]
    predicted = choose_out_of_fold(scores, y, fold_of, single_label=single_label)
    metrics = f1_scores(y, predicted)
    low, high = bootstrap_interval(y, predicted)
    return WordsEstimate(metrics["micro_f1"], low, high, metrics["macro_f1"], *y.shape)


def main() -> None:
    """Estimate in a process of its own, which leaves the processor to others."""
    with suppress(AttributeError):  # Windows
        os.nice(10)
    request = json.load(sys.stdin)
    y = np.array(request["labels"], bool)
    estimate = words_out_of_fold(request["texts"], y, single_label=request["single_label"])
    json.dump(estimate and asdict(estimate), sys.stdout)


if __name__ == "__main__":
    main()
