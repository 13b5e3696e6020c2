"""The recipe of images, from the command line."""

import json
import re

import numpy as np
import pytest
import torch
from command_line import Recipe, read_json, read_lines
from forks import run_script
from PIL import Image
from safetensors.numpy import load_file
from transformers import ResNetConfig, ResNetForImageClassification

from shared.images.shapes import SHAPES, draw_shapes

CLASSES = {"0": "background", **{str(i): name for i, name in enumerate(SHAPES, 1)}}


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Folders of 60 small pictures of shapes, for each task."""
    root = tmp_path_factory.mktemp("shapes")
    for task in ("classify", "segment", "detect"):
        entries = []
        for i, drawing in enumerate(draw_shapes(60, seed=1, most=3 if task == "detect" else 1)):
            folder = SHAPES[i % 3] if task == "classify" else "images"
            path = root / task / folder / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawing.image).save(path)
            entries.append({"file": f"images/{i}.png", "objects": []})
            for *box, number in drawing.boxes.tolist():
                entries[-1]["objects"].append({"label": SHAPES[int(number)], "box": box})
            if task == "segment":
                path = root / task / "masks" / f"{i}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(drawing.mask).save(path)
        if task == "detect":
            (root / task / "annotations.json").write_text(json.dumps(entries))
    (root / "segment" / "classes.json").write_text(json.dumps(list(CLASSES.values())))
    return root


@pytest.fixture
def recipe(monkeypatch, capfd, tmp_path, shapes):
    flags = [
        *("--data", shapes / "classify", "--output_dir", tmp_path / "out", "--use_cpu"),
        *("--bf16", "false", "--image_size", 24, "--width", 4, "--num_levels", 3),
        *("--num_train_epochs", 2, "--per_device_train_batch_size", 10, "--learning_rate", 1e-2),
    ]
    return Recipe("images", monkeypatch, capfd, *flags)


@pytest.fixture
def metrics(tmp_path):
    return lambda: read_json(tmp_path / "out" / "metrics.json")


def usage(folder, image):
    """Run the examples of a card on an image; return their variables."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    variables = {}
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        code = code.replace(", trust_remote_code=True", "").replace("image.jpg", str(image))
        exec(code.replace("VALUE", "1"), variables)
    return variables


def apply(folder, image):
    """Run the example of a card on an image; return the predictions of `predict`."""
    predict = usage(folder, image)["predict"]
    return predict([str(image)], ["1"] if predict.context_names else ())


def predictions(recipe, folder, *flags):
    """Apply a trained model by the command line; return the lines of its predictions."""
    output_dir = folder.with_name("predicted")
    recipe("--model", folder, "--predict", *flags, "--output_dir", output_dir)
    return read_lines(output_dir / "predictions.jsonl")


