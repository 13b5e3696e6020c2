import shutil

import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write
from conftest import FILLER, KEYWORDS
from tiny_models import save_tiny_model

from shared.cli.errors import UserError
from shared.evaluation.metrics import f1_scores
from shared.taggers import load_tagger

WORDS = [
    *FILLER.split(),
    *KEYWORDS,
    *" ".join(KEYWORDS.values()).split(),
    "this",
    "text",
    "about",
    "is",
    "one",
]
PROMPTS = """
instruction: One of {labels}
templates: ["{text} is about {label}", "text {text} this {label}"]
verbalizer: {bug: [crash, error], speed: slow, documentation: typo docs, feature: support}
"""


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    """A tiny Llama that knows the words of the issues."""
    folder = tmp_path_factory.mktemp("causal") / "llama"
    sizes = {"max_position_embeddings": 512}
    return save_tiny_model(folder, "llama", WORDS, "AutoModelForCausalLM", **sizes)


@pytest.fixture
def flags(causal, tiny_issues, tmp_path):
    return [
        *("--model", causal, "--data", tiny_issues, "--max_length", 24),
        *("--prompts", write(tmp_path / "prompts.yaml", PROMPTS)),
        *("--use_cpu", "--bf16", "false"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("prompts", monkeypatch, capfd, *flags)


def check_tagger(folder, lines):
    """Check that the tagger of a run gives the labels and scores that the run has written."""
    tagger = load_tagger(folder)
    for line, record in zip(lines, tagger([line["text"] for line in lines]), strict=True):
        assert record["labels"] == line["labels"]
        assert record["scores"] == pytest.approx(line["scores"], abs=1e-4)


def test_zero_shot_figures_files_and_tagger(recipe, tmp_path):
    printed = recipe()
    out = tmp_path / "out"
    metrics, lines = read_json(out / "metrics.json"), read_lines(out / "test_predictions.jsonl")
    names = sorted(lines[0]["scores"])
    y, chosen = (
        np.array([[name in line[key] for name in names] for line in lines])
        for key in ("true_labels", "labels")
    )
    assert metrics["test_micro_f1"] == f1_scores(y, chosen)["micro_f1"]
    assert metrics["demonstrations"] == 0
    rate = metrics["test_samples"] / metrics["test_runtime"]
    assert metrics["test_samples_per_second"] == pytest.approx(rate)
    assert f"{rate:.1f} texts per second" in printed
    assert "No model was trained" in (out / "README.md").read_text(encoding="utf-8")
    prompts = (out / "prompt.txt").read_text(encoding="utf-8")
    assert prompts.count("one of crash") == 2  # templates
    assert prompts.endswith("this\n")
    assert len(read_lines(out / "unlabelled_predictions.jsonl")) == 12
    check_tagger(out, lines)


@pytest.mark.parametrize("choose", ["balanced", "nearest"])
def test_few_shot_sees_the_training_slice_alone(choose, recipe, tmp_path, tiny_model):
    flags = ["--method", "few_shot", "--choose", choose, "--embedding_model", tiny_model]
    flags += ["--train_size", 12, "--valid_size", 0, "--demonstrations", 4, "--orders", 2]
    recipe(*flags)
    out = tmp_path / "out"
    metrics, lines = read_json(out / "metrics.json"), read_lines(out / "test_predictions.jsonl")
    assert metrics["demonstrations"] == 4
    assert metrics["train_samples"] == 12
    shown = read_json(out / "tagger.json")["settings"]["demonstrations"]
    assert len(shown["texts"]) == (4 if choose == "balanced" else 12)
    assert not {*shown["texts"]} & {line["text"] for line in lines}
    if choose == "balanced":  # of all labels
        answers = {word for answer in shown["words"] for word in answer.split(", ")}
        assert answers == {"crash", "slow", "typo docs", "support"}
    prompts = (out / "prompt.txt").read_text(encoding="utf-8")
    assert prompts.count("is about") == 2 * 5  # two orders of four demonstrations and the text
    check_tagger(out, lines)


def test_texts_without_labels(recipe, tmp_path, causal):
    texts = ["crash error in the batch", "slow speed of the model", "please add support"] * 8
    rows = [{"text": f"{text} {i}"} for i, text in enumerate(texts)]
    labels = ("--candidate_labels", "bug", "speed", "documentation", "feature")
    model = shutil.copytree(causal, tmp_path / "model")
    recipe("--data", write(tmp_path / "texts.jsonl", rows), *labels, "--model", model)
    lines = read_lines(tmp_path / "out" / "unlabelled_predictions.jsonl")
    assert len(lines) == len(texts)
    assert all(len(line["labels"]) == 1 for line in lines)
    # Calibrated: no word has the better part of the texts only because the model prefers it.
    scores = np.array([[line["scores"][name] for name in labels[1:]] for line in lines])
    assert np.ptp(np.log(scores).mean(axis=0)) < 0.5
    # The tagger refers to the model, which may be moved.
    shutil.rmtree(model)
    with pytest.raises(UserError, match="is missing; put it back, or name its new place"):
        load_tagger(tmp_path / "out")
    load_tagger(tmp_path / "out", encoder=str(causal))


def test_one_label_per_text_needs_nothing_but_the_demonstrations(recipe, tmp_path):
    rows = [
        {"text": f"{words} {i}", "labels": name}
        for i in range(8)
        for name, words in KEYWORDS.items()
    ]
    data = write(tmp_path / "one.jsonl", rows)
    flags = ["--data", data, "--method", "few_shot", "--train_size", 4, "--valid_size", 0]
    flags += ["--demonstrations", 9, "--calibration", "contextual"]
    recipe(*flags)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert (metrics["demonstrations"], metrics["top_k"]) == (4, 1)
    check_tagger(tmp_path / "out", read_lines(tmp_path / "out" / "test_predictions.jsonl"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--chat"], "--chat: the tokenizer of --model has no chat template; remove it"),
        (["--top_k", 1, "--threshold", 0.5], "--top_k and --threshold: use only one of them"),
        (["--choose", "nearest", "--calibration", "contextual"], "take batch or none"),
        (["--prompts", "missing.yaml"], "--prompts missing.yaml: No such file"),
        (["--model", "{tiny_model}"], "they belong to another architecture"),
        (["--max_length", 500, "--method", "few_shot", "--demonstrations", 30], "lower --demonst"),
        (["--candidate_labels", "bug"], "labels that are not among the expected ones"),
    ],
)
def test_mistakes_cost_one_line(wrong, message, recipe, tiny_model):
    wrong = [str(word).format(tiny_model=tiny_model) for word in wrong]
    assert message in recipe.mistake(*wrong)
