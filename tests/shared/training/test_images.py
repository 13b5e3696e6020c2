"""Batches of images and the losses of segmentation and detection."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shared.images.reading import IGNORED, ImageData
from shared.models.image_networks import DISTANCE_SCALE
from shared.training.images import (
    BoxLoss,
    ImageCollator,
    PixelLoss,
    TwoOutputLoss,
    generalized_iou,
    image_rows,
    pixel_weights,
)

PLAIN = {"flip": "none", "shift": 0.0, "zoom": 0.0, "rotation": 0.0, "contrast": 0.0, "mixup": 0.0}


def images(task, targets, n=4, **values):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    parts = {"train": np.arange(n), "valid": np.arange(0), "test": np.arange(0)}
    files = [str(i) for i in range(n)]
    return ImageData(task, pixels, ["a", "b"], targets, files, "here", parts, **values)


def collate(data, rows, *, augment=False, epoch=0, **settings):
    chosen = SimpleNamespace(**PLAIN | settings)
    mean, std = [0.5] * 3, [0.25] * 3
    collator = ImageCollator(data, mean, std, chosen, seed=3, epoch=lambda: epoch)
    dataset = image_rows(data, "train", augment=augment)
    return collator([dataset[row] for row in rows])


def test_a_batch_to_classify():
    data = images("classify", np.array([0, 1, 1, 0]), second_inputs=np.arange(4))
    data.second_outputs, data.second_names = np.array([2, 0, 1, 1]), ["x", "y", "z"]
    batch = collate(data, [1, 2])
    expected = (data.images[1:3] / 255 - 0.5) / 0.25
    actual = batch["pixel_values"].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert batch["labels"].tolist() == [[0, 1, 1, 0, 0], [0, 1, 0, 1, 0]]
    assert batch["context"].tolist() == [1, 2]


def test_mixup_mixes_pixels_and_labels_alike_and_repeats():
    data = images("classify", np.array([0, 1, 1, 0]))
    data.images = np.array([0, 255, 255, 0], np.uint8)[:, None, None, None].repeat(8, 1)
    data.images = data.images.repeat(8, 2).repeat(3, 3)
    batch = collate(data, [0, 1, 2, 3], augment=True, mixup=1.0)
    share = (batch["pixel_values"][:, 0, 0, 0] + 2) / 4
    np.testing.assert_allclose(batch["labels"][:, 1], share, atol=1e-6)
    np.testing.assert_allclose(batch["labels"].sum(1), 1, atol=1e-6)
    again = collate(data, [0, 1, 2, 3], augment=True, mixup=1.0)
    assert torch.equal(again["pixel_values"], batch["pixel_values"])
    later = collate(data, [0, 1, 2, 3], augment=True, mixup=1.0, epoch=1)
    assert not torch.equal(later["labels"], batch["labels"])
    assert set(collate(data, [0, 1], mixup=1.0)["labels"].flatten().tolist()) == {0, 1}


def test_a_batch_of_masks_and_of_boxes():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4], mask[7] = 1, IGNORED
    batch = collate(images("segment", [mask] * 4), [0, 3])
    assert batch["labels"][1, :, 0].tolist() == [0, 0, 1, 1, 0, 0, 0, -100]
    boxes = [np.zeros((0, 5)), np.array([[1, 2, 5, 6, 1], [0, 0, 2, 2, 0]], float)]
    data = images("detect", [*boxes, *boxes])
    batch = collate(data, [0, 1])
    assert batch["labels"].shape == (2, 2, 5)
    assert (batch["labels"][0] == -100).all()
    assert batch["labels"][1].tolist() == boxes[1].tolist()
    assert collate(data, [0])["labels"].shape == (1, 1, 5)


def test_changed_images_or_targets_have_other_fingerprints():
    data = images("classify", np.array([0, 1, 1, 0]))
    before = data.fingerprints()
    data.targets[2] = 0
    data.images[3, 0, 0, 0] ^= 1
    assert (data.fingerprints() == before).tolist() == [True, True, False, False]


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_the_pixel_loss_and_what_an_evaluation_collects(weight):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 3, 4, 5), torch.randint(0, 3, (3, 4, 5))
    labels[0, 0], labels[2, 1:] = -100, -100
    loss = PixelLoss(3, weight)
    counted = labels != -100
    expected = torch.nn.functional.cross_entropy(logits, labels, weight, reduction="sum")
    expected = expected / counted.sum()
    torch.testing.assert_close(loss({"logits": logits}, labels), expected)
    # However a batch is cut, the sum over its parts is the loss of the whole.
    parts = [
        loss({"logits": logits[i : i + 1]}, labels[i : i + 1], counted.sum()) for i in range(3)
    ]
    torch.testing.assert_close(sum(parts), expected)
    measured = loss.measure(logits, labels)
    torch.testing.assert_close(loss({"logits": measured}, labels), expected)
    counts = measured[:, :9].view(3, 3, 3)
    assert counts.sum() == counted.sum()
    hits = (logits.argmax(1) == labels).flatten(1).sum(1)
    assert torch.equal(counts.diagonal(dim1=1, dim2=2).sum(1).long(), hits)
    # Networks of the hub have smaller maps.
    small = torch.randn(1, 3, 2, 2)
    assert loss.measure(small, labels[1:2])[:, :9].sum() == 20


def test_rare_classes_weigh_more_and_the_mean_is_1():
    mask = np.zeros((8, 8), np.uint8)
    mask[0, :4] = 1  # 4 of 64 pixels
    weights = pixel_weights(images("segment", [mask] * 4))
    assert float(weights[1] / weights[0]) == pytest.approx((60 / 4) ** 0.5, rel=1e-5)
    assert float(weights @ torch.tensor([60.0, 4.0]) / 64) == pytest.approx(1, rel=1e-5)


def perfect(labels, n_classes=2, size=(8, 10), cell=4):
    """Return logits that say exactly what the boxes are, near their centres."""
    logits = torch.zeros(len(labels), n_classes + 4, *size)
    logits[:, :n_classes] = -12.0
    for row, boxes in enumerate(labels):
        for x1, y1, x2, y2, number in boxes[boxes[:, 4] >= 0].tolist():
            x, y = int((x1 + x2) / 2 // cell), int((y1 + y2) / 2 // cell)
            middle = ((x + 0.5) * cell, (y + 0.5) * cell)
            sides = [middle[0] - x1, middle[1] - y1, x2 - middle[0], y2 - middle[1]]
            distances = torch.tensor(sides) / (DISTANCE_SCALE * cell)
            logits[row, int(number), y, x] = 12.0
            logits[row, n_classes:, y, x] = torch.expm1(distances).log()
    return logits


def test_the_box_loss_is_lowest_for_the_true_boxes():
    # So small that only their own cell learns their sides.
    labels = torch.full((2, 2, 5), -100.0)
    labels[0] = torch.tensor([[4.0, 4, 12, 12, 0], [20, 17, 28, 25, 1]])
    labels[1, 0] = torch.tensor([8.0, 8, 14, 15, 1])
    loss = BoxLoss(4)
    exact = perfect(labels)
    value = float(loss({"logits": exact}, labels))
    assert value < 0.01
    moved, missed, invented = exact.clone(), exact.clone(), exact.clone()
    moved[:, 2] += 1.0
    missed[0, 0, 2, 2] = -12.0
    invented[1, 0, 6, 8] = 12.0
    for worse in (moved, missed, invented):
        assert float(loss({"logits": worse}, labels)) > value + 0.1
    # However a batch is cut, the sum over its parts is the loss of the whole.
    n_items = torch.tensor(15)
    parts = [loss({"logits": moved[i : i + 1]}, labels[i : i + 1], n_items) for i in range(2)]
    torch.testing.assert_close(sum(parts), loss({"logits": moved}, labels))
    measured = loss.measure(moved, labels)
    torch.testing.assert_close(loss({"logits": measured}, labels), sum(parts))
    boxes = loss.measure(exact, labels)[0, :2]
    np.testing.assert_allclose(boxes[boxes[:, 5].argsort(), :4], labels[0, :, :4], atol=1e-3)


def test_a_batch_without_boxes_has_a_finite_loss_and_gradient():
    labels = torch.full((2, 1, 5), -100.0)
    logits = torch.zeros(2, 6, 8, 10, requires_grad=True)
    loss = BoxLoss(4)({"logits": logits}, labels, torch.tensor(0))
    loss.backward()
    assert loss > 0
    assert torch.isfinite(logits.grad).all()


def test_the_generalised_overlap():
    square = torch.tensor([[0.0, 0, 2, 2]])
    for other, expected in (
        ([0.0, 0, 2, 2], 1),
        ([1.0, 1, 3, 3], 1 / 7 - 2 / 9),
        ([4.0, 0, 6, 2], 0 - 4 / 12),
    ):
        actual = generalized_iou(square, torch.tensor([other]))
        assert float(actual) == pytest.approx(expected, abs=1e-6)


def test_the_loss_of_two_outputs():
    torch.manual_seed(0)
    logits, first, second = torch.randn(4, 5), torch.randint(0, 3, (4,)), torch.randint(0, 2, (4,))
    labels = torch.cat([torch.eye(3)[first], torch.eye(2)[second]], dim=1)
    cross_entropy = torch.nn.functional.cross_entropy
    parts = cross_entropy(logits[:, :3], first), cross_entropy(logits[:, 3:], second)
    loss = TwoOutputLoss(3, 0.25)
    expected = 0.75 * parts[0] + 0.25 * parts[1]
    torch.testing.assert_close(loss({"logits": logits}, labels), expected)
    halves = [
        loss({"logits": logits[i : i + 2]}, labels[i : i + 2], torch.tensor(20)) for i in (0, 2)
    ]
    torch.testing.assert_close(sum(halves), expected)
