"""What a recipe says of answers to questions: figures, samples, files and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.files import atomic_write, write_json
from shared.data.writers import write_json_lines
from shared.plots.training import plot_training_curve
from shared.reports.cards import write_model_card
from shared.reports.excerpts import headline

if TYPE_CHECKING:
    from shared.data.questions import Question, Questions

_USAGE = """In the folder of the project, or of a copy of the recipe (`./run.sh copy`):

```python
from shared.methods import load_answerer

answerer = load_answerer("{folder}")
answerer(["Which Python version?"], ["It fails on Python 3.10 only."])
```

For the questions of a file:

```bash
accelerate launch recipes/span_qa.py --model {folder} --predict FILE --output_dir answers
```"""


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


def write_answers(
    path: Path, questions: Sequence[Question], records: Sequence[Mapping[str, Any]]
) -> None:
    """Write a line of JSON for each question: its id, its text, the right answers, the record."""
    with atomic_write(path) as file:
        write_json_lines(
            file,
            (
                {"id": question.id, "question": question.text}
                | ({"right": question.references} if question.references != [""] else {})
                | {**record}
                for question, record in zip(questions, records, strict=True)
            ),
        )


def write_answer_results(
    output_dir: Path,
    questions: Questions,
    records: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, Any],
    *,
    model: str,
    max_answer_length: int,
    log_history: Sequence[Mapping[str, Any]],
) -> str:
    """Write answers, metrics, the training curve and the model card; return the text to print.

    Parameters
    ----------
    output_dir : Path
        Receives ``test_answers.jsonl``, ``metrics.json``, ``plots`` and ``README.md``.
    questions : Questions
    records : sequence of mappings
        From `shared.methods.answer_record`, of the test questions; empty if there are none.
    figures : mapping of system to the figures of `shared.evaluation.answer_figures`
        Of the trained model and of baselines; empty without test questions.
    metrics : mapping
        Those of the training, with ``null_threshold`` (see `shared.methods.Answer.text`).
    model : str
        The encoder that was trained, and the name of the trained model among the systems.
    max_answer_length : int
        Tokens.
    log_history : sequence of mappings
        ``trainer.state.log_history``.
    """
    report, test = "no test questions", questions.parts["test"]
    if test:
        write_answers(output_dir / "test_answers.jsonl", test, records)
        report = f"{answer_table(figures)}\n\nSamples\n{answer_samples(test, records)}"
    (output_dir / "plots").mkdir(exist_ok=True)
    plot_training_curve(log_history, output_dir / "plots" / "training_curve.png", metric="eval_f1")
    test_metrics = {f"test_{name}": value for name, value in figures.get(model, {}).items()}
    others = {
        f"{name.replace(' ', '_')}_{key}": row[key]
        for name, row in figures.items()
        if name != model
        for key in ("exact_match", "f1")
    }
    metrics = test_metrics | others | {**metrics} | questions.method.metrics()
    write_json(output_dir / "metrics.json", metrics)
    threshold, rule = metrics["null_threshold"], "It always answers."
    if threshold is not None:
        rule = (
            f'It says "no answer" where the score of that is more than {threshold:.2f} above that '
            "of the best span."
        )
    write_model_card(
        output_dir,
        title="Answers to questions on texts",
        base_model=model,
        task="question-answering",
        description=f"Marks the piece of a text that answers a question. {rule}",
        data=questions.describe(),
        metrics={},
        report=report,
        usage=_USAGE.format(folder=output_dir),
        limits=f"Answers are pieces of the text of at most {max_answer_length} tokens, true or "
        "not. The figures are those of questions from the same source.",
    )
    return report
