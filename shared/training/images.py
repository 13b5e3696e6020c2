"""Batches of images, and the losses of segmentation and detection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.images.augmentation import augment_batch, draw_changes, move_boxes
from shared.images.reading import IGNORED, ImageData
from shared.training.collators import IGNORE_INDEX
from shared.training.losses import SingleLabelLoss

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel

CENTRE_SHARE = 0.54  # a centre map falls to this share of a box's half side in three deviations
NEAR = 0.5  # cells where the map of a centre is above this learn the sides of the box
CENTRE_POWER, MISS_POWER = 4, 2  # exponents of the focal loss


def image_rows(data: ImageData, part: str, *, augment: bool = False) -> Dataset:
    """Return a data set of the rows of a part, for `ImageCollator`.

    Parameters
    ----------
    data : ImageData
    part : {"train", "valid", "test", "new"}
    augment : bool, default False
        Whether the collator changes them at random.
    """
    from datasets import Dataset

    rows = data.parts[part]
    # The fingerprint tells a resumed run that its data has changed.
    return Dataset.from_dict(
        {
            "row": rows,
            "label": data.fingerprints()[rows],
            "augment": [augment] * len(rows),
            "length": [1] * len(rows),
        }
    )


class ImageCollator:
    """Make batches of images, with random changes of those to train on.

    Parameters
    ----------
    data : ImageData
    mean, std : sequences of three floats
        Of the channels, 0 to 1: pixels are scaled to mean 0 and deviation 1.
    settings : AugmentationArguments
    seed : int
    epoch : callable
        Returns the number of the current epoch.

    Notes
    -----
    A batch holds ``pixel_values``, float32 (rows, 3, height, width), and ``labels``: one-hot
    float32 (rows, classes) to classify, those of a second output beside them; int64 (rows, height,
    width), `IGNORE_INDEX` where no class counts, to segment; float32 (rows, boxes, 5), x1, y1, x2,
    y2 in pixels and the class number, padded with `IGNORE_INDEX`, to detect. New images have none.
    ``context``, int64 (rows,), is the second input.
    """

    def __init__(
        self,
        data: ImageData,
        mean: Sequence[float],
        std: Sequence[float],
        settings: Any,
        *,
        seed: int,
        epoch: Callable[[], int] = lambda: 0,
    ):
        self._data, self._settings = data, settings
        self._mean, self._std = (np.array(v, np.float32) * 255 for v in (mean, std))
        self.seed, self.epoch = seed, epoch

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows of `image_rows`."""
        import torch

        data, settings = self._data, self._settings
        rows = np.array([feature["row"] for feature in features])
        pixels = torch.from_numpy((data.images[rows] - self._mean) / self._std).permute(0, 3, 1, 2)
        augment = features[0]["augment"]
        size = data.images.shape[1:3]
        epoch = self.epoch()
        if augment:
            changes = draw_changes([(self.seed, epoch, row) for row in rows], size, settings)
        masks = None
        is_known = data.targets is not None
        if is_known and data.task == "segment":
            masks = torch.from_numpy(np.stack([data.targets[row] for row in rows])).long()
            masks[masks == IGNORED] = IGNORE_INDEX
        if augment:
            pixels, masks = augment_batch(pixels, changes, masks)
        batch = {"pixel_values": pixels.contiguous()}
        if masks is not None:
            batch["labels"] = masks
        elif is_known and data.task == "detect":
            boxes = [data.targets[row] for row in rows]
            if augment:
                boxes = [move_boxes(b, m, size) for b, m in zip(boxes, changes.maps, strict=True)]
            # At least one column: a batch may have no box.
            most = max(1, *map(len, boxes))
            labels = torch.full((len(rows), most, 5), float(IGNORE_INDEX))
            for label, values in zip(labels, boxes, strict=True):
                label[: len(values)] = torch.from_numpy(values)
            batch["labels"] = labels
        elif is_known:
            batch["labels"] = self._class_labels(rows)
            if augment and settings.mixup:
                rng = np.random.default_rng((self.seed, epoch, *rows))
                share = rng.beta(settings.mixup, settings.mixup)
                order = torch.from_numpy(rng.permutation(len(rows)))
                for name, values in batch.items():
                    batch[name] = share * values + (1 - share) * values[order]
                batch = {name: values.float() for name, values in batch.items()}
        if data.second_inputs is not None:
            batch["context"] = torch.from_numpy(data.second_inputs[rows])
        return batch

    def _class_labels(self, rows: np.ndarray) -> torch.Tensor:
        """Return one-hot labels (rows, classes), those of the second output beside the first."""
        import torch

        data = self._data
        labels = np.eye(len(data.class_names), dtype=np.float32)[data.targets[rows]]
        if data.second_outputs is not None:
            second = np.eye(len(data.second_names), dtype=np.float32)[data.second_outputs[rows]]
            labels = np.concatenate([labels, second], axis=1)
        return torch.from_numpy(labels)


