"""What a run with several tasks writes: its tables, pictures and predictions, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import atomic_write, write_csv, write_json
from shared.data.tasks import task_columns
from shared.data.writers import write_json_lines
from shared.evaluation.task_metrics import MAIN_METRICS, task_outputs, tune_task_thresholds
from shared.plots.numbers import plot_predicted_numbers
from shared.plots.tasks import plot_task_scores, plot_trade_off
from shared.plots.training import plot_training_curve
from shared.reports.cards import write_model_card
from shared.reports.verdict import fit_metrics
from shared.taggers.multi_task import task_folders, task_records

if TYPE_CHECKING:
    from shared.data.task_tables import TaskTable
    from shared.data.tasks import Task, TaskData, TaskRows

# Scores of a model: one dict for each seed, from `shared.evaluation.task_metrics.task_scores`.
Scores = Sequence[Mapping[str, float]]


def task_table(tasks: Sequence[Task], results: Mapping[str, Scores]) -> str:
    """Return a table of the main figure of each task and their mean, a line for each model.

    With several seeds: mean and standard deviation.
    """
    names = [*_main_names(tasks), "mean_score"]
    titles = [_title(task) for task in tasks] + ["mean"]
    rows = [["", *titles]]
    for model, scores in results.items():
        rows.append([model, *(_mean_and_spread([s.get(name) for s in scores]) for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def figures_of_tasks(tasks: Sequence[Task], scores: Scores) -> str:
    """Return a line for each task with all its figures, means over the seeds."""
    lines, means = [], mean_scores(scores)
    for task in tasks:
        figures = (
            f"{title} {means[f'{task.name}_{name}']:.3f}"
            for name, title in _METRIC_NAMES.items()
            if f"{task.name}_{name}" in means
        )
        lines.append(f"{task.name}: {', '.join(figures)}")
    return "\n".join(lines)


_METRIC_NAMES = {
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "subset_accuracy": "all labels right",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
    "spearman": "Spearman",
}


def mean_scores(scores: Scores) -> dict[str, float]:
    """Return the mean of each figure over the seeds that have it."""
    names = dict.fromkeys(name for figures in scores for name in figures)
    return {name: float(np.mean([s[name] for s in scores if name in s])) for name in names}


def join_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the figures of models of one task each as those of one model."""
    joined = {name: value for figures in scores for name, value in figures.items()}
    means = [figures["mean_score"] for figures in scores if "mean_score" in figures]
    return joined | {"mean_score": float(np.mean(means))} if means else joined


def write_task_results(
    output_dir: Path,
    data: TaskData,
    results: Mapping[str, Scores],
    *,
    seeds: Sequence[int],
    sweep: Mapping[float, Scores],
    logits: Mapping[str, np.ndarray],
    log: Mapping[str, Any],
    base_model: str,
    settings: Mapping[str, Any],
) -> str:
    """Write the figures of all models, pictures, the predictions of the saved model, and its card.

    ``results.csv``, ``metrics.json``, ``predictions.jsonl``, ``plots/`` and ``README.md``.

    Parameters
    ----------
    output_dir : Path
    data : TaskData
        Of the first seed.
    results : mapping of model to its scores, in the order of `seeds`
        "joint" is the saved model. A model of one task has the figures of this task only.
    seeds : sequence of int
    sweep : mapping of the weight of the first task to scores
        Empty: there is no picture of the trade-off.
    logits : mapping of "valid" and "test" to array of shape (rows, outputs of all tasks)
        Of the saved model.
    log : mapping
        ``history``, the log of its training, and ``training``, its figures.
    base_model : str
    settings : mapping
        For the card.

    Returns
    -------
    str
        The table, and the figures of all tasks.
    """
    tasks = data.tasks
    rows = [
        {"model": model, "seed": seed, "metric": name, "value": value}
        for model, scores in results.items()
        for seed, figures in zip(seeds, scores, strict=True)
        for name, value in figures.items()
    ]
    write_csv(output_dir / "results.csv", rows)
    write_task_predictions(output_dir, data, logits)
    pictures = _write_pictures(output_dir, tasks, results, sweep)
    curve = output_dir / "plots" / "training_curve.png"
    plot_training_curve(log["history"], curve, metric="eval_mean_score")
    fit = fit_metrics(log["history"])
    report = f"{task_table(tasks, results)}\n\njoint\n{figures_of_tasks(tasks, results['joint'])}"
    figures = mean_scores(results["joint"])
    write_json(
        output_dir / "metrics.json",
        {f"test_{name}": value for name, value in figures.items()}
        | {f"{model}_mean_score": mean_scores(s).get("mean_score") for model, s in results.items()}
        | log["training"]
        | fit
        | {"seed": seeds[0], "num_seeds": len(seeds)}
        | data.method.metrics(),
    )
    described = (f"{task.name} ({task.problem.replace('_', ' ')})" for task in tasks)
    over_seeds = f", mean over {len(seeds)} seeds" if len(seeds) > 1 else ""
    write_model_card(
        output_dir,
        title=f"Model of {', '.join(task.name for task in tasks)}",
        base_model=base_model,
        description=f"One encoder with an output layer for each task: {'; '.join(described)}.",
        data=data.describe(),
        evaluation=f"Test rows{over_seeds}.\n\n" + "\n".join(f"![]({p})" for p in pictures),
        metrics=figures,
        verdict=fit.get("fit_explained"),
        report=report,
        usage=multi_task_usage(output_dir, data),
        limits="The figures are those of rows from the same source. `joint` is the saved model, "
        "`alone` a model for each task, `words` a linear model on TF-IDF for each.",
        settings=settings,
    )
    return report


