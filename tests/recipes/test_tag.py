"""Tagging a file from the command line: every row comes back, in order, or nothing does."""

import csv
import datetime
import errno
import gzip
import json
import os
import re
import shutil

import numpy as np
import pyarrow.parquet
import pytest
from command_line import (
    PYTHON,
    Recipe,
    change_json,
    read_json,
    read_lines,
    run,
    truncate,
    write,
)
from forks import run_script
from safetensors import safe_open
from safetensors.numpy import save_file

from shared.data import open_source
from shared.evaluation import DecisionRule, fit_calibration
from shared.methods import fit_words, naive_bayes
from shared.reports import TaggedFile
from shared.taggers import Tagger, WordScorer, load_tagger
from shared.training import LengthGroupedTrainer

SCRIPT = "recipes/tag.py"
LABELS = ["bug", "documentation", "feature", "speed"]
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
    """A copy of the tagger as a model of transformers, which may be changed."""
    copy = shutil.copytree(trained[0], tmp_path / "copy")
    (copy / "tagger.json").unlink()
    return copy


@pytest.fixture
def words(tmp_path, tiny_issues):
    """The folder of a tagger of another method: naive Bayes."""
    rows = read_lines(tiny_issues)[:120]
    texts = [f"{row['title']}\n\n{row['body']}" for row in rows]
    y = np.array([[name in row["labels"] for name in LABELS] for row in rows])
    rule = DecisionRule.of(0.5, len(LABELS))
    Tagger(LABELS, rule, WordScorer(fit_words(naive_bayes(), texts, y))).save(tmp_path / "words")
    return tmp_path / "words"


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


