"""Ways of tuning from the command line: one table, adapters that merge, mistakes."""

import csv
import json
import shutil

import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write
from forks import run_script
from peft import AutoPeftModelForSequenceClassification
from safetensors.numpy import load_file, save_file
from tiny_models import save_tiny_model
from transformers import AutoTokenizer, pipeline

from shared.taggers import load_tagger

METHODS = ["full", "partial", "head", "lora", "dora", "ia3", "prompt"]


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--output_dir", tmp_path / "out"),
        *("--use_cpu", "--bf16", "false", "--max_length", 32, "--num_train_epochs", 2),
        *("--rank", 2, "--prompt_tokens", 3),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("lora", monkeypatch, capfd, *flags)


def test_every_way_lies_in_one_table(recipe, tmp_path):
    printed = recipe()
    with open(tmp_path / "out" / "results.csv", encoding="utf-8") as file:
        rows = dict(zip(METHODS, csv.DictReader(file), strict=True))
    trained = {name: int(row["trained_parameters"]) for name, row in rows.items()}
    assert trained["head"] == 32 * 4 + 4
    assert trained["head"] < trained["ia3"] < trained["lora"] < trained["dora"] < trained["full"]
    assert trained["prompt"] == trained["head"] + 3 * 32
    assert float(rows["lora"]["state_mb"]) < float(rows["full"]["state_mb"]) / 2
    assert float(rows["lora"]["saved_mb"]) < float(rows["full"]["saved_mb"]) / 2
    for name, row in rows.items():
        metrics = read_json(tmp_path / "out" / name / "metrics.json")
        assert metrics["micro_f1"] == pytest.approx(float(row["micro_f1"]))
        assert f"| {row['method']} | {metrics['micro_f1']:.3f} |" in printed
        assert f"| {row['method']} |" in (tmp_path / "out" / "README.md").read_text("utf-8")
        if name in ("lora", "dora", "ia3"):
            assert metrics["merged_difference"] < 1e-4
    # Each method, and each merged model, is a tagger.
    texts = [line["text"] for line in read_lines(next((tmp_path / "out").glob("*/unlabelled*")))]
    for name in METHODS:
        scores = load_tagger(tmp_path / "out" / name).scores(texts)
        assert scores.shape == (12, 4)
        if name in ("lora", "dora", "ia3"):
            merged = load_tagger(tmp_path / "out" / name / "merged").scores(texts)
            np.testing.assert_allclose(merged, scores, atol=1e-4)
    # Without peft: plain weights, and scores from a pipeline
    merged = tmp_path / "out" / "lora" / "merged"
    assert not [name for name in load_file(merged / "model.safetensors") if "lora" in name]
    (scores,) = pipeline("text-classification", model=str(merged), top_k=None)(["crash error"])
    assert {entry["label"] for entry in scores} == {"bug", "documentation", "feature", "speed"}
    assert not list((tmp_path / "out").rglob("*.bin"))


def test_the_frozen_layers_stay_as_they_are(recipe, tmp_path, tiny_model):
    recipe("--methods", "partial", "head", "--frozen_layers", 1)
    start = load_file(tiny_model / "model.safetensors")
    names = [f"encoder.layer.{layer}.output.dense.weight" for layer in (0, 1)]
    for method, kept in (("partial", [True, False]), ("head", [True, True])):
        saved = load_file(tmp_path / "out" / method / "model.safetensors")
        actual = [(saved[f"encoder.{name}"] == start[name]).all() for name in names]
        assert actual == kept


def test_the_same_seed_gives_the_same_figures_whatever_ran_before(recipe, tmp_path):
    recipe("--methods", "lora")
    alone = read_json(tmp_path / "out" / "lora" / "metrics.json")
    recipe("--methods", "head", "lora", "--output_dir", tmp_path / "more")
    after = read_json(tmp_path / "more" / "lora" / "metrics.json")
    assert after == alone | {"train_seconds": after["train_seconds"]}


def test_what_is_finished_is_kept(recipe, tmp_path):
    recipe("--methods", "ia3")
    before = (tmp_path / "out" / "ia3" / "metrics.json").stat().st_mtime_ns
    printed = recipe("--methods", "head")
    assert "Training: IA3" not in printed
    assert "| IA3 |" in printed
    assert "| head alone |" in printed
    assert (tmp_path / "out" / "ia3" / "metrics.json").stat().st_mtime_ns == before
    with open(tmp_path / "out" / "results.csv", encoding="utf-8") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["head alone", "IA3"]


def test_a_folder_that_holds_another_run_is_refused(recipe, tmp_path, tiny_issues):
    held_out = write(tmp_path / "test.jsonl", read_lines(tiny_issues)[:40])
    command = ["--methods", "head", "--test_data", held_out, "--drop_repeated", "false"]
    recipe(*command)
    recipe(*command)
    line = recipe.mistake(*command, "--seed", 3)
    assert "holds a run with other flags, data or model" in line
    write(held_out, read_lines(tiny_issues)[:50])
    assert "holds a run with other flags, data or model" in recipe.mistake(*command)


def test_an_adapter_loads_with_what_it_sits_on(recipe, tmp_path, monkeypatch, capfd, tiny_issues):
    recipe("--methods", "lora", "prompt")
    tag = Recipe("tag", monkeypatch, capfd, "--use_cpu", "--data", tiny_issues)
    for folder in ("lora", "lora/merged"):
        output = tmp_path / f"{folder.replace('/', '_')}.jsonl"
        tag("--model", tmp_path / "out" / folder, "--output", output)
    adapted, merged = (
        [list(row["scores"].values()) for row in read_lines(tmp_path / name)]
        for name in ("lora.jsonl", "lora_merged.jsonl")
    )
    np.testing.assert_allclose(adapted, merged, atol=1e-4)
    model = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "out" / "prompt")
    assert model.config.id2label[0] == "bug"


