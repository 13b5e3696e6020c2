"""Files of boxes: what objects are in each image, and where.

Two forms of ``annotations.json`` are read:

- a list of ``{"file", "width", "height", "split", "objects": [{"label", "box"}]}`` with boxes as
  x1, y1, x2, y2 in pixels; ``split`` may be missing;
- COCO's: ``images``, ``annotations`` with boxes as x, y, width, height, and ``categories``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.images.sources import part_name

TOLERANCE = 1.0  # pixels that a box may reach out of its image, by rounding


@dataclass
class Annotation:
    """The objects of an image.

    Attributes
    ----------
    file : path of the image, as the file of annotations has it.
    part : "train", "valid", "test" or None.
    labels : names of the classes, one for each box.
    boxes : x1, y1, x2, y2 in pixels.
    """

    file: str
    part: str | None
    labels: list[str] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)


def parse_annotations(content: bytes, name: str) -> list[Annotation]:
    """Return the objects of each image of a file of annotations.

    Parameters
    ----------
    content : bytes
    name : str
        For errors.

    Raises
    ------
    UserError
        If the file has neither form, or an entry lacks a value, with its number.
    """
    try:
        content = json.loads(content)
    except ValueError as error:
        raise UserError(f"{name}: no valid JSON: {error}") from error
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content):
        return _read_coco(content, name)
    if not isinstance(content, list):
        raise UserError(
            f"{name}: neither a list of images nor COCO's object of images, annotations and "
            "categories"
        )
    annotations = []
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict):
            raise UserError(f"{name}, entry {number}: must be an object with file and objects")
        try:
            part = part_name(str(entry.get("split", "")))
            annotation = Annotation(str(entry["file"]), part)
            for thing in entry["objects"]:
                if not isinstance(thing, dict):
                    raise TypeError(f"{entry['objects']!r:.40} is no object with label and box")
                annotation.labels.append(str(thing["label"]))
                annotation.boxes.append(_four_numbers(thing["box"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{name}, entry {number}: {_explain(error)}") from None
        annotations.append(annotation)
    return annotations


def _read_coco(content: Mapping[str, Any], name: str) -> list[Annotation]:
    for key in ("images", "annotations", "categories"):
        if not isinstance(content[key], list):
            raise UserError(f"{name}, {key}: must be a list")
    try:
        classes = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        images = {
            entry["id"]: Annotation(str(entry["file_name"]), part_name(str(entry.get("split", ""))))
            for entry in content["images"]
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name}: {_explain(error)} in images or categories") from None
    for number, entry in enumerate(content["annotations"], 1):
        try:
            x, y, width, height = _four_numbers(entry["bbox"])
            image, label = images[entry["image_id"]], classes[entry["category_id"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{name}, annotation {number}: {_explain(error)}") from None
        image.boxes.append([x, y, x + width, y + height])
        image.labels.append(label)
    return list(images.values())


def _four_numbers(value: Any) -> list[float]:
    numbers = [float(number) for number in value]
    if len(numbers) != 4 or not np.isfinite(numbers).all():
        raise ValueError(f"box {value}: must be four finite numbers")
    return numbers


def _explain(error: Exception) -> str:
    return f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)


def check_boxes(
    annotation: Annotation, size: tuple[int, int], *, clip: bool, name: str
) -> np.ndarray:
    """Return the boxes of an image, cut at its sides: float64 (boxes, 4); empty ones have no area.

    Parameters
    ----------
    annotation : Annotation
    size : tuple of int
        Height and width of the image.
    clip : bool
        Whether a box may reach out of the image by more than `TOLERANCE`.
    name : str
        Of the file, for errors.

    Raises
    ------
    UserError
        For a box outside the image, or whose corners are exchanged, with its number.
    """
    height, width = size
    boxes = np.array(annotation.boxes, dtype=np.float64).reshape(-1, 4)
    reversed_ = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if reversed_.any():
        row = int(np.flatnonzero(reversed_)[0])
        raise UserError(
            f"{name}, {annotation.file}: box {row + 1} ({annotation.labels[row]}, "
            f"{boxes[row].tolist()}) ends before it begins; boxes are x1, y1, x2, y2"
        )
    limits = np.array([width, height, width, height])
    outside = (boxes < -TOLERANCE) | (boxes > limits + TOLERANCE)
    if outside.any() and not clip:
        row = int(np.flatnonzero(outside.any(axis=1))[0])
        raise UserError(
            f"{name}, {annotation.file}: box {row + 1} ({annotation.labels[row]}, "
            f"{boxes[row].tolist()}) lies outside the image of {width} x {height} pixels; correct "
            "it, or give --boxes_outside clip"
        )
    return np.clip(boxes, 0, limits)
