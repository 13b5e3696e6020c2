"""Tests of loading data: sources, labels, duplicates, the cache, error messages and flags."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_corpora import names, write

from shared.cli.arguments import parse_arguments
from shared.cli.errors import UserError
from shared.data import corpus as module
from shared.data.arguments import DataArguments, SplitArguments
from shared.data.corpus import (
    append_unknown_labels,
    load_data,
    load_held_out,
    unknown_label_names,
)
from shared.data.readers import ROOT

# No lone surrogates, which UTF-8 cannot hold, nor null characters, which CSV before Python 3.11
# cannot.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
LABELS = st.lists(st.sampled_from(["bug", "docs", "good first issue", "é"]), max_size=3)
# The number at the end makes the texts differ in more than white space.
ROWS = st.lists(st.tuples(TEXT, LABELS), min_size=2, max_size=20).map(
    lambda rows: [
        {"title": text, "body": f"text {number}", "labels": labels}
        for number, (text, labels) in enumerate(rows)
    ]
)


def to_csv(rows, delimiter):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def issue(number, *labels, **fields):
    return {
        "title": f"issue {number}",
        "body": None,
        "labels": [{"id": 1, "name": name, "color": "fff"} for name in labels],
        "pull_request": None,
        **fields,
    }


# Sources


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS, name=st.sampled_from(["a.jsonl.gz", "a.json", "a.csv", "a.tsv.gz", "a.parquet"]))
def test_every_format_gives_the_same_texts_and_labels(load, tmp_path, rows, name):
    rows = [{"title": "", "body": "first", "labels": ["bug"]}, *rows]
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        write(path, json.dumps(rows))
    elif ".jsonl" in name:
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        cells = [row | {"labels": ",".join(row["labels"])} for row in rows]
        write(path, to_csv(cells, "," if path.suffix == ".csv" else "\t"))
    # One cache per example: two files of the same size may get the same time stamp.
    corpus = load(path, cache_dir=tempfile.mkdtemp(dir=tmp_path), label_separator=",")
    expected = [
        row["body"] if not row["title"].strip() else f"{row['title']}\n\n{row['body']}"
        for row in rows
    ]
    assert list(corpus.dataset["text"]) == expected
    assert names(corpus) == [sorted(set(row["labels"])) or None for row in rows]
    assert list(corpus.dataset["row"]) == list(range(1, len(rows) + 1))


def test_github_json(load):
    rows = [
        issue(1, "bug", "docs", body="It breaks."),
        issue(2),
        issue(3, "bug", pull_request={"url": "https://example.org/pulls/3"}),
        issue(4, "docs"),
    ]
    corpus = load(rows)
    assert list(corpus.dataset["text"]) == ["issue 1\n\nIt breaks.", "issue 2", "issue 4"]
    assert list(corpus.dataset["row"]) == [1, 2, 4]
    assert names(corpus) == [["bug", "docs"], None, ["docs"]]
    assert corpus.report["pull_requests"] == 1
    assert len(load(rows, pull_requests=True).dataset) == 4


def test_pull_requests_in_parquet(load, tmp_path):
    rows = [issue(1, "bug"), issue(2, "bug", pull_request={"url": "x"}), issue(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert list(load(tmp_path / "a.parquet").dataset["row"]) == [1, 3]


def test_hub_class_ids_become_names(load, monkeypatch):
    ham_or_spam = datasets.ClassLabel(names=["ham", "spam"])
    features = {"text": datasets.Value("string"), "label": ham_or_spam}
    features["tags"] = datasets.List(datasets.ClassLabel(names=["x", "y"]))
    hub = datasets.Dataset.from_dict(
        {"text": ["a", "b"], "label": [1, -1], "tags": [[1, 0], []]},
        features=datasets.Features(features),
    )
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: hub)
    corpus = load("org/name")
    assert corpus.label_names == ["spam"]
    assert names(corpus) == [["spam"], None]  # the hub writes -1 for hidden labels
    corpus = load("org/name", label_column="tags")
    assert names(corpus) == [["x", "y"], None]


def test_strange_characters_survive(load, tmp_path):
    strange = ["null \0 byte", "emoji 👩‍👩‍👧", "carriage\r\nreturn", "rtl \u202e line\u2028sep"]
    rows = [{"text": text, "labels": "a"} for text in strange]
    assert list(load(rows).dataset["text"]) == strange
    # Half of a surrogate pair: JSON has it if a text was cut off in the middle of an emoji.
    rows = '{"text": "half \\ud83d", "labels": "a"}\n{"text": "", "labels": "a"}\n'
    assert load(write(tmp_path / "half.jsonl", rows)).dataset[0]["text"] == "half \ufffd"


# Labels


def test_unlabelled_and_negative_rows(load):
    rows = [
        {"text": "one", "labels": ["a", "b"]},
        {"text": "two", "labels": []},
        {"text": "three", "labels": None},
        {"text": "four", "labels": ["dropped"]},
        {"text": "five"},
    ]
    corpus = load(rows, drop_labels=["dropped"])
    assert names(corpus) == [["a", "b"], None, None, None, None]
    assert corpus.labelled.tolist() == [0]
    assert corpus.unlabelled.tolist() == [1, 2, 3, 4]
    corpus = load(rows, drop_labels=["dropped"], empty_labels="negative")
    assert names(corpus) == [["a", "b"], [], None, [], None]
    assert corpus.labelled.tolist() == [0, 1, 3]
    assert corpus.label_matrix(corpus.labelled).tolist() == [[1, 1], [0, 0], [0, 0]]


def test_label_map_renames_selects_and_merges(load, tmp_path):
    rows = [issue(1, "bug", "docs"), issue(2, "defect"), issue(3, "question"), issue(4, "docs")]
    path = write(tmp_path / "map.yaml", "docs: documentation\nbug: bug\ndefect: bug\n")
    corpus = load(rows, label_map=str(path))
    assert corpus.label_names == ["documentation", "bug"]  # in the order of the map
    assert names(corpus) == [["documentation", "bug"], ["bug"], None, ["documentation"]]
    assert corpus.report["labels_left_out"] == {"question": 1}
    # A map with the same path and other content must not use the old cache.
    write(path, "- docs\n- question\n")
    assert names(load(tmp_path / "rows.jsonl", label_map=str(path))) == [
        ["docs"],
        None,
        ["question"],
        ["docs"],
    ]
    # Labels are dropped by their new name.
    write(path, "docs: documentation\nbug: bug\n")
    corpus = load(rows, label_map=str(path), drop_labels=["documentation", "absent"])
    assert corpus.label_names == ["bug"]


def test_rare_labels_are_counted_without_duplicates_and_pull_requests(load):
    rows = [
        issue(1, "rare", "often"),
        issue(1, "rare", "often"),
        issue(2, "rare", pull_request={"url": "x"}),
        issue(3, "often"),
    ]
    corpus = load(rows, min_label_count=2)
    assert corpus.label_names == ["often"]
    assert corpus.report["labels"] == {"often": 2}
    assert corpus.report["labels_left_out"] == {"rare": 1}


def test_labels_of_a_trained_model(load, mistake):
    rows = [issue(1, "b"), issue(2, "c", "b"), issue(3)]
    corpus = load(rows, label_names=["c", "a", "b"], min_label_count=2)
    assert corpus.label_names == ["c", "a", "b"]
    assert corpus.label_matrix().tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    message = mistake([*rows, issue(4, "d"), issue(5, "d", "c")], label_names=["a", "b"])
    assert "rows.jsonl: labels that are not among the expected ones: c 2, d 2 (" in message
    assert "the first is in row 2; expected are a, b); leave them out with --drop_labels" in message
    assert load(rows, label_names=["a", "b"], drop_labels=["c"]).label_names == ["a", "b"]
    assert len(load([issue(1), issue(2)], label_names=["a"]).labelled) == 0


def test_a_held_out_file_has_the_labels_of_the_training_file(load, tmp_path):
    rows = [issue(1, "bug"), issue(2, "bug"), issue(3, "rare"), issue(4, "unwanted", "bug")]
    flags = {"min_label_count": 2, "drop_labels": ["unwanted"], "cache_dir": str(tmp_path)}
    corpus = load(rows, **flags)
    file = write(tmp_path / "test.jsonl", "".join(json.dumps(row) + "\n" for row in rows[1:]))
    args = SplitArguments(**flags, test_data=str(file))
    held_out = load_held_out(args, corpus)["test"]
    assert held_out.label_names == corpus.label_names == ["bug"]
    assert held_out.label_matrix(held_out.labelled).tolist() == [[1], [1]]
    assert load_held_out(SplitArguments(**flags), corpus) == {}


@pytest.fixture
def held_out(load, tmp_path):
    """`held_out(rows, test rows, **flags)` returns both data sets, from `load_held_out`."""

    def held_out(rows, test_rows, **flags):
        file = write(tmp_path / "test.jsonl", "".join(json.dumps(row) + "\n" for row in test_rows))
        args = SplitArguments(test_data=str(file), cache_dir=str(tmp_path / "cache"), **flags)
        data_flags = {name: value for name, value in flags.items() if name != "unknown_labels"}
        corpus = load(rows, **data_flags)
        return corpus, load_held_out(args, corpus)["test"]

    return held_out


UNKNOWN = [
    issue(11, "bug"),
    issue(12, "new", "bug", "typo"),
    issue(13, "new"),
    issue(14),
    issue(15, "docs", "rare"),
    issue(13, "typo"),  # an exact duplicate
]


def test_labels_that_only_a_held_out_file_has_are_kept_apart(held_out):
    rows = [issue(1, "bug"), issue(2, "docs"), issue(3, "docs", "bug"), issue(4, "rare", "bug")]
    corpus, test = held_out(rows, UNKNOWN, min_label_count=2)
    assert test.label_names == corpus.label_names == ["bug", "docs"]
    assert test.report["unknown_labels"] == {"new": 2, "typo": 1}
    # A row with unknown labels only is labelled; labels that --data has left out are not unknown.
    assert test.labelled.tolist() == [0, 1, 2, 4]
    assert test.label_matrix(test.labelled).tolist() == [[1, 0], [1, 0], [0, 0], [0, 1]]
    rows = test.dataset.select(test.labelled)
    predicted = np.array([[1, 0], [1, 1], [0, 1], [0, 1]], bool)
    scores = np.where(predicted, 0.75, 0.25) - 0.5
    arrays = append_unknown_labels(rows, test.label_matrix(test.labelled), predicted, scores)
    y, y_pred, y_scores = arrays
    assert unknown_label_names(rows) == ["new", "typo"]
    assert y.tolist() == [[1, 0, 0, 0], [1, 0, 1, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert y_pred.tolist() == [[*row, False, False] for row in predicted.tolist()]
    assert y_scores.tolist() == [[*row, -0.25, -0.25] for row in scores.tolist()]
    note = "test.jsonl has labels that --data does not have: new 2, typo 1; they count as misses"
    assert test.describe(brief=True).count("note: ") == 1
    assert note in test.describe(brief=True)
    assert "note: " not in corpus.describe()


def test_without_unknown_labels_nothing_changes(held_out, load):
    rows = [issue(1, "bug"), issue(2, "docs")]
    _, test = held_out(rows, [issue(3, "docs"), issue(4, "bug")])
    assert unknown_label_names(test.dataset) == []
    assert "unknown_labels" not in test.dataset.column_names
    assert "note: " not in test.describe(brief=True)
    y = test.label_matrix()
    assert all(array is y for array in append_unknown_labels(test.dataset, y, y))
    same = load([issue(3, "docs"), issue(4, "bug")])
    assert test.fingerprint == same.fingerprint


def test_the_fingerprint_covers_unknown_labels(held_out):
    rows = [issue(1, "bug"), issue(2, "docs")]
    fingerprints = {
        held_out(rows, [issue(3, "docs"), issue(4, "bug", *labels)])[1].fingerprint
        for labels in ([], ["new"], ["typo"], ["new", "typo"])
    }
    assert len(fingerprints) == 4


def test_one_error_names_all_unknown_labels(held_out):
    rows = [issue(1, "bug"), issue(2, "docs"), issue(3, "rare")]
    held_out(rows, UNKNOWN)  # the cached file must not serve the next call
    with pytest.raises(UserError) as error:
        held_out(rows, UNKNOWN, unknown_labels="error")
    message = str(error.value)
    assert "\n" not in message
    assert "test.jsonl: labels that are not among the expected ones: new 2, typo 1 (" in message
    assert "row 2; expected are bug, docs, rare); leave them out with --drop_labels" in message
    held_out(rows, UNKNOWN, unknown_labels="error", drop_labels=["new", "typo"])
    held_out(rows, UNKNOWN)


def test_fingerprint_depends_on_rows_and_labels_but_not_on_the_file(load, tmp_path):
    rows = [issue(1, "bug"), issue(2, "speed"), issue(3)]
    fingerprint = load(rows).fingerprint
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        file = write(tmp_path / folder / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        args = DataArguments(data=str(file), cache_dir=str(tmp_path / "cache"))
        assert load_data(args).fingerprint == fingerprint
    assert load(rows[::-1]).fingerprint != fingerprint
    assert load([rows[0], issue(2, "fast"), rows[2]]).fingerprint != fingerprint
    assert load([rows[0], issue(2, "bug", "speed"), rows[2]]).fingerprint != fingerprint


def test_cached_file_without_labels_is_an_error_if_labels_are_required(tmp_path):
    data = write(tmp_path / "rows.jsonl", '{"text": "one", "labels": []}\n{"text": "two"}\n')
    args = DataArguments(data=str(data), cache_dir=str(tmp_path / "cache"))
    assert load_data(args, labels_required=False).label_names == []
    with pytest.raises(UserError, match="no row has a label"):
        load_data(args)


def test_held_out_files_of_unlabelled_texts_may_have_any_labels(tmp_path):
    data = write(tmp_path / "rows.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    for number, labels in enumerate([["bug", "docs"], []]):
        row = {"text": "three"} | ({"labels": labels} if labels else {})
        test_data = write(tmp_path / f"test{number}.jsonl", json.dumps(row))
        args = SplitArguments(
            data=str(data), test_data=str(test_data), cache_dir=str(tmp_path / "cache")
        )
        held_out = load_held_out(args, load_data(args, labels_required=False))["test"]
        assert len(held_out.dataset) == 1
        assert held_out.label_names == labels


def test_rows_that_another_file_repeats(load, tmp_path):
    words = [f"w{i}" for i in range(60)]
    nearly = " ".join([*words[:-1], "changed"])
    rows = [issue(1, "a"), issue(2, "a", title=" ".join(words)), issue(3, "a"), issue(4, "a")]
    corpus = load(rows)
    test = load([issue(9, "a", title=nearly), issue(10, "a")], cache_dir=str(tmp_path / "b"))
    valid = load([issue(4, "a"), issue(11, "a")], cache_dir=str(tmp_path / "c"))
    assert corpus.repeats([]).tolist() == [False] * 4
    assert corpus.repeats([test]).tolist() == [False, True, False, False]
    assert corpus.repeats([valid, test]).tolist() == [False, True, False, True]


def test_label_matrix_of_any_rows(load):
    rng = np.random.default_rng(0)
    expected = (rng.random((300, 6)) < 0.4).astype(np.uint8)
    expected[0] = 1
    rows = [
        {"text": f"text {i}", "labels": np.flatnonzero(row).tolist()}
        for i, row in enumerate(expected)
    ]
    corpus = load(rows)
    assert corpus.label_matrix().dtype == np.uint8
    np.testing.assert_array_equal(corpus.label_matrix(), expected)
    sample = rng.integers(300, size=50)
    np.testing.assert_array_equal(corpus.label_matrix(sample), expected[sample])
    assert corpus.label_matrix([]).shape == (0, 6)


# Duplicates and statistics


def test_near_duplicates_share_a_group(load):
    words = [f"word{i}" for i in range(60)]
    texts = [" ".join(words), " ".join(words[::-1]), " ".join([*words, "more"]), "short", "SHORT"]
    corpus = load([{"text": text, "labels": "a"} for text in texts])
    assert corpus.groups.tolist() == [0, 1, 0, 2, 2]
    assert corpus.report["near_duplicates"] == 4
    assert corpus.report["near_duplicate_groups"] == 2


def test_report_and_description(load):
    rows = [{"text": "w " * n + str(n), "labels": ["a"]} for n in range(99)]
    rows += [{"text": blank, "labels": ["a"]} for blank in (None, "", " \n\t\u00a0")]
    rows += [{"text": "multi label", "labels": ["a", "good first issue"]}]
    corpus = load(rows, min_label_count=2)
    report = json.loads(json.dumps(corpus.report))
    assert report == corpus.report
    assert report["rows_read"] == 103
    assert report["blank_texts"] == 3
    assert report["first_blank_rows"] == [100, 101, 102]
    assert report["rows"] == report["labelled"] == 100
    assert report["words"]["p50"] == np.median([*range(1, 100), 2])
    assert report["words"]["max"] == 99
    description = corpus.describe()
    for part in ("103 rows read", "blank texts (rows 100, 101, 102) 3", "a 100", "longest 99"):
        assert part in description
    assert "good first issue 1" in description
    assert len(description.splitlines()) <= 12
    assert max(map(len, description.splitlines()[1:])) <= 100


def test_summary_counts_labels_and_texts_with_their_shares(load):
    rows = [issue(n, *[f"l{i}" for i in range(n % 9)]) for n in range(1, 91)]
    description = load(rows, empty_labels="negative").describe()
    # 90 texts with 0 to 8 labels, ten of each number.
    assert (
        "labels per labelled text: 0 on 10 (11%), 1 on 10 (11%), 2 on 10 (11%), 3 on 10 (11%), "
        "4 on 10 (11%), 5 on 10 (11%), 6 or more on 30 (33%), at most 8"
    ) in " ".join(description.split())
    assert "8 labels, 4.00 per labelled text:\n  l0 80 (89%), l1 70 (78%), l2 60" in description
    assert max(map(len, description.splitlines()[1:])) <= 100


def test_summary_of_hundreds_of_labels_is_short(load):
    rows = [issue(n, f"label {n % 300}") for n in range(700)]
    lines = load(rows).describe().splitlines()
    assert "labels per labelled text: 1 on 700 (100%)" in lines
    assert "300 labels, 1.00 per labelled text:" in lines
    assert " ".join(" ".join(lines).split()).endswith("and 280 more with 2 to 3 texts")
    assert len(lines) < 13
    assert max(map(len, lines[1:])) <= 100


# The cache


def test_second_load_reads_nothing(load, tmp_path, monkeypatch):
    rows = [issue(1, "a"), issue(2, "b")]
    first = load(rows)
    path = tmp_path / "rows.jsonl"
    monkeypatch.setattr(module, "prepare", None)
    second = load(path)
    assert second.report == first.report
    assert second.dataset[:] == first.dataset[:]
    assert second.dataset.cache_files == first.dataset.cache_files
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".arrow"]
    with pytest.raises(TypeError):
        load(path, min_label_count=2)  # another flag: the cache does not apply


def test_changed_file_is_read_again(load, tmp_path):
    path = write(tmp_path / "a.csv", "text,labels\nold,a\nb,b\n")
    assert load(path).dataset[0]["text"] == "old"
    before = path.stat().st_mtime_ns
    write(path, "text,labels\nnew,a\nb,b\n")
    os.utime(path, ns=(before + 1, before + 1))
    assert load(path).dataset[0]["text"] == "new"


def first_batch(content):
    """Return the file cut off after its first batch of rows, which Arrow reads without an error."""
    with pa.ipc.open_stream(content) as stream, pa.BufferOutputStream() as short:
        with pa.ipc.new_stream(short, stream.schema) as writer:
            writer.write_batch(stream.read_next_batch())
        return short.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b"x" * 99, lambda b: b[: len(b) // 2], first_batch]
)
def test_damaged_cache_is_rebuilt(load, tmp_path, damage):
    expected = load([issue(i, "a") for i in range(1500)]).dataset[:]
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(damage(cached.read_bytes()))
    assert load(tmp_path / "rows.jsonl").dataset[:] == expected


def test_several_processes_at_once(load, tmp_path):
    load([issue(i, "a") for i in range(50)])
    with ThreadPoolExecutor(4) as pool:
        flags = {"cache_dir": str(tmp_path / "shared cache")}
        corpora = list(pool.map(lambda _: load(tmp_path / "rows.jsonl", **flags), range(4)))
    assert all(corpus.dataset[:] == corpora[0].dataset[:] for corpus in corpora)
    assert len(list((tmp_path / "shared cache").iterdir())) == 1


def test_failure_leaves_nothing_in_the_cache(load, tmp_path):
    with pytest.raises(UserError):
        load([{"text": "a", "labels": 1.5}])
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_preparations_are_the_same(load, tmp_path):
    rows = [issue(i % 40, f"label {i % 7}") for i in range(200)]
    files = []
    for name in ("first", "second"):
        load(rows, cache_dir=str(tmp_path / name))
        files += [path.read_bytes() for path in (tmp_path / name).iterdir()]
    assert files[0] == files[1]


def test_default_cache_and_cache_folder_that_cannot_be_written(
    load, mistake, tmp_path, monkeypatch
):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    load([issue(1, "a"), issue(2, "a")], cache_dir=None)
    assert len(list((tmp_path / "hf" / "recipes").iterdir())) == 1
    write(tmp_path / "file", "")
    message = mistake([issue(1, "a"), issue(2, "a")], cache_dir=str(tmp_path / "file" / "below"))
    assert message.startswith("--cache_dir ")
    assert "cannot be written (Not a directory)" in message


def test_rows_are_not_held_as_python_objects(load, tmp_path):
    """Per row, the peak of Python and NumPy memory grows only by the arrays (about 250 bytes)."""

    def peak(n):
        # Of seven words: longer texts that differ in one word are near duplicates, whose search has
        # up to `MAX_KEYS` keys in memory, whatever the number of rows.
        line = '{"text": "number # of words in a row", "labels": ["a", "b"]}\n'
        path = write(tmp_path / f"{n}.jsonl", "".join(line.replace("#", str(i)) for i in range(n)))
        tracemalloc.start()
        load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(100)  # imports and compiles
    assert (peak(15_000) - peak(5_000)) / 10_000 < 350


# Mistakes


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({"text": 5}, "column 'text' holds 5 (int), not text"),
        ({"text": float("inf")}, "column 'text' holds Infinity (float), not text"),
        ({"text": ["a"]}, "column 'text' holds a list, not text"),
        ({"labels": [float("nan")]}, "the label is NaN (float); give names or whole numbers"),
        ({"labels": 1.0}, "the label is 1 (int), but the labels before it are not"),
        ({"labels": True}, "the label is true (bool), but the labels before it are not"),
        ({"labels": ["a", None]}, "the label is null"),
        ({"labels": [0.5, 1.0]}, "the label is 0.5 (float)"),
        ({"labels": [{"id": 1}]}, "the label is null"),
        ({"labels": [["a"]]}, "the label is a list"),
        ({"labels": "nan"}, "the label is nan"),
        ({"labels": "1.5"}, "the label is 1.5"),
        ({"labels": "[{'a': 'b'}]"}, "is a printed list"),
        ({"labels": [0, 0, 1]}, "labels [0, 0, 1] repeat"),
        ({"labels": 3}, "the label is 3 (int), but the labels before it are not"),
    ],
)
def test_bad_cell_is_named(mistake, bad, expected):
    rows = [{"text": f"text {i}", "labels": ["a"]} for i in range(3)]
    rows[1] |= bad
    message = mistake(rows)
    assert "rows.jsonl, row 2: " in message
    assert expected in message


def test_nan_in_csv_and_parquet(mistake, tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,bug\nb,NaN\n")
    assert "a.csv, row 2: the label is NaN" in mistake(path)
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0.5, None]}), tmp_path / "a.parquet")
    assert "a.parquet, row 1: the label is 0.5 (float)" in mistake(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"text": None, "labels": "a"}, {"text": " ", "labels": "a"}], "2 are blank"),
        ([{"text": "", "labels": "a"}, {"text": "\n", "labels": "a"}], "no text left of 2 rows"),
        ([{"text": "x", "labels": "a"}] * 3, "all 3 texts are the same"),
        ([{"text": "x", "labels": []}, {"text": "y", "labels": None}], "no row has a label"),
    ],
)
def test_nothing_to_learn_from(mistake, rows, expected):
    assert expected in mistake(rows)


def test_only_pull_requests(mistake):
    message = mistake([issue(1, "a", pull_request={"url": "x"})])
    assert "1 are pull requests (--pull_requests keeps them)" in message


def test_no_label_is_frequent_enough(mistake):
    rows = [issue(1, "a"), issue(2, "a"), issue(3, "b")]
    message = mistake(rows, min_label_count=3)
    assert (
        "no label occurs on 3 rows (--min_label_count); the most frequent, 'a', occurs on 2"
        in message
    )
    assert "--min_label_count 0: must be at least 1" in mistake(rows, min_label_count=0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [", "not valid YAML"),
        ("just text", "expected a list of labels or a mapping"),
        ("", "expected a list of labels or a mapping"),
        ("a:\n", "'' is not a label name"),
        ("a: x\nb: y\na: z\n", "line 3: 'a' is there a second time"),
        ("[" * 5000, "nested too deeply"),
        ("- [a]\n", "['a'] is not a label name"),
        ("- bugs\n", "no row of {data} has the label 'bugs'; did you mean 'bug'?"),
    ],
)
def test_label_map_mistakes(mistake, tmp_path, content, expected):
    path = write(tmp_path / "map.yaml", content)
    message = mistake([issue(1, "bug"), issue(2, "a")], label_map=str(path))
    assert f"--label_map {path}: " in message
    assert expected.replace("{data}", str(tmp_path / "rows.jsonl")) in message


def test_label_map_that_is_not_there(mistake):
    assert "gone.yaml: No such file" in mistake([issue(1, "bug")], label_map="gone.yaml")


def test_labels_of_a_map_are_spelt_as_in_the_file(load, tmp_path):
    labels = ["007", "yes", "1.10", "null", "1:30", "2020-13-45"]
    path = write(tmp_path / "map.yaml", "".join(f"- {label}\n" for label in labels))
    rows = [issue(number, label) for number, label in enumerate([*labels, "7", "true"])]
    assert load(rows, label_map=str(path)).label_names == labels


def test_class_names_from_a_file(load, tmp_path):
    names = write(tmp_path / "names.txt", "joy\nno anger \nfear\n\n")
    rows = write(tmp_path / "rows.tsv", 'one\t2, 0\tx\n"two ""2"""\t1\ty\nthree\t\tz\n')
    flags = {"column_names": ["text", "labels", "id"], "class_names": str(names)}
    corpus = load(rows, **flags)
    assert corpus.label_names == ["joy", "no anger", "fear"]
    assert corpus.label_matrix().tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert corpus.unlabelled.tolist() == [2]
    numbers = [{"text": "one", "labels": [2]}, {"text": "two", "labels": [0]}]
    assert load(numbers, class_names=str(names)).label_names == ["joy", "fear"]
    write(names, "joy\nwrath\nfear\n")  # a changed name must not use the old cache
    assert load(rows, **flags).label_names == ["joy", "wrath", "fear"]


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        ("a\nb\n", "2", "row 1: there is no class 2; the 2 classes are numbered from 0"),
        (
            "a\nb\n",
            "joy",
            "row 1: the label is 'joy'; labels with class names must be whole numbers",
        ),
        ("a\nb\n", "-1", "row 1: the label is '-1'; labels with class names must be whole numbers"),
        ("\n", "0", "names.txt: the file is empty; write one name per line"),
        ("a\n\nb\n", "0", "names.txt, line 2: the line is blank; give each class its own name"),
        (
            "a\nb\na\n",
            "0",
            "names.txt, line 3: 'a' is on an earlier line, too; give each class its own name",
        ),
    ],
)
def test_class_name_mistakes(mistake, tmp_path, names, labels, expected):
    path = write(tmp_path / "names.txt", names)
    rows = [{"text": "one", "labels": labels}, {"text": "two", "labels": "0"}]
    assert expected in mistake(rows, class_names=str(path))


