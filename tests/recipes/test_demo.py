"""The page of taggers: in a browser, from the command line, and with files of every kind."""

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from browser import SECONDS, Browser, needs_browser
from command_line import PYTHON, ROOT, Recipe, load_recipe, read_lines, write
from forks import Script

from shared.cli import UserError, parse_arguments
from shared.evaluation import DecisionRule
from shared.evaluation.calibration import Calibration
from shared.methods import fit_words, naive_bayes
from shared.serving import bind, run_server
from shared.taggers import Tagger, WordScorer, load_tagger

LABELS = ["bug", "documentation", "feature", "speed"]


@pytest.fixture(scope="module")
def words(tiny_issues, tmp_path_factory):
    """The folder of a tagger that needs no torch, with metrics."""
    folder = tmp_path_factory.mktemp("words") / "tagger"
    rows = read_lines(tiny_issues)[:120]
    texts = [f"{row['title']}\n\n{row['body']}" for row in rows]
    y = np.array([[name in row["labels"] for name in LABELS] for row in rows])
    rule = DecisionRule.of(0.5, len(LABELS))
    Tagger(LABELS, rule, WordScorer(fit_words(naive_bayes(), texts, y))).save(folder)
    metrics = {"test_micro_f1": 0.5, "test_micro_f1_low": 0.4, "test_micro_f1_high": 0.6}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


# --- as a server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_it_has_loaded_and_stops_cleanly(number, words, monkeypatch, capfd, tmp_path):
    # Gradio remembers the folder of its import, and makes it anew for the second page of a process.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    recipe = Recipe("demo", monkeypatch, capfd, "--model", words, words, "--port", 0)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # to be put back after the test
    pages = []

    def visit(port):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=SECONDS) as answer:
                pages.append((port, answer.read().decode()))
        finally:
            os.kill(os.getpid(), number)

    def run_server_with_visitor(app, listening):
        threading.Thread(target=visit, args=listening.getsockname()[1:]).start()
        run_server(app, listening)

    monkeypatch.setattr(recipe.module, "run_server", run_server_with_visitor)
    printed = recipe()
    ((port, page),) = pages
    name = f"{words} and {words}"
    assert printed.splitlines() == [
        "note: no neighbours are named: the tagger holds no training texts",
        f"The page of {name} (4 labels) is at http://127.0.0.1:{port}",
        "Ctrl-C stops it",
        "stopped",
    ]
    assert f"Tagger {name}" in page
    assert "micro F1 0.500 (95 % interval 0.400 to 0.600)" in page
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not Path(os.environ["GRADIO_TEMP_DIR"]).exists()


# --- in a browser --------------------------------------------------------------------------------


