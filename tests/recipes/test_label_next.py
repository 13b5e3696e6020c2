"""What to label next: batches, files, further rounds, other taggers, and the simulation."""

import csv
import json

import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, write
from conftest import FILLER, KEYWORDS
from tiny_models import save_tiny_model

from shared.evaluation import DecisionRule
from shared.methods import fit_words, naive_bayes
from shared.taggers import Tagger, WordScorer, save_trained_model

LABELS = sorted(KEYWORDS)


@pytest.fixture
def rows(tiny_issues):
    """The rows of `tiny_issues`, 20 of them with labels."""
    rows = read_lines(tiny_issues)
    return [row | {"labels": row["labels"] if i < 20 else []} for i, row in enumerate(rows)]


@pytest.fixture
def data(rows, tmp_path):
    return write(tmp_path / "issues.jsonl", rows)


@pytest.fixture
def flags(tiny_model, data, tmp_path):
    return [
        *("--encoder", tiny_model, "--data", data, "--use_cpu", "--max_length", 48),
        *("--bf16", "false", "--batch", 10),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("label_next", monkeypatch, capfd, *flags)


def batch_of(folder):
    return read_lines(folder / "to_label.jsonl")


def with_labels(records, tiny_issues):
    """Fill in the labels of a batch, as a person does."""
    truth = {f"{row['title']}\n\n{row['body']}": row["labels"] for row in read_lines(tiny_issues)}
    return [record | {"labels": truth[record["text"]] or ["bug"]} for record in records]


def test_a_batch_its_files_and_what_is_printed(recipe, tmp_path, rows):
    printed = recipe()
    records = batch_of(tmp_path / "out")
    assert "to choose from: 112 texts; labelled: 20" in printed
    assert len({record["row"] for record in records}) == 10
    for record in records:
        row = rows[record["row"] - 1]
        assert record["text"] == f"{row['title']}\n\n{row['body']}"
        assert (row["labels"], record["labels"], record["strategy"]) == ([], None, "mix")
        assert {*record["suggested"]} <= {*LABELS}
    # The words tell the labels, so that most suggestions are right.
    hits = [KEYWORDS[r["suggested"][0]].split() for r in records]
    hits = [
        any(w in r["text"].split() for w in words) for r, words in zip(records, hits, strict=True)
    ]
    assert np.mean(hits) > 0.7
    with open(tmp_path / "out" / "to_label.csv", encoding="utf-8", newline="") as file:
        assert [int(row["row"]) for row in csv.DictReader(file)] == [r["row"] for r in records]
    assert f"row {records[0]['row']}: " in printed
    assert records[0]["reason"] in printed
    first = (tmp_path / "out" / "to_label.jsonl").read_bytes()
    recipe()
    assert (tmp_path / "out" / "to_label.jsonl").read_bytes() == first


def test_labelled_texts_come_back_and_are_not_asked_for_again(recipe, tmp_path, tiny_issues, rows):
    labelled, texts = [], [row | {"labels": []} for row in rows]
    pool = write(tmp_path / "pool.jsonl", texts)
    recipe("--data", pool, "--candidate_labels", *LABELS)
    for number in range(3):
        labelled += with_labels(batch_of(tmp_path / "out"), tiny_issues)
        write(tmp_path / "labelled.jsonl", labelled)
        printed = recipe("--data", tmp_path / "labelled.jsonl", "--unlabelled_data", pool)
        assert f"to choose from: {122 - 10 * number} texts" in printed
        asked = {record["text"] for record in batch_of(tmp_path / "out")}
        assert not asked & {record["text"] for record in labelled}
    log = read_json(tmp_path / "out" / "agreement.json")
    assert [r["labelled"] for r in log["rounds"]] == [0, 10, 20, 30]
    assert "agreement of successive models (Cohen's kappa): " in printed
    # The texts to choose from were embedded once.
    assert len(list((tmp_path / "cache").glob("vectors-*.npz"))) <= 3


def test_an_export_of_label_studio_is_data(recipe, tmp_path, tiny_issues, data):
    recipe()
    labels = {r["text"]: r["labels"] for r in with_labels(batch_of(tmp_path / "out"), tiny_issues)}
    tasks = read_json(tmp_path / "out" / "label_studio.json")
    export = []  # JSON-MIN
    for number, task in enumerate(tasks):
        chosen = labels[task["data"]["text"]]
        chosen = chosen[0] if len(chosen) == 1 else {"choices": chosen}
        export.append({**task["data"], "id": number, "annotator": 1, "labels": chosen})
    exported = tmp_path / "export.json"
    exported.write_text(json.dumps(export), encoding="utf-8")
    printed = recipe("--data", exported, "--unlabelled_data", data, "--candidate_labels", *LABELS)
    assert "to choose from: 122 texts; labelled: 10" in printed


def test_from_no_label_at_all_through_accelerate(flags, tmp_path, rows):
    write(tmp_path / "none.jsonl", [row | {"labels": []} for row in rows])
    printed = launch("recipes/label_next.py", *flags, "--data", tmp_path / "none.jsonl").stdout
    records = batch_of(tmp_path / "out")
    assert {record["strategy"] for record in records} == {"coverage"}
    assert all(record["suggested"] == [] for record in records)
    assert not (tmp_path / "out" / "label_studio.xml").exists()
    assert "to choose from: 132 texts; labelled: 0" in printed


@pytest.mark.parametrize("strategy", ["bald", "k_means"])
def test_other_strategies(recipe, tmp_path, strategy):
    recipe("--strategy", strategy)
    records = batch_of(tmp_path / "out")
    assert {record["strategy"] for record in records} == {strategy}
    assert all(record["suggested"] for record in records)


def test_the_end_of_long_texts_can_be_embedded(recipe, tmp_path):
    scores = []
    for side in ("right", "left"):
        recipe("--max_length", 8, "--truncation_side", side)
        scores.append({r["row"]: r["score"] for r in batch_of(tmp_path / "out")})
    assert scores[0] != scores[1]


def test_near_duplicates_are_passed_over(recipe, tmp_path, rows):
    copies = [row | {"labels": []} for row in rows[:20]] + [rows[-1]] * 30
    data = write(tmp_path / "copies.jsonl", rows + copies)
    assert "to choose from: 112 texts" in recipe("--data", data)


def test_a_sample_of_the_texts(recipe, tmp_path):
    printed = recipe("--max_unlabelled", 50)
    n = int(printed.split("to choose from: ")[1].split()[0])
    assert 30 < n < 50  # those of the 50 that have no label
    assert "labelled: 20" in printed


@pytest.fixture
def words_tagger(tiny_issues, tmp_path):
    """A tagger of words, which needs no encoder."""
    rows = [row for row in read_lines(tiny_issues) if row["labels"]]
    y = np.array([[name in row["labels"] for name in LABELS] for row in rows], dtype=int)
    classifier = fit_words(naive_bayes(), [f"{row['title']} {row['body']}" for row in rows], y)
    rule = DecisionRule.of(0.5, 4)
    Tagger(LABELS, rule, WordScorer(classifier)).save(tmp_path / "words")
    return tmp_path / "words"


def test_a_tagger_gives_the_scores(recipe, tmp_path, words_tagger, rows):
    none = write(tmp_path / "none.jsonl", [row | {"labels": []} for row in rows])
    recipe("--data", none, "--model", words_tagger, "--strategy", "entropy")
    records = batch_of(tmp_path / "out")
    assert {record["strategy"] for record in records} == {"entropy"}
    assert sorted(records[0]["scores"]) == LABELS
    task = read_json(tmp_path / "out" / "label_studio.json")[0]
    assert task["predictions"][0]["model_version"] == str(words_tagger)
    error = recipe.mistake("--model", words_tagger, "--strategy", "bald")
    assert error.startswith("--strategy bald: the tagger of --model has no dropout")


def test_dropout_of_a_trained_tagger_is_a_committee(recipe, tmp_path):
    words = " ".join([FILLER, *KEYWORDS.values()]).split()
    options = {"problem_type": "multi_label_classification", "hidden_dropout_prob": 0.3}
    options["id2label"] = dict(enumerate(LABELS))
    head = "AutoModelForSequenceClassification"
    folder = save_tiny_model(tmp_path / "bert", "bert", words, head, **options)
    save_trained_model(folder, LABELS, DecisionRule.of(0.5, 4))
    recipe("--model", folder, "--strategy", "bald")
    records = batch_of(tmp_path / "out")
    assert {record["strategy"] for record in records} == {"bald"}
    assert all(record["score"] > 0 for record in records)


def test_the_simulation(recipe, tmp_path, tiny_issues):
    options = ("--data", tiny_issues, "--labels", 30, "--seeds", 1, 2)
    printed = recipe("--simulate", *options, "--strategies", "mix", "bald")
    with open(tmp_path / "out" / "results.csv", encoding="utf-8", newline="") as file:
        results = list(csv.DictReader(file))
    assert len(results) == 3 * 2 * 3
    assert {(r["strategy"], r["labels"]) for r in results} >= {("random", "10"), ("bald", "30")}
    assert all(0 <= float(r["macro_f1"]) <= 1 for r in results)
    assert (tmp_path / "out" / "learning_curves.png").stat().st_size > 10_000
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| strategy | 10 | 20 | 30 | labels for " in page
    assert "| mix | " in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch", 113), "--batch 113: there are 112 texts to choose from; give --batch 112"),
        (("--strategy", "best"), "--strategy best: there are mix, coverage, "),
        (("--simulate", "--labels", 5), "--batch 10: is above --labels 5"),
        (("--simulate", "--labels", 90), "--labels 90: there are 12 texts to choose from"),
        (("--test_data", "x.csv"), "--test_data: acts with --simulate; add it"),
        (("--train_size", 8), "--train_size: has no meaning here; remove it"),
        (("--simulate", "--model", "x"), "--model: --simulate takes texts and labels from --data"),
        (("--multilabel", "false"), "--multilabel false: some labelled rows have several labels"),
        (("--candidate_labels", "bug"), "documentation"),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_mistakes(recipe, options, message):
    assert message in recipe.mistake(*options)


def test_mistakes_in_the_data(recipe, tmp_path, rows, words_tagger):
    labelled = write(tmp_path / "labelled.jsonl", rows[:20])
    assert recipe.mistake("--data", labelled).endswith(
        "no text is left without a label; add texts to label"
    )
    none = write(tmp_path / "none.jsonl", [row | {"labels": []} for row in rows])
    error = recipe.mistake("--data", none, "--strategy", "entropy")
    assert error.startswith("--strategy entropy: needs labelled texts, or names of labels")
    others = [row | {"labels": ["others"] if row["labels"] else []} for row in rows]
    error = recipe.mistake(
        "--data", write(tmp_path / "others.jsonl", others), "--model", words_tagger
    )
    assert f"--model {words_tagger}: does not know 1 labels of --data: others" in error
    write(tmp_path / "empty.jsonl", "")
    assert "empty.jsonl" in recipe.mistake("--data", tmp_path / "empty.jsonl")
