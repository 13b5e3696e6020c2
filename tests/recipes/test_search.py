import os
from pathlib import Path

import pytest
from command_line import ROOT, Recipe, read_json, read_lines, write
from forks import run_script

# Stands for a recipe: its score is the share of its rows that have the label "a".
STUB = """
import json, pathlib, sys
if "--help_all" in sys.argv:
    print("  --x X   A number.\\n  --valid_size SIZE   A share.\\n  --refit   Once more.")
    sys.exit()
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
x = float(flags.get("x", 0.9))
n = len(open(flags["test_data"]).readlines()) if "test_data" in flags else 0
metrics = {"valid_f1": 1 - (x - 0.3) ** 2, "test_f1": 0.5 - (x - 0.3) ** 2 + n / 1000}
(folder / "metrics.json").write_text(json.dumps(metrics))
(folder / "flags.json").write_text(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def recipe(tiny_issues, monkeypatch, capfd, tmp_path):
    """The search over a stub that lies elsewhere."""
    stub = write(tmp_path / "stub.py", STUB)
    ranges = write(tmp_path / "ranges.yaml", "x: {low: 0.0, high: 1.0}")
    name = os.path.relpath(stub.with_suffix(""), ROOT / "recipes")
    recipe = Recipe(
        *("search", monkeypatch, capfd),
        *("--data", tiny_issues, "--cache_dir", tmp_path / "cache", "--ranges", ranges),
        *("--recipe", name),
        *("--metric", "f1", "--trials", 4, "--jobs", 1, "--output_dir", tmp_path / "out"),
    )
    recipe.stub = name
    return recipe


def test_a_search_reports_the_flags_that_won(recipe, tmp_path):
    printed = recipe("--recipe", f"{recipe.stub} --more=1")
    report = (tmp_path / "out" / "README.md").read_text()
    assert "| trial | f1 | test | x |" in report
    assert "| defaults | 0.6400 | 0.1400 |  |" in report
    # Only one test score of a trial is shown.
    assert sum(bool(line.split("|")[3].strip()) for line in table(report) if "defaults" not in line)
    best = table(report)[0].split("|")[4].strip()
    assert f"The best flags: --x={best}" in printed
    winner = read_json(tmp_path / "out" / "winner" / "flags.json")
    assert "--refit=true" in winner
    assert "--more=1" in winner
    assert f"--x={best}" in winner
    assert "on the test rows the difference is +0." in report
    header, *rows = (tmp_path / "out" / "trials.csv").read_text().splitlines()
    assert header == "trial,state,score,test,seconds,x"
    assert len(rows) == 4
    assert (tmp_path / "out" / "search.png").stat().st_size > 5000


def table(report):
    lines = [line for line in report.splitlines() if line.startswith("| ")]
    return lines[1:]


def test_outer_folds_test_the_search_on_rows_that_it_has_not_seen(recipe, tiny_issues, tmp_path):
    printed = recipe("--outer_folds", 2)
    parts = [
        [read_lines(tmp_path / "out" / f"fold_{n}" / f"{name}.jsonl") for name in ("train", "test")]
        for n in (1, 2)
    ]
    for train, test in parts:
        assert {row["text"] for row in train} & {row["text"] for row in test} == set()
    assert parts[0][0] == parts[1][1]
    assert len(parts[0][0]) + len(parts[0][1]) == len(parts[1][0]) + len(parts[1][1])
    assert all(isinstance(row["labels"], list) for row in parts[0][0])
    flags = read_json(tmp_path / "out" / "fold_2" / "trial_0" / "flags.json")
    assert f"--test_data={tmp_path / 'out' / 'fold_2' / 'test.jsonl'}" in flags
    assert not (tmp_path / "out" / "fold_1" / "winner").exists()
    report = (tmp_path / "out" / "README.md").read_text()
    assert "| outer fold | f1 of the winner | of the defaults | the flags |" in report
    assert report.strip().splitlines()[-1] in printed
    assert "it is better in 2 of 2 folds" in printed
    # The same command again runs nothing.
    marker = Path(tmp_path / "out" / "fold_1" / "trial_0" / "marker")
    marker.touch()
    assert recipe("--outer_folds", 2).splitlines()[-3:] == printed.splitlines()[-3:]
    assert marker.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--recipe", "naive_byes"], "no recipes/naive_byes.py; there are "),
        (["--ranges", "none.yaml"], "none.yaml: No such file or directory"),
        (["--outer_folds", 1], "--outer_folds 1: must be 2 or more, or 0 for none"),
        (["--outer_folds", 2, "--test_data", "x"], "--outer_folds: take rows of --data"),
        (["--recipe", "naive_bayes '"], "must be 'NAME' or 'NAME flags'"),
        (["--recipe", ""], "--recipe '': must be 'NAME' or 'NAME flags'"),
        (["--metric", "recall"], "--metric recall: the recipe gives no such score; it has f1"),
    ],
)
def test_mistakes(flags, message, recipe):
    assert message in recipe.mistake(*flags)


def test_naive_bayes_is_searched_out_of_fold(tiny_issues, tmp_path):
    ranges = write(tmp_path / "ranges.yaml", 'min_df: ["1", "3"]')
    process = run_script(
        *("recipes/search.py", "--data", tiny_issues, "--ranges", ranges),
        *("--trials", 1, "--jobs", 2, "--recipe", "naive_bayes --folds 2"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    )
    assert "| trial | micro_f1 | min_df |" in process.stdout
    assert (tmp_path / "out" / "winner" / "tagger.json").exists()
