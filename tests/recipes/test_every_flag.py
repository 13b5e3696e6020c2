"""Flags with values that make no sense end in one line, and so do trainings that diverge.

tests/benchmarks/walk_flags.py runs every recipe with every flag; this is a part of it.
"""

import nonsense
import pytest
from command_line import Recipe, load_recipe

from shared.cli.arguments import parse_arguments
from shared.cli.errors import UserError


@pytest.mark.parametrize("name", nonsense.RECIPES)
def test_every_flag_of_a_recipe_is_taken_or_refused(name, tiny_model, tiny_issues, tmp_path):
    """The flags alone; nothing else may be raised than a `UserError`, and none of these is long."""
    module = load_recipe(name)
    base = [*map(str, nonsense.base_flags(name, tiny_model, tiny_issues, tmp_path))]
    messages = []
    for flag in nonsense.tried_flags(module, own=True):
        for value in ("nan", "-1", "nonsense"):
            try:
                parse_arguments(nonsense.arguments_class(module), [*base, f"--{flag}={value}"])
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 5
    assert max(map(len, messages)) < 1000


@pytest.fixture
def tagger(tiny_model, tiny_issues, tmp_path, monkeypatch, capfd):
    flags = nonsense.base_flags("github_tagger", tiny_model, tiny_issues, tmp_path)
    return Recipe("github_tagger", monkeypatch, capfd, *flags)


@pytest.mark.parametrize(
    "flag",
    [
        *("per_device_eval_batch_size=0", "warmup_steps=nan", "adam_beta1=-1", "data_seed=-1"),
        *("gradient_accumulation_steps=0", "dataloader_num_workers=-1", "report_to=nonsense"),
        *("label_names=zzz", "lr_scheduler_kwargs=5", "max_grad_norm=nan", "eval_steps=-1"),
        *(
            "num_train_epochs=1e308",
            "max_steps=0",
            "metric_for_best_model=",
            "dropout=nan",
            "torch_compile_mode=zzz",
        ),
    ],
)
def test_nonsense_is_refused_before_the_data_is_read(flag, tagger, monkeypatch):
    monkeypatch.setattr(tagger.module, "load_and_split", None)  # would fail
    name = flag.split("=")[0]
    assert name in tagger.mistake(f"--{flag}")


@pytest.mark.parametrize("rate", ["1e15", "1e300"])
def test_a_training_that_diverges_ends_in_one_line(rate, tagger):
    steps = ("--max_steps=3", "--lr_scheduler_type=constant")
    line = tagger.mistake(f"--learning_rate={rate}", *steps)
    assert "is not finite" in line
    assert "lower --learning_rate" in line
