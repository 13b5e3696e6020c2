"""Questions about texts, and where the answers stand in them: reading and splitting.

A row has a question, the text that is asked (the context), and answers that stand in it. SQuAD's
own files (articles with paragraphs with questions), rows of the `datasets` library and tables with
a column each are read. A question may have no answer in its context, as in SQuAD 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.data.arguments import DataArguments, SplitColumnArguments, check_split_flags
from shared.data.columns import find_split_column, missing_column
from shared.data.documents import split_groups, split_groups_by_column
from shared.data.labels import is_missing
from shared.data.preparation import cell_as_text
from shared.data.readers import open_source
from shared.data.sources import Source
from shared.data.split_columns import PARTS, SplitMethod, split_values


@dataclass
class QuestionArguments(SplitColumnArguments, DataArguments):
    """Flags of recipes that read questions. `seed` is a flag of `TrainingArguments`."""

    context_column: str = flag("context", "Column of the texts that are asked (default: context).")
    question_column: str = flag("question", "Column of the questions (default: question).")
    answer_column: str = flag(
        "answers",
        "Column of the answers: objects with text and answer_start, as in SQuAD, or the answer "
        "alone, which is searched in the context, or from a column answer_start on; blank: the "
        "context has no answer (default: answers; if it does not exist, answer).",
    )
    valid_data: str | None = flag(None, "File with the validation set (default: a part of --data).")
    test_data: str | None = flag(None, "File with the test set (default: a part of --data).")
    valid_size: float = flag(
        0.1, "Share of the contexts for validation; 0: none (default: .1).", least=0, below=1
    )
    test_size: float = flag(
        0.1, "Share of the contexts for the test; 0: none (default: .1).", least=0, below=1
    )


@dataclass(frozen=True)
class Question:
    """A question about a context.

    Attributes
    ----------
    text, context : str
    answers : tuple of str
        As they stand in the context; empty: the context has no answer.
    starts : tuple of int
        The character of the context with which each answer begins.
    id : str
        The column id of its row, or else the number of the row.
    split_value : int
        Its part or time, with ``--split_by`` or ``--split_time``.
    """

    text: str
    context: str
    answers: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    id: str = ""
    split_value: int = 0

    @property
    def references(self) -> list[str]:
        """The answers, each once, or the empty one: what metrics compare with."""
        return list(dict.fromkeys(self.answers)) or [""]


@dataclass(frozen=True)
class Questions:
    """Questions, divided into parts.

    Attributes
    ----------
    parts : dict of "train", "valid" and "test" to a list of `Question`
    source : what was read, in a line
    notes : what a user should know about the rows
    method : how the questions were divided
    """

    parts: dict[str, list[Question]]
    source: str
    notes: list[str] = field(default_factory=list)
    method: SplitMethod = field(default_factory=SplitMethod)

    def describe(self) -> str:
        """Return the source, the sizes of the parts, and the notes, a line each."""
        sizes = []
        for part, questions in self.parts.items():
            n_contexts = len({question.context for question in questions})
            without = sum(not question.answers for question in questions)
            size = f"{part} {len(questions):,} questions on {n_contexts:,} contexts"
            sizes.append(size + (f" ({without:,} without an answer)" if without else ""))
        lines = [self.source, "; ".join(sizes)]
        if self.method.column:
            counts = {part: len(questions) for part, questions in self.parts.items()}
            lines.append(self.method.describe(counts, "questions"))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


# --- reading -------------------------------------------------------------------------------------


def read_questions(
    args: QuestionArguments, data: str, *, answers_required: bool = True
) -> tuple[list[Question], list[str]]:
    """Read the questions of a file or hub data set, in the order of its rows.

    Parameters
    ----------
    args : QuestionArguments
        How files are read, and the names of the columns.
    data : str
        As for `shared.data.readers.open_source`.
    answers_required : bool, default True
        False: answers are not read, and there need be none.

    Returns
    -------
    questions : list of Question
    notes : list of str
        How many answers were searched, moved or lost, with the first place of each. A question
        whose answers do not stand in its context is left out.

    Raises
    ------
    UserError
        For a missing column, a question or context that is no text or blank, an answer of another
        form, or no question at all.
    """
    source = open_source(
        data,
        column_names=args.column_names,
        delimiter=args.delimiter,
        quoting=args.quoting,
        encoding=args.encoding,
        config=args.data_config,
        split=args.data_split,
    )
    columns = _Columns.of(source, args, answers_required)
    column = find_split_column(source, args) if answers_required and not columns.is_squad else None
    if columns.is_squad and (args.split_by or args.split_time):
        raise UserError(f"{source.name}: SQuAD's format has no column for --split_by, --split_time")
    reader = _Answers()
    questions, cells, numbers = [], [], []
    for place, number, row in _rows(source, columns):
        context, text = (_text(row.get(name), name, place) for name in columns.texts)
        identity = row.get("id")
        question = Question(text, context, id=str(number if is_missing(identity) else identity))
        if answers_required:
            answers = reader.of_row(row, columns.answers, context, place)
            if answers is None:
                continue
            question = replace(
                question, answers=tuple(t for t, _ in answers), starts=tuple(s for _, s in answers)
            )
        questions.append(question)
        if column:
            cells.append(cell_as_text(row.get(column)))
            numbers.append(number)
    notes = [*source.notes, *reader.notes()]
    if not questions:
        raise UserError("; ".join([f"{data}: no question to use", *reader.notes()]))
    if column:
        values, more = split_values(args, cells, numbers, source.name, source.place)
        notes += more
        questions = [
            replace(question, split_value=value)
            for question, value in zip(questions, values.tolist(), strict=True)
        ]
    return questions, notes


@dataclass(frozen=True)
class _Columns:
    """Names of the columns: of context and question, and of the answers."""

    texts: tuple[str, str]
    answers: str
    is_squad: bool

    @classmethod
    def of(cls, source: Source, args: QuestionArguments, answers_required: bool) -> _Columns:
        if "paragraphs" in source.columns:  # SQuAD's own format
            return cls(("context", "question"), "answers", is_squad=True)
        answers = args.answer_column
        if answers == "answers" and answers not in source.columns and "answer" in source.columns:
            answers = "answer"
        needed = [(args.context_column, "--context_column")]
        needed.append((args.question_column, "--question_column"))
        # A data set without any answer names no column of them.
        if answers_required and "is_impossible" not in source.columns:
            needed.append((answers, "--answer_column"))
        for name, option in needed:
            if name not in source.columns:
                raise missing_column(name, source.columns, option, source.name)
        return cls((args.context_column, args.question_column), answers, is_squad=False)


def _rows(source: Source, columns: _Columns) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Yield the place of each question, its number, and its cells."""
    number = 0
    for index, row in enumerate(source.read(required=[]), 1):
        place = source.place(index)
        if not columns.is_squad:
            yield place, index, row
            continue
        for n_paragraph, paragraph in enumerate(_list(row, "paragraphs", place), 1):
            inside = f"{place}, paragraph {n_paragraph}"
            for n_question, cells in enumerate(_list(paragraph, "qas", inside), 1):
                number += 1
                if not isinstance(cells, Mapping):
                    raise UserError(f"{inside}, question {n_question}: must be an object")
                yield (
                    f"{inside}, question {n_question}",
                    number,
                    {"context": paragraph.get("context"), **cells},
                )


