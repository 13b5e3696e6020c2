import csv
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from command_line import read_lines

from shared.evaluation import DecisionRule
from shared.methods import STRATEGIES, Batch
from shared.reports import batch_records, show_batch, write_batch

NAMES = ["bug", 'a "quoted" <label>', "übrig"]
TEXTS = ["It crashes\n\nalways; see, here", "=1+1", "日本語"]
SCORES = np.array([[0.9, 0.2, 0.6], [0.1, 0.2, 0.3], [0.0, 0.7, 0.1]])


@pytest.fixture
def records():
    batch = Batch()
    batch.add("mix", 4, 0.5, 1)
    batch.add("coverage", 0, 0.25)
    batch.add("entropy", 2, 1.5)
    rule = DecisionRule.of(0.5, 3, at_least_one=True)
    return batch_records(batch, TEXTS, [5, 1, 3], NAMES, SCORES, rule, np.array([7, 1, 0]))


def test_records_say_why_and_suggest_labels(records):
    assert [r["suggested"] for r in records] == [["bug", "übrig"], ["übrig"], [NAMES[1]]]
    assert records[0]["scores"] == {"bug": 0.9, "übrig": 0.6, NAMES[1]: 0.2}
    assert records[0]["reason"] == f"may be {NAMES[1]} (0.20), which has 1 labelled text"
    assert records[2]["reason"] == "the labels are uncertain (entropy 1.50 nats)"
    assert [(r["row"], r["strategy"], r["labels"]) for r in records] == [
        (5, "mix", None),
        (1, "coverage", None),
        (3, "entropy", None),
    ]
    assert "row 5: It crashes" in show_batch(records)
    assert "and 2 more" in show_batch(records, most=1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_a_reason_also_without_a_model(strategy):
    batch = Batch()
    batch.add("coverage" if strategy in ("mix", "balance") else strategy, 0, 0.5)
    rule = DecisionRule.of(0.5, 0)
    (record,) = batch_records(batch, ["a"], [1], [], None, rule, np.zeros(0, int))
    assert record["reason"]
    assert (record["suggested"], record["scores"]) == ([], {})


def test_the_files_hold_the_same_rows(records, tmp_path):
    write_batch(tmp_path, records, NAMES, single_label=False, model="m")
    assert read_lines(tmp_path / "to_label.jsonl") == records
    with open(tmp_path / "to_label.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == TEXTS
    assert (rows[0]["labels"], rows[0]["suggested"]) == ("", "bug; übrig")
    assert json.loads(rows[0]["scores"]) == records[0]["scores"]


@pytest.mark.parametrize("single_label", [True, False])
def test_label_studio_imports_tasks_and_interface(records, tmp_path, single_label):
    """The rules of its importer: https://labelstud.io/guide/predictions."""
    write_batch(tmp_path, records, NAMES, single_label=single_label, model="m")
    view = ET.parse(tmp_path / "label_studio.xml").getroot()
    choices = view.find("Choices")
    assert choices.get("choice") == ("single-radio" if single_label else "multiple")
    assert [choice.get("value") for choice in choices] == NAMES
    shown = {text.get("name"): text.get("value") for text in view.findall("Text")}

    tasks = json.loads((tmp_path / "label_studio.json").read_text(encoding="utf-8"))
    assert [task["data"]["text"] for task in tasks] == TEXTS
    for task, record in zip(tasks, records, strict=True):
        # Every variable of the interface is in the data of the task.
        assert all(value[1:] in task["data"] for value in shown.values())
        (prediction,) = task["predictions"]
        assert isinstance(prediction["model_version"], str)
        assert 0 <= prediction["score"] <= 1
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"]) == (choices.get("name"), "text")
        assert choices.get("toName") in shown
        assert (result["type"], result["value"]) == ("choices", {"choices": record["suggested"]})


def test_without_labels_there_is_no_interface(records, tmp_path):
    write_batch(tmp_path, records, NAMES, single_label=True, model="m")
    for record in records:
        record |= {"suggested": [], "scores": {}}
    write_batch(tmp_path, records, [], single_label=True, model="m")
    assert not (tmp_path / "label_studio.xml").exists()
    tasks = json.loads((tmp_path / "label_studio.json").read_text(encoding="utf-8"))
    assert [task["predictions"] for task in tasks] == [[], [], []]