def test_classes(recipe, metrics, tmp_path, shapes, capfd):
    changes = ("--flip", "both", "--shift", 0.1, "--mixup", 0.2, "--preprocess", "denoise", "edges")
    printed = recipe(*changes, "--label_smoothing_factor", 0.1)
    assert "train 42, valid 6, test 12" in printed
    out = tmp_path / "out"
    rows = read_lines(out / "test_predictions.jsonl")
    hits = sum(row["label"] == row["true_label"] for row in rows)
    assert metrics()["test_accuracy"] == pytest.approx(hits / 12)
    assert 0 <= metrics()["nearest_accuracy"] <= 1
    assert metrics()["test_accuracy_low"] <= hits / 12 <= metrics()["test_accuracy_high"]
    assert all(row["file"].startswith(row["true_label"]) for row in rows)
    assert (out / "per_class.csv").read_text().startswith("label,precision,recall,f1,support")
    pictures = {path.name for path in (out / "pictures").iterdir()}
    assert pictures >= {"training_images.png", "preprocessing.png"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(pictures)
    assert not list(out.glob("checkpoint-*"))
    usage(out, shapes / "classify" / "circle" / "0.png")
    assert any(f"'label': '{name}'" in capfd.readouterr().out for name in SHAPES)
    # The folder as --model is trained further, with its operations.
    again = recipe("--model", out, "--output_dir", tmp_path / "more", "--num_train_epochs", 1)
    assert "Everything is in" in again
    settings = read_json(tmp_path / "more" / "preprocessor_config.json")
    assert settings["operations"] == ["denoise", "edges"]
    # New images, here those of the test, get the labels that the test gave them.
    new = {row["file"]: row for row in predictions(recipe, out, shapes / "classify")}
    assert len(new) == 60
    for row in rows:
        assert new[row["file"]]["label"] == row["label"]
        assert new[row["file"]]["score"] == pytest.approx(row["score"], abs=2e-3)


def test_pixels(recipe, metrics, tmp_path, shapes):
    task = ("--task", "segment", "--data", shapes / "segment", "--class_weight", "balanced")
    recipe(*task, "--zoom", 0.1, "--num_train_epochs", 6)
    assert metrics()["test_mean_iou"] > 0.2  # all background: .2
    assert metrics()["test_pixel_accuracy"] > 0.5
    rows = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    assert set(rows[0]) == {"file", "mean_iou", *(f"iou_{name}" for name in CLASSES.values())}
    (actual,) = apply(tmp_path / "out", shapes / "segment" / "images" / "0.png")
    assert actual["mask"].shape == (48, 48)
    # The masks of new images have the size of the images.
    (row,) = predictions(recipe, tmp_path / "out", shapes / "segment" / "images" / "0.png")
    assert row["file"] == "0.png"
    assert row["shares"] == actual["shares"]
    assert sum(row["shares"].values()) == pytest.approx(1, abs=1e-3)
    mask = np.asarray(Image.open(tmp_path / "predicted" / row["mask"]))
    np.testing.assert_array_equal(mask, actual["mask"])
    assert Image.open(tmp_path / "predicted" / "overlays" / "0.png").size == (48, 48)


def test_boxes(recipe, metrics, tmp_path, shapes):
    task = ("--task", "detect", "--data", shapes / "detect", "--image_size", 48)
    printed = recipe(*task, "--flip", "horizontal", "--num_train_epochs", 4)
    assert {"test_map", "test_map50"} <= set(metrics())
    assert "ap50" in printed
    score = read_json(tmp_path / "out" / "config.json")["score_threshold"]
    for row in read_lines(tmp_path / "out" / "test_predictions.jsonl"):
        assert all(box["score"] >= score - 1e-4 for box in row["boxes"])
        assert all(box["label"] in SHAPES for box in row["boxes"])
    (actual,) = apply(tmp_path / "out", shapes / "detect" / "images" / "0.png")
    assert all(0 <= side <= 48 for box in actual["boxes"] for side in box["box"])
    new = {
        row["file"]: row for row in predictions(recipe, tmp_path / "out", shapes / "detect/images")
    }
    for row in read_lines(tmp_path / "out" / "test_predictions.jsonl"):
        boxes = new[row["file"].removeprefix("images/")]["boxes"]
        assert len(boxes) == len(row["boxes"])
        for box, expected in zip(boxes, row["boxes"], strict=True):
            assert box["label"] == expected["label"]
            assert box["box"] == pytest.approx(np.clip(expected["box"], 0, 48), abs=0.2)
    assert Image.open(tmp_path / "predicted" / "overlays" / "0.png").size == (48, 48)
    page = (tmp_path / "predicted" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1


@pytest.fixture
def arrays(tmp_path):
    drawings = draw_shapes(60, seed=2, most=1)
    images = np.array([drawing.image for drawing in drawings])
    path = tmp_path / "arrays.npz"
    np.savez(path, images=images, labels=np.arange(60) % 3, half=np.arange(60) % 2)
    return path


def test_two_inputs_two_outputs_and_the_weights_of_their_losses(recipe, metrics, arrays, tmp_path):
    two = ("--data", arrays, "--second_input", "half", "--second_output", "half")
    recipe(*two, "--second_weight", 0.2, 1, "--num_train_epochs", 3)
    sweep = metrics()["second_weights"]
    assert [row["second_weight"] for row in sweep] == [0.2, 1]
    # With all of the weight on the second output, which is also an input, it is soon right.
    assert sweep[1]["eval_second_accuracy"] > 0.8
    best = max(sweep, key=lambda row: row["eval_accuracy"])
    assert best["eval_accuracy"] >= sweep[1]["eval_accuracy"]
    assert 0 <= metrics()["test_second_accuracy"] <= 1
    (actual,) = apply(tmp_path / "out", next(tmp_path.glob("out/pictures/*.png")))
    assert actual["second_label"] in ("0", "1")
    # Both outputs of new images; values of the second input that no training image had are named.
    rows = predictions(recipe, tmp_path / "out", arrays, "--second_input", "half")
    assert {row["label"] for row in rows} <= {"0", "1", "2"}
    hits = [int(row["second_label"]) == i % 2 for i, row in enumerate(rows)]
    assert np.mean(hits) > 0.7
    new = ("--model", tmp_path / "out", "--predict")
    line = recipe.mistake(*new, arrays, "--second_input", "labels")
    assert "--second_input labels: the value 2 was in no training image; known are 0, 1" in line
    assert "--second_input nothing: " in recipe.mistake(*new, arrays, "--second_input", "nothing")
    line = recipe.mistake(*new, next(tmp_path.glob("out/pictures/*.png")))
    assert "the model reads a second input; give a .npz" in line


def test_a_network_of_the_hub(recipe, metrics, tmp_path):
    torch.manual_seed(0)
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes)).save_pretrained(tmp_path / "hub")
    recipe("--model", tmp_path / "hub", "--num_train_epochs", 1)
    assert read_json(tmp_path / "out" / "config.json")["model_type"] == "resnet"
    assert 0 <= metrics()["test_accuracy"] <= 1


