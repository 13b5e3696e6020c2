"""Rows with several label columns, one for each task, and with further columns beside the text.

A task is one column to predict: one label of each row, any number of labels, or a number. A row
may lack some of them. Further columns that are read beside the text are numbers, scaled on the
training rows, and categories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.data.arguments import DataArguments, SplitColumnArguments, check_split_flags
from shared.data.columns import find_split_column, recognise_text_columns
from shared.data.labels import LabelEncoder, name_some
from shared.data.preparation import cell_as_text, join_counts
from shared.data.readers import open_data
from shared.data.split_columns import (
    PARTS,
    SplitMethod,
    check_validation_left,
    drop_repeats,
    split_by_column,
    split_values,
)
from shared.data.task_tables import (
    FurtherColumns,
    TaskTable,
    collect_rows,
    number_bins,
    numbers_of,
    read_number,
)
from shared.splitters.multilabel import train_valid_test_split

PROBLEMS = ("single_label", "multi_label", "regression")
# A column of so many whole numbers may hold classes or amounts.
_FEW_NUMBERS = range(3, 11)


@dataclass
class TaskArguments(SplitColumnArguments, DataArguments):
    """Flags of recipes that read and split tasks."""

    tasks: list[str] = flag(
        [], "Columns to predict, one task each, such as label repo (default: none; must be given)."
    )
    task_types: list[str] = flag(
        [],
        "Types of tasks, such as stars=regression; single_label, multi_label or regression "
        "(default: regression for numbers, else by whether a row has several labels).",
    )
    number_columns: list[str] = flag(
        [], "Columns of numbers to read beside the text, scaled on training rows (default: none)."
    )
    category_columns: list[str] = flag(
        [], "Columns of categories to read beside the text (default: none)."
    )
    valid_data: str | None = flag(
        None, "File with the validation rows, in the form of --data (default: a part of --data)."
    )
    test_data: str | None = flag(
        None, "File with the test rows, in the form of --data (default: a part of --data)."
    )
    valid_size: float = flag(
        0.15, "Share of the rows for validation; 0: none (default: .15).", least=0, below=1
    )
    test_size: float = flag(
        0.15, "Share of the rows for the test (default: .15).", above=0, below=1
    )
    drop_repeated: bool = flag(
        True,
        "Leave out rows whose text nearly repeats one of a later part, where files or a column "
        "divide the rows. Use false only to compare with published results (default: true).",
    )


@dataclass(frozen=True)
class Task:
    """One column to predict.

    Attributes
    ----------
    name : str
        The column.
    problem : one of `PROBLEMS`
    labels : tuple of str
        The names of its outputs: its labels, or the column itself for a regression.
    mean, scale : float
        Of a regression: mean and standard deviation of the training rows. Targets are
        ``(value - mean) / scale``.
    """

    name: str
    problem: str
    labels: tuple[str, ...]
    mean: float = 0.0
    scale: float = 1.0

    @property
    def is_regression(self) -> bool:
        """Whether it predicts a number."""
        return self.problem == "regression"


def task_columns(tasks: Sequence[Task]) -> list[slice]:
    """Return which columns of targets and logits, (rows, outputs), belong to each task."""
    stops = np.cumsum([len(task.labels) for task in tasks]).tolist()
    return [slice(stop - len(task.labels), stop) for task, stop in zip(tasks, stops, strict=True)]


@dataclass(frozen=True)
class TaskRows:
    """The rows of a part.

    Attributes
    ----------
    texts : list of str
    rows : list of int
        1-based numbers of the rows in their file.
    targets : float32 array of shape (rows, outputs)
        Of all tasks side by side (`task_columns`): one-hot or multi-hot labels, and scaled
        numbers. NaN: the row has no value for the task.
    numbers, categories : arrays from `FurtherColumns.encode`
    """

    texts: list[str]
    rows: list[int]
    targets: np.ndarray
    numbers: np.ndarray
    categories: np.ndarray

    def select(self, rows: np.ndarray) -> TaskRows:
        """Return some of the rows."""
        return TaskRows(
            [self.texts[i] for i in rows],
            [self.rows[i] for i in rows],
            self.targets[rows],
            self.numbers[rows],
            self.categories[rows],
        )


@dataclass(frozen=True)
class TaskData:
    """Tasks and their rows, divided into parts.

    Attributes
    ----------
    tasks : list of Task
    parts : dict of "train", "valid" and "test" to TaskRows
        Every row has a value for at least one task.
    further : FurtherColumns
    text_columns : list of str
    source : str
        What was read, in a line.
    versions : list of str
        One for each file; changes whenever its rows may have changed.
    notes : list of str
    method : SplitMethod
        How the rows were divided.
    """

    tasks: list[Task]
    parts: dict[str, TaskRows]
    further: FurtherColumns
    text_columns: list[str]
    source: str
    versions: list[str]
    notes: list[str]
    method: SplitMethod

    def known(self, part: str) -> np.ndarray:
        """Return which rows of a part have a value for each task: bool, (rows, tasks)."""
        targets = self.parts[part].targets
        columns = task_columns(self.tasks)
        return np.stack([~np.isnan(targets[:, own]).any(axis=1) for own in columns], axis=1)

    def only(self, name: str | None) -> TaskData:
        """Return the data of one task: the rows that have a value for it. None: all tasks."""
        if name is None:
            return self
        number = [task.name for task in self.tasks].index(name)
        columns = task_columns(self.tasks)[number]
        parts = {}
        for part, rows in self.parts.items():
            chosen = rows.select(np.flatnonzero(self.known(part)[:, number]))
            parts[part] = replace(chosen, targets=chosen.targets[:, columns])
        return replace(self, tasks=[self.tasks[number]], parts=parts)

    def label_counts(self) -> dict[str, int]:
        """Return the training rows of each label of each task, without those of numbers."""
        counts = np.nansum(self.parts["train"].targets, axis=0)
        return {
            f"{task.name}: {label}": int(count)
            for task, columns in zip(self.tasks, task_columns(self.tasks), strict=True)
            for label, count in zip(task.labels, counts[columns], strict=True)
            if not task.is_regression
        }

    def describe(self) -> str:
        """Return the source, the tasks with their rows, the inputs, and the notes, a line each."""
        counts = {part: len(rows.texts) for part, rows in self.parts.items()}
        sizes = ", ".join(f"{part} {count:,}" for part, count in counts.items())
        lines = [self.source, f"rows: {sizes}"]
        if self.method.column:
            lines.append(self.method.describe(counts, "rows"))
        known = {part: self.known(part) for part in self.parts}
        for number, task in enumerate(self.tasks):
            n_known = {part: int(values[:, number].sum()) for part, values in known.items()}
            outputs = f"{len(task.labels)} labels"
            if task.is_regression:
                outputs = f"mean {task.mean:,.4g}, standard deviation {task.scale:,.4g}"
            lines.append(
                f"task {task.name}: {task.problem.replace('_', ' ')}, {outputs}; known in "
                f"{join_counts(n_known)}"
            )
        inputs = [f"text ({', '.join(self.text_columns)})", *self.further.numbers]
        inputs += [f"{name} ({len(v)} values)" for name, v in self.further.categories.items()]
        return "\n".join([*lines, f"inputs: {', '.join(inputs)}", *self.notes])


def load_tasks(args: Any, *, seed: int) -> TaskData:
    """Read the tasks that `args.data` names, and split their rows.

    A random split spreads the labels of all tasks, the bins of numbers and missing values over the
    parts together. Nearly equal texts stay on one side.

    Parameters
    ----------
    args : TaskArguments
    seed : int
        The same seed gives the same random split.

    Raises
    ------
    UserError
        If a file cannot be read or lacks a column, a cell cannot be understood, it is not clear of
        which type a task is, or a task has one value only.
    """
    check_split_flags(args)
    problems = _check_flags(args)
    files = {"valid": args.valid_data, "test": args.test_data}
    sizes = {part: 0.0 if files[part] else getattr(args, f"{part}_size") for part in files}
    tables = {"train": read_table(args, args.data)}
    text_columns = tables["train"].text_columns
    tables |= {
        part: read_table(args, path, text_columns=text_columns)
        for part, path in files.items()
        if path
    }
    notes = [note for table in tables.values() for note in table.notes]
    train_table = tables["train"]
    for table in tables.values():
        if not table.texts:
            raise UserError(f"{table.source}: no row has a text in {', '.join(text_columns)}")

    # Targets of every file, in the columns of the file that is learned from; numbers unscaled.
    tasks: list[Task] = []
    targets: dict[str, list[np.ndarray]] = {part: [] for part in tables}
    for name in args.tasks:
        task, values, task_notes = _targets(name, problems.get(name), tables, args)
        tasks.append(task)
        notes += task_notes
        for part, columns in values.items():
            targets[part].append(columns)
    joined = {part: np.concatenate(columns, axis=1) for part, columns in targets.items()}
    usable = {part: ~np.isnan(values).all(axis=1) for part, values in joined.items()}
    for part, table in tables.items():
        if left_out := int((~usable[part]).sum()):
            notes.append(f"{table.source}: {left_out:,} rows have a value for none of the tasks")

    # Which rows of which file are in each part.
    chosen = {part: np.flatnonzero(rows) for part, rows in usable.items()}
    if args.drop_repeated:
        for part, others in (("train", ("valid", "test")), ("valid", ("test",))):
            files_after = [other for other in others if other in tables]
            held_out = [tables[other].texts[i] for other in files_after for i in chosen[other]]
            if part in tables and held_out:
                kept = _without_repeats(tables[part].texts, chosen[part], held_out)
                if part == "valid":
                    check_validation_left(len(chosen[part]), len(kept))
                if n := len(chosen[part]) - len(kept):
                    notes.append(f"left out: {n:,} {part} rows that repeat a held-out text")
                chosen[part] = kept
    parts = {part: (part, rows) for part, rows in chosen.items()}
    method = SplitMethod("files" if any(files.values()) else "random")
    for part in tables:
        if not len(chosen[part]):
            raise UserError("; ".join([f"{tables[part].source}: no {part} row is left", *notes]))
    if any(sizes.values()):
        from shared.data.near_duplicates import near_duplicate_groups

        rows = chosen["train"]
        strata = _strata(joined["train"][rows], tasks)
        groups = near_duplicate_groups([train_table.texts[i] for i in rows])

        def draw(
            own: np.ndarray, test_size: float = 0
        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return train_valid_test_split(
                strata[own],
                valid_size=sizes["valid"],
                test_size=test_size,
                groups=groups[own],
                random_state=seed,
            )

        if split_column := args.split_by or args.split_time:
            cells = [cell_as_text(train_table.cells[split_column][i]) for i in rows]
            numbers_of_rows = [train_table.rows[i] for i in rows]
            values_of_rows, more = split_values(
                args, cells, numbers_of_rows, train_table.source, train_table.place
            )
            notes += more
            method, (train, valid, test) = split_by_column(
                args, values_of_rows, valid_size=args.valid_size, draw=draw
            )
            if args.drop_repeated:
                n_before = len(train) + len(valid)
                train, valid = drop_repeats(groups, train, valid, test)
                if n := n_before - len(train) - len(valid):
                    notes.append(f"left out: {n:,} rows that nearly repeat one of a later part")
            drawn = (train, valid, test)
        else:
            drawn = draw(np.arange(len(rows)), sizes["test"])
        parts |= {
            part: ("train", rows[positions])
            for part, positions in zip(PARTS, drawn, strict=True)
            if not files.get(part)
        }
    for part in PARTS:
        parts.setdefault(part, ("train", np.zeros(0, np.int64)))
        if part != "valid" and not len(parts[part][1]):
            raise UserError(f"{args.data}: no {part} row is left; add rows or change the split")

    # Scale numbers by the training rows.
    train = parts["train"][1]
    tasks = [
        _scaled(task, joined["train"][train, columns], train_table.source)
        for task, columns in zip(tasks, task_columns(tasks), strict=True)
    ]
    for task, own in zip(tasks, task_columns(tasks), strict=True):
        for unscaled in joined.values():
            unscaled[:, own] = (unscaled[:, own] - task.mean) / task.scale
    further = FurtherColumns.of(train_table, train)
    all_rows = {}
    for file, table in tables.items():
        numbers, categories = further.encode(table)
        all_rows[file] = TaskRows(
            table.texts, table.rows, joined[file].astype(np.float32), numbers, categories
        )
    data = TaskData(
        tasks,
        {part: all_rows[parts[part][0]].select(parts[part][1]) for part in PARTS},
        further,
        text_columns,
        "; ".join(table.source for table in tables.values()),
        [table.version for table in tables.values()],
        notes,
        method,
    )
    data.notes.extend(_unseen_notes(data))
    return data


# --- reading -------------------------------------------------------------------------------------


def read_table(
    args: TaskArguments, path: str, *, text_columns: list[str] | None = None
) -> TaskTable:
    """Read the texts, tasks and further columns of a file that has the form of ``--data``.

    Parameters
    ----------
    args : TaskArguments
        Names the columns, and how files are read.
    path : str
        As ``--data``.
    text_columns : list of str, optional
        None: those of the flags, or recognised.

    Raises
    ------
    UserError
        As `collect_rows`.
    """
    source = open_data(_with_data(args, path))
    if text_columns is None:
        text_columns, _ = recognise_text_columns(source, args.text_columns)
    inputs = [*text_columns, *args.number_columns, *args.category_columns]
    split_column = find_split_column(source, args, targets=args.tasks, inputs=inputs)
    return collect_rows(
        source,
        text_columns,
        tasks=[*args.tasks, *([split_column] if split_column else [])],
        number_columns=args.number_columns,
        category_columns=args.category_columns,
        pull_requests=args.pull_requests,
    )


def _with_data(args: TaskArguments, path: str) -> DataArguments:
    """Return flags that read a file without a column of labels."""
    own = {name: getattr(args, name) for name in DataArguments.__dataclass_fields__}
    return replace(DataArguments(**own), data=path)


# --- tasks ---------------------------------------------------------------------------------------


def _check_flags(args: TaskArguments) -> dict[str, str]:
    """Check the flags of columns; return the types that ``--task_types`` gives to tasks."""
    if not args.tasks:
        raise UserError("--tasks: name one or more columns to predict, such as --tasks label state")
    uses: Counter[str] = Counter()
    for name in ("tasks", "number_columns", "category_columns"):
        uses.update(getattr(args, name))
    if args.text_columns != DataArguments().text_columns:
        uses.update(args.text_columns)
    if twice := [name for name, count in uses.items() if count > 1]:
        raise UserError(f"column {twice[0]!r} is named twice; give it one use, as a task or input")
    for name in ("label_column", "label_columns", "label_map", "class_names"):
        if getattr(args, name) != getattr(DataArguments(), name):
            raise UserError(f"--{name}: name the columns to predict with --tasks; remove the flag")
    if args.valid_size + args.test_size >= 1:
        raise UserError(
            f"--valid_size {args.valid_size}, --test_size {args.test_size}: leave nothing to learn "
            "from; lower them"
        )
    problems = {}
    for word in args.task_types:
        name, _, problem = word.rpartition("=")
        if name not in args.tasks or problem not in PROBLEMS:
            raise UserError(
                f"--task_types {word}: write COLUMN=TYPE, a column of --tasks and one of "
                f"{', '.join(PROBLEMS)}"
            )
        problems[name] = problem
    return problems


def _targets(
    name: str, problem: str | None, tables: Mapping[str, TaskTable], args: TaskArguments
) -> tuple[Task, dict[str, np.ndarray], list[str]]:
    """Return a task, its targets in each file, float64 of (rows, outputs), and notes."""
    if problem is None:
        problem = _recognise_numbers(name, tables["train"])
    if problem == "regression":
        values = {part: numbers_of(table, name)[:, None] for part, table in tables.items()}
        return Task(name, problem, (name,)), values, []
    labels = _labels(name, tables, args)
    counts = Counter(label for row in labels["train"] if row for label in set(row))
    names = sorted(
        (
            label
            for label, count in counts.items()
            if count >= args.min_label_count and label not in args.drop_labels
        ),
        key=lambda label: (int(label), label) if label.isdecimal() else (0, label),
    )
    if not names:
        raise UserError(f"{tables['train'].source}: no row has a label to learn in column {name!r}")
    position = {label: i for i, label in enumerate(names)}
    negative = args.empty_labels == "negative"
    targets, notes = {}, []
    for part, rows in labels.items():
        targets[part] = np.full((len(rows), len(names)), np.nan)
        unseen: Counter[str] = Counter()
        for i, row in enumerate(rows):
            if new := {*(row or ())} - {*counts}:
                unseen.update(new)
                continue
            known = [position[label] for label in row or () if label in position]
            if known or (negative and row is not None):
                targets[part][i] = 0
                targets[part][i, known] = 1
        if unseen:
            notes.append(
                f"{tables[part].source}: rows with labels of {name} that --data does not have are "
                f"not measured: {name_some([f'{k} {v:,}' for k, v in unseen.most_common()])}"
            )
    one_each = {
        part: np.isnan(values[:, 0]) | (values.sum(axis=1) == 1) for part, values in targets.items()
    }
    if problem is None:
        all_one = all(is_one.all() for is_one in one_each.values())
        problem = "single_label" if all_one else "multi_label"
    for part, is_one in one_each.items():
        if problem == "single_label" and not is_one.all():
            place = tables[part].place(tables[part].rows[int(np.argmin(is_one))])
            raise UserError(
                f"{place}: column {name!r} has no label or several; for a single_label task it "
                "must have one, or be null"
            )
    if problem == "single_label" and len(names) == 1:
        raise UserError(
            f"{tables['train'].source}: all rows with a value in column {name!r} have {names[0]!r};"
            " there is nothing to learn"
        )
    return Task(name, problem, tuple(names)), targets, notes


def _recognise_numbers(name: str, table: TaskTable) -> str | None:
    """Return "regression" if a column holds numbers; None if it holds labels."""
    values = set()
    for cell in table.cells[name]:
        if isinstance(cell, bool):
            return None
        try:
            number = read_number(cell)
        except ValueError:
            return None
        if number is not None:
            values.add(number)
    if not values or len(values) == 2:  # no and yes
        return None
    if len(values) in _FEW_NUMBERS and all(value.is_integer() for value in values):
        raise UserError(
            f"{table.source}: column {name!r} holds {len(values)} whole numbers, "
            f"{min(values):g} to {max(values):g}, which may be classes or amounts; give "
            f"--task_types {name}=single_label or {name}=regression"
        )
    return "regression"


def _labels(
    name: str, tables: Mapping[str, TaskTable], args: TaskArguments
) -> dict[str, list[list[str] | None]]:
    """Return the labels of each row of each file; None if it has none."""
    encoder = LabelEncoder(args.label_separator, None)
    codes: dict[str, list[list[int] | None]] = {}
    for part, table in tables.items():
        codes[part] = []
        for i, cell in enumerate(table.cells[name]):
            try:
                codes[part].append(encoder.encode(cell, table.rows[i]))
            except ValueError as error:
                place = table.place(table.rows[i])
                raise UserError(f"{place}: column {name!r}: {error}") from error
    try:
        new_codes = encoder.split_strings()
    except ValueError as error:
        raise UserError(f"{tables['train'].source}, column {name!r}: {error}") from error
    names = encoder.names
    return {
        part: [
            None if row is None else [names[new] for code in row for new in new_codes[code]]
            for row in rows
        ]
        for part, rows in codes.items()
    }


def _scaled(task: Task, values: np.ndarray, source: str) -> Task:
    """Return a task with the scale of its training values, (rows, outputs), if it has one."""
    known = values[~np.isnan(values).any(axis=1)]
    if not len(known) or (task.problem != "multi_label" and (known == known[0]).all()):
        number = "no" if not len(known) else "one value only in all"
        raise UserError(f"{source}: column {task.name!r} has {number} training rows")
    if not task.is_regression:
        return task
    return replace(task, mean=float(known.mean()), scale=float(known.std()))


# --- the split -----------------------------------------------------------------------------------


def _strata(targets: np.ndarray, tasks: Sequence[Task]) -> np.ndarray:
    """Return what to spread over the parts, 0 or 1 of (rows, strata)."""
    strata = []
    for task, columns in zip(tasks, task_columns(tasks), strict=True):
        values = targets[:, columns]
        missing = np.isnan(values).any(axis=1)
        if task.is_regression:
            values = number_bins(values[:, 0])
        strata += [np.where(missing[:, None], 0, values), missing[:, None]]
    joined = np.concatenate(strata, axis=1).astype(np.uint8)
    return joined[:, joined.any(axis=0)]


def _without_repeats(texts: list[str], rows: np.ndarray, held_out: list[str]) -> np.ndarray:
    """Return those of `rows` whose text has no near duplicate among the texts held out."""
    import pyarrow as pa

    from shared.data.near_duplicates import repeats

    own = pa.chunked_array([pa.array([texts[i] for i in rows], pa.string())])
    return rows[~repeats(own, pa.chunked_array([pa.array(held_out, pa.string())]))]


def _unseen_notes(data: TaskData) -> list[str]:
    """Return which held-out rows have a category that no training row has."""
    notes = []
    for i, name in enumerate(data.further.categories):
        counts = {
            part: int((data.parts[part].categories[:, i] == 0).sum()) for part in ("valid", "test")
        }
        if any(counts.values()):
            notes.append(
                f"column {name}: no value, or one that no training row has, in "
                f"{join_counts({part: n for part, n in counts.items() if n})} rows"
            )
    return notes
