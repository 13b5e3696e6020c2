"""Which rows are tested and which teach: one split, folds, and all rows."""

from dataclasses import dataclass

import numpy as np
import pytest
from command_line import read_lines, write

from shared.cli.arguments import parse_arguments
from shared.cli.errors import UserError
from shared.data import EvaluationArguments, SplitArguments, load_resampling


@dataclass
class Arguments(EvaluationArguments, SplitArguments):
    """The flags of a recipe."""


@pytest.fixture
def resample(tiny_issues, tmp_path):
    def call(data=tiny_issues, seed=1, **flags):
        arguments = Arguments(data=str(data), cache_dir=str(tmp_path / "cache"), **flags)
        return load_resampling(arguments, seed=seed)

    return call


def test_every_row_is_in_one_fold_and_its_repeats_with_it(resample, tiny_issues, tmp_path):
    rows = read_lines(tiny_issues)
    rows += [{**row, "body": row["body"] + " indeed"} for row in rows[:30]]  # near duplicates
    rows[-1]["labels"] = []  # an unlabelled one
    resampling = resample(write(tmp_path / "repeated.jsonl", rows), folds=4)
    corpus, groups = resampling.corpus, resampling.corpus.groups
    tested = [split.sources["test"][1] for split in resampling.splits]
    assert sorted(np.concatenate(tested).tolist()) == corpus.labelled.tolist()
    for split, test in zip(resampling.splits, tested, strict=True):
        train = split.sources["train"][1]
        assert len(train) + len(test) == len(corpus.labelled)
        assert not np.isin(groups[train], groups[test]).any()
        assert not np.isin(groups[split.unlabelled], groups[test]).any()
        assert len(split.labels["valid"]) == 0
    assert resampling.all_rows.sources["train"][1].tolist() == corpus.labelled.tolist()


def test_values_of_the_folds_are_joined_in_the_order_of_the_tested_rows(resample):
    resampling = resample(folds=3)
    values = [split.sources["test"][1] * 10 for split in resampling.splits]
    tested = resampling.tested
    assert resampling.join(values).tolist() == (tested.sources["test"][1] * 10).tolist()
    y = resampling.join([split.labels["test"] for split in resampling.splits])
    np.testing.assert_array_equal(y, tested.labels["test"])
    assert resampling.title() == "Out of fold (120 texts, 3 folds)"


def test_a_repeat_has_the_folds_of_another_seed(resample):
    resampling = resample(folds=3, repeats=2)
    values = [split.sources["test"][1] * 10 for split in resampling.splits]
    expected = (resampling.tested.sources["test"][1] * 10).tolist()
    assert [part.tolist() for part in resampling.join_repeats(values)] == [expected] * 2
    assert resampling.join(values).tolist() == expected
    other = resample(folds=3, repeats=1, seed=2)
    for split, again in zip(other.splits, resampling.splits[3:], strict=True):
        assert split.sources["test"][1].tolist() == again.sources["test"][1].tolist()
    assert resampling.title() == "Out of fold (120 texts, 3 folds, first of 2 repeats)"


@pytest.mark.parametrize("name", ["repeats", "folds"])
def test_a_single_split_has_no_folds(resample, name):
    with pytest.raises(UserError, match=f"--{name}: only for a cross-validation; add --ev"):
        resample(**{name: 2}, test_size=0.4)


def test_a_flag_decides_also_with_its_default_or_with_many_rows(tiny_issues, tmp_path, monkeypatch):
    def load(*flags):
        words = [f"--data={tiny_issues}", f"--cache_dir={tmp_path / 'cache'}", *flags]
        return load_resampling(parse_arguments(Arguments, words), seed=1)

    assert load().cross_validated
    assert not load("--test_size=0.25").cross_validated
    monkeypatch.setattr("shared.data.resampling.FEW_ROWS", 100)
    assert not load().cross_validated
    assert load("--folds=5").folds == 5
    with pytest.raises(UserError, match="--folds: only for a cross-validation"):
        load("--folds=5", "--test_size=0.25")


@pytest.mark.parametrize(
    "flags",
    [{"train_size": 9}, {"valid_size": 0.0}, {"test_size": 0.4}, {"refit": False}],
)
def test_flags_of_a_split_mean_a_split(resample, flags):
    resampling = resample(**flags)
    assert not resampling.cross_validated
    refitted = not ("train_size" in flags or "refit" in flags)
    assert (resampling.all_rows is not None) == refitted


def test_rows_that_repeat_a_test_file_never_teach(resample, tiny_issues, tmp_path):
    test = write(tmp_path / "test.jsonl", read_lines(tiny_issues)[:40])
    resampling = resample(test_data=str(test))
    assert len(resampling.all_rows.labels["train"]) == 80
    assert len(resampling.tested.labels["test"]) == 40


@pytest.mark.parametrize("flags", [{"train_size": 9}, {"refit": False}])
def test_cross_validation_uses_all_rows(resample, flags):
    with pytest.raises(UserError, match="--evaluate cross_validation: uses all labelled rows"):
        resample(evaluate="cross_validation", **flags)
