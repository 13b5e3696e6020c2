import json
import os
import signal
import sqlite3

import numpy as np
import pytest
import torch
from command_line import Recipe, launch, read_json, read_lines, write
from safetensors.torch import load_file
from transformers import pipeline

import shared.models.networks  # noqa: F401  (as the card says)
from shared.evaluation.metrics import f1_scores
from shared.taggers import read_tagger

SCRIPT = "recipes/imdb_cnn_rnn.py"
LABELS = ["bug", "documentation", "feature", "speed"]


@pytest.fixture(scope="session")
def tiny_classes(tiny_issues, tmp_path_factory):
    """The tiny issues with the first of their labels alone: classes that exclude each other."""
    rows = [row for row in read_lines(tiny_issues) if len(row["labels"]) == 1]
    return write(tmp_path_factory.mktemp("classes") / "classes.jsonl", rows)


@pytest.fixture
def flags(tiny_issues, tmp_path):
    """A short, exactly repeatable training: 60, 30 and 30 rows, 100 steps."""
    return [
        *("--data", tiny_issues, "--cache_dir", tmp_path / "cache"),
        *("--output_dir", tmp_path / "out", "--use_cpu", "--bf16", "false"),
        *("--embedding_size", 16, "--hidden_size", 16, "--learning_rate", 1e-2),
        *("--max_steps", 100, "--eval_steps", 50, "--save_steps", 50, "--logging_steps", 10),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("imdb_cnn_rnn", monkeypatch, capfd, *flags)


class Stopped(Exception):
    """Carries the Trainer of a recipe that was stopped before its training."""


@pytest.fixture
def trainer_of(recipe, monkeypatch):
    """Call the recipe up to its training; return the Trainer it has built."""

    def stop(trainer, **_):
        raise Stopped(trainer)

    def call(*flags):
        with monkeypatch.context() as patch:
            patch.setattr(recipe.module.LengthGroupedTrainer, "train", stop)
            with pytest.raises(Stopped) as stopped:
                recipe(*flags)
        return stopped.value.args[0]

    return call


def predicted(folder):
    """What is true and what is predicted: arrays of shape (rows, labels)."""
    lines = read_lines(folder / "test_predictions.jsonl")
    return (
        np.array([[name in line[key] for name in LABELS] for line in lines])
        for key in ("true_labels", "labels")
    )


# --- a finished run ------------------------------------------------------------------------------


def test_a_refit_trains_as_many_epochs_on_more_rows(recipe, tiny_classes, tmp_path, monkeypatch):
    train, trainers = recipe.module.LengthGroupedTrainer.train, []

    def spy(trainer, **options):
        trainers.append(trainer)
        return train(trainer, **options)

    monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "train", spy)
    recipe("--data", tiny_classes, "--refit", "true")
    first, second = trainers
    n_train, n_all = len(first.train_dataset), len(second.train_dataset)
    assert (n_train, n_all) == (48, 96)
    assert second.state.global_step == 2 * first.state.best_global_step
    log = read_json(tmp_path / "out" / "training_log.json")["log_history"]
    assert log[: len(first.state.log_history)] == first.state.log_history  # not that of the second
    assert read_json(tmp_path / "out" / "metrics.json")["refit_samples"] == 96
    assert not (tmp_path / "out" / ".refit").exists()
    assert "all 96 labelled texts" in (tmp_path / "out" / "README.md").read_text("utf-8")


