"""What a recipe says of images: figures of each class, the worst images, pictures, a page.

Pictures of the data are in the folder ``pictures`` and in ``report.html``. They stay on this
machine: ``--push_to_hub`` does not send them.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.cli.files import atomic_write, write_csv
from shared.evaluation.bootstrap import statistic_interval
from shared.evaluation.decisions import softmax
from shared.evaluation.detection import detection_report, match_boxes
from shared.evaluation.metrics import classification_report, per_label_report
from shared.evaluation.segmentation import class_iou, segmentation_report
from shared.images.classic import preprocess
from shared.images.reading import IGNORED, ImageData
from shared.plots.figures import BLUE, ORANGE, SERIES
from shared.plots.images import plot_image_sheet
from shared.reports.page import PAGE
from shared.reports.page_parts import render_page

MOST_PICTURES = 12
MOST_LISTED = 40  # classes in the table that is printed
PICTURES = "pictures"
HIT_IOU = np.array([0.5])


class Sheet(NamedTuple):
    """Pictures of a page: a title, what they show, images, a caption and boxes for each."""

    title: str
    note: str
    images: list[np.ndarray]
    captions: list[str]
    boxes: list[list[tuple[Sequence[float], str, str]]] | None = None
    columns: int = 6


class ImageResults(NamedTuple):
    """Results on the test images.

    Attributes
    ----------
    report : table of the classes, as text
    rows : figures of each class, for ``per_class.csv``
    predictions : an entry for each test image, for ``test_predictions.jsonl``
    worst : the worst images, to look at
    interval : 95 % bootstrap interval over the test images, as metrics; empty for detection
    """

    report: str
    rows: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    worst: Sheet
    interval: dict[str, float]


# --- results of the three tasks ------------------------------------------------------------------


def class_results(data: ImageData, logits: np.ndarray) -> ImageResults:
    """Return the results of classification; the worst images are the surest errors.

    Parameters
    ----------
    data : ImageData
    logits : array of shape (test images, classes)
        A second output may follow; it is not used.
    """
    rows, names = data.parts["test"], data.class_names
    scores = softmax(logits[:, : len(names)])
    true, predicted = np.asarray(data.targets)[rows], scores.argmax(axis=1)
    eye = np.eye(len(names), dtype=bool)
    most = MOST_LISTED if len(names) > MOST_LISTED else None
    sure = scores.max(axis=1)
    wrong = np.flatnonzero(true != predicted)
    shown = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_PICTURES]
    return ImageResults(
        report=classification_report(eye[true], eye[predicted], names, max_labels=most),
        rows=per_label_report(eye[true], eye[predicted], names),
        predictions=[
            {
                "file": data.files[row],
                "label": names[predicted[at]],
                "score": round(float(sure[at]), 4),
                "true_label": names[true[at]],
            }
            for at, row in enumerate(rows)
        ],
        worst=Sheet(
            "Worst images",
            "The errors with the highest scores: the true class, then the predicted one.",
            [data.images[rows[at]] for at in shown],
            [f"{names[true[at]]}\n{names[predicted[at]]} {sure[at]:.2f}" for at in shown],
        ),
        interval=_interval(
            "test_accuracy",
            np.stack([true == predicted, np.ones(len(rows))], axis=1),
            lambda sums: sums[:, :1] / sums[:, 1:],
        ),
    )


def mask_results(data: ImageData, counts: np.ndarray, masks_of: Any) -> ImageResults:
    """Return the results of segmentation; the worst images have the lowest mean IoU.

    Parameters
    ----------
    data : ImageData
    counts : array of shape (test images, classes, classes)
        From `shared.evaluation.segmentation.pixel_counts`.
    masks_of : callable
        Returns the predicted masks of a list of row numbers.
    """
    rows, names = data.parts["test"], data.class_names
    iou = class_iou(counts)
    means = np.array([np.nanmean(v) if not np.isnan(v).all() else np.nan for v in iou])
    table = segmentation_report(counts.sum(axis=0), names)
    worst = [int(at) for at in np.argsort(means, kind="stable")[: MOST_PICTURES // 2]]
    images, captions = [], []
    for at, mask in zip(worst, masks_of([int(rows[at]) for at in worst]), strict=True):
        image, true = data.images[rows[at]], data.targets[rows[at]]
        mask = np.where(true == IGNORED, IGNORED, mask)
        images += [overlay(image, true), overlay(image, mask)]
        name = Path(data.files[rows[at]]).name
        captions += [f"{name}\ntrue", f"IoU {means[at]:.2f}\npredicted"]
    return ImageResults(
        report=text_table(table),
        rows=table,
        predictions=[
            {"file": data.files[row], "mean_iou": _number(means[at])}
            | {f"iou_{name}": _number(value) for name, value in zip(names, iou[at], strict=True)}
            for at, row in enumerate(rows)
        ],
        worst=Sheet(
            "Worst images",
            f"The images with the lowest mean IoU. {legend(names)}",
            images,
            captions,
        ),
        interval=_interval(
            "test_mean_iou",
            counts.reshape(len(rows), -1),
            lambda sums: np.nanmean(
                class_iou(sums.reshape(-1, *counts.shape[1:])), axis=1, keepdims=True
            ),
        ),
    )


def box_results(data: ImageData, predicted: list[np.ndarray], score: float) -> ImageResults:
    """Return the results of detection; the worst images have the lowest F1.

    Parameters
    ----------
    data : ImageData
    predicted : list of arrays of shape (boxes, 6)
        Of each test image, from `shared.evaluation.detection.kept_boxes`.
    score : float
        Boxes below it are not drawn and do not count in precision and recall.
    """
    rows, names = data.parts["test"], data.class_names
    true = [data.targets[row] for row in rows]
    table = detection_report(predicted, true, names, score=score)
    f1, sure, drawn = [], [], []
    for boxes, targets in zip(predicted, true, strict=True):
        boxes = boxes[boxes[:, 4] >= score]
        n_hits, shapes = 0, [(t[:4].tolist(), ORANGE, "") for t in targets]
        for number in range(len(names)):
            own, of_class = boxes[boxes[:, 5] == number], targets[targets[:, 4] == number]
            n_hits += int((match_boxes(own[:, :4], of_class[:, :4], HIT_IOU) >= 0).sum())
        shapes += [(b[:4].tolist(), BLUE, f"{names[int(b[5])]} {b[4]:.2f}") for b in boxes]
        f1.append(2 * n_hits / max(len(boxes) + len(targets), 1) if len(targets) else 1.0)
        sure.append(boxes)
        drawn.append(shapes)
    worst = np.argsort(f1, kind="stable")[:MOST_PICTURES]
    return ImageResults(
        report=text_table(table),
        rows=table,
        predictions=[
            {
                "file": data.files[row],
                "f1": round(f1[at], 4),
                "boxes": [
                    {"label": names[int(b[5])], "score": round(float(b[4]), 4)}
                    | {"box": [round(float(v), 1) for v in b[:4]]}
                    for b in sure[at]
                ],
            }
            for at, row in enumerate(rows)
        ],
        worst=Sheet(
            "Worst images",
            f"The images with the lowest F1 of boxes with a score of {score:.2f} or more: true "
            "boxes are orange, predicted ones blue. Places are in pixels of --image_size.",
            [data.images[rows[at]] for at in worst],
            [f"{Path(data.files[rows[at]]).name}\nF1 {f1[at]:.2f}" for at in worst],
            [drawn[at] for at in worst],
        ),
        interval={},
    )


def _interval(name: str, terms: np.ndarray, statistic: Callable) -> dict[str, float]:
    low, high = statistic_interval(terms, statistic)
    return {f"{name}_low": float(low[0]), f"{name}_high": float(high[0])}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


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
    data: ImageData, batch: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]
) -> Sheet:
    """Return the first images of a training batch as the model reads them.

    Parameters
    ----------
    data : ImageData
    batch : mapping
        From `shared.training.images.ImageCollator`.
    mean, std : sequences of three floats
        Of the collator.
    """
    n = min(MOST_PICTURES, len(batch["pixel_values"]))
    pixels = batch["pixel_values"][:n].permute(0, 2, 3, 1).numpy() * std + mean
    images = list((pixels.clip(0, 1) * 255).astype(np.uint8))
    labels = batch["labels"][:n].numpy()
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


def write_image_results(
    output_dir: Path, title: str, facts: str, results: ImageResults, sheets: Sequence[Sheet]
) -> None:
    """Write ``per_class.csv``, ``test_predictions.jsonl``, ``pictures`` and ``report.html``.

    Parameters
    ----------
    output_dir : Path
    title, facts : str
        Heading of the page, and a line below it.
    results : ImageResults
    sheets : sequence of Sheet
        More pictures, after the worst images.
    """
    write_csv(output_dir / "per_class.csv", results.rows)
    with atomic_write(output_dir / "test_predictions.jsonl") as file:
        file.writelines(json.dumps(p, ensure_ascii=False) + "\n" for p in results.predictions)
    write_sheets(output_dir, title, facts, results.report, [results.worst, *sheets])


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
