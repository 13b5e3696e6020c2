"""What a recipe prints and leaves in its output folder: metrics, predictions, plots, card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import ROOT, write_csv, write_json
from shared.evaluation.bootstrap import bootstrap_interval
from shared.evaluation.metrics import (
    classification_report,
    f1_scores,
    per_label_report,
    ranking_scores,
)
from shared.plots import plot_label_counts, plot_training_curve, plot_words_per_text
from shared.reports.cards import TaggerCard
from shared.reports.predictions import write_predictions

if TYPE_CHECKING:
    from shared.data.splits import Split


def interval_metrics(
    y_true: np.ndarray, predicted: np.ndarray, baseline: np.ndarray | None = None
) -> dict[str, float]:
    """Return 95 % bootstrap bounds of the test F1, and the F1 of a baseline on the same rows.

    Parameters
    ----------
    y_true, predicted, baseline : arrays of shape (rows, labels)
        Multi-hot; a recipe that is a baseline itself has none.

    Returns
    -------
    dict
        ``test_{micro,macro}_f1_{low,high}`` and ``baseline_*_f1``.
    """
    figures = {}
    if baseline is not None:
        figures = {f"baseline_{name}": value for name, value in f1_scores(y_true, baseline).items()}
    for metric in ("micro_f1", "macro_f1"):
        low, high = bootstrap_interval(y_true, predicted, metric=metric)
        figures |= {f"test_{metric}_low": low, f"test_{metric}_high": high}
    return figures


def split_metrics(
    labels: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    baseline: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the figures of a classifier that scores both held-out parts at once.

    Parameters
    ----------
    labels : mapping of "train", "valid" and "test" to array of shape (rows, labels)
        Multi-hot.
    scores : mapping of "valid" and "test" to array of shape (rows, labels)
        Probabilities.
    predicted : like `scores`
        Bool: which labels apply (see `shared.evaluation.decisions`).
    baseline : array of shape (test rows, labels), optional
        Which labels apply to the test rows by another method.

    Returns
    -------
    dict
        ``valid_*`` and ``test_*`` of `f1_scores` and `ranking_scores`, what `interval_metrics`
        returns, and the rows of each part as ``*_samples``.
    """
    figures = interval_metrics(labels["test"], predicted["test"], baseline)
    for part in ("valid", "test"):
        found = f1_scores(labels[part], predicted[part])
        found |= ranking_scores(labels[part], scores[part])
        figures |= {f"{part}_{name}": value for name, value in found.items()}
    return figures | {f"{part}_samples": len(y) for part, y in labels.items()}


def summary(metrics: Mapping[str, float]) -> str:
    """Return the test F1 with its interval, and the baseline's if any, in two lines.

    Where each text has one label, micro F1 is accuracy and called so.
    """
    lines, micro = [], "accuracy" if "test_accuracy" in metrics else "micro F1"
    for name, key in ((micro, "micro_f1"), ("macro F1", "macro_f1")):
        value, low, high = (metrics[f"test_{key}{bound}"] for bound in ("", "_low", "_high"))
        line = f"{name} {value:.3f} (95 % interval {low:.3f} to {high:.3f})"
        if f"baseline_{key}" in metrics:
            line += f"; naive Bayes on the same rows {metrics[f'baseline_{key}']:.3f}"
        lines.append(line)
    return "\n".join(lines)


def describe_output(output_dir: Path, *, model: bool = False) -> str:
    """Return where everything lies, and how to use the model if one was saved, to end a run."""
    files = "README.md (a card), metrics.json, per_label.csv, test_predictions.jsonl and plots/."
    if not model:
        return f"Everything is in {output_dir}:\n{files}"
    lines = [f"Everything is in {output_dir}: the model,", files]
    if (ROOT / "recipes" / "tag.py").is_file():  # not in every copy
        lines.append("To tag a file with it:")
        lines.append(f"  accelerate launch recipes/tag.py --model {output_dir} --data FILE")
    return "\n".join(lines)


def write_results(
    output_dir: Path,
    split: Split,
    scores: np.ndarray,
    predicted: np.ndarray,
    metrics: Mapping[str, Any],
    *,
    card: TaggerCard,
    thresholds: Sequence[float] | None = None,
    log_history: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write metrics, predictions, plots and the model card; return the report to print.

    Parameters
    ----------
    output_dir : Path
        Receives ``metrics.json``, ``per_label.csv``, ``test_predictions.jsonl``, ``plots/`` and
        ``README.md``, the card.
    split : Split
    scores : array of shape (test rows, labels)
        Probabilities.
    predicted : bool array of shape (test rows, labels)
        Which labels apply (see `shared.evaluation.decisions`).
    metrics : mapping
        Flat; see `shared.reports.cards.CARD_METRICS` for those that the card shows.
    card : TaggerCard
    thresholds : sequence of float, optional
        One per label, where thresholds alone decide which labels apply.
    log_history : sequence of mappings
        ``trainer.state.log_history``; empty where nothing was trained in epochs.

    Returns
    -------
    str
        Precision, recall and F1 of each label, and a summary with intervals.
    """
    names, y_test = split.corpus.label_names, split.labels["test"]
    report = classification_report(y_test, predicted, names, thresholds=thresholds)
    write_json(output_dir / "metrics.json", metrics)
    per_label = per_label_report(y_test, predicted, names, thresholds=thresholds, scores=scores)
    write_csv(output_dir / "per_label.csv", per_label)
    path = output_dir / "test_predictions.jsonl"
    write_predictions(path, split.rows["test"], names, y_test, scores, predicted)
    _write_plots(output_dir / "plots", split, log_history)
    card.write(output_dir, split, metrics, report, uses_thresholds=thresholds is not None)
    return f"{report}\n{summary(metrics)}"


def _write_plots(folder: Path, split: Split, log_history: Sequence[Mapping[str, Any]]) -> None:
    """Plot the lengths of all texts, the label counts of each part, and the training curve."""
    folder.mkdir(exist_ok=True)
    words = split.corpus.dataset.data["words"].to_numpy()
    plot_words_per_text(words, folder / "words_per_text.png")
    counts = {part: split.label_counts(part) for part in split.labels}
    plot_label_counts(counts, folder / "label_counts.png")
    if log_history:
        plot_training_curve(log_history, folder / "training_curve.png")
