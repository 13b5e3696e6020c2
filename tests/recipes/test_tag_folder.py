"""Tagging a folder of files: each row once, whatever dies; as tag.py does for each file."""

import json
import os
import signal
import sys
from importlib.util import find_spec

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Recipe, read_json, read_lines, write

from shared.cli import parse_arguments
from shared.evaluation import DecisionRule
from shared.methods import fit_words, naive_bayes
from shared.reports import folder_engines, input_parts, tagged_folder
from shared.taggers import Tagger, WordScorer

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='pip install -e ".[ray]"')
FIRST_RESULT = {"rows": 20, "texts": 19, "restarted": 0}  # of a worker
LABELS = ["bug", "documentation", "feature", "speed"]


@pytest.fixture(scope="module")
def rows(tiny_issues):
    rows = read_lines(tiny_issues)
    rows[3] = {"title": " ", "body": None, "labels": []}
    for number, row in enumerate(rows):
        row["number"] = number
    return rows


@pytest.fixture(scope="module")
def tagger_folder(rows, tmp_path_factory):
    texts = [f"{row['title']}\n\n{row['body']}" for row in rows[:120]]
    y = np.array([[name in row["labels"] for name in LABELS] for row in rows[:120]])
    folder = tmp_path_factory.mktemp("taggers") / "words"
    scorer = WordScorer(fit_words(naive_bayes(), texts, y))
    Tagger(LABELS, DecisionRule.of(0.5, len(LABELS)), scorer).save(folder)
    return folder


