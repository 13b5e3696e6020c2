"""Exact match and F1 of answers, as SQuAD counts them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from shared.evaluation.bootstrap import statistic_interval

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def squad_scores(prediction: str, references: Sequence[str]) -> tuple[float, float]:
    """Return the exact match (0 or 1) and the F1 of an answer.

    Case, punctuation, the words a, an and the, and the amount of white space do not count; F1 is
    that of the words. Of several references the one that fits best counts, for each metric. A
    question without an answer has the reference "", and only an empty prediction is right.

    Notes
    -----
    Rajpurkar et al. (2016), SQuAD: 100,000+ Questions for Machine Comprehension of Text, and the
    evaluation script of SQuAD 2.0. That of 1.1 differs where no word is left of an answer.
    """
    words = _words(prediction)
    answers = [_words(reference) for reference in references]
    return float(words in answers), max(_overlap_f1(words, answer) for answer in answers)


def _words(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _overlap_f1(words: list[str], answer: list[str]) -> float:
    """Return the F1 of the words that two answers share; 1 if both have none."""
    if not words or not answer:
        return float(words == answer)
    shared = (Counter(words) & Counter(answer)).total()
    return 2 * shared / (len(words) + len(answer))


def answer_figures(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    confidence: float | None = None,
) -> dict[str, float]:
    """Return the means of exact match and F1 over questions.

    Parameters
    ----------
    predictions : sequence of str
        "" says that there is no answer.
    references : sequence of sequences of str
        The answers of each question; "" if it has none.
    confidence : float, optional
        Also return the bounds of a bootstrap interval over the questions, as ``f1_low`` and
        ``f1_high``.

    Returns
    -------
    dict
        ``exact_match``, ``f1`` and ``questions``, their number. If only some have an answer, also
        ``has_answer_`` and ``no_answer_`` before the three names, for the questions with and
        without one; without one, both metrics are the share that is left unanswered.

    Raises
    ------
    ValueError
        If there is no question.
    """
    if not len(predictions):
        raise ValueError("no question, so there is nothing to score")
    scores = np.array(
        [squad_scores(text, row) for text, row in zip(predictions, references, strict=True)]
    )
    names = ("exact_match", "f1")
    figures = dict(zip(names, scores.mean(axis=0).tolist(), strict=True))
    if confidence is not None:
        terms = np.column_stack([scores, np.ones(len(scores))])
        bounds = statistic_interval(terms, lambda s: s[:, :-1] / s[:, -1:], confidence=confidence)
        for bound, values in zip(("low", "high"), bounds, strict=True):
            figures |= {f"{n}_{bound}": float(v) for n, v in zip(names, values, strict=True)}
    figures["questions"] = len(scores)
    has_answer = np.array([any(row) for row in references])
    if 0 < has_answer.sum() < len(scores):
        for prefix, rows in (("has_answer", has_answer), ("no_answer", ~has_answer)):
            means = scores[rows].mean(axis=0).tolist()
            figures |= {f"{prefix}_{n}": v for n, v in zip(names, means, strict=True)}
            figures[f"{prefix}_questions"] = int(rows.sum())
    return figures
