"""The results of a classifier: metrics with intervals, files in the output folder, printed summary.

A recipe first collects the metrics (`split_metrics`, or its own and `interval_metrics`), then
writes everything (`write_results`), and ends with `describe_output`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import ROOT, write_csv, write_json
from shared.data.corpus import unknown_label_names
from shared.evaluation.bootstrap import bootstrap_interval
from shared.evaluation.calibration import CalibratedScores
from shared.evaluation.label_errors import LabelError, find_label_errors
from shared.evaluation.metrics import (
    classification_report,
    f1_scores,
    one_label_each,
    per_label_report,
    ranking_scores,
    subset_accuracy,
)
from shared.evaluation.reliability import calibration_metrics
from shared.evaluation.rules import ALL_SCORES, DecisionRule
from shared.plots.texts import plot_label_counts, plot_words_per_text
from shared.plots.training import plot_training_curve
from shared.reports.cards import TaggerCard
from shared.reports.label_errors import LABEL_ERRORS_FILE, write_label_errors
from shared.reports.page import write_page
from shared.reports.predictions import write_predictions
from shared.reports.reasons import Reasons
from shared.reports.verdict import fit_metrics, verdict

if TYPE_CHECKING:
    from shared.data.resampling import Resampling
    from shared.data.splits import Split

# --- metrics -------------------------------------------------------------------------------------


def interval_metrics(
    y_true: np.ndarray, predicted: np.ndarray, baseline: np.ndarray | None = None
) -> dict[str, float]:
    """Return the 95 % bootstrap interval of the test F1, and the F1 of a baseline, if any.

    Parameters
    ----------
    y_true, predicted, baseline : arrays of shape (rows, labels)
        Multi-hot. `baseline` has the predictions of a baseline for the same rows; without it, no
        baseline is reported.

    Returns
    -------
    dict of float
        ``test_{micro,macro}_f1_{low,high}`` and ``baseline_*_f1``.
    """
    metrics = {}
    if baseline is not None:
        metrics = {f"baseline_{name}": value for name, value in f1_scores(y_true, baseline).items()}
    for metric in ("micro_f1", "macro_f1"):
        low, high = bootstrap_interval(y_true, predicted, metric=metric)
        metrics |= {f"test_{metric}_low": low, f"test_{metric}_high": high}
    return metrics


def split_metrics(
    split: Split,
    scores: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    baseline: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the metrics of a classifier on the validation set and the test set.

    Parameters
    ----------
    split : Split
        The labels of each part. Labels that only a held-out file has count as misses.
    scores : mapping of "valid" and "test" to array of shape (rows, labels)
        Probabilities.
    predicted : like `scores`
        Bool: the predicted labels (see `shared.evaluation.decisions`).
    baseline : array of shape (test rows, labels), optional
        The labels that a baseline predicts for the test rows.

    Returns
    -------
    dict of float
        ``valid_*`` and ``test_*`` of `f1_scores`, `ranking_scores` and `subset_accuracy`, the
        metrics of `interval_metrics`, and the number of rows of each part as ``*_samples``. If each
        text has exactly one label, also ``*_accuracy``, the other name of micro F1.
    """
    baselines = () if baseline is None else (baseline,)
    metrics = interval_metrics(*split.with_unknown_labels("test", predicted["test"], *baselines))
    single_label = split.corpus.single_label
    for part in ("valid", "test"):
        if not len(split.labels[part]):
            continue  # --valid_size 0
        y, y_pred, y_scores = split.with_unknown_labels(part, predicted[part], scores[part])
        part_metrics = f1_scores(y, y_pred) | ranking_scores(y, y_scores)
        part_metrics["subset_accuracy"] = subset_accuracy(y, y_pred)
        metrics |= {f"{part}_{name}": value for name, value in part_metrics.items()}
        single_label = single_label and one_label_each(y, y_pred)
    if single_label:
        metrics |= {
            name.replace("micro_f1", "accuracy"): value
            for name, value in metrics.items()
            if "micro_f1" in name
        }
    return metrics | {f"{part}_samples": len(y) for part, y in split.labels.items()}


