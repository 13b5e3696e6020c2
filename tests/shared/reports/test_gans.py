"""What is said of a generator: its figures, and the classes that a network finds."""

import numpy as np
import pytest

from shared.images.reading import ImageData
from shared.methods.image_features import ImageFeatures
from shared.models.images import ImageModelArguments, build_image_model
from shared.reports.gans import generator_results


@pytest.fixture
def data():
    """Sixty images of one class, 40 to train on and 20 to test on."""
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    parts = {"train": np.arange(40), "valid": np.arange(0), "test": np.arange(40, 60)}
    files = [str(i) for i in range(60)]
    return ImageData("generate", images, ["image"], np.zeros(60, int), files, "images", parts)


@pytest.fixture
def features(data):
    """Features of a classifier of classes that the images do not have."""
    sizes = ImageModelArguments(width=4, num_levels=2)
    model = build_image_model(sizes, "classify", ["cat", "dog", "owl"]).eval()
    known = {"size": [8, 8], "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return ImageFeatures(data.images[:40], 3, model, known)


def test_classes_are_those_of_the_network_not_of_the_images(data, features):
    results = generator_results(features, data, data.images[:30], [], seed=0)
    assert features.class_names == ["cat", "dog", "owl"]
    assert {"cat", "dog", "owl"} <= set(results.report.split())
    pixels = ImageFeatures(data.images[:40], 3)
    assert pixels.class_names == []
    assert "owl" not in generator_results(pixels, data, data.images[:30], [], seed=0).report


def test_features_are_fewer_than_training_images(data):
    data.parts["train"] = np.arange(6)
    features = ImageFeatures(data.images[:6], 10)
    assert features.n_features == 5
    results = generator_results(features, data, data.images[:30], [], seed=0)
    assert results.figures["training images"]["frechet_distance"] >= 0


def test_the_table_says_how_many_images_each_row_has(data):
    features = ImageFeatures(data.images[:40], 3)
    report = generator_results(features, data, data.images[:50], [], seed=0).report
    table = [line.split() for line in report.splitlines()[:5]]
    assert [words[-5] for words in table] == ["images", "50", "40", "50", "50"]
