"""Tagging a file from the command line: every row comes back, in order, or nothing does."""

import csv
import errno
import gzip
import json
import os
import re
import shutil

import numpy as np
import pytest
from command_line import (
    PYTHON,
    TWO_PROCESSES,
    Recipe,
    change_json,
    read_json,
    read_lines,
    run,
    truncate,
    write,
)
from safetensors import safe_open
from safetensors.numpy import save_file

SCRIPT = "recipes/tag.py"
ROWS = [
    {"title": "crash with traceback", "body": "it fails", "number": 7, "labels": ["bug"]},
    {"title": None, "body": " \n", "number": 8, "labels": []},
    {"title": "typo in the docs", "number": 9, "nested": {"a": [1, None]}, "scores": "own"},
]


@pytest.fixture
def tag(monkeypatch, capfd, trained, tmp_path):
    """Call the recipe with the trained tagger, on the CPU, from a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return Recipe("tag", monkeypatch, capfd, "--model", trained[0], "--use_cpu")


@pytest.fixture
def tagger_copy(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "copy")


def test_rows_come_back_in_order_with_labels_and_scores(tag, tmp_path):
    printed = tag("--data", write(tmp_path / "new.jsonl", ROWS))
    lines = read_lines(tmp_path / "tagged.jsonl")
    assert [line["number"] for line in lines] == [7, 8, 9]
    kept = [
        {name: value for name, value in line.items() if name not in ("labels", "scores")}
        for line in lines
    ]
    assert kept == [
        {f"input_{k}" if k in ("labels", "scores") else k: v for k, v in row.items()}
        for row in ROWS
    ]
    for line in (lines[0], lines[2]):
        assert set(line["scores"]) == {"bug", "documentation", "feature", "speed"}
        assert list(line["scores"].values()) == sorted(line["scores"].values(), reverse=True)
        assert line["labels"] == list(line["scores"])[: len(line["labels"])]
    assert (lines[1]["labels"], lines[1]["scores"]) == ([], {})
    last = printed.splitlines()[-1]
    assert re.fullmatch(
        r"3 rows \(1 without text\) tagged in tagged.jsonl: [\d,]+ texts per second", last
    )


def test_scores_are_those_of_the_training_run(tag, trained, tiny_issues, tmp_path):
    tag("--data", tiny_issues)
    lines = read_lines(tmp_path / "tagged.jsonl")
    assert len(lines) == 132
    for expected in read_lines(trained[0] / "test_predictions.jsonl"):
        line = lines[expected["row"] - 1]
        assert line["scores"] == pytest.approx(expected["scores"], abs=1e-5)
        assert line["labels"] == expected["labels"]


@pytest.mark.parametrize("flags", [["--block_size", 7], ["--per_device_eval_batch_size", 5]])
def assert_same_tags(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == (pytest.approx(value, abs=1e-5) if name == "scores" else value)


@pytest.mark.parametrize("flags", [["--block_size", 7], ["--per_device_eval_batch_size", 5]])
def test_blocks_and_batches_change_nothing(flags, tag, tiny_issues, tmp_path):
    tag("--data", tiny_issues, "--output", "whole.jsonl")
    tag("--data", tiny_issues, "--output", "parts.jsonl", *flags)
    whole, parts = (read_lines(tmp_path / name) for name in ("whole.jsonl", "parts.jsonl"))
    for expected, actual in zip(whole, parts, strict=True):
        assert_same_tags(actual, expected)


def test_two_processes_write_what_one_writes(tag, trained, tiny_issues, tmp_path):
    tag("--data", tiny_issues, "--output", "one.jsonl")
    process = run(
        *(*TWO_PROCESSES, SCRIPT, "--model", trained[0], "--use_cpu", "--data", tiny_issues),
        *("--output", tmp_path / "two.jsonl", "--block_size", 33),
    )
    one, two = (read_lines(tmp_path / name) for name in ("one.jsonl", "two.jsonl"))
    for expected, actual in zip(one, two, strict=True):
        assert_same_tags(actual, expected)
    assert process.stdout.count("texts per second") == 1
    assert "Warning" not in process.stderr
    assert "Traceback" not in process.stderr


def test_a_run_is_quiet_and_leaves_one_file(trained, tiny_issues, tmp_path):
    process = run(
        *(PYTHON, SCRIPT, "--model", trained[0], "--data", tiny_issues),
        *("--output", tmp_path / "new folder" / "tagged.jsonl"),
    )
    assert process.stderr == ""
    assert len(process.stdout.splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["new folder", "tagged.jsonl"]


def test_csv_and_compressed_input(tag, tmp_path):
    rows = [{"title": row["title"] or "", "number": str(row["number"])} for row in ROWS]
    with gzip.open(tmp_path / "new.csv.gz", "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["title", "number"])
        writer.writeheader()
        writer.writerows(rows)
    tag("--data", tmp_path / "new.csv.gz")
    lines = read_lines(tmp_path / "tagged.jsonl")
    assert [{name: line[name] for name in ("title", "number")} for line in lines] == rows

    text = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    tag("--data", write(tmp_path / "new.jsonl.gz", text))
    assert len(read_lines(tmp_path / "tagged.jsonl")) == 3


def test_a_label_applies_where_its_score_reaches_the_threshold(tag, tmp_path, monkeypatch):
    data = write(tmp_path / "new.jsonl", ROWS[:1])
    for threshold in (0.0, 0.3, 0.5, 1.0):
        tag("--data", data, "--threshold", threshold)
        (line,) = read_lines(tmp_path / "tagged.jsonl")
        assert line["labels"] == [
            name for name, score in line["scores"].items() if score >= threshold
        ]

    monkeypatch.setattr(tag.module, "sigmoid", lambda logits: np.full(logits.shape, 0.5))
    for threshold, count in ((0.5, 4), (0.5 + 1e-12, 0)):
        tag("--data", data, "--threshold", repr(threshold))
        (line,) = read_lines(tmp_path / "tagged.jsonl")
        assert len(line["labels"]) == count


def test_several_taggers_are_averaged(tag, trained, tagger_copy, tiny_issues, tmp_path):
    with safe_open(tagger_copy / "model.safetensors", framework="np") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(
        weights | {"classifier.bias": np.float32([1, -1, 2, 0])},
        tagger_copy / "model.safetensors",
        metadata={"format": "pt"},
    )
    change_json(tagger_copy / "config.json", thresholds=[0.9, 0.9, 0.9, 0.9])
    for name, models in {
        "a": trained[:1],
        "b": [tagger_copy],
        "ab": [trained[0], tagger_copy],
    }.items():
        tag("--data", tiny_issues, "--model", *models, "--output", f"{name}.jsonl")
    ours, theirs, both = (read_lines(tmp_path / f"{name}.jsonl") for name in ("a", "b", "ab"))
    own = read_json(trained[0] / "config.json")["thresholds"]
    thresholds = dict(zip(read_json(trained[0] / "config.json")["label2id"], own, strict=True))
    for a, b, line in zip(ours, theirs, both, strict=True):
        for label, score in line["scores"].items():
            assert score == pytest.approx((a["scores"][label] + b["scores"][label]) / 2, abs=2e-6)
            if abs(score - (limit := (thresholds[label] + 0.9) / 2)) > 1e-4:
                assert (label in line["labels"]) == (score >= limit)
    change_json(tagger_copy / "config.json", id2label={i: f"other {i}" for i in range(4)})
    line = tag.mistake("--data", tiny_issues, "--model", trained[0], tagger_copy)
    assert "has other labels than" in line


def test_classes_exclude_each_other(tag, tagger_copy, tmp_path):
    change_json(
        tagger_copy / "config.json", problem_type="single_label_classification", thresholds=None
    )
    tag("--model", tagger_copy, "--data", write(tmp_path / "new.jsonl", ROWS))
    for line in read_lines(tmp_path / "tagged.jsonl")[::2]:
        assert sum(line["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert line["labels"] == list(line["scores"])[:1]


def test_without_own_thresholds_one_must_be_given(tag, tagger_copy, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    change_json(tagger_copy / "config.json", thresholds=None)
    line = tag.mistake("--model", tagger_copy, "--data", data)
    assert line.startswith(f"{tagger_copy}: the config has no threshold for each label")
    assert "--threshold" in line
    tag("--model", tagger_copy, "--data", data, "--threshold", 0.5)
    assert len(read_lines(tmp_path / "tagged.jsonl")) == 3


@pytest.mark.parametrize("thresholds", [[0.5], ["a", "b", "c", "d"], [0.5, 0.5, 0.5, 7.0], 0.5])
def test_thresholds_that_do_not_fit_are_refused(thresholds, tag, tagger_copy, tmp_path):
    change_json(tagger_copy / "config.json", thresholds=thresholds)
    data = write(tmp_path / "new.jsonl", ROWS)
    assert "no threshold for each label" in tag.mistake("--model", tagger_copy, "--data", data)


def rename_labels(folder):
    names = [f"LABEL_{i}" for i in range(4)]
    change_json(
        folder / "config.json",
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )


BROKEN_TAGGERS = {
    "no label names": (rename_labels, "the config names no labels"),
    "no labels": (
        lambda folder: change_json(folder / "config.json", id2label=None, label2id=None),
        "classifier",
    ),
    "a quantity per text": (
        lambda folder: change_json(folder / "config.json", problem_type="regression"),
        "its problem_type is regression",
    ),
    "truncated weights": (lambda folder: truncate(folder / "model.safetensors"), "cannot load"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no file named model"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    "no tokenizer": (
        lambda folder: [path.unlink() for path in folder.glob("token*")],
        "no usable tokenizer",
    ),
}


@pytest.mark.parametrize("case", BROKEN_TAGGERS)
def test_a_folder_that_is_no_tagger_is_refused(case, tag, tagger_copy, tmp_path):
    break_it, expected = BROKEN_TAGGERS[case]
    break_it(tagger_copy)
    data = write(tmp_path / "new.jsonl", ROWS)
    line = tag.mistake("--model", tagger_copy, "--data", data)
    assert str(tagger_copy) in line
    assert expected in line
    assert not (tmp_path / "tagged.jsonl").exists()


def test_before_any_training_the_next_step_is_named(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "new.jsonl", ROWS)
    line = tag.mistake("--model", "outputs/github_tagger", "--data", "new.jsonl")
    assert line.startswith("--model outputs/github_tagger: no such folder; train a tagger with")


def test_an_encoder_without_a_head_is_no_tagger(tag, tiny_model, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    line = tag.mistake("--model", tiny_model, "--data", data)
    assert line.startswith(f"{tiny_model}: the weights lack 2 tensors of the model")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model", "./nowhere"], "--model ./nowhere: no such folder"),
        (["--model", "some/one"], "--model some/one: no such folder, not in the local cache"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--dta", "new.jsonl"], "unknown flag --dta; did you mean --data?"),
        (["--text_columns", "titel"], "no column 'titel'"),
        (["--block_size", 0], "--block_size 0: must be 1 or more"),
        (["--threshold", 1.5], "--threshold 1.5: must be from 0 to 1"),
        (["--threshold", "nan"], "--threshold nan: must be from 0 to 1"),
        (["--output", "."], "--output .: not a file"),
        (["--output", "new.jsonl/below"], "--output new.jsonl/below: cannot be written"),
        (["--output", "/proc/nowhere.jsonl"], "--output /proc/nowhere.jsonl: cannot be written"),
    ],
)
def test_flag_mistakes_name_the_flag(flags, expected, tag, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    assert expected in tag.mistake("--data", data, *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file is empty"),
        ('{"title": "a"}\n' * 9 + '{"title": "b\n', "line 10: invalid JSON"),
        ('{"title": "a"}\n' * 9 + '{"title": 5}\n', "row 10: column 'title' holds 5 (int)"),
        (b'{"title": "a"}\n' * 9 + b'{"title": "\xff"}\n', "line 10: not UTF-8"),
        (
            '{"title": "a"}\n' * 9 + '{"title": "a", "labels": 1, "input_labels": 2}\n',
            "row 10: labels and scores are kept as input_labels",
        ),
    ],
)
@pytest.mark.parametrize("block_size", [4, 100])
def test_a_mistake_in_the_file_leaves_no_output(content, expected, block_size, tag, tmp_path):
    data = write(tmp_path / "new.jsonl", content)
    (tmp_path / "tagged.jsonl").write_text("from before")
    line = tag.mistake("--data", data, "--block_size", block_size)
    assert line.startswith(str(data))
    assert expected in line
    assert (tmp_path / "tagged.jsonl").read_text() == "from before"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_no_output(tag, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shared.cli.files.os.fsync", full)
    data = write(tmp_path / "new.jsonl", ROWS)
    line = tag.mistake("--data", data)
    assert line.startswith("--output tagged.jsonl: cannot be written (No space left on device)")
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]


def test_ctrl_c_leaves_no_output(tag, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tag.module.LengthGroupedTrainer, "predict", interrupt)
    data = write(tmp_path / "new.jsonl", ROWS)
    assert tag.mistake("--data", data, code=130) == "interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]


def test_the_input_may_be_the_output(tag, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    tag("--data", data, "--output", data, "--block_size", 1)
    assert [line["number"] for line in read_lines(data)] == [7, 8, 9]


def test_odd_texts_come_back_as_they_were(tag, tmp_path):
    texts = ["\U0001f600 \0", "half a pair \ud83d", "日本語", "word " * 100_000, "\u200b", "\x85"]
    data = write(tmp_path / "odd.jsonl", [{"text": text} for text in texts])
    tag("--data", data)
    assert [line["text"] for line in read_lines(tmp_path / "tagged.jsonl")] == texts


def test_only_blank_texts(tag, tmp_path):
    printed = tag("--data", write(tmp_path / "blank.jsonl", [{"text": " "}, {"text": None}]))
    assert printed.startswith("2 rows (2 without text) tagged")
    assert [line["labels"] for line in read_lines(tmp_path / "tagged.jsonl")] == [[], []]


def test_the_tagger_folder_stays_as_it_was(tag, trained, tmp_path):
    before = {path: path.read_bytes() for path in trained[0].rglob("*") if path.is_file()}
    tag("--data", write(tmp_path / "new.jsonl", ROWS))
    after = {path: path.read_bytes() for path in trained[0].rglob("*") if path.is_file()}
    assert after == before
    assert len(read_json(trained[0] / "config.json")["thresholds"]) == 4


def test_taggers_that_decide_otherwise_are_not_averaged(tag, trained, tagger_copy):
    change_json(tagger_copy / "config.json", problem_type="single_label_classification")
    assert "cannot be averaged" in tag.mistake("--model", trained[0], tagger_copy)
