"""The comparison of techniques of training, from the command line."""

import csv
import dataclasses

import pytest
from command_line import Recipe, read_json, write

from shared.cli.arguments import parse_arguments
from shared.training.techniques import BASES, TECHNIQUES, departures, run_arguments

WORDS = {"bug": "crash error fails broken", "docs": "typo manual page wording"}


@pytest.fixture
def flags(tmp_path):
    rows = [
        {"text": f"{word} number {i % 7} in part{i}", "label": label}
        for label, words in WORDS.items()
        for i, word in enumerate(words.split() * 12)
    ]
    data = write(tmp_path / "rows.jsonl", rows)
    return [
        *("--data", data, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
        *("--use_cpu", "--vocab_size", 300, "--embedding_size", 8, "--hidden_size", 8),
        *("--num_layers", 2, "--max_steps", 4, "--per_device_train_batch_size", 16),
        *("--num_seeds", 2, "--learning_rate", 1e-2, "--eval_steps", 1),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("techniques", monkeypatch, capfd, *flags)


def rows_of(folder):
    with (folder / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_comparison_goes_on_where_it_was_stopped(recipe, tmp_path, monkeypatch):
    """Ctrl-C in the middle loses the run that it interrupts, and nothing else."""
    module, trained = recipe.module, []
    original = module.LengthGroupedTrainer.train

    def train(trainer, *args, **kwargs):
        if len(trained) == 5:
            raise KeyboardInterrupt
        trained.append(trainer.args.seed)
        return original(trainer, *args, **kwargs)

    techniques = ("--num_seeds", 1, "--techniques", "clipping", "initialisation")
    with monkeypatch.context() as patched:
        patched.setattr(module.LengthGroupedTrainer, "train", train)
        with pytest.raises(KeyboardInterrupt):
            recipe(*techniques)
        runs = tmp_path / "out" / "runs"
        kept = {path.name: path.read_bytes() for path in runs.iterdir()}
        assert len(kept) == 5
        (runs / next(iter(kept))).write_text('{"half')  # damaged: it is run again
    recipe(*techniques)
    assert {name: (runs / name).read_bytes() for name in kept} == kept  # bitwise the same
    rows = rows_of(tmp_path / "out")
    assert [row["setting"] for row in rows if row["technique"] == "clipping"] == [
        *("none", "norm 10", "norm 1", "norm 0.1")
    ]
    zeros = next(row for row in rows if row["setting"] == "zeros")
    assert zeros["dead units"] == "100 %"
    # The default is Kaiming's: the same runs.
    n_runs = len(list(runs.iterdir()))
    assert n_runs <= 1 + 4 + 5 + 2
    for name in ("report.html", "README.md", "claims.csv", "plots/signals.png"):
        assert (tmp_path / "out" / name).is_file()
    tested = [read_json(path)["test_score"] for path in runs.iterdir()]
    assert sum(score is not None for score in tested) in (1, 2)


def test_schedules_and_decay_with_several_labels_per_text(recipe, tmp_path):
    rows = [
        {"text": f"{words} {i}", "labels": [label] if i % 3 else [*WORDS]}
        for label, words in WORDS.items()
        for i in range(30)
    ]
    data = write(tmp_path / "several.jsonl", rows)
    techniques = ("--techniques", "schedule", "weight_decay")
    printed = recipe("--data", data, "--num_seeds", 1, "--max_steps", 3, *techniques)
    assert "micro F1" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "one seed tells nothing" in printed
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 9 + 7
    # Each setting trains another network; the first step of a schedule without warm-up is equal.
    losses = {row["setting"]: row["validation loss"] for row in rows}
    assert losses["none"] == losses["linear"]  # the defaults
    assert losses["warm-up, linear"] != losses["linear"]


def test_every_setting_changes_flags_of_the_recipe(recipe, flags):
    args = parse_arguments(recipe.module.TechniquesArguments, [*map(str, flags)])
    for technique, settings in TECHNIQUES.items():
        seen = []
        for setting in settings.values():
            changes = {**BASES.get(technique, {}), **setting}
            rates = changes.get("rate_factor")
            if isinstance(rates, tuple):
                changes["rate_factor"] = rates[0]
            run_args = run_arguments(args, changes, seed=7)
            values = {f.name: getattr(run_args, f.name) for f in dataclasses.fields(args)}
            assert values not in seen, technique  # each differs from the others
            seen.append(values)
            departed = departures(args, changes)
            assert departures(args, departed) == departed
    large = run_arguments(args, TECHNIQUES["batch_size"]["256"], seed=1)
    assert (large.max_steps, large.per_device_train_batch_size) == (1, 256)
    assert args.max_steps == 4  # unchanged


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (("--techniques", "magic"), "--techniques magic: there are initialisation, "),
        (("--initialization", "magic"), "--initialization magic: there are zeros, "),
        (("--valid_size", 0), "--valid_size 0: settings are compared on validation rows"),
        (("--save_strategy", "epoch"), "--save_strategy: must stay no"),
        (("--eval_strategy", "no"), "--eval_strategy no: curves need evaluations"),
    ],
)
def test_mistakes_are_one_line(recipe, mistake, words):
    assert recipe.mistake(*mistake).startswith(words)


def test_the_health_check_trains_nothing(recipe, tmp_path):
    assert "initial loss" in recipe("--health_check")
    assert not list((tmp_path / "out" / "runs").iterdir())
