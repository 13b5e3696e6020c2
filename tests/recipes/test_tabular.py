"""The recipe of tables, from the command line."""

import csv

import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write
from forks import run_script
from safetensors.numpy import load_file

from shared.methods import load_table_classifier

N_ROWS = 240
HEADER = ("size", "weight", "colour", "kind")


@pytest.fixture
def rows():
    """Rows whose class is that of their size, but for 5 %; weight and colour say nothing."""
    generator = np.random.default_rng(0)
    sizes, weights = generator.normal(size=(2, N_ROWS)).round(4)
    labels = (sizes > 0) ^ (generator.random(N_ROWS) < 0.05)
    colours = generator.choice(["red", "green", ""], N_ROWS)
    return [
        (size, "" if i % 5 == 0 else weight, colour, ["small", "large"][int(label)])
        for i, (size, weight, colour, label) in enumerate(
            zip(sizes, weights, colours, labels, strict=True)
        )
    ]


def table(path, rows, header=HEADER):
    lines = [",".join(map(str, row)) for row in [header, *rows]]
    return write(path, "\n".join(lines) + "\n")


@pytest.fixture
def flags(rows, tmp_path):
    return [
        *("--data", table(tmp_path / "rows.csv", rows), "--label_column", "kind", "--use_cpu"),
        *("--output_dir", tmp_path / "out", "--folds", 2, "--members", 2, "--hidden_size", 8),
        *("--num_train_epochs", 6, "--learning_rate", 0.03, "--per_device_train_batch_size", 32),
        *("--baselines", "false"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("tabular", monkeypatch, capfd, *flags)


def test_a_table_is_learned_reported_and_applied(recipe, rows, tmp_path, monkeypatch, capfd, flags):
    test = table(tmp_path / "test.csv", rows[:20])
    one = {"boosting": recipe.module.TABLE_BASELINES["boosting"]}
    monkeypatch.setattr("shared.methods.table_baselines.TABLE_BASELINES", one)
    printed = recipe("--test_data", test, "--baselines", "true")
    out = tmp_path / "out"
    metrics = read_json(out / "metrics.json")
    assert (metrics["oof_samples"], metrics["test_samples"]) == (N_ROWS - 20, 20)
    assert metrics["oof_accuracy"] > 0.75
    assert "20 rows that repeat a test row are left out" in printed
    assert "against gradient boosting" in printed
    assert metrics["boosting_oof_log_loss"] > 0

    lines = read_lines(out / "oof_predictions.jsonl")
    assert [line["row"] for line in lines] == list(range(21, N_ROWS + 1))
    right = [line["true"] == line["predicted"] for line in lines]
    assert np.mean(right) == pytest.approx(metrics["oof_accuracy"])
    assert {line["row"]: line["true"] for line in lines} == {
        i: row[3] for i, row in enumerate(rows, 1) if i > 20
    }
    with (out / "importance.csv").open(encoding="utf-8") as file:
        assert next(csv.DictReader(file))["column"] == "size"
    card = (out / "README.md").read_text(encoding="utf-8")
    for picture in ("plots/importance.png", "plots/confusion.png", "plots/reliability.png"):
        assert f"({picture})" in card
        assert (out / picture).stat().st_size > 5000
    assert (out / "fold_0" / "training_curve.png").is_file()
    assert not list(out.rglob("checkpoint-*"))

    # The saved model gives the mean scores of the folds, in Python and by --predict.
    expected = [line["scores"] for line in read_lines(out / "test_predictions.jsonl")]
    cells = [dict(zip(HEADER[:3], row, strict=False)) for row in rows[:20]]
    for answer, scores in zip(load_table_classifier(out)(cells), expected, strict=True):
        assert answer["scores"] == pytest.approx(scores, abs=2e-6)
    Recipe("tabular", monkeypatch, capfd, *flags)(
        *("--model", out, "--predict", test, "--output_dir", tmp_path / "new")
    )
    predicted = read_lines(tmp_path / "new" / "predictions.jsonl")
    for line, row, scores in zip(predicted, rows, expected, strict=False):
        assert (line["colour"], line["kind"]) == (row[2], row[3])
        assert line["scores"] == pytest.approx(scores, abs=2e-6)
        assert line["predicted"] == max(scores, key=scores.get)
    with (tmp_path / "new" / "predictions.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert list(cells[0]) == [*HEADER, "predicted", "score_large", "score_small"]
    for of_row, line in zip(cells, predicted, strict=True):
        assert (of_row["colour"], of_row["predicted"]) == (line["colour"], line["predicted"])
        assert float(of_row["score_large"]) == line["scores"]["large"]


def test_a_resumed_run_is_bitwise_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    recipe()
    expected = load_file(tmp_path / "out" / "model.safetensors")
    again = tmp_path / "again"
    # Stopped in the second fold, after its first checkpoints.
    save = recipe.module.LengthGroupedTrainer._save_checkpoint
    counts = []

    def save_and_stop(self, *args, **kwargs):
        save(self, *args, **kwargs)
        counts.append("fold_1" in self.args.output_dir)
        if sum(counts) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipe.module.LengthGroupedTrainer, "_save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            recipe("--output_dir", again)
    assert "--resume_from_checkpoint true" in recipe.mistake("--output_dir", again)
    printed = recipe("--output_dir", again, "--resume_from_checkpoint", "true")
    assert "Fold 0" not in printed
    actual = load_file(again / "model.safetensors")
    assert expected.keys() == actual.keys()
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    first, second = (read_json(folder / "metrics.json") for folder in (tmp_path / "out", again))
    assert first == second
    # A finished run is not trained again; with other data it is refused.
    assert "epoch" not in recipe("--output_dir", again)
    assert "was trained with other flags" in recipe.mistake("--output_dir", again, "--seed", 7)


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--health_check")
    assert f"uniform predictions have a loss of {np.log(2):.3f}" in printed
    assert "the rarest of 2 labels has" in printed
    assert "truncated" not in printed
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_a_class_with_one_row_is_named(recipe, rows, tmp_path):
    changed = [*rows[:-1], (*rows[-1][:3], "rare")]
    flags = ("--data", table(tmp_path / "rare.csv", changed), "--health_check")
    line = next(line for line in recipe(*flags).splitlines() if " on fewer " in line)
    assert line.startswith(
        "note: labels on fewer rows than the 2 folds: rare (1); a label on one row"
    )


def test_mistakes(recipe, rows, tmp_path):
    assert "give both" in recipe.mistake("--predict", "rows.csv")
    assert "no such folder" in recipe.mistake("--predict", "rows.csv", "--model", "nowhere")
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "config.json", '{"model_type": "bert"}')
    line = recipe.mistake("--predict", "rows.csv", "--model", tmp_path / "other")
    assert "other: no model of table rows (is of the type bert)" in line
    assert "no column 'knd'" in recipe.mistake("--label_column", "knd")
    assert "are in only 240 groups" in recipe.mistake("--folds", 241)
    one = table(tmp_path / "one.csv", [row for row in rows if row[3] == "small"])
    assert "all rows have the class 'small'" in recipe.mistake("--data", one)
    unknown = table(tmp_path / "unknown.csv", [(1, 2, "red", "huge")])
    line = recipe.mistake("--test_data", unknown)
    assert "unknown.csv, row 1: the class 'huge' in column 'kind'" in line
    assert "each fold finds its own" in recipe.mistake("--resume_from_checkpoint", tmp_path)


def test_two_processes_train_each_fold_together(recipe, flags, tmp_path):
    # Batch normalisation and dropout are those of each process. 96 training rows of a fold make
    # three full batches.
    flags += ["--normalization", "none", "--dropout", 0, "--num_train_epochs", 2]
    flags += ["--valid_size", 0.2]
    recipe(*flags)
    two = ("--output_dir", tmp_path / "two", "--per_device_train_batch_size", 16)
    process = run_script("recipes/tabular.py", *flags, *two, processes=2)
    assert process.stdout.count("Everything is in") == 1
    one, two = (read_json(tmp_path / name / "metrics.json") for name in ("out", "two"))
    for name in ("oof_accuracy", "oof_macro_f1", "oof_log_loss"):
        assert two[name] == pytest.approx(one[name], abs=1e-4)
