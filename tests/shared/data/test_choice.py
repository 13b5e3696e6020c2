"""The rows that a choice between recipes is made on, as a file without the test rows."""

from dataclasses import dataclass

import numpy as np
import pytest
from command_line import read_lines, write

from shared.cli.errors import UserError
from shared.data import ChoiceSplitArguments, DataArguments, SplitArguments
from shared.data.choice import choose_by_column, split_for_choice, widen
from shared.data.corpus import load_corpus
from shared.data.splits import split_corpus


@dataclass
class Arguments(ChoiceSplitArguments, DataArguments):
    """The flags of a recipe that chooses."""


@pytest.fixture
def rows(tiny_issues):
    """The tiny issues, each a day later than the one before, with parts; 12 have no labels."""
    parts = ("train", "train", "dev", "test")
    return [
        row | {"when": 1_700_000_000 + 86_400 * i, "part": parts[i % 4]}
        for i, row in enumerate(read_lines(tiny_issues))
    ]


@pytest.fixture
def choose(tmp_path):
    def choose(rows, **flags):
        """Return the split, the rows to choose on, and their file."""
        path = write(tmp_path / "rows.jsonl", rows)
        args = Arguments(data=str(path), cache_dir=str(tmp_path / "cache"), **flags)
        split = split_for_choice(args, load_corpus(args)[0], seed=3)
        choice = choose_by_column(args, split, tmp_path)
        return split, choice, read_lines(tmp_path / "choice.jsonl")

    return choose


@pytest.mark.parametrize("column", ["part", "when"])
def test_a_recipe_finds_the_training_and_the_validation_rows_and_no_test_row(rows, choose, column):
    flags = {"split_by": column} if column == "part" else {"split_time": column}
    split, choice, content = choose(rows, **flags)
    texts = {part: {*split.rows[part]["text"]} for part in split.rows}
    assert len(texts["train"]) == 60
    assert len(texts["valid"]) == len(texts["test"]) == 30
    by_part = {part: [row for row in content if row["part"] == part] for part in ("train", "test")}
    assert {row["text"] for row in by_part["train"]} == texts["train"]
    assert {row["text"] for row in by_part["test"]} == texts["valid"]
    assert not {row["text"] for row in content} & texts["test"]
    assert choice.n_rows == 90
    # The flags make a recipe see them so, under the numbers and the labels that the choice has.
    options = dict(flag.removeprefix("--").split("=") for flag in choice.flags)
    assert choice.evaluate == ["--evaluate=held_out", "--valid_size=0"]
    seen = SplitArguments(valid_size=0, **options)
    inner = split_corpus(load_corpus(seen)[0], {}, seen, seed=9)
    assert {*inner.rows["train"]["text"]} == texts["train"]
    assert inner.rows["test"]["row"][:] == choice.rows.tolist()
    assert inner.corpus.label_names == choice.label_names
    np.testing.assert_array_equal(inner.labels["test"], choice.labels)
    # Unlabelled texts may be used, unless they are newer than what they would help to predict.
    unlabelled = [row for row in content if row["labels"] is None]
    assert len(unlabelled) == len(inner.unlabelled) == (12 if column == "part" else 0)
    assert choice.fingerprint != choose(rows, **flags, **{"drop_labels": ["bug"]})[1].fingerprint


def test_what_repeats_a_later_row_is_left_out(rows, choose):
    rows[2]["part"], rows[3]["part"] = "dev", "test"
    changed = rows[3] | {"body": rows[3]["body"] + " indeed"}
    split, _, content = choose([*rows, changed | {"part": "train"}], split_by="part")
    assert split.repeated == 1
    assert not [row for row in content if row["text"].endswith(" indeed")]


def test_a_label_that_only_test_rows_have_is_not_known(rows, choose):
    for row in rows[110:120]:
        row["labels"] = ["new"]
    split, choice, _ = choose(rows, split_time="when")
    assert "new" in split.corpus.label_names
    assert choice.label_names == [name for name in split.corpus.label_names if name != "new"]
    assert choice.labels.shape == (30, 4)
    wide = widen(choice.labels, choice.label_names, split.corpus.label_names)
    np.testing.assert_array_equal(wide, split.labels["valid"])


def test_rows_to_which_no_label_applies_stay_so(rows, choose):
    for row in rows[:9]:
        row["labels"] = []
    for row in rows[120:]:
        row["labels"] = None
    _, choice, content = choose(rows, split_by="part", empty_labels="negative")
    assert "--empty_labels=negative" in choice.flags
    assert sum(row["labels"] == [] for row in content) == sum(r["part"] != "test" for r in rows[:9])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"valid_size": 0.1}, "--valid_size: only with --split_by, --split_time"),
        ({"test_size": 0.1}, "--test_size: only with --split_time"),
        ({"split_by": "part", "split_time": "when"}, "give one of them"),
        ({"split_by": "part", "valid_size": 0.1}, "the validation rows are those of --split_by"),
        ({"split_by": "when"}, "is not one of train, valid"),
    ],
)
def test_flags_that_do_not_fit(rows, choose, flags, expected):
    with pytest.raises(UserError, match=expected):
        choose(rows, **flags)
