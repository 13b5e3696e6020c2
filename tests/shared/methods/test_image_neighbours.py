import numpy as np
import pytest

from shared.methods.image_neighbours import nearest_image_classes


@pytest.mark.parametrize("size", [(8, 9), (100, 120)])
def test_the_class_of_the_nearest_image(size):
    rng = np.random.default_rng(0)
    # Large fields: what is shrunk keeps them.
    fields = rng.integers(0, 256, (20, 2, 2, 3)).repeat(size[0] // 2, 1).repeat(size[1] // 2, 2)
    train = fields.astype(np.uint8)
    noisy = (fields[:7] + rng.integers(-20, 20, fields[:7].shape)).clip(0, 255).astype(np.uint8)
    classes = np.arange(20) % 6
    assert nearest_image_classes(train, classes, noisy).tolist() == classes[:7].tolist()
    distances = ((noisy[:, None].astype(float) - train[None]) ** 2).sum(axis=(2, 3, 4))
    assert distances.argmin(axis=1).tolist() == list(range(7))
