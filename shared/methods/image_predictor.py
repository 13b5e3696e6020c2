"""A trained model of images: load it, and apply it to images of any size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import quiet_libraries
from shared.evaluation.decisions import softmax
from shared.evaluation.detection import suppress_boxes
from shared.evaluation.rules import scores_per_text
from shared.images.classic import preprocess
from shared.images.reading import MOST_CLASSES
from shared.images.sources import fit_image, read_image, restore_boxes, restore_mask
from shared.models.images import load_image_model, read_preprocessor

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_BATCH = 32
_SCORE = 0.5  # least score of a box, of models that name none


def load_image_predictor(folder: str | Path) -> ImagePredictor:
    """Load a model that recipes/images.py has saved, or a hub checkpoint that it can apply.

    Raises
    ------
    UserError
        If the folder holds no trained model of images, or a damaged one.
    """
    quiet_libraries()
    model, task = load_image_model(str(folder))
    settings = read_preprocessor(str(folder))
    if missing := [name for name in ("size", "image_mean", "image_std") if name not in settings]:
        raise UserError(
            f"--model {folder}: its preprocessor_config.json does not say {', '.join(missing)}"
        )
    if task == "segment" and model.config.num_labels > MOST_CLASSES:
        raise UserError(
            f"--model {folder}: has {model.config.num_labels} classes; masks hold {MOST_CLASSES}"
        )
    return ImagePredictor(model, task, settings)


class ImagePredictor:
    """Predict classes, masks or boxes of images.

    Attributes
    ----------
    model : PreTrainedModel
    task : "classify", "segment" or "detect"
    class_names : names of the classes
    context_names, second_names : values of the second input, and classes of the second output; a
        model without them has none
    size : height and width of the images that the model reads
    mean, std : of the channels, 0 to 1
    operations : of ``--preprocess``
    """

    def __init__(self, model: PreTrainedModel, task: str, settings: dict[str, Any]):
        self.model, self.task = model, task
        config = model.config
        self.class_names = [str(config.id2label[i]) for i in range(config.num_labels)]
        self.context_names = list(getattr(config, "context_names", None) or ())
        self.second_names = list(getattr(config, "second_names", None) or ())
        self.size = settings["size"][0], settings["size"][1]
        self.mean, self.std = settings["image_mean"], settings["image_std"]
        self.operations = list(settings.get("operations", ()))

    def __call__(
        self, images: Iterable[str | Path | np.ndarray], contexts: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Predict images: files, or uint8 arrays of shape (height, width, 3).

        Parameters
        ----------
        images : iterable
        contexts : sequence of str
            For a model with a second input, the value of each image.

        Returns
        -------
        list of dict
            For each image what `record` returns.
        """
        import torch

        records: list[dict[str, Any]] = []
        all_images = list(images)
        if self.context_names and len(contexts) != len(all_images):
            raise ValueError("the model has a second input: give a value of it for each image")
        mean, std = (np.array(values, np.float32) * 255 for values in (self.mean, self.std))
        for start in range(0, len(all_images), _BATCH):
            batch = [
                image
                if isinstance(image, np.ndarray)
                else read_image(image, upright=self.task == "classify")
                for image in all_images[start : start + _BATCH]
            ]
            pixels = torch.from_numpy((np.stack([self._fit(i) for i in batch]) - mean) / std)
            inputs = {"pixel_values": pixels.permute(0, 3, 1, 2).to(self.model.device)}
            if self.context_names:
                numbers = [self.context_names.index(c) for c in contexts[start : start + _BATCH]]
                inputs["context"] = torch.tensor(numbers, device=self.model.device)
            with torch.no_grad():
                outputs = self.outputs(self.model(**inputs).logits).cpu().numpy()
            records += [
                self.record(output, (image.shape[0], image.shape[1]))
                for output, image in zip(outputs, batch, strict=True)
            ]
        return records

    def _fit(self, image: np.ndarray) -> np.ndarray:
        keep_shape = self.task != "classify"
        return fit_image(preprocess(image, self.operations), self.size, keep_shape=keep_shape)

    def outputs(self, logits: torch.Tensor, labels: Any = None) -> torch.Tensor:
        """Return what `record` needs of each image, for ``preprocess_logits_for_metrics``.

        These are the logits to classify; masks, uint8 (images, height, width), to segment; boxes,
        (images, boxes, 6), from `shared.models.image_networks.find_boxes`, to detect.
        """
        import torch
        from torch.nn.functional import interpolate

        from shared.models.image_networks import find_boxes

        if self.task == "segment":
            if logits.shape[2:] != self.size:  # networks of the hub have smaller ones
                logits = interpolate(logits, self.size, mode="bilinear")
            return logits.argmax(1).to(torch.uint8)
        if self.task == "detect":
            return find_boxes(logits, self.model.config.cell_size)
        return logits.float()

    def record(self, output: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
        """Return the prediction of an image.

        Parameters
        ----------
        output : array
            Of an image, from `outputs`.
        size : tuple of int
            Height and width of the image before it was fitted.

        Returns
        -------
        dict
            classify: ``label``, ``score`` and ``scores``, the best first (20 of more than 50), and
            ``second_label``, ``second_score`` of a second output. segment: ``shares`` of the pixels
            of each class that occurs, and ``mask``, uint8 (height, width). detect: ``boxes``, a
            list of ``label``, ``score`` and ``box``, x1, y1, x2, y2 in pixels of the image, the
            best first.
        """
        names = self.class_names
        if self.task == "segment":
            mask = restore_mask(output, size)
            shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            present = np.flatnonzero(shares)
            return {"shares": {names[i]: round(float(shares[i]), 4) for i in present}, "mask": mask}
        if self.task == "detect":
            least = getattr(self.model.config, "score_threshold", _SCORE)
            boxes = suppress_boxes(output)
            boxes = boxes[boxes[:, 4] >= least]
            places = restore_boxes(boxes[:, :4], size, self.size).round(1)
            is_inside = (places[:, 2:] > places[:, :2]).all(axis=1)
            boxes, places = boxes[is_inside], places[is_inside]
            return {
                "boxes": [
                    {"label": names[int(box[5])], "score": round(float(box[4]), 4), "box": place}
                    for box, place in zip(boxes, places.tolist(), strict=True)
                ]
            }
        best = self._best(output[: len(names)], names)
        kept = dict(best[: scores_per_text(len(names), None)])
        result = {"label": best[0][0], "score": best[0][1], "scores": kept}
        if self.second_names:
            second = self._best(output[len(names) :], self.second_names)
            result |= {"second_label": second[0][0], "second_score": second[0][1]}
        return result

    @staticmethod
    def _best(logits: np.ndarray, names: Sequence[str]) -> list[tuple[str, float]]:
        """Return names and scores, the best first."""
        scores = softmax(logits[None])[0]
        order = np.argsort(-scores, kind="stable")
        return [(names[i], round(float(scores[i]), 4)) for i in order]
