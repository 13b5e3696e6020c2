"""Folds: groups stay whole, and what is finished is known again."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.arguments import command_flags
from shared.data import load_data
from shared.data_arguments import DataArguments
from shared.errors import UserError
from shared.folds import assign_folds, describe_folds, join_groups, kept_folds, read_column

groupings = st.integers(1, 30).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 8), min_size=n, max_size=n), min_size=1, max_size=3)
)


@settings(deadline=None)  # the first call imports scipy
@given(groupings)
def test_joined_groups_are_the_rows_that_can_be_reached(given_groups):
    n = len(given_groups[0])
    together = np.eye(n, dtype=bool)
    for grouping in map(np.array, given_groups):
        together |= grouping[:, None] == grouping
    for _ in range(n):
        together = (together.astype(int) @ together) > 0
    joined = join_groups(*map(np.array, given_groups))
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


def test_labels_are_spread():
    y = np.repeat(np.eye(3, dtype=int), [30, 15, 6], axis=0)
    fold_of = assign_folds(y, 3, groups=np.arange(len(y)), seed=0)
    for number in range(3):
        assert y[fold_of == number].sum(axis=0).tolist() == [10, 5, 2]


def test_too_few_groups_are_refused():
    y = np.eye(4, dtype=int)
    with pytest.raises(UserError, match="4 texts are in 2 groups only"):
        assign_folds(y, 3, groups=np.array([0, 0, 0, 1]), seed=0)
    with pytest.raises(UserError, match="--folds 1: must be 2 or more"):
        assign_folds(y, 1, groups=np.arange(4), seed=0)


def test_labels_with_fewer_texts_than_folds_are_named():
    y = np.array([[1, 1], [1, 0], [1, 0]])
    said = describe_folds(np.arange(3), y, ["often", "once"])
    assert "folds: 1, 1, 1 texts" in said
    assert "note: no text of fold 1 has the label once" in said
    assert "note: the label once is on 1 texts, fewer than the 3 folds" in said
    assert "often" not in said


def corpus_of(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = DataArguments(data=str(path), cache_dir=str(tmp_path))
    return args, load_data(args)


def test_a_further_column_is_read_for_the_rows_that_are_kept(tmp_path):
    users = [{"login": "a", "id": 1}, {"id": 2, "login": "b"}, None, {"id": 1, "login": "a"}]
    texts = ["one text", "another", " ", "a third"]
    rows = [{"text": t, "label": "x", "user": u} for t, u in zip(texts, users, strict=True)]
    args, corpus = corpus_of(tmp_path, rows)
    groups = read_column(args, corpus, "user")  # the blank row needs none
    assert groups[0] == groups[2] != groups[1]
    with pytest.raises(UserError, match=r"no column 'usr' \(found: text, label, user\)"):
        read_column(args, corpus, "usr")
    rows.append({"text": "no label yet", "label": None, "user": None})
    args, corpus = corpus_of(tmp_path, rows)
    assert len(read_column(args, corpus, "user")) == 4  # what is not folded needs no group
    rows[1]["user"] = None
    args, corpus = corpus_of(tmp_path, rows)
    with pytest.raises(UserError, match="row 2: no value in column 'user'"):
        read_column(args, corpus, "user")


def test_a_finished_fold_is_known_again_and_another_one_refused(tmp_path):
    fold_of = np.array([0, 1, 0])
    flags = command_flags(DataArguments(data="a.jsonl"), DataArguments)
    fold = kept_folds(tmp_path, fold_of, flags, ["rows"])[0]
    assert not fold.finished
    fold.folder.mkdir()
    scores = np.array([[0.1, 0.9], [0.3, 0.7]])
    fold.save(oof=scores)
    np.testing.assert_array_equal(fold.scores()["oof"], scores)
    assert kept_folds(tmp_path, fold_of, flags, ["rows"])[0].finished
    for others, what in (
        ((fold_of, ["--data=b.jsonl"], ["rows"]), "flags"),
        ((fold_of, flags, ["other"]), "data"),
        ((1 - fold_of, flags, ["rows"]), "rows"),
    ):
        with pytest.raises(UserError, match=f"was trained with other {what}; choose another"):
            _ = kept_folds(tmp_path, *others)[0].finished


def test_rows_from_which_nothing_can_be_learned_are_refused():
    groups = np.arange(6)
    with pytest.raises(UserError, match="every labelled text has every label"):
        assign_folds(np.ones((6, 2), np.uint8), 2, groups=groups, seed=0)
    with pytest.raises(UserError, match="no labelled text is left to fold: --test_data repeats"):
        assign_folds(np.zeros((0, 2), np.uint8), 2, groups=groups[:0], seed=0)
