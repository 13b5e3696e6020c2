"""What a recipe says of image models: figures of each class, the worst images, a page, a card."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.cli.files import atomic_write, write_csv, write_json
from shared.evaluation.bootstrap import statistic_interval
from shared.evaluation.decisions import softmax
from shared.evaluation.detection import detection_report, kept_boxes, match_boxes
from shared.evaluation.metrics import classification_report, per_label_report
from shared.evaluation.segmentation import class_iou, pixel_counts, segmentation_report
from shared.images.reading import IGNORED, ImageData
from shared.methods.image_neighbours import nearest_image_classes
from shared.plots.figures import BLUE, ORANGE
from shared.plots.training import plot_training_curve
from shared.reports.cards import write_model_card
from shared.reports.images import (
    MOST_PICTURES,
    Sheet,
    legend,
    overlay,
    preprocess_sheet,
    text_table,
    write_sheets,
)
from shared.reports.verdict import fit_metrics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_LISTED = 40  # classes in the table that is printed
HIT_IOU = np.array([0.5])
# In the order of a line and of the card; a task has some of them.
_SHOWN_METRICS = (
    *("test_accuracy", "test_mean_iou", "test_map50", "nearest_accuracy"),
    *("test_second_accuracy", "test_pixel_accuracy", "test_map"),
)
_HUB_TASKS = {
    "classify": "image-classification",
    "segment": "image-segmentation",
    "detect": "object-detection",
}


class ImageResults(NamedTuple):
    """Results on the test images.

    Attributes
    ----------
    report : table of the classes, as text
    rows : figures of each class, for ``per_class.csv``
    predictions : an entry for each test image, for ``test_predictions.jsonl``
    worst : the worst images, to look at
    metrics : 95 % bootstrap interval over the test images, none for detection; of classification
        also ``nearest_accuracy``, that of the class of the nearest training image
    """

    report: str
    rows: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    worst: Sheet
    metrics: dict[str, float]


# --- results of the three tasks ------------------------------------------------------------------


def image_results(
    data: ImageData, predictions: np.ndarray, model: PreTrainedModel, collator: Any
) -> ImageResults:
    """Return the results of the task of some images.

    Parameters
    ----------
    data : ImageData
    predictions : array
        Of the Trainer, on the test images.
    model : PreTrainedModel
        To detect, its config has the score from which on boxes count, `score_threshold`.
    collator : ImageCollator
        Makes the batches of the images whose masks are shown.
    """
    from shared.training.images import predict_masks

    if data.task == "segment":
        counts = pixel_counts(predictions, len(data.class_names))
        return mask_results(data, counts, lambda rows: predict_masks(model, collator, rows))
    if data.task == "detect":
        return box_results(data, kept_boxes(predictions), model.config.score_threshold)
    return class_results(data, predictions)


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
    train = data.parts["train"]
    nearest = nearest_image_classes(data.images[train], data.targets[train], data.images[rows])
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
        metrics={"nearest_accuracy": float((nearest == true).mean())}
        | _interval(
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
        metrics=_interval(
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
        metrics={},
    )


def _interval(name: str, terms: np.ndarray, statistic: Callable) -> dict[str, float]:
    low, high = statistic_interval(terms, statistic)
    return {f"{name}_low": float(low[0]), f"{name}_high": float(high[0])}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


# --- files ---------------------------------------------------------------------------------------


def write_image_results(
    output_dir: Path,
    model: PreTrainedModel,
    data: ImageData,
    results: ImageResults,
    metrics: Mapping[str, Any],
    *,
    base_model: str | None,
    operations: Sequence[str],
    log_history: Sequence[Mapping[str, Any]],
    training_images: Sheet,
) -> str:
    """Write metrics, figures of each class, predictions, pictures and the model card.

    Parameters
    ----------
    output_dir : Path
        Receives ``metrics.json``, ``per_class.csv``, ``test_predictions.jsonl``, ``plots``,
        ``pictures``, ``report.html`` and ``README.md``.
    model : PreTrainedModel
    data : ImageData
    results : ImageResults
    metrics : mapping
        Of the training and of the test images, ``test_...``.
    base_model : str, optional
        The value of ``--model``.
    operations : sequence of str
        Of ``--preprocess``.
    log_history : sequence of mappings
        ``trainer.state.log_history``.
    training_images : Sheet
        From `training_sheet`.

    Returns
    -------
    str
        The test figures in a line, and the table of the classes.
    """
    fit = fit_metrics(log_history)
    metrics = {**metrics, **results.metrics}
    write_json(output_dir / "metrics.json", metrics | fit)
    (output_dir / "plots").mkdir(exist_ok=True)
    plot_training_curve(log_history, output_dir / "plots" / "training_curve.png")
    write_csv(output_dir / "per_class.csv", results.rows)
    with atomic_write(output_dir / "test_predictions.jsonl") as file:
        file.writelines(json.dumps(p, ensure_ascii=False) + "\n" for p in results.predictions)
    shown = {name: metrics[name] for name in _SHOWN_METRICS if name in metrics}
    facts = f"Test ({len(data.parts['test']):,} images): "
    facts += ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
    sheets = [results.worst, training_images]
    if operations and data.first_image is not None:
        sheets.append(preprocess_sheet(data.first_image, operations))
    write_sheets(output_dir, f"Images: {data.task}", facts, results.report, sheets)
    height, width = data.images.shape[1:3]
    n_weights = model.num_parameters()
    write_model_card(
        output_dir,
        title=f"Image model ({data.task})",
        base_model=base_model,
        task=_HUB_TASKS[data.task],
        description=f"Trained to {data.task} images of {height} x {width} pixels; "
        f"{n_weights:,} weights.",
        data=data.describe(),
        label_names=data.class_names,
        metrics=shown | results.metrics,
        data_type="image",
        verdict=fit.get("fit_explained"),
        report=results.report,
        usage=image_usage(
            output_dir,
            has_pipeline=data.task == "classify"
            and not (operations or data.context_names or data.second_names),
            own_architecture=type(model).__module__.startswith("shared."),
            second_input=data.second_inputs is not None,
        ),
        limits="The figures are those of images from the same source, at this size.",
    )
    return f"{facts}\n\n{results.report}"


def image_usage(
    folder: Path, *, has_pipeline: bool, own_architecture: bool, second_input: bool
) -> str:
    """Return how to load a model and use it on images, as Markdown.

    Parameters
    ----------
    folder : Path
        Of the model.
    has_pipeline : bool
        Whether a pipeline of transformers reads images as the model does: it classifies them, and
        has no operations of ``--preprocess``, second input or second output.
    own_architecture : bool
    second_input : bool
    """
    contexts, arrays = "", ""
    if second_input:
        contexts, arrays = ', ["VALUE"]', " --second_input ARRAY"
    usage = f"""In the folder of the project, or of a copy of the recipe (`./run.sh copy`), with
images of any size:

```python
from shared.methods import load_image_predictor

predict = load_image_predictor("{folder}")
print(predict(["image.jpg"]{contexts})[0])
```

Or from the command line, all images of a folder:

```bash
accelerate launch recipes/images.py --model {folder} --predict FOLDER{arrays} \\
    --output_dir predicted
```"""
    if has_pipeline:
        option = ", trust_remote_code=True" if own_architecture else ""
        usage += f"""

Without the project:

```python
from transformers import pipeline

classify = pipeline("image-classification", model="{folder}"{option})
print(classify("image.jpg"))
```"""
    return usage
