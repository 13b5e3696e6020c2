import numpy as np
import pytest
from command_line import PYTHON, Recipe, read_json, read_lines, run, write
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
    found = load_file(tmp_path / "again" / "model.safetensors")
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_eight_texts_weigh_the_same_however_they_are_cut(recipe, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    words = ["crash", "traceback", "docs", "typo", "slow", "memory", "support", "model", "data"]
    rows = [{"text": " ".join(rng.choice(words, size=4 + 2 * n))} for n in range(16)]
    flags = ["--data", write(tmp_path / "lengths.jsonl", rows), "--held_out_share", 0.5]
    flags += ["--logging_strategy", "steps", "--logging_steps", 1, "--max_steps", 2]
    logs = []
    monkeypatch.setattr(recipe.module, "plot_training_curve", lambda log, _: logs.append([*log]))
    for size, pieces, measured in ((8, 1, 8), (4, 2, 3), (2, 4, 1)):
        printed = recipe(
            *(*flags, "--per_device_train_batch_size", size),
            *("--gradient_accumulation_steps", pieces, "--per_device_eval_batch_size", measured),
        )
        assert "8 unlabelled texts to learn from, 8 to measure on" in printed
    for name in ("loss", "grad_norm", "eval_loss"):
        expected, *found = ([entry[name] for entry in log if name in entry] for log in logs)
        assert len(expected) == 2
        for values in found:
            np.testing.assert_allclose(values, expected, atol=1e-5, rtol=0, err_msg=name)


def test_through_accelerate_launch(flags):
    process = run(
        *(PYTHON, "-m", "accelerate.commands.launch"),
        *("--config_file", "recipes/configs/accelerate/one_cpu.yaml"),
        *("recipes/domain_adaptation.py", *flags, "--max_steps", 2),
    )
    assert "Everything is in" in process.stdout
    assert "Warning" not in process.stderr


def test_mistakes(recipe, tmp_path, tiny_issues):
    assert "--mask_share 1.0: must be between 0 and 1" in recipe.mistake("--mask_share", 1)
    assert "over all predictions" in recipe.mistake("--prediction_loss_only", "true")
    labelled = write(tmp_path / "labelled.jsonl", read_lines(tiny_issues)[:120])
    assert "0 unlabelled texts, too few" in recipe.mistake("--data", labelled)
