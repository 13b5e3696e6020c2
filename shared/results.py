"""What every recipe says about its data and figures, and leaves in its output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.bootstrap import bootstrap_interval
from shared.cards import write_model_card
from shared.files import write_csv, write_json
from shared.metrics import classification_report, f1_scores, per_label_report, ranking_scores
from shared.plots import plot_label_counts, plot_training_curve, plot_words_per_text
from shared.predictions import write_predictions

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.corpus import Corpus

CARD_METRICS = (
    "test_accuracy",
    "test_micro_f1",
    "test_micro_f1_low",
    "test_micro_f1_high",
    "test_macro_f1",
    "test_average_precision",
    "baseline_micro_f1",
    "baseline_macro_f1",
)


def held_out_figures(
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


def part_figures(
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
        Bool: which labels apply (see `shared.decisions`).
    baseline : array of shape (test rows, labels), optional
        Which labels apply to the test rows by another method.

    Returns
    -------
    dict
        ``valid_*`` and ``test_*`` of `f1_scores` and `ranking_scores`, what `held_out_figures`
        returns, and the rows of each part as ``*_samples``.
    """
    figures = held_out_figures(labels["test"], predicted["test"], baseline)
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


def contents(output_dir: Path, *, model: bool = False) -> str:
    """Return where everything lies, and how to use the model if one was saved, to end a run."""
    files = "README.md (a card), metrics.json, per_label.csv, test_predictions.jsonl and plots/."
    if not model:
        return f"Everything is in {output_dir}:\n{files}"
    lines = [f"Everything is in {output_dir}: the model,", files]
    if (Path(__file__).parent.parent / "recipes" / "tag.py").is_file():  # not in every copy
        lines.append("To tag a file with it:")
        lines.append(f"  accelerate launch recipes/tag.py --model {output_dir} --data FILE")
    return "\n".join(lines)


def write_results(
    output_dir: Path,
    *,
    corpus: Corpus,
    labels: Mapping[str, np.ndarray],
    test_rows: Dataset,
    scores: np.ndarray,
    predicted: np.ndarray,
    metrics: Mapping[str, Any],
    thresholds: Sequence[float] | None = None,
    base_model: str | None = None,
    log_history: Sequence[Mapping[str, Any]] = (),
    max_length: int | None = None,
    known_by: str | None = None,
    limits: str | None = None,
) -> str:
    """Write figures, predictions, plots and the model card; return report and summary to print.

    Parameters
    ----------
    output_dir : Path
        Receives ``metrics.json``, ``per_label.csv``, ``test_predictions.jsonl``, ``README.md``
        (the card) and ``plots/``.
    corpus : Corpus
        The data that was trained on.
    labels : mapping of part to array of shape (rows, labels)
        Multi-hot labels of "train", "valid" and "test".
    test_rows : Dataset
        With ``row`` and ``text``.
    scores : array of shape (test rows, labels)
        Probabilities.
    predicted : array of shape (test rows, labels)
        Bool: which labels apply (see `shared.decisions`).
    metrics : mapping
        Flat; those of `CARD_METRICS` go into the card.
    thresholds : sequence of float, optional
        One per label, where labels were decided by thresholds alone.
    base_model : str, optional
        What was fine-tuned; without it, and without `known_by`, the card tells no one to load a
        model from the folder.
    log_history : sequence of mappings
        ``trainer.state.log_history``; empty where nothing was trained in epochs.
    max_length : int, optional
        Tokens the model reads; None reads all.
    known_by : str, optional
        For the card: the module that makes transformers know a model of this project.
    limits : str, optional
        For the card of what has not learned from the training rows.
    """
    names, y_test = corpus.label_names, labels["test"]
    report = classification_report(y_test, predicted, names, thresholds=thresholds)
    write_json(output_dir / "metrics.json", metrics)
    write_csv(
        output_dir / "per_label.csv",
        per_label_report(y_test, predicted, names, thresholds=thresholds, scores=scores),
    )
    write_predictions(
        output_dir / "test_predictions.jsonl", test_rows, names, y_test, scores, predicted
    )

    plots = output_dir / "plots"
    plots.mkdir(exist_ok=True)
    words = corpus.dataset.data["words"].to_numpy()
    plot_words_per_text(words, plots / "words_per_text.png")
    counts = {
        part: dict(zip(names, y.sum(axis=0, dtype=int).tolist(), strict=True))
        for part, y in labels.items()
    }
    plot_label_counts(counts, plots / "label_counts.png")
    if log_history:
        plot_training_curve(log_history, plots / "training_curve.png")

    applies = "The label with the highest score applies."
    if thresholds is not None:
        applies = "A label applies where its score reaches its threshold, "
        applies += "`tagger.model.config.thresholds`."
    usage = None
    if base_model or known_by:
        known = f"import {known_by}  # or of a copy of it: transformers knows the model then\n"
        usage = f"""```python
{known if known_by else ""}from transformers import pipeline

tagger = pipeline("text-classification", model="{output_dir}", top_k=None)
tagger("Tokenizer drops the last word of every line", truncation=True)
```

{applies}"""
    write_model_card(
        output_dir,
        title=f"{Path(corpus.report['source']).name.split('.')[0]} tagger",
        base_model=base_model,
        description=f"Gives a text any of {len(names)} labels, each with a score from 0 to 1.",
        data=corpus.describe(),
        label_names=names,
        metrics={name: metrics[name] for name in CARD_METRICS if name in metrics},
        report=report,
        usage=usage,
        limits=limits
        or f"Learned from {len(labels['train']):,} texts of one source; expect less on others. "
        + (f"It reads the first {max_length} tokens of a text. " if max_length else "")
        + "A label with few rows in the table above is known only roughly.",
    )
    return f"{report}\n{summary(metrics)}"
