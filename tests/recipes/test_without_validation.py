"""--valid_size 0: every recipe learns from the training rows alone, and saves a tagger."""

import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines

from shared.taggers import load_tagger

TRAINING = ["--num_train_epochs", 1, "--max_length", 48]
RECIPES = {
    "naive_bayes": [],
    "embedding_lookup": ["--max_length", 48],
    "embedding_lookup, logistic": ["--max_length", 48, "--head", "logistic"],
    "few_label_probe": ["--max_length", 48],
    "zero_shot": ["--method", "embedding", "--max_length", 48],
    "github_tagger": TRAINING,
    "goemotions": TRAINING,
    "augmentation": [*TRAINING, "--augmentations", "swap", "--compare", "false"],
    "uda": TRAINING,
    "co_training": ["--max_length", 48],
    "self_training": [*TRAINING, "--uncertainty", "none", "--rounds", 1],
    "imdb_cnn_rnn": ["--max_steps", 4, "--max_length", 48, "--vocab_size", 300],
}
WITHOUT_ENCODER = ("naive_bayes", "imdb_cnn_rnn")


@pytest.mark.parametrize("case", RECIPES)
def test_no_labelled_row_but_the_training_slice_is_seen(
    case, monkeypatch, capfd, tiny_model, tiny_issues, tmp_path
):
    name, out = case.split(",")[0], tmp_path / "out"
    flags = ["--data", tiny_issues, "--valid_size", 0, "--train_size", 24, "--output_dir", out]
    flags += ["--cache_dir", tmp_path / "cache", *RECIPES[case]]
    if name not in WITHOUT_ENCODER:
        flags += ["--model", tiny_model]
    if name != "naive_bayes":
        flags += ["--use_cpu", "--bf16", "false"]
    printed = Recipe(name, monkeypatch, capfd)(*flags)
    assert "split: 24 train, 0 valid, 30 test texts" in printed

    metrics = read_json(out / "metrics.json")
    sizes = [metrics[f"{part}_samples"] for part in ("train", "valid", "test")]
    assert sizes == [24, 0, 30]
    assert not [key for key in metrics if key.startswith("valid_") and key != "valid_samples"]

    # The saved tagger gives the scores and the labels of the report.
    tagger, lines = load_tagger(out), read_lines(out / "test_predictions.jsonl")
    scores = tagger.scores([line["text"] for line in lines])
    expected = [[line["scores"][label] for label in tagger.label_names] for line in lines]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert len(read_lines(out / "unlabelled_predictions.jsonl")) == 12
