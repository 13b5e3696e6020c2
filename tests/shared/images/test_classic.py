import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.images.classic import OPERATIONS, check_operations, preprocess


@pytest.fixture
def square():
    """A bright square of 4 x 4 pixels on a dark image of 12 x 12."""
    image = np.full((12, 12, 3), 40, np.uint8)
    image[4:8, 4:8] = 200
    return image


def bright(image):
    return int((image[..., 0] > 120).sum())


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_an_operation_keeps_shape_and_type_and_its_input(name, square):
    before = square.copy()
    result = preprocess(square, [name])
    assert (result.shape, result.dtype) == (square.shape, np.uint8)
    assert np.array_equal(square, before)


def test_what_the_operations_do(square):
    assert bright(preprocess(square, ["dilate"])) == 36
    assert bright(preprocess(square, ["erode"])) == 4
    spot = square.copy()
    spot[1, 1] = 255
    assert np.array_equal(preprocess(spot, ["open"]), square)
    assert np.array_equal(preprocess(spot, ["denoise"])[:3, :3], square[:3, :3])
    hole = square.copy()
    hole[5, 5] = 0
    assert np.array_equal(preprocess(hole, ["close"])[4:8, 4:8], square[4:8, 4:8])
    edges = preprocess(square, ["edges"])
    assert edges[5:7, 5:7].max() == 0  # inside
    assert edges[4, 5].min() > 100  # at the side
    slope = np.repeat(np.arange(90, 154, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2)
    assert np.ptp(preprocess(slope, ["equalise"])) > 200 > np.ptp(slope)
    colours = square.copy()
    colours[..., 0] = 0
    grey = preprocess(colours, ["grey"])
    assert (grey[..., 0] == grey[..., 1]).all()
    assert np.ptp(preprocess(square, ["sharpen"])) > np.ptp(square)
    assert bright(preprocess(square, ["erode", "dilate"])) == 16


def test_an_unknown_operation_is_named():
    with pytest.raises(UserError, match="--preprocess blur: must be any of equalise, edges"):
        check_operations(["edges", "blur"])
