"""The page on which a person labels texts: from the command line, and in a browser."""

import json
import os
import re
import signal
import subprocess
import urllib.request

import pytest
from browser import Browser, needs_browser
from command_line import PYTHON, ROOT, Recipe, read_lines, write
from forks import Script

from shared.data import DataArguments, load_data
from shared.serving import bind

LABELS = ("--candidate_labels", "bug", "speed", "docs")


class Page:
    """The recipe as a process; `url` is the address that it prints."""

    def __init__(self, folder, *flags, launcher=(PYTHON,)):
        command = [*launcher, "recipes/annotate.py", "--port", 0]
        command += ["--cache_dir", folder / "cache", "--output_dir", folder / "out", *flags]
        self.process = Script(
            [str(word) for word in command],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.printed = ""
        for line in self.process.stdout:
            self.printed += line
            if line.startswith("Open "):
                break
        self.url = re.search(r"Open (\S+)", self.printed)[1]

    def ask(self, path, body=None):
        address, token = self.url.split("/?token=")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address + path, data)
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def end(self, number):
        """Send a signal to all its processes; return the exit code, further output, and errors."""
        os.killpg(self.process.pid, number)
        printed, errors = self.process.communicate(timeout=60)
        return self.process.returncode, printed, errors


def keys(browser, *words):
    """Press keys where the focus is; after each word, wait until it has been counted."""
    for word in words:
        before = browser.texts("#counts")
        browser.driver.switch_to.active_element.send_keys(word)
        browser.wait.until(lambda _, before=before: browser.texts("#counts") != before, word)


def labelled(folder):
    return {row["text"]: row["labels"] for row in read_lines(folder / "out" / "labelled.jsonl")}


# --- in a browser --------------------------------------------------------------------------------


@needs_browser
def test_fifty_texts_by_keys_over_a_kill_with_a_second_tab(tmp_path):
    from selenium.webdriver import Keys

    words = {"1": "crash traceback", "2": "slow memory", "3": "typo readme"}
    texts = {f"{words['123'[i % 3]]} <b>{i}</b>": "123"[i % 3] for i in range(50)}
    names = dict(zip("123", ("bug", "speed", "docs"), strict=True))
    data = write(tmp_path / "a.jsonl", [{"text": text, "suggested": ["bug"]} for text in texts])
    flags = ("--data", data, *LABELS, "--annotator", "anna")

    def key_of(browser):
        return texts[browser.element("#text").text] + Keys.ENTER

    page = Page(tmp_path, *flags)
    browser = Browser(page.url, tmp_path)
    try:
        browser.driver.set_window_size(1280, 900)
        browser.element("#text", "<b>0</b>")
        # A key that is too early says nothing about the next text.
        browser.driver.switch_to.active_element.send_keys("1", Keys.ENTER, Keys.ENTER)
        browser.element("#text", "<b>1</b>")
        assert labelled(tmp_path) == {next(iter(texts)): ["bug"]}
        browser.driver.refresh()
        browser.element("#text", "<b>1</b>")
        for _ in range(19):
            keys(browser, key_of(browser))
        # A kill: every click whose answer the page shows is on the disk.
        assert page.end(signal.SIGKILL)[0] == -signal.SIGKILL
        assert labelled(tmp_path) == {text: [names[texts[text]]] for text in [*texts][:20]}
        browser.element("[role=alert]", "The program does not answer")

        page = Page(tmp_path, *flags)
        assert "30 of 50 texts are open; any number of 3 labels" in page.printed
        browser.driver.get(page.url)
        browser.element("#text", "<b>20</b>")
        # The page has asked a program that was gone or just killed; nothing else was wrong.
        messages = [entry["message"] for entry in browser.errors()]
        assert [message for message in messages if "net::ERR_" not in message] == []
        first_tab = browser.driver.current_window_handle
        # A second tab labels a text that the first one shows, too.
        browser.driver.switch_to.new_window("tab")
        browser.driver.get(page.url)
        browser.element("#text", "<b>20</b>")
        keys(browser, key_of(browser))
        browser.driver.switch_to.window(first_tab)
        browser.element("[role=alert]", "Another tab has labelled that text")
        browser.element("#text", "<b>21</b>")

        # Take back, note, skip, look back and change.
        keys(browser, Keys.BACKSPACE)
        browser.element("#text", "<b>20</b>")
        keys(browser, key_of(browser))
        browser.driver.switch_to.active_element.send_keys("/", "why?", Keys.ENTER)
        browser.element("#spoken", "The note is saved.")
        keys(browser, "0", "-", "12" + Keys.ENTER)
        browser.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
        browser.element("#place", "Text 24: bug, speed")
        browser.driver.switch_to.active_element.send_keys("1", Keys.ENTER)
        browser.element("#spoken", "Saved: speed")
        assert browser.element("#estimate", "A quick classifier of words, cross-validated on your")
        for _ in range(26):
            keys(browser, key_of(browser))
        browser.element("#done", "All texts are labelled or skipped")
        assert browser.texts("#counts") == ["50 of 50, 1 skipped"]
        expected = {text: [names[key]] for text, key in texts.items()}
        order = [*texts]
        expected |= {order[21]: ["bug"], order[22]: None, order[23]: ["speed"]}
        assert labelled(tmp_path) == expected
        rows = {row["text"]: row for row in read_lines(tmp_path / "out" / "labelled.jsonl")}
        assert rows[order[21]]["note"] == "why?"
        assert {row["annotator"] for row in rows.values()} == {"anna"}

        # The next batch, without a new start; a mouse does what keys do.
        write(data, [{"text": text} for text in ("new: a crash", "new: slow")])
        browser.element("#text", "new: a crash")
        browser.element("#labels button", "docs").click()
        browser.element("#save", "Save: docs").click()
        browser.element("#text", "new: slow")
        assert browser.texts("#counts") == ["1 of 2; 49 from earlier"]
        assert browser.errors() == []
        assert {r for r in browser.requests() if not r.startswith("http://127.0.0.1:")} == set()

        code, printed, errors = page.end(signal.SIGINT)
        assert (code, errors) == (0, "")
        assert printed.endswith(f"stopped; {tmp_path / 'out' / 'labelled.jsonl'} has 51 rows\n")
    finally:
        browser.driver.quit()
        page.process.kill()