@pytest.fixture
def tag(monkeypatch, capfd, tagger_folder, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = ["--model", tagger_folder, "--use_cpu", "--block_size", 20]
    return Recipe("tag", monkeypatch, capfd, *flags)


@pytest.fixture
def texts(rows, tmp_path):
    """A folder of 50 and 52 rows as JSON lines, and 30 as Parquet."""
    folder = tmp_path / "texts"
    (folder / "below").mkdir(parents=True)
    write(folder / "a.jsonl", rows[:50])
    write(folder / "below" / "b.ndjson", "\n\n".join(json.dumps(row) for row in rows[50:102]))
    pq.write_table(pa.Table.from_pylist(rows[102:]), folder / "c.parquet", row_group_size=7)
    (folder / "notes.txt").write_text("not a file of rows")
    write(folder / ".hidden.jsonl", "nonsense")
    return folder


def tagged_rows(folder):
    """Return all rows of an output folder by their numbers; each must be there once."""
    rows = []
    for path in sorted(folder.rglob("*.*")):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        elif path.suffix == ".jsonl":
            rows += read_lines(path)
    by_number = {row["number"]: row for row in rows}
    assert len(by_number) == len(rows)
    return by_number


def part_names(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("[!.]*-*.*")}


def assert_as_one_file(tag, rows, folder):
    """Check the rows of an output folder against those of tag.py for one file."""
    tag("--data", write(folder.parent / "all.jsonl", rows), "--output", "one.jsonl")
    expected, actual = read_lines(folder.parent / "one.jsonl"), tagged_rows(folder)
    assert len(expected) == len(actual) == 132
    for row in expected:
        other = actual[row["number"]]
        assert other["labels"] == row["labels"]
        scores = {name: v for name, v in other["scores"].items() if v is not None}
        assert scores == pytest.approx(row["scores"], abs=1e-6)
        assert (other["title"], other["body"]) == (row["title"], row["body"])
        assert other["input_labels"] == row["input_labels"]


def test_rows_of_a_folder_are_tagged_as_those_of_a_file(tag, texts, rows, tmp_path):
    printed = tag("--data", texts)
    assert printed.startswith("132 rows (1 without text) of 3 files tagged in tagged, 8 files: ")
    out = tmp_path / "tagged"
    assert_as_one_file(tag, rows, out)
    assert part_names(out) == {
        *(f"a.jsonl-00000{i}.jsonl" for i in range(3)),
        *(f"below/b.ndjson-00000{i}.jsonl" for i in range(3)),
        *(f"c.parquet-00000{i}.parquet" for i in range(2)),
    }
    starts = {"a.jsonl": 0, "below/b.ndjson": 50, "c.parquet": 102}
    for number, row in tagged_rows(out).items():
        assert starts[row["input_file"]] + row["input_row"] - 1 == number
    manifest = read_json(out / "manifest.json")
    assert manifest["complete"]
    assert {part["name"] for part in manifest["parts"]} == part_names(out)
    assert sum(part["rows"] for part in manifest["parts"]) == 132
    types = pq.read_schema(out / "c.parquet-000001.parquet")
    assert types.field("number").type == pa.int64()
    assert types.names[-4:] == ["labels", "scores", "input_file", "input_row"]


def test_folders_may_lie_on_other_file_systems(tag, texts, rows, tmp_path):
    """On one of pyarrow, and on one of fsspec, which names its files in another way."""
    memory, name = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    memory.put(str(texts), f"/{tmp_path.name}/texts", recursive=True)
    for data, output in (
        (f"{name}/texts", (tmp_path / "here").as_uri()),
        (texts.as_uri(), f"{name}/tagged"),
        (f"{name}/texts/*.jsonl", f"{name}/of_a_pattern"),
    ):
        n_files, n_parts = (1, 3) if "*" in data else (3, 8)
        printed = tag("--data", data, "--output", output)
        assert f" of {n_files} files tagged in {output}, {n_parts} files: " in printed
        assert f"{n_parts} files ({n_parts} were there)" in tag("--data", data, "--output", output)
    assert_as_one_file(tag, rows, tmp_path / "here")
    memory.get(f"/{tmp_path.name}/tagged", str(tmp_path / "fetched"), recursive=True)
    assert_as_one_file(tag, rows, tmp_path / "fetched")
    line = tag.mistake("--data", f"{name}/texts", "--output", f"{name}/texts/tagged")
    assert "would be read as input" in line
    assert "cannot be read" in tag.mistake("--data", f"{name}/nothing")


def test_an_output_that_does_not_answer_is_one_line(tag, texts, monkeypatch):
    memory = fsspec.filesystem("memory")
    for method, error in (("info", OSError("no route")), ("mv", NotImplementedError("no move"))):
        with monkeypatch.context() as patched:

            def fail(*_, error=error, **__):
                raise error

            patched.setattr(type(memory), method, fail)
            line = tag.mistake("--data", texts, "--output", "memory://elsewhere")
            assert line.startswith("--output /elsewhere")
            assert line.endswith(f"cannot be written ({error}); choose another place")


def test_parquet_of_any_row_groups_is_cut_anywhere(tag, rows, tmp_path):
    for size in (1, 20, 1000):
        (tmp_path / f"groups{size}").mkdir()
        pq.write_table(
            pa.Table.from_pylist(rows),
            tmp_path / f"groups{size}" / "a.parquet",
            row_group_size=size,
        )
        tag("--data", f"groups{size}/*.parquet", "--output", f"out{size}", "--block_size", 33)
        assert_as_one_file(tag, rows, tmp_path / f"out{size}")


def test_a_run_that_was_stopped_goes_on(tag, texts, rows, tmp_path, monkeypatch):
    out, finished = tmp_path / "tagged", tagged_folder.PartTagger.__call__
    calls = []

    def stop_after_three(self, part):
        if len(calls) == 3:
            (out / "below").mkdir(exist_ok=True)
            (out / "below" / ".b.ndjson-000000.jsonl.7.0123abcd.tmp").write_text("half")
            raise KeyboardInterrupt
        calls.append(part.name)
        return finished(self, part)

    monkeypatch.setattr(tagged_folder.PartTagger, "__call__", stop_after_three)
    assert tag.mistake("--data", texts, code=130) == "interrupted"
    assert part_names(out) == set(calls)
    assert not read_json(out / "manifest.json")["complete"]
    before = {name: (out / name).stat().st_mtime_ns for name in calls}
    monkeypatch.setattr(tagged_folder.PartTagger, "__call__", finished)
    assert "8 files (3 were there)" in tag("--data", texts)
    assert {name: (out / name).stat().st_mtime_ns for name in calls} == before
    assert_as_one_file(tag, rows, out)
    assert not list(out.rglob("*.tmp"))


def test_parts_of_a_file_that_changed_are_tagged_again(tag, texts, rows, tmp_path):
    tag("--data", texts)
    out = tmp_path / "tagged"
    before = {name: (out / name).stat().st_mtime_ns for name in part_names(out)}
    write(texts / "a.jsonl", [row | {"changed": True} for row in rows[:30]])
    printed = tag("--data", texts)
    assert "note: 3 parts of files that changed are tagged again" in printed
    assert "a.jsonl-000002.jsonl" not in part_names(out)
    after = {name: (out / name).stat().st_mtime_ns for name in part_names(out)}
    assert {n for n in after if before[n] != after[n]} == {
        "a.jsonl-000000.jsonl",
        "a.jsonl-000001.jsonl",
    }
    assert sum("changed" in row for row in tagged_rows(out).values()) == 30


def test_other_flags_need_another_folder(tag, texts, tmp_path):
    tag("--data", texts)
    line = tag.mistake("--data", texts, "--threshold", 0.9)
    assert line == (
        "--output tagged: holds the parts of a run with other --threshold; choose another folder, "
        "or replace them with --resume false"
    )
    tag("--data", texts, "--threshold", 1, "--resume", "false")
    assert not any(
        row["labels"] for row in tagged_rows(tmp_path / "tagged").values() if row["number"] % 7
    )


def test_labelled_rows_can_be_left_out_and_labels_explained(tag, texts, tmp_path):
    tag("--data", texts, "--only_unlabelled", "--explain", "--explain_data", texts / "a.jsonl")
    rows = tagged_rows(tmp_path / "tagged")
    assert sorted(rows) == [3, *range(120, 132)]
    for number, row in rows.items():
        explanation = row["explanation"]
        explanation = json.loads(explanation) if isinstance(explanation, str) else explanation
        assert list(explanation["words"]) == row["labels"]
        assert len(explanation["neighbours"]) == (0 if number == 3 else 3)


def test_mistakes_are_one_line(tag, texts, rows, tmp_path):
    (tmp_path / "empty").mkdir()
    none = "no .parquet, .jsonl, .ndjson file is there"
    assert tag.mistake("--data", "empty") == f"--data empty: {none}"
    assert none in tag.mistake("--data", "texts/*.csv")
    assert "--data nothing://x: cannot be opened" in tag.mistake("--data", "nothing://x")
    write(tmp_path / "file", "x")
    assert (
        tag.mistake("--data", texts, "--output", "file")
        == "--output file: is a file; name a folder"
    )
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "thesis.tmp", "x")
    line = tag.mistake("--data", texts, "--output", "other")
    assert line == "--output other: holds other files; choose an empty folder"
    assert (tmp_path / "other" / "thesis.tmp").exists()
    write(texts / "d.jsonl", [{"text": "a"}])
    assert "the texts of" in tag.mistake("--data", texts)
    (texts / "d.jsonl").unlink()
    pq.write_table(pa.table({"title": ["a"], "other": [1]}), texts / "d.parquet")
    assert "has other columns than" in tag.mistake("--data", texts)
    (texts / "d.parquet").unlink()
    write(texts / "a.jsonl", [*rows[:25], {"title": 5}])
    line = tag.mistake("--data", texts)
    assert line == f"{texts}/a.jsonl, row 26: column 'title' holds 5 (int), not text"
    write(texts / "a.jsonl", '{"title": "a"}\n{"title": ')
    assert f"{texts}/a.jsonl, row 2: invalid JSON" in tag.mistake("--data", texts)
    assert "cannot be read" in tag.mistake("--data", write_damaged(texts))


