"""Mean average precision, against pycocotools."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import EvalPrediction

from shared.evaluation.detection import (
    average_precisions,
    detection_report,
    detection_scores,
    kept_boxes,
    tune_score,
)


def scene(seed, n_images=4, n_classes=3):
    """Return random true boxes, and predicted ones of which many lie near a true one."""
    rng = np.random.default_rng(seed)
    predicted, true = [], []
    for _ in range(n_images):
        n = rng.integers(0, 7)
        low = rng.uniform(0, 80, (n, 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 40, (n, 2))], axis=1)
        true.append(np.column_stack([boxes, rng.integers(0, n_classes, n)]))
        near = np.repeat(true[-1], 2, axis=0)[rng.random(2 * n) < 0.7]
        near[:, :4] += rng.normal(0, 3, (len(near), 4))
        other = rng.uniform(0, 80, (rng.integers(0, 4), 2))
        other = np.concatenate([other, other + 20], axis=1)
        boxes = np.concatenate([near[:, :4], other])
        classes = np.concatenate([near[:, 4], rng.integers(0, n_classes, len(other))])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        predicted.append(np.column_stack([boxes, rng.random(len(boxes)), classes]))
    return predicted, true


def by_pycocotools(predicted, true, n_classes):
    """Return mean average precision, and that at .50, of pycocotools; -1 without any box."""
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations = [
        {"image_id": i, "category_id": int(b[4]), "bbox": xywh(b), "iscrowd": 0}
        | {"area": (b[2] - b[0]) * (b[3] - b[1])}
        for i, boxes in enumerate(true)
        for b in boxes
    ]
    results = [
        {"image_id": i, "category_id": int(b[5]), "bbox": xywh(b), "score": b[4]}
        for i, boxes in enumerate(predicted)
        for b in boxes
    ]
    data = coco.COCO()
    data.dataset = {
        "images": [{"id": i} for i in range(len(true))],
        "categories": [{"id": c} for c in range(n_classes)],
        # A match with the number 0 would count as a miss.
        "annotations": [a | {"id": number} for number, a in enumerate(annotations, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_mean_average_precision_is_that_of_pycocotools(seed):
    predicted, true = scene(seed)
    if not (sum(map(len, true)) and sum(map(len, predicted))):
        return
    scores = detection_scores(predicted, true, 3)
    expected = by_pycocotools(predicted, true, 3)
    assert [scores["map"], scores["map50"]] == pytest.approx(list(expected), abs=1e-6)


def box(x, score=None, number=0):
    side = [x, 0, x + 10, 10]
    return [*side, number] if score is None else [*side, score, number]


def test_a_worked_example():
    true = [np.array([box(0), box(20)], float), np.array([box(0, number=1)], float)]
    # The best box hits, the second misses, the third hits: precision 1 up to half of the recalls,
    # then 2/3.
    predicted = [
        np.array([box(0, 0.9), box(50, 0.8), box(20, 0.7)], float),
        np.zeros((0, 6)),
    ]
    values = average_precisions(predicted, true, 3)
    assert values[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert values[1].tolist() == [0] * 10
    assert np.isnan(values[2]).all()  # no true box
    assert detection_scores(predicted, true, 3)["map50"] == pytest.approx(values[:2, 0].mean())
    rows = detection_report(predicted, true, ["a", "b", "c"], score=0.75)
    assert [rows[0][key] for key in ("precision", "recall", "boxes", "predicted")] == [
        0.5,
        0.5,
        2,
        2,
    ]
    assert [rows[1][key] for key in ("precision", "recall")] == [0, 0]


def test_the_tuned_score_has_the_best_f1():
    true = np.array([[box(0), box(20), box(40)]], float)
    rows = [box(0, 0.9), box(20, 0.6), box(70, 0.5), box(80, 0.4), box(40, 0.3), [0.0] * 6]
    assert tune_score(EvalPrediction(np.array([rows], float), true)) == 0.6
    assert tune_score(EvalPrediction(np.zeros((1, 1, 6)), true)) == 0.5


def test_overlapping_boxes_of_a_class_are_removed_and_the_loss_row_is_no_box():
    rows = [box(0, 0.9), box(1, 0.8), box(1, 0.7, 1), [3.5, 0, 0, 0, 0, 0]]
    (kept,) = kept_boxes(np.array([rows], float))
    assert kept[:, 4].tolist() == [0.9, 0.7]
