"""Out-of-fold scores: labels by thresholds that no scored row has a say in, figures, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

from shared.baselines import fit_scorer
from shared.bootstrap import bootstrap_interval, paired_bootstrap
from shared.cards import write_model_card
from shared.decisions import choose_labels
from shared.files import write_csv, write_json
from shared.metrics import classification_report, f1_scores, per_label_report, ranking_scores
from shared.plots import plot_label_counts
from shared.predictions import write_predictions
from shared.thresholds import tune_thresholds

if TYPE_CHECKING:
    from datasets import Dataset
    from sklearn.pipeline import Pipeline

    from shared.corpus import Corpus

METRICS = {"micro_f1": "micro F1", "macro_f1": "macro F1", "roc_auc": "ROC-AUC"}
_PARTS = {"oof": "All texts, out of fold", "test": "Test texts, mean of the folds"}


def score_folds(
    pipeline: Callable[[], Pipeline],
    given: Mapping[str, np.ndarray],
    y: np.ndarray,
    fold_of: np.ndarray,
) -> list[dict[str, np.ndarray]]:
    """Fit a pipeline of `shared.baselines` without each fold in turn.

    Parameters
    ----------
    pipeline : callable
        Makes a new one.
    given : part to array of shape (rows, ...)
        What it takes: texts or vectors. "oof" are the rows of `y`; another part is scored by all.
    y : array of shape (rows, labels)
        Multi-hot.
    fold_of : int array of shape (rows,)

    Returns
    -------
    list, for each fold, of dict of part to array of shape (rows, labels)
        Probabilities; of "oof" the rows that the fold holds out.
    """
    found = []
    for number in range(fold_of.max() + 1):
        held = fold_of == number
        score = fit_scorer(pipeline(), given["oof"][~held], y[~held])
        parts = {**given, "oof": given["oof"][held]}
        found.append({part: score(values) for part, values in parts.items()})
    return found


def join_folds(
    found: Sequence[Mapping[str, np.ndarray]], fold_of: np.ndarray
) -> dict[str, np.ndarray]:
    """Put the scores of the folds together.

    Parameters
    ----------
    found : for each fold, part to array of shape (rows, labels)
        "oof" has the rows that the fold holds out, ascending; "test", if any, those of all folds.
    fold_of : int array of shape (rows,)
        The fold that holds out each row.

    Returns
    -------
    dict of part to array of shape (rows, labels)
        The scores of "test" are the mean over the folds.
    """
    joined = {"oof": np.zeros((len(fold_of), found[0]["oof"].shape[1]))}
    for number, scores in enumerate(found):
        joined["oof"][fold_of == number] = scores["oof"]
    if "test" in found[0]:
        joined["test"] = np.mean([scores["test"] for scores in found], axis=0)
    return joined


def choose_out_of_fold(
    scores: np.ndarray, y: np.ndarray, fold_of: np.ndarray, *, one_each: bool = False
) -> np.ndarray:
    """Choose the labels of each fold by a threshold that was tuned on the other folds.

    Parameters
    ----------
    scores, y : arrays of shape (rows, labels)
        Probabilities from the model that has not seen the row; multi-hot labels.
    fold_of : int array of shape (rows,)
    one_each : bool
        Every text has exactly one label: the best, without a threshold.

    Returns
    -------
    bool array of shape (rows, labels)
    """
    predicted = np.zeros(scores.shape, dtype=bool)
    for number in np.unique(fold_of):
        here, threshold = fold_of == number, 0.5
        if not one_each:
            threshold = tune_thresholds(scores[~here], y[~here], tolerance=2)
        predicted[here] = choose_labels(scores[here], threshold, one_each=one_each)
    return predicted


def fold_figures(
    y: np.ndarray, scores: np.ndarray, predicted: np.ndarray, fold_of: np.ndarray
) -> dict[str, float]:
    """Return mean and standard deviation over the folds of each of `METRICS`.

    ROC-AUC of a fold is the mean over the labels with both positive and negative rows there; a
    fold without any such label has none and is left out of the mean.

    Returns
    -------
    dict
        ``micro_f1``, ``micro_f1_std`` and so on.
    """
    found = []
    for number in np.unique(fold_of):
        here = fold_of == number
        found.append(f1_scores(y[here], predicted[here]) | ranking_scores(y[here], scores[here]))
    figures = {}
    for name in METRICS:
        values = [figure[name] for figure in found if name in figure]
        if values:
            figures[name] = mean(values)
            figures[f"{name}_std"] = stdev(values) if len(values) > 1 else 0.0
    return figures


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
    names, one_each = corpus.label_names, corpus.one_label_each
    metrics = {**settings, **{f"{part}_samples": len(y) for part, y in labels.items()}}
    predicted: dict[str, dict[str, np.ndarray]] = {part: {} for part in labels}
    for method, found in scores.items():
        y = labels["oof"]
        chosen = choose_out_of_fold(found["oof"], y, fold_of, one_each=one_each)
        figures = fold_figures(y, found["oof"], chosen, fold_of)
        predicted["oof"][method] = chosen
        if "test" in labels:
            threshold = 0.5 if one_each else tune_thresholds(found["oof"], y, tolerance=2)
            chosen = choose_labels(found["test"], threshold, one_each=one_each)
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
    if (Path(__file__).parent.parent / "recipes" / "tag.py").is_file():  # not in every copy
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
