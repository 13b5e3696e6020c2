"""Self-training from its command line: teachers, rounds, what a collapse leaves, resuming."""

import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write
from forks import run_script
from transformers import TrainerCallback

from shared.methods import pseudo_labels
from shared.taggers import load_tagger

SCRIPT = "recipes/self_training.py"
TIMINGS = ("_runtime", "_per_second")


@pytest.fixture
def base(tiny_model, tmp_path_factory):
    """Flags of a run of a few seconds, without those of the data."""
    return [
        *("--model", tiny_model, "--dropout", 0.1, "--use_cpu", "--bf16", "false"),
        *("--cache_dir", tmp_path_factory.getbasetemp() / "self_training_cache"),
        *("--max_length", 48, "--learning_rate", 1e-3, "--per_device_train_batch_size", 12),
        *("--num_train_epochs", 3, "--student_epochs", 2, "--passes", 3, "--rounds", 2),
    ]


@pytest.fixture
def self_training(base, tiny_issues, tmp_path, monkeypatch, capfd):
    """The recipe on the multilabel issues: 24 rows with labels, 78 without, 30 to test."""
    flags = [*base, "--data", tiny_issues, "--train_size", 24, "--output_dir", tmp_path / "out"]
    return Recipe("self_training", monkeypatch, capfd, *flags)


@pytest.fixture
def topics(tiny_issues, tmp_path):
    """A file of the issues with their first labels alone: one label per text, or none."""
    rows = read_lines(tiny_issues)
    return write(tmp_path / "topics.jsonl", [{**r, "labels": r["labels"][:1]} for r in rows])


def without_size(recipe):
    """The flags of the recipe without --train_size: all labelled rows are for training."""
    flags = [*recipe.flags]
    del flags[flags.index("--train_size") : flags.index("--train_size") + 2]
    return flags


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def figures(folder):
    """The metrics of a run, without its timings."""
    metrics = read_json(folder / "metrics.json")
    return {name: value for name, value in metrics.items() if not name.endswith(TIMINGS)}


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_ends_with_a_tagger_and_says_what_its_rounds_did(self_training, tmp_path):
    printed = self_training()
    folder = tmp_path / "out"
    assert "unlabelled: 78 of 78 texts" in printed
    assert "Training on 24 labelled texts" in printed
    assert "Round 1: training on" in printed
    metrics = figures(folder)
    assert metrics["n_unlabelled"] == 78
    assert metrics["round"] in (0, 1, 2)
    assert metrics["round"] == 0 or "supervised_test_micro_f1" in metrics
    assert not (folder / ".rounds").exists()
    tagger = load_tagger(folder)
    assert tagger.rule.at_least_one  # every row of the data that is labelled has a label
    assert len(tagger("crash traceback error")["labels"]) >= 1
    assert (folder / "report.html").is_file()


def test_classic_self_training_with_one_label_per_text(self_training, topics, tmp_path):
    flags = ("--data", topics, "--uncertainty", "none", "--chosen", 1)
    trained = []

    def keep(*args):
        trained.append(student_rows(*args))
        return trained[-1]

    student_rows = self_training.module.student_rows
    self_training.monkeypatch.setattr(self_training.module, "student_rows", keep)
    self_training(*flags, "--dropout", 0)  # which it does not need
    assert "test_accuracy" in figures(tmp_path / "out")
    labels, weight = (np.array(trained[1][name]) for name in ("labels", "weight"))
    assert len(labels) == 24 + 78
    assert (labels.sum(axis=1) == 1).all()
    assert set(np.unique(labels)) == {0, 1}
    assert weight.mean() == pytest.approx(1)
    assert np.unique(weight).size == 1  # 24 of 102 are more than the least share of a tenth


def test_with_validation_rows_the_best_round_is_kept(self_training, tmp_path):
    printed = self_training("--valid_size", 0.25, "--rounds", 3)
    metrics = figures(tmp_path / "out")
    assert metrics["valid_samples"] == 30
    stopped = "is no better on the validation rows" in printed
    assert stopped or metrics["round"] == 3 or metrics["collapse"]
    assert not load_tagger(tmp_path / "out").rule.at_least_one  # thresholds are tuned instead


