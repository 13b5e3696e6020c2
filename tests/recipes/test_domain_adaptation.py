import math

import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write
from forks import run_script
from safetensors.numpy import load_file


@pytest.fixture
def unlabelled(tiny_issues, tmp_path):
    """Path of 120 issues, the first 30 with their labels; the last one repeats the first."""
    rows = read_lines(tiny_issues)[:120]
    for row in rows[30:]:
        row["labels"] = []
    words = rows[0]["body"].split()
    rows.append({**rows[0], "body": " ".join([*words, "once", "more"]), "labels": []})
    return write(tmp_path / "unlabelled.jsonl", rows)


@pytest.fixture
def flags(tiny_model, unlabelled, tmp_path):
    return [
        *("--model", tiny_model, "--data", unlabelled, "--use_cpu", "--bf16", "false"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
        *("--max_length", 48, "--num_train_epochs", 3, "--learning_rate", 1e-2),
        *("--held_out_share", 0.2),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("domain_adaptation", monkeypatch, capfd, *flags)


def test_perplexity_falls_and_the_tagger_takes_the_encoder(
    recipe, tmp_path, tiny_model, tiny_issues, monkeypatch, capfd
):
    printed = recipe()
    metrics = read_json(tmp_path / "out" / "metrics.json")
    vocabulary = read_json(tiny_model / "config.json")["vocab_size"]
    assert metrics["perplexity_before"] == pytest.approx(vocabulary, rel=0.3)  # knows nothing
    assert metrics["perplexity_after"] < 0.8 * metrics["perplexity_before"]
    assert f"{metrics['perplexity_after']:,.1f}" in printed
    assert (tmp_path / "out" / "plots" / "training_curve.png").stat().st_size > 10_000
    assert not list((tmp_path / "out").glob("checkpoint-*"))

    tagger = Recipe("github_tagger", monkeypatch, capfd)
    tagger(
        *("--model", tmp_path / "out", "--data", tiny_issues, "--use_cpu", "--bf16", "false"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "tagger"),
        *("--max_length", 48, "--max_steps", 2),
    )
    # No step of the tagger moves word embeddings as far as the adaptation did.
    name = "bert.embeddings.word_embeddings.weight"
    adapted = load_file(tmp_path / "out" / "model.safetensors")[name]
    tagged = load_file(tmp_path / "tagger" / "model.safetensors")[name]
    first = load_file(tiny_model / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert np.abs(tagged - adapted).mean() < 0.1 * np.abs(first - adapted).mean()


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path, tiny_model):
    printed = recipe("--health_check")
    n_tokens = read_json(tiny_model / "config.json")["vocab_size"]
    assert f"uniform predictions have a loss of {np.log(n_tokens):.3f}" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_no_text_that_repeats_a_labelled_one(recipe, tmp_path):
    printed = recipe("--max_steps", 1)
    # 91 unlabelled rows but the one that repeats the first labelled one
    assert "72 unlabelled texts to learn from, 18 to measure on" in printed


def test_a_resumed_run_is_bitwise_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    steps = ["--save_strategy", "steps", "--save_steps", 7, "--save_total_limit", 9]
    recipe(*steps)
    expected = load_file(tmp_path / "out" / "model.safetensors")
    monkeypatch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
    recipe(*steps, "--output_dir", tmp_path / "again")
    last = tmp_path / "again" / "checkpoint-7"  # in the second epoch
    recipe(*steps, "--output_dir", tmp_path / "again", "--resume_from_checkpoint", last)
    actual = load_file(tmp_path / "again" / "model.safetensors")
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)


def test_texts_of_special_tokens_alone_are_left_out(recipe, tmp_path, unlabelled):
    rows = [{"title": "", "body": "🤗" * n, "labels": []} for n in range(1, 33)]
    data = write(tmp_path / "emoji.jsonl", read_lines(unlabelled) + rows)
    one_by_one = ["--per_device_train_batch_size", 1, "--per_device_eval_batch_size", 1]
    printed = recipe("--data", data, *one_by_one, "--num_train_epochs", 1)
    assert "32 texts left out: all their tokens are special" in printed
    assert "72 unlabelled texts to learn from, 18 to measure on" in printed
    assert math.isfinite(read_json(tmp_path / "out" / "metrics.json")["perplexity_after"])


def test_a_labelled_test_file_is_kept_out_of_unlabelled_texts(recipe, tmp_path, tiny_issues):
    rows = read_lines(tiny_issues)[:120]
    test = write(tmp_path / "test.jsonl", rows[:30])
    data = write(tmp_path / "dump.jsonl", [{**row, "labels": []} for row in rows])
    printed = recipe("--data", data, "--test_data", test, "--max_steps", 1)
    assert "72 unlabelled texts to learn from, 18 to measure on" in printed


@pytest.fixture
def lengths(tmp_path):
    """Flags for texts of very different lengths: 8 in a training step, others to measure on."""
    rng = np.random.default_rng(0)
    words = ["crash", "traceback", "docs", "typo", "slow", "memory", "support", "model", "data"]
    rows = [{"text": " ".join(rng.choice(words, size=4 + 2 * n))} for n in range(17)]
    return [
        *("--data", write(tmp_path / "lengths.jsonl", rows), "--held_out_share", 0.5),
        *("--max_steps", 2, "--optim", "sgd", "--learning_rate", 0.1, "--warmup_steps", 0),
    ]


def test_eight_texts_weigh_the_same_however_they_are_cut(recipe, lengths, monkeypatch):
    logs = []
    monkeypatch.setattr(recipe.module, "plot_training_curve", lambda log, _: logs.append([*log]))
    for size, pieces, measured in ((8, 1, 9), (4, 2, 4), (2, 4, 1)):
        printed = recipe(
            *(*lengths, "--logging_strategy", "steps", "--logging_steps", 1),
            *("--per_device_train_batch_size", size, "--gradient_accumulation_steps", pieces),
            *("--per_device_eval_batch_size", measured),
        )
        assert "8 unlabelled texts to learn from, 9 to measure on" in printed
    for name, count in (("loss", 2), ("grad_norm", 2), ("eval_loss", 3)):
        expected, *actual = ([entry[name] for entry in log if name in entry] for log in logs)
        assert len(expected) == count
        for values in actual:
            np.testing.assert_allclose(values, expected, atol=1e-5, rtol=0, err_msg=name)


def test_two_processes_do_the_work_of_one(recipe, flags, lengths, tmp_path):
    recipe(*lengths, "--per_device_train_batch_size", 8)
    process = run_script(
        *("recipes/domain_adaptation.py", *flags, *lengths),
        *("--per_device_train_batch_size", 4, "--output_dir", tmp_path / "two"),
        processes=2,
    )
    assert process.stdout.count("Everything is in") == 1
    assert "Warning" not in process.stderr
    expected, actual = (read_json(tmp_path / run / "metrics.json") for run in ("out", "two"))
    for name in ("train_loss", "perplexity_before", "perplexity_after"):
        assert actual[name] == pytest.approx(expected[name], rel=1e-5)
    assert actual["perplexity_after"] < 0.99 * actual["perplexity_before"]


@pytest.mark.parametrize(
    "steps",
    [
        ("--eval_strategy", "no"),
        # The best is here the worst, which is the first.
        ("--load_best_model_at_end", "true", "--greater_is_better", "true"),
    ],
)
def test_perplexity_is_that_of_the_saved_weights(recipe, tmp_path, monkeypatch, steps):
    from transformers import Trainer

    of_saved = []
    save_model = Trainer.save_model

    def save_and_measure(trainer, output_dir=None, **options):
        save_model(trainer, output_dir, **options)
        if output_dir is None:  # not a checkpoint
            of_saved.append(math.exp(trainer.evaluate()["eval_loss"]))

    monkeypatch.setattr(Trainer, "save_model", save_and_measure)
    recipe("--num_train_epochs", 2, *steps)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert of_saved == [pytest.approx(metrics["perplexity_after"], rel=1e-6)]


def test_mistakes(recipe, tmp_path, tiny_issues):
    assert "--mask_share 1.0: must be above 0, below 1" in recipe.mistake("--mask_share", 1)
    assert "over all predictions" in recipe.mistake("--prediction_loss_only", "true")
    line = recipe.mistake("--remove_unused_columns", "true")
    assert "--remove_unused_columns: masks depend on" in line
    labelled = write(tmp_path / "labelled.jsonl", read_lines(tiny_issues)[:120])
    assert "0 unlabelled texts, too few" in recipe.mistake("--data", labelled)
    special = write(tmp_path / "special.jsonl", [{"text": "🤗🤗 🚀"}, {"text": "🚀"}])
    assert "0 unlabelled texts, too few" in recipe.mistake("--data", special)
    few = write(tmp_path / "few.jsonl", [{"text": word} for word in ("crash", "docs", "slow")])
    actual = recipe.mistake("--data", few, "--held_out_share", 0.9)
    assert "--held_out_share 0.9: leaves none of 3 texts" in actual
