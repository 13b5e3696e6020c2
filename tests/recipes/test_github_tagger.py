"""The GitHub tagger from its command line: what it leaves, what repeats, what stops it and how."""

import csv
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch
from command_line import (
    PYTHON,
    ROOT,
    TORCHRUN,
    Recipe,
    change_json,
    load_recipe,
    read_json,
    read_lines,
    report_rows,
    the_line,
    truncate,
    write,
)
from forks import Script, run_script
from safetensors.torch import load_file
from transformers import TrainingArguments, pipeline

from shared.cli.errors import UserError
from shared.reports import trained_tagger
from shared.taggers import load_tagger, read_tagger
from shared.training import MultilabelLoss

SCRIPT = "recipes/github_tagger.py"
TIMINGS = ("_runtime", "_per_second")
LABELS = ["bug", "documentation", "feature", "speed"]


@pytest.fixture
def tagger(monkeypatch, capfd):
    return Recipe("github_tagger", monkeypatch, capfd)


class Stopped(Exception):
    """Carries the Trainer of a recipe that was stopped before its training."""


@pytest.fixture
def trainer_of(tagger, tagger_flags, tmp_path, monkeypatch):
    """Call the recipe up to its training; return the Trainer it has built."""

    def stop(trainer, **_):
        raise Stopped(trainer)

    monkeypatch.setattr(tagger.module.LengthGroupedTrainer, "train", stop)
    monkeypatch.setattr(tagger.module, "fit_head", lambda *_, **__: None)

    def call(*flags):
        with pytest.raises(Stopped) as stopped:
            tagger(*tagger_flags, "--output_dir", tmp_path / "out", *flags)
        return stopped.value.args[0]

    return call


def figures(folder):
    """The metrics of a run, without its timings."""
    metrics = read_json(folder / "metrics.json")
    return {name: value for name, value in metrics.items() if not name.endswith(TIMINGS)}


# --- a finished run ------------------------------------------------------------------------------


def test_the_output_folder_is_complete(trained):
    folder, _ = trained
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("README.md", "metrics.json", "per_label.csv", "test_predictions.jsonl"),
        *("tagger.json", "unlabelled_predictions.jsonl", "report.html", "label_errors.csv"),
        *(f"plots/{name}.png" for name in ("words_per_text", "label_counts", "training_curve")),
    }
    assert all((folder / name).read_bytes()[:4] == b"\x89PNG" for name in files if "plots" in name)


def test_the_report_gives_the_reasons_of_one_row_for_each_32_training_texts(trained, refitted):
    for folder, number, learned in ((trained[0], 1, False), (refitted, 3, True)):
        page = report_rows(folder)
        explained = [row for row in page["rows"].values() if "neighbours" in row]
        assert len(explained) == number
        assert ("has learned from these rows" in page["note"]) == learned
        for row in explained:
            assert 1 <= len(row["words"]) <= 2
            assert row["row"] not in {neighbour["row"] for neighbour in row["neighbours"]}


def test_labels_problem_type_and_thresholds_are_in_the_config(trained):
    folder, _ = trained
    config = read_json(folder / "config.json")
    assert config["id2label"] == {str(i): name for i, name in enumerate(LABELS)}
    assert config["label2id"] == {name: i for i, name in enumerate(LABELS)}
    assert config["problem_type"] == "multi_label_classification"
    assert len(config["thresholds"]) == len(LABELS)
    assert all(0 < threshold < 1 for threshold in config["thresholds"])


def test_metrics_are_flat_and_agree_with_the_predictions(trained):
    folder, process = trained
    metrics = read_json(folder / "metrics.json")
    assert metrics.pop("split") == "random"
    assert metrics.pop("fit") in ("diverged", "fits", "flat", "overfit", "underfit")
    assert metrics.pop("fit_explained").endswith(".")
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert (metrics["train_samples"], metrics["valid_samples"], metrics["test_samples"]) == (
        *(60, 30, 30),
    )
    assert metrics["seed"] == 42
    assert metrics["train_samples_per_second"] > 0
    # That of the epoch that was kept, at the thresholds chosen for it.
    epochs = re.findall(r"epoch .* micro F1 (\S+)", process.stdout)
    assert f"{metrics['valid_micro_f1']:.3f}" == max(epochs)
    for name in ("micro_f1", "macro_f1"):
        assert metrics[f"test_{name}_low"] <= metrics[f"test_{name}"]
        assert metrics[f"test_{name}"] <= metrics[f"test_{name}_high"]
        assert 0 <= metrics[f"baseline_{name}"] <= 1

    rows = read_lines(folder / "test_predictions.jsonl")
    assert len(rows) == 30
    thresholds = dict(zip(LABELS, read_json(folder / "config.json")["thresholds"], strict=True))
    of_scores = dict(zip(LABELS, load_tagger(folder).calibrated_rule.thresholds, strict=True))
    for row in rows:
        # Scores are written with six decimals; none of these lies so near its threshold.
        chosen = [name for name, score in row["scores"].items() if score >= of_scores[name]]
        assert row["labels"] == chosen
        assert list(row["scores"].values()) == sorted(row["scores"].values(), reverse=True)
    hits = sum(len(set(row["labels"]) & set(row["true_labels"])) for row in rows)
    size = sum(len(row["labels"]) + len(row["true_labels"]) for row in rows)
    assert metrics["test_micro_f1"] == pytest.approx(2 * hits / size, abs=1e-9)

    with (folder / "per_label.csv").open(encoding="utf-8", newline="") as file:
        per_label = list(csv.DictReader(file))
    assert [row["label"] for row in per_label] == LABELS
    for row in per_label:
        name = row["label"]
        assert float(row["threshold"]) == pytest.approx(thresholds[name])
        assert int(row["support"]) == sum(name in line["true_labels"] for line in rows)
        assert int(row["predicted"]) == sum(name in line["labels"] for line in rows)


