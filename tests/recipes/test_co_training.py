import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, report_rows, write

from shared.taggers import load_tagger

SCRIPT = "recipes/co_training.py"


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--use_cpu", "--max_length", 48),
        *("--bf16", "false", "--train_size", 24, "--tag_unlabelled", 0),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("co_training", monkeypatch, capfd, *flags)


@pytest.fixture
def single_label(tiny_issues, tmp_path):
    """Path of the tiny issues with one label each."""
    rows = [{**row, "labels": row["labels"][:1]} for row in read_lines(tiny_issues)]
    return write(tmp_path / "single.jsonl", rows)


def figures(folder):
    """All figures but those that depend on the clock."""
    metrics = read_json(folder / "metrics.json")
    return {k: v for k, v in metrics.items() if "runtime" not in k}


def check_saved(folder):
    """Check that the tagger in a folder gives the test texts the scores and labels of the run."""
    tagger, lines = load_tagger(folder), read_lines(folder / "test_predictions.jsonl")
    texts = [line["text"] for line in lines]
    expected = [[line["scores"][label] for label in tagger.label_names] for line in lines]
    np.testing.assert_allclose(tagger.scores(texts), expected, atol=1e-5)
    assert [tag["labels"] for tag in tagger(texts)] == [line["labels"] for line in lines]
    return tagger


def test_several_labels_per_text(recipe, tmp_path):
    printed = recipe("--tag_unlabelled", 5)
    assert "split: 24 train, 0 valid, 30 test texts" in printed
    assert "unlabelled: 78 of 78 texts" in printed  # 66 rows left out of the training set, and 12
    metrics = figures(tmp_path / "out")
    assert metrics["n_unlabelled"] == 78
    assert metrics["collapse"] is None
    # The encoder is random; the words tell the labels.
    assert metrics["words_test_micro_f1"] > metrics["supervised_test_micro_f1"] + 0.05
    assert f"words                 {metrics['words_test_micro_f1']:.3f}" in printed
    check_saved(tmp_path / "out")
    manifest = read_json(tmp_path / "out" / "tagger.json")
    assert manifest["settings"]["members"] == ["embeddings", "words"]
    assert len(read_lines(tmp_path / "out" / "unlabelled_predictions.jsonl")) == 5
    # The report names words as reasons, though one of the members reads embeddings alone.
    rows = report_rows(tmp_path / "out")["rows"].values()
    assert any(words for row in rows for _, words in row["words"])


def test_one_label_per_text_with_validation_rows(recipe, tmp_path, single_label):
    recipe("--data", single_label, "--valid_size", 0.2, "--rounds", 1)
    metrics = figures(tmp_path / "out")
    assert metrics["test_accuracy"] == metrics["test_micro_f1"]
    assert metrics["valid_samples"] > 0
    tagger = check_saved(tmp_path / "out")
    assert tagger.calibration is not None
    assert tagger.scores(["a crash in the docs"]).sum() == pytest.approx(1)


def test_the_same_command_gives_the_same_figures(recipe, tmp_path, single_label):
    recipe("--data", single_label)
    first = figures(tmp_path / "out")
    recipe("--data", single_label)
    assert figures(tmp_path / "out") == first


def test_alignment_and_names_change_what_is_learned(recipe, tmp_path, single_label):
    # Of "speed" there are few labelled texts.
    rows = [r for i, r in enumerate(read_lines(single_label)) if r["labels"] != ["speed"] or i < 48]
    data = write(tmp_path / "skewed.jsonl", rows)
    runs = [(), ("--alignment", "false"), ("--name_weight", 0)]
    scores = []
    for flags in runs:
        recipe("--data", data, *flags)
        lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
        scores.append([line["scores"]["speed"] for line in lines])
    assert scores[0] != scores[1]
    assert scores[0] != scores[2]


def test_a_collapse_keeps_the_probe_of_the_labelled_texts(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe.module, "describe_collapse", lambda *_: "'bug' fell to nothing")
    printed = recipe()
    metrics = figures(tmp_path / "out")
    assert metrics["collapse"] == "'bug' fell to nothing"
    assert metrics["test_micro_f1"] == metrics["supervised_test_micro_f1"]
    assert "'bug' fell to nothing" in printed
    assert "'bug' fell to nothing" in (tmp_path / "out" / "README.md").read_text()
    check_saved(tmp_path / "out")
    assert read_json(tmp_path / "out" / "tagger.json")["method"] == "embeddings"


def test_texts_without_a_common_word_are_refused(recipe, tmp_path):
    rows = [
        {"text": f"{label}{number} {label}x{number}", "labels": [label] if number < 20 else []}
        for number in range(30)
        for label in ("bug", "docs")
    ]
    data = write(tmp_path / "unique.jsonl", rows)
    message = recipe.mistake("--data", data, "--min_label_count", 1)
    assert "no word is in two of the training and unlabelled texts" in message


def test_unlabelled_texts_of_another_file_through_accelerate(flags, tmp_path, tiny_issues):
    rows = read_lines(tiny_issues)
    labelled = write(tmp_path / "labelled.jsonl", rows[:60])
    more = write(tmp_path / "more.jsonl", [r | {"labels": []} for r in rows[60:]])
    flags = [*flags, "--data", labelled, "--unlabelled_data", more]
    printed = launch(SCRIPT, *flags).stdout
    assert "unlabelled: 72 of 72 texts" in printed
    check_saved(tmp_path / "out")
