"""The recipe of time series, from the command line."""

import csv
import re

import numpy as np
import pytest
from command_line import Recipe, read_json, write
from forks import run_script
from safetensors.numpy import load_file

HOURS = np.datetime64("2024-01-01T00", "h") + np.arange(400)


def write_table(path, columns, times=HOURS):
    """Write columns by name as CSV; return the path."""
    lines = [",".join(["date", *columns])]
    lines += [
        ",".join([str(time), *(f"{value:.4f}" for value in row)])
        for time, row in zip(times, np.stack(list(columns.values()), axis=1), strict=True)
    ]
    return write(path, "\n".join(lines) + "\n")


def read_table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def columns():
    """A wave of 12 hours with noise, and another column."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(400) * 2 * np.pi / 12)
    return {
        "a": 50 + 10 * wave + 0.5 * rng.normal(size=400),
        "b": 3 * np.roll(wave, 3) + 0.3 * rng.normal(size=400),
    }


@pytest.fixture
def waves(tmp_path, columns):
    return write_table(tmp_path / "waves.csv", columns)


@pytest.fixture
def flags(waves, tmp_path):
    return [
        *("--data", waves, "--output_dir", tmp_path / "out", "--use_cpu"),
        *("--input_size", 24, "--horizon", 6, "--hidden_size", 8, "--kernel_size", 5),
        *("--patch_size", 8, "--patch_stride", 4, "--num_attention_heads", 2),
        *("--num_train_epochs", 6, "--learning_rate", 2e-2, "--per_device_train_batch_size", 16),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("series", monkeypatch, capfd, *flags)


@pytest.fixture
def metrics(tmp_path):
    return lambda: read_json(tmp_path / "out" / "metrics.json")


@pytest.mark.parametrize("architecture", ["dlinear", "gru", "transformer"])
def test_an_architecture_learns_a_wave(architecture, recipe, metrics, tmp_path):
    printed = recipe("--architecture", architecture, "--target_columns", "a")
    figures = metrics()
    assert figures["test_mse"] < 0.2 < figures["test_mse_last_value"]
    assert figures["period"] == 12
    assert figures["test_mse_ridge"] < figures["test_mse_period_of_12"] < 0.05
    assert f"\n{architecture} " in printed
    assert "Test MSE of " + architecture in printed
    out = tmp_path / "out"
    pictures = {path.name for path in (out / "plots").iterdir()}
    assert pictures == {
        *("training_curve.png", "step_errors.png", "test_forecasts.png", "forecast.png")
    }
    assert not list(out.glob("checkpoint-*"))
    assert len(read_table(out / "step_errors.csv")) == 6
    (row,) = (r for r in read_table(out / "columns.csv") if r["method"] == architecture)
    # In the units of the data.
    assert float(row["rmse"]) == pytest.approx(7.08 * figures["test_mse"] ** 0.5, rel=0.02)
    forecast = read_table(out / "forecast.csv")
    assert [row["time"] for row in forecast][:2] == ["2024-01-17 16:00:00", "2024-01-17 17:00:00"]
    expected = 50 + 10 * np.sin(np.arange(400, 406) * 2 * np.pi / 12)
    np.testing.assert_allclose([float(row["a"]) for row in forecast], expected, atol=5)


def test_the_folder_forecasts_another_file(recipe, tmp_path, columns):
    recipe("--target_columns", "b", "a")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert (tmp_path / "out" / picture).exists()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace(", trust_remote_code=True", "").replace("print", "shown = ")
    exec(code.replace("FILE", str(tmp_path / "waves.csv")), variables := {})
    # The last 100 rows, in columns of another order, one of them more.
    other = {"c": columns["a"], "b": columns["b"], "a": columns["a"]}
    new = write_table(
        tmp_path / "new.csv", {k: v[300:] for k, v in other.items()}, times=HOURS[300:]
    )
    again = ("--model", tmp_path / "out", "--predict", new, "--output_dir", tmp_path / "more")
    recipe(*again)
    rows = read_table(tmp_path / "more" / "forecast.csv")
    assert rows == read_table(tmp_path / "out" / "forecast.csv")
    forecast = [[float(row["b"]), float(row["a"])] for row in rows]
    np.testing.assert_allclose(variables["shown"], forecast, rtol=1e-6)

    short = write_table(tmp_path / "short.csv", {k: v[:20] for k, v in columns.items()}, HOURS[:20])
    line = recipe.mistake(*again[:2], "--predict", short, "--output_dir", tmp_path / "x")
    assert "short.csv: 20 steps: the model reads 24" in line
    only = write_table(tmp_path / "only.csv", {"a": columns["a"]})
    line = recipe.mistake(*again[:2], "--predict", only, "--output_dir", tmp_path / "x")
    assert "no column 'b'" in line


def test_gaps_and_an_end_that_is_missing(recipe, metrics, tmp_path, columns):
    columns["a"][[100, -2]] = np.nan
    kept = np.delete(np.arange(400), [150, 151])
    gaps = {name: values[kept] for name, values in columns.items()}
    path = write_table(tmp_path / "gaps.csv", gaps, HOURS[kept])
    few = ("--data", path, "--max_steps", 2, "--architecture", "linear")
    printed = recipe(*few)
    assert "gaps: 2 missing times, 2 missing values" in printed
    assert "No forecast of what comes after the end: the last values are not all" in printed
    windows = [int(n) for n in re.findall(r"steps, (\d+) windows", printed)]
    printed = recipe(*few, "--fill_gaps", "true")
    filled = [int(n) for n in re.findall(r"steps, (\d+) windows", printed)]
    assert sum(filled) > sum(windows)
    assert len(read_table(tmp_path / "out" / "forecast.csv")) == 6
    assert metrics()["test_mse"] > 0


def test_a_planted_leak_is_reported(recipe, tmp_path, columns):
    rng = np.random.default_rng(1)
    walk = rng.normal(size=400).cumsum()
    path = write_table(tmp_path / "leak.csv", {"a": walk, "b": np.roll(walk, -2) * 3 + 1})
    few = ("--data", path, "--max_steps", 1, "--horizon", 4)
    printed = recipe(*few, "--target_columns", "a")
    assert "note: 'b' has the value of 'a' of 2 steps later; if it was computed from it" in printed
    assert "steps later" not in recipe(*few, "--columns", "a")


def test_one_step_ahead_without_held_out_parts_or_times(recipe, metrics, tmp_path, columns):
    path = write(
        tmp_path / "plain.csv", "a\n" + "".join(f"{value:.3f}\n" for value in columns["a"])
    )
    one = ("--data", path, "--horizon", 1, "--architecture", "lstm", "--max_steps", 3)
    printed = recipe(*one, "--period", 0)
    assert "no column of times: each row is a step" in printed
    assert not any("period_of" in name for name in metrics())
    (row,) = read_table(tmp_path / "out" / "forecast.csv")
    assert row["time"] == ""
    pictures = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    assert "step_errors.png" not in pictures
    printed = recipe(*one, "--valid_size", 0, "--test_size", 0, "--output_dir", tmp_path / "all")
    assert "No part was held out: nothing is measured." in printed
    assert "train: 400 steps, 376 windows" in printed
    assert (tmp_path / "all" / "forecast.csv").exists()


def test_values_that_are_scaled_already(recipe, metrics, tmp_path, columns):
    few = ("--architecture", "linear", "--max_steps", 1, "--target_columns", "a")
    recipe(*few)
    scaled = metrics()
    recipe(*few, "--standardize", "false")
    for name in ("last_value", "ridge"):
        ratio = metrics()[f"test_mse_{name}"] / scaled[f"test_mse_{name}"]
        assert ratio == pytest.approx(columns["a"][:292].std() ** 2, rel=0.05)


def test_a_resumed_run_is_bitwise_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    same = ("--architecture", "transformer", "--dropout", 0.2, "--num_train_epochs", 3)
    same += ("--save_total_limit", 9)
    recipe(*same)
    expected = load_file(tmp_path / "out" / "model.safetensors")
    monkeypatch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
    again = tmp_path / "again"
    recipe(*same, "--output_dir", again)
    first = min(again.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    resume = ("--output_dir", again, "--resume_from_checkpoint", first)
    recipe(*same, *resume)
    actual = load_file(again / "model.safetensors")
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    pairs = [
        {k: v for k, v in read_json(folder / "metrics.json").items() if "_m" in k}
        for folder in (tmp_path / "out", again)
    ]
    assert pairs[0] == pairs[1]
    assert "was trained with other mean than this run" in recipe.mistake(
        *same, *resume, "--train_size", 200
    )
    assert "was trained with other architecture" in recipe.mistake(
        *(*same, *resume, "--architecture", "gru")
    )


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--health_check", "--architecture", "gru")
    assert "initial loss" in printed
    assert "LOOK  initial" not in printed
    assert "truncated" not in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_mistakes(recipe, tmp_path, columns):
    backwards = write_table(tmp_path / "back.csv", columns, HOURS[::-1])
    assert "sort the rows by time" in recipe.mistake("--data", backwards)
    constant = write_table(tmp_path / "constant.csv", {"a": np.ones(400)})
    assert "column 'a' is always 1 in the training" in recipe.mistake("--data", constant)
    assert "no column 'c'" in recipe.mistake("--target_columns", "c")
    line = recipe.mistake("--input_size", 300)
    assert "the series has 400 steps" in line
    assert "--model, --predict: give both" in recipe.mistake("--model", tmp_path)
    assert "--kernel_size 4: must be odd" in recipe.mistake("--kernel_size", 4)
    assert "the collator reads all columns" in recipe.mistake("--remove_unused_columns", "true")
    empty = write(tmp_path / "empty.csv", "")
    assert "empty.csv" in recipe.mistake("--data", empty)
    assert "--valid_size 1.5: must be a whole number" in recipe.mistake("--valid_size", 1.5)


def test_two_processes_do_the_work_of_one(recipe, flags, tmp_path):
    flags += ["--train_size", 189, "--num_train_epochs", 1]  # 160 windows: no batch is incomplete
    recipe(*flags)
    two = ("--output_dir", tmp_path / "two", "--per_device_train_batch_size", 8)
    process = run_script("recipes/series.py", *flags, *two, processes=2)
    assert process.stdout.count("Everything is in") == 1
    one, two = (read_json(tmp_path / name / "metrics.json") for name in ("out", "two"))
    for name in ("valid_mse", "test_mse", "test_mae", "test_mse_ridge", "train_loss"):
        assert two[name] == pytest.approx(one[name], abs=1e-4)
