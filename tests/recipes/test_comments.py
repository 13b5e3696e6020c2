"""The shipped sample of comments: what the data card promises about it."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "recipes" / "data"
EMOTIONS = {
    *("admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion"),
    *("curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment"),
    *("excitement", "fear", "gratitude", "grief", "joy", "love", "nervousness", "optimism"),
    *("pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral"),
}


@pytest.fixture(scope="module")
def rows():
    with open(FOLDER / "comments.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_generator_reproduces_the_file():
    run = subprocess.run(
        [sys.executable, FOLDER / "make_comments.py", "--check"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_labels(rows):
    assert len(rows) == 766
    counts = Counter(label for row in rows for label in row["labels"])
    assert set(counts) == EMOTIONS
    assert counts.most_common(1)[0] == ("neutral", 143)
    assert min(counts.values()) == 12
    assert {len(row["labels"]) for row in rows} == {1, 2}
    assert sum(len(row["labels"]) == 2 for row in rows) == 128


def test_texts_are_short_distinct_and_whole(rows):
    texts = [row["text"] for row in rows]
    assert len({text.lower() for text in texts}) > 0.98 * len(texts)
    assert len(set(texts)) == len(texts)
    words = [len(text.split()) for text in texts]
    assert (min(words), np.median(words)) >= (3, 10)
    assert max(words) <= 45
    for text in texts:
        assert not re.search(r"[\[\]{}|_]", text), text


@pytest.mark.parametrize("random_state", [0, 1, 2])
def test_tf_idf_is_neither_good_nor_at_a_loss(rows, random_state):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import train_test_split
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    y = np.array([[name in row["labels"] for name in sorted(EMOTIONS)] for row in rows], dtype=int)
    train, test = train_test_split(np.arange(len(rows)), test_size=0.25, random_state=random_state)
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True),
        OneVsRestClassifier(LogisticRegression(C=10, class_weight="balanced")),
    )
    model.fit([rows[i]["text"] for i in train], y[train])
    predicted = model.predict([rows[i]["text"] for i in test])
    assert 0.5 <= f1_score(y[test], predicted, average="micro") <= 0.9
