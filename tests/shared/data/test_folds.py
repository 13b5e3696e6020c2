"""Folds: groups stay together, labels are spread, and parts, labels and folds fit together."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data.arguments import DataArguments
from shared.data.corpus import load_data
from shared.data.folds import (
    assign_folds,
    describe_folds,
    join_groups,
    load_and_fold,
    read_column,
)

groupings = st.integers(1, 30).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 8), min_size=n, max_size=n), min_size=1, max_size=3)
)


@settings(deadline=None)  # the first call imports scipy
@given(groupings)
def test_rows_are_in_one_joined_group_if_a_chain_of_groups_connects_them(lists):
    group_arrays = [np.array(groups) for groups in lists]
    n = len(group_arrays[0])
    together = np.eye(n, dtype=bool)
    for groups in group_arrays:
        together |= groups[:, None] == groups
    for _ in range(n):
        together = (together.astype(int) @ together) > 0
    joined = join_groups(*group_arrays)
    np.testing.assert_array_equal(joined[:, None] == joined, together)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(4, 12), st.integers(0, 2**32 - 1))
def test_no_group_is_in_two_folds(n_splits, n_groups, seed):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=40)])
    y = rng.integers(2, size=(len(groups), 3))
    y[:2, 0] = [0, 1]
    fold_of = assign_folds(y, n_splits, groups=groups, seed=7)
    assert {*fold_of.tolist()} == set(range(n_splits))
    for group in range(n_groups):
        assert len({*fold_of[groups == group].tolist()}) == 1
    np.testing.assert_array_equal(fold_of, assign_folds(y, n_splits, groups=groups, seed=7))


def test_labels_are_spread_evenly():
    y = np.repeat(np.eye(3, dtype=int), [30, 15, 6], axis=0)
    fold_of = assign_folds(y, 3, groups=np.arange(len(y)), seed=0)
    for number in range(3):
        assert y[fold_of == number].sum(axis=0).tolist() == [10, 5, 2]


def test_too_few_groups_are_refused():
    y = np.eye(4, dtype=int)
    with pytest.raises(UserError, match="4 texts are in only 2 groups"):
        assign_folds(y, 3, groups=np.array([0, 0, 0, 1]), seed=0)
    with pytest.raises(UserError, match="--folds 1: must be 2 or more"):
        assign_folds(y, 1, groups=np.arange(4), seed=0)


def test_labels_with_fewer_texts_than_folds_are_named():
    y = np.array([[1, 1], [1, 0], [1, 0]])
    text = describe_folds(np.arange(3), y, ["often", "once"])
    assert "folds: 1, 1, 1 texts" in text
    assert "note: no text of fold 1 has the label once" in text
    (line,) = [line for line in text.splitlines() if " on fewer " in line]
    assert line.startswith("note: labels on fewer texts than the 3 folds: once (1); a label on one")
    assert "often" not in text
    text = describe_folds(np.arange(4) // 2, np.array([[1], [0], [0], [0]]), ["x"], unit="rows")
    assert text.endswith("a label on one row is tested only by the fold that has not learned it")
    assert "tested only" not in describe_folds(np.arange(3), np.ones((3, 1), int), ["x"])
    names = [f"label {i}" for i in range(40)]
    text = describe_folds(np.arange(40), np.eye(40, dtype=int), names)
    assert max(map(len, text.splitlines())) < 300
    assert "label 9 (1), and 30 others" in text


def load_rows(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = DataArguments(data=str(path), cache_dir=str(tmp_path))
    return args, load_data(args)


def test_a_group_column_is_read_for_the_rows_of_the_corpus(tmp_path):
    users = [{"login": "a", "id": 1}, {"id": 2, "login": "b"}, None, {"id": 1, "login": "a"}]
    texts = ["one text", "another", " ", "a third"]
    rows = [{"text": t, "label": "x", "user": u} for t, u in zip(texts, users, strict=True)]
    args, corpus = load_rows(tmp_path, rows)
    groups = read_column(args, corpus, "user")  # the blank row was left out and needs no group
    assert groups[0] == groups[2] != groups[1]
    with pytest.raises(UserError, match=r"no column 'usr' \(found: text, label, user\)"):
        read_column(args, corpus, "usr")
    rows.append({"text": "no label yet", "label": None, "user": None})
    args, corpus = load_rows(tmp_path, rows)
    assert (
        len(read_column(args, corpus, "user")) == 4
    )  # an unlabelled row is in no fold and needs no group
    rows[1]["user"] = None
    args, corpus = load_rows(tmp_path, rows)
    with pytest.raises(UserError, match="row 2: no value in column 'user'"):
        read_column(args, corpus, "user")


def test_rows_from_which_nothing_can_be_learned_are_refused():
    groups = np.arange(6)
    with pytest.raises(UserError, match=r"every labelled text has every label: .* --empty_labels"):
        assign_folds(np.ones((6, 2), np.uint8), 2, groups=groups, seed=0)
    with pytest.raises(
        UserError, match="no labelled text is left for the folds: --test_data contains"
    ):
        assign_folds(np.zeros((0, 2), np.uint8), 2, groups=groups[:0], seed=0)


@dataclass
class Arguments(DataArguments):
    test_data: str | None = None


@pytest.fixture
def args(tmp_path):
    """Sixty rows of thirty authors, two labels, and a test file that repeats the first two rows."""
    words = ["crash", "slow", "docs", "install", "memory", "button"]
    rows = [
        {
            "text": f"{words[i % 6]} number {i} {words[i % 5]} {i * 7}",
            "labels": ["bug"] if i % 2 else ["bug", "speed"],
            "author": i // 2,
        }
        for i in range(60)
    ]
    paths = [tmp_path / "train.jsonl", tmp_path / "test.jsonl"]
    for path, part in zip(paths, (rows, rows[:2]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return Arguments(data=str(paths[0]), test_data=str(paths[1]), cache_dir=str(tmp_path / "cache"))


def test_groups_stay_in_one_fold_and_rows_that_repeat_a_test_row_are_in_none(args, capfd):
    data = load_and_fold(args, folds=3, group_column="author", seed=0)
    assert "folds: " in capfd.readouterr().out
    assert {part: len(rows) for part, rows in data.documents.items()} == {"oof": 58, "test": 2}
    assert {part: y.shape for part, y in data.labels.items()} == {"oof": (58, 2), "test": (2, 2)}
    assert sorted(set(data.fold_of.tolist())) == [0, 1, 2]
    authors = (np.array(data.documents["oof"]["row"][:]) - 1) // 2
    for author in np.unique(authors):
        assert len(set(data.fold_of[authors == author].tolist())) == 1
    assert len(data.fingerprints) == len(set(data.fingerprints)) == 2
    again = load_and_fold(args, folds=3, group_column="author", seed=0)
    np.testing.assert_array_equal(again.fold_of, data.fold_of)


def test_without_a_test_file_every_labelled_row_is_in_a_fold(args):
    args.test_data = None
    data = load_and_fold(args, folds=2, group_column=None, seed=0)
    assert [*data.documents] == [*data.labels] == ["oof"]
    assert len(data.fold_of) == 60
    assert len(data.fingerprints) == 1
