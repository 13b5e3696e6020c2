"""The results of a cross-validation: metrics of each method, files, plot and model card.

`write_out_of_fold` does everything, in this order:

- evaluate each method: choose its labels and compute its metrics;
- compare the model with the baselines on the same rows;
- write the files, the plot and the model card, and return the text to print.

The rows come in *parts*: "oof" are all rows of the cross-validation with their out-of-fold scores.
"test", if any, are the rows of a separate test file with the mean score of all folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import ROOT, write_csv, write_json
from shared.data.corpus import append_unknown_labels, unknown_label_names
from shared.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from shared.evaluation.calibration import CalibratedScores
from shared.evaluation.cross_validation import METRICS, choose_out_of_fold, fold_metrics
from shared.evaluation.decisions import choose_labels, tune_thresholds
from shared.evaluation.label_errors import find_label_errors
from shared.evaluation.metrics import (
    classification_report,
    f1_scores,
    one_label_each,
    per_label_report,
    ranking_scores,
)
from shared.evaluation.reliability import calibration_metrics
from shared.evaluation.rules import ALL_SCORES, DecisionRule
from shared.plots.texts import plot_label_counts
from shared.reports.cards import SEE_PAGE, write_model_card
from shared.reports.label_errors import LABEL_ERRORS_FILE, write_label_errors
from shared.reports.page import write_page
from shared.reports.predictions import write_predictions
from shared.reports.verdict import compare_with_baseline, verdict

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.data.corpus import Corpus
    from shared.data.folds import FoldedData

_BASELINES = {
    "tfidf": "logistic regression on TF-IDF",
    "frozen": "logistic regression on the embeddings of the frozen encoder",
}
_PART_NAMES = {
    "oof": "All texts, out-of-fold scores",
    "test": "Test texts, mean score of all folds",
}


def write_out_of_fold(
    output_dir: Path,
    data: FoldedData,
    scores: Mapping[str, Mapping[str, np.ndarray]],
    *,
    calibrated: Mapping[str, CalibratedScores],
    rule: DecisionRule,
    settings: Mapping[str, float],
    top_scores: int | None = None,
    cache_dir: str | None = None,
) -> str:
    """Write metrics, predictions, a plot and the model card; return the text to print.

    Parameters
    ----------
    output_dir : Path
        Receives ``metrics.json``, ``per_label.csv``, ``oof_predictions.jsonl``, ``README.md`` (the
        model card), ``label_errors.csv`` and ``report.html`` of the rows of "oof", ``plots/``, and
        ``test_predictions.jsonl`` if there is a test part.
    data : FoldedData
    scores : mapping of method to mapping of part to array of shape (rows, labels)
        Probabilities. The first method is the model; the others are the baselines.
    calibrated : mapping of part to CalibratedScores
        Of the model.
    rule : DecisionRule
        Of the tagger that is saved: the mean of all folds.
    settings : mapping
        Further values for ``metrics.json``, flat, such as those of
        `shared.reports.verdict.reading_metrics`.
    top_scores : int, optional
        As in `shared.reports.predictions.write_predictions`.
    cache_dir : str, optional
        As in `shared.reports.page.write_page`.

    Returns
    -------
    str
        The per-label report, the table of methods, the comparison and the list of files.
    """
    corpus, documents, labels = data.corpus, data.documents, data.labels
    fold_of, label_names = data.fold_of, corpus.label_names
    n_folds = int(fold_of.max()) + 1
    model, *_ = scores

    predicted, method_metrics = _evaluate_methods(
        documents, labels, scores, fold_of, single_label=corpus.single_label
    )
    comparison, part_metrics, sentences = _compare_with_baselines(documents, labels, predicted)
    sentences += verdict(settings)
    n_samples = {f"{part}_samples": len(y) for part, y in labels.items()}
    metrics: dict[str, Any] = {**settings, **n_samples, **method_metrics, **part_metrics}
    metrics |= data.method.metrics()
    of_scores = labels["oof"], scores[model]["oof"], calibrated["oof"].scores
    figures = calibration_metrics(*of_scores, single_label=corpus.single_label)
    metrics |= {name.replace("test", "oof"): value for name, value in figures.items()}
    micro = "accuracy" if "oof_accuracy" in metrics else "micro F1"
    summary = f"{methods_table(metrics, list(scores), micro)}\n\n{comparison}"
    summary += "\n\nVerdict\n\n" + "\n".join(f"- {sentence}" for sentence in sentences)

    write_json(output_dir / "metrics.json", metrics)
    y, y_pred = labels["oof"], predicted[model]["oof"]
    per_label = per_label_report(y, y_pred, label_names, scores=scores[model]["oof"])
    write_csv(output_dir / "per_label.csv", per_label)
    for part, dataset in documents.items():
        rows = dataset.select_columns(["row", "text"])
        if part == "oof":
            rows = rows.add_column("fold", fold_of.tolist())
        path = output_dir / f"{part}_predictions.jsonl"
        names = [*label_names, *unknown_label_names(dataset)]
        (y_true,) = append_unknown_labels(dataset, labels[part])
        of_model = calibrated[part].scores, predicted[model][part]
        write_predictions(path, rows, names, y_true, *of_model, top_scores)
    errors, _ = find_label_errors(
        y, scores[model]["oof"], label_names, single_label=corpus.single_label
    )
    write_label_errors(output_dir / LABEL_ERRORS_FILE, documents["oof"], errors)
    write_page(
        output_dir,
        title=_title(corpus),
        evaluation=f"The figures are out of fold: each of the {len(y):,} texts was tested by a "
        f"classifier of the other folds ({n_folds} folds).",
        rows=documents["oof"],
        label_names=label_names,
        y_true=y,
        scores=calibrated["oof"].scores,
        confidence=calibrated["oof"].confidence,
        raw_scores=scores[model]["oof"],
        predicted=y_pred,
        rule=rule,
        metrics=metrics,
        verdict=sentences,
        single_label=corpus.single_label,
        label_errors=errors,
        cache_dir=cache_dir,
    )
    _plot_folds(output_dir / "plots", y, fold_of, label_names)
    report = classification_report(y, y_pred, label_names, max_labels=ALL_SCORES)
    if len(label_names) > ALL_SCORES:
        report += f"All {len(label_names):,} labels are in per_label.csv.\n"
    divided = data.method.describe({"train": len(y), "test": len(labels.get("test", []))})
    described = f"{corpus.describe()}\n{divided}" if data.method.column else corpus.describe()
    _write_card(output_dir, corpus, described, len(y), n_folds, summary, report)

    lines = [
        f"Out-of-fold results\n\n{report}\n{summary}\n",
        f"Everything is in {output_dir}: the models in fold_*/,",
        "report.html (open it in a browser: where it is wrong, and likely label errors),",
        "README.md (model card), metrics.json, *.csv, oof_predictions.jsonl and plots/.",
    ]
    if tag_command := _tag_command(output_dir):
        lines += ["To tag a file with all folds together:", f"  {tag_command}"]
    return "\n".join(lines)


# --- metrics of each method ----------------------------------------------------------------------


def _evaluate_methods(
    documents: Mapping[str, Dataset],
    labels: Mapping[str, np.ndarray],
    scores: Mapping[str, Mapping[str, np.ndarray]],
    fold_of: np.ndarray,
    *,
    single_label: bool,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, float]]:
    """Return the labels that each method predicts for each part, and the metrics of each method.

    The metrics have the keys of ``metrics.json``, such as ``tfidf_micro_f1``.
    """
    predicted: dict[str, dict[str, np.ndarray]] = {}
    metrics: dict[str, float] = {}
    for method, method_scores in scores.items():
        predicted[method] = _predict(
            method_scores, labels["oof"], fold_of, single_label=single_label
        )
        method_metrics = _method_metrics(
            documents, labels, method_scores, predicted[method], fold_of
        )
        metrics |= {f"{method}_{name}": value for name, value in method_metrics.items()}
    return predicted, metrics


def _predict(
    scores: Mapping[str, np.ndarray], y: np.ndarray, fold_of: np.ndarray, *, single_label: bool
) -> dict[str, np.ndarray]:
    """Return the labels that one method predicts, for each part; `y` has the labels of "oof"."""
    predicted = {"oof": choose_out_of_fold(scores["oof"], y, fold_of, single_label=single_label)}
    if "test" in scores:
        # No test label may influence the threshold: tune it on all out-of-fold scores.
        threshold: float | np.ndarray = 0.5
        if not single_label:
            threshold = tune_thresholds(scores["oof"], y, tolerance=2)
        predicted["test"] = choose_labels(scores["test"], threshold, single_label=single_label)
    return predicted


def _method_metrics(
    documents: Mapping[str, Dataset],
    labels: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    fold_of: np.ndarray,
) -> dict[str, float]:
    """Return the metrics of one method: mean and deviation over folds, and ``test_*`` if any."""
    metrics = fold_metrics(labels["oof"], scores["oof"], predicted["oof"], fold_of)
    if "test" in predicted:
        y, y_pred, y_scores = append_unknown_labels(
            documents["test"], labels["test"], predicted["test"], scores["test"]
        )
        test_metrics = f1_scores(y, y_pred) | ranking_scores(y, y_scores)
        metrics |= {f"test_{name}": value for name, value in test_metrics.items()}
    return metrics


def methods_table(
    metrics: Mapping[str, float], methods: Sequence[str], micro: str = "micro F1"
) -> str:
    """Return Markdown: a row per method, mean ± standard deviation over folds, then test metrics.

    `metrics` has keys such as ``tfidf_micro_f1``, ``tfidf_micro_f1_std``, ``tfidf_test_micro_f1``.
    A missing metric is shown as "-". `micro` is the name of micro F1: accuracy if each text has one
    label.
    """
    test_metrics = [name for name in METRICS if f"{methods[0]}_test_{name}" in metrics]
    names = METRICS | {"micro_f1": micro}
    header = ["method", *names.values(), *(f"{names[name]}, test" for name in test_metrics)]
    lines = [header, ["---"] * len(header)]
    for method in methods:
        line = [method]
        for key in (f"{method}_{name}" for name in METRICS):
            exists = key in metrics
            line.append(f"{metrics[key]:.3f} ± {metrics[f'{key}_std']:.3f}" if exists else "-")
        lines.append([*line, *(f"{metrics[f'{method}_test_{name}']:.3f}" for name in test_metrics)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- comparison with the baselines ---------------------------------------------------------------


def _compare_with_baselines(
    documents: Mapping[str, Dataset],
    labels: Mapping[str, np.ndarray],
    predicted: Mapping[str, Mapping[str, np.ndarray]],
) -> tuple[str, dict[str, float], list[str]]:
    """Compare the model, the first method in `predicted`, with all other methods.

    Returns
    -------
    text : str
        A paragraph for each part: micro F1 over all rows of the part, with its 95 % interval, and
        the difference from each baseline.
    metrics : dict of float
        The F1 scores and the interval of the model, such as ``oof_micro_f1``; the accuracy, too, if
        each text has one label.
    sentences : list of str
        Whether the model is better than each baseline on the rows of "oof".
    """
    _, *baselines = predicted
    sentences = []
    paragraphs: list[str] = []
    metrics: dict[str, float] = {}
    for part, dataset in documents.items():
        y, y_pred, *baseline_preds = append_unknown_labels(
            dataset, labels[part], *(of_method[part] for of_method in predicted.values())
        )
        f1 = f1_scores(y, y_pred)
        low, high = bootstrap_interval(y, y_pred)
        metrics |= {f"{part}_{name}": value for name, value in f1.items()}
        metrics |= {f"{part}_micro_f1_low": low, f"{part}_micro_f1_high": high}

        micro = "micro F1"
        if one_label_each(y, y_pred):
            micro, metrics[f"{part}_accuracy"] = "accuracy", f1["micro_f1"]
        text = f"{_PART_NAMES[part]} ({len(y):,}): {micro} {f1['micro_f1']:.3f}"
        text += f" (95 % interval {low:.3f} to {high:.3f})"
        for method, baseline_pred in zip(baselines, baseline_preds, strict=True):
            gain = paired_bootstrap(y, y_pred, baseline_pred)
            text += f"; difference from {method} {gain['difference']:+.3f}"
            text += f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
            if part == "oof":
                value, name = f1["micro_f1"], _BASELINES.get(method, method)
                values = value, value - gain["difference"], name
                certain = gain["low"] > 0
                sentences.append(compare_with_baseline(micro, *values, certain=certain))
        paragraphs.append(text)
    return "\n\n".join(paragraphs), metrics, sentences


# --- plot and card -------------------------------------------------------------------------------


def _plot_folds(
    folder: Path, y: np.ndarray, fold_of: np.ndarray, label_names: Sequence[str]
) -> None:
    """Plot how many texts of each fold have each label."""
    counts = {}
    for number in range(fold_of.max() + 1):
        fold_counts = y[fold_of == number].sum(axis=0, dtype=int).tolist()
        counts[f"fold {number}"] = dict(zip(label_names, fold_counts, strict=True))
    folder.mkdir(exist_ok=True)
    plot_label_counts(counts, folder / "label_counts.png")


def _tag_command(output_dir: Path) -> str | None:
    """Return the command that tags a file with the mean of all folds."""
    if not (ROOT / "recipes" / "tag.py").is_file():  # an installed package has no recipes
        return None
    return f"accelerate launch recipes/tag.py --model {output_dir} --data FILE"


def _title(corpus: Corpus) -> str:
    return f"{Path(corpus.report['source']).name.split('.')[0]} documents"


def _write_card(
    output_dir: Path,
    corpus: Corpus,
    data: str,
    n_texts: int,
    n_folds: int,
    summary: str,
    report: str,
) -> None:
    """Write the model card of all folds together."""
    usage = f"""In the folder of the project, or of a copy of a recipe (`./run.sh copy`):