@needs_browser
def test_in_a_browser_it_tags_a_text_and_a_file_and_asks_no_other_server(
    words, tiny_issues, tmp_path
):
    from selenium.webdriver import Keys

    data = ("--data", tiny_issues, "--cache_dir", tmp_path / "cache")
    process = Script(
        [PYTHON, "recipes/demo.py", "--port", "0", "--model", str(words), *map(str, data)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = re.search(r"http://\S+", process.stdout.readline())[0]
    browser = Browser(url, tmp_path)
    try:
        # What it loaded.
        about = browser.element("li", str(words)).text
        assert "a classifier of words, 4 labels; micro F1 0.500 (95 % interval 0.400 t" in about
        assert browser.driver.title == f"Tagger {words}"

        # A text.
        text = "crash with a traceback <script>alert(1)</script>"
        browser.element("textarea").send_keys(text)
        browser.element("button", "Tag the text").click()
        expected = load_tagger(words)(text)
        browser.element(".chosen", f"Labels: {', '.join(expected['labels'])}")
        # Below it the reasons: the words of the labels, and near texts with their labels.
        word = browser.element(".word", "traceback")
        assert float(word.text.split()[1]) > 0
        assert len(browser.texts("td.text")) == 3
        tables = {table.split("\n")[0]: table for table in browser.texts(".tagger-part table")}
        rule, words_title, texts_title = tables
        actual = [line for line in tables[rule].split("\n") if line in expected["scores"]]
        assert actual == list(expected["scores"])
        assert words_title.startswith("Words that weigh most")
        assert "bug" in tables[texts_title]
        browser.element("textarea").send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
        browser.element("button", "Tag the text").click()
        browser.element("[role=alert]", "The text is empty")
        # An example; it is one of the texts of the data.
        browser.element("button.gallery-item").click()
        browser.element(".chosen")
        assert browser.element("textarea").get_property("value").split("\n")[0] in (
            row["title"] for row in read_lines(tiny_issues)
        )

        # A file, and one that cannot be read.
        browser.element("[role=tab]", "A file").click()
        bad = write(tmp_path / "bad.jsonl", '{"title": "a"}\n{')
        upload = write(tmp_path / "new.csv", "title,number\ncrash with a traceback,1\n,2\n")
        for path, selector, line in (
            (bad, "[role=alert]", "bad.jsonl, line 2:"),
            (upload, "[role=status]", "2 of 2 rows are tagged."),
        ):
            browser.element("input[type=file]").send_keys(str(path))
            browser.element(".file-preview", path.stem)
            browser.element("button", "Tag the file").click()
            browser.element(selector, line)
            if selector == "[role=alert]":
                browser.element("button[aria-label=Clear]").click()
        browser.element("a[download='tagged_new.csv']").click()
        output = tmp_path / "downloads" / "tagged_new.csv"
        browser.wait.until(lambda _: output.exists(), "no download")
        with output.open(newline="") as file:
            tagged = list(csv.DictReader(file))
        assert [row["number"] for row in tagged] == ["1", "2"]
        assert tagged[0]["labels"] == "bug"
        assert tagged[1]["labels"] == ""

        assert {request for request in browser.requests() if not request.startswith(url)} == set()
        assert browser.errors() == []
        # It ends while a browser shows it.
        process.terminate()
        printed, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert printed.endswith("stopped\n")
    finally:
        browser.driver.quit()
        process.kill()


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def tag_file(words, monkeypatch):
    """Call the function of the recipe that tags a file; return the states."""
    module = load_recipe("demo")
    tagger = load_tagger(words)

    def call(path, columns=("title", "body"), *flags):
        args = parse_arguments(module.DemoArguments, [*map(str, flags)])
        lock = threading.Lock()
        return list(module.tag_file(path, list(columns), tagger, len(LABELS), lock, args))

    call.module = module
    return call


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("a.csv", "tagged_a.csv"),
        ("a.tsv", "tagged_a.tsv"),
        ("a.json", "tagged_a.jsonl"),
        ("a.jsonl.gz", "tagged_a.jsonl.gz"),
        ("a.parquet", "tagged_a.parquet"),
    ],
)
def test_every_format_of_tag_comes_back(name, output, tag_file, tmp_path):
    rows = [{"title": "crash with a traceback", "number": 1}, {"title": "", "number": 2}]
    path = tmp_path / name
    if name.endswith(("csv", "tsv")):
        lines = "title,number\ncrash with a traceback,1\n,2\n"
        write(path, lines.replace(",", "\t") if name.endswith("tsv") else lines)
    elif name.endswith("parquet"):
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows))
        write(path, gzip.compress(text.encode()) if name.endswith("gz") else text)
    *_, last = tag_file(path)
    assert (last.n_done, last.n_rows, last.path) == (2, 2, tmp_path / output)
    tagged = list(tag_file.module.open_source(str(last.path)).read())
    assert [int(row["number"]) for row in tagged] == [1, 2]
    assert tagged[0]["labels"] in ("bug", ["bug"])
    assert tagged[1]["labels"] in ("", [])
    assert {path.name for path in tmp_path.iterdir()} == {name, output}


def test_with_abstain_a_file_says_which_rows_are_unsure(words, tag_file, tmp_path):
    args = parse_arguments(tag_file.module.DemoArguments, ["--abstain", "0.8"])
    calibration = Calibration((1.0,) * 4, (0.0,) * 4, single_label=False)
    tagger = replace(load_tagger(words), calibration=calibration, unsure_below=args.abstain)
    path = write(tmp_path / "a.csv", "title,unsure\ncrash with a traceback,1\n,2\n")
    list(tag_file.module.tag_file(path, ["title"], tagger, 4, threading.Lock(), args))
    with (tmp_path / "tagged_a.csv").open(newline="") as file:
        first, blank = csv.DictReader(file)
    record = tagger("crash with a traceback")
    assert json.loads(first["confidence"]) == record["confidence"]
    assert first["unsure"] == str(record["unsure"])
    assert (first["input_unsure"], blank["input_unsure"]) == ("1", "2")
    assert blank["unsure"] == "True"


