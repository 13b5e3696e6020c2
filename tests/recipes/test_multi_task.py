import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write
from forks import run_script
from safetensors.numpy import load_file

from shared.taggers import load_multi_task, load_tagger


@pytest.fixture(scope="module")
def rows(tiny_issues):
    """The tiny issues with a label each, several, a number, and two further columns."""
    rows = []
    for i, row in enumerate(read_lines(tiny_issues)):
        labels = row["labels"]
        n_words = len(row["body"].split())
        row |= {"first": labels[0] if labels and i % 6 else None, "size": n_words + 0.5}
        row |= {"votes": i % 9 if i % 4 else None, "author": f"person {i % 3}"}
        rows.append(row)
    return rows


@pytest.fixture
def data(rows, tmp_path):
    return write(tmp_path / "rows.jsonl", rows)


@pytest.fixture
def recipe(monkeypatch, capfd, tiny_model, data, tmp_path):
    return Recipe(
        "multi_task",
        monkeypatch,
        capfd,
        *("--model", tiny_model, "--data", data, "--use_cpu", "--bf16", "false"),
        *("--max_length", 32, "--num_train_epochs", 1, "--per_device_train_batch_size", 24),
        *("--learning_rate", 2e-3, "--cache_dir", tmp_path / "cache"),
        *("--output_dir", tmp_path / "out"),
    )


TASKS = ("--tasks", "labels", "first", "size")


def test_all_tasks_together_and_alone_in_one_table(recipe, rows, tmp_path):
    printed = recipe(*TASKS)
    out = tmp_path / "out"
    table = [
        line for line in printed.splitlines() if line.startswith(("joint  ", "alone", "words"))
    ]
    assert len(table) == 3
    metrics, lines = read_json(out / "metrics.json"), read_lines(out / "predictions.jsonl")
    right = []
    for line in lines:
        row = rows[line["row"] - 1]
        assert line["size"]["true_value"] == pytest.approx(row["size"], rel=1e-5)
        assert ("true_labels" in line["first"]) == (row["first"] is not None)
        if row["first"]:
            assert line["first"]["true_labels"] == [row["first"]]
            right.append(line["first"]["labels"] == [row["first"]])
        if row["labels"]:
            assert line["labels"]["true_labels"] == sorted(row["labels"])
    assert np.mean(right) == pytest.approx(metrics["test_first_accuracy"])
    errors = [abs(line["size"]["value"] - line["size"]["true_value"]) for line in lines]
    assert np.mean(errors) == pytest.approx(metrics["test_size_mae"], rel=1e-4)
    assert metrics["words_mean_score"] > 0.4  # the words tell the labels
    assert {path.name for path in (out / "plots").iterdir()} == {
        *("tasks.png", "training_curve.png", "numbers_3.png")
    }
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "load_multi_task" in card
    assert str(out / "taggers" / "1_labels") in card

    # The model predicts rows of Python and of a file, and each classification has a tagger.
    test = [{"title": "", **rows[line["row"] - 1]} for line in lines]
    predict = load_multi_task(out)
    records = predict([*test, {"title": "", "body": ""}])
    assert records.pop() is None
    for record, line in zip(records, lines, strict=True):
        assert record["first"]["labels"] == line["first"]["labels"]
        assert record["size"]["value"] == pytest.approx(line["size"]["value"], abs=1e-3)
    texts = [line["text"] for line in lines]
    for number, task in enumerate(("labels", "first"), 1):
        tagger = load_tagger(out / "taggers" / f"{number}_{task}")
        scores = tagger.raw_scores(texts)
        expected = [[line[task]["scores"][name] for name in tagger.label_names] for line in lines]
        np.testing.assert_allclose(scores, expected, atol=2e-5)
        for result, line in zip(tagger(texts), lines, strict=True):
            # Their order is that of the calibrated scores.
            assert sorted(result["labels"]) == sorted(line[task]["labels"])

    # A second command repeats no training.
    recipe.monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "train", None)
    assert table == [
        line
        for line in recipe(*TASKS).splitlines()
        if line.startswith(("joint  ", "alone", "words"))
    ]
    error = recipe.mistake(*TASKS, "--learning_rate", 1e-3)
    assert "was trained with other flags" in error