```python
from shared.taggers import load_tagger

tagger = load_tagger("{output_dir}")  # the mean of all folds
tagger("Tokenizer drops the last word of every line")  # {{"labels": [...], "scores": {{...}}}}
```"""
    if tag_command := _tag_command(output_dir):
        usage += f"\n\nTo tag a file:\n\n```bash\n{tag_command}\n```"
    usage += f"""

The transformers library reads the model of a fold without the project. It cuts a long text at the
end of its first window:

```python
from transformers import pipeline

folder = "{output_dir}/fold_0"
classify = pipeline("text-classification", model=folder, top_k=None, trust_remote_code=True)
```

`trust_remote_code=True` lets transformers run the Python file in the folder, which holds the
architecture of the model. `load_tagger` does not run it."""
    write_model_card(
        output_dir,
        title=_title(corpus),
        base_model=None,
        description=f"{n_folds} document classifiers with {len(corpus.label_names)} labels. Each "
        "was trained without one part of the rows (a fold) and then scored the rows of that part.\n"
        "\nThe table compares methods on the same folds: mean ± standard deviation over the folds. "
        "`tfidf` is logistic regression on TF-IDF features. `frozen` is logistic regression on "
        f"embeddings from the encoder without fine-tuning.\n\n{summary}",
        data=data,
        label_names=corpus.label_names,
        metrics={},
        report=report,
        evaluation=SEE_PAGE,
        usage=usage,
        limits=f"The models were trained on {n_texts:,} texts from one source. Expect lower scores "
        "on texts from other sources. The threshold of each fold is tuned on the other folds. The "
        "metrics of labels with few rows in the table above are uncertain.",
    )