def test_test_rows_come_from_the_file_and_carry_their_labels(trained, tiny_issues):
    folder, _ = trained
    source = read_lines(tiny_issues)
    for line in read_lines(folder / "test_predictions.jsonl"):
        row = source[line["row"] - 1]
        assert line["text"] == f"{row['title']}\n\n{row['body']}"
        assert line["true_labels"] == sorted(row["labels"])


def test_the_card_holds_the_figures_and_the_command(trained):
    folder, _ = trained
    card = (folder / "README.md").read_text(encoding="utf-8")
    metrics = read_json(folder / "metrics.json")
    assert f"| test micro F1 | {metrics['test_micro_f1']:.3f} |" in card
    assert f"| naive Bayes, micro F1 | {metrics['baseline_micro_f1']:.3f} |" in card
    assert f"accelerate launch {SCRIPT} --model" in card
    assert f"--output_dir {folder}" in card


def test_the_summary_shows_what_a_person_wants_to_know(trained):
    folder, process = trained
    metrics = read_json(folder / "metrics.json")
    assert "132 texts: 120 labelled, 12 unlabelled (9%)" in process.stdout
    assert "split: 60 train, 30 valid, 30 test texts" in process.stdout
    assert "unknown tokens: 0.0%" in process.stdout
    for average in ("micro", "macro"):
        value, low, high, baseline = (
            metrics[name.format(average)]
            for name in ("test_{}_f1", "test_{}_f1_low", "test_{}_f1_high", "baseline_{}_f1")
        )
        assert (
            f"{average} F1 {value:.3f} (95 % interval {low:.3f} to {high:.3f}); "
            f"naive Bayes on the same rows {baseline:.3f}"
        ) in process.stdout
    examples = process.stdout.split("Tags of unlabelled texts, the surest")[1]
    assert examples.count("->") == 6
    assert "Tags of unlabelled texts, the most doubtful" in examples
    assert len(read_lines(folder / "unlabelled_predictions.jsonl")) == 12
    assert f"Everything is in {folder}" in examples


def test_a_run_is_quiet(trained):
    _, process = trained
    assert process.stderr == ""
    for noise in ("Warning", "warning", "Loading weights", "Traceback", "it/s"):
        assert noise not in process.stdout


def test_it_learns(trained):
    folder, _ = trained
    # Chance: every label on every row gives .46.
    assert read_json(folder / "metrics.json")["test_micro_f1"] > 0.6


def test_the_best_epoch_is_kept_and_the_run_stops_without_a_better_one(
    tagger, tagger_flags, tmp_path, monkeypatch
):
    monkeypatch.setattr(tagger.module, "remove_checkpoints", lambda _: None)
    flags = ["--patience", 2, "--learning_rate", 2e-2, "--num_train_epochs", 50]
    tagger(*tagger_flags, *flags, "--save_total_limit", 50, "--output_dir", tmp_path)
    folders = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    history = read_json(folders[-1] / "trainer_state.json")["log_history"]
    scores = [entry["eval_micro_f1"] for entry in history if "eval_micro_f1" in entry]
    best = int(np.argmax(scores))  # the first of equals
    assert len(scores) == len(folders) == best + 1 + 2 < 50
    assert figures(tmp_path)["epoch"] == len(scores)
    same = [load_file(folder / "model.safetensors") for folder in (tmp_path, folders[best])]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])


def pipeline_scores(folder, texts):
    tagger = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")
    return [
        {item["label"]: item["score"] for item in row} for row in tagger(texts, truncation=True)
    ]


def compare_with_pipeline(folder):
    """The pipeline gives the scores before calibration; the file has those after it."""
    rows, contents = read_lines(folder / "test_predictions.jsonl"), read_tagger(folder)
    of_pipeline = pipeline_scores(folder, [row["text"] for row in rows])
    names = contents.label_names
    raw_scores = np.array([[scores[name] for name in names] for scores in of_pipeline])
    written = [[row["scores"][name] for name in names] for row in rows]
    np.testing.assert_allclose(contents.calibration(raw_scores), written, atol=1e-4)


def test_the_pipeline_gives_the_same_scores(trained):
    compare_with_pipeline(trained[0])


def test_the_pipeline_gives_the_same_scores_after_training_in_bfloat16(
    tagger, tagger_flags, tmp_path
):
    tagger(*tagger_flags, "--bf16", "true", "--max_steps", 3, "--output_dir", tmp_path)
    compare_with_pipeline(tmp_path)


# --- what repeats --------------------------------------------------------------------------------


def test_two_runs_with_one_seed_are_identical(trained, tagger, tagger_flags, tmp_path):
    folder, _ = trained
    tagger(*tagger_flags, "--output_dir", tmp_path)
    assert figures(tmp_path) == figures(folder)
    assert weights_of(tmp_path) == weights_of(folder)


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def test_two_processes_give_the_figures_of_one(tagger, tagger_flags, tmp_path):
    """Also where the rows fill neither the last training batch nor that of an evaluation."""
    flags = [*tagger_flags, "--train_size", 55, "--num_train_epochs", 2]
    one, two = tmp_path / "one", tmp_path / "two"
    tagger(*flags, "--output_dir", one, "--per_device_eval_batch_size", 14)
    process = run_script(
        *(*TORCHRUN, SCRIPT, *flags, "--output_dir", two),
        *("--per_device_train_batch_size", 6, "--per_device_eval_batch_size", 7),
    )
    expected, actual = figures(one), figures(two)
    # Each process counts the operations of its own, differently padded rows.
    expected.pop("total_flos"), actual.pop("total_flos")
    assert actual == pytest.approx(expected, abs=1e-4)
    assert process.stdout.count("Everything is in") == 1
    assert "Warning" not in process.stderr
    assert "Traceback" not in process.stderr


