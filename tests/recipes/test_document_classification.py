import pytest
from command_line import Recipe

SCRIPT = "recipes/document_classification.py"


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path_factory, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--use_cpu", "--bf16", "false"),
        *("--window", 32, "--stride", 8, "--folds", 2, "--num_train_epochs", 2),
        *("--learning_rate", 2e-3, "--per_device_train_batch_size", 12),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("document_classification", monkeypatch, capfd, *flags)


def test_every_document_is_scored_once(recipe, tmp_path):
    printed = recipe()
    print(printed)