def test_an_adapter_names_and_checks_the_model_below_it(
    recipe, tmp_path, monkeypatch, capfd, tiny_issues
):
    monkeypatch.chdir(tmp_path)
    recipe("--methods", "lora", "prompt", "--output_dir", "relative")
    monkeypatch.chdir("/")  # the folder of the adapter holds a relative path
    folders = [tmp_path / "relative" / method for method in ("lora", "prompt")]
    scores = [load_tagger(folder).scores(["crash error"]) for folder in folders]
    shutil.copytree(tmp_path / "relative", other := tmp_path / "other" / "place")
    base = (tmp_path / "relative" / "base").rename(tmp_path / "moved")
    for folder, expected in zip(folders, scores, strict=True):  # moved with the model below it
        np.testing.assert_array_equal(
            load_tagger(other / folder.name).scores(["crash error"]), expected
        )
    tag = Recipe("tag", monkeypatch, capfd, "--use_cpu", "--data", tiny_issues)
    output = tmp_path / "tagged.jsonl"
    for folder, expected in zip(folders, scores, strict=True):
        line = tag.mistake("--model", folder, "--output", output)
        gone = tmp_path / "relative" / "base"
        assert line.startswith(f"the encoder {gone} that the tagger was fitted on is missing")
        tag("--model", folder, "--output", output, "--encoder", base)
        moved = load_tagger(folder, encoder=str(base))
        np.testing.assert_array_equal(moved.scores(["crash error"]), expected)
    moved.save(tmp_path / "copy")
    moved = load_tagger(tmp_path / "copy", encoder=str(base))
    np.testing.assert_array_equal(moved.scores(["crash error"]), expected)

    weights = load_file(base / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, base / "model.safetensors")
    line = tag.mistake("--model", folders[0], "--output", output, "--encoder", base)
    assert f"--encoder {base}: not the encoder that the tagger was fitted on" in line
    assert "(different: weights)" in line
    manifest = folders[0] / "tagger.json"
    manifest.write_text(json.dumps(read_json(manifest) | {"encoder": None}), encoding="utf-8")
    assert "encoder is missing" in tag.mistake("--model", folders[0], "--output", output)


def test_the_card_of_an_adapter_says_how_to_load_it_after_a_move(recipe, tmp_path):
    recipe("--methods", "lora", "prompt")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    for method in ("lora", "prompt"):
        card = (moved / method / "README.md").read_text("utf-8")
        assert "More Information Needed" not in card
        own, others = (part.partition("```")[0] for part in card.split("```python\n")[1:])
        names = {}
        for code in (own, others.replace(", trust_remote_code=True", "")):
            exec(code.replace(str(tmp_path / "out"), str(moved)), names)
        text = "crash error"
        ids = AutoTokenizer.from_pretrained(moved / method)(text, return_tensors="pt")
        scores = names["model"].eval()(**ids).logits.sigmoid().detach().numpy()
        np.testing.assert_allclose(names["tagger"].raw_scores([text]), scores, atol=1e-4)


def test_what_a_model_cannot_have_is_left_out(recipe, tmp_path):
    """ELECTRA is not in peft's table for IA3; its embeddings are narrower than its layers."""
    model = save_tiny_model(tmp_path / "electra", "electra", ["slow", "memory"])
    flags = ["--model", model, "--num_train_epochs", 1]
    printed = recipe(*flags)
    assert "note: IA3 is left out; --methods ia3: peft does not support IA3 for" in printed
    folders = sorted(path.parent.name for path in (tmp_path / "out").glob("*/tagger.json"))
    assert folders == sorted({*METHODS} - {"ia3"})
    assert load_tagger(tmp_path / "out" / "prompt").scores(["slow"]).shape == (1, 4)
    assert "peft does not support IA3" in recipe.mistake(*flags, "--methods", "ia3", "head")


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    assert "uniform predictions have a loss of" in recipe("--health_check", "--methods", "lora")
    assert not (tmp_path / "out" / "results.csv").exists()


def test_two_processes(flags, tmp_path):
    result = run_script("recipes/lora.py", *flags, "--methods", "head", "ia3", processes=2)
    assert "| IA3 |" in result.stdout
    assert result.stdout.count("epoch  1.00") == 2  # once for each method
    row = read_json(tmp_path / "out" / "ia3" / "metrics.json")
    assert row["merged_difference"] < 1e-4


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--methods", "bitfit"], "--methods bitfit: there are full, partial, head, lora, dora"),
        (["--eval_strategy", "epoch"], "--eval_strategy: must be no; methods are compared at"),
        (["--resume_from_checkpoint", "true"], "--resume_from_checkpoint: remove it"),
        (["--methods", "lora", "partial", "--frozen_layers", 9], "--frozen_layers 9: the model"),
        (["--frozen_layers", 9], "--frozen_layers 9: the model has 2 layers"),
        (["--rank", 0], "--rank 0: must be 1 or more"),
        (["--methods", "partial", "--frozen_layers", 9], "--frozen_layers 9: the model has 2"),
        (["--max_length", 999], "--max_length 999: must be 3 to"),
        (["--max_length", 57], "--prompt_tokens 3: --max_length leaves only 0"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)
