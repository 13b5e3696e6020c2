"""Versions in bug reports that do not follow the template: a model beside patterns.

    PYTHONPATH=. python tests/benchmarks/bench_issue_answers.py --model outputs/span_qa_issues

The reports are 59 of huggingface/datasets, drawn at random from those that have no line of
recipes/configs/data/issue_template.yaml but a number of a version somewhere. ``issue_versions.csv``
has the versions of Python and of datasets in them, as their text gives them, read one by one;
empty: the report does not say it. A version that stands only in a path, an address or a requirement
is none. Reports in which it is not clear are left out. Prints exact match and F1.
"""

import argparse
import csv
import gzip
import json
from pathlib import Path

from shared.cli.files import expand_path
from shared.data.questions import Question
from shared.data.template_questions import read_template
from shared.evaluation.answers import answer_figures
from shared.methods import baseline_answers, load_answerer
from shared.reports import answer_table

ANSWERS = Path(__file__).with_name("issue_versions.csv")
TEMPLATE = "recipes/configs/data/issue_template.yaml"
QUESTIONS = {"python": "Which Python version?", "datasets": "Which datasets version?"}
ISSUES = "$RECIPES_DATA/hf-datasets-issues/issues.jsonl.gz"


def read_rows(issues):
    """Return two questions on each report."""
    with gzip.open(expand_path(issues), "rt", encoding="utf-8") as file:
        texts = {row["number"]: f"{row['title']}\n\n{row['body']}" for row in map(json.loads, file)}
    with ANSWERS.open(encoding="utf-8", newline="") as file:
        return [
            Question(
                question,
                text := texts[int(row["number"])],
                answers=(row[name],) if row[name] else (),
                starts=(text.index(row[name]),) if row[name] else (),
                id=f"{row['number']}, {name}",
            )
            for row in csv.DictReader(file)
            for name, question in QUESTIONS.items()
        ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="Folder of a model of recipes/span_qa.py (default: none).")
    parser.add_argument("--issues", default=ISSUES, help=f"The reports (default: {ISSUES}).")
    parser.add_argument("--errors", action="store_true", help="Print the wrong answers.")
    args = parser.parse_args()
    rows, template = read_rows(args.issues), read_template(TEMPLATE)
    answers = {}
    if args.model:
        records = load_answerer(args.model)(
            [row.text for row in rows], [row.context for row in rows]
        )
        answers[args.model] = [record["answer"] for record in records]
    answers |= baseline_answers([], rows, template)
    references = [row.references for row in rows]
    figures = {
        name: answer_figures(texts, references, confidence=0.95) for name, texts in answers.items()
    }
    print(answer_table(figures))
    if args.errors:
        for name, texts in answers.items():
            for row, text in zip(rows, texts, strict=True):
                if text not in row.references:
                    print(f"{name}: {row.id}: {text!r}, right: {row.references[0]!r}")


if __name__ == "__main__":
    main()
