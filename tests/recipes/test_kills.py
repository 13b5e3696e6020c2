"""Runs that are killed at a file operation; kill_everywhere.py in benchmarks tries them all."""

import sys

import pytest
from forks import run_script
from kills import differences


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
def test_killed_runs_end_as_one_that_nobody_killed():
    script, recipes = "tests/benchmarks/kill_everywhere.py", ("github_tagger", "tag")
    result = run_script(script, *recipes, "--first", 40, "--every", 110, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [*recipes]
    assert all(": 0 of " in line for line in lines)


def test_all_differences_but_times_are_told(tmp_path):
    def write(folder, f1, seconds, extra):
        folder.mkdir()
        (folder / "metrics.json").write_text(f'{{"f1": {f1}, "train_runtime": {seconds}}}')
        (folder / "weights").write_bytes(bytes([extra]))
        (folder / f".left.{extra}.tmp").write_text("")
        return folder

    expected = write(tmp_path / "expected", 0.5, 1, 1)
    assert differences(expected, write(tmp_path / "same", 0.5, 2, 1)) == []
    assert differences(expected, write(tmp_path / "other", 0.6, 1, 2)) == [
        *(".left.1.tmp is missing", ".left.2.tmp is left over"),
        *("metrics.json differs in f1", "weights differs"),
    ]