def test_slices_of_the_training_rows_are_exact_and_nested(trainer_of):
    slices = {}
    for size in (1, 7, 8, 20, 59, 60):
        trainer = trainer_of("--train_size", size)
        slices[size] = list(trainer.train_dataset["row"])
        held_out = list(trainer.eval_dataset["row"])
        assert len(slices[size]) == len(set(slices[size])) == size
        assert len(held_out) == 30
        assert not set(slices[size]) & set(held_out)
    assert all(set(a) < set(b) for a, b in pairwise(slices.values()))
    assert slices[60] == list(trainer_of().train_dataset["row"])
    # Not the first rows of the file, and every label is there as soon as it can be.
    assert slices[20] != sorted(slices[60])[:20]
    labels = dict(zip(slices[60], trainer.train_dataset["labels"], strict=True))
    assert {label for row in slices[8] for label in labels[row]} == {0, 1, 2, 3}


def test_another_seed_is_another_split(trainer_of):
    first, second = (set(trainer_of("--seed", seed).train_dataset["row"]) for seed in (1, 2))
    assert first != second


# --- flags ---------------------------------------------------------------------------------------


def test_every_flag_of_the_recipe_has_its_help(tagger):
    arguments = tagger.module.TaggerArguments
    own = set(arguments.__annotations__)
    assert own >= {"r_drop", "pos_weight", "thresholds", "loss"}
    for field in fields(arguments):
        if field.name in own or field.name not in {f.name for f in fields(TrainingArguments)}:
            assert field.metadata.get("help"), field.name


def test_a_config_file_sets_defaults_and_flags_override_them(trainer_of, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("learning_rate: 1e-4\ntrain_size: 20\npos_weight: none\npatience: 7\n")
    trainer = trainer_of("--config", config, "--train_size", 10)
    # --learning_rate is among the flags of every test, so it wins as well.
    assert (trainer.args.learning_rate, len(trainer.train_dataset)) == (2e-3, 10)
    assert (trainer.args.pos_weight, trainer.args.patience) == ("none", 7)


def test_dropout_is_the_models_own_or_that_of_the_flag(trainer_of):
    rates = []
    for flags in ([], ["--dropout", 0.3]):
        model = trainer_of(*flags).model
        rates.append({m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)})
    assert rates == [{0.0}, {0.0, 0.3}]  # that of the attention stays 0


def test_r_drop_passes_every_text_twice_and_is_off_by_default(trainer_of):
    trainer = trainer_of()
    assert (trainer.passes, trainer.compute_loss_func.r_drop) == (1, 0)
    trainer = trainer_of("--r_drop", 2, "--dropout", 0.1)
    assert (trainer.passes, trainer.compute_loss_func.r_drop) == (2, 2)


def test_health_is_checked_before_the_training_and_nothing_is_trained(
    tagger, tagger_flags, tmp_path
):
    printed = tagger(*tagger_flags, "--output_dir", tmp_path / "out", "--health_check")
    lines = printed[printed.index("\nHealth\n") :].splitlines()
    assert len([line for line in lines if line.startswith(("  ok ", "  LOOK "))]) == 8
    assert "Training" not in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_positives_weigh_more_the_rarer_the_label(trainer_of):
    trainer = trainer_of("--pos_weight", "balanced")
    counts = np.zeros(4)
    for labels in trainer.train_dataset["labels"]:
        counts[labels] += 1
    weights = trainer.compute_loss_func.pos_weight
    assert (weights > 1).all()
    assert weights.argsort(descending=True).tolist() == np.argsort(counts, kind="stable").tolist()
    assert trainer_of("--pos_weight", "none").compute_loss_func.pos_weight is None


@pytest.mark.parametrize(("thresholds", "different"), [("global", 1), ("per_label", 4), (0.3, 1)])
def test_one_threshold_for_all_labels_or_one_for_each(
    thresholds, different, tagger, tagger_flags, tmp_path
):
    flags = ["--thresholds", thresholds, "--max_steps", 2, "--output_dir", tmp_path]
    tagger(*tagger_flags, *flags)
    values = read_json(tmp_path / "config.json")["thresholds"]
    assert len(set(values)) == different
    assert thresholds != 0.3 or values == [0.3] * 4


def test_early_stopping_ignores_a_small_improvement(trainer_of):
    trainer = trainer_of("--patience", 7, "--early_stopping_threshold", 0.02)
    (stop,) = (c for c in trainer.callback_handler.callbacks if "Stopping" in type(c).__name__)
    assert (stop.early_stopping_patience, stop.early_stopping_threshold) == (7, 0.02)


def test_rare_classes_weigh_more(trainer_of, tiny_issues, tmp_path):
    rows = [row for row in read_lines(tiny_issues) if len(row["labels"]) == 1]
    flags = ["--data", write(tmp_path / "classes.jsonl", rows), "--loss", "softmax"]
    trainer = trainer_of(*flags)
    counts = np.bincount([labels[0] for labels in trainer.train_dataset["labels"]])
    expected = counts.sum() / (4 * counts)
    assert trainer.compute_loss_func.weight.tolist() == pytest.approx(expected.tolist())
    assert trainer_of(*flags, "--pos_weight", "none").compute_loss_func.weight is None


