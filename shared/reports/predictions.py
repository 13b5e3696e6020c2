"""Predictions of a multilabel classifier, as JSON lines and as text to print."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.cli.files import atomic_write

# --- JSON lines ----------------------------------------------------------------------------------


def prediction_records(
    scores: np.ndarray, predicted: np.ndarray, label_names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield, for each row, its predicted labels and the score of every label, both best first.

    Parameters
    ----------
    scores : array of shape (rows, labels)
        Probabilities.
    predicted : array of shape (rows, labels)
        Bool: the predicted labels (see `shared.evaluation.decisions`).
    label_names : sequence of str

    Yields
    ------
    record : dict
        ``labels``, a list of names, and ``scores``, a dict of name to score.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    for row_scores, best_first, chosen in zip(
        scores.tolist(), order.tolist(), predicted, strict=True
    ):
        yield {
            "labels": [label_names[i] for i in best_first if chosen[i]],
            "scores": {label_names[i]: round(row_scores[i], 6) for i in best_first},
        }


def write_predictions(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    label_names: Sequence[str],
    y_true: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
) -> None:
    """Write one JSON line per row: row number, text, true labels, predicted labels, scores.

    Parameters
    ----------
    path : Path
    rows : iterable of mappings
        Each has ``row``, the row number in the source, and ``text``; with cross-validation also
        ``fold``.
    label_names : sequence of str
    y_true, scores, predicted : array of shape (rows, labels)
        Multi-hot labels, probabilities, predicted labels.
    """
    records = prediction_records(scores, predicted, label_names)
    with atomic_write(path) as file:
        for row, truth, prediction in zip(rows, y_true, records, strict=True):
            true_labels = [label_names[i] for i in np.flatnonzero(truth).tolist()]
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
    """Write one JSON line per row: row number, text, predicted labels, scores.

    The parameters are those of `write_predictions`, without the true labels.
    """
    records = prediction_records(scores, predicted, label_names)
    with atomic_write(path) as file:
        for row, prediction in zip(rows, records, strict=True):
            line = {"row": row["row"], "text": row["text"]}
            file.write(json.dumps(line | prediction, ensure_ascii=False) + "\n")


# --- text to print -------------------------------------------------------------------------------


def format_examples(
    texts: Iterable[str],
    scores: np.ndarray,
    predicted: np.ndarray,
    label_names: Sequence[str],
) -> str:
    """Return the headline of each text and, on the next line, its predicted labels.

    Parameters
    ----------
    texts : iterable of str
    scores, predicted : array of shape (texts, labels)
        Probabilities and predicted labels.
    label_names : sequence of str
    """
    return "\n".join(
        f"  {headline(text)}\n    -> {format_labels(row_scores, chosen, label_names)}"
        for text, row_scores, chosen in zip(texts, scores, predicted, strict=True)
    )


def headline(text: str, width: int = 90) -> str:
    """Return the first line of a text that is not blank, shortened to `width` characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= width else line[: width - 3] + "..."


def format_labels(scores: np.ndarray, predicted: np.ndarray, label_names: Sequence[str]) -> str:
    """Return the predicted labels of one row, with their scores, on one line.

    `scores` and `predicted` have the shape (labels,).
    """
    (prediction,) = prediction_records(scores[None], predicted[None], label_names)
    best, best_score = next(iter(prediction["scores"].items()))
    chosen = [f"{label} ({prediction['scores'][label]:.2f})" for label in prediction["labels"]]
    return ", ".join(chosen) or f"no label (highest score: {best}, {best_score:.2f})"
