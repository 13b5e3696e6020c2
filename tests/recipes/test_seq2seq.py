"""The recipe of models that read a text and write another one, from the command line."""

import json
import re

import numpy as np
import pytest
from command_line import Recipe, read_json, write
from safetensors.numpy import load_file
from tiny_models import save_tiny_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from shared.methods.augmentation import AugmentationArguments, augment, load_augmentations
from shared.models import load_translator

ENGLISH = ["red", "green", "blue", "old", "new", "cat", "dog", "bird"]
GERMAN = ["rot", "grün", "blau", "alt", "neu", "Katze", "Hund", "Vogel"]


@pytest.fixture
def pairs(tmp_path):
    """Path of 200 phrases of three words, with their translations."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        words = rng.integers(0, 8, size=3)
        row = {"en": " ".join(ENGLISH[i] for i in words), "de": " ".join(GERMAN[i] for i in words)}
        rows.append(row)
    return write(tmp_path / "pairs.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def recipe(monkeypatch, capfd, pairs, tmp_path):
    return Recipe(
        *("seq2seq", monkeypatch, capfd),
        *("--data", pairs, "--source_column", "en", "--target_column", "de", "--use_cpu"),
        *("--output_dir", tmp_path / "out", "--vocab_size", 300, "--hidden_size", 32),
        *("--intermediate_size", 32, "--num_hidden_layers", 1, "--dropout", 0, "--num_beams", 2),
        *("--per_device_train_batch_size", 16, "--learning_rate", 1e-2, "--bf16", "false"),
        *("--max_source_length", 16, "--max_target_length", 16, "--metrics", "chrf", "exact_match"),
    )


@pytest.mark.parametrize("architecture", ["parts", "rnn"])
def test_it_learns_to_translate_and_serves_back_translation(architecture, recipe, tmp_path, pairs):
    out = tmp_path / "out"
    printed = recipe("--architecture", architecture, "--num_train_epochs", 25)
    figures = read_json(out / "metrics.json")
    assert figures["test_exact_match"] > 0.3
    assert figures["test_chrf_low"] <= figures["test_chrf"] <= figures["test_chrf_high"]
    assert figures["source_as_it_is_exact_match"] == 0
    predictions = [json.loads(line) for line in (out / "predictions.jsonl").open(encoding="utf-8")]
    right = [row["prediction"] in row["references"] for row in predictions]
    assert np.mean(right) == figures["test_exact_match"]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "name: exact_match" in card or "type: exact_match" in card
    for text in (printed, card):
        assert f"{100 * figures['test_exact_match']:.2f}" in text
        assert f"source     {predictions[0]['source']}" in text
    assert not list(out.glob("checkpoint-*"))
    assert (out / "plots" / "training_curve.png").is_file()

    # The folder loads, and writes as the run did.
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForSeq2SeqLM.from_pretrained(out)
    batch = tokenizer([row["source"] for row in predictions], padding=True, return_tensors="pt")
    texts = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)
    assert texts == [row["prediction"] for row in predictions]
    code = re.search(r"```python\n(from transformers.*?)```", card, re.DOTALL)[1]
    exec(code.replace(", trust_remote_code=True", ""), {})

    # Measured again without training, by greedy search.
    again = tmp_path / "again"
    measured = ("--architecture", out, "--evaluate_only", "true", "--num_beams", 1)
    recipe(*measured, "--output_dir", again)
    repeated = read_json(again / "metrics.json")
    assert repeated["test_loss"] == pytest.approx(figures["test_loss"], rel=1e-5)
    assert "train_loss" not in repeated

    # It translates lines of prose there and back, code and layout stay.
    arguments = AugmentationArguments(to_model=str(out), from_model=str(out))
    (augmentation,) = load_augmentations(["back_translation"], arguments, texts=[])
    (reworded,) = augment(["old red cat\n\n    1.5\nblue dog"], [0], [augmentation], seed=0)
    first, *layout, last = reworded.splitlines()
    assert layout == ["", "    1.5"]
    assert first != "old red cat"
    assert last


def test_a_resumed_run_is_bitwise_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    flags = ["--architecture", "parts", "--copy", "true", "--dropout", 0.2, "--max_steps", 18]
    flags += ["--save_strategy", "steps", "--save_steps", 9, "--eval_strategy", "steps"]
    flags += ["--eval_steps", 9, "--save_total_limit", 9, "--do_sample", "true"]
    recipe(*flags)
    expected = load_file(tmp_path / "out" / "model.safetensors")
    monkeypatch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
    again = tmp_path / "again"
    recipe(*flags, "--output_dir", again)
    recipe(*flags, "--output_dir", again, "--resume_from_checkpoint", again / "checkpoint-9")
    actual = load_file(again / "model.safetensors")
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    texts = [(folder / "predictions.jsonl").read_bytes() for folder in (tmp_path / "out", again)]
    assert texts[0] == texts[1]

    resume = ("--output_dir", again, "--resume_from_checkpoint", again / "checkpoint-9")
    line = recipe.mistake(*flags, "--architecture", "rnn", *resume)
    assert "was trained with other model_type than this run has" in line
    line = recipe.mistake(*flags, "--copy", "false", *resume)
    assert "was trained with other copies_source than this run has" in line


def test_a_pretrained_model_is_trained_further(recipe, tmp_path):
    folder = save_tiny_model(
        tmp_path / "t5", "t5", [*ENGLISH, *map(str.lower, GERMAN)], head="AutoModelForSeq2SeqLM"
    )
    printed = recipe(
        *("--architecture", folder, "--max_steps", 2, "--source_prefix", "translate: "),
        *("--predict_with_generate", "true", "--metric_for_best_model", "chrf"),
        *("--eval_steps", 1, "--eval_strategy", "steps", "--save_strategy", "steps"),
        *("--save_steps", 1),
    )
    assert "chrf" in printed.partition("Writing")[0]
    saved = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    assert saved.config.model_type == "t5"
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "trust_remote_code" not in card
    assert "translate: " in card


def test_a_pretrained_encoder_reads_the_source(recipe, tmp_path, tiny_model):
    out, again = tmp_path / "out", tmp_path / "again"
    flags = ["--encoder", tiny_model, "--copy", "true", "--dropout", 0.2, "--max_steps", 12]
    flags += ["--save_strategy", "steps", "--save_steps", 6, "--eval_strategy", "steps"]
    flags += ["--eval_steps", 6, "--save_total_limit", 9]
    recipe(*flags, "--encoder_learning_rate", 1e-9)
    written = [json.loads(line)["prediction"] for line in (out / "predictions.jsonl").open()]
    # The encoder has its own learning rate, and the rest that of --learning_rate.
    key = "encoder.encoder.layer.1.output.dense.weight"
    expected = load_file(tiny_model / "model.safetensors")[key.removeprefix("encoder.")]
    assert np.allclose(load_file(out / "model.safetensors")[key], expected, atol=1e-7)

    # The folder loads and writes as the run did, and is measured again.
    tokenizer, model = AutoTokenizer.from_pretrained(out), load_translator(str(out))
    assert type(model.encoder).__name__ == "BertModel"
    sources = [json.loads(line)["source"] for line in (out / "predictions.jsonl").open()]
    batch = tokenizer(sources, padding=True, return_tensors="pt")
    texts = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)
    assert texts == written
    card = (out / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(from transformers.*?)```", card, re.DOTALL)[1]
    exec(code.replace(", trust_remote_code=True", ""), {})
    measured = ("--architecture", out, "--evaluate_only", "true")
    recipe(*flags, *measured, "--output_dir", tmp_path / "measured")
    figures = [read_json(path / "metrics.json") for path in (out, tmp_path / "measured")]
    assert figures[1]["test_loss"] == pytest.approx(figures[0]["test_loss"], rel=1e-5)

    # A run that is resumed ends with the same weights.
    recipe(*flags)
    expected = load_file(out / "model.safetensors")
    assert not np.allclose(expected[key], load_file(tiny_model / "model.safetensors")[key[8:]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
        recipe(*flags, "--output_dir", again)
    recipe(*flags, "--output_dir", again, "--resume_from_checkpoint", again / "checkpoint-6")
    actual = load_file(again / "model.safetensors")
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--health_check", "--architecture", "rnn")
    assert "uniform predictions have a loss of" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_mistakes(recipe, tmp_path, tiny_model, pairs):
    assert "no column 'fr'" in recipe.mistake("--target_column", "fr")
    assert "--metrics blue: there are bleu" in recipe.mistake("--metrics", "blue")
    assert "--architecture transformr: " in recipe.mistake("--architecture", "transformr")
    assert "no translator for bert" in recipe.mistake("--architecture", tiny_model)
    line = recipe.mistake("--num_attention_heads", 3)
    assert "--hidden_size 32: must be a multiple of --num_attention_heads" in line
    line = recipe.mistake("--architecture", "rnn", "--hidden_size", 33)
    assert "--hidden_size 33: must be even" in line
    assert "--vocab_size 9" in recipe.mistake("--vocab_size", 9)
    line = recipe.mistake("--generation_num_beams", 3)
    assert "--generation_num_beams: use --num_beams" in line
    line = recipe.mistake("--evaluate_only", "true")
    assert "--evaluate_only: name a trained model with --architecture" in line
    for architecture in ("rnn", tiny_model):
        line = recipe.mistake("--encoder", tiny_model, "--architecture", architecture)
        assert line.endswith(f"--encoder: not for --architecture {architecture}; leave it out")
    line = recipe.mistake("--encoder_learning_rate", 1e-4)
    assert "--encoder_learning_rate: name a pretrained --encoder" in line
    line = recipe.mistake("--encoder", tiny_model, "--max_source_length", 100)
    assert "--max_source_length 100: the model reads 64" in line
    assert "--encoder ./nowhere: no such folder" in recipe.mistake("--encoder", "./nowhere")
    assert "the file is empty" in recipe.mistake("--data", write(tmp_path / "empty.jsonl", ""))
