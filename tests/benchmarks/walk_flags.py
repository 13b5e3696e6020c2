"""Try every flag of every recipe with values that make no sense, on a tiny model.

    python -m pytest tests/benchmarks/walk_flags.py -s -k github_tagger

A run must end well or with one line and exit code 2. What else happens is printed, and counted in
the last line of each recipe. All recipes take about an hour on two cores. FLAGS=own leaves out
the flags of `transformers.TrainingArguments`.
"""

import os
import shutil

import nonsense
import pytest
from command_line import Recipe


@pytest.mark.parametrize("name", nonsense.RECIPES)
def test_every_flag(name, tiny_model, tiny_issues, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)  # a value for --cache_dir makes a folder
    flags = nonsense.base_flags(name, tiny_model, tiny_issues, tmp_path)
    recipe = Recipe(name, monkeypatch, capfd, *flags)
    if hasattr(recipe.module, "run_jobs"):  # other programs, which have their own turn
        monkeypatch.setattr(recipe.module, "run_jobs", stop)
    code, printed = nonsense.outcome(recipe)
    assert code == 0, printed

    tried = nonsense.tried_flags(recipe.module, own=True)
    if os.environ.get("FLAGS") != "own":
        tried += nonsense.tried_flags(recipe.module, own=False)
    only = os.environ.get("ONLY", "").split()
    codes, wrong = {}, []
    for flag in tried:
        if only and flag not in only:
            continue
        for value in nonsense.VALUES:
            if flag == "output_dir":
                value = tmp_path / value
            # Some recipes refuse the folder of another run.
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            code, printed = nonsense.outcome(recipe, f"--{flag}={value}")
            codes[code] = codes.get(code, 0) + 1
            lines = printed.splitlines()
            if code not in (0, 2) or len(lines) != (code != 0) or len(printed) > 1100:
                wrong.append(f"--{flag}={value}: exit code {code}: {printed[-600:]!r}")
                with capfd.disabled():
                    print(name, wrong[-1], flush=True)
    with capfd.disabled():
        print(name, "exit codes:", codes, "wrong:", len(wrong), flush=True)
    assert not wrong


def stop(*_, **__):
    raise SystemExit(0)
