import csv
import shlex

import pytest
from command_line import Recipe, read_json, read_lines, write
from conftest import TINY_PROMPTS
from forks import run_script

from shared.cli.errors import UserError

# Stands for a recipe: right for a given share of twelve test rows; notes each of its runs.
STUB = """
import json, pathlib, sys
flags = dict(word.lstrip("-").split("=") for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
with open(flags["notes"], "a") as notes:
    notes.write(json.dumps(sys.argv[1:]) + "\\n")
size, seed = flags.get("train_size", "all"), int(flags["seed"])
if flags.get("fail") == f"{size}/{seed}":
    sys.exit("error: rows.jsonl, row 3: no text")
right = float(flags["right"])
lines = []
for row in range(12):
    true = ["a"] if row % 2 else ["b"]
    labels = true if row < 12 * right else ["c"]
    scores = dict.fromkeys("abc", 0.5)
    lines.append({"row": row, "true_labels": true, "labels": labels, "scores": scores})
(folder / "test_predictions.jsonl").write_text("".join(json.dumps(x) + "\\n" for x in lines))
(folder / "model.safetensors").write_text("weights")
f1 = {f"{part}_{name}_f1": right for part in ("valid", "test") for name in ("micro", "macro")}
times = {"train_runtime": 2.0, "test_runtime": 0.5, "test_samples": 12}
(folder / "metrics.json").write_text(json.dumps(f1 | times))
"""


