"""A tagger trained once for all tests."""

import pytest
from command_line import launch


@pytest.fixture(scope="session")
def tagger_flags(tiny_model, tiny_issues, tmp_path_factory):
    """Flags of a short, exactly repeatable run: 60, 30 and 30 rows, 4 epochs of 5 steps."""
    return [
        *("--model", tiny_model, "--data", tiny_issues),
        *("--cache_dir", tmp_path_factory.mktemp("cache")),
        *("--use_cpu", "--bf16", "false", "--max_length", 48),
        *("--num_train_epochs", 4, "--per_device_train_batch_size", 12, "--learning_rate", 2e-3),
    ]


@pytest.fixture(scope="session")
def trained(tagger_flags, tmp_path_factory):
    """A finished run through ``accelerate launch``: its folder, and the process with its output."""
    folder = tmp_path_factory.mktemp("trained") / "tagger"
    return folder, launch("recipes/github_tagger.py", *tagger_flags, "--output_dir", folder)
