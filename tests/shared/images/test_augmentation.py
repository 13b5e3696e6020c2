"""Random changes: what moves with an image, and that they can be repeated."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.images.augmentation import Changes, augment_batch, draw_changes, move_boxes

NONE = {"flip": "none", "shift": 0.0, "zoom": 0.0, "rotation": 0.0, "contrast": 0.0, "mixup": 0.0}


def changed_by(matrix):
    one = np.ones(1, np.float32)
    return Changes(np.array([matrix], np.float32), one, 0 * one)


def drawing(size=(30, 40), box=(6, 9, 15, 21)):
    """An image and a mask of a bright box, and the box."""
    pixels, mask = torch.zeros(1, 3, *size), torch.zeros(1, *size, dtype=torch.long)
    x1, y1, x2, y2 = box
    pixels[:, :, y1:y2, x1:x2], mask[:, y1:y2, x1:x2] = 1, 1
    return pixels, mask, np.array([[*box, 2]], float)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0, 0], [0, 1, 0]], [6, 9, 15, 21]),
        ([[-1, 0, 40], [0, 1, 0]], [25, 9, 34, 21]),  # flipped to the other side
        ([[1, 0, 0], [0, -1, 30]], [6, 9, 15, 21]),  # upside down; it lies in the middle
        ([[1, 0, 4], [0, 1, -3]], [2, 12, 11, 24]),  # 4 to the left, 3 down
        ([[0.5, 0, 0], [0, 0.5, 0]], [12, 18, 30, 30]),  # twice as large, cut below
    ],
)
def test_pixels_mask_and_box_move_alike(matrix, expected):
    pixels, mask, boxes = drawing()
    moved, moved_mask = augment_batch(pixels, changed_by(matrix), mask)
    x1, y1, x2, y2 = expected
    np.testing.assert_allclose(
        move_boxes(boxes, np.array(matrix, float), (30, 40)), [[*expected, 2]]
    )
    inside = torch.zeros(30, 40, dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    assert torch.equal(moved_mask[0] == 1, inside)
    assert torch.equal(moved[0, 0] > 0.5, inside)


def test_a_right_angle_moves_a_box_exactly():
    turn = np.array([[0, 1, 0], [-1, 0, 40]], float)  # around the middle of 40 x 40
    pixels, mask, boxes = drawing(size=(40, 40))
    _, moved = augment_batch(pixels, changed_by(turn), mask)
    y, x = np.nonzero(moved[0].numpy() == 1)
    box = [x.min(), y.min(), x.max() + 1, y.max() + 1, 2]
    np.testing.assert_allclose(move_boxes(boxes, turn, (40, 40)), [box], atol=1e-6)


def test_a_box_that_is_mostly_outside_is_left_out():
    boxes = np.array([[0, 0, 10, 10, 0], [20, 20, 30, 30, 1]], float)
    left = np.array([[1, 0, 8], [0, 1, 0]], float)
    assert move_boxes(boxes, left, (40, 40)).tolist() == [[12, 20, 22, 30, 1]]


def test_pixels_from_outside_have_no_class():
    _, mask = augment_batch(*drawing()[:1], changed_by([[1, 0, -5], [0, 1, 0]]), drawing()[1])
    assert (mask[0, :, :5] == -100).all()
    assert (mask[0, :, 5:] >= 0).all()


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0, 180), st.floats(0, 0.5), st.floats(0, 0.5))
def test_any_change_keeps_the_box_around_its_pixels(seed, rotation, zoom, shift):
    chosen = SimpleNamespace(
        **NONE | {"rotation": rotation, "zoom": zoom, "shift": shift, "flip": "both"}
    )
    changes = draw_changes([(seed,)], (60, 60), chosen)
    pixels, mask, boxes = drawing(size=(60, 60), box=(25, 22, 37, 40))
    _, moved = augment_batch(pixels, changes, mask)
    y, x = np.nonzero(moved[0].numpy() == 1)
    around = move_boxes(boxes, changes.maps[0], (60, 60))
    if len(around):
        x1, y1, x2, y2, _ = around[0]
        assert x.min() >= x1 - 1.5
        assert x.max() <= x2 + 0.5
        assert y.min() >= y1 - 1.5
        assert y.max() <= y2 + 0.5


def test_the_changes_of_an_image_depend_on_seed_epoch_and_image_only():
    chosen = SimpleNamespace(**NONE | {"flip": "both", "shift": 0.2, "contrast": 0.3})
    both = draw_changes([(1, 0, 7), (1, 0, 8)], (32, 32), chosen)
    alone = draw_changes([(1, 0, 8)], (32, 32), chosen)
    np.testing.assert_array_equal(both.maps[1], alone.maps[0])
    other = draw_changes([(1, 1, 8)], (32, 32), chosen)
    assert not np.array_equal(other.maps, alone.maps)


def test_no_change_leaves_the_pixels_bitwise():
    pixels = torch.randn(2, 3, 8, 9)
    changes = draw_changes([(0,), (1,)], (8, 9), SimpleNamespace(**NONE))
    assert torch.equal(augment_batch(pixels, changes)[0], pixels)
