"""Exports of Label Studio and Argilla: one row per answer, the answers that count, one question."""

import json

import pytest
from tiny_corpora import names, write

TEXTS = ["first text", "second text", "third text"]


def task(text, *annotations):
    return {"id": 1, "data": {"text": text}, "annotations": list(annotations), "predictions": []}


def annotation(labels, user=1, question="topic", **more):
    value = {"type": "choices", "from_name": question, "value": {"choices": labels}}
    return {"completed_by": user, "result": [value] if labels else [], **more}


def array(tmp_path, content):
    return write(tmp_path / "a.json", json.dumps(content))


def test_label_studio_answers_that_count(load, tmp_path):
    tasks = [
        task("one", annotation(["a", "b"])),
        task("two", annotation(["a"], was_cancelled=True)),
        task("three", annotation(["a"], reviews=[{"accepted": False}]), annotation(["b"])),
        task("four", annotation(["a"]), annotation(["b"], {"email": "x"}), annotation(["a"], 3)),
        task("five", annotation(["a"]), annotation(["b"], 2, ground_truth=True)),
        task("six", annotation([])),
        task("seven"),
        task("eight", annotation(["a"]), annotation(["b"], 2)),
    ]
    corpus = load(array(tmp_path, tasks))
    assert names(corpus) == [["a", "b"], None, ["b"], ["a"], ["b"], None, None, None]
    description = corpus.describe()
    assert (
        "format: a Label Studio export, question 'topic' (a JSON array); texts: text;"
        in description
    )
    for part in ("1 skipped by the annotator", "1 rejected in a review", "1 without a choice"):
        assert part in description
    assert "of 2 texts with several, 0 in full agreement, 1 without a majority" in description


def test_one_of_several_questions(load, mistake, tmp_path):
    both = annotation(["a"])
    both["result"] += annotation(["x"], question="tone")["result"]
    path = array(tmp_path, [task("one", both), task("two", annotation(["b"]))])
    error = mistake(path)
    assert "several questions (topic, tone); name one of them with --label_column" in error
    assert names(load(path, label_column="topic")) == [["a"], ["b"]]
    assert names(load(path, label_column="tone")) == [["x"], None]
    assert "without the question 'sort' of --label_column (found: topic, tone)" in mistake(
        path, label_column="sort"
    )


def test_answers_about_parts_of_a_text_are_no_labels(mistake, tmp_path):
    part = annotation(["a"])
    part["result"][0]["value"] |= {"start": 0, "end": 3}
    box = {"result": [{"type": "rectanglelabels", "value": {}}]}
    error = mistake(array(tmp_path, [task("one", part), task("two", box)]))
    assert "not about whole texts (found: choices for parts of a text, rectanglelabels)" in error
    broken = [task("one", annotation(["a"])), {**task("two"), "data": None}]
    assert "row 2: not as in a Label Studio export" in mistake(array(tmp_path, broken))


def argilla_columns(text, *answers):
    states = ["draft" if labels == "draft" else "submitted" for labels in answers]
    return {
        "text": text,
        "topic.responses": list(answers) or None,
        "topic.responses.users": [f"user {n}" for n, _ in enumerate(answers)] or None,
        "topic.responses.status": states or None,
        "topic.suggestion": "wrong",
    }


def argilla_record(text, *answers):
    values = [
        {"value": a, "user_id": n, "status": "discarded" if a == "draft" else "submitted"}
        for n, a in enumerate(answers)
    ]
    return {"id": 1, "fields": {"text": text}, "responses": {"topic": values}, "metadata": {}}


def argilla_api(text, *answers):
    responses = [
        {"user_id": v["user_id"], "values": {"topic": {"value": v["value"]}}, "status": v["status"]}
        for v in argilla_record(text, *answers)["responses"]["topic"]
    ]
    return {"fields": {"text": text}, "responses": responses}


def argilla_feedback(text, *answers):
    values = argilla_record(text, *answers)["responses"]["topic"]
    return {"text": text, "topic": values, "topic-suggestion": "wrong", "external_id": None}


@pytest.mark.parametrize("record", [argilla_columns, argilla_record, argilla_api, argilla_feedback])
def test_argilla(load, tmp_path, record):
    rows = [
        record("one", "a"),
        record("two", ["a", "b"], ["b"], ["b"]),
        record("three", "draft"),
        record("four"),
        record("five", "a", "b"),
    ]
    corpus = load(array(tmp_path, rows))
    assert names(corpus) == [["a"], ["b"], None, None, None]
    assert "format: an Argilla export, question 'topic'" in corpus.describe()
    state = "draft" if record is argilla_columns else "discarded"
    assert f"6 answers of annotators, 5 texts; left out: 1 {state}" in corpus.describe()


def test_argilla_1(load):
    def row(text, annotation, status="Validated"):
        prediction = [{"label": "wrong", "score": 1.0}]
        return {
            "text": text,
            "annotation": annotation,
            "prediction": prediction,
            "status": status,
        }

    rows = [row("one", "a"), row("two", ["a", "b"]), row("three", "b", "Discarded")]
    assert names(load([*rows, row("four", None, "Default")])) == [["a"], ["a", "b"], None, None]


def test_prodigy_with_several_annotators(load):
    votes = [("a", "x", "accept"), ("b", "x", "reject"), ("a", "y", "accept"), ("b", "y", "accept")]
    votes += [("a", "z", "accept"), ("b", "z", "reject")]
    rows = [
        {"text": "one", "label": label, "answer": answer, "_annotator_id": who, "_task_hash": 1}
        for label, who, answer in votes
    ]
    rows.append({"text": "two", "label": "b", "answer": "accept", "_annotator_id": "x"})
    # Of three annotators, two accepted a, and one accepted b.
    corpus = load(rows)
    assert names(corpus) == [["a"], ["b"]]
    assert "format: a Prodigy export" in corpus.describe()
