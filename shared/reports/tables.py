"""The results of a cross-validation on a table: metrics, files, plots, model card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.cli.files import atomic_write, write_csv, write_json
from shared.data.tables import Table
from shared.data.writers import as_cell, write_json_lines
from shared.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from shared.evaluation.cross_validation import Fold, fold_metrics
from shared.evaluation.decisions import top_k
from shared.evaluation.importance import log_loss
from shared.evaluation.metrics import (
    classification_report,
    f1_scores,
    per_label_report,
    ranking_scores,
)
from shared.evaluation.reliability import calibration_metrics, reliability
from shared.evaluation.rules import prediction_records
from shared.plots.classes import plot_confusion, plot_reliability
from shared.plots.columns import plot_importance
from shared.reports.cards import write_model_card
from shared.reports.cross_validation import methods_table

_SETTINGS = (
    *("folds", "seed", "members", "hidden_size", "num_layers", "activation"),
    *("normalization", "dropout", "initialization", "scaling", "embedding_size"),
    *("learning_rate", "weight_decay", "per_device_train_batch_size", "class_weight"),
)
_PART_NAMES = {"oof": "All rows, out of fold", "test": "Test rows, mean of all folds"}


def write_table_results(
    output_dir: Path,
    args: Any,
    *,
    table: Table,
    labels: Mapping[str, np.ndarray],
    folds: Sequence[Fold],
    fold_of: np.ndarray,
    scores: Mapping[str, Mapping[str, np.ndarray]],
    names: Mapping[str, str],
) -> str:
    """Write metrics, predictions, plots and the model card; return the text to print.

    Parameters
    ----------
    output_dir : Path
        Receives ``metrics.json``, ``per_class.csv``, ``importance.csv``, ``README.md`` (the model
        card), ``oof_predictions.jsonl``, ``test_predictions.jsonl`` if there is a test part, and
        ``plots/``.
    args : TabularArguments and TrainingArguments
        The settings of the networks, for ``metrics.json`` and the card.
    table : Table
    labels : mapping of part to array of shape (rows, classes)
        One-hot.
    folds : sequence of Fold
        Finished ones, with the scores ``importance``, float (columns,), and a training curve.
    fold_of : int array of shape (rows,)
        The fold that holds out each row of "oof".
    scores : mapping of method to mapping of part to array of shape (rows, classes)
        Probabilities. The first method is the model.
    names : mapping of method to its name in sentences
    """
    label_names = table.schema.label_names
    settings = {name: getattr(args, name) for name in _SETTINGS}
    importances = np.stack([fold.scores()["importance"] for fold in folds])
    model, *_ = scores
    predicted = {
        method: {part: top_k(of_part, 1) for part, of_part in of_method.items()}
        for method, of_method in scores.items()
    }
    metrics: dict[str, Any] = {f"{part}_samples": len(y) for part, y in labels.items()}
    for method, of_method in scores.items():
        values = fold_metrics(labels["oof"], of_method["oof"], predicted[method]["oof"], fold_of)
        for part, y in labels.items():
            values |= _part_metrics(part, y, of_method[part], predicted[method][part])
        metrics |= {f"{method}_{name}": value for name, value in values.items()}
    # Those of the model by their short names, with intervals and calibration.
    for part, y in labels.items():
        values = _part_metrics(part, y, scores[model][part], predicted[model][part])
        for name in ("micro_f1", "macro_f1"):
            low, high = bootstrap_interval(y, predicted[model][part], metric=name)
            values |= {f"{part}_{name}_low": low, f"{part}_{name}_high": high}
        values |= {
            name.replace("test", part): value
            for name, value in calibration_metrics(
                y, scores[model][part], None, single_label=True
            ).items()
        }
        metrics |= {name.replace("micro_f1", "accuracy"): v for name, v in values.items()}
    divided = table.method.metrics()
    write_json(output_dir / "metrics.json", {**settings, **metrics, **divided})

    y, y_pred = labels["oof"], predicted[model]["oof"]
    rows = per_label_report(y, y_pred, label_names, scores=scores[model]["oof"])
    write_csv(output_dir / "per_class.csv", [{"class": row.pop("label")} | row for row in rows])
    for part in labels:
        _write_predictions(
            output_dir / f"{part}_predictions.jsonl",
            table,
            part,
            fold_of,
            scores[model][part],
            predicted[model][part],
        )
    columns = table.schema.columns
    order = np.argsort(-importances.mean(axis=0), kind="stable")
    write_csv(
        output_dir / "importance.csv",
        [
            {"column": columns[j]}
            | {"importance": round(float(importances[:, j].mean()), 6)}
            | {f"fold_{i}": round(float(v), 6) for i, v in enumerate(importances[:, j])}
            for j in order
        ],
    )
    plots = output_dir / "plots"
    plots.mkdir(exist_ok=True)
    plot_importance(importances, columns, plots / "importance.png")
    counts = y.T.astype(int) @ y_pred.astype(int)
    plot_confusion(counts, label_names, plots / "confusion.png")
    points = reliability(y, scores[model]["oof"], single_label=True)
    plot_reliability(points, plots / "reliability.png")

    sentences = [
        f"- {_PART_NAMES[part]} ({len(of_part):,}): "
        f"{'; '.join(_compare(part, of_part, predicted, metrics, names))}."
        for part, of_part in labels.items()
    ]
    table_of_methods = methods_table(metrics, list(scores), "accuracy")
    report = classification_report(y, y_pred, label_names, max_labels=50)
    shown = ("accuracy", "macro_f1", "roc_auc", "log_loss", "ece", "brier")
    ends = ("", "_low", "_high")
    keys = [f"{part}_{name}{end}" for part in labels for name in shown for end in ends]
    write_model_card(
        output_dir,
        title=f"{Path(table.source.split(':')[0]).name.split('.')[0]} classifier",
        base_model=None,
        description=f"Predicts the class of a row ({table.schema.label_column}): the mean "
        f"probabilities of {args.members * args.folds} networks, {args.members} of each of "
        f"{args.folds} folds.",
        data=table.describe(),
        label_names=label_names,
        metrics={key: metrics[key] for key in keys if key in metrics},
        evaluation=f"Each of the {len(y):,} rows was predicted by the networks of the fold that "
        f"did not train on it ({fold_of.max() + 1} folds).\n\n{table_of_methods}\n\n"
        + "\n".join(sentences),
        verdict="Which columns count, which classes are confused, whether the scores are "
        "probabilities, and the training of the first fold:\n\n"
        + "\n".join(
            f"![{name}]({path})"
            for name, path in {
                "Importance of columns": "plots/importance.png",
                "Confusion matrix": "plots/confusion.png",
                "Reliability": "plots/reliability.png",
                "Training": f"{folds[0].folder.name}/training_curve.png",
            }.items()
        ),
        report=report,
        usage=_usage(output_dir, table),
        limits="The model was trained on rows of one source; expect lower figures on rows of "
        "another one. The importance of a column is that for this model, not a cause.",
        settings=settings,
        task="tabular-classification",
    )
    return "\n".join(
        [
            report,
            table_of_methods,
            "",
            *sentences,
            "",
            f"Everything is in {output_dir}: README.md (card), metrics.json, *.csv, "
            "*_predictions.jsonl, plots/.",
        ]
    )


def _part_metrics(
    part: str, y: np.ndarray, scores: np.ndarray, predicted: np.ndarray
) -> dict[str, float]:
    values = f1_scores(y, predicted) | ranking_scores(y, scores)
    values |= {"log_loss": log_loss(y, scores)}
    if y.shape[1] == 2:  # of the second class, as scikit-learn has it by default
        values["f1"] = per_label_report(y, predicted, ["0", "1"])[1]["f1"]
    return {f"{part}_{name}": value for name, value in values.items()}


def _compare(
    part: str,
    y: np.ndarray,
    predicted: Mapping[str, Mapping[str, np.ndarray]],
    metrics: Mapping[str, float],
    names: Mapping[str, str],
) -> list[str]:
    """Return the accuracy of the model, and how it differs from that of each other method."""
    model, *others = predicted
    low, high = metrics[f"{part}_accuracy_low"], metrics[f"{part}_accuracy_high"]
    text = f"accuracy {metrics[f'{part}_accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f})"
    phrases = [text]
    for method in others:
        gain = paired_bootstrap(y, predicted[model][part], predicted[method][part])
        certain = "" if gain["low"] > 0 or gain["high"] < 0 else ", may be chance"
        phrases.append(
            f"{gain['difference']:+.3f} against {names[method]} "
            f"({gain['low']:+.3f} to {gain['high']:+.3f}{certain})"
        )
    majority = y.mean(axis=0).max()
    return [*phrases, f"always the most frequent class: {majority:.3f}"]


def _write_predictions(
    path: Path,
    table: Table,
    part: str,
    fold_of: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
) -> None:
    rows, label_names = table.parts[part], table.schema.label_names
    records = prediction_records(scores, predicted, label_names)
    with atomic_write(path) as file:
        write_json_lines(
            file,
            (
                {"row": int(rows.row_numbers[i])}
                | ({"fold": int(fold_of[i])} if part == "oof" else {})
                | {"true": label_names[rows.labels[i]], "predicted": record["labels"][0]}
                | {"scores": record["scores"]}
                for i, record in enumerate(records)
            ),
        )


def _usage(folder: Path, table: Table) -> str:
    cells = [f"{name!r}: 0.0" for name in table.schema.numeric[:2]]
    cells += [f"{name!r}: {values[-1]!r}" for name, values in table.schema.categories.items()][:2]
    row = "{" + ", ".join(cells) + "}"
    return f"""In the folder of the project, or of a copy of the recipe (`./run.sh copy`); a column
