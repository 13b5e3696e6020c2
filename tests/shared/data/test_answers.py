"""The answers of several annotators, from every form in which they come."""

import csv
import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_corpora import names

from shared.cli.errors import UserError
from shared.data.answers import load_answers
from shared.data.arguments import AnnotatorArguments, DataArguments
from shared.evaluation.merging import merge_by_majority

TEXTS = ["the model crashes", "a page is missing", "please add a flag", "it says nothing"]
# Who gave which labels to which text.
SAID = {
    ("anna", 0): ["bug"],
    ("ben", 0): ["bug"],
    ("anna", 1): ["docs"],
    ("ben", 1): ["bug"],
    ("carla", 1): ["docs"],
    ("carla", 2): ["feature"],
}


@dataclass
class Arguments(AnnotatorArguments, DataArguments):
    """As those of a recipe."""


@pytest.fixture
def load(tmp_path):
    """`load(rows or path, **flags)` with a cache of its own."""

    def load(source, **flags):
        if isinstance(source, list):
            path = tmp_path / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in source))
            source = path
        return load_answers(Arguments(data=str(source), cache_dir=str(tmp_path / "cache"), **flags))

    return load


@pytest.fixture
def mistake(load):
    def mistake(*args, **flags):
        with pytest.raises(UserError) as error:
            load(*args, **flags)
        assert "\n" not in str(error.value)
        return str(error.value)

    return mistake


def said(answers):
    """Return the answers as `SAID`, with the texts in place of their numbers."""
    texts = answers.corpus.dataset.select(answers.rows)["text"]
    return {
        (answers.annotator_names[j], texts[i]): [
            answers.label_names[k] for k in np.flatnonzero(labels)
        ]
        for i, j, labels in zip(answers.texts, answers.annotators, answers.labels, strict=True)
    }


EXPECTED = {(who, TEXTS[i]): labels for (who, i), labels in SAID.items()}


def long_rows():
    return [
        {"text": TEXTS[i], "labels": labels, "annotator": who} for (who, i), labels in SAID.items()
    ]