ARCHITECTURES = {
    **{name: ["--architecture", name] for name in ("ngrams", "cnn", "rnn", "lstm", "gru")},
    "several widths": ["--filter_widths", 1, 2, 3],
    "both ways": ["--architecture", "gru", "--bidirectional"],
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_architecture_learns_classes(name, recipe, tiny_classes, tmp_path):
    recipe(*ARCHITECTURES[name], "--data", tiny_classes, "--dropout", 0.1)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    y, actual = predicted(tmp_path / "out")
    assert (actual.sum(axis=1) == 1).all()
    assert metrics["test_accuracy"] == (y == actual).all(axis=1).mean()
    if name in (
        "ngrams",
        "cnn",
        "several widths",
    ):  # a state needs more than 50 texts
        assert metrics["test_accuracy"] > 0.6
        card = (tmp_path / "out" / "README.md").read_text("utf-8")
        assert f"| test accuracy | {metrics['test_accuracy']:.3f} |" in card
        assert "micro F1" not in card
        assert "exactly one of 4 labels" in card
    history = read_json(tmp_path / "out" / "training_log.json")["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < 0.7 * np.log(4) < losses[0]
    config = read_json(tmp_path / "out" / "config.json")
    assert config["problem_type"] == "single_label_classification"
    assert config["id2label"] == {str(i): name for i, name in enumerate(LABELS)}
    assert config["one_label_each"]


def test_several_labels_per_text(recipe, tmp_path):
    printed = recipe("--word_dropout", 0.1)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    y, actual = predicted(tmp_path / "out")
    assert (y.sum(axis=1) == 2).any()
    expected = f1_scores(y, actual)
    for name in ("micro_f1", "macro_f1"):
        assert metrics[f"test_{name}"] == expected[name]
    assert metrics["test_micro_f1"] > 0.6
    assert f"micro F1 {metrics['test_micro_f1']:.3f}" in printed
    config = read_json(tmp_path / "out" / "config.json")
    assert config["problem_type"] == "multi_label_classification"
    for line in read_lines(tmp_path / "out" / "test_predictions.jsonl"):
        thresholds = dict(zip(LABELS, config["thresholds"], strict=True))
        chosen = [name for name, score in line["scores"].items() if score >= thresholds[name]]
        assert line["labels"] == chosen


def test_through_accelerate_launch(flags, tmp_path, tiny_classes):
    process = launch(SCRIPT, *flags, "--data", tiny_classes)
    assert process.stderr == ""
    assert "cnn: " in process.stdout
    assert "accuracy 0." in process.stdout.split("Training")[1]
    out = tmp_path / "out"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("networks.py", "README.md", "metrics.json", "per_label.csv", "test_predictions.jsonl"),
        *("training_log.json", "plots/training_curve.png", "tagger.json"),
        *("report.html", "label_errors.csv"),
        *("plots/words_per_text.png", "plots/label_counts.png"),
    }
    history = read_json(out / "training_log.json")["log_history"]
    assert len([entry for entry in history if "loss" in entry]) == 10
    assert [entry["step"] for entry in history if "eval_accuracy" in entry] == [50, 100]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "trust_remote_code=True" in card
    assert f'"{out}"' in card


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_pipeline_and_the_recipe_tag_give_the_same_scores(
    side, recipe, monkeypatch, capfd, tiny_classes, tmp_path
):
    flags = ["--max_length", 12, "--truncation_side", side, "--architecture", "lstm"]
    recipe("--data", tiny_classes, "--max_steps", 50, *flags)
    out = tmp_path / "out"
    lines = read_lines(out / "test_predictions.jsonl")
    texts = [line["text"] for line in lines]
    classifier = pipeline("text-classification", model=str(out), top_k=None, device="cpu")
    contents = read_tagger(out)
    for line, actual in zip(lines, classifier(texts, truncation=True), strict=True):
        by_name = {item["label"]: item["score"] for item in actual}
        raw_scores = np.array([[by_name[name] for name in contents.label_names]])
        calibrated = dict(
            zip(contents.label_names, contents.calibration(raw_scores)[0], strict=True)
        )
        assert line["scores"] == pytest.approx(calibrated, abs=1e-4)
        assert sum(line["scores"].values()) == pytest.approx(1, abs=1e-5)
    data = write(tmp_path / "new.jsonl", [{"text": text} for text in texts])
    tag = Recipe("tag", monkeypatch, capfd, "--model", out, "--use_cpu")
    tag("--data", data, "--output", tmp_path / "tagged.jsonl")
    for line, tagged in zip(lines, read_lines(tmp_path / "tagged.jsonl"), strict=True):
        assert tagged["labels"] == line["labels"]
        assert tagged["scores"] == pytest.approx(line["scores"], abs=1e-5)


# --- what it is made of --------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["words", "wordpiece"])
def test_the_vocabulary_is_built_from_the_training_texts_alone(
    algorithm, recipe, trainer_of, monkeypatch
):
    learned = []
    original = recipe.module.train_tokenizer

    def spy(texts, *rest, **options):
        learned.append(list(texts))
        return original(learned[-1], *rest, **options)

    monkeypatch.setattr(recipe.module, "train_tokenizer", spy)
    trainer = trainer_of("--algorithm", algorithm, "--vocab_size", 120)
    assert learned == [trainer.train_dataset["text"][:]]
    assert len(learned[0]) == 60
    assert trainer.model.config.vocab_size == len(trainer.processing_class) <= 120


def test_flags_set_the_sizes(trainer_of):
    flags = ["--num_filters", 7, "--filter_widths", 2, 4, "--dropout", 0.3, "--word_dropout", 0.2]
    config = trainer_of(*flags, "--pooling", "mean_max").model.config
    assert (config.num_filters, list(config.filter_widths)) == (7, [2, 4])
    assert config.pooling == "mean_max"
    assert (config.dropout, config.word_dropout, config.embedding_size) == (0.3, 0.2, 16)
    config = trainer_of("--architecture", "ngrams", "--ngram_size", 3, "--buckets", 99).model.config
    assert (config.ngram_size, config.buckets) == (3, 99)
    config = trainer_of("--architecture", "rnn", "--bidirectional").model.config
    assert (config.cell, config.hidden_size, config.bidirectional) == ("rnn", 16, True)


def test_known_words_start_from_their_vectors(recipe, trainer_of, tmp_path):
    vectors = {"crash": [1, 2, 3], "nowhere": [4, 5, 6], "the": [7, 8, 9.5]}
    lines = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in vectors.items()]
    path = write(tmp_path / "vectors.txt", "".join(lines))
    trainer = trainer_of("--embeddings", path)
    weight = trainer.model.get_input_embeddings().weight.detach()
    assert weight.shape[1] == 3
    ids = trainer.processing_class.get_vocab()
    assert weight[ids["crash"]].tolist() == [1, 2, 3]
    assert weight[ids["the"]].tolist() == [7, 8, 9.5]
    assert weight[ids["data"]].abs().max() < 0.2
    printed = recipe("--embeddings", path, "--max_steps", 1)
    assert f"vectors of 2 of {len(ids)} tokens" in printed


