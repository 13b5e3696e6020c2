from types import SimpleNamespace

import pytest


@pytest.fixture
def flags():
    """Return the flags of a data set of images; others are given by name."""
    values = {
        "image_size": [],
        "valid_size": 0.2,
        "test_size": 0.2,
        "class_names": [],
        "ignored_classes": [],
        "instance_class": None,
        "boxes_outside": "error",
        "image_array": "images",
        "label_array": "labels",
        "second_input": None,
        "second_output": None,
        "preprocess": [],
        "seed": 0,
    }
    return lambda data, **changed: SimpleNamespace(data=str(data), **values | changed)
