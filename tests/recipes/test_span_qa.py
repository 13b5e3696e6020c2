"""The recipe of extractive question answering, from the command line."""

import numpy as np
import pytest
from command_line import Recipe, change_json, read_json, read_lines, write
from conftest import FILLER
from forks import run_script
from safetensors.numpy import load_file

from shared.methods import load_answerer

SETTINGS = ("null_threshold", "stride", "max_answer_length")


@pytest.fixture
def data(tmp_path):
    """Path of 60 questions: the number in a text, which a fifth of the texts lack."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        words = list(rng.choice(FILLER.split(), size=int(rng.integers(10, 30))))
        answer = str(rng.integers(10))
        if number % 5:
            words.insert(int(rng.integers(len(words))), answer)
        context = " ".join(words)
        answers = [{"text": answer, "answer_start": context.index(answer)}] if number % 5 else []
        rows.append({"id": number, "context": context, "question": "call", "answers": answers})
    return write(tmp_path / "questions.jsonl", rows)


@pytest.fixture
def flags(data, tiny_model, tmp_path):
    return [
        *("--data", data, "--model", tiny_model, "--use_cpu", "--bf16", "false"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
        *("--max_length", 32, "--stride", 7, "--valid_size", 0.2, "--test_size", 0.2),
        *("--per_device_train_batch_size", 8, "--learning_rate", 5e-3, "--num_train_epochs", 8),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("span_qa", monkeypatch, capfd, *flags)


def test_it_learns_to_answer_and_the_model_answers_new_questions(recipe, tmp_path, tiny_model):
    printed = recipe("--eval_strategy", "steps", "--eval_steps", 20, "--save_steps", 20)
    assert "exact match" in printed
    out = tmp_path / "out"
    metrics = read_json(out / "metrics.json")
    assert metrics["test_f1"] > max(metrics["patterns_f1"], 0.6)
    assert metrics["test_f1_low"] <= metrics["test_f1"] <= metrics["test_f1_high"]
    assert {"test_has_answer_f1", "test_no_answer_f1"} <= metrics.keys()
    rows = {str(row["id"]): row for row in read_lines(tmp_path / "questions.jsonl")}
    answers = read_lines(out / "test_answers.jsonl")
    assert len(answers) == metrics["test_questions"]
    for answer in answers:
        context = rows[answer["id"]]["context"]
        for span in answer["best"]:
            assert context[span["start"] :].startswith(span["text"])
        assert 0 <= answer["score"] <= 1
    right = [answer["answer"] in answer.get("right", [""]) for answer in answers]
    assert np.mean(right) == pytest.approx(metrics["test_exact_match"])
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "question-answering" in card
    assert answers[0]["question"] in card
    assert not list(out.glob("checkpoint-*"))

    # The saved model gives the same answers: to a file, and in three lines.
    ids = [row["id"] for row in answers]
    asked = [{k: rows[i][k] for k in ("id", "context", "question")} for i in ids]
    new = write(tmp_path / "new.jsonl", asked)
    predict = ("--model", out, "--predict", new, "--output_dir", tmp_path / "answers")
    assert "The answers are in" in recipe(*predict)
    again = read_lines(tmp_path / "answers" / "answers.jsonl")
    for one, other in zip(answers, again, strict=True):
        assert one["answer"] == other["answer"]
        assert one["start"] == other["start"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)
    answerer = load_answerer(str(out))
    third = answerer(["call"] * len(ids), [row["context"] for row in asked], batch_size=3)
    assert [row["answer"] for row in third] == [row["answer"] for row in again]
    assert answerer([], []) == []

    assert "--resume_from_checkpoint: --predict trains nothing" in recipe.mistake(
        *predict, "--resume_from_checkpoint", "true"
    )
    line = recipe.mistake(*predict, "--model", tiny_model)
    assert "has no heads for answers; train them" in line
    change_json(out / "config.json", question_answering={"stride": 3})
    assert "has no settings of a model that recipes/span_qa.py" in recipe.mistake(*predict)


def test_a_resumed_run_is_bitwise_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    flags = ["--dropout", 0.2, "--max_steps", 8, "--save_strategy", "steps", "--save_steps", 4]
    flags += ["--eval_strategy", "steps", "--eval_steps", 4, "--save_total_limit", 9]
    monkeypatch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
    recipe(*flags)
    expected = load_file(tmp_path / "out" / "model.safetensors")
    answers = read_lines(tmp_path / "out" / "test_answers.jsonl")
    resumed = ("--resume_from_checkpoint", tmp_path / "out" / "checkpoint-4")
    again = tmp_path / "again"
    recipe(*flags, *resumed, "--output_dir", again)
    actual = load_file(again / "model.safetensors")
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    assert read_lines(again / "test_answers.jsonl") == answers


def test_two_processes_do_the_work_of_one(recipe, flags, tmp_path):
    """Also where they evaluate windows of different lengths."""
    same = ("--max_steps", 3, "--optim", "sgd", "--eval_strategy", "steps", "--eval_steps", 3)
    same = (*same, "--save_strategy", "steps", "--save_steps", 3)
    recipe(*same)
    process = run_script(
        *("recipes/span_qa.py", *flags, *same),
        *("--per_device_train_batch_size", 4, "--output_dir", tmp_path / "two"),
        processes=2,
    )
    assert process.stdout.count("Everything is in") == 1
    one, two = (read_json(tmp_path / run / "metrics.json") for run in ("out", "two"))
    for name in ("train_loss", "test_f1", "null_threshold"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--health_check")
    assert "initial loss" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_questions_are_made_of_a_template(recipe, tmp_path):
    texts = [{"title": f"Case {i * 37}", "body": f"It fails.\n- Speed: {i}\n"} for i in range(30)]
    template = (
        "Speed:\n  questions: [cores]\n  forms: ['speed {}']\n"
        "  test_forms: ['{} of speed']\n  pattern: 'speed (.*)'\n"
    )
    printed = recipe(
        *("--data", write(tmp_path / "issues.jsonl", texts), "--max_steps", 1),
        *("--template", write(tmp_path / "template.yaml", template), "--valid_size", 0),
    )
    assert "template line" in printed
    metrics = read_json(tmp_path / "out" / "metrics.json")
    # A pattern of the line finds no other form of it.
    assert metrics["template_line_f1"] < 1
    assert metrics["null_threshold"] == 0


def test_mistakes(recipe, tmp_path):
    assert "the file is empty" in recipe.mistake("--data", write(tmp_path / "empty.jsonl", ""))
    line = recipe.mistake("--answer_column", "reply")
    assert "questions.jsonl: no column 'reply'" in line
    none = [{"context": f"{w} x", "question": "y", "answers": []} for w in FILLER.split()[:30]]
    line = recipe.mistake("--data", write(tmp_path / "none.jsonl", none))
    assert "the training questions have no answer to learn from" in line
    assert "--stride 31: must be 0 to 7" in recipe.mistake("--stride", 31)
    assert "leave nothing to learn" in recipe.mistake("--valid_size", 0.9)
    assert "--model x/y/z: no such folder" in recipe.mistake("--model", "x/y/z")
