"""Rows whose labels no person has given: --weight_column."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.data import PseudoLabelArguments, SplitArguments, load_corpus, split_corpus


@dataclass
class Arguments(PseudoLabelArguments, SplitArguments):
    """The flags of a recipe that has both groups."""


def row(number, label, weight=None):
    words = " ".join(f"row{number}word{i}" for i in range(40))
    return {"text": words, "label": label, "confidence": weight}


BY_HAND = [row(i, "ab"[i % 2]) for i in range(16)]
BY_OTHERS = [row(20 + i, "ab"[i % 2], 0.5 + i / 10) for i in range(4)]


@pytest.fixture
def load(tmp_path):
    """Return a function of rows and flags that loads and splits them."""

    def call(rows, seed=0, labels_required=True, **flags):
        flags = {"weight_column": "confidence", **flags}
        for name, content in {"data": rows, **flags}.items():
            if isinstance(content, list) and name.endswith("data"):
                lines = "".join(json.dumps(line) + "\n" for line in content)
                (tmp_path / f"{name}.jsonl").write_text(lines)
                flags[name] = str(tmp_path / f"{name}.jsonl")
        args = Arguments(**flags, cache_dir=str(tmp_path / "cache"))
        corpus, held_out = load_corpus(args, labels_required=labels_required)
        return split_corpus(corpus, held_out, args, seed=seed, labels_required=labels_required)

    return call


def texts(split, part):
    return set(split.rows[part]["text"])


def test_rows_with_a_weight_are_in_no_part_of_the_split(load, capsys):
    split = load([*BY_OTHERS[:2], *BY_HAND, *BY_OTHERS[2:], row(30, None)])
    parts = set.union(*(texts(split, part) for part in ("train", "valid", "test")))
    assert parts == {r["text"] for r in BY_HAND}
    corpus = split.corpus
    assert split.pseudo_labelled.tolist() == [0, 1, 18, 19]
    assert corpus.weights(split.pseudo_labelled) == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert corpus.label_matrix(split.pseudo_labelled).argmax(axis=1).tolist() == [0, 1, 0, 1]
    assert split.unlabelled.tolist() == [20]
    assert corpus.single_label
    summary = capsys.readouterr().out
    assert "21 texts: 16 labelled, 1 unlabelled" in summary
    assert "4 (--weight_column)" in summary
    assert "labels per labelled text: 1 on 20 (100%)" in summary


def test_without_the_flag_they_are_rows_as_any_other(load):
    split = load([*BY_HAND, *BY_OTHERS], weight_column=None)
    assert len(split.corpus.labelled) == 20
    assert not len(split.pseudo_labelled)


def test_a_weight_without_labels_has_no_meaning(load):
    split = load([*BY_HAND, row(30, None, 0.7)])
    assert not len(split.pseudo_labelled)
    assert split.unlabelled.tolist() == [16]


def test_near_duplicates_of_test_rows_are_left_out(load):
    held_out = [row(20, "a"), row(21, "b")]
    split = load([*BY_HAND, *BY_OTHERS], test_data=held_out)
    assert split.pseudo_labelled.tolist() == [18, 19]

    rows = [*BY_HAND, *({**r, "confidence": 0.9, "text": r["text"] + " z"} for r in BY_HAND)]
    split = load(rows)
    kept = {
        text.removesuffix(" z")
        for text in split.corpus.dataset.select(split.pseudo_labelled)["text"]
    }
    assert kept == texts(split, "train")


def test_of_exact_duplicates_the_label_of_a_person_counts(load):
    contradicted = {**BY_HAND[3], "label": "a", "confidence": 1.0}
    unlabelled = {**BY_OTHERS[0], "label": None, "confidence": None}
    split = load([contradicted, unlabelled, *BY_HAND, *BY_OTHERS])
    assert len(split.corpus.labelled) == 16
    assert len(split.pseudo_labelled) == 4
    assert not len(split.unlabelled)
    (position,) = np.flatnonzero([t == BY_HAND[3]["text"] for t in split.corpus.dataset["text"]])
    assert split.corpus.label_matrix([position]).argmax() == 1  # b


def test_labels_that_nobody_gave_by_hand_are_labels(load):
    split = load([*BY_HAND, *BY_OTHERS, row(40, "c", 0.4)])
    assert split.corpus.label_names == ["a", "b", "c"]


def test_with_no_row_labelled_by_hand_a_test_file_is_needed(load):
    split = load(BY_OTHERS, test_data=BY_HAND[:4], labels_required=False)
    assert [len(split.labels[part]) for part in ("train", "valid", "test")] == [0, 0, 4]
    assert len(split.pseudo_labelled) == 4
    with pytest.raises(UserError, match=r"no row is labelled by hand.*--test_data"):
        load(BY_OTHERS, labels_required=False)


@pytest.mark.parametrize("value", ["high", -0.1, [0.5], True, "inf"])
def test_what_is_no_weight_is_refused_with_its_row(load, value):
    with pytest.raises(UserError, match=r"row 17: column 'confidence' of --weight_column holds"):
        load([*BY_HAND, row(20, "a", value)])


def test_numbers_in_text_and_blank_cells_are_read(load):
    split = load([*BY_HAND[:-1], row(15, "b", " "), row(20, "a", "0.25")])
    assert split.corpus.weights(split.pseudo_labelled).tolist() == [0.25]


def test_a_missing_column_is_named(load):
    with pytest.raises(UserError, match=r"no column 'confidenc'.*did you mean 'confidence'"):
        load(BY_HAND, weight_column="confidenc")