def _write_pictures(
    output_dir: Path,
    tasks: Sequence[Task],
    results: Mapping[str, Scores],
    sweep: Mapping[float, Scores],
) -> list[str]:
    """Draw the main figures of all models, and the trade-off of two tasks; return the files."""
    names = _main_names(tasks)
    of_tasks = {
        _title(task): {
            model: [figures[name] for figures in scores if name in figures]
            for model, scores in results.items()
        }
        for task, name in zip(tasks, names, strict=True)
    }
    plot_task_scores(of_tasks, output_dir / "plots" / "tasks.png", title="Test rows")
    if not sweep:
        return ["plots/tasks.png"]

    def mean(scores: Scores) -> tuple[float, float]:
        first, second = (mean_scores(scores).get(name, 0.0) for name in names)
        return first, second

    plot_trade_off(
        {weight: mean(scores) for weight, scores in sweep.items()},
        mean(results["alone"]) if "alone" in results else None,
        (_title(tasks[0]), _title(tasks[1])),
        output_dir / "plots" / "trade_off.png",
    )
    return ["plots/tasks.png", "plots/trade_off.png"]


def write_task_predictions(
    output_dir: Path, data: TaskData, logits: Mapping[str, np.ndarray]
) -> None:
    """Write ``predictions.jsonl``, the test rows with what is predicted and true, and pictures.

    Parameters
    ----------
    output_dir : Path
    data : TaskData
    logits : mapping of "valid" and "test" to array of shape (rows, outputs of all tasks)
        The thresholds are those of the validation rows.
    """
    tasks, rows = data.tasks, data.parts["test"]
    thresholds = tune_task_thresholds(tasks, logits["valid"], data.parts["valid"].targets)
    records = task_records(tasks, logits["test"], thresholds)
    plots = output_dir / "plots"
    plots.mkdir(exist_ok=True)
    for i, (task, columns) in enumerate(zip(tasks, task_columns(tasks), strict=True)):
        targets, known = rows.targets[:, columns], data.known("test")[:, i]
        for row in np.flatnonzero(known):
            if task.is_regression:
                value = task.mean + task.scale * targets[row, 0]
                records[row][task.name]["true_value"] = round(float(value), 6)
            else:
                labels = [task.labels[j] for j in np.flatnonzero(targets[row])]
                records[row][task.name]["true_labels"] = labels
        if task.is_regression and known.any():
            numbers = [
                task_outputs(task, values[known, columns])[:, 0]
                for values in (rows.targets, logits["test"])
            ]
            picture = plots / f"numbers_{i + 1}.png"
            plot_predicted_numbers(numbers[0], numbers[1], task.name, picture)
    write_task_records(output_dir / "predictions.jsonl", rows, records)


def write_task_records(
    path: Path, rows: TaskRows | TaskTable, records: Sequence[Mapping[str, Any]]
) -> None:
    """Write a line of JSON for each row: its number, its text, the predictions of all tasks."""
    with atomic_write(path) as file:
        lines = zip(rows.rows, rows.texts, records, strict=True)
        write_json_lines(file, ({"row": n, "text": text} | {**record} for n, text, record in lines))


def multi_task_usage(folder: Path, data: TaskData) -> str:
    """Return how to load a model of several tasks, as Markdown."""
    columns = [*data.text_columns, *data.further.numbers, *data.further.categories]
    row = ", ".join(f'"{name}": ...' for name in columns)
    text = f"""In the folder of the project, or of a copy of the recipe (`./run.sh copy`):

```python
from shared.taggers import load_multi_task

predict = load_multi_task("{folder}")
predict([{{{row}}}])
```

For a file:

```bash
accelerate launch recipes/multi_task.py --model {folder} --predict FILE --output_dir predicted
```"""
    if taggers := task_folders(folder, data):
        listed = "\n".join(f"- {task.name}: `{path}`" for task, path in taggers.items())
        text += f"\n\nA tagger for each classification, which reads texts alone:\n\n{listed}"
    return text


def _main_names(tasks: Sequence[Task]) -> list[str]:
    return [f"{task.name}_{MAIN_METRICS[task.problem]}" for task in tasks]


def _title(task: Task) -> str:
    return f"{task.name} {_METRIC_NAMES[MAIN_METRICS[task.problem]]}"


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """Return the mean of the values and, of several, their standard deviation."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    spread = f" ± {np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.3f}{spread}"
