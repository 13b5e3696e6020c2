"""The best tagger for one's labels: candidates, choice, resumption."""

import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, write
from forks import run_script

from shared.taggers import load_tagger

FAST = ("--candidates", "naive_bayes", "tfidf", "few_label_probe")


@pytest.fixture(scope="module")
def flags(tiny_model, tiny_issues, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--max_length", 48, "--folds", 3),
        *("--cache_dir", cache),
    ]


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory):
    """A finished run through ``accelerate launch``: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("best") / "out"
    process = launch("recipes/best.py", *flags, *FAST, "--output_dir", folder)
    return folder, process.stdout


def test_the_best_method_is_saved_and_tags_the_rest(finished, tiny_issues):
    folder, printed = finished
    assert "out of fold; the " in printed  # the sentence that says why
    assert printed.count(" was taken") == 1
    metrics = read_json(folder / "metrics.json")
    cells = [read_json(path) for path in folder.glob("cells/*/metrics.json")]
    assert len(cells) == 3
    best = max(cells, key=lambda cell: cell["test_micro_f1"] + cell["test_macro_f1"])
    assert metrics["test_samples"] == best["test_samples"] == 120
    assert sum(metrics[f"test_{name}_f1"] for name in ("micro", "macro")) >= (
        best["test_micro_f1"] + best["test_macro_f1"] - 1e-9
    )
    tagger = load_tagger(folder)
    assert tagger("the memory is too slow")["labels"]
    assert len(read_lines(folder / "unlabelled_predictions.jsonl")) == 12
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| method | micro F1 | macro F1 |" in card
    assert "then fitted on all 120 labelled texts" in card
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "then fitted on all 120 labelled texts" in page
    assert "| method |" not in page


def test_a_second_run_keeps_finished_candidates(finished, flags, monkeypatch, capfd):
    folder, _ = finished
    recipe = Recipe("best", monkeypatch, capfd, *flags, "--output_dir", folder)
    monkeypatch.setattr(recipe.module, "run_jobs", None)  # would fail
    assert " was taken" in recipe(*FAST, "--tag_unlabelled", 0)
    # There is no time for fine-tuning.
    printed = recipe("--minutes", 0.01, "--tag_unlabelled", 0)
    assert "fine_tuning is left out: it takes about" in printed


def test_a_mean_of_two_methods_is_one_tagger(finished, flags, monkeypatch, capfd, tmp_path):
    folder, _ = finished
    recipe = Recipe("best", monkeypatch, capfd, *flags, *FAST, "--output_dir", folder)
    choose = recipe.module.choose_candidate

    def take_the_mean(candidates, **options):
        means = [c for c in candidates if c.names == ("tfidf", "few_label_probe")]
        return choose(means + candidates)[0] and (means[0], "It was taken.")

    monkeypatch.setattr(recipe.module, "choose_candidate", take_the_mean)
    recipe()
    lines = read_lines(folder / "unlabelled_predictions.jsonl")
    tagger = load_tagger(folder)
    tags = tagger([line["text"] for line in lines])
    parts = [load_tagger(folder / "cells" / name) for name in ("tfidf", "few_label_probe")]
    for line, tag in zip(lines, tags, strict=True):
        assert tag["scores"] == pytest.approx(line["scores"], abs=1e-4)
        both = [part.scores([line["text"]]) for part in parts]
        np.testing.assert_allclose(
            tagger.raw_scores([line["text"]]), np.mean(both, axis=0), atol=1e-6
        )


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--candidates", "magic"], "--candidates magic: there are naive_bayes, tfidf"),
        (["--minutes", 0], "--minutes 0.0: must be above 0"),
        (["--folds", 1], "--folds 1: must be 2 or more"),
        (["--folds", 500], "--folds 500: the 120 texts"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
)
def test_mistakes(wrong, expected, flags, monkeypatch, capfd, tmp_path):
    recipe = Recipe("best", monkeypatch, capfd, *flags, "--output_dir", tmp_path / "out")
    assert expected in recipe.mistake(*wrong)


def test_the_candidates_with_an_encoder_truncate_texts_alike(flags, monkeypatch, capfd, tmp_path):
    recipe = Recipe("best", monkeypatch, capfd, *flags, "--output_dir", tmp_path / "out")
    commands = {}

    def spy(jobs, **options):
        commands.update({job.name: job.command for job in jobs})
        return 1  # they have failed

    monkeypatch.setattr(recipe.module, "run_jobs", spy)
    recipe.mistake("--truncation_side", "left")
    recipe.mistake("--truncation_side", "left", "--candidates", "fine_tuning", "--minutes", 1e4)
    passed = {name: "--truncation_side=left" in words for name, words in commands.items()}
    encoder = {"few_label_probe": True, "fine_tuning": True}
    assert passed == {"naive_bayes": False, "tfidf": False} | encoder


def test_fine_tuning_is_a_candidate(flags, tmp_path):
    process = run_script(
        *("recipes/best.py", *flags, "--output_dir", tmp_path / "out"),
        *("--candidates", "tfidf", "fine_tuning", "--folds", 2),
    )
    assert "mean of tfidf and fine_tuning" in process.stdout
    assert load_tagger(tmp_path / "out")("the memory is too slow")["scores"]


@pytest.fixture
def dated(tiny_issues, tmp_path):
    """The tiny issues, each a day later than the one before; the last 12 have no labels."""
    rows = [
        row | {"when": 1_700_000_000 + 86_400 * i, "part": ("train", "dev", "test")[i // 40 % 3]}
        for i, row in enumerate(read_lines(tiny_issues))
    ]
    return write(tmp_path / "dated.jsonl", rows)


@pytest.mark.usefixtures("forked_scripts")
def test_newer_rows_choose_and_the_newest_ones_test_what_was_taken(
    flags, dated, monkeypatch, capfd, tmp_path
):
    folder = tmp_path / "out"
    recipe = Recipe("best", monkeypatch, capfd, *flags, "--data", dated, "--output_dir", folder)
    by_time = ("--split_time", "when", "--candidates", "naive_bayes", "tfidf")
    printed = recipe(*by_time)
    assert "Candidates, each tested on the validation texts: naive_bayes, tfidf" in printed
    assert " on the validation texts" in printed.split(" taken", 1)[1]
    assert "Test (30 texts)" in printed
    times = {row["title"]: row["when"] for row in read_lines(dated)}
    when = {"train": [], "test": []}
    for row in read_lines(folder / "choice.jsonl"):
        when[row["part"]].append(times[row["text"].split("\n")[0]])
    assert max(when["train"]) < min(when["test"])
    lines = read_lines(folder / "test_predictions.jsonl")
    assert [line["row"] for line in lines] == list(range(91, 121))  # in the file of the user
    for name in ("naive_bayes", "tfidf"):
        assert read_json(folder / "cells" / name / "metrics.json")["test_samples"] == 30
    metrics = read_json(folder / "metrics.json")
    assert (metrics["split"], metrics["valid_samples"], metrics["test_samples"]) == ("time", 30, 30)
    tagger = load_tagger(folder)
    for line, tag in zip(lines, tagger([line["text"] for line in lines]), strict=True):
        assert sorted(tag["labels"]) == sorted(line["labels"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "on 30 test texts, which no choice has seen" in card
    # Nothing is computed again, unless the rows are divided in another way.
    monkeypatch.setattr(recipe.module, "run_jobs", lambda jobs, **options: len(jobs))
    assert "Test (30 texts)" in recipe(*by_time)
    assert "a candidate failed" in recipe.mistake(*by_time, "--test_size", 0.2)


def test_fine_tuning_gets_the_same_rows_as_the_others(flags, dated, monkeypatch, capfd, tmp_path):
    recipe = Recipe("best", monkeypatch, capfd, *flags, "--data", dated)
    commands = []
    monkeypatch.setattr(
        recipe.module, "run_jobs", lambda jobs, **options: commands.extend(jobs) or 1
    )
    for name in ("tfidf", "fine_tuning"):
        folder = ("--output_dir", tmp_path / "out", "--candidates", name, "--minutes", 1e4)
        recipe.mistake("--split_by", "part", *folder)
    words, trained = ([*job.command] for job in commands)
    shared_flags = [f"--data={tmp_path / 'out' / 'choice.jsonl'}", "--split_by=part"]
    assert [*words[1:3]] == [*trained[1:3]] == shared_flags
    assert "--evaluate=held_out" in words
    assert "--folds=3" in trained
    assert "--folds=3" not in words
    assert {job.data for job in commands} == {commands[0].data}