def table(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_a_row_for_each_answer(load):
    answers = load([*long_rows(), {"text": TEXTS[3], "labels": None, "annotator": "anna"}])
    assert said(answers) == EXPECTED
    assert answers.single_label
    assert answers.n_answers.tolist() == [2, 3, 1, 0]
    assert "6 answers (one label each) of 3 annotators to 3 texts; 2 texts with several; 1 " in (
        answers.describe()
    )
    named = [{"who": r.pop("annotator"), **r} for r in long_rows()]
    assert said(load(named, annotator_column="who")) == EXPECTED


def test_white_space_and_unicode_forms_make_no_other_text(load):
    rows = [
        {"text": "a cafe\u0301", "labels": "a", "annotator": 1},
        {"text": "a  caf\u00e9 ", "labels": "b", "annotator": 2},
    ]
    assert load(rows).n_answers.tolist() == [2]


def test_a_file_for_each_annotator(load, tmp_path):
    for name in ("anna", "ben", "carla"):
        rows = [[TEXTS[i], *labels] for (who, i), labels in SAID.items() if who == name]
        table(tmp_path / f"{name}.csv", ["text", "label"], rows)
    answers = load(tmp_path / "*.csv")
    assert said(answers) == EXPECTED
    assert "each file is that of an annotator" in answers.describe()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    files = [tmp_path / folder / "labels.csv" for folder in ("one", "two")]
    for file, name in zip(files, ("anna", "ben"), strict=True):
        file.write_bytes((tmp_path / f"{name}.csv").read_bytes())
    answers = load(",".join(map(str, files)))
    assert answers.annotator_names == ["one/labels", "two/labels"]
    # A second run reads the cache.
    assert load(",".join(map(str, files))).annotator_names == ["one/labels", "two/labels"]
    # A column says more than the file.
    rows = long_rows()
    for number in (0, 1):
        lines = "".join(json.dumps(row) + "\n" for row in rows[number::2])
        (tmp_path / f"part{number}.jsonl").write_text(lines)
    assert said(load(tmp_path / "part*.jsonl")) == EXPECTED


def test_the_place_of_a_mistake_in_one_of_several_files(mistake, tmp_path):
    for name, label in (("anna", "bug"), ("ben", 1.5)):
        rows = [{"text": TEXTS[0], "labels": "bug"}, {"text": TEXTS[1], "labels": label}]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert f"{tmp_path / 'ben.jsonl'}, row 2: the label is 1.5" in mistake(tmp_path / "*.jsonl")


def test_a_column_for_each_annotator(load, mistake, tmp_path):
    people = ["anna", "ben", "carla"]
    cells = [
        [text, *(SAID.get((who, i), [""])[0] for who in people)] for i, text in enumerate(TEXTS)
    ]
    path = table(tmp_path / "sheet.csv", ["text", *people], cells)
    answers = load(path, annotator_columns=people)
    assert said(answers) == EXPECTED
    assert answers.n_answers.tolist() == [2, 3, 1, 0]
    assert "a column per annotator (anna, ben, carla)" in answers.describe()
    line = mistake(path, annotator_columns=["anna", "bem"])
    assert "no column 'bem'" in line
    assert "did you mean 'ben'?" in line
    for flags in ({"annotator_column": "anna"}, {"label_column": "anna"}, {"label_columns": ["a"]}):
        line = mistake(path, annotator_columns=people, **flags)
        assert line == f"--annotator_columns and --{next(iter(flags))}: give one of them"


def test_an_export_of_label_studio(load, tmp_path):
    tasks = [{"data": {"text": text}, "annotations": []} for text in TEXTS]
    for (who, i), labels in SAID.items():
        result = {"type": "choices", "from_name": "topic", "value": {"choices": labels}}
        answer = {"completed_by": {"email": who}, "result": [result]}
        tasks[i]["annotations"].append(answer)
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert said(load(tmp_path / "export.json")) == EXPECTED


def test_accepted_and_rejected_labels_of_prodigy(load):
    def row(text, label, answer, who):
        session = {"_task_hash": 1, "_session_id": f"set-{who}", "_annotator_id": who}
        return {"text": TEXTS[text], "label": label, "answer": answer, **session}

    answers = load(
        [
            *(row(0, "bug", "accept", "anna"), row(0, "docs", "reject", "anna")),
            *(row(0, "bug", "accept", "ben"), row(0, "docs", "accept", "ben")),
            *(row(1, "bug", "reject", "anna"), row(1, "bug", "ignore", "ben")),
        ]
    )
    assert said(answers) == {
        ("anna", TEXTS[0]): ["bug"],
        ("ben", TEXTS[0]): ["bug", "docs"],
        ("anna", TEXTS[1]): [],
    }


def test_an_answer_without_a_label(load):
    one_label = [
        {"text": TEXTS[0], "labels": labels, "annotator": i}
        for i, labels in enumerate((["bug"], ["bug"], []))
    ]
    answers = load(one_label)
    assert answers.n_answers.tolist() == [3]
    assert "1 answers without a label: none of the labels applies" in answers.describe()
    assert load(one_label, empty_labels="unlabelled").n_answers.tolist() == [2]
    # Where each answer is one of several labels, it was skipped.
    rows = [*long_rows(), {"text": TEXTS[0], "labels": [], "annotator": "carla"}]
    answers = load(rows)
    assert said(answers) == EXPECTED
    assert "1 answers without a label: no answer (--empty_labels negative" in answers.describe()
    assert said(load(rows, empty_labels="negative"))["carla", TEXTS[0]] == []
    several = [*rows, {"text": TEXTS[2], "labels": ["bug", "docs"], "annotator": "ben"}]
    assert said(load(several))["carla", TEXTS[0]] == []


def test_a_second_answer_of_an_annotator_replaces_the_first(load):
    rows = [*long_rows(), {"text": TEXTS[1], "labels": "docs", "annotator": "ben"}]
    rows = [*rows, {"text": TEXTS[1], "labels": "docs", "annotator": "anna"}]
    rows = [{**row, "labels": "".join(row["labels"])} for row in rows]
    answers = load(rows)
    assert said(answers) == {**EXPECTED, ("ben", TEXTS[1]): ["docs"]}
    assert "changed the label of 1 texts: the last row counts" in answers.describe()


def test_a_row_for_each_text_annotator_and_label(load):
    labels = {("a", 0): ["bug", "docs"], ("b", 0): ["bug"], ("a", 1): ["docs", "feature"]}
    rows = [
        {"text": TEXTS[i], "label": label, "annotator": who}
        for (who, i), several in labels.items()
        for label in several
    ]
    answers = load(rows)
    assert said(answers) == {(who, TEXTS[i]): several for (who, i), several in labels.items()}
    assert "the labels of all of them are one answer" in answers.describe()


def test_rows_that_name_nobody(load, mistake):
    rows = [*long_rows(), {"text": TEXTS[3], "labels": ["bug"], "annotator": None}]
    answers = load(rows)
    assert said(answers) == EXPECTED
    assert "left out: 1 labelled rows that name no annotator" in answers.describe()
    line = mistake([{"text": row["text"], "labels": row["labels"]} for row in long_rows()])
    assert "nothing says who gave the labels; name the column with --annotator_column" in line
    assert "no column 'who'" in mistake(long_rows(), annotator_column="who")


def test_nothing_to_compare(load, mistake):
    line = mistake([row for row in long_rows() if row["annotator"] == "anna"])
    assert "no text has answers of two annotators (answers: anna 2); nothing to compare" in line
    line = mistake(long_rows(), duplicate_labels="majority")
    assert line == "--duplicate_labels majority: annotators are kept apart here; remove it"


answer_lists = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["bug", "docs", "feature"])),
    min_size=2,
    max_size=16,
    unique_by=lambda answer: answer[:2],
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer_lists)
def test_the_majority_is_that_of_the_other_recipes(load, tmp_path, answers):
    from shared.data.corpus import load_data

    rows = [{"text": TEXTS[i], "labels": [label], "annotator": who} for i, who, label in answers]
    if len({i for i, _, _ in answers}) in (1, len(answers)):
        return  # one text, or nothing to compare
    votes = [[label for i, _, label in answers if i == text] for text in range(4)]
    if not any(2 * max(map(of_text.count, of_text), default=0) > len(of_text) for of_text in votes):
        return  # no text has a majority, so that no label is left
    loaded = load(rows)
    merged = merge_by_majority(
        loaded.texts, loaded.labels, n_texts=len(loaded.rows), single_label=True
    )
    flags = {"cache_dir": str(tmp_path / "cache"), "duplicate_labels": "majority"}
    corpus = load_data(DataArguments(data=str(tmp_path / "rows.jsonl"), **flags))
    assert corpus.dataset["row"][:] == loaded.corpus.dataset.select(loaded.rows)["row"][:]
    expected = [set(labels or ()) for labels in names(corpus)]
    actual = [{loaded.label_names[k] for k in np.flatnonzero(row)} for row in merged.labels]
    assert actual == expected
