"""Overlap of boxes and non-maximum suppression, against worked examples and other programs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.images.boxes import box_iou, non_maximum_suppression

SIDES = st.floats(0, 40, allow_subnormal=False)


@st.composite
def some_boxes(draw, most=12):
    """Boxes x1, y1, x2, y2 with sides of 1 or more."""
    n = draw(st.integers(1, most))
    low = draw(arrays(float, (n, 2), elements=SIDES))
    return np.concatenate([low, low + 1 + draw(arrays(float, (n, 2), elements=SIDES))], axis=1)


def test_a_worked_example():
    # Two squares of 2 x 2 that share one of 1 x 1: 1 / (4 + 4 - 1).
    assert box_iou([[0, 0, 2, 2]], [[1, 1, 3, 3]])[0, 0] == pytest.approx(0.1429, abs=5e-5)
    assert box_iou([[0, 0, 2, 2]], [[2, 0, 4, 2], [0, 0, 0, 0], [0, 0, 2, 2]]).tolist() == [
        [0, 0, 1]
    ]
    assert box_iou(np.zeros((0, 4)), np.ones((3, 4))).shape == (0, 3)


def test_a_worked_example_of_suppression():
    # Three objects with three or two boxes each, and a box alone.
    corners = [(0, 0), (50, 0), (0, 50), (1, 1), (51, 1), (1, 51), (2, 0), (0, 52), (80, 80)]
    boxes = np.array([(x, y, x + 20, y + 20) for x, y in corners], float)
    scores = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55])
    assert non_maximum_suppression(boxes, scores, 0.5).tolist() == [0, 1, 2, 8]
    # Boxes of other classes stay.
    classes = np.array([0, 0, 0, 1, 0, 0, 1, 0, 0])
    assert non_maximum_suppression(boxes, scores, 0.5, classes).tolist() == [0, 1, 2, 3, 8]
    assert non_maximum_suppression(np.zeros((0, 4)), np.zeros(0)).tolist() == []


@given(some_boxes(), some_boxes())
def test_the_overlap_is_that_of_pycocotools(first, second):
    mask = pytest.importorskip("pycocotools.mask")

    def xywh(boxes):
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    expected = mask.iou(xywh(first), xywh(second), [0] * len(second))
    np.testing.assert_allclose(box_iou(first, second), expected, atol=1e-6)
    np.testing.assert_allclose(box_iou(first, second), box_iou(second, first).T)


def torchvision_operators():
    """Return `torchvision.ops`; skip if its operators do not load, as beside torch for CPUs."""
    try:
        import torchvision.ops
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision: {error}")
    return torchvision.ops


@given(some_boxes(30), st.integers(0, 99), st.sampled_from([0.3, 0.5, 0.7]))
def test_suppression_is_that_of_torchvision(boxes, seed, threshold):
    operators = torchvision_operators()
    import torch

    scores = np.random.default_rng(seed).permutation(len(boxes)) / len(boxes)
    expected = operators.nms(torch.tensor(boxes), torch.tensor(scores), threshold)
    assert non_maximum_suppression(boxes, scores, threshold).tolist() == expected.tolist()
    np.testing.assert_allclose(
        box_iou(boxes, boxes), operators.box_iou(*[torch.tensor(boxes)] * 2), atol=1e-6
    )


@given(some_boxes(), st.integers(0, 99), st.sampled_from([0.3, 0.5, 0.7]))
def test_what_suppression_promises(boxes, seed, threshold):
    scores = np.random.default_rng(seed).random(len(boxes))
    kept = non_maximum_suppression(boxes, scores, threshold)
    assert (np.diff(scores[kept]) <= 0).all()
    overlaps = box_iou(boxes, boxes)
    assert (overlaps[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)] <= threshold).all()
    for row in set(range(len(boxes))) - set(kept.tolist()):
        assert any(overlaps[row, k] > threshold and scores[k] >= scores[row] for k in kept)
