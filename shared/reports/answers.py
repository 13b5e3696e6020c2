"""What a recipe says of answers to questions: a table of figures, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared.reports.excerpts import headline

if TYPE_CHECKING:
    from shared.data.questions import Question


def answer_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of `shared.evaluation.answer_figures`, a row for each system.

    All systems are measured on the same questions. Values are shown in percent, as papers do.
    """
    first = next(iter(figures.values()))
    columns = {"exact match": "exact_match", "F1": "f1"}
    if "no_answer_f1" in first:
        columns |= {"F1 has answer": "has_answer_f1", "no answer": "no_answer_f1"}
    width = max(map(len, figures)) + 2
    lines = [" " * width + "".join(f"{name:>15}" for name in columns)]
    for name, row in figures.items():
        cells = "".join(f"{100 * row[key]:>15.1f}" for key in columns.values())
        lines.append(f"{name:<{width}}{cells}")
    counts = f"{first['questions']:,} questions"
    if "no_answer_f1" in first:
        counts += f", {first['no_answer_questions']:,} of them without an answer"
    bounds = next((row for row in figures.values() if "f1_low" in row), None)
    if bounds:
        low, high = 100 * bounds["f1_low"], 100 * bounds["f1_high"]
        counts += f"; 95 % interval of the first F1 {low:.1f} to {high:.1f}"
    return "\n".join([*lines, counts])


def answer_samples(
    questions: Sequence[Question],
    records: Sequence[Mapping[str, Any]],
    *,
    most: int = 10,
    with_right: bool = True,
) -> str:
    """Return questions with their answers, two lines each.

    Parameters
    ----------
    questions : sequence of Question
    records : sequence of mappings
        From `shared.methods.answer_record`, in the same order.
    most : int, default 10
        How many to show, evenly spaced.
    with_right : bool, default True
        Also show the right answers.
    """
    n_shown = min(most, len(questions))
    chosen = [number * len(questions) // n_shown for number in range(n_shown)]
    lines = []
    for number in chosen:
        record = records[number]
        lines.append(headline(questions[number].text))
        line = f"    {headline(record['answer']) or 'no answer'} ({record['score']:.2f})"
        if with_right:
            right = map(headline, questions[number].references)
            line += f"; right: {' | '.join(right) or 'no answer'}"
        lines.append(line)
    return "\n".join(lines)
