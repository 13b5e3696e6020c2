"""The class of the nearest training image, pixel by pixel: the baseline of image classifiers."""

from __future__ import annotations

import numpy as np

LARGEST_SIDE = 48  # pixels; larger images are shrunk
_BATCH = 512


def nearest_image_classes(
    train: np.ndarray, train_classes: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """Return the class of the nearest training image of each image: int (images,).

    Parameters
    ----------
    train, images : uint8 arrays of shape (rows, height, width, 3)
        Compared by the Euclidean distance of their pixels.
    train_classes : int array of shape (rows of `train`,)
    """
    known, asked = (_flat(values) for values in (train, images))
    # |a - b|^2 = |a|^2 - 2 ab + |b|^2; the first term is the same for all of `train`.
    lengths = (known**2).sum(axis=1)
    nearest = [
        (lengths - 2 * asked[start : start + _BATCH] @ known.T).argmin(axis=1)
        for start in range(0, len(asked), _BATCH)
    ]
    return train_classes[np.concatenate(nearest)]


def _flat(images: np.ndarray) -> np.ndarray:
    """Return float32 (rows, values) of images that are not larger than `LARGEST_SIDE`."""
    step = -(-max(images.shape[1:3]) // LARGEST_SIDE)
    height, width = (side // step * step for side in images.shape[1:3])
    cut = images[:, :height, :width].reshape(
        len(images), height // step, step, width // step, step, 3
    )
    return cut.mean(axis=(2, 4), dtype=np.float32).reshape(len(images), -1) / 255
