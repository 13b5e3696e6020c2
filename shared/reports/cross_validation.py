"""Figures, files and the card of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.files import ROOT, write_csv, write_json
from shared.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from shared.evaluation.cross_validation import METRICS, choose_out_of_fold, fold_metrics
from shared.evaluation.decisions import choose_labels, tune_thresholds
from shared.evaluation.metrics import (
    classification_report,
    f1_scores,
    per_label_report,
    ranking_scores,
)
from shared.plots import plot_label_counts
from shared.reports.cards import write_model_card
from shared.reports.predictions import write_predictions

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.data.corpus import Corpus

_PARTS = {"oof": "All texts, out of fold", "test": "Test texts, mean of the folds"}


def methods_table(metrics: Mapping[str, float], methods: Sequence[str]) -> str:
    """Markdown: a row per method, mean ± standard deviation over folds; then the test texts.

    `metrics` has keys such as ``tfidf_micro_f1``, ``tfidf_micro_f1_std``, ``tfidf_test_micro_f1``.
    """
    tested = [name for name in METRICS if f"{methods[0]}_test_{name}" in metrics]
    header = ["method", *METRICS.values(), *(f"{METRICS[name]}, test" for name in tested)]
    lines = [header, ["---"] * len(header)]
    for method in methods:
        line = [method]
        for key in (f"{method}_{name}" for name in METRICS):
            known = key in metrics
            line.append(f"{metrics[key]:.3f} ± {metrics[f'{key}_std']:.3f}" if known else "-")
        lines.append([*line, *(f"{metrics[f'{method}_test_{name}']:.3f}" for name in tested)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_out_of_fold(
    output_dir: Path,
    *,
    corpus: Corpus,
    documents: Mapping[str, Dataset],
    labels: Mapping[str, np.ndarray],
    fold_of: np.ndarray,
    scores: Mapping[str, Mapping[str, np.ndarray]],
    settings: Mapping[str, float],
) -> str:
    """Write figures, predictions, a plot and the card; return what to print.

    Parameters
    ----------
    output_dir : Path
        Receives ``metrics.json``, ``per_label.csv``, ``oof_predictions.jsonl``, ``README.md`` (the
        card), ``plots/``, and ``test_predictions.jsonl`` where there is a test part.
    corpus : Corpus
    documents : mapping of "oof", and "test" if any, to Dataset with ``row`` and ``text``.
    labels : mapping of the same to array of shape (rows, labels)
        Multi-hot.
    fold_of : int array of shape (rows,)
        The fold that holds out each row of "oof".
    scores : mapping of method to part to array of shape (rows, labels)
        Probabilities. The first method is the model, the others are what it must beat.
    settings : mapping
        Further values for ``metrics.json``, flat.
    """
    names, single_label = corpus.label_names, corpus.single_label
    metrics = {**settings, **{f"{part}_samples": len(y) for part, y in labels.items()}}
    predicted: dict[str, dict[str, np.ndarray]] = {part: {} for part in labels}
    for method, found in scores.items():
        y = labels["oof"]
        chosen = choose_out_of_fold(found["oof"], y, fold_of, single_label=single_label)
        figures = fold_metrics(y, found["oof"], chosen, fold_of)
        predicted["oof"][method] = chosen
        if "test" in labels:
            threshold = 0.5 if single_label else tune_thresholds(found["oof"], y, tolerance=2)
            chosen = choose_labels(found["test"], threshold, single_label=single_label)
            test = f1_scores(labels["test"], chosen) | ranking_scores(labels["test"], found["test"])
            figures |= {f"test_{name}": value for name, value in test.items()}
            predicted["test"][method] = chosen
        metrics |= {f"{method}_{name}": value for name, value in figures.items()}

    model, *baselines = scores
    said = [methods_table(metrics, list(scores))]
    for part, y in labels.items():
        chosen = predicted[part]
        metrics |= {f"{part}_{k}": value for k, value in f1_scores(y, chosen[model]).items()}
        low, high = bootstrap_interval(y, chosen[model])
        metrics |= {f"{part}_micro_f1_low": low, f"{part}_micro_f1_high": high}
        line = f"{_PARTS[part]} ({len(y):,}): micro F1 {metrics[f'{part}_micro_f1']:.3f}"
        line += f" (95 % interval {low:.3f} to {high:.3f})"
        for method in baselines:
            more = paired_bootstrap(y, chosen[model], chosen[method])
            line += f"; {more['difference']:+.3f} ({more['low']:+.3f} to {more['high']:+.3f}) "
            line += f"against {method}"
        said.append(line)
    write_json(output_dir / "metrics.json", metrics)

    y, chosen = labels["oof"], predicted["oof"][model]
    report = classification_report(y, chosen, names)
    rows = per_label_report(y, chosen, names, scores=scores[model]["oof"])
    write_csv(output_dir / "per_label.csv", rows)
    for part, dataset in documents.items():
        rows = dataset.select_columns(["row", "text"])
        if part == "oof":
            rows = rows.add_column("fold", fold_of.tolist())
        found = labels[part], scores[model][part], predicted[part][model]
        write_predictions(output_dir / f"{part}_predictions.jsonl", rows, names, *found)
    n_folds = int(fold_of.max()) + 1
    counts = {}
    for number in range(n_folds):
        on = y[fold_of == number].sum(axis=0, dtype=int).tolist()
        counts[f"fold {number}"] = dict(zip(names, on, strict=True))
    (output_dir / "plots").mkdir(exist_ok=True)
    plot_label_counts(counts, output_dir / "plots" / "label_counts.png")

    text = "\n\n".join(said)
    usage = None
    if (ROOT / "recipes" / "tag.py").is_file():  # not in every copy
        folders = " ".join(str(output_dir / f"fold_{number}") for number in range(n_folds))
        usage = f"accelerate launch recipes/tag.py --data FILE --model {folders}"
    write_model_card(
        output_dir,
        title=f"{Path(corpus.report['source']).name.split('.')[0]} documents",
        base_model=None,
        description=f"{n_folds} classifiers of documents into {len(names)} labels, each trained "
        "without one part of the rows, which it is then scored on. Methods on the same folds, mean "
        "± standard deviation over the folds; `tfidf` and `frozen` are logistic regressions on "
        f"words and on the vectors of the encoder as it comes.\n\n{text}",
        data=corpus.describe(),
        label_names=names,
        metrics={},
        report=report,
        usage=usage and f"All folds together:\n\n```bash\n{usage}\n```",
        limits=f"Learned from {len(y):,} texts of one source; expect less on others. The threshold "
        "of a fold is tuned on the other folds. A label with few rows in the table above is known "
        "only roughly.",
    )
    lines = [
        f"Out of fold\n\n{report}\n{text}\n\nEverything is in {output_dir}: the models in fold_*/,",
        "README.md (a card), metrics.json, per_label.csv, oof_predictions.jsonl and plots/.",
    ]
    if usage:
        lines += ["To tag a file with all folds together:", f"  {usage}"]
    return "\n".join(lines)
