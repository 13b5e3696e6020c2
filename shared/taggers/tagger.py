"""`Tagger`: from texts to labels and scores, whatever the method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shared.evaluation.calibration import Calibration
from shared.evaluation.rules import DecisionRule, prediction_records
from shared.taggers.folder import TaggerContents, write_tagger

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK_SIZE = 4096  # texts that are sorted by length and scored at a time


class Scorer(Protocol):
    """From texts to scores."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return scores from 0 to 1: float64, of shape (texts, labels)."""

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add to the contents of a tagger folder what `load_scorer` needs."""


@dataclass
class Tagger:
    """Gives texts labels and scores.

    Attributes
    ----------
    label_names : list of str
        The labels, in the order of the columns of `scores`.
    rule : DecisionRule
        Which labels a text gets.
    scorer : callable
        Maps texts to an array of shape (texts, labels); see `Scorer`.
    calibration : Calibration, optional
        Makes probabilities of the scores. The rule reads them before calibration, so that it
        changes no label.
    unsure_below : float, optional
        Only with a calibration: records also have ``confidence``, the probability that all labels
        of the text are right, and ``unsure``: whether it is below this number.
    """

    label_names: list[str]
    rule: DecisionRule
    scorer: Scorer
    calibration: Calibration | None = None
    unsure_below: float | None = None

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return a score from 0 to 1 for each text and label: float64, (texts, labels)."""
        return self.calibrate(self.raw_scores(texts))

    def calibrate(self, raw_scores: np.ndarray) -> np.ndarray:
        """Return what `scores` returns, from the scores before calibration."""
        return raw_scores if self.calibration is None else self.calibration(raw_scores)

    def choose(self, raw_scores: np.ndarray) -> np.ndarray:
        """Return the labels of scores before calibration: bool, (texts, labels)."""
        reads_calibrated = self.rule.reads_calibrated
        return self.rule.choose(self.calibrate(raw_scores) if reads_calibrated else raw_scores)

    @property
    def calibrated_rule(self) -> DecisionRule:
        """The rule with thresholds for the scores after calibration."""
        if self.calibration is None or self.rule.reads_calibrated or not self.rule.thresholds:
            return self.rule
        thresholds = tuple(self.calibration.thresholds(self.rule.thresholds).tolist())
        return replace(self.rule, thresholds=thresholds)

    def raw_scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores before calibration: float64, (texts, labels)."""
        parts = [np.zeros((0, len(self.label_names)))]  # so that no texts give no rows
        for start in range(0, len(texts), BLOCK_SIZE):
            parts.append(self.scorer(texts[start : start + BLOCK_SIZE]))
        return np.concatenate(parts)

    def tag(
        self, texts: Sequence[str | None] | np.ndarray, n_scores: int | None = None
    ) -> list[dict[str, Any]]:
        """Return ``{"labels": [...], "scores": {...}}`` for each text, both best first.

        A text that is None or blank gets no labels and no scores. With `n_scores`, only the best
        labels and the predicted ones have a score. With `unsure_below`, records also have
        ``confidence`` and ``unsure``, None and true for a blank text.

        Raises
        ------
        TypeError
            If a text is neither a string nor None; the message has its number.
        """
        for number, text in enumerate(texts):
            if text is not None and not isinstance(text, str):
                raise TypeError(f"text {number} is {text!r}, neither a string nor None")
        to_score = [text for text in texts if text and text.strip()]
        raw_scores = self.raw_scores(to_score)
        scores, chosen = self.calibrate(raw_scores), self.choose(raw_scores)
        records = prediction_records(scores, chosen, self.label_names, n_scores)
        blank: dict[str, Any] = {"labels": [], "scores": {}}
        if self.unsure_below is not None and self.calibration is not None:
            confidences = self.calibration.confidence(raw_scores, chosen).round(6).tolist()
            extra = [{"confidence": c, "unsure": c < self.unsure_below} for c in confidences]
            records = (record | more for record, more in zip(records, extra, strict=True))
            blank |= {"confidence": None, "unsure": True}
        return [next(records) if text and text.strip() else dict(blank) for text in texts]

    def __call__(self, texts: Any, column: str = "text") -> Any:
        """Tag a text, or many.

        Parameters
        ----------
        texts : str, sequence of str, iterable of str, or datasets.Dataset
        column : str
            The column of a data set that holds the texts.

        Returns
        -------
        dict, list of dict, iterator of dict, or Dataset
            As the texts: one record with ``labels`` and ``scores``; a list of them; an iterator,
            which reads the texts in blocks; or the data set with a column for each part of a
            record, which replaces a column of its name.
        """
        if isinstance(texts, str):
            return self.tag([texts])[0]
        if hasattr(texts, "column_names"):
            return self._tag_dataset(texts, column)
        if isinstance(texts, (Sequence, np.ndarray)):
            return self.tag(texts)
        return self._tag_blocks(iter(texts))

    def _tag_blocks(self, texts: Iterator[str]) -> Iterator[dict[str, Any]]:
        while block := list(islice(texts, BLOCK_SIZE)):
            yield from self.tag(block)

    def _tag_dataset(self, dataset: Dataset, column: str) -> Dataset:
        if column not in dataset.column_names:
            raise ValueError(f"no column {column!r} (there are {', '.join(dataset.column_names)})")
        records = self.tag(dataset[column][:])
        # A row without text has no scores: each label has null.
        blank = dict.fromkeys(self.label_names)
        columns = {
            "labels": [record["labels"] for record in records],
            "scores": [blank | record["scores"] for record in records],
        }
        if self.unsure_below is not None and self.calibration is not None:
            for name in ("confidence", "unsure"):
                columns[name] = [record[name] for record in records]
        tagged = dataset.select_columns([n for n in dataset.column_names if n not in columns])
        for name, values in columns.items():
            tagged = tagged.add_column(name, values)
        return tagged

    def save(self, folder: str | Path) -> None:
        """Write the tagger into a folder; the files of a trained model must be there already."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        contents = TaggerContents("", self.label_names, self.rule, self.calibration)
        self.scorer.save(path, contents)
        write_tagger(path, contents)
