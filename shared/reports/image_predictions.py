"""What a trained model says of new images: a line for each, masks, pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import atomic_write
from shared.cli.launch import progress
from shared.data.writers import write_json_lines
from shared.reports.images import (
    MOST_PICTURES,
    Sheet,
    colour,
    legend,
    overlay,
    text_table,
    write_sheets,
)

if TYPE_CHECKING:
    from shared.images.reading import ImageData
    from shared.methods.image_predictor import ImagePredictor

MASKS, OVERLAYS = "masks", "overlays"


def write_image_predictions(
    output_dir: Path,
    data: ImageData,
    original: Callable[[int], np.ndarray],
    predictor: ImagePredictor,
    outputs: np.ndarray,
) -> str:
    """Write ``predictions.jsonl``, masks and overlays in the sizes of the images, and a page.

    Parameters
    ----------
    output_dir : Path
    data, original
        From `shared.images.load_new_images`.
    predictor : ImagePredictor
    outputs : array
        Of each image, from `ImagePredictor.outputs`.

    Returns
    -------
    str
        A table: how often each class was predicted.
    """
    names, task = data.files, predictor.task
    files = _png_names(names)
    shown = set(np.linspace(0, len(names) - 1, min(MOST_PICTURES, len(names))).astype(int).tolist())
    counts, pictures, captions = Counter[str](), list[np.ndarray](), list[str]()
    rows = []
    for row in progress(range(len(names)), "writing predictions", unit="images"):
        if task == "classify":
            image = data.images[row]
            record = predictor.record(outputs[row], image.shape[:2])
            counts[record["label"]] += 1
            caption = f"{PurePosixPath(names[row]).name}\n{record['label']} {record['score']:.2f}"
        else:
            image = original(row)
            record = predictor.record(outputs[row], (image.shape[0], image.shape[1]))
            if task == "segment":
                mask = record.pop("mask")
                _save(mask, output_dir / MASKS / files[row])
                record |= {"mask": f"{MASKS}/{files[row]}"}
                image = overlay(image, mask)
                counts.update(record["shares"])
            else:
                image = draw_boxes(image, record["boxes"], predictor.class_names)
                counts.update(box["label"] for box in record["boxes"])
            _save(image, output_dir / OVERLAYS / files[row])
            caption = PurePosixPath(names[row]).name
        rows.append({"file": names[row]} | record)
        if row in shown:
            pictures.append(image)
            captions.append(caption)
    with atomic_write(output_dir / "predictions.jsonl") as file:
        write_json_lines(file, rows)
    unit = "boxes" if task == "detect" else "images"
    table = text_table([{"class": n, unit: counts[n]} for n in predictor.class_names])
    note = (
        legend(predictor.class_names) if task == "segment" else "Some of the images, spread evenly."
    )
    write_sheets(
        output_dir,
        "Predictions",
        f"{data.source}: {len(names):,} images.",
        table,
        [Sheet("Predicted", note, pictures, captions)],
    )
    return table


def _png_names(names: Sequence[str]) -> list[str]:
    """Return the path of a PNG file for each image: its own without the suffix, if all differ."""
    # An archive may hold absolute paths, and paths that lead out of its folder.
    paths = [
        PurePosixPath(
            *("_" if part == ".." else part.strip("/") for part in PurePosixPath(n).parts)
        )
        for n in names
    ]
    stems = [str(path.with_suffix("")) for path in paths]
    return [f"{name}.png" for name in (stems if len(set(stems)) == len(stems) else paths)]


def _save(image: np.ndarray, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        Image.fromarray(image).save(file, format="PNG")


def draw_boxes(
    image: np.ndarray, boxes: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> np.ndarray:
    """Return an image with boxes, their labels and scores, in the colours of their classes.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    boxes : sequence of dict
        From `ImagePredictor.record`.
    class_names : sequence of str
    """
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    side = max(image.shape[:2])
    for box in reversed(boxes):  # the best one is drawn last, above the others
        shade = colour(class_names.index(box["label"]))
        x1, y1, x2, y2 = box["box"]
        x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)  # the last pixel belongs to a drawn rectangle
        draw.rectangle((x1, y1, x2, y2), outline=shade, width=max(1, side // 150))
        text = f"{box['label']} {box['score']:.2f}"
        size = max(9, side // 40)
        place = (x1, max(y1 - size, 0))
        draw.rectangle(draw.textbbox(place, text, font_size=size), fill=shade)
        draw.text(place, text, fill="white", font_size=size)
    return np.asarray(canvas)
