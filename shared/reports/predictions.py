"""Predictions of a multilabel classifier, as JSON lines and as text to print."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.cli.files import atomic_write


def prediction_records(
    scores: np.ndarray, predicted: np.ndarray, label_names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield for each row its labels, best first, and the score of every label.

    Parameters
    ----------
    scores : array of shape (rows, labels)
        Probabilities.
    predicted : array of shape (rows, labels)
        Bool: which labels apply (see `shared.evaluation.decisions`).
    label_names : sequence of str
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    for row, best, chosen in zip(scores.tolist(), order, predicted, strict=True):
        yield {
            "labels": [label_names[i] for i in best if chosen[i]],
            "scores": {label_names[i]: round(row[i], 6) for i in best},
        }


def write_predictions(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    label_names: Sequence[str],
    y_true: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
) -> None:
    """Write one JSON line per row: its row in the source, text, true labels, labels, scores.

    Parameters
    ----------
    path : Path
    rows : iterable of mappings with ``row`` and ``text``, and ``fold`` if they come from several
    label_names : sequence of str
    y_true, scores, predicted : array of shape (rows, labels)
    """
    tagged = prediction_records(scores, predicted, label_names)
    with atomic_write(path) as file:
        for row, truth, prediction in zip(rows, y_true, tagged, strict=True):
            true_labels = [label_names[i] for i in np.flatnonzero(truth)]
            line = {name: row[name] for name in ("row", "fold", "text") if name in row}
            line["true_labels"] = true_labels
            file.write(json.dumps(line | prediction, ensure_ascii=False) + "\n")


def write_tags(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    label_names: Sequence[str],
    scores: np.ndarray,
    predicted: np.ndarray,
) -> None:
    """Write one JSON line per row: its row in the source, text, labels, scores.

    Parameters are those of `write_predictions`, without what is true.
    """
    with atomic_write(path) as file:
        tagged = prediction_records(scores, predicted, label_names)
        for row, prediction in zip(rows, tagged, strict=True):
            line = {"row": row["row"], "text": row["text"]}
            file.write(json.dumps(line | prediction, ensure_ascii=False) + "\n")


def headline(text: str, width: int = 90) -> str:
    """Return the first line of a text that holds anything, cut to `width` characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= width else line[: width - 3] + "..."


def format_labels(scores: np.ndarray, predicted: np.ndarray, label_names: Sequence[str]) -> str:
    """Return the labels of one row (labels,) with their scores as one readable line."""
    (prediction,) = prediction_records(scores[None], predicted[None], label_names)
    best, score = next(iter(prediction["scores"].items()))
    chosen = [f"{label} ({prediction['scores'][label]:.2f})" for label in prediction["labels"]]
    return ", ".join(chosen) or f"none (nearest: {best}, {score:.2f})"


def format_examples(
    texts: Iterable[str],
    scores: np.ndarray,
    predicted: np.ndarray,
    label_names: Sequence[str],
) -> str:
    """Return the headline of each text and, below it, its `format_labels`; arrays are (texts, labels)."""
    return "\n".join(
        f"  {headline(text)}\n    -> {format_labels(row, chosen, label_names)}"
        for text, row, chosen in zip(texts, scores, predicted, strict=True)
    )
