import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from huggingface_hub import ModelCard

from shared.data.corpus import Corpus
from shared.data.splits import Split
from shared.evaluation.metrics import f1_scores, ranking_scores
from shared.evaluation.reliability import calibration_metrics
from shared.evaluation.rules import DecisionRule
from shared.reports.cards import CARD_METRICS, TRAINING_SETTINGS, TaggerCard
from shared.reports.results import (
    interval_metrics,
    split_metrics,
    summary,
    write_results,
)

NAMES = ["bug", "docs", "speed"]
THRESHOLDS = [0.5, 0.4, 0.6]
ROWS = 40
# The flags of a recipe.
ARGS = SimpleNamespace(data="my_issues.jsonl.gz", seed=1, **dict.fromkeys(TRAINING_SETTINGS))
PARTS = ("train", "valid", "test")
BOUNDS = ("test_micro_f1_low", "test_micro_f1_high", "test_macro_f1_low", "test_macro_f1_high")
SHOWN = set(CARD_METRICS) - {"test_accuracy"}  # only for texts with one label each


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(0)
    parts = (rng.random((ROWS, 3)) < 0.4 for _ in range(3))
    return {name: part.astype(np.uint8) for name, part in zip(PARTS, parts, strict=True)}


@pytest.fixture(scope="module")
def scores(labels):
    noise = np.random.default_rng(1).random((ROWS, 3))
    return 0.3 * labels["test"] + 0.7 * noise


def test_interval_metrics(labels, scores):
    y_true, predicted = labels["test"], scores >= THRESHOLDS
    baseline = np.zeros_like(predicted)
    baseline[:, 0] = True
    metrics = interval_metrics(y_true, predicted, baseline)
    assert metrics["baseline_micro_f1"] == f1_scores(y_true, baseline)["micro_f1"]
    assert metrics["baseline_macro_f1"] == f1_scores(y_true, baseline)["macro_f1"]
    for name in ("micro_f1", "macro_f1"):
        value = f1_scores(y_true, predicted)[name]
        assert metrics[f"test_{name}_low"] < value < metrics[f"test_{name}_high"]
    assert metrics == interval_metrics(y_true, predicted, baseline)


def test_split_metrics(split, labels, scores):
    parts = {"valid": scores[::-1], "test": scores}
    predicted = {part: part_scores >= THRESHOLDS for part, part_scores in parts.items()}
    metrics = split_metrics(split, parts, predicted)
    for part in ("valid", "test"):
        expected = f1_scores(labels[part], predicted[part])
        expected |= ranking_scores(labels[part], parts[part])
        expected["subset_accuracy"] = (labels[part] == predicted[part]).all(axis=1).mean()
        assert {name: metrics[f"{part}_{name}"] for name in expected} == expected
    bounds = interval_metrics(labels["test"], scores >= THRESHOLDS)
    assert {name: metrics[name] for name in bounds} == bounds
    assert [metrics[f"{part}_samples"] for part in PARTS] == [ROWS] * 3


def test_summary():
    metrics = {
        **{"test_micro_f1": 0.8, "test_micro_f1_low": 0.7, "test_micro_f1_high": 0.9},
        **{"test_macro_f1": 0.6, "test_macro_f1_low": 0.5, "test_macro_f1_high": 0.65},
        **{"baseline_micro_f1": 0.55, "baseline_macro_f1": 0.4},
    }
    assert summary(metrics).splitlines() == [
        "micro F1 0.800 (95 % interval 0.700 to 0.900); naive Bayes on the same rows 0.550",
        "macro F1 0.600 (95 % interval 0.500 to 0.650); naive Bayes on the same rows 0.400",
    ]
    micro, _ = summary(metrics | {"test_accuracy": 0.8}).splitlines()
    assert micro.startswith("accuracy 0.800 (95 % interval 0.700 to 0.900); naive Bayes")


