"""The recipe of generated images, from the command line."""

import re

import numpy as np
import pytest
import torch
from command_line import Recipe, read_json
from PIL import Image
from safetensors.numpy import load_file

import shared.models.gan_networks as networks
from shared.methods.feature_classifier import classifier_settings


@pytest.fixture
def arrays(tmp_path):
    """A .npz of 90 grey images of two classes: a bright bar, upright or lying."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (90, 8, 8), dtype=np.uint8)
    labels = np.arange(90) % 2
    for image, label in zip(images, labels, strict=True):
        place = rng.integers(2, 6)
        (image if label else image.T)[place] = 220
    np.savez(tmp_path / "bars.npz", images=images, labels=labels)
    return tmp_path / "bars.npz"


@pytest.fixture
def recipe(monkeypatch, capfd, tmp_path, arrays):
    flags = [
        *("--data", arrays, "--output_dir", tmp_path / "out", "--use_cpu", "--base_width", 4),
        *("--features", "pixels", "--feature_size", 4, "--n_samples", 50, "--latent_size", 8),
        *("--num_train_epochs", 3, "--per_device_train_batch_size", 16),
    ]
    return Recipe("gan", monkeypatch, capfd, *flags)


@pytest.fixture
def metrics(tmp_path):
    return lambda: read_json(tmp_path / "out" / "metrics.json")


def test_images_are_generated_and_measured(recipe, metrics, tmp_path, monkeypatch):
    features = ("--features", "auto", "--feature_epochs", 1)
    printed = recipe(*features, "--label_smoothing_factor", 0.1, "--dropout", 0.2)
    assert "discriminator accuracy" in printed
    assert "on 4 components of a classifier of these images" in printed
    out = tmp_path / "out"
    actual = metrics()
    assert actual["training_images_frechet_distance"] < actual["noise_frechet_distance"]
    assert actual["training_images_frechet_distance"] < actual["the_mean_image_frechet_distance"]
    assert 0 <= actual["test_coverage"] <= 1
    assert len(list((out / "samples").glob("epoch_*.png"))) == 3
    assert Image.open(out / "plots" / "samples.gif").n_frames == 3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert not list(out.glob("checkpoint-*"))
    # New images: the same for the same seed, also if there are more of them.
    new = ("--model", out, "--output_dir", tmp_path / "new", "--seed", 1)
    assert "70 images are in" in recipe(*new, "--generate", 70)
    seventh = (tmp_path / "new" / "images" / "000007.png").read_bytes()
    assert len(list((tmp_path / "new" / "images").iterdir())) == 70
    recipe(*new, "--generate", 8)
    assert (tmp_path / "new" / "images" / "000007.png").read_bytes() == seventh
    assert (tmp_path / "new" / "samples.png").is_file()
    line = recipe.mistake(*new, "--generate", 8, "--model", out / "features")
    assert "a model of the type image-trunk-classifier, no generator of images" in line
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "![generated images](plots/samples.png)" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(code.replace(", trust_remote_code=True", ""), {})
    assert Image.open(tmp_path / "generated_15.png").size == (8, 8)
    # The classifier serves another run, whose figures can be compared.
    again = ("--features", out / "features", "--output_dir", tmp_path / "more")
    assert f"the classifier {out / 'features'}" in recipe(*again, "--architecture", "gan")
    assert "no classifier of images" in recipe.mistake(*again[:1], out)
    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    assert "cannot load the model" in recipe.mistake(*new, "--generate", 8)


def test_a_generator_that_ignores_its_latent_vectors_has_collapsed(recipe, metrics, monkeypatch):
    draw = networks.ConvolutionalGenerator.forward
    monkeypatch.setattr(
        networks.ConvolutionalGenerator,
        "forward",
        lambda self, latents: draw(self, torch.zeros_like(latents)),
    )
    printed = recipe("--num_train_epochs", 1)
    (line,) = [line for line in printed.splitlines() if line.startswith("collapse: ")]
    assert "lower --learning_rate" in line
    assert "differ from each other 0%" in metrics()["collapse"]


def test_a_resumed_run_is_bitwise_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    flags = ["--features", "auto", "--feature_epochs", 1, "--dropout", 0.3, "--shift", 0.1]
    flags += ["--lr_scheduler_type", "linear", "--discriminator_learning_rate", 2e-3]
    flags += ["--save_strategy", "steps", "--save_steps", 3, "--save_total_limit", 9]
    flags += ["--eval_strategy", "steps", "--eval_steps", 3]
    monkeypatch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
    recipe(*flags)
    out = tmp_path / "out"
    state = "checkpoint-12/trainer_state.json"
    expected, log = load_file(out / "model.safetensors"), read_json(out / state)["log_history"]
    for name in ("checkpoint-6", "checkpoint-9", "checkpoint-12"):
        for path in sorted((out / name).rglob("*"), reverse=True):
            path.unlink()
        (out / name).rmdir()
    recipe(*flags, "--resume_from_checkpoint", "true")
    actual = load_file(out / "model.safetensors")
    assert set(actual) == set(expected)
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    # The losses of the log, too, and those of the epoch that was interrupted.
    keys = ("generator_loss", "discriminator_loss", "discriminator_accuracy", "eval_coverage")
    for entry, before in zip(read_json(out / state)["log_history"], log, strict=True):
        assert {key: entry.get(key) for key in keys} == {key: before.get(key) for key in keys}
    line = recipe.mistake(*flags, "--seed", 7, "--resume_from_checkpoint", "true")
    assert "was trained on other rows or labels" in line


def test_flags_of_the_generator_do_not_change_the_classifier_of_the_features(recipe, tmp_path):
    Arguments, folder = recipe.module.GanRecipeArguments, tmp_path / "features"
    common = {"output_dir": str(tmp_path), "use_cpu": True, "seed": 3, "feature_epochs": 2}
    plain = classifier_settings(Arguments(**common), folder)
    changed = Arguments(
        **common,
        **{"max_steps": 3, "optim": "sgd", "weight_decay": 0.5, "lr_scheduler_type": "cosine"},
        **{"warmup_steps": 5, "max_grad_norm": 0.1, "adam_beta2": 0.5, "data_seed": 1},
        **{"per_device_train_batch_size": 7, "label_smoothing_factor": 0.1, "learning_rate": 1},
    )
    settings = classifier_settings(changed, folder)
    assert settings.to_dict() == plain.to_dict()
    assert (settings.seed, settings.num_train_epochs, settings.max_steps) == (3, 2, -1)
    assert settings.output_dir == str(folder)


@pytest.mark.parametrize("prefix", ["", "eval_"])
def test_only_the_distance_is_better_if_low(recipe, tmp_path, prefix):
    higher = {
        name: recipe.module.GanRecipeArguments(
            output_dir=str(tmp_path), use_cpu=True, metric_for_best_model=prefix + name
        ).greater_is_better
        for name in ("frechet_distance", "coverage", "spread", "twin_distance")
    }
    assert not higher.pop("frechet_distance")
    assert all(higher.values())


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--health_check")
    assert "uniform predictions have a loss of 0.693" in printed
    assert "discriminator " in printed
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_last_batch_of_one_image_without_validation_images(recipe, metrics):
    # 72 of 90 images: four batches of 17, and 4; of 71 one more image.
    recipe("--valid_size", 0, "--per_device_train_batch_size", 71, "--num_train_epochs", 1)
    assert metrics()["test_frechet_distance"] > 0


def test_mistakes(recipe, tmp_path, arrays):
    rng = np.random.default_rng(0)
    folder = tmp_path / "coloured"
    folder.mkdir()
    for i in range(60):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image.save(folder / f"{i}.png")
    for flags, expected in (
        (("--data", tmp_path / "none"), "no such folder, .zip or .npz"),
        (("--data", folder, "--colours", "grey"), "0.png has colours; add --preprocess grey"),
        (("--image_size", 6), "images of 6 x 6 pixels are too small"),
        (("--n_samples", 4), "a Frechet distance on 4 features needs more; raise it"),
        (("--feature_size", 30), "test images, and needs 31"),
        (("--per_device_train_batch_size", 100), "train images, and needs 100"),
        (("--feature_size", 10), "9 validation images are too few for 10 features"),
        (("--gradient_accumulation_steps", 2), "each batch is a step of both networks"),
        (("--mixup", 0.2), "--mixup: the generator would learn mixtures"),
        (("--loss", "hinge", "--label_smoothing_factor", 0.1), "no targets to smooth"),
        (("--features", tmp_path / "x"), "no such folder"),
        (("--generate", 3), "--model, --generate: give both"),
        (("--metric_for_best_model", "f9"), "--metric_for_best_model f9: no such metric"),
    ):
        assert expected in recipe.mistake(*flags, "--num_train_epochs", 1), flags
    assert not (tmp_path / "out" / "model.safetensors").exists()