that is not named is a missing cell:

```python
from shared.methods import load_table_classifier

classify = load_table_classifier("{folder}")
classify([{row}])  # [{{"label": ..., "scores": {{...}}}}]
```

For the rows of a file:

```bash
accelerate launch recipes/tabular.py --model {folder} --predict FILE --output_dir predictions
```"""


def write_table_predictions(
    output_dir: Path, rows: Iterable[Mapping[str, Any]], scores: np.ndarray, names: Sequence[str]
) -> None:
    """Write ``predictions.jsonl`` and, for programs of spreadsheets, ``predictions.csv``.

    Both have the columns of the rows and ``predicted``; then the first has an object ``scores``,
    the second a column ``score_CLASS`` for each class.

    Parameters
    ----------
    output_dir : Path
    rows : iterable of mappings
    scores : array of shape (rows, classes)
    names : sequence of str
        Of the classes.
    """
    lines, cells = [], []
    for row, of_row in zip(rows, scores, strict=True):
        line = {**row, "predicted": names[of_row.argmax()]}
        by_name = dict(zip(names, of_row.round(6).tolist(), strict=True))
        lines.append(line | {"scores": by_name})
        flat = line | {f"score_{name}": score for name, score in by_name.items()}
        cells.append({name: as_cell(value) for name, value in flat.items()})
    with atomic_write(output_dir / "predictions.jsonl") as file:
        write_json_lines(file, lines)
    columns = list(dict.fromkeys(name for row in cells for name in row))
    write_csv(output_dir / "predictions.csv", cells, columns)