def repeat_metrics(resampling: Resampling, predicted: Sequence[np.ndarray]) -> dict[str, float]:
    """Return mean and standard deviation of the F1 over the repeats of a cross-validation.

    Parameters
    ----------
    resampling : Resampling
    predicted : sequence of bool arrays of shape (test rows, labels)
        The predicted labels of each split.

    Returns
    -------
    dict of float
        ``repeats`` and ``test_{micro,macro}_f1_{mean,std}``; empty without repeats.
    """
    if resampling.repeats == 1:
        return {}
    y = resampling.tested.labels["test"]
    f1 = [f1_scores(y, repeat) for repeat in resampling.join_repeats(predicted)]
    metrics: dict[str, float] = {"repeats": resampling.repeats}
    for name in ("micro_f1", "macro_f1"):
        values = [scores[name] for scores in f1]
        metrics |= {f"test_{name}_mean": float(np.mean(values))}
        metrics |= {f"test_{name}_std": float(np.std(values, ddof=1))}
    return metrics


# --- files ---------------------------------------------------------------------------------------


def write_results(
    output_dir: Path,
    split: Split,
    scores: np.ndarray,
    predicted: np.ndarray,
    metrics: Mapping[str, Any],
    *,
    card: TaggerCard,
    rule: DecisionRule,
    calibrated: CalibratedScores | None = None,
    thresholds: Sequence[float] | None = None,
    reasons: Reasons | None = None,
    log_history: Sequence[Mapping[str, Any]] = (),
    top_scores: int | None = None,
) -> str:
    """Write metrics, predictions, plots and the model card; return the report to print.

    Parameters
    ----------
    output_dir : Path
        Receives ``metrics.json``, ``per_label.csv``, ``test_predictions.jsonl``,
        ``label_errors.csv``, ``report.html``, ``plots/`` and ``README.md``, the model card.
    split : Split
        The rows and labels of each part.
    scores : array of shape (test rows, labels)
        Probabilities.
    predicted : bool array of shape (test rows, labels)
        The predicted labels (see `shared.evaluation.decisions`).
    metrics : mapping
        Flat. `shared.reports.cards.CARD_METRICS` lists the metrics that the card shows.
    card : TaggerCard
    rule : DecisionRule
        Of the tagger.
    calibrated : CalibratedScores, optional
        Of the test rows, as the tagger gives them.
    thresholds : sequence of float, optional
        One per label, if thresholds alone decide which labels are predicted.
    reasons : Reasons, optional
        For ``report.html``: the words that weigh most, and the nearest training texts.
    log_history : sequence of mappings
        ``trainer.state.log_history``; empty if nothing was trained in epochs.
    top_scores : int, optional
        As in `shared.reports.predictions.write_predictions`.

    Returns
    -------
    str
        Precision, recall and F1 of each label, or of 30 notable ones if there are more than 50, and
        a summary with intervals.
    """
    unknown = unknown_label_names(split.rows["test"])
    names = [*split.corpus.label_names, *unknown]
    shown = scores if calibrated is None else calibrated.scores
    y_test, y_pred, y_scores, y_shown = split.with_unknown_labels("test", predicted, scores, shown)
    if thresholds is not None:
        thresholds = [*thresholds, *[np.nan] * len(unknown)]
    of_scores = split.labels["test"], scores, calibrated and calibrated.scores
    single_label = split.corpus.single_label and one_label_each(y_test, y_pred)
    metrics = {**metrics, **calibration_metrics(*of_scores, single_label=single_label)}
    metrics |= split.method.metrics() | fit_metrics(log_history)
    write_json(output_dir / "metrics.json", metrics)
    per_label = per_label_report(y_test, y_pred, names, thresholds=thresholds, scores=y_scores)
    write_csv(output_dir / "per_label.csv", per_label)
    path = output_dir / "test_predictions.jsonl"
    write_predictions(path, split.rows["test"], names, y_test, shown, predicted, top_scores)
    options: dict[str, Any] = {"thresholds": thresholds, "max_labels": ALL_SCORES}
    report = classification_report(y_test, y_pred, names, **options)
    if len(names) > ALL_SCORES:
        report += f"All {len(names):,} labels are in per_label.csv.\n"
    errors = _find_label_errors(split, scores, y_test, single_label=single_label)
    write_label_errors(output_dir / LABEL_ERRORS_FILE, split.rows["test"], errors)
    write_page(
        output_dir,
        title=card.title(split.corpus),
        evaluation=(card.evaluation or split.explain(None)).partition("\n\n")[0],
        rows=split.rows["test"],
        label_names=names,
        y_true=y_test,
        scores=y_shown,
        raw_scores=None if calibrated is None else y_scores,
        confidence=None if calibrated is None else calibrated.confidence,
        predicted=y_pred,
        rule=rule,
        metrics=metrics,
        n_unknown=len(unknown),
        verdict=verdict(metrics),
        single_label=single_label,
        thresholds=thresholds,
        label_errors=errors,
        explain=None if reasons is None else partial(reasons.explain, split, names),
        log_history=log_history,
        cache_dir=card.args.cache_dir,
    )
    _write_plots(output_dir / "plots", split, log_history)
    card.write(output_dir, split, metrics, report)
    return f"{report}\n{summary(metrics)}"


