"""The shipped sample: what the data card promises about it."""

import json
import re
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from statistics import median

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "recipes" / "data"
COUNTS = {
    "tokenization": 106,
    "new model": 98,
    "model training": 64,
    "usage": 46,
    "pipeline": 42,
    "tensorflow or tf": 41,
    "pytorch": 37,
    "documentation": 28,
    "examples": 24,
}
OUTSIDE = {
    "bug",
    "wontfix",
    "good first issue",
    "performance",
    "enhancement",
    "stale",
    "help wanted",
    "dependencies",
}


@pytest.fixture(scope="module")
def rows():
    with open(FOLDER / "issues.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def text_of(row):
    return "\n\n".join(part for part in (row["title"], row["body"]) if part)


def labels_of(row):
    return [label["name"] for label in row["labels"] if label["name"] in COUNTS]


@pytest.fixture(scope="module")
def issues(rows):
    """The issues, pull requests left out."""
    return [row for row in rows if row.get("pull_request") is None]


@pytest.fixture(scope="module")
def texts(issues):
    """Each distinct text of the issues, with its labels of the nine."""
    return {text_of(row): labels_of(row) for row in issues}


def five_grams(text):
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def test_generator_reproduces_the_file():
    run = subprocess.run(
        [sys.executable, FOLDER / "make_sample.py", "--check"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_fields_are_those_of_the_rest_api(rows):
    for row in rows:
        assert isinstance(row["number"], int)
        assert row["title"].strip()
        assert row["body"] is None or row["body"].strip()
        assert all(label["name"] for label in row["labels"])
        assert row["user"]["login"]
        assert row["state"] in ("open", "closed")
        assert row["html_url"].startswith("https://example.org/")
        datetime.strptime(row["created_at"], "%Y-%m-%dT%H:%M:%SZ")
    numbers = [row["number"] for row in rows]
    assert numbers == sorted(set(numbers), reverse=True)
    dates = [row["created_at"] for row in rows]
    assert dates == sorted(dates, reverse=True)


def test_label_counts_of_distinct_issues(texts):
    labelled = [labels for labels in texts.values() if labels]
    assert len(labelled) == 441
    assert Counter(label for labels in labelled for label in labels) == COUNTS
    share = sum(len(labels) > 1 for labels in labelled) / len(labelled)
    assert 0.08 <= share <= 0.12


def test_labels_outside_the_nine(issues):
    names = [{label["name"] for label in row["labels"]} for row in issues]
    assert set().union(*names) - set(COUNTS) == OUTSIDE
    assert any(n & OUTSIDE and n & set(COUNTS) for n in names)
    assert any(n and not n & set(COUNTS) for n in names)


def test_unlabelled_issues_and_pull_requests(rows, issues):
    assert len({text_of(row) for row in issues if not row["labels"]}) >= 1500
    pulls = [row for row in rows if row.get("pull_request") is not None]
    assert len(pulls) >= 120
    assert any(labels_of(row) for row in pulls)


def test_lengths(issues):
    words = [len(text_of(row).split()) for row in issues]
    assert min(words) <= 3
    assert 300 <= max(words) <= 400
    assert 85 <= median(words) <= 115


def test_null_bodies(issues):
    share = np.mean([row["body"] is None for row in issues])
    assert 0.02 <= share <= 0.04


def test_exact_duplicates_carry_the_labels_of_the_original(issues):
    copies = Counter(text_of(row) for row in issues)
    assert 0.01 <= 1 - len(copies) / len(issues) <= 0.02
    labels = {}
    for row in issues:
        assert labels.setdefault(text_of(row), set(labels_of(row))) == set(labels_of(row))


def test_few_near_duplicates(texts):
    grams = [five_grams(text) for text in texts]
    holders = {}
    for i, gram_set in enumerate(grams):
        for gram in gram_set:
            holders.setdefault(gram, []).append(i)
    shared = Counter()
    for rows in holders.values():
        if len(rows) < 50:  # a commonplace; the rows of a near-duplicate share rarer ones too
            shared.update((a, b) for j, b in enumerate(rows) for a in rows[:j])
    near = [
        pair
        for pair, n in shared.items()
        if n / (len(grams[pair[0]]) + len(grams[pair[1]]) - n) >= 0.8
    ]
    share = len({row for pair in near for row in pair}) / len(grams)
    assert 0.01 <= share <= 0.03


def test_variety(issues):
    bodies = [row["body"] or "" for row in issues]
    assert sum("```" in body for body in bodies) > 200
    assert sum("Traceback (most recent call last)" in body for body in bodies) > 100
    assert sum("<!--" in body for body in bodies) > 30
    assert sum("- [x]" in body for body in bodies) > 30
    assert sum(bool(re.search("[\U0001f300-\U0001faff]", text_of(row))) for row in issues) > 30


def test_all_slots_and_choices_are_resolved(rows):
    for row in rows:
        assert not re.search(r"\{[A-Za-z_]+\d?\}|\[[^\[\]\n`]*\w\|\w[^\[\]\n`]*\]", text_of(row))


@pytest.mark.parametrize("random_state", [0, 1, 2])
def test_naive_bayes_is_neither_good_nor_at_a_loss(texts, random_state):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.metrics import f1_score
    from sklearn.model_selection import train_test_split
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    labelled = [(text, labels) for text, labels in texts.items() if labels]
    x = [text for text, _ in labelled]
    y = np.array([[name in labels for name in COUNTS] for _, labels in labelled], dtype=int)
    train, test = train_test_split(np.arange(len(x)), test_size=0.25, random_state=random_state)
    train = train[:223]
    model = make_pipeline(CountVectorizer(), OneVsRestClassifier(MultinomialNB()))
    model.fit([x[i] for i in train], y[train])
    predicted = model.predict([x[i] for i in test])
    assert 0.40 <= f1_score(y[test], predicted, average="micro") <= 0.75