def test_labels_that_exclude_each_other(tagger, tagger_flags, tiny_issues, tmp_path):
    """Softmax: one label each, probabilities that add up to 1, the same ones from the folder."""
    rows = [row for row in read_lines(tiny_issues) if len(row["labels"]) == 1]
    data = write(tmp_path / "classes.jsonl", rows)
    out = tmp_path / "out"
    tagger(*tagger_flags, "--data", data, "--loss", "softmax", "--output_dir", out)
    lines = read_lines(out / "test_predictions.jsonl")
    assert [len(line["labels"]) for line in lines] == [1] * len(lines)
    totals = [sum(line["scores"].values()) for line in lines]
    assert totals == pytest.approx([1] * len(lines), abs=1e-5)  # scores are rounded to 1e-6
    assert read_json(out / "config.json")["problem_type"] == "single_label_classification"
    again = load_tagger(out).scores([line["text"] for line in lines[:5]])
    assert again.sum(axis=1) == pytest.approx(np.ones(5))
    names = load_tagger(out).label_names
    for line, scores in zip(lines, again, strict=False):
        assert dict(zip(names, scores, strict=True)) == pytest.approx(line["scores"], abs=1e-4)


@pytest.mark.parametrize("separate", [["valid"], ["test"], ["valid", "test"]])
def test_validation_and_test_rows_from_files_of_their_own(
    separate, tagger, tagger_flags, tiny_issues, tmp_path
):
    lines = tiny_issues.read_text(encoding="utf-8").splitlines(keepends=True)
    train = write(tmp_path / "train.jsonl", "".join(lines[:80]))
    part = {"valid": lines[80:95], "test": lines[95:120]}
    files = {name: write(tmp_path / f"{name}.jsonl", "".join(part[name])) for name in separate}
    flags = [flag for name, file in files.items() for flag in (f"--{name}_data", file)]
    out = tmp_path / "out"
    tagger(*tagger_flags, "--data", train, *flags, "--max_steps", 2, "--output_dir", out)
    metrics = read_json(out / "metrics.json")
    sizes = {name: metrics[f"{name}_samples"] for name in ("train", "valid", "test")}
    assert sizes == {
        "train": {1: 60, 2: 80}[len(separate)],
        "valid": 15 if "valid" in separate else 20,
        "test": 25 if "test" in separate else 20,
    }


def test_training_leaves_out_what_a_held_out_file_repeats(
    tagger, tagger_flags, tiny_issues, tmp_path
):
    lines = tiny_issues.read_text(encoding="utf-8").splitlines(keepends=True)
    valid = write(tmp_path / "valid.jsonl", "".join(lines[:20]))
    test = write(tmp_path / "test.jsonl", "".join(lines[12:30]))
    out = tmp_path / "out"
    flags = ["--test_data", test, "--valid_data", valid, "--max_steps", 1, "--output_dir", out]
    printed = tagger(*tagger_flags, *flags)
    # 30 of the training file, 8 of the validation file that are tested on
    assert "38 labelled texts that a held-out file repeats" in printed
    assert f"test rows: {test}: 18 rows read" in printed
    sizes = [figures(out)[f"{part}_samples"] for part in ("train", "valid", "test")]
    assert sizes == [90, 12, 18]


def test_without_unlabelled_rows(tagger, tagger_flags, tiny_issues, tmp_path):
    rows = [row for row in read_lines(tiny_issues) if row["labels"]]
    data = write(tmp_path / "labelled.jsonl", rows)
    out = tmp_path / "out"
    printed = tagger(*tagger_flags, "--data", data, "--max_steps", 1, "--output_dir", out)
    assert "120 labelled, 0 unlabelled" in printed
    assert "Tags of unlabelled texts" not in printed
    assert (out / "model.safetensors").is_file()


def test_whole_numbers_are_labels_too(tagger, tagger_flags, tiny_issues, tmp_path):
    rows = read_lines(tiny_issues)
    for row in rows:
        row["labels"] = [10 + LABELS.index(label) for label in row["labels"]]
    data = write(tmp_path / "numbers.jsonl", rows)
    out = tmp_path / "out"
    tagger(*tagger_flags, "--data", data, "--max_steps", 1, "--output_dir", out)
    names = read_json(out / "config.json")["id2label"]
    assert names == {"0": "10", "1": "11", "2": "12", "3": "13"}


def test_one_training_row(tagger, tagger_flags, tmp_path):
    tagger(*tagger_flags, "--train_size", 1, "--output_dir", tmp_path)
    assert read_json(tmp_path / "metrics.json")["train_samples"] == 1


# --- interruptions -------------------------------------------------------------------------------

