import shutil

import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, write

from shared.evaluation.metrics import f1_scores
from shared.training.callbacks import CheckpointOnSignal

SCRIPT = "recipes/augmentation.py"
FIGURES = ("micro_f1", "macro_f1")


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--cache_dir", tmp_path / "cache"),
        *("--use_cpu", "--bf16", "false", "--max_length", 48, "--train_size", 24),
        *("--num_train_epochs", 2, "--per_device_train_batch_size", 12, "--learning_rate", 2e-3),
        *("--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("augmentation", monkeypatch, capfd, *flags)


def figures(folder):
    """All figures but those that depend on the clock."""
    metrics = read_json(folder / "metrics.json")
    return {k: v for k, v in metrics.items() if "runtime" not in k and "per_second" not in k}


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--health_check")
    assert "uniform predictions have a loss of" in printed
    assert "Training" not in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_figures_files_and_comparison(recipe, tmp_path, tiny_issues, monkeypatch, capfd):
    printed = recipe("--compare", "true", "--sentence", "The batch is slow")
    metrics = figures(tmp_path / "out")
    assert read_json(tmp_path / "out" / "metrics.json")["test_runtime"] > 0  # for the benchmark
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    names = sorted(lines[0]["scores"])
    y, actual = (
        np.array([[name in line[key] for name in names] for line in lines])
        for key in ("true_labels", "labels")
    )
    assert [metrics[f"test_{name}"] for name in FIGURES] == [
        f1_scores(y, actual)[k] for k in FIGURES
    ]
    assert {"model.safetensors", "metrics.json", "README.md"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert not [
        path for path in (tmp_path / "out").iterdir() if path.is_dir() and path.name != "plots"
    ]
    assert "delete            " in printed
    assert f"  augmented                           {metrics['test_micro_f1']:.3f}" in printed

    # What the recipe of naive Bayes finds on the same rows.
    data = ("--data", tiny_issues, "--cache_dir", tmp_path / "cache", "--train_size", 24)
    classic = Recipe("naive_bayes", monkeypatch, capfd, *data, "--output_dir", tmp_path / "nb")
    for prefix, more in (
        ("naive_bayes", ()),
        ("naive_bayes_augmented", ("--augment", "swap", "delete")),
    ):
        classic(*more)
        alone = read_json(tmp_path / "nb" / "metrics.json")
        for name in FIGURES:
            assert metrics[f"{prefix}_{name}"] == alone[f"test_{name}"]

    # The model itself owes nothing to the comparison.
    recipe("--compare", "false")
    alone = figures(tmp_path / "out")
    assert alone == {k: v for k, v in metrics.items() if k in alone}
    assert sorted(metrics.keys() - alone.keys()) == sorted(
        f"{run}_{name}"
        for run in ("naive_bayes", "naive_bayes_plain", "naive_bayes_augmented", "plain")
        for name in FIGURES
    )


def test_a_refit_learns_from_all_rows_and_their_copies(recipe, tmp_path, tiny_issues, monkeypatch):
    train, trainers = recipe.module.LengthGroupedTrainer.train, []

    def spy(trainer, **options):
        trainers.append(trainer)
        return train(trainer, **options)

    monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "train", spy)
    data = write(tmp_path / "few.jsonl", read_lines(tiny_issues)[:40])
    recipe.flags = [f for f in recipe.flags if f not in ("--train_size", 24)]
    recipe("--data", data, "--refit", "true", "--compare", "true")
    *_, first, second = trainers
    assert sorted(second.train_dataset["row"]) == sorted([*range(1, 41)] * 2)
    assert sorted(second.train_dataset["sample"]) == [*range(-40, 40)]
    assert second.state.epoch == first.state.best_global_step / first.state.max_steps * 2
    assert figures(tmp_path / "out")["refit_samples"] == 40
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"plots"}


