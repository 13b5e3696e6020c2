"""Pictures of images: sheets of them, classes and boxes drawn on them, and a page of all.

Pictures of the data are in the folder ``pictures`` and in ``report.html``. They stay on this
machine: ``--push_to_hub`` does not send them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.cli.files import atomic_write
from shared.images.classic import preprocess
from shared.images.reading import IGNORED, ImageData
from shared.plots.figures import ORANGE, SERIES
from shared.plots.images import plot_image_sheet
from shared.reports.page import PAGE
from shared.reports.page_parts import render_page

if TYPE_CHECKING:
    from datasets import Dataset

MOST_PICTURES = 12
PICTURES = "pictures"


class Sheet(NamedTuple):
    """Pictures of a page: a title, what they show, images, a caption and boxes for each."""

    title: str
    note: str
    images: list[np.ndarray]
    captions: list[str]
    boxes: list[list[tuple[Sequence[float], str, str]]] | None = None
    columns: int | None = None  # as in `plot_image_sheet`


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as an aligned table; the first column is the longest."""
    lines, header = [], dict(zip(rows[0], rows[0], strict=True))
    width = max(len(str(next(iter(row.values())))) for row in [header, *rows])
    for row in [header, *rows]:
        first, *others = row.values()
        cells = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in others]
        lines.append(f"{first!s:>{width}}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


# --- pictures ------------------------------------------------------------------------------------


def colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a class in overlays, red green blue from 0 to 255."""
    code = SERIES[number % len(SERIES)][0].lstrip("#")
    return int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image with the classes of its pixels in colours; those without one are darker.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    mask : int array of shape (height, width)
        Class numbers, `IGNORED` where there is none.
    """
    colours = np.array([colour(number) for number in range(IGNORED)] + [(0, 0, 0)])
    return (0.45 * image + 0.55 * colours[mask]).astype(np.uint8)


def legend(names: Sequence[str]) -> str:
    """Return the colours of the classes in overlays, as a sentence."""
    colours = [f"{name} #{bytes(colour(number)).hex()}" for number, name in enumerate(names)]
    return "Colours: " + ", ".join(colours) + "."


def training_sheet(
    data: ImageData, rows: Dataset, collator: Any, mean: Sequence[float], std: Sequence[float]
) -> Sheet:
    """Return training images, spread evenly over all, as the model reads them.

    Parameters
    ----------
    data : ImageData
    rows : Dataset
        From `shared.training.images.image_rows`.
    collator : ImageCollator
    mean, std : sequences of three floats
        Of the collator.
    """
    n = min(MOST_PICTURES, len(rows))
    batch = collator([rows[int(row)] for row in np.linspace(0, len(rows) - 1, n).astype(int)])
    pixels = batch["pixel_values"].permute(0, 2, 3, 1).numpy() * std + mean
    images = list((pixels.clip(0, 1) * 255).astype(np.uint8))
    labels = batch["labels"].numpy()
    captions, boxes, names = [""] * n, None, data.class_names
    if data.task == "classify":
        shares = labels[:, : len(names)]
        captions = [
            "\n".join(
                f"{names[i]} {row[i]:.2f}" if row[i] < 1 else names[i] for i in np.flatnonzero(row)
            )
            for row in shares
        ]
    elif data.task == "segment":
        masks = np.where(labels < 0, IGNORED, labels)
        images = [overlay(image, mask) for image, mask in zip(images, masks, strict=True)]
    else:
        boxes = [
            [(b[:4].tolist(), ORANGE, names[int(b[4])]) for b in row if b[4] >= 0] for row in labels
        ]
    note = "Images of the first training batch, with their random changes."
    return Sheet("Training images", note, images, captions, boxes)


def preprocess_sheet(image: np.ndarray, operations: Sequence[str]) -> Sheet:
    """Return an image before and after each operation of ``--preprocess``."""
    steps = [preprocess(image, operations[:n]) for n in range(len(operations) + 1)]
    note = "The first image, before and after each operation of --preprocess."
    return Sheet("Preprocessing", note, steps, ["as it is", *operations])


# --- files ---------------------------------------------------------------------------------------


def write_sheets(
    output_dir: Path,
    title: str,
    facts: str,
    report: str,
    sheets: Sequence[Sheet],
    heading: str = "Classes",
) -> None:
    """Write ``pictures`` and ``report.html``, without the sheets that have no images.

    Parameters
    ----------
    output_dir : Path
    title, facts : str
        Heading of the page, and a line below it.
    report : str
        A table, or lines, below `heading`.
    sheets : sequence of Sheet
    heading : str, default "Classes"
    """
    folder = output_dir / PICTURES
    folder.mkdir(exist_ok=True)
    shown = []
    for sheet in sheets:
        if not sheet.images:
            continue
        path = folder / f"{sheet.title.lower().replace(' ', '_')}.png"
        plot_image_sheet(
            sheet.images, sheet.captions, path, boxes=sheet.boxes, columns=sheet.columns
        )
        picture = base64.b64encode(path.read_bytes()).decode()
        shown.append({"title": sheet.title, "note": sheet.note, "picture": picture})
    html = render_page(
        "images.html.j2",
        None,
        None,
        title=title,
        evaluation=facts,
        report=report,
        heading=heading,
        sheets=shown,
        data=None,
    )
    with atomic_write(output_dir / PAGE) as file:
        file.write(html)