@pytest.mark.parametrize(
    ("data", "output"),
    [
        ("texts", "texts"),
        ("texts", "texts/tagged"),
        ("texts/below", "texts"),
        ("*/a.jsonl*", "tagged"),
        ("texts/*.jsonl", "texts"),
    ],
)
def test_an_output_that_would_be_read_again_is_refused(data, output, tag, texts):
    line = tag.mistake("--data", data, "--output", output)
    assert line == (
        f"--output {output}: lies in --data {data}, or around it, so that it would be read as "
        "input; choose a folder beside it"
    )


def test_an_output_below_a_pattern_of_one_folder_is_not_read_again(tag, texts, monkeypatch):
    monkeypatch.chdir(texts)
    assert "50 rows (1 without text) of 1 files" in tag("--data", "*.jsonl")
    assert "3 files (3 were there)" in tag("--data", "*.jsonl")


def test_only_files_of_a_killed_worker_are_removed(tag, texts, tmp_path):
    tag("--data", texts)
    kept = write(tmp_path / "tagged" / "notes.tmp", "x")
    half = write(tmp_path / "tagged" / ".a.jsonl-000000.jsonl.7.0123abcd.tmp", "x")
    tag("--data", texts)
    assert kept.exists()
    assert not half.exists()


def test_a_mistake_about_the_taggers_leaves_the_output_free(tag, texts, tmp_path):
    tag.mistake("--data", texts, "--model", "nowhere")
    line = tag.mistake("--data", texts, "--model", "outputs/github_tagger")
    assert "outputs/github_tagger: no such folder; train a tagger with a recipe" in line
    tag.mistake("--data", texts, "--explain", "--explain_data", "nowhere.jsonl")
    assert not (tmp_path / "tagged").exists()
    tag("--data", texts)