def test_copies_are_made_anew_each_epoch_from_texts_with_the_same_labels(recipe, monkeypatch):
    seen = []
    module = recipe.module

    class Spy(module.AugmentingCollator):
        def __call__(self, features):
            batch = super().__call__(features)
            if "sample" in features[0]:
                for feature, labels in zip(features, batch["labels"].numpy(), strict=True):
                    assert np.flatnonzero(labels).tolist() == sorted(feature["labels"])
                    seen.append((feature["sample"], feature["text"], tuple(feature["labels"])))
            return batch

    changed = []

    def spy(texts, samples, augmentations, **options):
        actual = original(texts, samples, augmentations, **options)
        if "epoch" in options:
            changed.extend(
                (options["epoch"], *row) for row in zip(samples, texts, actual, strict=True)
            )
        return actual

    original = module.augment
    monkeypatch.setattr(module, "augment", spy)
    monkeypatch.setattr(module, "AugmentingCollator", Spy)
    recipe("--copies", 2)
    assert sorted(sample for sample, _, _ in seen) == sorted([*range(-24, 48)] * 2)
    rows = {sample: row for sample, *row in seen}
    assert all(rows[sample] == rows[sample % 24 - 24] for sample in rows)
    by_epoch = [{s: actual for e, s, _, actual in changed if e == epoch} for epoch in (0, 1)]
    assert [sorted(texts) for texts in by_epoch] == [list(range(48))] * 2
    assert sum(by_epoch[0][sample] != by_epoch[1][sample] for sample in range(48)) > 40
    assert all(text != actual for _, _, text, actual in changed)


def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(recipe, tmp_path, monkeypatch):
    recipe()
    whole = figures(tmp_path / "out")

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 6:  # in the second epoch of four steps each
            self.received = 15
        on_step_end(self, args, state, control, **kwargs)

    on_step_end = CheckpointOnSignal.on_step_end
    monkeypatch.setattr(CheckpointOnSignal, "on_step_end", stop)
    with pytest.raises(SystemExit):
        recipe("--output_dir", tmp_path / "other")
    monkeypatch.undo()
    Recipe("augmentation", monkeypatch, recipe.capfd, *recipe.flags)(
        "--output_dir", tmp_path / "other", "--resume_from_checkpoint", "true"
    )
    assert figures(tmp_path / "other") == whole


def test_a_stopped_comparison_goes_on_and_a_folder_named_plain_is_nobodys_business(
    recipe, tmp_path, monkeypatch
):
    out, other = tmp_path / "out", tmp_path / "other"
    theirs = out / "plain" / "checkpoint-4"

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 6:
            self.received = 15
        on_step_end(self, args, state, control, **kwargs)

    on_step_end = CheckpointOnSignal.on_step_end
    monkeypatch.setattr(CheckpointOnSignal, "on_step_end", stop)
    with pytest.raises(SystemExit):
        recipe("--output_dir", other, "--compare", "true")
    monkeypatch.undo()
    (checkpoint,) = other.glob("*/checkpoint-6")
    shutil.copytree(checkpoint, theirs)
    kept = sorted(path.name for path in theirs.iterdir())

    recipe = Recipe("augmentation", monkeypatch, recipe.capfd, *recipe.flags)
    for compare in ("false", "true"):
        recipe("--compare", compare)
        assert sorted(path.name for path in theirs.iterdir()) == kept
    recipe("--output_dir", other, "--compare", "true", "--resume_from_checkpoint", "True")
    assert figures(other) == figures(out)
    assert {path.name for path in other.iterdir()} == {path.name for path in out.iterdir()} - {
        "plain"
    }


def test_through_accelerate_launch(flags):
    process = launch(SCRIPT, *flags)
    assert "Everything is in" in process.stdout
    assert "Warning" not in process.stderr


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--augmentations", "shuffle"], "no augmentation 'shuffle'; there are synonym"),
        (["--augmentations", "insert"], "insert: --mlm_model must name a checkpoint"),
        (["--augmentations", "synonym", "--wordnet", "nowhere"], "--wordnet nowhere: no WordNet"),
        (["--augmentations"], "--augmentations"),
        (["--augment_share", 0], "--augment_share 0.0: must be above 0"),
        (["--copies", 0], "--copies 0: must be 1 or more"),
        (["--dataloader_num_workers", 2], "--dataloader_num_workers: augmentation runs"),
        (["--compare", "true", "--resume_from_checkpoint", "x"], "true or false; --compare trains"),
        (["--train_size", 61], "--train_size 61: the pool has 60 rows"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)
