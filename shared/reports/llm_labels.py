"""The rows of a data set with the labels of a language model, and those for a person to look at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import write_csv
from shared.data.labelled_rows import write_labelled_rows
from shared.evaluation.rules import scores_per_text
from shared.reports.excerpts import headline

if TYPE_CHECKING:
    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus
    from shared.llm.labelling import Labelling

# Columns of the output beside those of the texts.
LABEL_COLUMNS = ("row", "labels", "confidence", "scores", "source", "flag")
_REVIEW_COLUMNS = ("row", "flag", "labels", "confidence", "text")


class LlmLabels:
    """Given labels, and the labels of a language model, of the rows of a data set.

    Parameters
    ----------
    corpus : Corpus
    asked : int array of shape (n,)
        Rows of the corpus that the model was asked for, labelled ones among them.
    labelling : Labelling
        What it has said of these n texts.
    multilabel : bool
        Whether a text has any number of labels, or exactly one.
    review_below : float
        The confidence below which a person should look at a row.

    Attributes
    ----------
    chosen, confidence : see `Labelling.choose`
    """

    def __init__(
        self,
        corpus: Corpus,
        asked: np.ndarray,
        labelling: Labelling,
        *,
        multilabel: bool,
        review_below: float,
    ) -> None:
        self.corpus, self.asked, self.labelling = corpus, asked, labelling
        self.chosen, self.confidence = labelling.choose(multilabel)
        self._review_below = review_below
        self._is_labelled = np.isin(asked, corpus.labelled)

    def compared(self) -> tuple[np.ndarray, np.ndarray]:
        """Return given labels and those of the model, for all rows that have the first.

        A row of which the model has said nothing valid counts as one without labels; a row that it
        was not asked for does not count.

        Returns
        -------
        y_true, y_pred : bool arrays of shape (rows, labels)
        """
        rows = self._is_labelled & ~self.labelling.not_asked
        return self.corpus.label_matrix(self.asked[rows]) > 0, self.chosen[rows]

    @cached_property
    def flags(self) -> list[str]:
        """Why a person should look at each of the n rows; "" for those that need it not."""
        y_true = self.corpus.label_matrix(self.asked) > 0
        flags = []
        for i, problem in enumerate(self.labelling.problems):
            reasons = [problem] if problem else []
            if self.labelling.answered[i]:
                if self.confidence[i] < self._review_below:
                    reasons.append("low confidence")
                if self._is_labelled[i] and (self.chosen[i] != y_true[i]).any():
                    labels = ", ".join(self._names(self.chosen[i])) or "no label"
                    reasons.append(f"the model says: {labels}")
            flags.append("; ".join(reasons))
        return flags

    def write(self, path: Path, args: DataArguments) -> None:
        """Write all rows of the corpus as JSON lines: their text columns, and `LABEL_COLUMNS`."""
        numbers = self.corpus.dataset["row"][:]
        records = dict(zip(numbers, self._records(), strict=True))
        write_labelled_rows(path, args, self.corpus, records)

    def write_review(self, path: Path) -> int:
        """Write the rows that have a flag as CSV, the most doubtful first; return their number.

        Rows that the budget did not allow are left out.
        """
        order = np.argsort(np.nan_to_num(self.confidence), kind="stable")
        numbers, texts = self.corpus.dataset["row"][:], self.corpus.dataset["text"]
        rows = []
        for i in order[~self.labelling.not_asked[order]]:
            if not self.flags[i]:
                continue
            row = int(self.asked[i])
            labels = "; ".join(self._names(self.chosen[i]))
            sure = "" if np.isnan(self.confidence[i]) else round(float(self.confidence[i]), 4)
            cells = (numbers[row], self.flags[i], labels, sure, headline(texts[row]))
            rows.append(dict(zip(_REVIEW_COLUMNS, cells, strict=True)))
        write_csv(path, rows, _REVIEW_COLUMNS)
        return len(rows)

    def _records(self) -> Iterator[dict[str, Any]]:
        """Yield the added columns of each row of the corpus, but for its number."""
        position = {int(row): i for i, row in enumerate(self.asked)}
        n_scores = scores_per_text(len(self.corpus.label_names), None)
        y_true = self.corpus.label_matrix()
        is_labelled = np.isin(np.arange(len(y_true)), self.corpus.labelled)
        for row, labels in enumerate(y_true):
            record: dict[str, Any] = dict.fromkeys(LABEL_COLUMNS[1:])
            if (i := position.get(row)) is not None:
                record["flag"] = self.flags[i] or None
                if self.labelling.answered[i]:
                    record["scores"] = self._best_scores(i, n_scores)
                    record["labels"] = self._names(self.chosen[i])
                    record["confidence"] = round(float(self.confidence[i]), 4)
                    record["source"] = "llm"
            if is_labelled[row]:
                record |= {"labels": self._names(labels), "confidence": None, "source": "given"}
            yield record

    def _best_scores(self, i: int, n: int | None) -> dict[str, float]:
        scores = self.labelling.scores[i]
        best = np.argsort(-scores, kind="stable")[:n]
        return {self.corpus.label_names[j]: round(float(scores[j]), 4) for j in best}

    def _names(self, labels: np.ndarray) -> list[str]:
        return [self.corpus.label_names[j] for j in np.flatnonzero(labels)]