def test_a_refit_learns_from_all_labelled_rows(self_training, tmp_path, topics):
    flags = ("--data", topics, "--valid_size", 0.25, "--test_size", 0.5, "--rounds", 1)
    self_training("--train_size", "30", *flags)
    before = weights_of(tmp_path / "out")
    self_training.flags = without_size(self_training)
    self_training(
        "--data", topics, "--valid_size", 0.25, "--test_size", 0.5, "--rounds", 1, "--refit"
    )
    assert weights_of(tmp_path / "out") != before


# --- teachers ------------------------------------------------------------------------------------


@pytest.fixture
def teacher(topics, tmp_path, monkeypatch, capfd):
    """The folder of a naive Bayes tagger that knows all labelled rows."""
    folder = tmp_path / "teacher"
    Recipe("naive_bayes", monkeypatch, capfd)(
        *("--data", topics, "--cache_dir", tmp_path / "cache", "--output_dir", folder)
    )
    return folder


def test_a_saved_tagger_is_distilled_into_the_encoder(self_training, topics, teacher, tmp_path):
    flags = ("--data", topics, "--rounds", 1, "--student_epochs", 15, "--chosen", 1)
    printed = self_training(*flags, "--teacher", teacher, teacher)
    assert f"Scoring 78 unlabelled texts with {teacher}, {teacher}" in printed
    metrics = figures(tmp_path / "out")
    assert metrics["round"] == 1
    assert metrics["teacher_test_micro_f1"] > 0.9
    assert metrics["test_micro_f1"] > metrics["supervised_test_micro_f1"]


def test_without_labels_the_teacher_is_all_there_is(self_training, topics, teacher, tmp_path):
    rows = read_lines(topics)
    unlabelled = write(tmp_path / "new.jsonl", [{**r, "labels": None} for r in rows[:80]])
    test = write(tmp_path / "test.jsonl", rows[80:120])
    files = ("--data", unlabelled, "--test_data", test)
    self_training.flags = without_size(self_training)
    self_training(*files, "--teacher", teacher, "--student_epochs", 15, "--chosen", 1)
    metrics = figures(tmp_path / "out")
    assert metrics["test_samples"] == 40
    assert "supervised_test_micro_f1" not in metrics
    assert metrics["test_accuracy"] > 0.6
    assert load_tagger(tmp_path / "out").rule.top_k == 1

    line = self_training.mistake("--data", unlabelled, "--teacher", teacher)
    assert "no row is labelled by hand" in line
    module = self_training.module
    self_training.monkeypatch.setattr(module, "describe_collapse", lambda *_: "all are bugs")
    line = self_training.mistake(*files, "--teacher", teacher)
    assert "its student has collapsed (all are bugs)" in line


def test_a_teacher_with_other_labels_is_refused(self_training, topics, teacher, tmp_path):
    rows = [{**r, "labels": ["typo"]} if i == 5 else r for i, r in enumerate(read_lines(topics))]
    other = write(tmp_path / "other.jsonl", rows)
    line = self_training.mistake("--data", other, "--teacher", teacher)
    assert "does not know 1 labels of --data: typo; leave them out with --drop_labels" in line
    flags = ("--data", other, "--teacher", teacher, "--rounds", 1)
    assert "Round 1" in self_training(*flags, "--min_label_count", 2)  # which leaves it out, too


# --- labels of others ----------------------------------------------------------------------------


def test_rows_with_a_weight_are_trained_on_and_not_tested(self_training, topics, tmp_path):
    rows = [{**r, "confidence": None} for r in read_lines(topics)]
    for number, row in enumerate(rows[:60]):
        row["confidence"] = (number % 10) / 10
    data = write(tmp_path / "weighted.jsonl", rows)
    self_training.flags = without_size(self_training)
    printed = self_training("--data", data, "--weight_column", "confidence", "--rounds", 1)
    assert "Training on 105 labelled texts" in printed  # 45 by hand
    tested = {line["row"] for line in read_lines(tmp_path / "out" / "test_predictions.jsonl")}
    assert len(tested) == 15
    assert min(tested) > 60


# --- collapse ------------------------------------------------------------------------------------