def predict_masks(
    model: PreTrainedModel, collator: ImageCollator, rows: Sequence[int]
) -> list[np.ndarray]:
    """Return the predicted class of each pixel of some images: int64 (height, width) each.

    Parameters
    ----------
    model : PreTrainedModel
        Of segmentation.
    collator : ImageCollator
    rows : sequence of int
        Numbers of images.
    """
    import torch

    masks = []
    model.eval()
    for row in rows:
        batch = collator([{"row": row, "augment": False}])
        with torch.no_grad():
            logits = model(pixel_values=batch["pixel_values"].to(model.device)).logits
        masks.append(_to_size(logits.cpu(), batch["labels"]).argmax(1)[0].numpy())
    return masks


@dataclass
class ImageLossArguments:
    """Flags of the losses of images."""

    class_weight: Literal["none", "balanced"] = flag(
        "none",
        "segment: weight of the classes in the loss, all equal, or higher if they have fewer "
        "pixels (default: none).",
    )
    second_weight: list[float] = flag(
        [0.3],
        "Share of the second output in the loss; of several, the best is kept (default: .3).",
        least=0,
        most=1,
    )


def image_loss(
    args: Any, data: ImageData, model: PreTrainedModel, *, second_weight: float = 0.0
) -> SingleLabelLoss | TwoOutputLoss | PixelLoss | BoxLoss:
    """Return the loss of the task of some images, for ``compute_loss_func``.

    Parameters
    ----------
    args : ImageLossArguments with `label_smoothing_factor`
    data : ImageData
    model : PreTrainedModel
        Of the task.
    second_weight : float, default 0
        Share of the second output, if the data have one.
    """
    n_classes, smoothing = len(data.class_names), args.label_smoothing_factor
    if data.task == "segment":
        balanced = args.class_weight == "balanced"
        return PixelLoss(n_classes, pixel_weights(data) if balanced else None)
    if data.task == "detect":
        return BoxLoss(model.config.cell_size)
    if data.second_names:
        return TwoOutputLoss(n_classes, second_weight, smoothing)
    return SingleLabelLoss(label_smoothing=smoothing)