def test_further_columns_weights_and_seeds(recipe, rows, tmp_path, tiny_model):
    printed = recipe(
        *("--tasks", "first", "size", "--number_columns", "votes", "--category_columns", "author"),
        *("--sweep", 0.2, "--num_seeds", 2, "--compare_single", "false", "--head_sizes", 16),
    )
    out = tmp_path / "out"
    assert "weight 0.2" in printed
    assert "±" in printed
    assert (out / "plots" / "trade_off.png").is_file()
    assert not (out / "taggers").exists()  # a tagger reads texts only
    lines = (out / "results.csv").read_text(encoding="utf-8").splitlines()
    assert {tuple(line.split(",")[:2]) for line in lines[1:]} == {
        (model, seed) for model in ("joint", "weight 0.2", "words") for seed in ("42", "43")
    }
    new = write(tmp_path / "new.jsonl", [row | {"author": "new"} for row in rows[:5]])
    flags = ("--model", out, "--predict", new, "--output_dir", tmp_path / "predicted")
    recipe(*flags)
    predicted = read_lines(tmp_path / "predicted" / "predictions.jsonl")
    expected = load_multi_task(out)([row | {"author": "new"} for row in rows[:5]])
    for line, record in zip(predicted, expected, strict=True):
        assert line["first"]["labels"] == record["first"]["labels"]
        assert line["size"]["value"] == pytest.approx(record["size"]["value"], abs=1e-4)
    blank = {"title": "", "body": " "}
    write(new, [rows[0], rows[1] | blank, rows[2]])
    printed = recipe(*flags)
    assert "left out 1 without text (row 2)" in printed
    assert "2 rows are predicted" in printed
    predicted = tmp_path / "predicted" / "predictions.jsonl"
    assert [line["row"] for line in read_lines(predicted)] == [1, 3]
    predicted.unlink()
    write(new, [rows[0] | blank])
    assert "new.jsonl: no row has a text in title, body" in recipe.mistake(*flags)
    assert not predicted.exists()
    write(new, [{"title": "a", "body": "b", "votes": 1}])
    assert "no column 'author'" in recipe.mistake(*flags)
    assert "no model of several tasks" in recipe.mistake(*flags, "--model", tiny_model)
    assert "no folder" in recipe.mistake(*flags, "--model", tmp_path / "nothing")


@pytest.mark.parametrize("weighting", ["uninformed", "uncertainty"])
def test_a_stopped_run_goes_on_to_the_same_weights(recipe, tmp_path, monkeypatch, weighting):
    flags = (*TASKS, "--compare_single", "false", "--num_train_epochs", 2)
    flags += ("--task_weighting", weighting)
    recipe(*flags, "--output_dir", tmp_path / "whole")
    trainer = recipe.module.LengthGroupedTrainer
    original = trainer._save_checkpoint

    def stop(self, *args, **options):
        original(self, *args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(trainer, "_save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            recipe(*flags)
    assert "continue it with --resume_from_checkpoint true" in recipe.mistake(*flags)
    recipe(*flags, "--resume_from_checkpoint", "true")
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert whole.keys() == resumed.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values, resumed[name], err_msg=name)
    if weighting == "uncertainty":
        assert (whole["log_variances"] != 0).all()


def test_mistakes_are_one_line(recipe, rows, tmp_path):
    assert "--tasks" in recipe.mistake()
    assert "give 3 numbers" in recipe.mistake(*TASKS, "--task_weights", 1, 2)
    assert "weight 0 learns nothing" in recipe.mistake(*TASKS, "--task_weights", 1, 2, 0)
    assert "for two tasks, not 3" in recipe.mistake(*TASKS, "--sweep", 0.5)
    assert "learns the weights" in recipe.mistake(
        *TASKS, "--task_weights", 1, 2, 3, "--task_weighting", "uncertainty"
    )
    empty = write(tmp_path / "empty.jsonl", "")
    assert "empty" in recipe.mistake(*TASKS, "--data", empty)
    assert "no column 'colour'" in recipe.mistake("--tasks", "colour")
    one = write(tmp_path / "one.jsonl", [row | {"first": "bug"} for row in rows])
    assert "nothing to learn" in recipe.mistake("--tasks", "first", "--data", one)


def test_health_check_trains_nothing(recipe, tmp_path):
    printed = recipe(*TASKS, "--health_check", "true")
    assert "the rarest of 8 labels" in printed
    assert not (tmp_path / "out" / "runs").exists()


def test_two_processes_do_the_work_of_one(recipe, tmp_path):
    # 96 training rows make four full batches; some rows lack a value of a task. Each process has
    # its own random numbers of dropout.
    flags = [*recipe.flags, *TASKS, "--valid_size", 0.136, "--test_size", 0.136]
    flags += ["--compare_single", "false", "--head_dropout", 0]
    recipe(*flags)
    two = ("--output_dir", tmp_path / "two", "--per_device_train_batch_size", 12)
    process = run_script("recipes/multi_task.py", *flags, *two, processes=2)
    assert "rows: train 96, valid 18, test 18" in process.stdout
    assert process.stdout.count("Everything is in") == 1
    one, two = (read_json(tmp_path / name / "metrics.json") for name in ("out", "two"))
    names = [name for name in one if name.startswith("test_")]
    assert len(names) > 5
    for name in [*names, "train_loss"]:
        assert two[name] == pytest.approx(one[name], abs=1e-4)