def test_class_names_that_cannot_be_read(mistake, tmp_path):
    rows = [{"text": "one", "labels": "0"}]
    assert "--class_names gone.txt: cannot be read" in mistake(rows, class_names="gone.txt")
    path = tmp_path / "names.txt"
    path.write_bytes(b"caf\xe9\n")
    assert f"--class_names {path}: not UTF-8" in mistake(rows, class_names=str(path))


# Flags


def test_flags():
    assert parse_arguments(DataArguments, []) == DataArguments()
    args = parse_arguments(
        DataArguments,
        ["--text_columns", "a", "b", "--drop_labels", "c", "--pull_requests", "--label_separator="],
    )
    assert args.text_columns == ["a", "b"]
    assert args.drop_labels == ["c"]
    assert args.pull_requests
    assert args.label_separator == ""
    for field in dataclasses.fields(DataArguments):
        assert "default" in field.metadata["help"]


def test_import_is_light():
    heavy = ["torch", "transformers", "datasets", "pyarrow", "numpy", "numba"]
    code = f"import sys, shared.data; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "[]\n", run.stderr


# Real data


@pytest.mark.skipif(
    not (ROOT.parent / "shared" / "data" / "hf-datasets-issues").is_dir()
    and "RECIPES_DATA" not in os.environ,
    reason="RECIPES_DATA does not name the folder with hf-datasets-issues",
)
def test_real_issues(load):
    corpus = load(
        "$RECIPES_DATA/hf-datasets-issues/issues.jsonl.gz",
        drop_labels=["duplicate", "wontfix"],
        min_label_count=19,
    )
    assert len(corpus.label_names) == 12
    assert len(corpus.labelled) == 1536
    assert corpus.report["pull_requests"] == 4239
    assert corpus.report["exact_duplicates"] == 2


def test_texts_without_spaces_and_texts_in_two_unicode_forms(load):
    texts = ["体育新闻", "财经新闻 news", "café", "cafe\u0301 "]
    corpus = load([{"text": text, "labels": "a"} for text in texts])
    assert list(corpus.dataset["words"]) == [4, 5, 1]
    assert corpus.report["exact_duplicates"] == 1
    assert "words or characters per text: median 4" in corpus.describe()