class TwoOutputLoss:
    """Weighted mean of the cross-entropies of two outputs, for ``compute_loss_func``.

    Parameters
    ----------
    n_classes : int
        Of the first output; its columns come first.
    share : float
        Weight of the second output, 0 to 1; the first has the rest.
    label_smoothing : float
        As in `SingleLabelLoss`.
    """

    def __init__(self, n_classes: int, share: float, label_smoothing: float = 0.0):
        self.n_classes, self.share, self.label_smoothing = n_classes, share, label_smoothing

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the loss of ``outputs["logits"]`` and one-hot labels (rows, both classes)."""
        loss = SingleLabelLoss(label_smoothing=self.label_smoothing)
        # The Trainer counts the elements of `labels`, that is rows * columns.
        n_items = labels.numel() if num_items_in_batch is None else num_items_in_batch
        n_rows = n_items // labels.shape[1]
        losses = []
        for columns in (slice(None, self.n_classes), slice(self.n_classes, None)):
            part = labels[:, columns]
            logits = {"logits": outputs["logits"][:, columns]}
            losses.append(loss(logits, part, n_rows * part.shape[1]))
        return (1 - self.share) * losses[0] + self.share * losses[1]


class PixelLoss:
    """Cross-entropy of each pixel that has a class, for ``compute_loss_func``.

    Parameters
    ----------
    n_classes : int
    weight : float tensor of shape (classes,), optional
        Weight of the pixels of each class; see `pixel_weights`.
    """

    def __init__(self, n_classes: int, weight: torch.Tensor | None = None):
        self.n_classes, self.weight = n_classes, weight

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the mean over pixels; in an evaluation ``logits`` are those of `measure`."""
        logits = outputs["logits"]
        if logits.ndim == 2:
            return logits[:, -2].sum() / logits[:, -1].sum().clamp(min=1)
        n_items = (
            (labels != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch
        )
        return self._losses(logits, labels).sum() / (n_items if n_items else 1)

    def measure(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return what an evaluation needs, for ``preprocess_logits_for_metrics``.

        Returns
        -------
        float32 tensor of shape (rows, classes * classes + 2)
            The pixels of each true class (rows) that each class was predicted for (columns), the
            sum of the losses, and the number of pixels. The Trainer collects these instead of a
            number for each class and pixel.
        """
        import torch

        losses = self._losses(logits, labels).flatten(1).sum(1)
        counted = labels != IGNORE_INDEX
        predicted = _to_size(logits, labels).argmax(1)
        pairs = torch.where(counted, labels * self.n_classes + predicted, self.n_classes**2)
        counts = torch.stack([p.flatten().bincount(minlength=self.n_classes**2 + 1) for p in pairs])
        sums = [losses[:, None], counted.flatten(1).sum(1)[:, None]]
        return torch.cat([counts[:, :-1].float(), *(value.float() for value in sums)], dim=1)

    def _losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        if self.weight is not None:
            self.weight = self.weight.to(logits.device)
        logits = _to_size(logits, labels).float()
        return cross_entropy(
            logits, labels, self.weight, ignore_index=IGNORE_INDEX, reduction="none"
        )


def _to_size(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return logits of the size of the masks; networks of the hub have smaller ones."""
    from torch.nn.functional import interpolate

    if logits.shape[2:] == labels.shape[1:]:
        return logits
    return interpolate(logits, labels.shape[1:], mode="bilinear")


def pixel_weights(data: ImageData) -> torch.Tensor:
    """Return the weight of the pixels of each class, by the training masks: float32 (classes,).

    It is proportional to one over the square root of the number of its pixels. The mean over all
    pixels is 1. With the full inverse, a class of few pixels would be predicted far too often.
    """
    import torch

    counts = np.zeros(IGNORED + 1)
    for row in data.parts["train"]:
        counts += np.bincount(data.targets[row].ravel(), minlength=IGNORED + 1)
    counts = counts[: len(data.class_names)]
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()


class BoxLoss:
    """Loss of maps of box centres and of the sides of the boxes, for ``compute_loss_func``.

    The centre maps have the focal loss of Law and Deng 2018 ("CornerNet", equation 1) against a
    Gaussian around each centre, as wide as its box (Liu et al. 2020). The sides have the
    generalised intersection over union (Rezatofighi et al. 2019), at the cells near the centre.
    Both are sums over the batch, divided by the number of its boxes.

    Parameters
    ----------
    cell_size : int
        Pixels of a cell of the maps.
    box_weight : float
        Of the sides, against the centres.
    """

    def __init__(self, cell_size: int, box_weight: float = 5.0):
        self.cell_size, self.box_weight = cell_size, box_weight

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the loss per box; in an evaluation ``logits`` are those of `measure`."""
        logits = outputs["logits"]
        if logits.ndim == 3:
            return logits[:, -1, 0].sum() / (labels[:, :, 4] >= 0).sum().clamp(min=1)
        n_boxes: Any = (labels[:, :, 4] >= 0).sum()
        if num_items_in_batch is not None:
            # The Trainer counts the numbers in `labels` that are no padding.
            n_boxes = num_items_in_batch / labels.shape[2]
        return self._losses(logits, labels).sum() / max(n_boxes, 1)

    def uninformed_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return maps that say the same everywhere, as those of a new network; same shape.

        Logits of 0 would be a box in each cell.
        """
        import torch

        from shared.models.image_networks import PEAK_SHARE

        maps = torch.zeros_like(logits)
        maps[:, :-4] = math.log(PEAK_SHARE / (1 - PEAK_SHARE))
        return maps

    def measure(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return what an evaluation needs, for ``preprocess_logits_for_metrics``.

        Returns
        -------
        float32 tensor of shape (rows, boxes + 1, 6)
            The boxes of `shared.models.image_networks.find_boxes`, and in a last row the loss of
            the image.
        """
        import torch

        from shared.models.image_networks import find_boxes

        boxes = find_boxes(logits, self.cell_size)
        last = boxes.new_zeros(len(boxes), 1, 6)
        last[:, 0, 0] = self._losses(logits, labels)
        return torch.cat([boxes, last], dim=1)

    def _losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the losses of each image, (rows,)."""
        import torch

        from shared.models.image_networks import boxes_of_cells

        n_classes = logits.shape[1] - 4
        near, target = self._targets(labels, n_classes, logits.shape[2:])
        heat = logits[:, :n_classes].float()
        p = heat.sigmoid()
        positive = target == 1
        at_centres = -((1 - p) ** MISS_POWER) * torch.nn.functional.logsigmoid(heat)
        elsewhere = (
            -((1 - target) ** CENTRE_POWER) * p**MISS_POWER * torch.nn.functional.logsigmoid(-heat)
        )
        centres = torch.where(positive, at_centres, elsewhere).sum(dim=(1, 2, 3))

        # Each cell near a centre learns the box of the nearest one; a box has the weight 1.
        weight, nearest = near.max(dim=1)  # (rows, height, width)
        weight = torch.where(weight > NEAR, weight, 0)
        chosen = torch.nn.functional.one_hot(nearest, near.shape[1]) * weight[..., None]
        totals = chosen.sum(dim=(1, 2)).clamp(min=1e-6)  # (rows, boxes)
        rows, y, x = torch.nonzero(weight, as_tuple=True)
        own = nearest[rows, y, x]
        true = labels[rows, own, :4]
        predicted = boxes_of_cells(logits[:, n_classes:], self.cell_size)[rows, :, y, x]
        sides = (1 - generalized_iou(predicted, true)) * weight[rows, y, x] / totals[rows, own]
        return centres + self.box_weight * centres.new_zeros(len(centres)).index_add(0, rows, sides)

    def _targets(
        self, labels: torch.Tensor, n_classes: int, size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the Gaussian of each box (rows, boxes, height, width) and of each class."""
        import torch

        is_box = labels[:, :, 4] >= 0  # (rows, boxes)
        boxes = labels[:, :, :4] / self.cell_size
        gaussians = []
        for axis, length in ((1, size[0]), (0, size[1])):
            low, high = boxes[:, :, axis], boxes[:, :, axis + 2]
            centre = ((low + high) / 2).floor().clamp(0, length - 1)[..., None]
            deviation = (CENTRE_SHARE * (high - low) / 6).clamp(min=0.3)[..., None]
            places = torch.arange(length, device=labels.device)
            gaussians.append(torch.exp(-((places - centre) ** 2) / (2 * deviation**2)))
        near = gaussians[0][..., None] * gaussians[1][:, :, None] * is_box[..., None, None]
        classes = labels[:, :, 4].clamp(min=0).long()[..., None, None].expand_as(near)
        target = near.new_zeros(len(near), n_classes, *size)
        return near, target.scatter_reduce(1, classes, near, "amax")


def generalized_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the generalised intersection over union of pairs of boxes, (boxes,), -1 to 1.

    Parameters
    ----------
    first, second : tensors of shape (boxes, 4)
        x1, y1, x2, y2.
    """
    import torch

    def areas(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return (high - low).clamp(min=0).prod(dim=1)

    a, b = (first[:, :2], first[:, 2:]), (second[:, :2], second[:, 2:])
    overlap = areas(torch.maximum(a[0], b[0]), torch.minimum(a[1], b[1]))
    union = areas(*a) + areas(*b) - overlap
    around = areas(torch.minimum(a[0], b[0]), torch.maximum(a[1], b[1]))
    return overlap / union.clamp(min=1e-7) - (around - union) / around.clamp(min=1e-7)