@pytest.fixture(scope="module")
def split(labels):
    """Return a made-up split."""
    features = Features(
        {
            "text": Value("string"),
            "labels": List(ClassLabel(names=NAMES)),
            "row": Value("int64"),
            "group": Value("int64"),
            "words": Value("int32"),
        }
    )
    dataset = Dataset.from_dict(
        {
            "text": [f"text {i}" for i in range(ROWS)],
            "labels": [np.flatnonzero(row).tolist() for row in labels["test"]],
            "row": list(range(1, ROWS + 1)),
            "group": list(range(ROWS)),
            "words": [2] * ROWS,
        },
        features=features,
    )
    report = {
        "source": "my_issues.jsonl.gz",
        "layout": "JSON lines",
        "text_columns": ["title", "body"],
        "label_columns": ["labels"],
        "recognised": {"text": "", "labels": ""},
        **dict.fromkeys(("rows_read", "rows", "labelled"), ROWS),
        **dict.fromkeys(("unlabelled", "pull_requests", "blank_texts", "exact_duplicates"), 0),
        **dict.fromkeys(("label_conflicts", "near_duplicates", "near_duplicate_groups"), 0),
        "pseudo_labelled": 0,
        "first_blank_rows": [],
        "notes": [],
        "multilabel": 3,
        "unspaced_texts": 0,
        "words": {"p5": 2, "p50": 2, "p95": 2, "max": 2},
        "labels": dict.fromkeys(NAMES, 16),
        "labels_left_out": {},
    }
    nothing = np.zeros(0, np.int64)
    return Split(
        rows=dict.fromkeys(PARTS, dataset),
        labels=labels,
        sources={part: (Corpus(dataset, report), np.arange(ROWS)) for part in PARTS},
        unlabelled=nothing,
        left_out=nothing,
        repeated=0,
    )


@pytest.fixture(scope="module")
def written(split, scores, tmp_path_factory):
    """Write the results of a made-up run; return their folder and the report."""
    folder = tmp_path_factory.mktemp("results")
    args = SimpleNamespace(**vars(ARGS), cache_dir=str(folder.parent))
    metrics = dict.fromkeys((*SHOWN, *BOUNDS), 0.5) | {"train_samples": ROWS, "seed": 42}
    text = write_results(
        folder,
        split,
        scores,
        scores >= THRESHOLDS,
        metrics,
        card=TaggerCard(args, base_model="owner/encoder", max_length=256),
        rule=DecisionRule(tuple(THRESHOLDS)),
        thresholds=THRESHOLDS,
        log_history=[{"epoch": 1.0, "loss": 0.5}, {"epoch": 1.0, "eval_loss": 0.4}],
    )
    calibration = calibration_metrics(split.labels["test"], scores, None, single_label=False)
    assert json.loads((folder / "metrics.json").read_text()) == metrics | calibration | {
        "split": "random"
    }
    report, _ = text.split("\nmicro F1 ")
    assert text.endswith(summary(metrics))
    return folder, report


def test_the_folder_has_exactly_these_files(written):
    folder, _ = written
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert files == [
        "README.md",
        "label_errors.csv",
        "metrics.json",
        "per_label.csv",
        "plots/label_counts.png",
        "plots/training_curve.png",
        "plots/words_per_text.png",
        "report.html",
        "test_predictions.jsonl",
    ]
    for path in (folder / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_table_and_the_predictions_agree(written, labels, scores):
    folder, _ = written
    lines = (folder / "test_predictions.jsonl").read_text().splitlines()
    predictions = [json.loads(line) for line in lines]
    assert [row["row"] for row in predictions] == list(range(1, ROWS + 1))
    with Path(folder / "per_label.csv").open(newline="") as file:
        table = {row["label"]: row for row in csv.DictReader(file)}
    assert list(table) == NAMES
    for i, name in enumerate(NAMES):
        true = {row["row"] for row in predictions if name in row["true_labels"]}
        predicted = {row["row"] for row in predictions if name in row["labels"]}
        assert true == set(np.flatnonzero(labels["test"][:, i]) + 1)
        f1 = 2 * len(true & predicted) / (len(true) + len(predicted))
        assert float(table[name]["f1"]) == pytest.approx(f1)
        assert float(table[name]["threshold"]) == THRESHOLDS[i]


def test_the_card_has_report_data_and_use(written):
    folder, report = written
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == "owner/encoder"
    assert {result.metric_type for result in card.data.eval_results} == SHOWN
    assert card.text.startswith("\n# my_issues tagger")
    assert report in card.text
    assert "my_issues.jsonl.gz: 40 rows read" in card.text
    assert f'pipeline("text-classification", model="{folder}", top_k=None)' in card.text
    assert "first 256 tokens" in card.text
    assert all(name in report for name in NAMES)


def test_label_errors_name_rows_of_the_source(written, labels, scores):
    folder, _ = written
    with Path(folder / "label_errors.csv").open(newline="") as file:
        errors = list(csv.DictReader(file))
    assert [int(error["rank"]) for error in errors] == list(range(1, len(errors) + 1))
    assert len(errors) > 3
    for error in errors:
        truth = labels["test"][int(error["row"]) - 1]
        assert error["labels"] == "; ".join(np.array(NAMES)[truth == 1])
        assert error["suggested"] != error["labels"]
        assert error["text"] == f"text {int(error['row']) - 1}"


def test_the_card_links_to_the_report(written):
    folder, _ = written
    assert "[report.html](report.html)" in (folder / "README.md").read_text()