def test_after_a_collapse_the_model_of_the_labelled_texts_is_kept(self_training, tmp_path):
    module, judged = self_training.module, []

    def collapse(supervised, trained, y_train, label_names):
        judged.append((supervised, trained, y_train))
        return "one label took all"

    self_training.monkeypatch.setattr(module, "describe_collapse", collapse)
    printed = self_training()
    assert "The student of round 1 collapsed: one label took all." in printed
    assert "The model of the labelled texts is kept." in printed
    metrics = figures(tmp_path / "out")
    assert (metrics["round"], metrics["collapse"]) == (0, "one label took all")
    ((supervised, trained, y_train),) = judged
    assert y_train.shape == (24, 4)
    for labels in (supervised, trained):
        assert [labels[part].shape for part in ("train", "unlabelled")] == [(24, 4), (78, 4)]
    assert "collapsed" in (tmp_path / "out" / "README.md").read_text("utf-8")

    # It is the model that the recipe trains without any unlabelled text.
    kept = weights_of(tmp_path / "out")
    self_training.monkeypatch.setattr(module, "describe_collapse", lambda *_: "again")
    self_training("--rounds", 1, "--pseudo_labels", "soft")
    assert weights_of(tmp_path / "out") == kept


# --- resuming, and several processes -------------------------------------------------------------


class Killed(Exception):
    """Raised in place of a kill."""


class KillAt(TrainerCallback):
    """Raise at the given epoch of the given training of a run."""

    trainings = 0

    def __init__(self, training, epoch):
        self.training, self.epoch = training, epoch

    def on_train_begin(self, *args, **kwargs):
        type(self).trainings += 1

    def on_epoch_begin(self, args, state, control, **kwargs):
        if (type(self).trainings, state.epoch) == (self.training, self.epoch):
            raise Killed


@pytest.mark.parametrize("place", ["in a round", "between rounds"])
def test_a_killed_run_ends_as_one_that_was_not(self_training, tmp_path, place):
    module = self_training.module
    self_training("--output_dir", tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        if place == "in a round":
            KillAt.trainings = 0
            patch.setattr(module, "ReadableProgress", lambda: KillAt(2, 1.0))
        else:
            choose, calls = pseudo_labels.choose_texts, []

            def choose_twice(*args, **kwargs):
                calls.append(args)
                if len(calls) == 2:
                    raise Killed
                return choose(*args, **kwargs)

            patch.setattr(pseudo_labels, "choose_texts", choose_twice)
        with pytest.raises(Killed):
            self_training()
    assert list((tmp_path / "out" / ".rounds").glob("*/checkpoint-*"))
    line = self_training.mistake()
    assert "continue it with --resume_from_checkpoint true" in line
    printed = self_training("--resume_from_checkpoint", "true")
    assert printed.count("epoch  3.00") == 0  # the first teacher is loaded
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "whole")
    assert figures(tmp_path / "out") == figures(tmp_path / "whole")


def test_two_processes_give_the_figures_of_one(self_training, base, tiny_issues, tmp_path):
    # Dropout in training draws other numbers in each process; passes with it do not.
    flags = ("--rounds", 1, "--dropout", 0, "--uncertainty", "none")
    flags += ("--learning_rate", 1e-4, "--num_train_epochs", 2, "--student_epochs", 1)
    self_training(*flags, "--output_dir", tmp_path / "one")
    flags = [*self_training.flags, *flags, "--output_dir", tmp_path / "two"]
    process = run_script(SCRIPT, *flags, "--per_device_train_batch_size", 6, processes=2)
    # Not all figures: two labels with nearly equal scores may change places in a ranking.
    one, two = (read_lines(tmp_path / name / "test_predictions.jsonl") for name in ("one", "two"))
    for expected, actual in zip(one, two, strict=True):
        assert actual["scores"] == pytest.approx(expected["scores"], abs=1e-4)
    losses = [figures(tmp_path / name)["test_loss"] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert process.stdout.count("Everything is in") == 1


# --- mistakes ------------------------------------------------------------------------------------


def test_mistakes_end_in_one_line(self_training, topics, tmp_path):
    assert "--passes 1: must be 2 or more" in self_training.mistake("--passes", 1)
    assert "--chosen" in self_training.mistake("--chosen", 0)
    line = self_training.mistake("--dropout", 0)
    assert "the model has no dropout" in line
    assert "--dropout 0.1" in line
    line = self_training.mistake("--resume_from_checkpoint", "outputs/checkpoint-3")
    assert "true or false; each round finds its own" in line
    rows = read_lines(topics)
    self_training.flags = without_size(self_training)
    labelled = write(tmp_path / "labelled.jsonl", rows[:120])
    assert "no unlabelled text to train on" in self_training.mistake("--data", labelled)
    line = self_training.mistake("--data", topics, "--train_size", 2)
    assert "no example of 2 of 4 classes" in line
    line = self_training.mistake("--teacher", tmp_path / "nothing")
    assert "nothing" in line