def test_a_trainer_that_only_predicts_asks_no_hub(tag, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    tag("--data", data, "--push_to_hub")  # no test has a network
    assert len(read_lines(tmp_path / "tagged.jsonl")) == 3


def test_two_processes_write_what_one_writes(tag, trained, tiny_issues, tmp_path):
    tag("--data", tiny_issues, "--output", "one.jsonl")
    process = run_script(
        *(SCRIPT, "--model", trained[0], "--use_cpu", "--data", tiny_issues),
        *("--output", tmp_path / "two.jsonl", "--block_size", 33),
        processes=2,
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
        file.write("no number\r\n")
    rows.append({"title": "no number", "number": ""})
    tag("--data", tmp_path / "new.csv.gz")
    lines = read_lines(tmp_path / "tagged.jsonl")
    assert [{name: line[name] for name in ("title", "number")} for line in lines] == rows

    text = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    tag("--data", write(tmp_path / "new.jsonl.gz", text))
    assert len(read_lines(tmp_path / "tagged.jsonl")) == 3


def test_a_note_says_if_the_encoder_does_not_know_the_texts(tag, words, trained, tmp_path):
    rows = [{"title": "ข้อผิดพลาด"}, {"title": "สวัสดี"}, {"title": ""}]
    data = ["--data", write(tmp_path / "thai.jsonl", rows)]
    printed = tag(*data, "--block_size", "1", "--model", words, trained[0])
    note = rf"note: {trained[0]}: \d+% of the tokens of the texts are unknown"
    assert len(re.findall(note, printed)) == printed.count("unknown") == 1
    assert "unknown" not in tag("--data", write(tmp_path / "new.jsonl", ROWS))


def test_of_a_folder_a_note_says_it_once_for_all_files(tag, words, trained, tmp_path):
    (tmp_path / "texts").mkdir()
    write(tmp_path / "texts" / "a.jsonl", ROWS)
    thai = [{"title": "ข้อผิดพลาด", "body": None}, {"title": "", "body": None}]
    write(tmp_path / "texts" / "b.jsonl", thai * 9)
    flags = ["--data", "texts", "--output", "out", "--block_size", "4", "--model"]
    printed = tag(*flags, words, trained[0])
    note = rf"note: {trained[0]}: \d+% of the tokens of the texts are unknown"
    assert len(re.findall(note, printed)) == printed.count("unknown") == 1
    assert "unknown" not in tag(*flags, words, trained[0])  # nothing is left to tag
    assert "unknown" not in tag(
        "--data", "texts/a.jsonl*", "--output", "other", *flags[4:], trained[0]
    )


def test_a_label_applies_where_its_score_reaches_the_threshold(tag, tmp_path, monkeypatch):
    data = write(tmp_path / "new.jsonl", ROWS[:1])
    for threshold in (0.0, 0.3, 0.5, 1.0):
        tag("--data", data, "--threshold", threshold)
        (line,) = read_lines(tmp_path / "tagged.jsonl")
        assert line["labels"] == [
            name for name, score in line["scores"].items() if score >= threshold
        ]

    monkeypatch.setattr(
        "shared.evaluation.calibration.sigmoid", lambda z: np.full(np.shape(z), 0.5)
    )
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
    own = load_tagger(trained[0])
    thresholds = dict(zip(own.label_names, own.calibrated_rule.thresholds, strict=True))
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


def test_labels_that_are_called_as_transformers_would_call_them(tag, tagger_copy, tmp_path):
    rename_labels(tagger_copy)
    data = write(tmp_path / "new.jsonl", ROWS)
    tag("--model", tagger_copy, "--data", data)
    first = read_lines(tmp_path / "tagged.jsonl")[0]
    assert set(first["scores"]) == {f"LABEL_{i}" for i in range(4)}
    # The same names in a classifier without a rule of its own are made up.
    change_json(tagger_copy / "config.json", thresholds=None)
    assert "the config names no labels" in tag.mistake("--model", tagger_copy, "--data", data)


BROKEN_TAGGERS = {
    "no labels": (
        lambda folder: change_json(folder / "config.json", id2label=None, label2id=None),
        "the config names no labels",
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
    assert line.startswith(f"{tiny_model}: the config names no labels; train a tagger")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model", "./nowhere"], "--model ./nowhere: no such folder"),
        (["--model", "some/one"], "--model some/one: no such folder, not in the local cache"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--dta", "new.jsonl"], "unknown flag --dta; did you mean --data?"),
        (["--text_columns", "titel"], "no column 'titel'"),
        (["--block_size", 0], "--block_size 0: must be 1 or more"),
        (["--threshold", 1.5], "--threshold 1.5: must be 0 or more, at most 1"),
        (["--threshold", "nan"], "--threshold nan: must be 0 or more, at most 1"),
        (["--output", "."], "--output .: must end with .jsonl, .ndjson, .csv, .tsv, .parquet"),
        (["--output", "a.xlsx"], "--output a.xlsx: must end with .jsonl, "),
        (["--output", "a.parquet.gz"], "--output a.parquet.gz: must end with .jsonl, "),
        (["--output", "new.jsonl/a.csv"], "--output new.jsonl/a.csv: cannot be written"),
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
        (b'{"title": "a"}\n' * 9 + b'{"title": "\x81"}\n', "line 10: not UTF-8"),
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

    monkeypatch.setattr(LengthGroupedTrainer, "predict", interrupt)
    data = write(tmp_path / "new.jsonl", ROWS)
    assert tag.mistake("--data", data, code=130) == "interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]


def test_the_output_never_replaces_the_input(tag, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    (tmp_path / "link.jsonl").symlink_to(data)
    (tmp_path / "hard.jsonl").hardlink_to(data)
    (tmp_path / "below").mkdir()
    before = data.read_bytes()
    for output in ("new.jsonl", "below/../new.jsonl", data, "link.jsonl", "hard.jsonl"):
        line = tag.mistake("--data", data, "--output", output, "--model", "no such model")
        assert line == f"--output {output}: is the same file as --data; choose another name"
    tag.mistake("--data", "link.jsonl", "--output", "new.jsonl")
    assert data.read_bytes() == before


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


# --- taggers of any method -----------------------------------------------------------------------


def test_taggers_of_different_methods_are_averaged(tag, trained, words, tiny_issues, tmp_path):
    tag("--data", tiny_issues, "--model", trained[0], words)
    texts = [f"{row['title']}\n\n{row['body']}" for row in read_lines(tiny_issues)]
    expected = load_tagger(trained[0]).scores(texts) + load_tagger(words).scores(texts)
    lines = read_lines(tmp_path / "tagged.jsonl")
    scores = [[line["scores"][name] for name in LABELS] for line in lines]
    np.testing.assert_allclose(scores, expected / 2, atol=1e-5)


def test_a_tagger_whose_files_changed_is_refused(tag, trained, tmp_path):
    copy = shutil.copytree(trained[0], tmp_path / "copy")
    data = write(tmp_path / "new.jsonl", ROWS)
    tag("--model", copy, "--data", data)  # a copy is as good as the original
    change_json(copy / "config.json", thresholds=[0.9] * 4)
    line = tag.mistake("--model", copy, "--data", data)
    assert line.startswith(f"{copy}/config.json: changed since the tagger was saved")


def test_scores_agree_with_the_pipeline_of_transformers(trained, tiny_issues):
    from transformers import pipeline

    texts = [row["title"] for row in read_lines(tiny_issues)[:20]]
    classify = pipeline("text-classification", model=str(trained[0]), top_k=None, device="cpu")
    scores = load_tagger(trained[0]).raw_scores(texts)
    for row, expected in zip(scores, classify(texts, truncation=True), strict=True):
        by_name = {score["label"]: score["score"] for score in expected}
        np.testing.assert_allclose(row, [by_name[name] for name in LABELS], atol=1e-5)


# --- formats, rows, interruptions ----------------------------------------------------------------


def test_csv_and_parquet_hold_what_json_lines_hold(tag, words, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    for name in ("tagged.jsonl", "tagged.csv", "tagged.parquet"):
        tag("--data", data, "--model", words, "--output", name)
    lines = read_lines(tmp_path / "tagged.jsonl")
    with open(tmp_path / "tagged.csv", encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert list(cells[0]) == [
        *("title", "body", "number", "input_labels", "nested", "input_scores"),
        *("labels", *(f"scores.{name}" for name in LABELS)),
    ]
    table = pyarrow.parquet.read_table(tmp_path / "tagged.parquet").to_pylist()
    for line, cell, row in zip(lines, cells, table, strict=True):
        assert cell["labels"] == ",".join(line["labels"])
        assert cell["number"] == str(row["number"]) == str(line["number"])
        assert (row["labels"], row["title"]) == (line["labels"], line["title"])
        for name in LABELS:
            score = line["scores"].get(name)
            assert cell[f"scores.{name}"] == ("" if score is None else str(score))
            assert (row["scores"] or {}).get(name) == score
    assert json.loads(cells[2]["nested"]) == ROWS[2]["nested"]
    assert table[2]["input_scores"] == "own"


def test_every_ending_is_read_back_as_it_was_written(tag, words, tmp_path):
    texts = ["crash\rfails", 'he said "no"', '"quoted"', "a\tb, c;\nd", " x ", "\\"]
    data = write(tmp_path / "new.jsonl", [{"text": text} for text in texts])
    names = ["out.jsonl.gz", "out.ndjson", "out.csv", "out.csv.gz", "out.tsv", "out.TSV.GZ"]
    labels = {}
    for name in names:
        tag("--data", data, "--model", words, "--output", name)
        assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == ("gz" in name.lower())
        rows = list(open_source(str(tmp_path / name)).read())
        assert [row["text"] for row in rows] == texts
        labels[name] = [row["labels"] for row in rows]
    assert labels["out.csv"] == labels["out.TSV.GZ"]
    assert labels["out.csv"] == [",".join(row) for row in labels["out.jsonl.gz"]]


def test_tables_of_other_programs_are_tagged(tag, words, tmp_path):
    data = write(tmp_path / "new.tsv", 'text\tid\n"crash\t1\nok\t2\nfails"\t3\n6" pipe\t4\n')
    printed = tag("--data", data, "--model", words)
    assert "note: quotation marks are read as plain characters (--quoting none)" in printed
    assert [line["id"] for line in read_lines(tmp_path / "tagged.jsonl")] == ["1", "2", "3", "4"]
    data = write(tmp_path / "new.csv", "text:id\na:1\n")
    tag("--data", data, "--model", words, "--delimiter", ":")
    assert [line["text"] for line in read_lines(tmp_path / "tagged.jsonl")] == ["a"]


def test_with_top_scores_each_format_holds_the_best_ones(tag, words, tmp_path):
    write(tmp_path / "in.jsonl", ROWS)
    outputs = {}
    for suffix in ("jsonl", "csv", "parquet"):
        name = f"top.{suffix}"
        tag("--model", words, "--data", "in.jsonl", "--top_scores", 1, "--output", name)
        outputs[suffix] = tmp_path / name
    whole = tmp_path / "all.jsonl"
    tag("--model", words, "--data", "in.jsonl", "--output", whole)
    expected = []
    for row in read_lines(whole):
        best = {*list(row["scores"])[:1], *row["labels"]}
        expected.append({name: row["scores"][name] for name in row["scores"] if name in best})
    assert [row["scores"] for row in read_lines(outputs["jsonl"])] == expected
    assert expected[1] == {}  # a row without text
    with outputs["csv"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["scores"]) for row in rows] == expected
    assert not [name for name in rows[0] if name.startswith("scores.")]
    table = pyarrow.parquet.read_table(outputs["parquet"])
    assert [dict(scores) for scores in table["scores"].to_pylist()] == expected
    assert "--top_scores 0: must be 1 or more" in tag.mistake("--top_scores", 0)


def test_parquet_keeps_the_types_of_the_input(tag, words, tmp_path):
    day = datetime.datetime(2026, 1, 2, 3, 4)
    table = pyarrow.table(
        {"text": ["crash", "docs"], "day": [day, None], "n": [1, 2], "x": [0.5, 1]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "new.parquet")
    tag("--data", tmp_path / "new.parquet", "--model", words, "--output", "tagged.parquet")
    tagged = pyarrow.parquet.read_table(tmp_path / "tagged.parquet")
    assert tagged.column_names == ["text", "day", "n", "x", "labels", "scores"]
    assert tagged.select(table.column_names).to_pylist() == table.to_pylist()


def test_a_column_of_mixed_values_becomes_text_in_parquet(tag, words, tmp_path):
    rows = [{"text": "a", "v": 1}, {"text": "b", "v": "one"}, {"text": "c", "v": {"d": [2]}}]
    tag(
        *("--data", write(tmp_path / "new.jsonl", rows), "--model", words),
        *("--output", "tagged.parquet"),
    )
    values = pyarrow.parquet.read_table(tmp_path / "tagged.parquet")["v"].to_pylist()
    assert values == ["1", "one", '{"d": [2]}']


def test_labels_with_commas_get_another_separator_in_csv(tag, tmp_path):
    names = ["books, music", "film"]
    rule = DecisionRule.of(0.0, 2)
    classifier = fit_words(naive_bayes(), ["page song", "screen"], np.eye(2, dtype=int))
    Tagger(names, rule, WordScorer(classifier)).save(tmp_path / "comma")
    data = write(tmp_path / "new.jsonl", [{"text": "song"}])
    tag("--data", data, "--model", tmp_path / "comma", "--output", "tagged.csv")
    with open(tmp_path / "tagged.csv", encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["labels"] == "books, music;film"


def test_rows_are_unlabelled_as_in_training(tag, words, tmp_path):
    cells = ["bug", " ", "[]", '{"choices": []}', [""], [], None, ["bug"], "{not labels}"]
    rows = [{"text": f"crash {i}", "labels": cell} for i, cell in enumerate(cells)]
    data, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "tagged.jsonl"
    tag("--data", data, "--model", words, "--only_unlabelled", "--output", out)
    assert [row["text"] for row in read_lines(out)] == [f"crash {i}" for i in range(1, 7)]


def test_only_unlabelled_rows(tag, words, tiny_issues, tmp_path):
    printed = tag("--data", tiny_issues, "--model", words, "--only_unlabelled")
    lines = read_lines(tmp_path / "tagged.jsonl")
    assert [line["title"] for line in lines] == [
        row["title"] for row in read_lines(tiny_issues) if not row["labels"]
    ]
    assert printed.startswith("12 rows tagged")
    line = tag.mistake("--data", tiny_issues, "--only_unlabelled", "--label_column", "tags")
    assert "no column 'tags'" in line


@pytest.mark.parametrize("name", ["tagged.jsonl", "tagged.csv", "tagged.parquet"])
@pytest.mark.parametrize(
    ("blocks", "resume"), [(1, []), (3, ["--resume"]), (1, ["--resume", "false"])]
)
def test_a_stopped_run_goes_on_with_the_same_output(
    blocks, resume, name, tag, words, tiny_issues, tmp_path, monkeypatch
):
    flags = ["--data", tiny_issues, "--model", words, "--block_size", 30, "--output", name]
    tag(*flags)
    expected = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()

    tag_texts, calls = Tagger.tag, []

    def interrupted(self, texts, *options):
        calls.append(len(texts))
        if len(calls) > blocks:
            raise KeyboardInterrupt
        return tag_texts(self, texts, *options)

    monkeypatch.setattr(Tagger, "tag", interrupted)
    assert tag.mistake(*flags, code=130) == "interrupted"
    assert not (tmp_path / name).exists()
    with open(tmp_path / f".{name}.records", "a", encoding="utf-8") as file:
        file.write('{"labels": ["bu')  # a block that was written in part
    calls.clear()
    monkeypatch.setattr(
        Tagger,
        "tag",
        lambda self, texts, *options: calls.append(1) or tag_texts(self, texts, *options),
    )
    printed = tag(*flags, *resume)
    if resume == ["--resume", "false"]:
        assert len(calls) == 5
        assert printed.startswith("132 rows tagged")
        return
    assert len(calls) == 5 - blocks
    assert printed.startswith(f"132 rows ({30 * blocks} by the stopped run) tagged in {name}")
    assert (tmp_path / name).read_bytes() == expected
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_run_that_was_killed_goes_on(words, tiny_issues, tmp_path):
    """SIGKILL, which no handler sees, at the moment that a block is being written."""
    out = tmp_path / "killed.jsonl"
    flags = ["--data", tiny_issues, "--model", words, "--block_size", 20, "--output", out]
    code = (
        "import os, signal, sys; sys.argv[1:2] = []; sys.path.insert(0, 'recipes')\n"
        "from shared.taggers import Tagger; tag = Tagger.tag; calls = []\n"
        "def kill(self, texts, *options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return tag(self, texts, *options)\n"
        "Tagger.tag = kill\n"
        "import tag as recipe; recipe.main()\n"
    )
    assert run_script("-c", code, "tag.py", *flags, check=False).returncode == -9
    assert not out.exists()
    process = run_script(SCRIPT, *flags, "--resume")
    assert process.stdout.startswith("132 rows (60 by the stopped run) tagged")
    whole = run_script(SCRIPT, *flags[:-1], tmp_path / "whole.jsonl")
    assert whole.stdout.startswith("132 rows tagged")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_another_run_starts_at_the_first_row_and_says_so(tag, words, tiny_issues, monkeypatch):
    flags = ["--data", tiny_issues, "--model", words, "--block_size", 40]
    assert tag(*flags, "--resume").startswith("132 rows tagged")  # no run was stopped
    tag_texts, calls = Tagger.tag, []

    def interrupted(self, texts, *options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return tag_texts(self, texts, *options)

    monkeypatch.setattr(Tagger, "tag", interrupted)
    tag.mistake(*flags, code=130)
    printed = tag(*flags, "--threshold", 0.9)
    assert printed.startswith("note: 80 rows of a stopped run are tagged again: it had other flags")
    assert "132 rows tagged" in printed


def test_a_full_disk_after_some_blocks_loses_none_of_them(
    tag, words, tiny_issues, tmp_path, monkeypatch
):
    flags = ["--data", tiny_issues, "--model", words, "--block_size", 40]
    add, calls = TaggedFile.add, []

    def full(self, records):
        calls.append(1)
        if len(calls) == 3:
            raise self._not_written(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        add(self, records)

    monkeypatch.setattr(TaggedFile, "add", full)
    assert "No space left on device" in tag.mistake(*flags)
    printed = tag(*flags)
    assert printed.startswith("132 rows (80 by the stopped run) tagged in tagged.jsonl")


def test_columns_that_a_csv_file_could_not_hold_are_named_first(tag, words, tmp_path):
    data = write(tmp_path / "new.jsonl", [{"text": "a"}, {"text": "b", "scores.bug": 1}])
    line = tag.mistake("--data", data, "--model", words, "--output", "tagged.csv")
    assert line == "--output tagged.csv: the input has a column 'scores.bug'; rename it"


def test_numbers_that_parquet_cannot_hold_become_text(tag, words, tmp_path):
    data = write(tmp_path / "new.jsonl", [{"text": "a", "n": 2**70}, {"text": "b", "n": 1}])
    tag("--data", data, "--model", words, "--output", "tagged.parquet")
    column = pyarrow.parquet.read_table(tmp_path / "tagged.parquet")["n"].to_pylist()
    assert column == [str(2**70), "1"]


# --- explanations --------------------------------------------------------------------------------


def test_explanations_name_words_and_neighbours(tag, words, trained, tiny_issues, tmp_path):
    rows = [{"title": "crash traceback", "explanation": "own"}, {"title": ""}]
    data = write(tmp_path / "new.jsonl", rows)
    for model in (words, trained[0]):
        flags = ["--data", data, "--model", model, "--explain", "--explain_data", tiny_issues]
        for name in ("tagged.jsonl", "tagged.csv", "tagged.parquet"):
            tag(*flags, "--output", name)
        lines = read_lines(tmp_path / "tagged.jsonl")
        assert [line.get("input_explanation") for line in lines] == ["own", None]
        explanation = lines[0]["explanation"]
        assert list(explanation["words"]) == lines[0]["labels"]
        assert explanation["words"]["bug"][0][0] in ("crash", "traceback")
        labelled = read_lines(tiny_issues)
        for neighbour in explanation["neighbours"]:
            assert labelled[neighbour["row"] - 1]["labels"] == neighbour["labels"]
        assert lines[1]["explanation"] == {"words": {}, "neighbours": []}
        with open(tmp_path / "tagged.csv", encoding="utf-8", newline="") as file:
            cells = [json.loads(row["explanation"]) for row in csv.DictReader(file)]
        column = pyarrow.parquet.read_table(tmp_path / "tagged.parquet")["explanation"]
        for others in (cells, map(json.loads, column.to_pylist())):
            assert list(others) == [line["explanation"] for line in lines]


def test_explanations_of_blocks_survive_an_interruption(
    tag, words, tiny_issues, tmp_path, monkeypatch
):
    flags = ["--data", tiny_issues, "--model", words, "--explain", "--block_size", 50]
    printed = tag(*flags, "--output", "whole.jsonl")
    assert "note: no neighbours are named: the tagger holds no training texts" in printed
    add, calls = TaggedFile.add, []

    def stop_after_one(self, records):
        if calls:
            raise KeyboardInterrupt
        calls.append(add(self, records))

    monkeypatch.setattr(TaggedFile, "add", stop_after_one)
    tag.mistake(*flags, code=130)
    monkeypatch.setattr(TaggedFile, "add", add)
    assert "50 by the stopped run" in tag(*flags)
    assert read_lines(tmp_path / "tagged.jsonl") == read_lines(tmp_path / "whole.jsonl")


def test_a_file_to_search_without_explanations_is_a_mistake(tag, tiny_issues):
    line = tag.mistake("--data", tiny_issues, "--explain_data", tiny_issues)
    assert line == "--explain_data: acts with --explain; add it"
    line = tag.mistake("--data", tiny_issues, "--explain", "--explain_data", "nowhere.jsonl")
    assert line == "nowhere.jsonl: no such file"


# --- calibration ---------------------------------------------------------------------------------


@pytest.fixture
def calibrated(words, tiny_issues):
    """The tagger of words, calibrated on the rows that it has not learned from."""
    tagger = load_tagger(words)
    rows = [row for row in read_lines(tiny_issues)[:120] if row["labels"]]
    texts = [f"{row['title']}\n\n{row['body']}" for row in rows]
    y = np.array([[name in row["labels"] for name in LABELS] for row in rows])
    scores = tagger.scores(texts)
    tagger.calibration = fit_calibration(scores, y, tagger.choose(scores))
    tagger.save(words)
    return words


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_texts_of_doubtful_labels_are_marked(suffix, tag, calibrated, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    output = tmp_path / f"tagged.{suffix}"
    tag("--model", calibrated, "--data", data, "--output", output, "--abstain", 0.9)
    if suffix == "jsonl":
        rows = read_lines(output)
    elif suffix == "csv":
        with output.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        values = [(row["confidence"] or None, row["unsure"]) for row in rows]
        rows = [{"confidence": c and float(c), "unsure": u == "True"} for c, u in values]
    else:
        rows = pyarrow.parquet.read_table(output).to_pylist()
    tagger = load_tagger(calibrated)
    tagger.unsure_below = 0.9
    expected = tagger(["crash with traceback\n\nit fails", " ", "typo in the docs"])
    for row, record in zip(rows, expected, strict=True):
        assert row["unsure"] == record["unsure"]
        assert row["confidence"] == pytest.approx(record["confidence"], abs=1e-5)
    assert (rows[1]["confidence"], rows[1]["unsure"]) == (None, True)


def test_a_target_precision_costs_recall_and_says_so(tag, calibrated, tmp_path):
    data = write(tmp_path / "new.jsonl", ROWS)
    printed = tag("--model", calibrated, "--data", data, "--target_precision", 0.9)
    assert "Precision 0.9 on held-out texts, and what it costs" in printed
    assert re.search(r"  bug +from a score of 0\.\d\d, recall \d\.\d\d", printed)


def test_what_needs_held_out_texts_is_refused_without_them(tag, words, trained):
    for flag in ("--abstain", "--target_precision"):
        line = tag.mistake("--model", words, flag, 0.9)
        assert line.startswith(f"{flag}: {words} has no figures of held-out texts; train it again")
        assert tag.mistake("--model", words, words, flag, 0.9).startswith(f"{flag}: takes one")
    line = tag.mistake("--threshold", 0.5, "--target_precision", 0.9)
    assert line == "--target_precision: chooses thresholds; remove --threshold"
