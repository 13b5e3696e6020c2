"""Apply a model of several tasks to rows, and save a tagger for each of its tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import quiet_libraries
from shared.data.sources import Source
from shared.data.task_tables import FurtherColumns, TaskTable, collect_rows
from shared.data.tasks import Task, TaskRows, task_columns
from shared.evaluation.calibration import calibrate
from shared.evaluation.rules import DecisionRule
from shared.evaluation.task_metrics import task_outputs, tune_task_thresholds
from shared.models.loading import load_multi_task_model, load_tokenizer
from shared.taggers.loading import Loading
from shared.taggers.trained_model import save_trained_model
from shared.training.multi_task import MultiTaskCollator, task_dataset

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from shared.data.tasks import TaskData
    from shared.evaluation.calibration import Calibration


def load_multi_task(
    folder: str | Path, args: TrainingArguments | None = None, *, bf16: bool = False
) -> MultiTaskPredictor:
    """Load a model of several tasks that recipes/multi_task.py has saved.

    Parameters
    ----------
    folder : str or Path
    args : TrainingArguments, optional
        Of the Trainer that predicts. None: 32 texts per batch, and a GPU if there is one.
    bf16 : bool, default False
        Compute in bfloat16.

    Raises
    ------
    UserError
        If the folder holds no such model, or a damaged one.
    """
    if args is None:
        quiet_libraries()
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise UserError(f"{folder}: no folder of a trained model")
    tokenizer = load_tokenizer(str(path))
    model = load_multi_task_model(str(path), tokenizer=tokenizer)
    trainer = Loading(args, bf16).trainer(model, tokenizer)
    trainer.data_collator = MultiTaskCollator(tokenizer)
    return MultiTaskPredictor(trainer, tokenizer, model.config)


class MultiTaskPredictor:
    """Predict all tasks of rows.

    Attributes
    ----------
    tasks : list of Task
    thresholds : dict of multi-label tasks to their threshold
    further : FurtherColumns
    text_columns : list of str
    """

    def __init__(self, trainer: Any, tokenizer: Any, config: Any):
        self._trainer, self._tokenizer = trainer, tokenizer
        self.tasks = [
            Task(
                task["name"],
                task["problem"],
                tuple(task["labels"]),
                task.get("mean", 0.0),
                task.get("scale", 1.0),
            )
            for task in config.tasks
        ]
        self.thresholds = {
            task["name"]: task.get("threshold", 0.5)
            for task in config.tasks
            if task["problem"] == "multi_label"
        }
        numbers = {name: (mean, scale) for name, mean, scale in config.numbers}
        self.further = FurtherColumns(numbers, {name: list(v) for name, v in config.categories})
        self.text_columns = list(config.text_columns)

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any] | None]:
        """Predict rows that have the columns of the training data.

        Returns
        -------
        list
            A mapping for each row from each task to ``labels`` and ``scores``, or to ``value``, in
            the unit of the training data; None for a row without text.
        """
        all_rows = [dict(row) for row in rows]
        columns = list(dict.fromkeys(name for row in all_rows for name in row))

        def read(*_: Any, **__: Any) -> Iterator[dict]:
            return iter(all_rows)

        records: list[dict[str, Any] | None] = [None] * len(all_rows)
        table = self.read(Source("rows", "", columns, read), pull_requests=True)
        for number, record in zip(table.rows, self.predict(table), strict=True):
            records[number - 1] = record
        return records

    def read(self, source: Source, *, pull_requests: bool = False) -> TaskTable:
        """Read the inputs of the model from a source; rows without text are left out."""
        return collect_rows(
            source,
            self.text_columns,
            number_columns=list(self.further.numbers),
            category_columns=list(self.further.categories),
            pull_requests=pull_requests,
        )

    def predict(self, table: TaskTable) -> list[dict[str, Any]]:
        """Return a mapping of tasks to predictions for each row of a table."""
        if not table.texts:
            return []
        none = np.zeros((len(table.texts), 0), np.float32)
        rows = TaskRows(table.texts, table.rows, none, *self.further.encode(table))
        dataset = task_dataset(rows, self._tokenizer)
        logits = self._trainer.predict(dataset).predictions
        return task_records(self.tasks, logits, self.thresholds)


def task_rule(task: Task, thresholds: Mapping[str, float]) -> DecisionRule:
    """Return how the scores of a classification become its labels."""
    return DecisionRule.of(
        thresholds.get(task.name, 0.5),
        len(task.labels),
        single_label=task.problem == "single_label",
    )


def task_records(
    tasks: Sequence[Task], logits: np.ndarray, thresholds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return for each row a mapping of tasks to ``labels`` and ``scores``, or to ``value``.

    Parameters
    ----------
    tasks : sequence of Task
    logits : array of shape (rows, outputs of all tasks)
    thresholds : mapping of multi-label tasks to their threshold
    """
    records: list[dict[str, Any]] = [{} for _ in logits]
    for task, columns in zip(tasks, task_columns(tasks), strict=True):
        outputs = task_outputs(task, logits[:, columns])
        if task.is_regression:
            for record, value in zip(records, outputs[:, 0].tolist(), strict=True):
                record[task.name] = {"value": round(value, 6)}
            continue
        chosen = task_rule(task, thresholds).choose(outputs)
        for record, scores, is_chosen in zip(records, outputs, chosen, strict=True):
            best = np.argsort(-scores, kind="stable")
            record[task.name] = {
                "labels": [task.labels[i] for i in best if is_chosen[i]],
                "scores": {task.labels[i]: round(float(scores[i]), 6) for i in best},
            }
    return records