def test_health_is_checked_before_the_training_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--architecture", "lstm", "--health_check")
    lines = printed[printed.index("\nHealth\n") :].splitlines()
    assert len([line for line in lines if line.startswith(("  ok ", "  LOOK "))]) == 8
    assert "Training" not in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


# --- what repeats --------------------------------------------------------------------------------


def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(recipe, monkeypatch, tmp_path):
    flags = ["--architecture", "gru", "--dropout", 0.2, "--word_dropout", 0.1]
    recipe(*flags)
    expected = load_file(tmp_path / "out" / "model.safetensors")
    figures = read_json(tmp_path / "out" / "metrics.json")
    history = read_json(tmp_path / "out" / "training_log.json")["log_history"]

    other = [*flags, "--output_dir", tmp_path / "other"]
    step = recipe.module.LengthGroupedTrainer.training_step

    def step_with_signal(trainer, *args, **kwargs):
        if trainer.state.global_step == 71:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(recipe.module.LengthGroupedTrainer, "training_step", step_with_signal)
        with pytest.raises(SystemExit):
            recipe(*other)
    line = recipe.mistake(*other)
    assert "holds checkpoint-72 of an unfinished run" in line
    # Another network cannot go on from there.
    for wrong, what in (
        (["--architecture", "lstm"], "cell"),
        (["--hidden_size", 8], "hidden_size"),
    ):
        line = recipe.mistake(*other, *wrong, "--resume_from_checkpoint", "true")
        assert f"was trained with other {what}" in line

    recipe(*other, "--resume_from_checkpoint", "true")
    actual = load_file(tmp_path / "other" / "model.safetensors")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    again = read_json(tmp_path / "other" / "metrics.json")
    for name in ("test_micro_f1", "test_loss", "valid_macro_f1", "epoch"):
        assert again[name] == figures[name]
    log = read_json(tmp_path / "other" / "training_log.json")["log_history"]
    losses = [[e["eval_loss"] for e in entries if "eval_loss" in e] for entries in (history, log)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


@pytest.mark.parametrize("class_weight", [None, "none", "balanced"])
@pytest.mark.parametrize("data", ["tiny_issues", "tiny_classes"])
def test_class_weights(data, class_weight, trainer_of, request):
    flags = ["--data", request.getfixturevalue(data)]
    flags += ["--class_weight", class_weight] if class_weight else []
    loss = trainer_of(*flags).compute_loss_func
    weight = loss.weight if data == "tiny_classes" else loss.pos_weight
    default = "none" if data == "tiny_classes" else "balanced"
    assert (weight is not None) == ((class_weight or default) == "balanced")


def test_it_stops_without_a_better_evaluation(recipe, tmp_path):
    flags = ["--eval_steps", 10, "--save_steps", 10, "--max_steps", 2000, "--patience", 2]
    recipe(*flags)
    history = read_json(tmp_path / "out" / "training_log.json")["log_history"]
    scores = [entry["eval_micro_f1"] for entry in history if "eval_micro_f1" in entry]
    assert len(scores) == int(np.argmax(scores)) + 1 + 2 < 200


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--architecture", "bert"], "invalid choice: 'bert'"),
        (["--vocab_size", 5], "--vocab_size 5: the special tokens alone are 5"),
        (["--filter_widths", 0], "--filter_widths 0: must be 1 or more"),
        (["--ngram_size", 0], "--ngram_size 0: must be 1 or more"),
        (["--num_filters", 0], "--num_filters 0: must be 1 or more"),
        (["--num_layers", 0], "--num_layers 0: must be 1 or more"),
        (["--thresholds", 0], "--thresholds 0: must be global, per_label or a number"),
        (["--hidden_size", -1], "--hidden_size -1: must be 1 or more"),
        (["--embedding_size", 0], "--embedding_size 0: must be 1 or more"),
        (["--dropout", 1], "--dropout 1.0: must be 0 or more, below 1"),
        (["--word_dropout", -0.1], "--word_dropout -0.1: must be 0 or more, below 1"),
        (["--patience", 0], "--patience 0: must be 1 or more"),
        (["--learning_rate", 0], "--learning_rate 0.0: must be above 0"),
        (["--max_length", 2], "--max_length 2: must be 3 or more"),
        (["--embeddings", "x.txt", "--algorithm", "bpe"], "use --algorithm words"),
        (["--embeddings", "nowhere.txt"], "nowhere.txt: cannot be read (No such file"),
        (["--eval_steps", 30], "these flags do not fit together"),
        (
            ["--metric_for_best_model", "f1"],
            "--metric_for_best_model f1: no such metric; choose from",
        ),
        (["--train_size", 61], "--train_size 61: the pool has 60 rows"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_a_tracker_gets_the_training_without_a_network(tracker, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "tracked"))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tracked"))
    recipe("--report_to", tracker, "--max_steps", 2, "--logging_steps", 1)
    if tracker == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "tracked")).Reload()
        losses = [event.step for event in events.Scalars("train/loss")]
    else:
        (database,) = (tmp_path / "tracked").glob("*.db")
        with sqlite3.connect(database) as connection:
            logged = [
                json.loads(row) for (row,) in connection.execute("select metrics from metrics")
            ]
        losses = [row["train/global_step"] for row in logged if "train/loss" in row]
    assert losses == [1, 2]
