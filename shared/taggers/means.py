"""The mean of several taggers, also of different methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.cli.errors import UserError
from shared.evaluation.calibration import Calibration
from shared.evaluation.rules import DecisionRule
from shared.methods.attributions import (
    Chosen,
    Contributions,
    NoWordsError,
    mean_contributions,
)
from shared.taggers.folder import MANIFEST, TaggerContents, write_tagger
from shared.taggers.tagger import Tagger

MEAN = "mean"  # the method of a tagger that averages others


@dataclass
class MeanScorer:
    """The mean score of several taggers, also of different methods.

    Attributes
    ----------
    members : list of Tagger
    folders : list of str
        Their folders below that of the mean, for `save`; empty: tagger_0, tagger_1, ...
    weights : list of float, optional
        Of the members; None: all the same.
    """

    members: list[Tagger]
    folders: list[str] = field(default_factory=list)
    weights: list[float] | None = None

    def __post_init__(self):
        # The columns of each member, in the order of the labels of the first one.
        names = self.members[0].label_names
        self._columns = [[m.label_names.index(name) for name in names] for m in self.members]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the weighted mean of the scores."""
        pairs = zip(self.members, self._columns, strict=True)
        scores = [member.calibrate(member.scorer(texts))[:, columns] for member, columns in pairs]
        return np.average(scores, axis=0, weights=self.weights)

    def contributions(self, texts: Sequence[str], chosen: Chosen) -> Contributions:
        """Return the weighted mean of what words add to the logits of chosen labels.

        A classifier of embeddings alone adds nothing for a word, as the embeddings of a probe.

        Raises
        ------
        ValueError
            If a member cannot say it, or all read nothing but embeddings.
        """
        parts: list[Contributions] = []
        refusals = []
        for member, columns in zip(self.members, self._columns, strict=True):
            if not hasattr(member.scorer, "contributions"):
                raise ValueError("a tagger of the mean cannot say what its words add")
            of_member = [[columns[label] for label in labels] for labels in chosen]
            try:
                parts.append(member.scorer.contributions(texts, of_member))
            except NoWordsError as refusal:
                parts.append([[{} for _ in labels] for labels in of_member])
                refusals.append(refusal)
        if len(refusals) == len(self.members):
            raise refusals[0]
        return mean_contributions(parts, self.weights)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Save each member in its folder, and record the folders."""
        folders = self.folders or [f"tagger_{number}" for number in range(len(self.members))]
        for member, name in zip(self.members, folders, strict=True):
            member.save(folder / name)
        contents.method = MEAN
        contents.settings |= {"members": folders, "weights": self.weights}
        contents.files = [f"{name}/{MANIFEST}" for name in folders]


def save_mean(
    folder: Path,
    members: Sequence[str],
    label_names: Sequence[str],
    rule: DecisionRule,
    calibration: Calibration | None = None,
) -> None:
    """Make a tagger of the mean of taggers that are saved already, in folders below `folder`."""
    files = [f"{name}/{MANIFEST}" for name in members]
    settings = {"members": list(members)}
    write_tagger(
        folder, TaggerContents(MEAN, list(label_names), rule, calibration, settings, files=files)
    )


def mean_tagger(
    members: Sequence[Tagger], *, folders: Sequence[str] = (), names: Sequence[str] = ()
) -> Tagger:
    """Return a tagger with the mean scores and the mean thresholds of several taggers.

    Parameters
    ----------
    members : sequence of Tagger
        With the same labels, in any order. One alone is returned as it is.
    folders : sequence of str
        The folder of each member below that of the mean, for `save`.
    names : sequence of str
        What errors call the members.

    Raises
    ------
    UserError
        If the members have other labels, or rules that do not fit together.
    """
    first = members[0]
    if len(members) == 1:
        return first
    names = names or [f"tagger {number}" for number in range(len(members))]
    for member, name in zip(members, names, strict=True):
        if different := set(first.label_names) ^ set(member.label_names):
            raise UserError(
                f"{name} has other labels than {names[0]}: only one of them has "
                f"{', '.join(sorted(different)[:5])}"
            )
    scorer = MeanScorer(list(members), list(folders))
    # Thresholds follow the order of the labels, too.
    rules = []
    for member in members:
        order = [member.label_names.index(name) for name in first.label_names]
        of_labels = member.calibrated_rule.thresholds
        thresholds = tuple(of_labels[i] for i in order if of_labels)
        rules.append(DecisionRule(thresholds, member.rule.at_least_one, member.rule.top_k))
    return Tagger(first.label_names, DecisionRule.mean(rules), scorer)
