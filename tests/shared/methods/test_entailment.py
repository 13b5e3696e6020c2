"""Sentence pairs for entailment: read from a file, or made of labelled texts."""

import json

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.methods.entailment import read_pairs, topic_pairs
from shared.training.losses import EntailmentLoss


def test_labels_of_a_file_become_codes_and_pairs_without_a_gold_label_are_left_out(tmp_path):
    labels = [
        "entailment",
        "Neutral ",
        "contradiction",
        0,
        1.0,
        "2",
        "not_entailment",
        "-",
        -1,
        None,
    ]
    path = tmp_path / "pairs.jsonl"
    rows = [{"premise": "a", "hypothesis": f"b{i}", "label": y} for i, y in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = read_pairs(str(path), "--train_data")
    assert pairs["label"][:] == [0, 1, 2, 0, 1, 2, EntailmentLoss.NOT_ENTAILED]
    assert pairs["hypothesis"][:] == [f"b{i}" for i in range(7)]


def test_an_unknown_label_is_refused_with_its_row(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"premise": "a", "hypothesis": "b", "label": "maybe"}) + "\n")
    with pytest.raises(UserError, match="row 1: the label is 'maybe'"):
        read_pairs(str(path), "--train_data")


def test_each_text_is_paired_with_one_of_its_labels_and_with_labels_it_lacks():
    texts = ["one", "two", "no label", "all labels"]
    labels = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    names = ["good-first_issue", "bug", "docs", "speed"]
    options = {"template": "About {label}.", "negatives": 2}
    pairs = topic_pairs(texts, labels, names, **options, seed=0)
    assert pairs["premise"][:] == ["one"] * 3 + ["two"] * 3
    assert pairs["label"][:] == [0, EntailmentLoss.NOT_ENTAILED, EntailmentLoss.NOT_ENTAILED] * 2
    hypotheses = pairs["hypothesis"][:]
    assert hypotheses[0] == "About good first issue."
    assert {*hypotheses[1:3]} < {"About bug.", "About docs.", "About speed."}
    assert hypotheses[3] in ("About bug.", "About docs.")
    assert {*hypotheses[4:]} == {"About good first issue.", "About speed."}
    assert topic_pairs(texts, labels, names, **options, seed=0).to_dict() == pairs.to_dict()
