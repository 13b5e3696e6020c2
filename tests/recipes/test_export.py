"""Export from the command line: a table, a tagger that tag.py runs, or one line and no tagger."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write

from shared.data import DataArguments, load_data
from shared.evaluation import DecisionRule
from shared.methods import fit_words, naive_bayes
from shared.taggers import Tagger, WordScorer, export_tagger, load_tagger, mean_tagger


@pytest.fixture
def export(monkeypatch, capfd, trained, tiny_issues, tmp_path):
    """Call the recipe with the trained tagger on its data."""
    flags = ("--model", trained[0], "--data", tiny_issues, "--cache_dir", tmp_path / "cache")
    return Recipe("export", monkeypatch, capfd, *flags, "--output_dir", tmp_path / "out")


def no_tagger(folder):
    return not [*folder.rglob("tagger.json"), *folder.rglob("*.onnx")]


def test_the_table_and_the_tagger(export, trained, tiny_issues, tmp_path, monkeypatch, capfd):
    printed = export("--precision", "float32")
    metrics = read_json(tmp_path / "out" / "metrics.json")
    # The 30 test rows of the training run, with its figures.
    assert (metrics["rows"], metrics["which"], metrics["saved"]) == (30, "test", "ONNX float32")
    expected = read_json(trained[0] / "metrics.json")
    for name in ("PyTorch float32", "ONNX float32"):
        assert metrics["taggers"][name]["micro_f1"] == pytest.approx(expected["test_micro_f1"])
        assert metrics["taggers"][name]["macro_f1"] == pytest.approx(expected["test_macro_f1"])
        assert f"| {name} | {expected['test_micro_f1']:.3f} | " in printed
    assert metrics["taggers"]["ONNX float32"]["largest_difference_of_a_score"] < 1e-5
    assert metrics["taggers"]["ONNX int8"]["largest_difference_of_a_score"] > 1e-4
    assert all(figures["texts_per_second"] > 0 for figures in metrics["taggers"].values())

    # tag.py gives the same labels with it.
    tag = Recipe("tag", monkeypatch, capfd, "--data", tiny_issues, "--use_cpu")
    for name, folder in (("torch", trained[0]), ("onnx", tmp_path / "out")):
        tag("--model", folder, "--output", tmp_path / f"{name}.jsonl")
    lines = [read_lines(tmp_path / f"{name}.jsonl") for name in ("torch", "onnx")]
    for torch_line, onnx_line in zip(*lines, strict=True):
        assert onnx_line["labels"] == torch_line["labels"]
        assert onnx_line["scores"] == pytest.approx(torch_line["scores"], abs=1e-5)


def test_static_embeddings_in_the_same_table(export, trained, tmp_path):
    printed = export("--static", "--texts", 20)
    assert printed.startswith("comparing on 20 of 30 test rows")
    assert read_json(tmp_path / "out" / "metrics.json")["saved"] == "static"
    assert "| static | " in printed
    tagger = load_tagger(tmp_path / "out")
    assert tagger.label_names == load_tagger(trained[0]).label_names
    assert tagger("crash traceback error segfault")["labels"] == ["bug"]


def test_rare_labels_that_the_flags_leave_out_are_no_misses(
    export, trained, tiny_issues, tmp_path, monkeypatch
):
    """As in the training of a tagger with this flag. An export changes nothing here."""
    for name in ("export_tagger", "quantize_tagger"):
        monkeypatch.setattr(export.module, name, lambda tagger, folder: tagger)
    rows = read_lines(tiny_issues)
    tested = [line["row"] for line in read_lines(trained[0] / "test_predictions.jsonl")]
    for number in tested[:3]:
        rows[number - 1]["labels"] += ["rare"]
    flags = ("--data", write(tmp_path / "rare.jsonl", rows), "--precision", "float32")
    expected, f1 = read_json(trained[0] / "metrics.json")["test_micro_f1"], {}
    for least in (1, 4, 1000):  # all labels of the tagger are rarer than the last
        export(*flags, "--min_label_count", least)
        figures = read_json(tmp_path / "out" / "metrics.json")["taggers"]["PyTorch float32"]
        f1[least] = figures["micro_f1"]
    assert f1[1] < expected
    assert f1[4] == f1[1000] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "saved"),
    [(-0.004, "ONNX int8"), (-0.006, "ONNX float32"), (0.006, "ONNX float32")],
)
def test_auto_takes_int8_where_it_changes_little(change, saved, export):
    args = SimpleNamespace(static=False, precision="auto")
    figures = {
        "ONNX float32": {"micro_f1": 0.8, "macro_f1": 0.6},
        "ONNX int8": {"micro_f1": 0.804, "macro_f1": 0.6 + change},
    }
    assert export.module.choose_tagger(figures, args) == saved


def test_an_export_that_loses_parity_leaves_no_tagger(export, tmp_path, monkeypatch):
    """An exporter whose scores differ by twice the tolerance."""

    def altered(tagger, folder):
        (folder / "0.onnx").touch()
        return replace(tagger, scorer=lambda texts: np.abs(tagger.scorer(texts) - 2e-4))

    monkeypatch.setattr(export.module, "export_tagger", altered)
    monkeypatch.setattr(export.module, "quantize_tagger", lambda tagger, folder: tagger)
    line = export.mistake("--texts", 10)
    assert "the exported probabilities differ by 2.0e-04 from those of PyTorch" in line
    assert no_tagger(tmp_path / "out")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--model", "outputs/github_tagger"], "outputs/github_tagger: no such folder; train a"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--texts", 0], "--texts 0: must be 1 or more"),
        (["--texts", 30, "--static", "--drop_labels", "bug"], "of at least 100; name a file"),
    ],
)
def test_mistakes(flags, expected, export, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in export.mistake(*flags)
    assert no_tagger(tmp_path)


def test_the_output_is_not_the_tagger_itself(export, trained):
    line = export.mistake("--output_dir", trained[0] / "..", "--model", trained[0] / "..")
    assert line.endswith("is the tagger itself; choose another folder")


def test_a_tagger_of_words_needs_no_export(export, tmp_path):
    classifier = fit_words(naive_bayes(), ["crash", "typo"], np.eye(2, dtype=int))
    names = ["bug", "documentation"]
    Tagger(names, DecisionRule.of(0.5, 2), WordScorer(classifier)).save(tmp_path / "words")
    assert "a tagger of words needs no export" in export.mistake("--model", tmp_path / "words")
    assert no_tagger(tmp_path / "out")


def test_an_exported_tagger_is_not_exported_again(export, trained, tmp_path):
    exported, mean = tmp_path / "exported", tmp_path / "mean"
    tagger = load_tagger(trained[0])
    export_tagger(tagger, tmp_path).save(exported)
    members = [tagger, load_tagger(exported)]
    mean_tagger(members).save(mean)
    for folder in (exported, mean):
        for flags in ([], ["--static", "--texts", 10]):
            line = export.mistake("--model", folder, *flags)
            assert line == "the tagger is exported already; name the tagger that it was made of"


def test_rows_of_a_cross_validation_are_no_test_rows(
    export, monkeypatch, capfd, tiny_issues, tmp_path
):
    """The tagger that it saves is fitted to all of them."""
    folder, cache = tmp_path / "words", tmp_path / "cache"
    flags = ("--data", tiny_issues, "--cache_dir", cache, "--output_dir", folder)
    bayes = Recipe("naive_bayes", monkeypatch, capfd, *flags)
    corpus = load_data(DataArguments(data=str(tiny_issues), cache_dir=str(cache)))
    bayes("--evaluate", "cross_validation", "--folds", 2)
    assert export.module.find_test_rows(folder, corpus) is None
    bayes("--evaluate", "held_out", "--refit", "false")
    assert len(export.module.find_test_rows(folder, corpus)) == 30


def test_data_without_labels_and_without_onnx(export, tmp_path, monkeypatch):
    data = write(tmp_path / "plain.jsonl", [{"text": "crash"}, {"text": "docs"}])
    assert "label" in export.mistake("--data", data)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    line = export.mistake()
    assert line == 'export needs onnxscript, which is not installed; pip install -e ".[export]"'


def test_a_folder_that_is_no_tagger(export, trained, tmp_path):
    broken = shutil.copytree(trained[0], tmp_path / "broken")
    (broken / "tagger.json").write_text("{", encoding="utf-8")
    assert "no tagger (tagger.json is missing or damaged)" in export.mistake("--model", broken)