def test_other_labelled_texts_need_another_folder(tag, texts, rows, tmp_path):
    labelled = write(tmp_path / "labelled.jsonl", rows[:30])
    flags = ("--data", texts, "--explain", "--explain_data", labelled)
    tag(*flags)
    write(labelled, rows[:40])
    assert "the parts of a run with other explain_data; choose" in tag.mistake(*flags)


def test_blocks_without_rows_to_tag(tag, rows, tmp_path):
    (tmp_path / "texts").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "texts" / "a.parquet")
    tag("--data", "texts", "--only_unlabelled")
    assert sorted(tagged_rows(tmp_path / "tagged")) == [3, *range(120, 132)]


def test_files_without_rows_are_passed_over(tag, texts, tmp_path):
    for name in ("0.jsonl", "z.jsonl"):
        write(texts / name, "\n")
    assert "132 rows (1 without text) of 5 files" in tag("--data", texts)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty" / "a.jsonl", "")
    line = tag.mistake("--data", "empty", "--output", "other")
    assert line == "--data: no file there has a row"


def test_columns_that_cannot_be_kept_are_one_line(tag, tmp_path):
    (tmp_path / "texts").mkdir()
    columns = {"text": ["a"], "labels": ["b"], "input_labels": ["c"]}
    pq.write_table(pa.table(columns), tmp_path / "texts" / "a.parquet")
    line = tag.mistake("--data", "texts")
    assert line.startswith(f"{tmp_path}/texts/a.parquet: labels and scores and input_file and")


def test_a_folder_with_brackets_in_its_name_is_no_pattern(tag, texts):
    texts.rename(texts.with_name("d[1]"))
    assert "132 rows (1 without text) of 3 files" in tag("--data", "d[1]")


def test_flags_of_csv_files_are_for_labelled_texts_only(tag, texts, rows, tmp_path):
    for flags in (["--column_names", "a"], ["--delimiter", ";"], ["--quoting", "none"]):
        line = tag.mistake("--data", texts, *flags)
        assert line == f"{flags[0]}: is for CSV and TSV files, which --data {texts} does not have"
    labelled = write(tmp_path / "labelled.csv", "crash;bug\ntypo;documentation\n")
    flags = ("--column_names", "title", "labels", "--delimiter", ";")
    tag("--data", texts, "--explain", "--explain_data", labelled, *flags)
    explanation = tagged_rows(tmp_path / "tagged")[0]["explanation"]
    assert {each["text"] for each in explanation["neighbours"]} == {"crash", "typo"}


