"""Choose a tagger by scores of texts that it has not seen: candidates, their means, the best one.

Candidates are compared on the rows of `shared.data.ChoiceRows`: out of fold, or on validation rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.data.choice import ChoiceRows, widen
from shared.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from shared.evaluation.calibration import CalibratedScores, calibrate
from shared.evaluation.metrics import f1_scores, one_label_each
from shared.evaluation.rules import NEVER, DecisionRule
from shared.taggers.folder import copy_tagger
from shared.taggers.means import save_mean

if TYPE_CHECKING:
    from shared.data.resampling import Resampling
    from shared.data.splits import Split
    from shared.taggers.tagger import Tagger

# A mean of taggers takes the time of all of them. It must be better than one by this much, in the
# mean of micro and macro F1.
MEAN_MUST_GAIN = 0.005


@dataclass(frozen=True)
class Candidate:
    """A method, or the mean of several, with its scores of the rows that candidates share.

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
    choice: ChoiceRows,
) -> Candidate:
    """Read the predictions that a recipe wrote for rows that it had not learned from.

    Parameters
    ----------
    name : str
    predictions : Path
        JSON lines with ``row``, ``labels`` and ``scores``.
    rule : DecisionRule
        As in `Candidate`.
    choice : ChoiceRows

    Raises
    ------
    UserError
        If the file has predictions for other rows.
    """
    # Not splitlines(), which would also split at U+2028 inside a text.
    lines = [json.loads(line) for line in predictions.read_text("utf-8").split("\n") if line]
    by_row = {line["row"]: line for line in lines}
    if sorted(by_row) != sorted(choice.rows.tolist()):
        raise UserError(f"{predictions}: has other rows than --data; delete its folder")
    ordered, names = [by_row[row] for row in choice.rows.tolist()], choice.label_names
    scores = np.array([[line["scores"][label] for label in names] for line in ordered])
    predicted = np.array([[label in line["labels"] for label in names] for line in ordered])
    return Candidate((name,), choice.labels, scores, predicted, rule)


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


def choose_candidate(
    candidates: Sequence[Candidate], *, measured: str = "out of fold"
) -> tuple[Candidate, str]:
    """Return the best candidate, and a sentence that says why.

    The best is that with the highest mean of micro and macro F1. A mean of two methods must be
    better than every single method by .005.

    Parameters
    ----------
    candidates : sequence of Candidate
    measured : str, default "out of fold"
        How, or on which rows, for the sentence.
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
        return best, f"{sentence}, the only method: {scores} {measured}."
    second = max(others, key=lambda candidate: candidate.quality)
    test = paired_bootstrap(best.labels, best.predicted, second.predicted)
    interval = f"{test['difference']:+.3f}, 95 % interval {test['low']:+.3f} to {test['high']:+.3f}"
    chance = "" if test["low"] > 0 else ", which may be chance"
    of_all = "of all" if len(best.names) > 1 else "of the single methods"
    compared = "best single method" if len(best.names) > 1 else "second method"
    return best, (
        f"{sentence}: {of_all} it has the highest mean of {scores} {measured}; the {compared}, "
        f"{second.name}, differs in {micro} by {interval}{chance}.{note}"
    )


def save_candidate(
    folder: Path,
    candidate: Candidate,
    folders: Mapping[str, Path],
    choice: ChoiceRows,
    *,
    single_label: bool,
) -> CalibratedScores | None:
    """Save the tagger of a candidate, or the mean of those of its methods.

    Parameters
    ----------
    folder : Path
    candidate : Candidate
    folders : mapping of method to the folder of its tagger
    choice : ChoiceRows
        What the candidate was measured on.
    single_label : bool
        Each text has exactly one label.

    Returns
    -------
    CalibratedScores or None
        Of a mean in a cross-validation: its scores, each calibrated on the other folds. Those of a
        single method are calibrated already.
    """
    if len(candidate.names) == 1:
        copy_tagger(folders[candidate.name], folder)
        return None
    for name in candidate.names:
        copy_tagger(folders[name], folder / name)
    part = "valid" if choice.fold_of is None else "test"
    arrays = (candidate.scores, candidate.predicted, candidate.labels)
    calibration, calibrated = calibrate(
        *({part: values, "test": values} for values in arrays),
        single_label=single_label,
        fold_of=choice.fold_of,
    )
    save_mean(folder, candidate.names, choice.label_names, candidate.rule, calibration)
    return None if choice.fold_of is None else calibrated


def scores_to_report(
    candidate: Candidate, tagger: Tagger, split: Split, choice: ChoiceRows
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], DecisionRule]:
    """Return the scores that a report is about: out of fold, or those of rows held out by a column.

    Parameters
    ----------
    candidate : Candidate
        The one that was taken.
    tagger : Tagger
        The same, as `save_candidate` saved it.
    split : Split
        Its test rows are those of the candidate in a cross-validation; else the tagger scores them
        now, as it tags other texts.
    choice : ChoiceRows

    Returns
    -------
    scores, predicted : dict of "valid" and "test" to array of shape (rows, labels)
        Of all labels of the split. One that the tagger does not know has a score of 0 and is never
        predicted.
    rule : DecisionRule
        For these scores.
    """
    if choice.fold_of is not None:
        scores = {"valid": candidate.scores[:0], "test": candidate.scores}
        predicted = {"valid": candidate.predicted[:0], "test": candidate.predicted}
        # Those of a single method are calibrated already.
        return (
            scores,
            predicted,
            tagger.calibrated_rule if len(candidate.names) == 1 else tagger.rule,
        )
    raw = tagger.raw_scores(split.rows["test"]["text"][:])
    scores = {"valid": candidate.scores, "test": tagger.calibrate(raw)}
    predicted = {"valid": candidate.predicted, "test": tagger.choose(raw)}
    known, names, rule = tagger.label_names, split.corpus.label_names, tagger.calibrated_rule
    if rule.thresholds:
        thresholds = dict(zip(known, rule.thresholds, strict=True))
        rule = replace(rule, thresholds=tuple(thresholds.get(name, NEVER) for name in names))
    for arrays in (scores, predicted):
        for part, order in (("valid", choice.label_names), ("test", known)):
            arrays[part] = widen(arrays[part], order, names)
    return scores, predicted, rule


def explain_choice(resampling: Resampling, *, has_fold_models: bool) -> str:
    """Return sentences for a card: what the figures are measured on, what the tagger learned from.

    Parameters
    ----------
    resampling : Resampling
        Folds, or the only split, whose validation rows the choice was made on.
    has_fold_models : bool
        The tagger holds models of folds, which have not learned from all rows.
    """
    split = resampling.tested
    if not resampling.cross_validated:
        n_train, n_valid, n_test = (f"{len(y):,}" for y in split.labels.values())
        fold_models = ", for fine-tuning from the training texts alone" if has_fold_models else ""
        return (
            f"The method was taken by its scores of {n_valid} validation texts. The figures are "
            f"those of its tagger on {n_test} test texts, which no choice has seen. "
            f"{split.method.explain()} The tagger in this folder has learned from the {n_train} "
            f"training texts and the validation texts{fold_models}."
        )
    if not has_fold_models:
        return resampling.explain()
    return (
        f"{replace(resampling, all_rows=None).explain()} The tagger in this folder holds, for "
        "fine-tuning, the models of all folds; other methods in it were fitted on all labelled "
        "texts."
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
