"""Reasons in ``report.html``: the words that weigh most, and the nearest training texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.reports.excerpts import headline
from shared.taggers.explanations import Explainer, explains_slowly

if TYPE_CHECKING:
    from shared.data.splits import Split
    from shared.taggers.tagger import Tagger

# From lists of rows, and the labels of each row, to reasons and a note; see `Reasons.explain`.
Explain = Callable[
    [Sequence[Sequence[int]], Mapping[int, Sequence[int]]], tuple[dict[int, dict[str, Any]], str]
]


class _Limits(NamedTuple):
    rows: int  # that have reasons
    labels: int  # of a row, whose words are named
    searched: int  # training texts


# Recipes embed up to 5,000 labelled texts in one list, whose vectors are in the cache then.
_QUICK = _Limits(rows=300, labels=5, searched=5000)
# By the gradients of a model, reasons cost about 40 forward passes for each row, and a training
# text that is searched costs one. With these limits, and a row for each 32 training texts, they
# take about a tenth of the time of a training of 8 epochs, or less.
_SLOW = _Limits(rows=20, labels=2, searched=1000)
TRAINING_TEXTS_PER_SLOW_ROW = 32


@dataclass(frozen=True)
class Reasons:
    """What the reasons of a report come from.

    Attributes
    ----------
    tagger : Tagger
        The one that is saved.
    fitted_on : Split
        Its training set has the texts that this tagger has learned from. The nearest of them are
        named: at most 5,000 are searched, or 1,000 if they are to be embedded by a trained model.
    """

    tagger: Tagger
    fitted_on: Split

    def explain(
        self,
        tested: Split,
        label_names: Sequence[str],
        lists: Sequence[Sequence[int]],
        labels: Mapping[int, Sequence[int]],
    ) -> tuple[dict[int, dict[str, Any]], str]:
        """Explain the first rows of several lists.

        Parameters
        ----------
        tested : Split
            Its test set has the rows of the lists.
        label_names : sequence of str
        lists : sequence of sequences of int
            Rows of the test set, the most important ones first. At most 300 have reasons; of a
            model that was trained at most 20, and one for each 32 of its training texts.
        labels : mapping of int to sequence of int
            The labels of each row to explain, by their number, the most important ones first. Of
            these, 5 have words; of a model that was trained, 2.

        Returns
        -------
        reasons : dict of int to dict
            Of each row ``words`` and ``neighbours`` as of an `Explainer`, with labels by their
            number, as pairs; without what the tagger cannot say.
        note : str
            Which tagger the reasons are of; empty without reasons.
        """
        corpus, fitted = self.fitted_on.sources["train"]
        source, tested_rows = tested.sources["test"]
        limits = _QUICK
        if explains_slowly(self.tagger):
            n_rows = min(_SLOW.rows, len(fitted) // TRAINING_TEXTS_PER_SLOW_ROW)
            limits = _SLOW._replace(rows=n_rows)
        ranked = (row for row in chain(*zip_longest(*lists)) if row is not None)
        rows = list(dict.fromkeys(ranked))[: limits.rows]
        if not rows:
            return {}, ""
        searched = fitted[:: -(-len(fitted) // limits.searched)]
        explainer = Explainer(self.tagger, corpus, reference_rows=searched)

        number_of = {name: i for i, name in enumerate(label_names)}
        known = {*self.tagger.label_names}
        names = [
            [label_names[i] for i in labels[row] if label_names[i] in known][: limits.labels]
            for row in rows
        ]
        groups = source.groups[tested_rows[rows]] if source is corpus else None
        texts = tested.rows["test"].select(rows)["text"][:]
        reasons: dict[int, dict[str, Any]] = {}
        for row, explanation in zip(rows, explainer(texts, names, groups), strict=True):
            reasons[row] = {}
            if words := explanation.get("words"):
                reasons[row]["words"] = [(number_of[name], pairs) for name, pairs in words.items()]
            if neighbours := explanation.get("neighbours"):
                reasons[row]["neighbours"] = [
                    neighbour
                    | {"text": headline(neighbour["text"], 120)}
                    | {"labels": [number_of[name] for name in neighbour["labels"]]}
                    for neighbour in neighbours
                ]
        part = "" if len(searched) == len(fitted) else f" of {len(fitted):,}"
        named = f"the nearest of {len(searched):,}{part} training texts"
        if any("words" in each for each in reasons.values()):
            named = f"the words that speak most for their labels, and {named}"
        note = f"{len(rows):,} rows, the first of each list, have reasons of the saved tagger: "
        note += f"{named}."
        if source is corpus and np.isin(tested_rows, fitted).any():
            note += (
                " It has learned from these rows, too, unlike the classifiers of the figures; a "
                "row and its near duplicates are no neighbours of it."
            )
        return reasons, note
