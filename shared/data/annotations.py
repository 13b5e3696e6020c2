"""Exports of annotation tools: Label Studio, Argilla, Prodigy and doccano.

Label Studio and Argilla write one record per text, with the answers of all annotators to all
questions. These become one row per answer to one question: the fields of the text, its labels, and
who gave them (`shared.data.preparation` joins the rows of a text). Prodigy and doccano write rows
already. Only answers about the whole text are labels; boxes and spans are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.cli.errors import UserError
from shared.data.arguments import DEFAULT_LABEL_COLUMN
from shared.data.sources import Source

# Columns of the rows that are made of records.
LABELS = "labels"
ANNOTATOR = "annotator"

# Columns in which programs write who gave the labels of a row. Prodigy has two of them; the first
# in this order is taken.
_ANNOTATOR_COLUMNS = ("_annotator_id", "annotator", "annotator_id", "annotated_by", "_session_id")
# States of an answer that was not given, or withdrawn (Argilla).
_NOT_GIVEN = ("discarded", "draft")


@dataclass
class Record:
    """What a record says about one text.

    Attributes
    ----------
    fields : the columns of the text.
    answers : for each question, the labels and the annotator of each answer; labels are a list of
        names, or what a column of labels may hold.
    skipped : number of answers that do not count, by reason.
    other : kinds of answers that are not about the whole text, such as "rectanglelabels".
    """

    fields: dict[str, Any]
    answers: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    other: set[str] = field(default_factory=set)


def recognise_annotations(source: Source, label_column: str) -> Source:
    """Return a source with one row per answer if `source` is an export; else `source`.

    Parameters
    ----------
    source : Source
    label_column : str
        The value of ``--label_column``: of several questions, the name of the one to read.

    Raises
    ------
    UserError
        If there are several questions and `label_column` is none of them, or if a record has
        another form than the first ones.
    """
    columns = set(source.columns)
    annotator = next((name for name in _ANNOTATOR_COLUMNS if name in columns), None)
    source = replace(source, annotator_column=source.annotator_column or annotator)
    if "data" in columns and columns & {"annotations", "completions"}:
        return expand(source, _label_studio, "a Label Studio export", label_column)
    if "answer" in columns and columns & {"accept", "_task_hash"}:
        if "accept" in columns and "label" not in columns and LABELS not in columns:
            source = replace(source, label_column="accept")
        return replace(source, layout=f"a Prodigy export ({source.layout})")
    if {"text", "label", "Comments"} <= columns:
        return replace(source, layout=f"a doccano export ({source.layout})")
    if any(name.endswith(".responses") for name in columns):
        return expand(source, _argilla_columns, "an Argilla export", label_column)
    if {"fields", "responses"} <= columns:
        return expand(source, _argilla_record, "an Argilla export", label_column)
    if {"annotation", "prediction", "status"} <= columns:
        return expand(source, _argilla_classification, "an Argilla export", label_column)
    if columns & {"external_id", "metadata"} and any(
        _argilla_answers(value) is not None for row in source.first_rows() for value in row.values()
    ):
        return expand(source, _argilla_feedback, "an Argilla export", label_column)
    return source


def expand(
    source: Source, parse: Callable[[Mapping[str, Any]], Record], layout: str, label_column: str
) -> Source:
    """Return a source with a row for each answer to one question of an export.

    Parameters
    ----------
    source : Source
        The records.
    parse : callable
        Reads one of them.
    layout : str
        The format in words.
    label_column : str
        The value of ``--label_column``: of several questions, the name of the one to read.

    Raises
    ------
    UserError
        As `recognise_annotations`.
    """

    def records() -> Iterator[tuple[int, Record]]:
        for number, row in enumerate(source.read(required=[]), 1):
            try:
                yield number, parse(row)
            except (ValueError, AttributeError, TypeError, KeyError) as error:
                raise UserError(
                    f"{source.place(number)}: not as in {layout} ({error}); export again as JSON"
                ) from error

    first = [record for record, _ in zip(records(), range(1000), strict=False)]
    questions = list(dict.fromkeys(name for _, record in first for name in record.answers))
    other = sorted({name for _, record in first for name in record.other})
    wanted = None if label_column == DEFAULT_LABEL_COLUMN else label_column
    if not questions and other:
        raise UserError(
            f"{source.name}: {layout} whose answers are not about whole texts (found: "
            f"{', '.join(other)}); only choices about the whole text are labels"
        )
    if len(questions) > 1 and wanted is None:
        raise UserError(
            f"{source.name}: {layout} with several questions ({', '.join(questions)}); name one "
            "of them with --label_column"
        )
    if wanted is not None and wanted not in questions:
        raise UserError(
            f"{source.name}: {layout} without the question {wanted!r} of --label_column (found: "
            f"{', '.join(questions) or 'none'})"
        )
    question = wanted or (questions[0] if questions else None)
    counts: Counter[str] = Counter()

    def rows() -> Iterator[tuple[int, dict]]:
        counts.clear()
        for number, record in records():
            if wanted is None and (unexpected := record.answers.keys() - {question}):
                raise UserError(
                    f"{source.place(number)}: an answer to another question, "
                    f"{min(unexpected)!r}; name the question with --label_column"
                )
            answers = record.answers.get(question or "", [])
            counts["texts"] += 1
            counts["answers"] += len(answers)
            counts.update({f"_{reason}": n for reason, n in record.skipped.items()})
            counts["rows"] += max(len(answers), 1)
            for labels, annotator in answers or [(None, None)]:
                yield number, {**record.fields, LABELS: labels, ANNOTATOR: annotator}

    def read(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        return (row for _, row in rows())

    def place(row: int) -> str:
        return next(
            source.place(number)
            for position, (number, _) in enumerate(rows(), 1)
            if position == row
        )

    def count_notes() -> list[str]:
        skipped = [f"{n:,} {name[1:]}" for name, n in counts.items() if name.startswith("_") and n]
        text = f"{counts['answers']:,} answers of annotators, {counts['texts']:,} texts"
        notes = [f"{text}; left out: {', '.join(skipped)}" if skipped else text]
        if counts["rows"] > counts["texts"]:
            notes.append("rows are numbered by answer, not by record of the file")
        return notes

    fields = dict.fromkeys(name for _, record in first for name in record.fields)
    of_question = f", question {question!r}" if question else ""
    return Source(
        source.name,
        source.version,
        [*(name for name in fields if name not in (LABELS, ANNOTATOR)), LABELS, ANNOTATOR],
        read,
        f"{layout}{of_question} ({source.layout})",
        notes=source.notes,
        label_column=LABELS,
        annotator_column=ANNOTATOR,
        place_of_row=place,
        count_notes=count_notes,
    )


# --- Label Studio --------------------------------------------------------------------------------


def _label_studio(task: Mapping[str, Any]) -> Record:
    """Read a task: its data, and the choices of its annotations."""
    record = Record(dict(task["data"]))
    annotations = task.get("annotations", task.get("completions")) or []
    # An answer that was set as ground truth decides alone.
    truth = [annotation for annotation in annotations if annotation.get("ground_truth")]
    for annotation in truth or annotations:
        results = annotation.get("result") or []
        chosen: dict[str, list[str]] = {}
        for result in results:
            value = result.get("value") or {}
            if result.get("type") != "choices":
                record.other.add(str(result.get("type")))
            elif {"start", "x", "paragraphs"} & value.keys():  # the place of a part
                record.other.add("choices for parts of a text")
            else:
                chosen.setdefault(result["from_name"], []).extend(value["choices"])
        reviews = annotation.get("reviews") or []
        if annotation.get("was_cancelled"):
            record.skipped["skipped by the annotator"] += 1
        elif reviews and reviews[-1].get("accepted") is False:
            record.skipped["rejected in a review"] += 1
        elif not results:
            record.skipped["without a choice"] += 1
        else:
            user = annotation.get("completed_by")
            if isinstance(user, dict):
                user = user.get("id") or user.get("email")
            for question, labels in chosen.items():
                record.answers.setdefault(question, []).append((labels, user))
    return record


# --- Argilla -------------------------------------------------------------------------------------


def _argilla_columns(row: Mapping[str, Any]) -> Record:
    """Read a flattened record of Argilla 2: columns such as ``label.responses``."""
    record = Record({name: value for name, value in row.items() if "." not in name})
    for name, values in row.items():
        if not name.endswith(".responses") or values is None:
            continue
        if not isinstance(values, list):
            raise ValueError(f"column {name!r} holds no list")
        users = row.get(f"{name}.users") or [None] * len(values)
        states = row.get(f"{name}.status") or ["submitted"] * len(values)
        question = name.removesuffix(".responses")
        for value, user, state in zip(values, users, states, strict=True):
            _add_answer(record, question, value, user, state)
    return record


def _argilla_record(row: Mapping[str, Any]) -> Record:
    """Read a record of Argilla 2, or of Argilla's REST API: its fields and its responses."""
    record = Record(dict(row["fields"]) | (row.get("metadata") or {}))
    responses = row["responses"] or {}
    if isinstance(responses, dict):
        for question, answers in responses.items():
            for answer in answers or []:
                state = answer.get("status", "submitted")
                _add_answer(record, question, answer["value"], answer.get("user_id"), state)
    else:
        for response in responses:
            for question, answer in (response.get("values") or {}).items():
                state = response.get("status", "submitted")
                _add_answer(record, question, answer["value"], response.get("user_id"), state)
    return record


