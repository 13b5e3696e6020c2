"""What a run with several tasks writes: its tables, pictures and predictions, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.files import atomic_write, write_csv
from shared.data.tasks import task_columns
from shared.data.writers import write_json_lines
from shared.evaluation.task_metrics import MAIN_METRICS, task_outputs, tune_task_thresholds
from shared.plots import plot_predicted_numbers, plot_task_scores, plot_trade_off
from shared.taggers.multi_task import task_folders, task_records

if TYPE_CHECKING:
    from shared.data.tasks import Task, TaskData

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
    tasks: Sequence[Task],
    results: Mapping[str, Scores],
    seeds: Sequence[int],
    trade_off: Mapping[float, Scores],
) -> None:
    """Write ``results.csv`` with all figures, and the pictures of the tasks.

    Parameters
    ----------
    output_dir : Path
    tasks : sequence of Task
    results : mapping of model to its scores, in the order of `seeds`
        A model of one task has the figures of this task only.
    seeds : sequence of int
    trade_off : mapping of the weight of the first task to scores
        Empty: there is no picture of it.
    """
    rows = [
        {"model": model, "seed": seed, "metric": name, "value": value}
        for model, scores in results.items()
        for seed, figures in zip(seeds, scores, strict=True)
        for name, value in figures.items()
    ]
    write_csv(output_dir / "results.csv", rows)
    plots = output_dir / "plots"
    plots.mkdir(exist_ok=True)
    of_tasks = {
        _title(task): {
            model: [figures[name] for figures in scores if name in figures]
            for model, scores in results.items()
        }
        for task, name in zip(tasks, _main_names(tasks), strict=True)
    }
    plot_task_scores(of_tasks, plots / "tasks.png", title="Test rows")
    if trade_off:
        names = _main_names(tasks)

        def mean(scores: Scores) -> tuple[float, float]:
            first, second = (float(np.mean([s[name] for s in scores])) for name in names)
            return first, second

        alone = results.get("alone")
        plot_trade_off(
            {weight: mean(scores) for weight, scores in trade_off.items()},
            mean(alone) if alone else None,
            (_title(tasks[0]), _title(tasks[1])),
            plots / "trade_off.png",
        )


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
            picture = output_dir / "plots" / f"numbers_{i + 1}.png"
            plot_predicted_numbers(numbers[0], numbers[1], task.name, picture)
    with atomic_write(output_dir / "predictions.jsonl") as file:
        lines = zip(rows.rows, rows.texts, records, strict=True)
        write_json_lines(file, ({"row": n, "text": text} | record for n, text, record in lines))


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
