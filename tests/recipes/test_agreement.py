"""The agreement of annotators, and the labels merged from theirs, through the command line."""

import csv
import json

import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, write

from shared.data.arguments import DataArguments
from shared.data.corpus import load_data

LABELS = ["bug", "docs", "feature"]
# The share of right answers of each annotator.
RIGHT = {"anna": 0.97, "ben": 0.95, "carla": 0.5, "dora": 0.45, "emil": 0.4}


def answers_of(labels, rng):
    """Return an answer of each annotator; wrong ones are the next label."""
    for who, share in RIGHT.items():
        wrong = rng.random() > share
        yield who, [LABELS[(LABELS.index(label) + wrong) % 3] for label in labels]


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    texts = [f"the number {i} of {rng.integers(10**6)} texts" for i in range(150)]
    return {text: LABELS[rng.integers(3)] for text in texts}


@pytest.fixture(scope="module")
def rows(truth):
    rng = np.random.default_rng(1)
    return [
        {"text": text, "labels": labels, "annotator": who}
        for text, label in truth.items()
        for who, labels in answers_of([label], rng)
    ]


@pytest.fixture
def data(rows, tmp_path):
    return write(tmp_path / "answers.jsonl", rows)


@pytest.fixture
def recipe(monkeypatch, capfd, data, tmp_path):
    flags = ("--data", data, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out")
    return Recipe("agreement", monkeypatch, capfd, *flags)


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_figures_the_tables_and_the_merged_labels(recipe, tmp_path, truth, rows):
    printed = recipe()
    out = tmp_path / "out"
    metrics = read_json(out / "agreement.json")
    assert (metrics["texts"], metrics["answers"], metrics["annotators"]) == (150, 750, 5)
    assert metrics["merged_by"] == "dawid_skene"
    assert metrics["alpha_low"] < metrics["alpha"] < metrics["alpha_high"]
    assert 0 < metrics["alpha"] < 0.667
    assert f"Krippendorff's alpha: {metrics['alpha']:.3f} (95 % interval" in printed
    assert "below 0.667: too low to draw conclusions" in printed
    assert [row["label"] for row in metrics["per_label"]] == LABELS

    # The merged labels are those of the annotators who are right, not of the majority.
    merged = read_lines(out / "labelled.jsonl")
    right = np.mean([row["labels"] == [truth[row["text"]]] for row in merged])
    votes = [[r["labels"][0] for r in rows if r["text"] == text] for text in truth]
    by_majority = [max(LABELS, key=vote.count) for vote in votes]
    majority_right = np.mean([a == b for a, b in zip(by_majority, truth.values(), strict=True)])
    assert right > majority_right + 0.1
    assert right > 0.9
    assert [row["row"] for row in merged] == list(range(1, 750, 5))
    for row in merged:
        assert row["weight"] == (None if row["confidence"] >= 0.9 else row["confidence"])
        assert row["answers"] == 5
    assert metrics["trusted"] == sum(row["weight"] is None for row in merged)

    # Who differs: those who are wrong, with whom and where.
    people = table(out / "annotators.csv")
    assert {row["annotator"] for row in people[:3]} == {"carla", "dora", "emil"}
    for row in people:
        assert float(row["f1"]) == pytest.approx(RIGHT[row["annotator"]], abs=0.12)
    pairs = table(out / "pairs.csv")
    assert len(pairs) == 10
    assert {pairs[-1]["annotator"], pairs[-1]["other"]} == {"anna", "ben"}
    assert [float(row["kappa"]) for row in pairs] == sorted(float(row["kappa"]) for row in pairs)
    disputed = table(out / "disputed.csv")
    assert len(disputed) == metrics["disputed"]
    assert disputed[0]["text"] in truth
    assert "(" in disputed[0]["answers"]
    by_label = table(out / "annotator_labels.csv")
    assert {row["annotator"] for row in by_label[:5]} <= {"carla", "dora", "emil"}
    assert float(by_label[0]["added"]) + float(by_label[0]["missed"]) > 20
    report = (out / "README.md").read_text(encoding="utf-8")
    assert "## The most disputed texts" in report
    assert "| emil | 150 | 600 |" in report


def test_the_merged_labels_are_data_with_weights(recipe, tmp_path):
    recipe("--trust", 0.99)
    merged = read_lines(tmp_path / "out" / "labelled.jsonl")
    args = DataArguments(
        data=str(tmp_path / "out" / "labelled.jsonl"), cache_dir=str(tmp_path / "cache")
    )
    args.weight_column = "weight"  # a flag of self_training
    corpus = load_data(args)
    unsure = [i for i, row in enumerate(merged) if row["weight"] is not None]
    assert 0 < len(unsure) < len(merged)
    assert corpus.pseudo_labelled.tolist() == unsure
    assert corpus.weights(corpus.pseudo_labelled) == pytest.approx(
        [merged[i]["weight"] for i in unsure]
    )
    assert corpus.single_label


def test_two_annotators_alone_are_not_told_apart(recipe, tmp_path, rows):
    two = [row for row in rows if row["annotator"] in ("anna", "emil")]
    printed = recipe("--data", write(tmp_path / "two.jsonl", two))
    metrics = read_json(tmp_path / "out" / "agreement.json")
    assert metrics["merged_by"] == "majority"
    assert metrics["undecided"] == metrics["disputed"] > 50
    merged = read_lines(tmp_path / "out" / "labelled.jsonl")
    assert sum(row["labels"] is None for row in merged) == metrics["undecided"]
    assert f"{metrics['undecided']:,} are undecided" in printed
    recipe("--data", tmp_path / "two.jsonl", "--merge", "dawid_skene")
    assert read_json(tmp_path / "out" / "agreement.json")["undecided"] == 0


def test_several_labels_per_text_in_a_file_per_annotator(recipe, tmp_path):
    rng = np.random.default_rng(0)
    files = {who: [] for who in RIGHT}
    truth = {}
    for i in range(120):
        labels = [label for label in LABELS if rng.random() < 0.4]
        truth[f"a text with the number {i}"] = labels
        for who, answer in answers_of(labels, rng):
            files[who].append({"text": f"a text with the number {i}", "labels": sorted(answer)})
    for who, answers in files.items():
        write(tmp_path / f"{who}.json", json.dumps(answers))
    printed = recipe("--data", ",".join(str(tmp_path / f"{who}.json") for who in RIGHT))
    assert "600 answers (any number of labels each) of 5 annotators to 120 texts" in printed
    assert "Krippendorff's alpha, mean of the labels: " in printed
    merged = read_lines(tmp_path / "out" / "labelled.jsonl")
    right = [row["labels"] == truth[row["text"]] for row in merged]
    assert np.mean(right) > 0.85
    assert any(row["labels"] == [] for row in merged)  # none of them applies


def test_ids_in_place_of_texts_through_accelerate(tmp_path):
    lines = ["row,annotator,labels", "7,a,bug", "7,b,bug", "8,a,docs", "8,b,bug"]
    data = write(tmp_path / "ids.csv", "\n".join(lines) + "\n")
    flags = ("--text_columns", "row", "--output_dir", tmp_path / "out")
    launch("recipes/agreement.py", "--data", data, *flags, "--cache_dir", tmp_path / "cache")
    merged = read_lines(tmp_path / "out" / "labelled.jsonl")
    assert [(row["row"], row["labels"]) for row in merged] == [("7", ["bug"]), ("8", None)]


def test_mistakes_end_in_one_line(recipe, tmp_path, rows):
    empty = write(tmp_path / "empty.jsonl", "")
    assert "empty.jsonl: the file is empty" in recipe.mistake("--data", empty)
    assert "no column 'who'" in recipe.mistake("--annotator_column", "who")
    assert "no column 'zoe'" in recipe.mistake("--annotator_columns", "zoe")
    assert "--trust" in recipe.mistake("--trust", 2)
    line = recipe.mistake("--text_columns", "text", "weight")
    assert line == "--text_columns weight: the output has this column; rename it"
    alone = write(tmp_path / "alone.jsonl", [row for row in rows if row["annotator"] == "ben"])
    assert "nothing to compare" in recipe.mistake("--data", alone)


def test_a_full_disk_leaves_the_files_of_the_run_before(recipe, tmp_path, monkeypatch):
    recipe()
    before = (tmp_path / "out" / "labelled.jsonl").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shared.data.labelled_rows.write_json_lines", full)
    assert "No space left" in recipe.mistake("--trust", 0.5, code=2)
    assert (tmp_path / "out" / "labelled.jsonl").read_bytes() == before