def save_multi_task(
    trainer: Any, folder: Path, data: TaskData, logits: Mapping[str, np.ndarray]
) -> None:
    """Save a trained model of several tasks, and a tagger of its own for each classification.

    Thresholds and calibrations are those of the validation rows. The taggers, below ``taggers``,
    have a copy of the encoder each. There are none if the model reads further columns, for a tagger
    reads texts only. All processes of a launch must call this.

    Parameters
    ----------
    trainer : Trainer
        Of a `MultiTaskModel`, whose config gets the thresholds.
    folder : Path
    data : TaskData
    logits : mapping of "valid" and "test" to array of shape (rows, outputs of all tasks)
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    thresholds = tune_task_thresholds(data.tasks, logits["valid"], data.parts["valid"].targets)
    for settings in model.config.tasks:
        if settings["name"] in thresholds:
            settings["threshold"] = thresholds[settings["name"]]
    trainer.save_model(str(folder))
    if trainer.args.process_index != 0:
        return
    for task, path in task_folders(folder, data).items():
        number = data.tasks.index(task)
        rule = task_rule(task, thresholds)
        settings = {"one_label_each": task.problem == "single_label"}
        if rule.thresholds:
            settings["thresholds"] = list(rule.thresholds)
        path.mkdir(parents=True, exist_ok=True)
        model.task_model(number, **settings).save_pretrained(path)
        trainer.processing_class.save_pretrained(path)
        calibration = _calibration(task, rule, data, logits)
        save_trained_model(path, list(task.labels), rule, calibration)


def task_folders(folder: Path, data: TaskData) -> dict[Task, Path]:
    """Return the folder of the tagger of each classification; empty with further columns."""
    if data.further.numbers or data.further.categories:
        return {}
    return {
        task: folder / "taggers" / f"{i}_{re.sub(r'[^A-Za-z0-9-]+', '_', task.name)[:60]}"
        for i, task in enumerate(data.tasks, 1)
        if not task.is_regression
    }


def _calibration(
    task: Task, rule: DecisionRule, data: TaskData, logits: Mapping[str, np.ndarray]
) -> Calibration | None:
    """Return what makes the scores of a task probabilities, from its validation rows."""
    number = data.tasks.index(task)
    columns = task_columns(data.tasks)[number]
    scores, chosen, labels = {}, {}, {}
    for part, values in logits.items():
        known = data.known(part)[:, number]
        scores[part] = task_outputs(task, values[known, columns])
        chosen[part] = rule.choose(scores[part])
        labels[part] = data.parts[part].targets[known, columns].astype(np.uint8)
    single_label = task.problem == "single_label"
    return calibrate(scores, chosen, labels, single_label=single_label)[0]
