"""Agreement of annotators on the same texts: of two (people or models), and of any number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.evaluation.bootstrap import bootstrap_interval, statistic_interval
from shared.evaluation.metrics import f1_scores, subset_accuracy

# Of `is_stable`; those of the paper.
STABLE_KAPPA = 0.99
STABLE_ROUNDS = 3


def agreement(
    y_true: np.ndarray, y_pred: np.ndarray, label_names: Sequence[str]
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """Return how far predicted labels agree with given ones.

    Parameters
    ----------
    y_true, y_pred : arrays of shape (rows, labels)
        Multi-hot labels; at least one row. A row without an answer has no predicted label.
    label_names : sequence of str

    Returns
    -------
    metrics : dict of str to float or None
        ``rows``; ``accuracy``, of whole rows, with ``accuracy_low`` and ``accuracy_high``, its 95 %
        bootstrap interval; ``micro_f1``; ``macro_f1``; ``kappa``, the mean of those of the labels
        that have one.
    per_label : list of dict
        ``label``, ``given``, ``predicted`` (rows), ``f1`` and ``kappa``. Kappa is None for a label
        about which chance cannot disagree: both annotators give it to all rows, or to none.

    Notes
    -----
    Cohen (1960), A Coefficient of Agreement for Nominal Scales.
    """
    from sklearn.metrics import cohen_kappa_score, f1_score

    y_true, y_pred = np.asarray(y_true, dtype=bool), np.asarray(y_pred, dtype=bool)
    per_label: list[dict[str, Any]] = []
    for name, true, predicted in zip(label_names, y_true.T, y_pred.T, strict=True):
        varies = len(np.unique([true, predicted])) > 1
        per_label.append(
            {
                "label": name,
                "given": int(true.sum()),
                "predicted": int(predicted.sum()),
                "f1": float(f1_score(true, predicted, zero_division=0)),
                "kappa": float(cohen_kappa_score(true, predicted)) if varies else None,
            }
        )
    kappas = [row["kappa"] for row in per_label if row["kappa"] is not None]
    low, high = bootstrap_interval(y_true, y_pred, metric="subset_accuracy")
    f1 = f1_scores(y_true, y_pred)
    metrics = {
        "rows": len(y_true),
        "accuracy": subset_accuracy(y_true, y_pred),
        "accuracy_low": low,
        "accuracy_high": high,
        "micro_f1": f1["micro_f1"],
        "macro_f1": f1["macro_f1"],
        "kappa": float(np.mean(kappas)) if kappas else None,
    }
    return metrics, per_label


def decision_kappa(first: np.ndarray, second: np.ndarray, *, single_label: bool) -> float:
    """Return Cohen's kappa of the labels that two models give to the same texts.

    Parameters
    ----------
    first, second : bool arrays of shape (texts, labels)
    single_label : bool
        True: one decision per text, between all labels. False: one decision per text and label,
        all of them together, so that rare labels count as often as they occur.

    Returns
    -------
    float
        1 where both are equal, also where chance could not make them differ.
    """
    if single_label:
        observed = float((first == second).all(axis=1).mean())
        by_chance = float(first.mean(axis=0) @ second.mean(axis=0))
    else:
        observed, a, b = float((first == second).mean()), first.mean(), second.mean()
        by_chance = float(a * b + (1 - a) * (1 - b))
    return 1.0 if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def is_stable(kappas: Sequence[float]) -> bool:
    """Return whether labelling more no longer changes what the model says.

    Stabilising predictions (Bloodgood and Vijay-Shanker 2009, "A Method for Stopping Active
    Learning Based on Stabilizing Predictions and the Need for User-Adjustable Stopping"): the mean
    kappa of the last three pairs of successive models, on texts that need no labels, is at least
    .99.
    """
    last = kappas[-STABLE_ROUNDS:]
    return len(last) == STABLE_ROUNDS and float(np.mean(last)) >= STABLE_KAPPA


def agreement_table(metrics: dict[str, Any], per_label: Sequence[dict[str, Any]]) -> str:
    """Return the result of `agreement` as a sentence and a Markdown table."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = [
        f"Agreement on {metrics['rows']:,} labelled texts: accuracy {metrics['accuracy']:.3f} "
        f"(95 % interval {metrics['accuracy_low']:.3f} to {metrics['accuracy_high']:.3f}), micro "
        f"F1 {metrics['micro_f1']:.3f}, macro F1 {metrics['macro_f1']:.3f}, mean of Cohen's kappa "
        f"{number(metrics['kappa'])}",
        "",
        "| label | given | by the model | F1 | kappa |",
        "|---|---|---|---|---|",
    ]
    for row in per_label:
        counts = f"{row['given']:,} | {row['predicted']:,}"
        lines.append(
            f"| {row['label']} | {counts} | {number(row['f1'])} | {number(row['kappa'])} |"
        )
    return "\n".join(lines)


