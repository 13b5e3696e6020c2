import json
import math

import pytest

from shared.cli.errors import UserError
from shared.training.search import FIRST_TRIALS, Objective, Search
from shared.training.search_ranges import read_ranges, value_flags

# Stands for a recipe: best at x = 0.3; notes each of its runs.
STUB = """
import json, pathlib, signal, sys
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
x = float(flags.get("x", 0.9))
with open(flags["notes"], "a") as notes:
    notes.write(f"{folder.name} {x:.4g}\\n")
if x > float(flags.get("fails_above", 2)):
    sys.exit("error: x is too high")
score = 1 - (x - 0.3) ** 2
epochs = [{"epoch": float(n), "eval_f1": score * n / 2} for n in (1, 2)]
state = folder / "checkpoint-9" / "trainer_state.json"
state.parent.mkdir()
state.write_text(json.dumps({"log_history": epochs}))
if x > float(flags.get("waits_above", 2)):
    signal.pause()  # only a signal ends it
metrics = {"valid_f1": score, "test_f1": score - 0.1, "split": flags.get("split", "random")}
(folder / "metrics.json").write_text(json.dumps(metrics))
(folder / "model.safetensors").write_text("weights")
"""
RANGE = "x: {low: 0.0, high: 1.0}"


@pytest.fixture
def make(tmp_path):
    """Return a search of the stub; `runs()` are the runs so far."""
    script, notes = tmp_path / "stub.py", tmp_path / "notes"
    script.write_text(STUB)

    def make(n_trials, *flags, content=RANGE, folder="out", **options):
        path = tmp_path / "ranges.yaml"
        path.write_text(content)
        (tmp_path / folder).mkdir(exist_ok=True)
        return Search(
            script=str(script),
            known=frozenset({"x"}),
            flags=[f"--notes={notes}", *flags],
            ranges=read_ranges(path, {"x"}),
            objective=Objective("f1", "maximize"),
            folder=tmp_path / folder,
            n_trials=n_trials,
            seed=1,
            **{"n_parallel": 1, "stop_early": False} | options,
        )

    def runs():
        lines = notes.read_text().splitlines() if notes.exists() else []
        notes.unlink(missing_ok=True)
        return lines

    make.runs = runs
    return make


def test_the_best_trial_is_first_and_better_than_the_defaults(make, tmp_path):
    outcome = make(12).run(run_winner=True)
    scores = [row["score"] for row in outcome.trials]
    assert scores == sorted(scores, reverse=True)
    assert outcome.best["score"] > outcome.defaults["score"] == pytest.approx(1 - 0.36)
    assert outcome.best["test"] == pytest.approx(outcome.best["score"] - 0.1)
    assert abs(outcome.best["values"]["x"] - 0.3) < 0.1
    assert outcome.importances == {"x": 1.0}
    runs = make.runs()
    assert len(runs) == 14
    assert runs[0] == "defaults 0.9"
    assert runs[-1] == f"winner {outcome.best['values']['x']:.4g}"
    # The weights of the winner alone are kept.
    assert list(tmp_path.rglob("*.safetensors")) == [tmp_path / "out/winner/model.safetensors"]


def test_a_search_that_goes_on_runs_what_one_search_would_have_run(make):
    make(3).run(run_winner=False)
    assert len(make.runs()) == 4
    make(3).run(run_winner=False)
    assert make.runs() == []
    parts = make(7).run(run_winner=False)
    assert len(make.runs()) == 4
    at_once = make(7, folder="other").run(run_winner=False)
    assert [row["values"] for row in parts.trials] == [row["values"] for row in at_once.trials]


def test_a_trial_that_was_running_goes_on_first(make):
    search = make(3)
    first = search._next()  # as if the process had ended here
    outcome = make(3).run(run_winner=False)
    assert sorted(line.split()[0] for line in make.runs()) == [
        *("defaults", "trial_0", "trial_1", "trial_2")
    ]
    assert f"trial_{outcome.trials[0]['trial']}" in {first.name, "trial_1", "trial_2"}


def test_other_ranges_are_another_search(make):
    make(2).run(run_winner=False)
    make.runs()
    make(2, content="x: {low: 0.2, high: 0.4}").run(run_winner=False)
    assert len(make.runs()) == 2  # the defaults stay the same


def test_equal_values_are_not_run_twice(make, capsys):
    outcome = make(6, content='x: ["0.1", "0.2"]').run(run_winner=False)
    assert len(make.runs()) == 3
    assert len(outcome.trials) == 6
    assert {round(row["test"], 6) for row in outcome.trials} == {0.86, 0.89}
    assert "has the values of trial_" in capsys.readouterr().out


