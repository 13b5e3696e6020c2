"""Operations of image processing before neural networks, as ``--preprocess``.

Each takes and returns an image, uint8 of shape (height, width, 3):

- equalise: spread the brightness over its whole range (histogram equalisation of the luminance);
- edges: length of the gradient of the brightness (Sobel filters);
- denoise: the median of 3 x 3 pixels;
- dilate, erode: the brightest or darkest of 3 x 3 pixels;
- open: erode, then dilate, which removes small bright spots; close: dilate, then erode, which
  fills small dark ones;
- grey: the brightness;
- sharpen: add what a Gaussian blur takes away (unsharp masking).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from shared.cli.errors import UserError


def preprocess(image: np.ndarray, operations: Sequence[str]) -> np.ndarray:
    """Apply operations one after another.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    operations : sequence of str
        Names in `OPERATIONS`.
    """
    for name in operations:
        image = OPERATIONS[name](image)
    return image


def check_operations(operations: Sequence[str]) -> None:
    """Raise a `UserError` for a name that is none of `OPERATIONS`."""
    for name in operations:
        if name not in OPERATIONS:
            raise UserError(f"--preprocess {name}: must be any of {', '.join(OPERATIONS)}")


def _equalise(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    values = np.array(Image.fromarray(image).convert("YCbCr"))
    # PIL's own function leaves images of fewer than 256 pixels as they are.
    ranks = np.bincount(values[..., 0].ravel(), minlength=256).cumsum()
    lowest = ranks[ranks > 0][0]
    table = (ranks - lowest).clip(0) * (255 / max(ranks[-1] - lowest, 1))
    values[..., 0] = table.round()[values[..., 0]]
    return np.array(Image.fromarray(values, "YCbCr").convert("RGB"))


def _edges(image: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    brightness = _brightness(image)
    gradient = np.hypot(*(ndimage.sobel(brightness, axis) for axis in (0, 1)))
    # A step from black to white has 4 x 255.
    return _three_channels(gradient / 4)


def _grey(image: np.ndarray) -> np.ndarray:
    return _three_channels(_brightness(image))


def _sharpen(image: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    values = image.astype(np.float64)
    blurred = ndimage.gaussian_filter(values, (1.5, 1.5, 0))
    return (2 * values - blurred).clip(0, 255).round().astype(np.uint8)


def _filter(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a filter of scipy over 3 x 3 pixels of each channel."""

    def apply(image: np.ndarray) -> np.ndarray:
        from scipy import ndimage

        return getattr(ndimage, name)(image, size=(3, 3, 1))

    return apply


def _brightness(image: np.ndarray) -> np.ndarray:
    """Return the luma of ITU-R BT.601, float64 (height, width), 0 to 255."""
    return image @ np.array([0.299, 0.587, 0.114])


def _three_channels(values: np.ndarray) -> np.ndarray:
    values = values.clip(0, 255).round().astype(np.uint8)
    return np.repeat(values[..., None], 3, axis=2)


OPERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "equalise": _equalise,
    "edges": _edges,
    "denoise": _filter("median_filter"),
    "dilate": _filter("maximum_filter"),
    "erode": _filter("minimum_filter"),
    "open": _filter("grey_opening"),
    "close": _filter("grey_closing"),
    "grey": _grey,
    "sharpen": _sharpen,
}