@needs_browser
def test_one_label_per_text_many_labels_and_a_narrow_screen(tmp_path):
    from selenium.webdriver import Keys

    names = [f"label {i}" for i in range(40)]
    guide = "".join(f"{name}: {{definition: Means {name}., examples: [e]}}\n" for name in names)
    write(tmp_path / "guide.yaml", guide)
    data = write(tmp_path / "a.jsonl", [{"text": f"text {i} " * 300} for i in range(6)])
    flags = ("--data", data, "--guide", tmp_path / "guide.yaml", "--multilabel", "false")
    page = Page(tmp_path, *flags)
    browser = Browser(page.url, tmp_path)
    try:
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.element("#text", "text 0")
        width = "return document.documentElement.scrollWidth"
        assert browser.driver.execute_script(width) <= 390
        assert not browser.driver.find_elements("css selector", "#save")
        keys(browser, "1", "b", "Z")  # the first label, the eleventh, the last that has a key
        browser.element("#filter").send_keys("label 39", Keys.ENTER)
        browser.element("#spoken", "Saved: label 39. 4 of 6")
        assert [*labelled(tmp_path).values()] == [
            ["label 0"],
            ["label 10"],
            ["label 34"],
            [names[39]],
        ]
        browser.element("summary", "Label guide").click()
        browser.element("dd", "Means label 7.")
        assert browser.errors() == []
    finally:
        browser.driver.quit()
        page.process.kill()
        page.process.communicate()


# --- from the command line -----------------------------------------------------------------------


def test_through_accelerate_launch_labels_are_data_for_every_recipe(tmp_path):
    rows = [{"title": "a", "body": "crash"}, {"title": "typo", "labels": ["docs"]}]
    rows += [{"title": f"text {i}", "suggested": ["speed"]} for i in range(3)]
    data = write(tmp_path / "a.jsonl", rows)
    launcher = (PYTHON, "shared/cli/launcher.py", "launch")  # what the command accelerate is
    page = Page(tmp_path, "--data", data, launcher=launcher)
    try:
        # The labels are those of the data; a labelled row is not shown. Its rows have one label.
        assert "4 of 4 texts are open; one of 2 labels" in page.printed
        item = page.ask("/api/text")["item"]
        assert item["text"] == "a\n\ncrash"
        for labels in (["docs"], ["speed"]):
            click = {"action": "label", "id": item["id"], "seen": 0, "labels": labels}
            item = page.ask("/api/clicks", click)["item"]
        code, printed, errors = page.end(signal.SIGTERM)
    finally:
        page.process.kill()
    assert (code, errors) == (0, "")
    path = tmp_path / "out" / "labelled.jsonl"
    assert printed.endswith(f"stopped; {path} has 2 rows\n")
    corpus = load_data(DataArguments(data=str(path), cache_dir=str(tmp_path / "cache")))
    assert corpus.dataset["text"][:] == ["a\n\ncrash", "text 0"]
    assert corpus.label_names == ["docs", "speed"]
    assert len(corpus.labelled) == 2


@pytest.fixture
def recipe(tmp_path, monkeypatch, capfd):
    data = write(tmp_path / "a.jsonl", [{"text": "a crash"}, {"text": "slow"}])
    flags = ("--data", data, "--output_dir", tmp_path / "out", "--cache_dir", tmp_path / "cache")
    return Recipe("annotate", monkeypatch, capfd, "--port", 0, *flags)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "there are no labels to choose from; name them with --candidate_labels or --guide"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--candidate_labels", " "], "--candidate_labels: a label has a name"),
        (["--annotator", " "], "--annotator: the name is blank"),
        (["--guide", "nowhere.yaml"], "--guide nowhere.yaml: No such file or directory"),
        (["--port", 70_000], "--port 70000: must be 0 or more, at most 65535"),
        (["--text_columns", "titel", *LABELS], "no column 'titel' (found: text)"),
    ],
)
def test_mistakes(flags, expected, recipe):
    assert expected in recipe.mistake(*flags)


def test_files_that_hold_nothing_to_label(recipe, tmp_path):
    empty = write(tmp_path / "empty.csv", "")
    assert "empty.csv: the file is empty" in recipe.mistake("--data", empty, *LABELS)
    done = write(tmp_path / "done.jsonl", [{"text": "a", "labels": ["bug"]}])
    line = recipe.mistake("--data", done, *LABELS)
    assert line == f"--data {done}: every row has labels; add texts to label"


def test_a_port_in_use_and_several_processes(recipe, monkeypatch):
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        line = recipe.mistake("--port", port, *LABELS)
    assert line.startswith(f"--host 127.0.0.1 --port {port}: Address already in use; choose anot")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "annotate takes one process" in recipe.mistake(*LABELS)
