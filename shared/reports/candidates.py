"""Choose a tagger by out-of-fold scores: the candidates, their means, a table, and the best one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from shared.cli.errors import UserError
from shared.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from shared.evaluation.metrics import f1_scores, one_label_each
from shared.evaluation.rules import DecisionRule

# A mean of taggers takes the time of all of them. It must be better than one by this much, in the
# mean of micro and macro F1.
MEAN_MUST_GAIN = 0.005


@dataclass(frozen=True)
class Candidate:
    """A method, or the mean of several, with its out-of-fold scores.

    Attributes
    ----------
    names : tuple of str
        The method, or the methods of the mean.
    labels : array of shape (rows, labels)
        Multi-hot: the true labels.
    scores : array of shape (rows, labels)
        Each row is scored by a classifier that has not seen it.
    predicted : bool array of shape (rows, labels)
    rule : DecisionRule
        Of the tagger that is fitted on all rows.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    predicted: np.ndarray
    rule: DecisionRule

    @property
    def name(self) -> str:
        """What tables and sentences call it."""
        return self.names[0] if len(self.names) == 1 else f"mean of {' and '.join(self.names)}"

    @cached_property
    def f1(self) -> dict[str, float]:
        """Micro and macro F1."""
        return f1_scores(self.labels, self.predicted)

    @property
    def micro_name(self) -> str:
        """What micro F1 is called: accuracy if each row has one label."""
        return "accuracy" if one_label_each(self.labels, self.predicted) else "micro F1"

    @property
    def quality(self) -> float:
        """The mean of micro and macro F1."""
        return (self.f1["micro_f1"] + self.f1["macro_f1"]) / 2


def read_candidate(
    name: str,
    predictions: Path,
    rule: DecisionRule,
    *,
    rows: Sequence[int],
    labels: np.ndarray,
    label_names: Sequence[str],
) -> Candidate:
    """Read the predictions that a recipe wrote in a cross-validation.

    Parameters
    ----------
    name : str
    predictions : Path
        JSON lines with ``row``, ``labels`` and ``scores``.
    rule, labels
        As in `Candidate`.
    rows : sequence of int
        The number in the source of each row of `labels`.
    label_names : sequence of str
        The columns of `labels`.

    Raises
    ------
    UserError
        If the file has predictions for other rows.
    """
    # Not splitlines(), which would also split at U+2028 inside a text.
    lines = [json.loads(line) for line in predictions.read_text("utf-8").split("\n") if line]
    by_row = {line["row"]: line for line in lines}
    if sorted(by_row) != sorted(rows):
        raise UserError(f"{predictions}: has other rows than --data; delete its folder")
    ordered = [by_row[row] for row in rows]
    scores = np.array([[line["scores"][name] for name in label_names] for line in ordered])
    predicted = np.array([[name in line["labels"] for name in label_names] for line in ordered])
    return Candidate((name,), labels, scores, predicted, rule)


def mean_candidates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the mean of every two candidates; its thresholds are .5.

    The mean of thresholds that were tuned on the same rows would favour it.
    """
    means = []
    for pair in combinations(candidates, 2):
        scores = np.mean([candidate.scores for candidate in pair], axis=0)
        rule = DecisionRule.mean([candidate.rule for candidate in pair])
        if rule.thresholds:
            rule = replace(rule, thresholds=(0.5,) * len(rule.thresholds))
        names = tuple(name for candidate in pair for name in candidate.names)
        means.append(Candidate(names, pair[0].labels, scores, rule.choose(scores), rule))
    return means


def choose_candidate(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """Return the best candidate, and a sentence that says why.

    The best is that with the highest mean of micro and macro F1. A mean of two methods must be
    better than every single method by .005.
    """
    singles = [candidate for candidate in candidates if len(candidate.names) == 1]
    best = max(singles, key=lambda candidate: candidate.quality)
    best_of_all, note = max(candidates, key=lambda candidate: candidate.quality), ""
    if best_of_all.quality >= best.quality + MEAN_MUST_GAIN:
        best = best_of_all
    elif best_of_all is not best:
        note = f" The {best_of_all.name} is not better by {MEAN_MUST_GAIN}."
    micro = best.micro_name
    scores = f"{micro} {best.f1['micro_f1']:.3f} and macro F1 {best.f1['macro_f1']:.3f}"
    sentence = f"The {best.name} was taken" if len(best.names) > 1 else f"{best.name} was taken"
    others = [candidate for candidate in singles if candidate is not best]
    if not others:
        return best, f"{sentence}, the only method: {scores} out of fold."
    second = max(others, key=lambda candidate: candidate.quality)
    test = paired_bootstrap(best.labels, best.predicted, second.predicted)
    interval = f"{test['difference']:+.3f}, 95 % interval {test['low']:+.3f} to {test['high']:+.3f}"
    chance = "" if test["low"] > 0 else ", which may be chance"
    of_all = "of all" if len(best.names) > 1 else "of the single methods"
    compared = "best single method" if len(best.names) > 1 else "second method"
    return best, (
        f"{sentence}: {of_all} it has the highest mean of {scores} out of fold; the {compared}, "
        f"{second.name}, differs in {micro} by {interval}{chance}.{note}"
    )


def candidates_table(candidates: Sequence[Candidate], chosen: Candidate) -> str:
    """Return Markdown: a row per candidate, best first, with 95 % intervals; `chosen` is bold."""
    lines = [f"| method | {chosen.micro_name} | macro F1 |", "|---|---|---|"]
    for candidate in sorted(candidates, key=lambda candidate: -candidate.quality):
        cells = [f"**{candidate.name}**" if candidate is chosen else candidate.name]
        for metric in ("micro_f1", "macro_f1"):
            bounds = bootstrap_interval(candidate.labels, candidate.predicted, metric=metric)
            low, high = bounds
            cells.append(f"{candidate.f1[metric]:.3f} ({low:.3f} to {high:.3f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