def test_a_resumed_run_is_bitwise_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    flags = ["--flip", "both", "--shift", 0.2, "--rotation", 9, "--mixup", 0.4, "--dropout", 0.2]
    flags += ["--save_strategy", "steps", "--save_steps", 7, "--save_total_limit", 9]
    flags += ["--eval_strategy", "steps", "--eval_steps", 7]
    monkeypatch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
    recipe(*flags)
    folder = tmp_path / "out" / ".rounds" / "0"
    expected = load_file(tmp_path / "out" / "model.safetensors")
    assert (folder / "checkpoint-7").is_dir()
    for name in ("checkpoint-10", "checkpoint-14"):
        for path in sorted((folder / name).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    recipe(*flags, "--resume_from_checkpoint", "true")
    actual = load_file(tmp_path / "out" / "model.safetensors")
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    line = recipe.mistake(*flags, "--seed", 7, "--resume_from_checkpoint", "true")
    assert "was trained on other rows or labels" in line


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_health_is_checked_and_nothing_is_trained(task, recipe, shapes, tmp_path):
    printed = recipe("--task", task, "--data", shapes / task, "--health_check")
    assert "the range test suggests" in printed
    assert "initial loss" in printed
    assert "tokens" not in printed
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_mistakes(recipe, tmp_path, shapes, arrays):
    for flags, expected in (
        (("--data", tmp_path / "none"), "no such folder, .zip or .npz"),
        (("--task", "detect"), "holds no annotations.json"),
        (("--task", "segment"), "holds no folder named images"),
        (("--preprocess", "blur"), "--preprocess blur: must be any of"),
        (("--image_size", 8, 8, 8), "--image_size: must be one number, or height and width"),
        (("--task", "segment", "--mixup", 0.2), "--mixup, --second_input"),
        (("--second_weight", 0, 1), "--second_weight: several need --second_output"),
        (("--data", arrays, "--second_input", "x"), "--second_input x: "),
        (("--second_input", "x"), "name arrays of a .npz"),
        (("--task", "detect", "--cell_size", 5), "--cell_size 5: must be the pixels of a level"),
        (("--remove_unused_columns", "true"), "the collator reads all columns"),
        (("--model", tmp_path / "x"), "no such folder"),
        (("--metric_for_best_model", "f9"), "--metric_for_best_model f9: no such metric"),
    ):
        assert expected in recipe.mistake(*flags, "--num_train_epochs", 1), flags
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_mistakes_with_new_images(recipe, tmp_path, shapes):
    recipe("--num_train_epochs", 1)
    model = ("--model", tmp_path / "out", "--output_dir", tmp_path / "predicted", "--predict")
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken" / "more" / "0.png"
    broken.parent.mkdir(parents=True)
    content = (shapes / "classify" / "circle" / "0.png").read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    (tmp_path / "text.txt").write_text("text")
    np.savez(tmp_path / "new.npz", pictures=np.zeros((2, 8, 8), np.uint8))
    for flags, expected in (
        ((tmp_path / "none",), "none: no such folder, .zip, .npz or image"),
        ((tmp_path / "empty",), "empty: holds no images"),
        ((tmp_path / "broken",), "broken, more/0.png: unreadable image"),
        ((broken,), "more, 0.png: unreadable image"),
        ((tmp_path / "text.txt",), "text.txt: not a readable zip"),
        ((tmp_path / "new.npz",), "--image_array images: "),
        ((tmp_path, "--resume_from_checkpoint", "true"), "--predict trains nothing"),
    ):
        assert expected in recipe.mistake(*model, *flags), flags
    assert not (tmp_path / "predicted" / "predictions.jsonl").exists()
    assert "--predict: name the trained model" in recipe.mistake("--predict", tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"architectures": ["BertModel"]}')
    (tmp_path / "text" / "model.safetensors").write_bytes(b"")
    line = recipe.mistake(*model, shapes, "--model", tmp_path / "text")
    assert "BertModel neither classifies, segments nor detects" in line
    (tmp_path / "out" / "preprocessor_config.json").unlink()
    line = recipe.mistake(*model, shapes)
    assert "its preprocessor_config.json does not say size, image_mean, image_std" in line


def test_without_validation_images(recipe, metrics):
    recipe("--valid_size", 0, "--num_train_epochs", 1)
    assert 0 <= metrics()["test_accuracy"] <= 1


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_two_processes_do_the_work_of_one(task, recipe, metrics, shapes, tmp_path):
    # Batch normalisation is that of each process; 40 training images make four full batches.
    flags = ["--task", task, "--data", shapes / task, "--block", "plain", "--num_train_epochs", 1]
    flags += ["--valid_size", 8 / 60, "--flip", "horizontal", "--shift", 0.1]
    recipe(*flags)
    two = ("--output_dir", tmp_path / "two", "--per_device_train_batch_size", 5)
    process = run_script("recipes/images.py", *recipe.flags, *flags, *two, processes=2)
    assert "train 40, valid 8, test 12" in process.stdout
    assert process.stdout.count("Everything is in") == 1
    one, two = metrics(), read_json(tmp_path / "two" / "metrics.json")
    names = {"classify": ["test_accuracy"], "detect": ["test_map", "test_map50"]}[task]
    for name in ("test_loss", "train_loss", *names):
        assert two[name] == pytest.approx(one[name], abs=1e-4)
    # They also predict new images together.
    new = [
        "--use_cpu",
        "--bf16",
        "false",
        "--predict",
        shapes / task,
        "--per_device_eval_batch_size",
    ]
    new += [7, "--model", tmp_path / "out", "--output_dir"]
    predict = ("recipes/images.py", *new, tmp_path / "by_two")
    assert "60 images are predicted" in run_script(*predict, processes=2).stdout
    recipe(*new, tmp_path / "by_one")
    lines = [read_lines(tmp_path / f"by_{n}" / "predictions.jsonl") for n in ("one", "two")]
    assert [line["file"] for line in lines[0]] == [line["file"] for line in lines[1]]
    key = "label" if task == "classify" else "boxes"
    assert [line[key] for line in lines[0]] == [line[key] for line in lines[1]]
