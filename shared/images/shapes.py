"""The sample to segment and detect: circles, squares and triangles, drawn by code.

The shapes have random colours, sizes and places on a noisy background. Each image comes with
the class of each pixel and a box for each shape.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle")
SIZE = 48  # pixels of a side
MOST_SHAPES = 3  # in a picture
_LEAST_DISTANCE = 120  # sum of the differences of a shape's colour from its background


class Drawing(NamedTuple):
    """A picture of shapes.

    Attributes
    ----------
    image : uint8 array of shape (SIZE, SIZE, 3)
    mask : uint8 array of shape (SIZE, SIZE); 0 background, 1 + the number of a shape in `SHAPES`.
    boxes : float64 array of shape (shapes, 5); x1, y1, x2, y2 and the number of the shape.
    """

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray


def draw_shapes(n: int, *, seed: int, most: int = MOST_SHAPES) -> list[Drawing]:
    """Draw pictures.

    Parameters
    ----------
    n : int
    seed : int
    most : int, default 3
        Shapes of a picture; at least one. They do not overlap.
    """
    rng = np.random.default_rng(seed)
    return [_draw(rng, number % len(SHAPES), most) for number in range(n)]


def _draw(rng: np.random.Generator, first: int, most: int) -> Drawing:
    from PIL import Image, ImageDraw

    background = rng.integers(0, 256, 3)
    canvas = Image.new("RGB", (SIZE, SIZE), tuple(background.tolist()))
    mask = Image.new("L", (SIZE, SIZE), 0)
    boxes: list[list[int]] = []
    wanted = int(rng.integers(1, most + 1))
    while len(boxes) < wanted:
        side = int(rng.integers(10, 22))
        x, y = (int(value) for value in rng.integers(1, SIZE - side - 1, 2))
        box = [x, y, x + side, y + side]
        if any(_touch(box, other) for other in boxes):
            if rng.random() < 0.1:  # there may be no place left
                break
            continue
        number = first if not boxes else int(rng.integers(len(SHAPES)))
        colour = rng.integers(0, 256, 3)
        while np.abs(colour - background).sum() < _LEAST_DISTANCE:
            colour = rng.integers(0, 256, 3)
        # The last pixel of a drawn shape belongs to it.
        inner = [x, y, x + side - 1, y + side - 1]
        for image, fill in ((canvas, tuple(colour.tolist())), (mask, number + 1)):
            _draw_shape(ImageDraw.Draw(image), SHAPES[number], inner, fill)
        boxes.append([*box, number])
    noise = rng.normal(0, 12, (SIZE, SIZE, 3))
    image = (np.asarray(canvas) + noise).clip(0, 255).round().astype(np.uint8)
    return Drawing(image, np.array(mask), np.array(boxes, dtype=np.float64))


def _draw_shape(draw: Any, shape: str, box: list[int], fill: Any) -> None:
    left, top, right, bottom = box
    if shape == "circle":
        draw.ellipse(box, fill=fill)
    elif shape == "square":
        draw.rectangle(box, fill=fill)
    else:
        draw.polygon([(left, bottom), ((left + right) / 2, top), (right, bottom)], fill=fill)


def _touch(first: list[int], second: list[int]) -> bool:
    return (
        first[0] <= second[2]
        and second[0] <= first[2]
        and first[1] <= second[3]
        and second[1] <= first[3]
    )
