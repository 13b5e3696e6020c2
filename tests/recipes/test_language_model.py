"""The recipe of language models, from the command line."""

import math
import re

import numpy as np
import pytest
from command_line import Recipe, read_json, write
from forks import run_script
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from shared.models import train_lossless_tokenizer

SYLLABLES = ["an", "el", "ri", "mo", "ta", "li", "se", "no"]


@pytest.fixture
def names(tmp_path):
    """Path of 200 names of two to four syllables, one a line."""
    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(SYLLABLES, size=rng.integers(2, 5))) for _ in range(200)]
    return write(tmp_path / "names.txt", "".join(f"{line}\n" for line in lines))


@pytest.fixture
def book(tmp_path):
    text = "The cat sat.\nA dog ran to the cat, and the cat ran.\n" * 60
    return write(tmp_path / "book.txt", text)


@pytest.fixture
def flags(names, tmp_path):
    return [
        *("--data", names, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
        *("--use_cpu", "--keep_together", "false", "--num_train_epochs", 4, "--samples", 4),
        *("--embedding_size", 8, "--hidden_size", 16, "--num_layers", 1, "--context_size", 3),
        *("--num_attention_heads", 2, "--block_size", 24, "--learning_rate", 3e-2),
        *("--per_device_train_batch_size", 8, "--sample_length", 30),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("language_model", monkeypatch, capfd, *flags)


@pytest.fixture
def metrics(tmp_path):
    return lambda: read_json(tmp_path / "out" / "metrics.json")


# Uniform tokens (10 letters, an end, an unknown one) have a loss of 2.48.
@pytest.mark.parametrize("architecture", ["counts", "bigram", "mlp", "rnn", "lstm", "gru", "gpt"])
def test_an_architecture_learns_writes_and_loads(
    architecture, recipe, metrics, tmp_path, flags, monkeypatch, capfd
):
    printed = recipe("--architecture", architecture)
    figures = metrics()
    assert figures["train_nll"] < figures["test_nll"] + 0.2 < 2.4
    n_test = figures["test_tokens"]
    assert figures["test_perplexity"] == pytest.approx(math.exp(figures["test_nll"]))
    # Each character and each end of a name is one token.
    assert figures["test_bits_per_character"] == pytest.approx(figures["test_nll"] / math.log(2))
    lines = (tmp_path / "names.txt").read_text(encoding="utf-8").splitlines()
    n_all = sum(figures[f"{part}_tokens"] for part in ("train", "valid", "test"))
    assert n_all == sum(len(line) + 1 for line in lines)
    assert f"{n_test:,}" in printed
    samples = (tmp_path / "out" / "samples.txt").read_text(encoding="utf-8").splitlines()
    assert len(samples) == 4
    assert all(set(sample) <= set("".join(SYLLABLES) + "[UNK]") for sample in samples)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert all(sample in card for sample in samples)
    plots = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    assert ("next_tokens.png" in plots) == (architecture in ("counts", "bigram"))
    assert ("training_curve.png" in plots) == (architecture != "counts")
    assert not list((tmp_path / "out").glob("checkpoint-*"))

    # The folder loads in transformers and, as --architecture, is trained further.
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.get_input_embeddings is not None
    assert len(tokenizer) == model.config.vocab_size
    if architecture == "counts":
        line = recipe.mistake("--architecture", tmp_path / "out", "--output_dir", tmp_path / "more")
        assert "out: counts cannot be trained further; count the texts with --arch" in line
    if architecture in ("lstm", "gpt"):
        again = Recipe("language_model", monkeypatch, capfd, *flags)
        again("--architecture", tmp_path / "out", "--output_dir", tmp_path / "more")
        further = read_json(tmp_path / "more" / "metrics.json")
        assert further["train_nll"] < figures["train_nll"]


def test_the_bigram_reaches_the_counts(recipe, metrics):
    all_of_it = ("--valid_size", 0, "--test_size", 0)
    recipe("--architecture", "counts", "--smoothing", 1e-6, *all_of_it)
    counted = metrics()["train_nll"]
    # All blocks in each step.
    steps = ("--max_steps", 200, "--per_device_train_batch_size", 100, "--learning_rate", 0.3)
    once = ("--save_strategy", "no", "--logging_strategy", "no", "--weight_decay", 0)
    recipe("--architecture", "bigram", *steps, *once, *all_of_it)
    assert metrics()["train_nll"] == pytest.approx(counted, abs=1e-3)
    assert "valid_nll" not in metrics()


def test_documents_that_stand_alone_have_the_figures_of_packed_ones(recipe, metrics):
    """A context does not reach over a boundary, and these blocks cut no document."""
    same = ("--architecture", "counts", "--ngram_size", 3, "--block_size", 1000)
    recipe(*same)
    packed = metrics()
    recipe(*same, "--pack", "false")
    for part in ("valid", "test"):
        assert metrics()[f"{part}_nll"] == pytest.approx(packed[f"{part}_nll"], rel=1e-5)
        assert metrics()[f"{part}_tokens"] == packed[f"{part}_tokens"]


@pytest.mark.parametrize("architecture", ["counts", "mlp"])
@pytest.mark.parametrize("pack", ["true", "false"])
def test_the_figures_do_not_depend_on_the_size_of_a_block(architecture, pack, recipe, metrics):
    same = ("--architecture", architecture, "--ngram_size", 4, "--pack", pack, "--samples", 1)
    figures = []
    for size in (3, 24):
        recipe(*same, "--block_size", size, "--learning_rate", 1e-12, "--num_train_epochs", 1)
        figures.append({k: v for k, v in metrics().items() if k.endswith(("_nll", "_tokens"))})
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_the_table_says_what_is_measured(recipe, metrics, monkeypatch):
    monkeypatch.setattr(recipe.module, "MOST_TRAIN_TOKENS", 300)
    printed = recipe("--architecture", "counts", "--ngram_size", 3)
    n, n_all = metrics()["train_tokens"], metrics()["train_all_tokens"]
    assert 200 < n <= 300 < n_all
    assert f"train: {n:,} of {n_all:,} tokens are measured." in printed
    assert "valid:" not in printed.partition("bits per char")[2]


def test_unknown_tokens_leave_out_bits_per_character(recipe, metrics, book):
    long = ("--data", book, "--documents", "file", "--tokens", "words", "--vocab_size", 6)
    printed = recipe(*long, "--architecture", "counts")
    assert "No bits per character where tokens are unknown (train " in printed
    figures = metrics()
    for part in ("train", "valid", "test"):
        assert 0.1 < figures[f"{part}_unknown_share"] < 0.9
        assert f"{part}_bits_per_character" not in figures
    recipe("--architecture", "counts")
    assert metrics()["test_unknown_share"] == 0


def usage(folder):
    """Run the example of a card; return its variables."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(from transformers.*?)```", card, re.DOTALL)[1]
    exec(code.replace(", trust_remote_code=True", ""), variables := {})
    return variables


def test_the_example_of_the_card_fits_into_the_model(recipe, book, tmp_path):
    recipe("--architecture", "gpt", "--block_size", 8, "--max_steps", 1)
    example = usage(tmp_path / "out")
    assert 1 < example["text"].shape[1] <= 8
    assert "max_new_tokens=7)" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    tokenizer = example["tokenizer"]
    assert example["start"]["input_ids"].tolist() == [[tokenizer.eos_token_id]]

    long = ("--data", book, "--documents", "file", "--architecture", "gpt", "--block_size", 8)
    recipe(*long, "--max_steps", 1, "--prompt", "A dog")
    example = usage(tmp_path / "out")
    assert example["tokenizer"].decode(example["start"]["input_ids"][0]) == "A do"
    assert 4 < example["text"].shape[1] <= 8
    assert "max_new_tokens=4)" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_example_of_a_model_trained_further_begins_as_its_texts(recipe, tmp_path):
    few = ("--max_steps", 1, "--samples", 1)
    recipe("--architecture", "gpt", *few)
    folder = tmp_path / "other"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    tokenizer.bos_token = "a"  # another than that of the end
    AutoModelForCausalLM.from_pretrained(tmp_path / "out").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    recipe("--architecture", folder, *few, "--output_dir", tmp_path / "more")
    example = usage(tmp_path / "more")
    assert example["start"]["input_ids"].tolist() == [[example["tokenizer"].eos_token_id]]


def test_gpt_2_is_trained_further_with_its_own_tokens(recipe, metrics, names, tmp_path):
    tokenizer = train_lossless_tokenizer(names.read_text().split(), "byte_bpe", 270)
    sizes = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends))
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    recipe("--architecture", tmp_path / "gpt2", "--learning_rate", 1e-9, "--num_train_epochs", 1)
    figures = metrics()
    # Weights that hardly change predict as before; random ones almost uniformly.
    assert figures["test_nll"] == pytest.approx(math.log(len(tokenizer)), abs=0.2)
    recipe("--architecture", tmp_path / "gpt2", "--output_dir", tmp_path / "more")
    assert read_json(tmp_path / "more" / "metrics.json")["test_nll"] < 0.7 * figures["test_nll"]
    further = AutoModelForCausalLM.from_pretrained(tmp_path / "more")
    assert isinstance(further, GPT2LMHeadModel)
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "more")("tali")["input_ids"]
        == (tokenizer("tali")["input_ids"])
    )
    assert "--block_size 64: the model reads 32 tokens" in recipe.mistake(
        "--architecture", tmp_path / "gpt2", "--block_size", 64
    )


@pytest.mark.parametrize("unit", ["words", "bpe", "byte_bpe"])
def test_other_tokens_and_one_long_text(unit, recipe, book, tmp_path, metrics):
    long = ("--data", book, "--documents", "file", "--tokens", unit, "--vocab_size", 280)
    printed = recipe(*long, "--architecture", "mlp", "--samples", 1, "--prompt", "The cat")
    (sample,) = printed.partition("Samples\n")[2].partition("\n\nEverything")[:1]
    assert sample.startswith("The cat")
    text = book.read_text(encoding="utf-8")
    train = text[: int(len(text) * 0.8 + 1e-6)]
    assert f"train {len(train):,} characters" in printed
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer(text[int(len(text) * 0.9 + 1e-6) :])["input_ids"]
    figures = metrics()
    assert figures["test_tokens"] == len(ids) - 1  # all but the first
    assert figures["test_bits_per_character"] < figures["test_nll"] / math.log(2)


def test_the_logged_loss_is_that_of_the_tokens(recipe, monkeypatch):
    """However a step is cut into batches; with padding."""
    logs = []
    monkeypatch.setattr(recipe.module, "plot_training_curve", lambda log, _: logs.append([*log]))
    for size, pieces in ((8, 1), (4, 2), (2, 4)):
        recipe(
            *("--architecture", "mlp", "--pack", "false", "--max_steps", 2, "--optim", "sgd"),
            *("--logging_strategy", "steps", "--logging_steps", 1, "--samples", 0),
            *("--per_device_train_batch_size", size, "--gradient_accumulation_steps", pieces),
        )
    for name in ("loss", "grad_norm", "eval_loss"):
        expected, *actual = ([entry[name] for entry in log if name in entry] for log in logs)
        assert expected
        for values in actual:
            np.testing.assert_allclose(values, expected, atol=1e-4, rtol=0, err_msg=name)
    first = next(entry["loss"] for entry in logs[0] if "loss" in entry)
    assert first == pytest.approx(math.log(12), rel=0.3)  # knows nothing


def test_a_resumed_run_is_bitwise_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    flags = ["--architecture", "gpt", "--dropout", 0.2, "--samples", 2]
    flags += ["--eval_strategy", "steps", "--eval_steps", 9, "--save_total_limit", 9]
    recipe(*flags)
    expected = load_file(tmp_path / "out" / "model.safetensors")
    monkeypatch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
    again = tmp_path / "again"
    recipe(*flags, "--output_dir", again)
    recipe(*flags, "--output_dir", again, "--resume_from_checkpoint", again / "checkpoint-9")
    actual = load_file(again / "model.safetensors")
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    for name in ("samples.txt", "metrics.json"):
        pairs = [
            {k: v for k, v in read_json(folder / name).items() if k.endswith("_nll")}
            if name.endswith("json")
            else (folder / name).read_text(encoding="utf-8")
            for folder in (tmp_path / "out", again)
        ]
        assert pairs[0] == pairs[1]

    other = recipe.mistake(
        *("--architecture", "gru", "--output_dir", again),
        *("--resume_from_checkpoint", again / "checkpoint-9"),
    )
    assert "was trained with other model_type than this run has" in other


def test_two_processes_do_the_work_of_one(recipe, flags, tmp_path):
    same = ("--architecture", "mlp", "--max_steps", 3, "--optim", "sgd", "--pack", "false")
    recipe(*same)
    process = run_script(
        *("recipes/language_model.py", *flags, *same),
        *("--per_device_train_batch_size", 4, "--output_dir", tmp_path / "two"),
        processes=2,
    )
    assert process.stdout.count("Everything is in") == 1
    expected, actual = (read_json(tmp_path / run / "metrics.json") for run in ("out", "two"))
    for name in ("train_loss", "train_nll", "test_nll"):
        assert actual[name] == pytest.approx(expected[name], rel=1e-5)


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--health_check", "--architecture", "gru", "--pack", "false")
    assert f"uniform predictions have a loss of {math.log(12):.3f}" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_rows_of_a_file_with_labels(recipe, tiny_issues, metrics):
    recipe("--data", tiny_issues, "--architecture", "bigram", "--max_steps", 2, "--samples", 1)
    assert metrics()["test_nll"] > 0


def test_mistakes(recipe, tmp_path, names, book, tiny_model, tiny_mlm):
    blank = write(tmp_path / "blank.txt", "\n\n")
    assert "no text" in recipe.mistake("--data", blank)
    short = write(tmp_path / "short.txt", "ab\ncd\nef\n")
    assert "--block_size 24: the training texts have" in recipe.mistake("--data", short)
    line = recipe.mistake("--architecture", "counts", "--prompt", "Émil")
    assert "--prompt 'Émil': 'É' is not in the vocabulary" in line
    line = recipe.mistake("--architecture", "counts", "--ngram_size", 40)
    assert "--ngram_size 40: n-grams of 40" in line
    one = ("--documents", "file", "--block_size", 2)
    line = recipe.mistake("--data", write(tmp_path / "one.txt", "abcdefg"), *one)
    assert "--valid_size: leaves no token to predict" in line
    line = recipe.mistake("--data", book, "--documents", "file", "--pack", "false")
    assert "--pack false: there is only one document" in line
    assert "multiple of --num_attention_heads" in recipe.mistake("--num_attention_heads", 3)
    assert "--architecture gtp: " in recipe.mistake("--architecture", "gtp")
    assert "counts have no training" in recipe.mistake("--architecture", "counts", "--health_check")
    line = recipe.mistake("--remove_unused_columns", "true")
    assert "--remove_unused_columns: the collator reads all columns" in line
    assert "--vocab_size 9" in recipe.mistake("--tokens", "byte_bpe", "--vocab_size", 9)
    assert "belong to another architecture" in recipe.mistake("--architecture", tiny_model)
    # BERT's weights fit a decoder, but each token sees those after it.
    assert "predicts hidden tokens, not next ones" in recipe.mistake("--architecture", tiny_mlm)