def _argilla_classification(row: Mapping[str, Any]) -> Record:
    """Read a record of Argilla 1 for text classification: one annotation."""
    fields = {name: row[name] for name in row if name not in ("annotation", "inputs", "prediction")}
    record = Record(fields | (row.get("inputs") or {}))
    if row["annotation"] is not None:
        state = row["status"]
        _add_answer(record, "annotation", row["annotation"], row.get("annotation_agent"), state)
    return record


def _argilla_feedback(row: Mapping[str, Any]) -> Record:
    """Read a record of a feedback data set of Argilla 1: answers in the column of a question."""
    record = Record({})
    for name, value in row.items():
        answers = _argilla_answers(value)
        if answers is None:
            record.fields[name] = value
            continue
        for answer in answers:
            state = answer.get("status", "submitted")
            _add_answer(record, name, answer["value"], answer["user_id"], state)
    return record


def _argilla_answers(value: Any) -> list[dict] | None:
    """Return the answers in a cell: a list of objects, or an object of lists; else None."""
    keys = {"user_id", "value"}
    if isinstance(value, dict) and keys <= value.keys():
        if not all(isinstance(column, list) for column in value.values()):
            return None
        columns = value.values()
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    is_list = isinstance(value, list) and len(value) > 0
    if is_list and all(isinstance(item, dict) and keys <= item.keys() for item in value):
        return value
    return None


def _add_answer(record: Record, question: str, value: Any, user: Any, state: Any) -> None:
    if str(state).lower() in _NOT_GIVEN:
        record.skipped[str(state).lower()] += 1
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        record.other.add(f"{question} (spans or ranks)")
    else:
        labels = value if isinstance(value, list) else [value]
        record.answers.setdefault(question, []).append((labels, user))