def _find_label_errors(
    split: Split, scores: np.ndarray, y_test: np.ndarray, *, single_label: bool
) -> list[LabelError]:
    """Return the likely errors in the test rows; of those with unknown labels no score can tell.

    `y_test`, of shape (test rows, labels + unknown labels), says which rows have these.
    """
    names, y = split.corpus.label_names, split.labels["test"]
    rows = np.flatnonzero(~y_test[:, len(names) :].astype(bool).any(axis=1))
    errors, _ = find_label_errors(y[rows], scores[rows], names, single_label=single_label)
    return [replace(error, row=int(rows[error.row])) for error in errors]


def _write_plots(folder: Path, split: Split, log_history: Sequence[Mapping[str, Any]]) -> None:
    """Plot the lengths of all texts, the label counts of each part, and the training curve."""
    folder.mkdir(exist_ok=True)
    words = split.corpus.dataset.data["words"].to_numpy()
    plot_words_per_text(words, folder / "words_per_text.png")
    counts = {part: split.label_counts(part) for part in split.labels}
    if split.tests_its_training_rows:
        counts = {"all folds": counts["test"]}
    plot_label_counts(counts, folder / "label_counts.png")
    if log_history:
        has_accuracy = any("eval_accuracy" in entry for entry in log_history)
        metric = "eval_accuracy" if has_accuracy else "eval_micro_f1"
        plot_training_curve(log_history, folder / "training_curve.png", metric=metric)


# --- text to print -------------------------------------------------------------------------------


def summary(metrics: Mapping[str, float]) -> str:
    """Return two lines: micro and macro F1 on the test set, with intervals and the baseline's F1.

    If every text has exactly one label, micro F1 equals accuracy and is called accuracy.

    Parameters
    ----------
    metrics : mapping
        Keys as in ``metrics.json``. The baseline is left out if it has no metrics.
    """
    micro_name = "accuracy" if "test_accuracy" in metrics else "micro F1"
    lines = []
    for name, key in ((micro_name, "micro_f1"), ("macro F1", "macro_f1")):
        value, low, high = (metrics[f"test_{key}{bound}"] for bound in ("", "_low", "_high"))
        line = f"{name} {value:.3f} (95 % interval {low:.3f} to {high:.3f})"
        if f"test_{key}_std" in metrics:
            mean, std = metrics[f"test_{key}_mean"], metrics[f"test_{key}_std"]
            line += f"; {mean:.3f} ± {std:.3f} over {metrics['repeats']} repeats"
        if f"baseline_{key}" in metrics:
            line += f"; naive Bayes on the same rows {metrics[f'baseline_{key}']:.3f}"
        lines.append(line)
    return "\n".join(lines)


def describe_output(output_dir: Path) -> str:
    """Return the verdict on a run, which files it has written, and how to use the tagger."""
    metrics = json.loads((output_dir / "metrics.json").read_text("utf-8"))
    lines = []
    if sentences := verdict(metrics):
        lines += ["Verdict", *(f"- {sentence}" for sentence in sentences), ""]
    lines += [
        f"Everything is in {output_dir}: the tagger,",
        "report.html (open it in a browser: where it is wrong, and likely label errors),",
        "README.md (model card), metrics.json, *.csv, *_predictions.jsonl and plots/.",
    ]
    if (ROOT / "recipes" / "tag.py").is_file():  # an installed package has no recipes
        lines.append("To tag a file with it:")
        lines.append(f"  accelerate launch recipes/tag.py --model {output_dir} --data FILE")
    return "\n".join(lines)
