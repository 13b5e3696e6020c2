"""Questions on lines of a template, such as "Python version: 3.10" in a bug report.

The line that a template prints names its answer, so that a pattern finds it without a person. A
model that learns from such lines alone learns the pattern. So a part of the lines is written in
another form ("I am on Python 3.10"), and a part is removed: these texts have no answer any more.
Forms for evaluation are kept apart from those for training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import expand_path
from shared.cli.yaml_files import read_yaml
from shared.data.arguments import check_split_flags
from shared.data.corpus import load_data
from shared.data.questions import Question, Questions, read_held_out, split_questions
from shared.data.unlabelled import without_labels

_VALUE = "{}"  # in a form
# How often a line is left as it is, written in another form, or removed.
_KEPT, _REWRITTEN, _REMOVED = 0.2, 0.5, 0.3


@dataclass(frozen=True)
class TemplateLine:
    """A line of a template and what is asked about it.

    Attributes
    ----------
    name : str
        What stands before the colon, such as "Python version".
    questions : tuple of str
    forms : tuple of str
        Other forms of the line, with {} for the value; training texts have these.
    test_forms : tuple of str
        Forms that only evaluation texts have.
    pattern : str
        A regular expression with one group, the value: what a person would search with.
    """

    name: str
    questions: tuple[str, ...]
    forms: tuple[str, ...]
    test_forms: tuple[str, ...]
    pattern: str

    def search(self, text: str) -> re.Match[str] | None:
        """Return the first line of the template in a text; group 1 is the value."""
        name = re.escape(self.name)
        return re.search(rf"(?mi)^[ \t]*[-*]?[ \t]*`?{name}`?[ \t]*:[ \t]*(\S.*?)[ \t\r]*$", text)

    def search_pattern(self, text: str) -> re.Match[str] | None:
        """Return the first place of the pattern in a text."""
        return re.search(self.pattern, text)


def read_template(path: str) -> list[TemplateLine]:
    """Read the lines of a template from YAML: a mapping of names to settings.

    ::

        Python version:
          questions: [Which Python version?]
          forms: ["Python {}", "python=={}"]
          test_forms: ["I am on Python {}."]
          pattern: (?i)python\\D{0,12}(\\d+(?:\\.\\d+)+)

    Raises
    ------
    UserError
        If the file cannot be read or has another form; the message names the line.
    """
    try:
        content = read_yaml(expand_path(path))
    except UserError as error:
        raise UserError(f"--template {path}: {error}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"--template {path}: expected names of lines, each with its questions")
    return [_line(path, str(name), value) for name, value in content.items()]


def _line(path: str, name: str, value: Any) -> TemplateLine:
    place = f"--template {path}, {name!r}"
    keys = ("questions", "forms", "test_forms", "pattern")
    if not isinstance(value, dict) or set(value) != set(keys):
        raise UserError(f"{place}: expected {', '.join(keys)}")
    lists = {}
    for key in keys[:-1]:
        texts = value[key]
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise UserError(f"{place}: {key} must be a list of texts")
        if key != "questions" and not all(text.count(_VALUE) == 1 for text in texts):
            raise UserError(f"{place}: each text of {key} needs one {_VALUE} for the value")
        lists[key] = tuple(texts)
    try:
        n_groups = re.compile(value["pattern"]).groups
    except (re.error, TypeError) as error:
        raise UserError(f"{place}: pattern is no regular expression ({error})") from None
    if n_groups != 1:
        raise UserError(f"{place}: pattern needs one group, the value, not {n_groups}")
    return TemplateLine(name, **lists, pattern=value["pattern"])


def template_questions(
    texts: Sequence[str],
    template: Sequence[TemplateLine],
    *,
    for_test: bool,
    seed: int,
    numbers: Sequence[int],
    per_text: int = 1,
) -> list[Question]:
    """Ask questions about the texts that have a line of a template.

    Parameters
    ----------
    texts : sequence of str
        Those without any line of the template are passed over.
    template : sequence of TemplateLine
    for_test : bool
        Rewrite lines in the forms for evaluation; else in those for training.
    seed : int
    numbers : sequence of int, shape (texts,)
        The row of each text. With `seed` it decides about the lines of the text, and it is part of
        the ids of the questions.
    per_text : int, default 1
        Questions per text, each about another line, drawn at random.

    Returns
    -------
    list of Question
        The context is the text with the line as it was (a fifth of them), in another form (half) or
        without the line (the rest), which leaves no answer. A text that never had the line is asked
        as well, and has no answer.
    """
    questions = []
    for text, number in zip(texts, numbers, strict=True):
        if not any(line.search(text) for line in template):
            continue
        rng = np.random.default_rng((seed, number, int(for_test)))
        for index in rng.permutation(len(template))[:per_text].tolist():
            line = template[index]
            wording = line.questions[int(rng.integers(len(line.questions)))]
            forms = line.test_forms if for_test else line.forms
            context, answer, start = _rewrite(text, line, forms, rng)
            if not context.strip():
                continue
            questions.append(
                Question(
                    wording,
                    context,
                    answers=() if start is None else (answer,),
                    starts=() if start is None else (start,),
                    id=f"{number}, {line.name}",
                )
            )
    return questions


def _rewrite(
    text: str, line: TemplateLine, forms: Sequence[str], rng: np.random.Generator
) -> tuple[str, str, int | None]:
    """Return the text with another form of a line, the value, and where it stands."""
    match = line.search(text)
    if match is None:
        return text, "", None
    value = match[1]
    action = rng.choice(3, p=(_KEPT, _REWRITTEN, _REMOVED))
    if action == 0:
        return text, value, match.start(1)
    without = text[: match.start()] + text[match.end() :].removeprefix("\n")
    # The same line may be there twice.
    while again := line.search(without):
        without = without[: again.start()] + without[again.end() :].removeprefix("\n")
    if action == 2:
        return without, "", None
    form = forms[int(rng.integers(len(forms)))]
    # At the place of the line, or between any two other lines.
    breaks = [0, *(m.end() for m in re.finditer("\n", without)), len(without)]
    place = match.start() if rng.random() < 0.5 else breaks[int(rng.integers(len(breaks)))]
    place = min(place, len(without))
    before, after = without[:place], without[place:]
    before += "" if not before or before.endswith("\n") else "\n"
    start = len(before) + form.index(_VALUE)
    written = form.replace(_VALUE, value)
    return f"{before}{written}\n{after}".rstrip(), value, start


def load_template_questions(args: Any) -> Questions:
    """Make questions of the texts of `args.data` and of the template `args.template`; split them.

    The lines of test texts are rewritten in forms that neither training nor validation has. With
    `args.test_data` or `valid_data` these parts are questions of their own, and not made.

    Parameters
    ----------
    args : QuestionArguments
        With flags `seed`, `template` and `questions_per_text`.

    Raises
    ------
    UserError
        As `read_template`, `load_data` and `split_questions`; or if no text has a line of it.
    """
    check_split_flags(args)
    template = read_template(args.template)
    own = without_labels(args, args.data, keep_split=True)
    corpus = load_data(own, labels_required=False)
    texts, rows = corpus.dataset["text"][:], corpus.dataset["row"][:]
    used = [i for i, text in enumerate(texts) if any(line.search(text) for line in template)]
    values = np.zeros(len(used), np.int64)
    if args.split_by or args.split_time:
        values = corpus.split_values(args, np.array(used, np.int64))
    texts = [
        Question("", texts[i], id=str(rows[i]), split_value=value)
        for i, value in zip(used, values.tolist(), strict=True)
    ]
    if not texts:
        names = ", ".join(line.name for line in template)
        raise UserError(f"--data {args.data}: no text has a line of the template ({names})")
    held_out, notes = read_held_out(args)
    source = f"{corpus.describe(brief=True)}\n{len(texts):,} texts with lines of {args.template}"
    split = split_questions(texts, args, held_out=held_out, source=source, notes=notes)
    parts = {
        part: rows
        if part in held_out
        else template_questions(
            [row.context for row in rows],
            template,
            for_test=part == "test",
            seed=args.seed,
            numbers=[int(row.id) for row in rows],
            per_text=args.questions_per_text,
        )
        for part, rows in split.parts.items()
    }
    return replace(split, parts=parts)
