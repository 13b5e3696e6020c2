"""Pattern-exploiting training from its command line: patterns, the tagger, resuming, mistakes."""

import csv

import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write
from conftest import TINY_PROMPTS
from forks import run_script
from transformers import TrainerCallback

from shared.taggers import load_tagger

WORDS = TINY_PROMPTS[TINY_PROMPTS.index("verbalizer") :]


@pytest.fixture
def topics(tiny_issues, tmp_path):
    """A file of the issues with their first labels alone: one label per text, or none."""
    rows = read_lines(tiny_issues)
    return write(tmp_path / "topics.jsonl", [{**r, "labels": r["labels"][:1]} for r in rows])


@pytest.fixture
def pet(tiny_model, tiny_mlm, topics, tmp_path, monkeypatch, capfd):
    """The recipe on 24 rows with labels, 78 without, 30 to test; two patterns."""
    prompts = write(tmp_path / "prompts.yaml", TINY_PROMPTS)
    return Recipe(
        *("pet", monkeypatch, capfd, "--data", topics, "--model", tiny_model, "--use_cpu"),
        *("--masked_model", tiny_mlm, "--prompts", prompts, "--bf16", "false"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
        *("--train_size", 24, "--max_length", 48, "--num_train_epochs", 2, "--learning_rate", 2e-3),
        *("--student_epochs", 1, "--tag_unlabelled", 0),
    )


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def patterns(folder):
    with open(folder / "patterns.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_patterns_learn_and_teach_a_tagger(pet, tmp_path):
    flags = ("--train_size", 60, "--num_train_epochs", 40, "--learning_rate", 3e-3)
    flags += ("--student_epochs", 8, "--student_learning_rate", 2e-3)
    printed = pet(*flags, "--masked_weight", 0)
    assert "Pattern 2 of 2: '{text} is {mask}'" in printed
    assert "Training the tagger on 42 texts that 2 models labelled" in printed
    metrics, rows = read_json(tmp_path / "out" / "metrics.json"), patterns(tmp_path / "out")
    assert [row["pattern"] for row in rows] == ["{mask}: {text}", "{text} is {mask}"]
    assert all(0 <= float(row["accuracy_before"]) <= 1 for row in rows)
    assert metrics["ensemble_test_micro_f1"] > 0.5  # by chance: .25
    assert metrics["test_accuracy"] > 0.5
    assert metrics["train_samples"] == 60
    assert not (tmp_path / "out" / ".rounds").exists()
    tagger = load_tagger(tmp_path / "out")
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    scores = tagger.scores([line["text"] for line in lines])
    expected = [[line["scores"][label] for label in tagger.label_names] for line in lines]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert "patterns.csv" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_several_labels_per_text_by_the_loss_of_adapet(pet, tiny_issues, tmp_path):
    prompts = write(tmp_path / "one.yaml", "templates: '{text} is {mask}'\n" + WORDS)
    flags = ("--data", tiny_issues, "--prompts", prompts)
    pet(*flags, "--repetitions", 2, "--weights", "uniform")
    rows = patterns(tmp_path / "out")
    assert [row["seed"] for row in rows] == ["42", "43"]
    assert rows[0]["accuracy_before"] == rows[1]["accuracy_before"]
    tagger = load_tagger(tmp_path / "out")
    assert tagger.rule.at_least_one
    assert "(adapet)" in (tmp_path / "out" / "README.md").read_text("utf-8")
    line = pet.mistake(*flags, "--loss", "pet", "--output_dir", tmp_path / "other")
    assert "--loss pet: takes one label per text" in line


class Killed(Exception):
    """Raised in place of a kill."""


class KillAt(TrainerCallback):
    """Raise at the second epoch of the given training of a run."""

    trainings = 0

    def __init__(self, training):
        self.training = training

    def on_train_begin(self, *args, **kwargs):
        type(self).trainings += 1

    def on_epoch_begin(self, args, state, control, **kwargs):
        if type(self).trainings == self.training and state.epoch == 1:
            raise Killed


def test_a_killed_run_ends_as_one_that_was_not(pet, tmp_path):
    # A weight of the masked tokens that matters, and a checkpoint after each step.
    flags = ("--masked_weight", 0.5, "--save_steps", 1, "--save_total_limit", 2)
    pet(*flags, "--output_dir", tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        KillAt.trainings = 0
        patch.setattr(pet.module, "ReadableProgress", lambda: KillAt(2))
        with pytest.raises(Killed):
            pet(*flags)
    assert "continue it with --resume_from_checkpoint true" in pet.mistake(*flags)
    printed = pet(*flags, "--resume_from_checkpoint", "true")
    assert printed.count("epoch  2.00") == 1  # of the second pattern; the first one is loaded
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "whole")
    assert patterns(tmp_path / "out") == patterns(tmp_path / "whole")


def test_two_processes_do_the_work_of_one(pet, tmp_path):
    flags = ("--masked_weight", 0.5, "--optim", "sgd", "--learning_rate", 0.1)
    pet(*flags, "--per_device_train_batch_size", 8)
    flags = (*pet.flags, *flags, "--per_device_train_batch_size", 4)
    process = run_script("recipes/pet.py", *flags, "--output_dir", tmp_path / "two", processes=2)
    assert process.stdout.count("Everything is in") == 1
    one, two = (read_lines(tmp_path / run / "test_predictions.jsonl") for run in ("out", "two"))
    for expected, actual in zip(one, two, strict=True):
        assert actual["scores"] == pytest.approx(expected["scores"], abs=1e-4)


def test_health_is_checked_and_nothing_is_trained(pet, tmp_path):
    printed = pet("--health_check")
    assert f"uniform predictions have a loss of {np.log(4):.3f}" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_mistakes(pet, tiny_model, topics, tmp_path):
    line = pet.mistake("--masked_model", tiny_model)
    assert "has no head for masked-language modelling; train one (recipes/domain_adapt" in line
    other = write(tmp_path / "other.yaml", WORDS.replace("docs", "documentation"))
    line = pet.mistake("--prompts", other)
    assert "label 'documentation': 'documentation' has 13 tokens (d, ##o, ##c, " in line
    assert "the label 'bug' is missing" in pet.mistake(
        "--prompts", write(tmp_path / "few.yaml", "verbalizer: {speed: slow}")
    )
    long = write(tmp_path / "long.yaml", f"templates: '{'add ' * 50}{{mask}} {{text}}'\n{WORDS}")
    assert "leaves no room for a text" in pet.mistake("--prompts", long)
    line = pet.mistake("--resume_from_checkpoint", "outputs/checkpoint-3")
    assert "true or false; each training finds its own" in line
    place = pet.flags.index("--masked_model")
    pet.flags = (*pet.flags[:place], *pet.flags[place + 2 :])
    assert "--masked_model: name a masked language model" in pet.mistake()