# --- any number of annotators --------------------------------------------------------------------


def answer_counts(texts: np.ndarray, labels: np.ndarray, n_texts: int) -> np.ndarray:
    """Return how many answers to each text have each label: int64, shape (n_texts, labels).

    Parameters
    ----------
    texts : int array of shape (answers,)
        The text of each answer.
    labels : bool array of shape (answers, labels)
    n_texts : int
    """
    from scipy.sparse import csr_array

    shape = (n_texts, len(texts))
    of_texts = csr_array((np.ones(len(texts), np.int64), (texts, np.arange(len(texts)))), shape)
    return of_texts @ labels.astype(np.int64)


def krippendorff_alpha(counts: np.ndarray) -> float | None:
    """Return Krippendorff's alpha of nominal answers.

    Parameters
    ----------
    counts : int array of shape (texts, categories)
        How many annotators gave each category to a text. Their number may differ between texts;
        texts with fewer than two do not count.

    Returns
    -------
    float or None
        1: perfect agreement, 0: that of chance; None: there is one category only, or no text with
        two answers.

    Notes
    -----
    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C. He calls data with
    an alpha of .8 and more reliable, and allows tentative conclusions from .667 on (Krippendorff
    2004, Content Analysis, 2nd edition, page 241).
    """
    alpha = _alpha(_alpha_terms(counts).sum(axis=0, keepdims=True))[0]
    return None if np.isnan(alpha) else float(alpha)


def alpha_interval(
    counts: np.ndarray,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of `krippendorff_alpha`, over resampled texts.

    Parameters
    ----------
    counts : as in `krippendorff_alpha`
    n_resamples, confidence, random_state : as in `bootstrap_interval`

    Returns
    -------
    low, high : float
        None where alpha is None. A resample without a second category counts as all texts.
    """
    terms = _alpha_terms(counts)
    if not len(terms) or krippendorff_alpha(counts) is None:
        return None
    low, high = statistic_interval(
        terms,
        lambda sums: _alpha(sums)[:, None],
        n_resamples=n_resamples,
        confidence=confidence,
        random_state=random_state,
    )
    return float(low[0]), float(high[0])


def _alpha_terms(counts: np.ndarray) -> np.ndarray:
    """Return what each text with several answers adds to the sums of alpha.

    The first column is the disagreement within the text, the others are the counts.
    """
    counts = counts[counts.sum(axis=1) > 1]
    n = counts.sum(axis=1)
    within = (n**2 - (counts**2).sum(axis=1)) / (n - 1)
    return np.column_stack([within, counts])


def _alpha(sums: np.ndarray) -> np.ndarray:
    """Return alpha from sums of `_alpha_terms`: one per row, NaN without a second category."""
    within, totals = sums[:, 0], sums[:, 1:]
    n = totals.sum(axis=1)
    by_chance = n**2 - (totals**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(by_chance > 0, 1 - (n - 1) * within / by_chance, np.nan)


def fleiss_kappa(counts: np.ndarray) -> float | None:
    """Return Fleiss' kappa.

    Parameters
    ----------
    counts : int array of shape (texts, categories)
        As in `krippendorff_alpha`. Fleiss has the same number of annotators for each text. Where it
        differs, each text has the same weight in the observed agreement, and each answer in that of
        chance.

    Returns
    -------
    float or None
        None where chance could not make the annotators differ, or without a text with two answers.

    Notes
    -----
    Fleiss (1971), Measuring Nominal Scale Agreement Among Many Raters.
    """
    counts = counts[counts.sum(axis=1) > 1]
    if not len(counts):
        return None
    n = counts.sum(axis=1)
    observed = (((counts**2).sum(axis=1) - n) / (n * (n - 1))).mean()
    by_chance = ((counts.sum(axis=0) / n.sum()) ** 2).sum()
    return None if by_chance == 1 else float((observed - by_chance) / (1 - by_chance))


def positive_agreement(n_answers: np.ndarray, n_positive: np.ndarray) -> float | None:
    """Return how often another annotator gives a label, too, where one has given it.

    Parameters
    ----------
    n_answers, n_positive : int arrays of shape (texts,)
        Number of answers to each text, and of those with the label.

    Returns
    -------
    float or None
        From 0 to 1; None if nobody gave the label to a text with several answers.

    Notes
    -----
    The specific agreement of Fleiss (1981), Statistical Methods for Rates and Proportions, 2nd
    edition, section 13.1, for any number of annotators. Unlike kappa it says nothing of chance, and
    unlike the share of equal answers it is not high because a label is rare.
    """
    others = int((n_positive * (n_answers - 1)).sum())
    return float((n_positive * (n_positive - 1)).sum() / others) if others else None