def test_trials_that_are_worse_than_the_median_are_stopped(make):
    # Without a stop, the last one would never end.
    values = iter([*(0.3 + n / 100 for n in range(FIRST_TRIALS)), 0.95])
    search = make(FIRST_TRIALS + 1, "--waits_above=0.94", stop_early=True)
    ask = search._study.ask

    def ask_for_the_next(ranges):
        search._study.enqueue_trial({"x": next(values)})
        return ask(ranges)

    search._study.ask = ask_for_the_next
    outcome = search.run(run_winner=False)
    assert [row["state"] for row in outcome.trials] == ["complete"] * FIRST_TRIALS + ["stopped"]
    assert outcome.trials[-1]["values"] == {"x": 0.95}


def test_failed_trials_are_noted_and_others_go_on(make):
    outcome = make(8, "--fails_above=0.95").run(run_winner=False)
    high = [row["values"]["x"] > 0.95 for row in outcome.trials]
    assert [row["state"] == "failed" for row in outcome.trials] == high
    with pytest.raises(UserError, match="fails without a search: x is too high"):
        make(3, "--fails_above=0.5").run(run_winner=False)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"valid_f1": 0.5, "test_f1": 0.9}, 0.5),
        ({"oof_f1": 0.6, "test_f1": 0.9}, 0.6),
        ({"test_f1": 0.7, "split": "cross_validation"}, 0.7),
        ({"test_f1": 0.9, "split": "random"}, None),
        ({"valid_f1": math.nan}, None),
        ({"valid_accuracy": 0.5}, None),
    ],
)
def test_test_rows_choose_nothing(metrics, expected):
    objective = Objective("f1", "maximize")
    if expected is not None:
        assert objective.score(metrics) == expected
        return
    with pytest.raises(UserError, match="--metric f1: the recipe gives no such score; it has"):
        objective.score(metrics)


def test_scores_so_far_are_the_best_up_to_each_epoch(tmp_path):
    log = [(0.5, 0.9), (1.0, 0.4), (2.0, 0.3), (3.0, 0.95)]
    for step, n in (("10", 2), ("9", 1), ("100", 4)):
        state = tmp_path / f"checkpoint-{step}" / "trainer_state.json"
        state.parent.mkdir()
        entries = [{"epoch": epoch, "eval_f1": value} for epoch, value in log[:n]]
        state.write_text(json.dumps({"log_history": [{"epoch": 0.1, "loss": 1.0}, *entries]}))
    assert Objective("f1", "maximize").best_so_far(tmp_path) == {1: 0.9, 2: 0.9, 3: 0.95}
    assert Objective("f1", "minimize").best_so_far(tmp_path) == {1: 0.4, 2: 0.3, 3: 0.3}
    state.write_text('{"log_his')  # it is being written
    assert Objective("f1", "maximize").best_so_far(tmp_path) == {}


def test_values_as_flags():
    assert value_flags({"a": 0.000123456, "b": 3, "c": "1 2", "d": "none", "e": ""}) == [
        *("--a=0.0001235", "--b=3", "--c", "1", "2", "--d=none"),
        "--e",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must have a line 'FLAG: range'"),
        ("- x", "must have a line 'FLAG: range'"),
        ("max_lenght: [1, 2]", "max_lenght: the recipe has no such flag; did you mean max_length?"),
        ("x: 3", "x: must be a list of values, or a mapping of low and high"),
        ("x: [3]", "x: must be a list of values, or a mapping of low and high"),
        ("x: [3, [4]]", "x: a value must be a word, or several in one string"),
        ("x: {low: 1}", "x: must have low and high, and may have step or log"),
        ("x: {low: 1, hihg: 2}", "x: must have low and high, and may have step or log"),
        ("x: {low: 2, high: 1}", "x: low must be below high, and a step above 0"),
        ("x: {low: nan, high: 1}", "x: low must be below high, and a step above 0"),
        ("x: {low: a, high: 1}", "x: low, high and step must be numbers"),
        ("x: {low: 0, high: 1, log: true}", "x: a logarithmic range needs a low above 0"),
        ("x: {low: 1, high: 2, log: maybe}", "x: log 'maybe': must be true or false"),
        ("x: {low: 1, high: 2", "not valid YAML"),
    ],
)
def test_what_is_no_range(content, message, tmp_path):
    path = tmp_path / "ranges.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_ranges(path, {"x", "max_length"})
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_whole_numbers_stay_whole(tmp_path):
    path = tmp_path / "ranges.yaml"
    path.write_text("x: {low: 1, high: 9, step: 2}\ny: {low: 1, high: 9.5}\nz: [007, no]")
    ranges = read_ranges(path, {"x", "y", "z"})
    assert (ranges["x"].low, ranges["x"].high, ranges["x"].step) == (1, 9, 2)
    assert type(ranges["x"]).__name__ == "IntDistribution"
    assert type(ranges["y"]).__name__ == "FloatDistribution"
    assert ranges["z"].choices == ("007", "no")
