"""The server of taggers, as a process: it starts, answers, and stops when it is told to."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest
from command_line import PYTHON, ROOT, Recipe
from forks import Script

from shared.serving import bind
from shared.taggers import load_tagger

SCRIPT = "recipes/serve.py"


@pytest.fixture(scope="module")
def words(tiny_issues, tmp_path_factory):
    """The folder of a tagger that needs no torch."""
    folder = tmp_path_factory.mktemp("words") / "tagger"
    flags = ["--data", tiny_issues, "--output_dir", folder, "--cache_dir", folder.parent / "cache"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", ["naive_bayes.py", *map(str, flags)])
        Recipe("naive_bayes", monkeypatch, None).module.main()
    return folder


class Server:
    """A server as a process; `url` is where it listens."""

    def __init__(self, launcher, *flags):
        command = [*launcher, SCRIPT, "--port", 0, *flags]
        self.process = Script(
            [str(word) for word in command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.first_line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", self.first_line)[0]

    def tag(self, *texts):
        body = json.dumps({"texts": texts}).encode()
        request = urllib.request.Request(f"{self.url}/tag", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["results"]

    def stop(self, number):
        """Send a signal, as a terminal does; return exit code, further output, and errors."""
        os.killpg(self.process.pid, number)
        printed, errors = self.process.communicate(timeout=60)
        return self.process.returncode, printed, errors


def test_through_accelerate_launch_it_answers_as_the_tagger_and_stops_cleanly(words):
    launcher = (PYTHON, "shared/cli/launcher.py", "launch")  # what the command accelerate is
    server = Server(launcher, "--model", words, words, "--top_scores", 2)
    assert server.first_line.startswith(f"Serving {words} and {words} (4 labels) at http://127.0.")
    texts = ["the memory is slow", "crash with a traceback"]
    for record, expected in zip(server.tag(*texts), load_tagger(words).tag(texts, 2), strict=True):
        assert record["labels"] == expected["labels"]
        assert record["scores"] == pytest.approx(expected["scores"])
    code, printed, errors = server.stop(signal.SIGINT)
    assert printed.endswith("stopped; 2 texts were tagged\n")
    assert (code, errors) == (0, "")


def test_sigterm_lets_requests_end_that_have_arrived(words):
    server = Server((PYTHON,), "--model", words)
    text = "the memory is slow " * 400
    answers = []
    clients = [
        threading.Thread(target=lambda: answers.append(server.tag(*[text] * 100))) for _ in range(3)
    ]
    for client in clients:
        client.start()
    while True:  # until it has all of them
        with urllib.request.urlopen(f"{server.url}/healthz", timeout=30) as answer:
            health = json.load(answer)
        if health["texts_tagged"] + health["texts_waiting"] >= 200:
            break
    code, printed, errors = server.stop(signal.SIGTERM)
    for client in clients:
        client.join(30)
    assert (code, errors) == (0, "")
    assert printed.endswith("stopped; 300 texts were tagged\n")
    assert [len(answer) for answer in answers] == [100] * 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--model", "outputs/github_tagger"], "outputs/github_tagger: no such folder; train a"),
        (["--port", 70_000], "--port 70000: must be 0 or more, at most 65535"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1 --port 0: "),
        (["--max_texts", 0], "--max_texts 0: must be 1 or more, at most 10000"),
        (["--threshold", 2], "--threshold 2.0: must be 0 or more, at most 1"),
    ],
)
def test_mistakes(flags, expected, words, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe("serve", monkeypatch, capfd, "--model", words, "--port", 0)
    assert expected in recipe.mistake(*flags)


def test_a_port_in_use_is_one_line(words, monkeypatch, capfd):
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        line = Recipe("serve", monkeypatch, capfd, "--model", words).mistake("--port", port)
    assert line.startswith(f"--host 127.0.0.1 --port {port}: Address already in use; choose anot")


def test_several_processes_are_refused(words, monkeypatch, capfd):
    recipe = Recipe("serve", monkeypatch, capfd, "--model", words)
    monkeypatch.setattr(recipe.module.ServeArguments, "world_size", 2)
    assert "serve takes one process" in recipe.mistake()