def test_blocks_grow_to_what_takes_some_seconds(tag_file, tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", [{"text": f"crash {i}"} for i in range(20)])
    monkeypatch.setattr(tag_file.module, "FIRST_BLOCK", 3)
    monkeypatch.setattr(tag_file.module, "LARGEST_BLOCK", 10)
    done = [(state.n_done, state.path) for state in tag_file(path)]
    # These are tagged in far less time.
    assert done == [(3, None), (13, None), (20, None), (20, tmp_path / "tagged_a.jsonl")]
    monkeypatch.setattr(tag_file.module, "SECONDS_PER_BLOCK", 0)
    assert [state.n_done for state in tag_file(path)] == [3, 6, 9, 12, 15, 18, 20, 20]
    assert len(read_lines(tmp_path / "tagged_a.jsonl")) == 20


def test_nothing_stays_of_a_file_whose_visitor_leaves(words, tag_file, tmp_path, capfd):
    path = write(tmp_path / "a.jsonl", [{"text": "crash"}] * 100)
    args = parse_arguments(tag_file.module.DemoArguments, [])
    options = (load_tagger(words), len(LABELS), threading.Lock(), args)
    states = tag_file.module.tag_file(path, ["text"], *options)
    assert next(states).n_done == 64
    states.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "subject\nhello\n", "a.csv: no column 'title' (found: subject)"),
        ("a.csv", "", "a.csv: the file is empty"),
        ("a.csv", b"title\ncaf\x81\n", "a.csv, line 2: not UTF-8"),
        ("a.pdf", "title", "a.pdf: unknown file type; use one of .jsonl"),
        ("a.jsonl", '{"title": "b"}\n{"title": ["b"]}\n', "a.jsonl, row 2: column 'title' holds"),
        ("a.jsonl", '{"title": "b"}\n{"title": "abcdef"}\n', "row 2: the text has 6 characters, m"),
        ("a.jsonl", '{"title": "b", "labels": 1, "input_labels": 2}', "a.jsonl, row 1: labels and"),
        ("a.csv", "title,scores.bug\nb,1\n", "the input has a column 'scores.bug'; rename it"),
    ],
)
def test_mistakes_in_a_file(name, content, expected, tag_file, tmp_path):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=re.escape(expected)):
        tag_file(path, ["title", "body"], "--max_characters", 5)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "dictionary.parquet"])
def test_a_file_that_unpacks_to_much_more_is_refused(name, tag_file, tmp_path):
    path, rows = tmp_path / name, [{"title": "crash " * 1000}] * 2000
    if name.endswith("gz"):
        write(path, gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    else:
        options = {"use_dictionary": "dictionary" in name, "compression": "zstd"}
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path, **options)
    assert path.stat().st_size < 10**6
    with pytest.raises(UserError, match=f"{name}: unpacks to more than 10 MB; split it"):
        tag_file(path, ["title"], "--max_megabytes", 1)
    assert tag_file(path, ["title"], "--max_megabytes", 2)[-1].n_done == 2000


# --- mistakes on the command line ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--model", "outputs/github_tagger"], "outputs/github_tagger: no such folder; train a"),
        (["--data", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--port", 70_000], "--port 70000: must be 0 or more, at most 65535"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1 --port 0: "),
        (["--max_megabytes", 0], "--max_megabytes 0: must be 1 or more"),
    ],
)
def test_mistakes(flags, expected, words, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe("demo", monkeypatch, capfd, "--model", words, "--port", 0)
    assert expected in recipe.mistake(*flags)


def test_a_port_in_use_is_one_line(words, monkeypatch, capfd):
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        line = Recipe("demo", monkeypatch, capfd, "--model", words).mistake("--port", port)
    assert line.startswith(f"--host 127.0.0.1 --port {port}: Address already in use; choose anot")


def test_without_gradio_a_line_says_how_to_install_it(words, monkeypatch, capfd):
    recipe = Recipe("demo", monkeypatch, capfd, "--model", words)
    monkeypatch.setattr(recipe.module, "find_spec", lambda name: None)
    assert recipe.mistake() == 'demo needs gradio: pip install -e ".[demo]"'


def test_several_processes_are_refused(words, monkeypatch, capfd):
    recipe = Recipe("demo", monkeypatch, capfd, "--model", words)
    monkeypatch.setattr(recipe.module.DemoArguments, "world_size", 2)
    assert "demo takes one process" in recipe.mistake()
