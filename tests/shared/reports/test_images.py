"""What is said of images, and what of it is published."""

import json

import numpy as np
import pytest
from torch.nn import Linear

from shared.images.reading import IGNORED, ImageData
from shared.reports.image_figures import (
    box_results,
    class_results,
    mask_results,
    write_image_results,
)
from shared.reports.image_predictions import _png_names
from shared.reports.images import Sheet, overlay, text_table
from shared.reports.page import without_texts


def data_of(task, targets, n=3):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    parts = {"train": np.arange(n), "valid": np.arange(0), "test": np.arange(n)}
    return ImageData(task, pixels, ["<a>", "b"], targets, ["x", "y", "z"], "here", parts)


def test_the_surest_errors_come_first_and_pictures_are_not_published(tmp_path):
    data = data_of("classify", np.array([0, 1, 0]))
    results = class_results(data, np.array([[0, 2.0], [9, 0], [5, 0]]))
    assert [caption.splitlines()[0] for caption in results.worst.captions] == ["b", "<a>"]
    assert [row["label"] for row in results.predictions] == ["b", "<a>", "<a>"]
    nearest, low, high = results.metrics.values()
    assert nearest == 1  # the test images are those of the training
    assert 0 <= low <= 1 / 3 <= high <= 1
    model = Linear(2, 2)
    model.num_parameters = lambda: 6
    settings = {"base_model": None, "operations": [], "log_history": [{"loss": 1, "epoch": 1}]}
    settings["training_images"] = Sheet("Training images", "", [], [])
    report = write_image_results(
        tmp_path, model, data, results, {"test_accuracy": 1 / 3}, **settings
    )
    assert report.startswith("Test (3 images): test_accuracy 0.333, nearest_accuracy 1.000\n\n")
    assert json.loads((tmp_path / "metrics.json").read_text())["nearest_accuracy"] == 1
    assert "# Image model (classify)" in (tmp_path / "README.md").read_text(encoding="utf-8")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;a&gt;" in page
    assert "<script>\n\n</script>" in page  # no library of charts
    published = without_texts(page)
    assert "data:image/png" in page
    assert "data:image/png" not in published
    assert "Worst images" in published


def test_the_worst_masks(tmp_path):
    data = data_of("segment", [np.zeros((8, 8), np.uint8)] * 3)
    counts = np.array([[[64, 0], [0, 0]], [[32, 32], [0, 0]], [[48, 16], [0, 0]]])
    asked = []

    def masks_of(rows):
        asked.extend(rows)
        return [np.ones((8, 8), int)] * len(rows)

    results = mask_results(data, counts, masks_of)
    assert asked == [1, 2, 0]
    assert results.rows[0]["iou"] == pytest.approx(144 / 192)
    assert results.metrics["test_mean_iou_low"] <= 144 / 192 / 2 <= 1
    coloured = overlay(np.full((1, 2, 3), 200, np.uint8), np.array([[0, IGNORED]]))
    assert coloured[0, 1].tolist() == [90, 90, 90]
    assert coloured[0, 0].tolist() != [90, 90, 90]


def test_the_worst_boxes():
    target = np.array([[0, 0, 4, 4, 0]], float)
    data = data_of("detect", [target, target, np.zeros((0, 5))])
    hit, miss = [[0, 0, 4, 4, 0.9, 0]], [[4, 4, 8, 8, 0.9, 0], [0, 0, 4, 4, 0.1, 0]]
    predicted = [np.array(hit, float), np.array(miss, float), np.zeros((0, 6))]
    results = box_results(data, predicted, 0.5)
    assert [row["f1"] for row in results.predictions] == [1, 0, 1]
    assert results.worst.captions[0].startswith("y")
    assert len(results.worst.boxes[0]) == 2  # the true one and the one above the score
    assert results.rows[0]["recall"] == 0.5


def test_an_aligned_table():
    table = text_table([{"class": "a", "iou": 0.5}, {"class": "long", "iou": float("nan")}])
    assert table.splitlines() == ["class        iou", "    a      0.500", " long        nan"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/b.jpg", "c.png", "image 3"], ["a/b.png", "c.png", "image 3.png"]),
        (["a.jpg", "a.png", "a.png.jpg"], ["a.jpg.png", "a.png.png", "a.png.jpg.png"]),
        (["/etc/b.png"], ["etc/b.png"]),
        (["../../b.png", "a/../b.png", "b.png"], ["_/_/b.png", "a/_/b.png", "b.png"]),
    ],
)
def test_each_new_image_has_a_file_of_its_own_inside_the_folder(names, expected):
    assert _png_names(names) == expected