def test_what_cannot_be_explained_is_said_once(tag, texts):
    printed = tag("--data", texts, "--explain")
    assert printed.count("note: no neighbours are named: the tagger holds no training texts") == 1


def write_damaged(folder):
    (folder / "damaged").mkdir()
    (folder / "damaged" / "x.parquet").write_bytes(b"PAR1 and no more")
    return folder / "damaged"


# --- Ray -----------------------------------------------------------------------------------------


def test_without_ray_one_line_says_what_to_install(tag, texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = tag.mistake("--data", texts, "--engine", "ray")
    assert line == '--engine ray: needs Ray; pip install -e ".[ray]"'


@needs_ray
def test_where_ray_cannot_start_one_line_says_why(tag, texts, monkeypatch):
    ray = folder_engines.import_ray()

    def fail(**_):
        raise RuntimeError("no space in /dev/shm\nand more")

    monkeypatch.setattr(ray, "init", fail)
    line = tag.mistake("--data", texts, "--engine", "ray")
    assert line.startswith("--engine ray: Ray cannot start (no space in /dev/shm); it needs")


def test_a_worker_reports_a_mistake_of_the_user(tagger_folder, texts, tmp_path):
    files, inputs = input_parts.find_files(str(texts))
    parts, columns, _ = input_parts.split_files(files, inputs, 20, ["title"])
    folders = tagged_folder.Folders(files, files, str(tmp_path / "out"), columns)
    flags = {"model": [str(tagger_folder)], "use_cpu": True, "explain": False}
    worker = folder_engines.RayWorker(folders, flags)
    assert worker.tag(parts[0]) == FIRST_RESULT
    other = folder_engines.RayWorker(folders, flags | {"model": [str(tmp_path / "nowhere")]})
    assert "nowhere" in other.tag(parts[0])


def test_workers_elsewhere_find_relative_paths(tag, tagger_folder, texts, tmp_path, monkeypatch):
    write(tmp_path / "labelled.jsonl", [{"text": "crash", "labels": ["bug"]}])
    flags = ("--data", "texts", "--explain", "--explain_data", "labelled.jsonl", "--use_cpu")
    flags += ("--model", os.path.relpath(tagger_folder), "--encoder", "texts")
    args = parse_arguments(tag.module.TagArguments, list(flags))
    of_worker = folder_engines.worker_flags(args)
    assert of_worker["encoder"] == str(texts)
    files, inputs = input_parts.find_files("texts")
    parts, columns, _ = input_parts.split_files(files, inputs, 20, ["title"])
    folders = tagged_folder.Folders(files, files, str(tmp_path / "out"), columns)
    monkeypatch.chdir("/")
    assert folder_engines.RayWorker(folders, of_worker).tag(parts[0]) == FIRST_RESULT


@needs_ray
def test_a_worker_that_is_killed_leaves_each_row_once(tag, texts, rows, tmp_path, monkeypatch):
    """One of two workers dies half-way, when it has written a part and not yet reported it."""
    ray = folder_engines.import_ray()
    marker = tmp_path / "died"

    class Mortal(folder_engines.RayWorker):
        def tag(self, part):
            result = super().tag(part)
            if part.name == "below/b.ndjson-000001.jsonl" and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return result

    monkeypatch.setattr(folder_engines, "RayWorker", Mortal)
    printed = tag("--data", texts, "--engine", "ray", "--workers", 2)
    assert not ray.is_initialized()
    assert marker.exists()
    assert "132 rows (1 without text) of 3 files tagged in tagged, 8 files" in printed
    assert printed.count("note: a worker died; it was started again") == 1
    assert "raylet" not in printed
    assert_as_one_file(tag, rows, tmp_path / "tagged")
    assert read_json(tmp_path / "tagged" / "manifest.json")["complete"]
