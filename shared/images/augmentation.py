"""Random changes of a batch of images, as tensors; masks and boxes move with their image.

All geometric changes of an image are one affine map, so that its pixels are interpolated once. What
is drawn for an image depends on (seed, epoch, image) only, so that a resumed run repeats it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

LEAST_AREA = 0.3  # share of a box that must stay in the image, else it is left out


class Changes(NamedTuple):
    """What is drawn for each image of a batch.

    Attributes
    ----------
    maps : float32 array of shape (rows, 2, 3)
        From a point of the changed image to one of the original, both in pixels.
    gain, offset : float32 arrays of shape (rows,)
        A pixel becomes ``gain * pixel + offset``; the mean of the training pixels is 0.
    """

    maps: np.ndarray
    gain: np.ndarray
    offset: np.ndarray


def draw_changes(keys: list[tuple[int, ...]], size: tuple[int, int], settings: Any) -> Changes:
    """Draw the changes of some images.

    Parameters
    ----------
    keys : list of tuple of int
        Seed, epoch and number of each image.
    size : tuple of int
        Height and width in pixels.
    settings : AugmentationArguments
    """
    # One generator for each image, and always the same number of draws from it.
    draws = np.array([np.random.default_rng(key).random(8) for key in keys])
    centred = 2 * draws - 1
    height, width = size
    angle = np.deg2rad(settings.rotation) * centred[:, 0]
    zoom = np.exp(math.log1p(settings.zoom) * centred[:, 1])
    flip_x = np.where((settings.flip in ("horizontal", "both")) & (draws[:, 2] < 0.5), -1, 1)
    flip_y = np.where((settings.flip in ("vertical", "both")) & (draws[:, 3] < 0.5), -1, 1)
    # Whole pixels: without rotation and zoom, nothing is blurred.
    shift_x = np.round(settings.shift * width * centred[:, 4])
    shift_y = np.round(settings.shift * height * centred[:, 5])
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    linear = np.stack(
        [np.stack([cos * flip_x, -sin * flip_y], 1), np.stack([sin * flip_x, cos * flip_y], 1)], 1
    )
    # The middle of the image stays in its place, but for the shift.
    middle = np.array([width / 2, height / 2])
    offsets = middle - linear @ middle + np.stack([shift_x, shift_y], 1)
    maps = np.concatenate([linear, offsets[:, :, None]], axis=2)
    gain = 1 + settings.contrast * centred[:, 6]
    return Changes(
        maps.astype(np.float32),
        gain.astype(np.float32),
        (settings.contrast * centred[:, 7]).astype(np.float32),
    )


def augment_batch(
    pixels: torch.Tensor, changes: Changes, masks: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Apply changes to images and their masks.

    Parameters
    ----------
    pixels : float tensor of shape (rows, channels, height, width)
        Their mean is 0; so are pixels from outside of the image.
    changes : Changes
    masks : int64 tensor of shape (rows, height, width), optional
        Pixels from outside of the image become -100.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    height, width = pixels.shape[2:]
    maps = torch.from_numpy(changes.maps)
    # `affine_grid` counts from -1 to 1 over the sides of the image: p = half * (n + 1).
    half = torch.tensor([width / 2, height / 2])
    linear = maps[:, :, :2] * half[None, None] / half[None, :, None]
    offset = (maps[:, :, :2] @ half + maps[:, :, 2]) / half - 1
    is_same = torch.allclose(maps, torch.eye(2, 3).expand_as(maps))
    if not is_same:
        theta = torch.cat([linear, offset[:, :, None]], dim=2)
        grid = affine_grid(theta, [len(maps), 1, height, width], align_corners=False)
        pixels = grid_sample(pixels, grid, align_corners=False)
        if masks is not None:
            raised = (masks + 100)[:, None].float()
            sampled = grid_sample(raised, grid, mode="nearest", align_corners=False)
            masks = sampled[:, 0].round().long() - 100
    gain, shift = (torch.from_numpy(values)[:, None, None, None] for values in changes[1:])
    return pixels * gain + shift, masks


def move_boxes(boxes: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the boxes of a changed image; those that are mostly outside of it are left out.

    A box that is turned becomes the smallest upright one around it.

    Parameters
    ----------
    boxes : array of shape (boxes, 5)
        x1, y1, x2, y2 in pixels, and the class number.
    matrix : array of shape (2, 3)
        From `Changes.maps`.
    size : tuple of int
        Height and width in pixels.
    """
    inverse = np.linalg.inv(matrix[:, :2].astype(np.float64))
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]]  # (boxes, 4, 2)
    moved = (corners - matrix[:, 2]) @ inverse.T
    around = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
    clipped = np.clip(around, 0, [size[1], size[0]] * 2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (clipped, around)]
    kept = areas[0] > LEAST_AREA * areas[1]
    return np.column_stack([clipped, boxes[:, 4]])[kept]
