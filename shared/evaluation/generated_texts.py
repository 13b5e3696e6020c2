"""Scores of the texts that a model writes, by name, and what it is compared with.

The metrics themselves are in `shared.evaluation.text_modules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from shared.cli.errors import UserError
from shared.data.words import token_spans

TEXT_METRICS = ("bleu", "chrf", "rouge", "meteor", "exact_match")


def score_texts(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    names: Sequence[str],
    *,
    confidence: float | None = None,
) -> dict[str, float]:
    """Return metrics of generated texts, from 0 to 1.

    Parameters
    ----------
    predictions : sequence of str
    references : sequence of sequences of str
        The right texts of each prediction, one or several.
    names : sequence of str
        From `TEXT_METRICS`; "rouge" gives ``rouge1``, ``rouge2`` and ``rougeL``.
    confidence : float, optional
        Also return the bounds of an interval of each metric, as ``bleu_low`` and ``bleu_high``, by
        a bootstrap over the texts.

    Raises
    ------
    UserError
        For an unknown name, a missing library, or texts that a metric cannot read.
    """
    from shared.evaluation import text_modules as modules

    makers: dict[str, Callable[..., Any]] = {
        "bleu": modules.Bleu,
        "chrf": modules.ChrF,
        "rouge": lambda **settings: modules.Rouge(
            ("rouge1", "rouge2", "rougeL"), tokenize=rouge_words, **settings
        ),
        "meteor": modules.Meteor,
        "exact_match": modules.ExactMatch,
    }
    scores: dict[str, float] = {}
    for name in names:
        if name not in makers:
            raise UserError(f"--metrics {name}: there are {', '.join(TEXT_METRICS)}")
        try:
            module = makers[name](confidence=confidence)
            scores |= module.compute(predictions=predictions, references=references)
        except ValueError as error:
            raise UserError(f"--metrics {name}: {error}") from error
    return scores


def rouge_words(text: str) -> list[str]:
    """Return the words that ROUGE compares: those of rouge-score, which reads a to z and digits.

    Of a text that has none of these, they are its words in any script, else its characters.
    """
    from rouge_score.tokenize import tokenize

    words: list[str] = tokenize(text, None)
    return words or [text[start:stop] for start, stop in token_spans(text)] or list(text)


def first_sentence(text: str) -> str:
    """Return the first sentence of a text, without headings of Markdown: a simple summary.

    A sentence ends at a full stop, an exclamation or question mark before white space, or at the
    end of its line. A text of headings only is returned as it is.
    """
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            return re.split(r"(?<=[.!?])\s", line)[0]
    return text.strip()
