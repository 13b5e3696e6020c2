"""--split_by and --split_time from the command line: figures, card, and what is refused."""

import pytest
from command_line import Recipe, read_json, read_lines, write


@pytest.fixture
def dated(tiny_issues, tmp_path):
    """The tiny issues with a time and a part; the labelled ones have different times."""
    rows = read_lines(tiny_issues)
    for number, row in enumerate(rows):
        row["when"] = 1_700_000_000 + 86_400 * ((number * 7) % len(rows))
        row["part"] = ("train", "train", "dev", "test")[number % 4]
    return write(tmp_path / "dated.jsonl", rows)


@pytest.fixture
def recipe(monkeypatch, capfd, dated, tmp_path):
    def recipe(name):
        flags = ("--data", dated, "--cache_dir", tmp_path / "cache")
        return Recipe(name, monkeypatch, capfd, *flags, "--output_dir", tmp_path / "out")

    return recipe


def test_the_newest_rows_are_tested(recipe, dated, tmp_path):
    printed = recipe("naive_bayes")("--split_time", "when")
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert (metrics["split"], metrics["split_column"]) == ("time", "when")
    assert metrics["split_train_to"] < metrics["split_valid_from"] <= metrics["split_valid_to"]
    assert metrics["split_valid_to"] < metrics["split_test_from"]
    times = [row["when"] for row in read_lines(dated)]
    tested = {line["row"] for line in read_lines(tmp_path / "out" / "test_predictions.jsonl")}
    labelled = [n for n, row in enumerate(read_lines(dated), 1) if row["labels"]]
    oldest_tested = min(times[number - 1] for number in tested)
    assert tested == {n for n in labelled if times[n - 1] >= oldest_tested}
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    line = next(line for line in printed.splitlines() if line.startswith("split by time (when): "))
    assert line in card
    assert "training texts are the oldest, test texts the newest" in card


def test_parts_from_the_command_line(recipe, dated, tmp_path):
    assert "split by column (part): " in recipe("naive_bayes")("--split_by", "part", "--terms", 0)
    parts = {row["part"] for row in read_lines(dated)}
    assert parts == {"train", "dev", "test"}
    rows = read_lines(dated)
    tested = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    assert {rows[line["row"] - 1]["part"] for line in tested} == {"test"}
    assert read_json(tmp_path / "out" / "metrics.json")["split"] == "column"


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        (
            "naive_bayes",
            ["--split_time", "when", "--folds", 3],
            "folds are drawn at random",
        ),
        ("naive_bayes", ["--split_by", "when"], "holds '1700000000', "),
        ("naive_bayes", ["--split_by", "part", "--test_size", 0.1], "the test rows are those of"),
        (
            "naive_bayes",
            ["--split_by", "part", "--valid_size", 0.1],
            "the validation rows are",
        ),
        ("domain_adaptation", ["--split_time", "when"], "divides unlabelled texts at"),
        ("explore", ["--split_time", "when"], "this recipe cannot divide rows by a column; --help"),
        ("document_classification", ["--test_size", 0.5], "only with --split_time; else all rows"),
    ],
)
def test_what_does_not_fit_is_one_line(recipe, name, flags, expected):
    assert expected in recipe(name).mistake(*flags)