def _list(row: Any, name: str, place: str) -> list:
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, list):
        raise UserError(f"{place}: expected SQuAD's format, with a list {name!r}")
    return value


def _text(value: Any, name: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: {name} must be text, and not blank")
    return value


class _Answers:
    """Find answers in contexts, and count what is not as it should be."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def of_row(
        self, row: Mapping[str, Any], column: str, context: str, place: str
    ) -> list[tuple[str, int]] | None:
        """Return texts and starts of the answers of a row; None if none of them is in the context.

        Raises
        ------
        UserError
            If the cell has another form.
        """
        if _is_true(row.get("is_impossible")):
            return []
        stated = _stated(row.get(column), row.get("answer_start"), f"{place}: {column}")
        located = []
        for text, start in stated:
            position = self._locate(context, text, start, place)
            if position is not None:
                located.append((text, position))
        if stated and not located:
            self._note("lost", place)
            return None
        return located

    def _locate(self, context: str, text: str, start: int | None, place: str) -> int | None:
        if start is not None and context[start : start + len(text)] == text and start >= 0:
            return start
        places = [match.start() for match in re.finditer(re.escape(text), context)]
        if not places:
            return None
        if start is not None:
            self._note("moved", place)
            return min(places, key=lambda position: abs(position - start))
        # "4" is no answer inside of "2014".
        whole = [p for p in places if _is_whole(context, p, p + len(text))]
        if len(whole or places) > 1:
            self._note("ambiguous", place)
        return (whole or places)[0]

    def _note(self, name: str, place: str) -> None:
        self._first.setdefault(name, place)
        self._counts[name] = self._counts.get(name, 0) + 1

    def notes(self) -> list[str]:
        """Return a line for each defect that was counted."""
        texts = {
            "lost": "{} left out: no answer of them stands in their context",
            "moved": "{} had an answer that does not stand at answer_start; the nearest place of "
            "the same text is taken",
            "ambiguous": "{} had an answer that stands at several places; the first is taken "
            "(answer_start can name it)",
        }
        return [
            text.format(f"{self._counts[name]:,} questions") + f"; first {self._first[name]}"
            for name, text in texts.items()
            if name in self._counts
        ]


def _is_whole(text: str, start: int, stop: int) -> bool:
    """Return whether no letter or digit stands directly before or after a piece of a text."""
    return not (text[max(start - 1, 0) : start].isalnum() or text[stop : stop + 1].isalnum())


def _is_true(value: Any) -> bool:
    return value is True or str(value).strip().lower() in ("true", "1", "1.0")


def _stated(cell: Any, start: Any, place: str) -> list[tuple[str, int | None]]:
    """Return the answers that a cell states, with their starts if it names them."""
    if isinstance(cell, Mapping):
        if not {"text", "answer_start"} <= cell.keys():
            raise UserError(f"{place}: an object must have 'text' and 'answer_start'")
        texts, starts = cell["text"], cell["answer_start"]
        if isinstance(texts, list) or isinstance(starts, list):
            if not (isinstance(texts, list) and isinstance(starts, list)):
                raise UserError(f"{place}: 'text' and 'answer_start' must both be lists")
            if len(texts) != len(starts):
                raise UserError(f"{place}: {len(texts)} texts, but {len(starts)} starts")
            pairs = list(zip(texts, starts, strict=True))
        else:
            pairs = [(texts, starts)]
        return [
            (_answer(text, place), _start(position, place))
            for text, position in pairs
            if not is_missing(text)
        ]
    if isinstance(cell, list):
        return [pair for item in cell for pair in _stated(item, None, place)]
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        return []
    return [(_answer(cell, place), _start(start, place))]


def _answer(value: Any, place: str) -> str:
    # Tables read a column of numbers as numbers.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(int(value) if float(value).is_integer() else value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: an answer must be text, and not blank, not {value!r:.40}")
    return value.strip()


def _start(value: Any, place: str) -> int | None:
    if is_missing(value) or value == "":
        return None
    try:
        number = float(value)
        if not number.is_integer():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{place}: answer_start must be a whole number, not {value!r:.40}"
        ) from None
    return int(number)


# --- splitting -----------------------------------------------------------------------------------


def split_questions(
    questions: Sequence[Question],
    args: Any,
    *,
    held_out: Mapping[str, Sequence[Question]],
    source: str,
    notes: Sequence[str] = (),
) -> Questions:
    """Divide questions by their contexts, of which near duplicates stay together.

    Parameters
    ----------
    questions : sequence of Question
    args : QuestionArguments
        With a flag `seed`: the same seed gives the same split.
    held_out : mapping of "valid", "test" to sequences of Question
        From files of their own. Questions on a context that repeats one of these are left out of
        the other parts, and validation questions that repeat a context of the test.
    source : str
    notes : sequence of str

    Raises
    ------
    UserError
        If nothing is left to learn from.
    """
    from shared.data.near_duplicates import near_duplicate_groups

    everything = [*questions, *(q for part in held_out.values() for q in part)]
    contexts = list(dict.fromkeys(question.context for question in everything))
    group_of = dict(zip(contexts, near_duplicate_groups(contexts).tolist(), strict=True))

    def groups(rows: Sequence[Question]) -> np.ndarray:
        return np.array([group_of[question.context] for question in rows], int)

    parts: dict[str, list[Question]] = {}
    notes = list(notes)
    taken: set[int] = set()
    for part in ("test", "valid"):
        rows = list(held_out.get(part, []))
        parts[part] = [row for row in rows if group_of[row.context] not in taken]
        taken |= set(groups(rows).tolist())
    free = ~np.isin(groups(questions), list(taken))
    if n_repeated := int((~free).sum()):
        notes.append(f"{n_repeated:,} questions left out: their context is in a held-out file")
    kept = [question for question, is_free in zip(questions, free, strict=True) if is_free]
    if not kept:
        raise UserError(f"--data {args.data}: no question is left to learn from")
    sizes = [
        0 if part in held_out else size
        for part, size in (("valid", args.valid_size), ("test", args.test_size))
    ]
    if sum(sizes) >= 1:
        raise UserError(
            f"--valid_size {args.valid_size}, --test_size {args.test_size}: leave nothing to learn "
            "from; lower them"
        )
    method = SplitMethod("files" if held_out else "random")
    if args.split_by or args.split_time:
        values = np.array([question.split_value for question in kept], np.int64)
        method, drawn, note = split_groups_by_column(
            args, values, groups(kept), drop_repeated=True, unit="questions on contexts"
        )
        notes += [note] * bool(note)
    else:
        drawn = dict(zip(PARTS, split_groups(groups(kept), sizes, seed=args.seed), strict=True))
    for part, indices in drawn.items():
        if part not in held_out:
            parts[part] = [kept[index] for index in indices]
    return Questions({part: parts[part] for part in PARTS}, source, notes, method)


def load_questions(args: Any) -> Questions:
    """Read and split the questions that `args.data`, `valid_data` and `test_data` name.

    Parameters
    ----------
    args : QuestionArguments
        With a flag `seed`.

    Raises
    ------
    UserError
        As `read_questions` and `split_questions`.
    """
    check_split_flags(args)
    questions, notes = read_questions(args, args.data)
    held_out, more = read_held_out(args)
    source = f"{args.data}: {len(questions):,} questions"
    return split_questions(questions, args, held_out=held_out, source=source, notes=[*notes, *more])


def read_held_out(args: Any) -> tuple[dict[str, list[Question]], list[str]]:
    """Return the questions of `args.valid_data` and `test_data` by part, and notes on them."""
    held_out, notes = {}, []
    for part in ("valid", "test"):
        if name := getattr(args, f"{part}_data"):
            held_out[part], more = read_questions(args, name)
            notes += [f"--{part}_data: {note}" for note in more]
    return held_out, notes