@pytest.fixture
def flags(tiny_issues, tmp_path):
    return [
        *("--data", tiny_issues, "--cache_dir", tmp_path / "cache"),
        *("--sizes", "all", 8, "--seeds", 1, 2, "--jobs", 2, "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags, tmp_path):
    """The benchmark of two stubs, "good" and "bad"; `runs()` are their command lines so far."""
    recipe = Recipe("few_label_benchmark", monkeypatch, capfd, *flags, "--methods", "bad", "good")
    script, notes = write(tmp_path / "stub.py", STUB), tmp_path / "notes"

    def method(name, right, **options):
        words = f"--right={right} --notes={shlex.quote(str(notes))} {options.pop('flags', '')}"
        made = recipe.module.Method(str(script), words, **{"encoder": False} | options)
        monkeypatch.setitem(recipe.module.METHODS, name, made)

    def runs():
        actual = read_lines(notes) if notes.exists() else []
        notes.unlink(missing_ok=True)
        return actual

    recipe.method, recipe.runs = method, runs
    method("good", 0.75)
    method("bad", 0.25)
    return recipe


def results(tmp_path):
    with open(tmp_path / "out" / "results.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_method_at_every_size_with_every_seed(recipe, tmp_path):
    printed = recipe()
    runs = recipe.runs()
    assert len(runs) == 8
    rows = results(tmp_path)
    assert list(rows[0]) == [
        *("method", "size", "seed", "micro_f1", "macro_f1", "train_seconds", "predict_seconds")
    ]
    cells = {(row["method"], row["size"], row["seed"]) for row in rows}
    assert cells == {
        (m, size, seed) for m in ("good", "bad") for size in ("8", "all") for seed in "12"
    }
    assert {row["micro_f1"] for row in rows if row["method"] == "good"} == {"0.75"}

    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| 8 | **good** (0.750) | bad (0.250) | +" in page
    assert "| good | **0.750** ± 0.000 | **0.750** ± 0.000 |" in page
    assert "| good | 2 | 2 | 42 |" in page
    assert "few_label_benchmark.py --data" in page
    assert "| 8 | **good**" in printed
    assert printed.count("micro F1 0.") == 8
    assert (tmp_path / "out" / "learning_curves.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(tmp_path.glob("out/cells/*/*/*/*.safetensors"))


def test_flags_of_data_go_to_every_method_and_own_flags_to_one(recipe, tiny_issues, tmp_path):
    recipe.method("good", 0.75, encoder=True)
    recipe(
        *("--drop_labels", "speed", "no such", "--test_size", 0.2, "--model", "some/encoder"),
        *("--method_flags", "bad: --twice --right=0.5", "--sizes", 8, "--seeds", 3),
        *("--keep_models", "true"),
    )
    data = [f"--data={tiny_issues}", "--drop_labels", "speed", "no such"]
    data += [f"--cache_dir={tmp_path / 'cache'}", "--test_size=0.2"]
    good, bad = sorted(recipe.runs(), key=lambda words: "--twice" in words)
    for words in (good, bad):
        assert set(data) < set(words)
        assert words[-4:-2] == ["--seed=3", "--train_size=8"]
    assert "--model=some/encoder" in good
    assert "--model=some/encoder" not in bad
    assert [row["micro_f1"] for row in results(tmp_path)] == ["0.5", "0.75"]
    assert len(list(tmp_path.glob("out/cells/*/*/*/*.safetensors"))) == 2


def test_a_finished_cell_is_never_computed_again(recipe, tmp_path, tiny_issues):
    recipe("--sizes", 8)
    assert len(recipe.runs()) == 4
    printed = recipe()
    assert len(recipe.runs()) == 4
    assert "8 cells, 4 of them finished before" in printed
    recipe("--jobs", 1)
    assert recipe.runs() == []
    tiny_issues.touch()  # a newer file, with the same rows
    recipe("--jobs", 1)
    assert recipe.runs() == []
    # Other flags, or other data, are other cells.
    recipe("--method_flags", "bad: --right=0.5")
    assert len(recipe.runs()) == 4
    data = write(tmp_path / "other.jsonl", read_lines(tiny_issues)[1:])
    recipe("--data", data)
    assert len(recipe.runs()) == 8


def test_without_jobs_it_reports_on_what_is_finished(recipe, tmp_path):
    recipe("--methods", "good", "--sizes", 8)
    recipe.runs()
    assert "no cell is finished; nothing to report" in recipe("--methods", "bad", "--jobs", 0)
    printed = recipe("--jobs", 0)
    assert recipe.runs() == []
    assert len(results(tmp_path)) == 2
    assert "| good | **0.750** ± 0.000 | - |" in printed


def test_a_failing_cell_does_not_stop_the_others(recipe, tmp_path, capfd):
    recipe.method("bad", 0.25, flags="--fail=8/2")
    with pytest.raises(UserError, match="1 of 8 cells failed, named above; see their log"):
        recipe()
    printed = capfd.readouterr().out.splitlines()
    log = tmp_path / "out" / "cells" / "bad" / "8" / "2" / "log.txt"
    assert f"  bad, 8, seed 2: FAILED: rows.jsonl, row 3: no text ({log})" in printed
    assert "row 3" in log.read_text()
    assert len(results(tmp_path)) == 7
    assert len(recipe.runs()) == 8
    assert recipe.mistake().startswith("1 of 8 cells failed")  # exit code 2
    assert len(recipe.runs()) == 1
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "(1 of 2 seeds)" in page


def test_a_method_without_labels_runs_once_per_seed_for_every_size(recipe, tmp_path):
    recipe.method("bad", 0.25, uses_labels=False)
    recipe("--methods", "bad")
    runs = recipe.runs()
    assert len(runs) == 2
    assert not any("train_size" in word for words in runs for word in words)
    assert len(results(tmp_path)) == 4


def test_a_preparation_runs_once_before_its_cells(recipe, tmp_path):
    script, notes = tmp_path / "stub.py", tmp_path / "notes"
    prepare = f"{shlex.quote(str(script))} --prepares=1 --right=0 --seed=0"
    prepare += f" --notes={shlex.quote(str(notes))}"
    recipe.method("good", 0.75, prepare=prepare)
    recipe("--methods", "good")
    first, *others = recipe.runs()
    assert "--prepares=1" in first
    assert len(others) == 4
    folder = tmp_path / "out" / "cells" / "good" / "prepared"
    assert all(words[words.index("--model") + 1] == str(folder) for words in others)
    assert len(results(tmp_path)) == 4
    recipe.method("good", 0.75, prepare=f"{prepare} --fail=all/0")
    assert recipe.mistake("--methods", "good").startswith("5 of 5 cells failed")
    assert len(recipe.runs()) == 1


def test_without_unlabelled_texts_nothing_adapts_to_them(recipe, tmp_path, tiny_issues):
    recipe.method("good", 0.75, prepare="no_such_script.py")
    data = write(tmp_path / "labelled.jsonl", read_lines(tiny_issues)[:120])
    printed = recipe("--data", data)
    assert f"note: good is left out: {data} has no unlabelled texts to adapt a model to" in printed
    assert {row["method"] for row in results(tmp_path)} == {"bad"}
    assert "no cell is finished" in recipe("--data", data, "--methods", "good")


def test_flags_that_name_a_model_take_the_place_of_the_preparation(recipe, tmp_path, tiny_issues):
    options = {"prepare": "no_such_script.py", "prepared": "--masked_model"}
    recipe.method("good", 0.75, unlabelled=True, **options)
    data = write(tmp_path / "labelled.jsonl", read_lines(tiny_issues)[:120])
    words = ("--data", data, "--methods", "good", "--sizes", 8)
    printed = recipe(*words)
    assert f"note: good is left out: {data} has no unlabelled texts to adapt a model to" in printed
    assert "name one: --method_flags 'good: --masked_model MODEL'" in printed
    for flag in ("--masked_model mine", "--masked_model=mine"):
        recipe(*words, "--method_flags", f"good: {flag}")
        runs = recipe.runs()
        assert len(runs) == 2
        assert all("/prepared" not in " ".join(run[:-1]) for run in runs)
        assert len(results(tmp_path)) == 2


def test_words_that_do_not_fit_are_refused_before_a_model_is_adapted(
    recipe, tiny_model, tmp_path, monkeypatch
):
    pet = recipe.module.METHODS["pet"]._replace(script=str(tmp_path / "stub.py"), prepare="none.py")
    monkeypatch.setitem(recipe.module.METHODS, "pet", pet)
    flags = ("--methods", "pet", "--model", tiny_model)
    line = recipe.mistake(*flags)
    assert line.startswith("--method_flags 'pet: --prompts FILE': label 'bug': 'bug' has 3 tokens ")
    prompts = write(tmp_path / "prompts.yaml", TINY_PROMPTS)
    line = recipe.mistake(*flags, "--method_flags", f"pet: --prompts {prompts}")
    assert line.startswith("5 of 5 cells failed")  # the preparation was tried


def test_a_method_that_trains_on_unlabelled_texts_needs_some(recipe, tmp_path, tiny_issues):
    recipe.method("good", 0.75, unlabelled=True)
    data = write(tmp_path / "labelled.jsonl", read_lines(tiny_issues)[:120])
    printed = recipe("--data", data)
    assert f"note: good is left out: {data} has no unlabelled texts to train on" in printed
    assert {row["method"] for row in results(tmp_path)} == {"bad"}
    # A smaller training set leaves rows out, which count as unlabelled.
    recipe("--data", data, "--sizes", 8)
    assert {row["method"] for row in results(tmp_path)} == {"good", "bad"}
    # Its validation rows, and so its test rows, are those of the others.
    recipe.runs()
    recipe("--data", data, "--sizes", 8, "--protocol", "chapter", "--methods", "good")
    assert all("--valid_size=0.25" in words for words in recipe.runs())
    # It takes long, so it must be named.
    arguments = recipe.module.BenchmarkArguments()
    assert "naive_bayes" in arguments.methods
    assert "uda" not in arguments.methods
    assert not {"zero_shot_prompts", "few_shot_prompts"} & {*arguments.methods}


def test_the_first_cell_of_a_method_that_embeds_goes_ahead_of_its_others(recipe):
    recipe.method("bad", 0.25, embeds=True)
    recipe.method("good", 0.75, embeds=True)
    module = recipe.module
    args = module.parse_arguments(
        module.BenchmarkArguments, [str(word) for word in recipe.flags if word != "good"]
    )
    args.methods = ["good", "bad"]
    cells = module.grid(args, module.Path("cells"), ())
    first, *others = (cell for (name, *_), cell in cells.items() if name == "good")
    assert first.after is None
    assert {cell.after for cell in others} == {first}
    # A method may embed more than the one before it, and finds what that has embedded.
    second, *others = (cell for (name, *_), cell in cells.items() if name == "bad")
    assert second.after is first
    assert {cell.after for cell in others} == {second}
    assert not any(cell.needs_it for cell in cells.values())


def test_a_package_that_is_not_installed(recipe):
    recipe.method("good", 0.75, package="no_such_package")
    assert recipe.mistake() == (
        "--methods good: first pip install -c constraints.txt '.[no_such_package]'"
    )


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--methods", "naive"], "--methods naive: there are label_names, zero_shot_nli, "),
        (["--sizes", 91], "--sizes 91: the pool has 90 training rows"),
        (["--sizes", 0], "--sizes 0: the pool has 90 training rows"),
        (["--protocol", "chapter", "--sizes", 61], "the pool has 60 training rows"),
        (["--valid_data", "x.jsonl"], "--valid_data: no validation rows with --protocol few"),
        (["--train_size", 8], "--train_size: give the numbers of training rows with --sizes"),
        (["--sizes", "some"], "--sizes some: must be a number of rows, or all"),
        (["--jobs", -1], "--jobs -1: must be 0 or more"),
        (["--method_flags", "bad --x"], "--method_flags 'bad --x': must be 'METHOD: flags'"),
        (["--seeds", -1], "--seeds -1: must be 0 or more"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)
    assert recipe.runs() == []


def test_the_recipes_themselves(flags, tiny_model, tmp_path):
    methods = ["augmented_naive_bayes", "embedding_probe"]
    process = run_script(
        *("recipes/few_label_benchmark.py", *flags, "--methods", *methods),
        *("--sizes", 8, "--seeds", 1, "--model", tiny_model, "--max_length", 48),
    )
    assert "Everything is in" in process.stdout
    assert [row["method"] for row in results(tmp_path)] == methods
    for row in results(tmp_path):
        folder = tmp_path / "out" / "cells" / row["method"] / "8" / "1"
        metrics = read_json(folder / "metrics.json")
        assert float(row["micro_f1"]) == round(metrics["test_micro_f1"], 4)
        assert metrics["train_samples"] == 8
        assert min(float(row["train_seconds"]), float(row["predict_seconds"])) > 0


def test_setfit_as_the_peer(recipe, tiny_model, tmp_path):
    pytest.importorskip("setfit")
    recipe(
        *("--methods", "setfit", "--sizes", 8, "--seeds", 1, "--model", tiny_model),
        *("--max_length", 48, "--method_flags", "setfit: --max_steps 2"),
    )
    (row,) = results(tmp_path)
    folder = tmp_path / "out" / "cells" / "setfit" / "8" / "1"
    metrics = read_json(folder / "metrics.json")
    assert float(row["micro_f1"]) == round(metrics["test_micro_f1"], 4)
    assert metrics["train_samples"] == 8
    lines = read_lines(folder / "test_predictions.jsonl")
    assert len(lines) == metrics["test_samples"] == 30
    for line in lines:
        assert set(line["labels"]) == {n for n, score in line["scores"].items() if score >= 0.5}
