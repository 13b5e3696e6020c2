"""Loading for a cross-validation: parts, labels and folds belong together."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from shared.data.arguments import DataArguments
from shared.evaluation.folded_data import load_and_fold


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