SEND_SIGNAL = """
import os, runpy, signal, sys
from shared.training.trainer import LengthGroupedTrainer
step, name = int(sys.argv[1]), sys.argv[2]
training_step = LengthGroupedTrainer.training_step
def training_step_with_signal(trainer, *args, **kwargs):
    if trainer.state.global_step + 1 == step:
        os.kill(os.getpid(), getattr(signal, name))
    return training_step(trainer, *args, **kwargs)
LengthGroupedTrainer.training_step = training_step_with_signal
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

KILL_IN_MID_CHECKPOINT = """
import io, os, runpy, signal, sys, torch
part = sys.argv[1]
save = torch.save
def save_half(value, file, *args, **kwargs):
    if not str(file).endswith(part):
        return save(value, file, *args, **kwargs)
    whole = io.BytesIO()
    save(value, whole)
    with open(file, "wb") as half:
        half.write(whole.getvalue()[: whole.tell() // 2])
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = save_half
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_a_signal_leaves_a_checkpoint_to_go_on_from(trained, tagger, tagger_flags, tmp_path):
    flags = [*tagger_flags, "--output_dir", tmp_path]
    stopped = run_script("-c", SEND_SIGNAL, 8, "SIGTERM", SCRIPT, *flags, check=False)
    assert stopped.returncode == 143
    assert "checkpoint-8" in checkpoints(tmp_path)
    (line,) = stopped.stderr.strip().splitlines()
    assert line.startswith("stopped by SIGTERM after step 8 of 20; checkpoint in ")
    assert str(tmp_path / "checkpoint-8") in line
    assert "--resume_from_checkpoint true" in line
    assert "Test" not in stopped.stdout

    # Another start would mix two runs: it is refused, and nothing is lost.
    line = tagger.mistake(*flags)
    assert "checkpoint-8 of an unfinished run" in line
    assert "--resume_from_checkpoint true" in line
    assert "checkpoint-8" in checkpoints(tmp_path)

    tagger(*flags, "--resume_from_checkpoint", "true")
    assert weights_of(tmp_path) == weights_of(trained[0])
    assert figures(tmp_path) == figures(trained[0])
    assert checkpoints(tmp_path) == []


def test_ctrl_c_while_it_runs(tagger_flags, tmp_path):
    process = Script(
        [
            *(PYTHON, "-u", SCRIPT, *map(str, tagger_flags), "--output_dir", tmp_path),
            *("--num_train_epochs", "2000", "--patience", "2000"),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:  # wherever it is once the first epoch has been reported
        if "epoch" in line:
            process.send_signal(signal.SIGINT)
            break
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    step = re.search(r"stopped by SIGINT after step (\d+) of 10000", stderr)[1]
    assert f"checkpoint-{step}" in checkpoints(tmp_path)
    assert "Traceback" not in stderr


def test_a_run_killed_in_mid_checkpoint_ends_where_an_uninterrupted_one_ends(
    trained, tagger, tagger_flags, tmp_path
):
    flags = [*tagger_flags, "--output_dir", tmp_path]
    part = "checkpoint-15/optimizer.pt"
    killed = run_script("-c", KILL_IN_MID_CHECKPOINT, part, SCRIPT, *flags, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert "checkpoint-15" in checkpoints(tmp_path)
    printed = tagger(*flags, "--resume_from_checkpoint", "true")
    assert "epoch  2.00" not in printed  # it went on from there
    assert "epoch  3.00" in printed
    assert weights_of(tmp_path) == weights_of(trained[0])
    assert figures(tmp_path) == figures(trained[0])
    tokenizers = [(folder / "tokenizer.json").read_bytes() for folder in (tmp_path, trained[0])]
    assert tokenizers[0] == tokenizers[1]
    assert checkpoints(tmp_path) == []


def test_other_labels_cannot_go_on_from_a_checkpoint(tagger, tagger_flags, tmp_path):
    flags = [*tagger_flags, "--output_dir", tmp_path / "out"]
    run_script("-c", SEND_SIGNAL, 8, "SIGTERM", SCRIPT, *flags, check=False)
    line = tagger.mistake(*flags, "--drop_labels", "speed", "--resume_from_checkpoint", "true")
    assert "was trained with other labels than this run has" in line


def test_a_checkpoint_named_by_hand_must_be_whole(tagger, tagger_flags, tmp_path):
    broken = tmp_path / "checkpoint-5"
    broken.mkdir()
    flags = [*tagger_flags, "--output_dir", tmp_path, "--resume_from_checkpoint"]
    assert "holds no weights" in tagger.mistake(*flags, broken)
    assert "no such folder" in tagger.mistake(*flags, tmp_path / "checkpoint-6")


# --- a last training on all rows -----------------------------------------------------------------


@pytest.fixture(scope="module")
def refitted(tagger_flags, tmp_path_factory):
    """The folder of the run of `trained` with --refit."""
    folder = tmp_path_factory.mktemp("refitted") / "tagger"
    flags = [*tagger_flags, "--refit", "true", "--output_dir", folder]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [SCRIPT, *map(str, flags)])
        load_recipe("github_tagger").main()
    return folder


def test_the_saved_tagger_is_the_refitted_one_and_the_figures_are_not(trained, refitted):
    first, folder = trained[0], refitted
    assert weights_of(folder) != weights_of(first)
    assert {path.name for path in folder.iterdir()} == {path.name for path in first.iterdir()}
    # All that is said of the test rows, and the rule, is of the model that has not seen them.
    assert figures(folder) == figures(first) | {"refit_samples": 120}
    assert read_json(folder / "tagger.json")["rule"] == read_json(first / "tagger.json")["rule"]
    assert read_json(folder / "config.json") == read_json(first / "config.json")
    for name in ("test_predictions.jsonl", "per_label.csv"):
        assert (folder / name).read_bytes() == (first / name).read_bytes()
    # The unlabelled rows are tagged by the saved tagger.
    rows = read_lines(folder / "unlabelled_predictions.jsonl")
    scores = load_tagger(folder).scores([row["text"] for row in rows])
    written = [[row["scores"][name] for name in LABELS] for row in rows]
    np.testing.assert_allclose(written, scores, atol=1e-5)


def test_the_card_says_which_figures_belong_to_which_model(refitted):
    card = (refitted / "README.md").read_text("utf-8")
    assert "a classifier that was fitted on 60 texts, on 30 held-out texts" in card
    assert "was then fitted on all 120 labelled texts of --data" in card
    assert "The model was trained on texts from one source." in card


def test_the_refit_has_all_rows_the_epochs_found_and_the_learning_rates_planned(
    tagger, tagger_flags, tmp_path, monkeypatch
):
    train, trainers = tagger.module.LengthGroupedTrainer.train, []

    def spy(trainer, **options):
        trainers.append(trainer)
        return train(trainer, **options)

    monkeypatch.setattr(tagger.module.LengthGroupedTrainer, "train", spy)
    flags = ["--patience", 1, "--learning_rate", 5e-3, "--num_train_epochs", 20]
    tagger(*tagger_flags, *flags, "--refit", "true", "--output_dir", tmp_path)
    first, second = trainers
    assert sorted(second.train_dataset["row"]) == list(range(1, 121))
    counts = np.bincount(np.concatenate(second.train_dataset["labels"]))
    weights = second.compute_loss_func.pos_weight
    assert weights.argsort(descending=True).tolist() == np.argsort(counts, kind="stable").tolist()
    epochs = first.state.best_global_step / 5
    assert epochs == int(epochs) == first.state.epoch - 1 < 19
    assert second.state.epoch == epochs
    assert second.state.global_step == 10 * epochs
    rates = [
        [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
        for trainer in trainers
    ]
    # Those of the last step of each epoch, which differ by half a step of the warm-up at most.
    assert rates[1] == pytest.approx(rates[0][:-1], abs=5e-3 / 10 / 2 + 1e-9)


def test_a_refit_that_was_stopped_goes_on(trained, refitted, tagger, tagger_flags, tmp_path):
    out = tmp_path / "out"
    flags = [*tagger_flags, "--refit", "true", "--output_dir", out]
    stopped = run_script("-c", SEND_SIGNAL, 23, "SIGTERM", SCRIPT, *flags, check=False)
    assert stopped.returncode == 143
    assert f"checkpoint in {out / '.refit' / 'checkpoint-23'}" in stopped.stderr
    # Until then the folder holds the evaluated tagger.
    assert weights_of(out) == weights_of(trained[0])
    assert figures(out) == figures(trained[0])
    assert load_tagger(out).label_names == LABELS
    assert "was then fitted on" not in (out / "README.md").read_text("utf-8")

    assert "of an unfinished run" in tagger.mistake(*flags)
    (best,) = out.glob("checkpoint-*")
    line = tagger.mistake(*flags, "--resume_from_checkpoint", best)
    assert line == "--resume_from_checkpoint: true or false; --refit trains twice"
    printed = tagger(*flags, "--resume_from_checkpoint", "true")
    assert "Test (30 texts)" in printed
    first, second = printed.split("Training on all labelled texts")
    assert "  epoch " not in first  # nothing is trained twice
    assert "  epoch  1.00" not in second
    assert weights_of(out) == weights_of(refitted)
    assert read_json(out / "tagger.json")["rule"] == read_json(refitted / "tagger.json")["rule"]
    assert figures(out) == figures(refitted)
    assert {path.name for path in out.iterdir()} == {path.name for path in refitted.iterdir()}


def test_a_tagger_that_is_saved_in_part_is_none(
    trained, refitted, tagger, tagger_flags, tmp_path, monkeypatch
):
    def stop(*args, **_):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write_results(*args, **_)

    calls, write_results = [], trained_tagger.write_results
    monkeypatch.setattr(trained_tagger, "write_results", stop)
    flags = [*tagger_flags, "--refit", "true", "--output_dir", tmp_path]
    with pytest.raises(KeyboardInterrupt):
        tagger(*flags)
    with pytest.raises(UserError, match="changed since the tagger was saved"):
        load_tagger(tmp_path)
    calls.extend("more than two")
    tagger(*flags, "--resume_from_checkpoint", "true")
    assert load_tagger(tmp_path).label_names == LABELS
    assert weights_of(tmp_path) == weights_of(refitted)
    assert figures(tmp_path) == figures(refitted)


def test_a_refit_leaves_out_what_a_held_out_file_repeats(
    tagger, tagger_flags, tiny_issues, tmp_path
):
    test = write(tmp_path / "test.jsonl", read_lines(tiny_issues)[:30])
    out = tmp_path / "out"
    flags = ["--test_data", test, "--max_steps", 1, "--refit", "true", "--output_dir", out]
    tagger(*tagger_flags, *flags)
    sizes = [figures(out)[f"{part}_samples"] for part in ("train", "valid", "test", "refit")]
    assert sizes == [67, 23, 30, 90]


# --- mistakes ------------------------------------------------------------------------------------

GOOD = {"title": "crash", "body": "the data", "labels": ["bug"]}


def same_text_rows():
    return [{"title": "one text", "labels": [f"l{i % 3}"]} for i in range(12)]


# What the file holds, further flags, and what the line says beside the file's name.
DATA_MISTAKES = {
    "empty file": ("", [], "the file is empty"),
    "no rows": ("\n\n", [], "the file is empty"),
    "invalid JSON": ('{"title": "a"}\n{"title": \n{"title": "b"}\n', [], "line 2: invalid JSON"),
    "not JSON": ("title,labels\ncrash,bug\n", [], "neither a JSON array nor JSON lines"),
    "no label column": ([{"title": "a"}], [], "no column 'labels' (found: title)"),
    "no text column": ([{"labels": ["a"]}], [], "no column 'title' (found: labels)"),
    "misspelt label column": ([GOOD], ["--label_column", "label"], "did you mean 'labels'?"),
    "misspelt text column": ([GOOD], ["--text_columns", "titel"], "did you mean 'title'?"),
    "blank texts": (
        [{"title": text, "body": None, "labels": ["a"]} for text in ("", " ", "\n\t", None)],
        [],
        "no text left of 4 rows",
    ),
    "text that is none": ([GOOD, GOOD | {"title": 5}], [], "row 2: column 'title' holds 5 (int)"),
    "fractional label": ([GOOD, GOOD | {"labels": 1.5}], [], "row 2: the label is 1.5 (float)"),
    "names and numbers": ([GOOD, GOOD | {"labels": [3]}], [], "row 2: the label is 3 (int)"),
    "no labels": ([GOOD | {"labels": []}], [], "no row has a label"),
    "rare labels only": ([GOOD], ["--min_label_count", "2"], "no label occurs on 2 rows"),
    "same texts": (same_text_rows(), [], "all 12 texts are the same"),
    "one row": ([GOOD], [], "1 labelled rows are too few for 3 parts"),
    "two rows": ([GOOD, GOOD | {"title": "x"}], [], "2 labelled rows are too few for 3 parts"),
    "one label everywhere": (
        [GOOD | {"title": f"text {i}"} for i in range(9)],
        [],
        "every labelled row has every label",
    ),
    "unknown encoding": (
        b'{"title": "caf\x81", "labels": ["a"]}\n',
        [],
        "line 1: not UTF-8",
    ),
    "mixed encodings": (
        b'{"title": "caf\xc3\xa9", "labels": ["b"]}\n{"title": "caf\xe9"}\n',
        [],
        "line 2: not UTF-8 (byte 0xe9",
    ),
}


@pytest.mark.parametrize("case", DATA_MISTAKES)
def test_data_mistakes_name_the_file_and_the_row(case, tagger, tagger_flags, tmp_path):
    content, flags, fragment = DATA_MISTAKES[case]
    data = write(tmp_path / "mine.jsonl", content)
    line = tagger.mistake(
        *(*tagger_flags, "--data", data, "--output_dir", tmp_path / "out", *flags)
    )
    assert line.startswith(str(data))
    assert fragment in line


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--data", "someone/something"], "someone/something: no such file, and no usable hub"),
        (
            ["--model", "someone/something"],
            "--model someone/something: no such folder, not in the local",
        ),
        (["--model", "./nowhere"], "--model ./nowhere: no such folder"),
        (["--train_size", 61], "--train_size 61: the pool has 60 rows"),
        (["--train_size", 0], "--train_size 0: must be 1 or more"),
        (["--test_size", 1.5], "--test_size 1.5: must be 0 or more, below 1"),
        (["--valid_size", 0.5, "--test_size", 0.5], "leave none to train on"),
        (["--max_length", 65], "--max_length 65: must be 3 to 64 tokens"),
        (["--max_length", 2], "--max_length 2: must be 3 to 64 tokens"),
        (["--learning_rate", "nan"], "--learning_rate nan: must be above 0"),
        (["--num_train_epochs", 0], "--num_train_epochs 0.0: must be above 0"),
        (["--learn_rate", 1], "unknown flag --learn_rate; did you mean --learning_rate?"),
        (
            ["--metric_for_best_model", "f1"],
            "--metric_for_best_model f1: no such metric; choose from loss, micro_f1",
        ),
        (["--loss", "softmax"], "--loss softmax: a text of --data has several labels"),
        (["--thresholds", 1], "--thresholds 1: must be global, per_label or a number between 0"),
        (["--thresholds", "all"], "--thresholds all: must be global, per_label or a number"),
        (["--early_stopping_threshold", -1], "--early_stopping_threshold -1.0: must be 0 or more"),
        (["--warmup_factor", 2], "--warmup_factor 2.0: must be 0 or more, at most 1"),
        (["--seed", -1], "--seed -1: must be 0 or more, below 4294967296"),
        (["--dropout", "1"], "--dropout 1.0: must be 0 or more, below 1"),
        (["--dropout", "nan"], "--dropout nan: must be 0 or more"),
        (["--r_drop", -1], "--r_drop -1.0: must be 0 or more, below 100"),
        (["--r_drop", 1], "--r_drop: without dropout both passes are the same; add --dropout"),
        (["--refit", "true", "--train_size", 9], "--refit: trains on all labelled rows; remove"),
        (["--refit", "true", "--train_per_label", 2], "remove --train_per_label"),
        (["--refit", "--test_data", "a.csv", "--valid_size", 0], "are training rows already"),
        (["--report_to", "comet_ml"], "comet-ml"),
        (["--push_to_hub"], "--push_to_hub: cannot create"),
        (["--seed", "one"], "argument --seed: invalid int value: 'one'"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: No such file"),
        (["--config"], "argument --config: expected one argument"),
        (["--dataloader_drop_last", "true"], "--dataloader_drop_last: must be false; every row"),
        (["--debug", "underflow_overflow"], "--debug underflow_overflow: does not fit the recipes"),
    ],
)
def test_flag_mistakes_name_the_flag(flags, expected, tagger, tagger_flags, tmp_path):
    assert expected in tagger.mistake(*tagger_flags, "--output_dir", tmp_path, *flags)


def test_a_label_that_training_has_not_is_named_with_its_row(tagger, tagger_flags, tmp_path):
    test = write(tmp_path / "test.jsonl", [GOOD, {"title": "other", "labels": ["bug", "bugg"]}])
    flags = ["--test_data", test, "--unknown_labels", "error", "--output_dir", tmp_path / "out"]
    line = tagger.mistake(*tagger_flags, *flags)
    assert line.startswith(f"{test}")
    assert "bugg 1 (the first is in row 2" in line


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_part_without_labels_is_refused(part, tagger, tagger_flags, tmp_path):
    data = write(tmp_path / "blank.jsonl", [GOOD | {"labels": []}, {"title": "b", "labels": []}])
    line = tagger.mistake(*tagger_flags, f"--{part}_data", data, "--output_dir", tmp_path / "out")
    assert line.startswith(f"no {part} text has a label; ")


def test_a_label_without_positives_in_a_part_is_noted(tagger, tagger_flags, tiny_issues, tmp_path):
    rows = read_lines(tiny_issues)
    rows[0]["labels"].append("rare")
    rows[1]["labels"].append("rare")
    data = write(tmp_path / "rare.jsonl", rows)
    out = tmp_path / "out"
    printed = tagger(*tagger_flags, "--data", data, "--max_steps", 1, "--output_dir", out)
    assert len(re.findall(r"^note: no (valid|test) text has the label rare$", printed, re.M)) == 1
    assert "note: no train text" not in printed
    metrics = figures(out)
    assert metrics.pop("split") == "random"
    assert all(np.isfinite(value) for value in metrics.values())


def test_odd_texts_train_like_others(tagger, tagger_flags, tiny_issues, tmp_path):
    rows = read_lines(tiny_issues)
    rows[0]["body"] = "crash model " * 50_000
    rows[1]["title"] = "\U0001f600 \0 \ud83d \u202e \u200b e\u0301"
    rows[2] |= {"title": None, "body": "crash"}
    rows[3] |= {"title": "   ", "body": "\n"}
    rows[4]["title"] = "日本語のテキスト"
    data = write(tmp_path / "odd.jsonl", rows)
    out = tmp_path / "out"
    printed = tagger(*tagger_flags, "--data", data, "--max_steps", 2, "--output_dir", out)
    assert "left out: blank texts (rows 4) 1" in printed
    assert "longest 100,0" in printed


# --- models that are none ------------------------------------------------------------------------


def pickle_instead(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


BROKEN_MODELS = {
    "truncated weights": lambda folder: truncate(folder / "model.safetensors"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "a pickle": pickle_instead,
    "weights of another architecture": lambda folder: change_json(
        folder / "config.json", model_type="distilbert", dim=32, n_heads=2, n_layers=2
    ),
    "weights of another size": lambda folder: change_json(folder / "config.json", hidden_size=16),
    "truncated config": lambda folder: truncate(folder / "config.json"),
    "no tokenizer": lambda folder: [path.unlink() for path in folder.glob("*token*")],
    "truncated tokenizer": lambda folder: truncate(folder / "tokenizer.json"),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_broken_models_are_refused(case, tagger, tagger_flags, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "vocab.txt").unlink()  # the tokenizer.json beside it holds the same words
    BROKEN_MODELS[case](model)
    line = tagger.mistake(*tagger_flags, "--model", model, "--output_dir", tmp_path / "out")
    assert line.startswith(str(model))
    assert not list((tmp_path / "out").glob("model*"))


def test_code_in_a_model_folder_is_not_run(tagger, tagger_flags, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    trap = tmp_path / "code was run"
    (model / "code.py").write_text(f"open({str(trap)!r}, 'w')\n", encoding="utf-8")
    auto_map = {"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"}
    change_json(model / "config.json", model_type="unheard-of", auto_map=auto_map)
    tagger.mistake(*tagger_flags, "--model", model, "--output_dir", tmp_path / "out")
    assert not trap.exists()


# --- places that cannot be written, numbers that explode -----------------------------------------


def test_an_output_folder_that_cannot_be(tagger, tagger_flags, tmp_path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere"):
        line = tagger.mistake(*tagger_flags, "--output_dir", path)
        assert line.startswith(f"--output_dir {path}: ")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_full_disk_at_the_end_keeps_the_model(tagger, tagger_flags, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shared.cli.files.os.fsync", full)
    line = tagger.mistake(*tagger_flags, "--max_steps", 2, "--output_dir", tmp_path)
    assert "No space left on device" in line
    assert "free some space" in line
    assert (tmp_path / "model.safetensors").is_file()
    assert not (tmp_path / "metrics.json").exists()


def test_a_full_disk_in_a_checkpoint_keeps_the_last_one(
    tagger, tagger_flags, tmp_path, monkeypatch
):
    save = torch.save

    def full_later(value, file, *args, **kwargs):
        if "checkpoint-10" in str(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return save(value, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full_later)
    flags = [*tagger_flags, "--output_dir", tmp_path]
    assert "No space left on device" in tagger.mistake(*flags)
    line = tagger.mistake(*flags)
    assert "checkpoint-5 of an unfinished run" in line


def test_a_loss_that_explodes_stops_the_run(tagger, tagger_flags, tmp_path, monkeypatch):
    explode = MultilabelLoss.__call__

    def nan_later(self, outputs, labels, num_items_in_batch=None):
        calls.append(len(labels))
        scale = float("nan") if calls.count(12) > 7 else 1.0
        return explode(self, outputs, labels, num_items_in_batch) * scale

    calls = []
    monkeypatch.setattr(MultilabelLoss, "__call__", nan_later)
    monkeypatch.setattr(tagger.module, "fit_head", lambda *_, **__: None)
    line = tagger.mistake(*tagger_flags, "--output_dir", tmp_path)
    assert "at step 8" in line
    assert "--learning_rate" in line
    assert f"the last good checkpoint is {tmp_path / 'checkpoint-5'}" in line
    assert checkpoints(tmp_path) == ["checkpoint-5"]


def test_a_mistake_is_one_line_and_exit_code_2():
    process = run_script(SCRIPT, "--data", "nowhere.jsonl", check=False)
    assert process.returncode == 2
    assert the_line(process.stderr) == "nowhere.jsonl: no such file"
    assert process.stdout == ""


@pytest.mark.parametrize(("flag", "everything"), [("--help", False), ("--help_all", True)])
def test_help_shows_the_recipe_and_its_flags(flag, everything, tagger):
    with pytest.raises(SystemExit) as exit:
        tagger(flag)
    assert exit.value.code == 0
    printed, errors = tagger.capfd.readouterr()
    assert printed.startswith("Fine-tune an encoder")
    assert "--train_size" in printed
    assert ("--adam_beta1" in printed) == everything
    assert errors == ""
