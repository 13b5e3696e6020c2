"""Issues of a made-up repository, fetched from a server on this machine."""

import errno
import gzip
import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from chat_server import Reply
from command_line import Recipe, launch
from forks import run_script
from github_server import DROP, comment, github_server, issue

from shared.data.readers import open_source

SECRET = "ghp_a_token_that_nobody_may_see"
LATER = "2026-09-22T00:00:00Z"  # than the time of the server


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited; nobody waits for them."""
    seconds = []
    monkeypatch.setattr("shared.cli.launch.time.sleep", seconds.append)
    return seconds


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", SECRET)
    with github_server(5, page_size=2) as server:
        yield server


@pytest.fixture
def flags(server, tmp_path):
    output = tmp_path / "out" / "issues.jsonl.gz"
    return ["--repo", "owner/name", "--api", server.url, "--output", output]


@pytest.fixture
def recipe(monkeypatch, capfd, waits):
    return Recipe("fetch_issues", monkeypatch, capfd)


def rows_of(flags):
    """Return the rows of the output, whose path is the last of the flags."""
    return list(open_source(str(flags[-1])).read())


# --- what is written -----------------------------------------------------------------------------


def test_the_rows_are_those_of_the_server(recipe, flags, server):
    # As GitHub wrote an issue before 2013.
    server.issues[1] = issue(2, labels=["bug", "docs"], pull_request={"url": None})
    server.issues[2] = issue(3, labels=["bug"], pull=True)
    server.issues[3] = issue(4, body=None, title="Ümläut \U0001f600 \u2028")
    server.remaining = 60
    out = recipe(*flags)
    assert rows_of(flags) == server.issues
    summary, following = out.splitlines()
    assert "owner/name: 4 issues (1 of them with labels) and 1 pull requests" in summary
    assert "with 2 different labels. 3 requests" in summary
    assert "57 are left" in summary
    assert following.startswith("Next: accelerate launch recipes/naive_bayes.py --data ")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_every_recipe_reads_the_output(suffix, recipe, flags, server, tmp_path, monkeypatch, capfd):
    words = {"bug": "crash traceback fails", "docs": "typo sentence readme"}
    server.issues = [
        issue(number, labels=[label], title=words[label], body=f"About {number} and {label}")
        for number, label in enumerate(["bug", "docs"] * 12, 1)
    ]
    server.issues += [issue(25), issue(26, pull=True), issue(27, body=None)]
    server.page_size = 10
    output = tmp_path / f"issues{suffix}"
    out = recipe(*flags[:-1], output)
    command = out.splitlines()[-1].removeprefix("Next: accelerate launch recipes/naive_bayes.py ")
    naive_bayes = Recipe("naive_bayes", monkeypatch, capfd, "--output_dir", tmp_path / "bayes")
    printed = naive_bayes(*command.split(), "--cache_dir", tmp_path / "cache", "--folds", 2)
    assert "27 rows read; left out: pull requests 1" in printed
    metrics = json.loads((tmp_path / "bayes" / "metrics.json").read_text())
    assert metrics["test_micro_f1"] == 1


def test_without_labels_the_next_step_needs_none(recipe, flags):
    assert "recipes/zero_shot.py --data" in recipe(*flags)


def test_comments_come_with_their_issues(recipe, flags, server):
    server.comments = [comment(1, 4, "First."), comment(2, 1, None), comment(3, 4, "Second.")]
    recipe("--comments", *flags)
    first, *others = rows_of(flags)
    assert (first["comment_list"], first["comment_text"]) == ([server.comments[1]], "")
    assert others[2]["comment_list"] == [server.comments[0], server.comments[2]]
    assert others[2]["comment_text"] == "First.\n\nSecond."
    assert others[3]["comment_list"] == []
    recipe("--update", *flags)  # now without
    assert rows_of(flags) == server.issues


def test_the_filters_are_those_of_the_server(recipe, flags, server):
    server.issues[0] = issue(1, state="closed", labels=["a b", "c"], updated=LATER)
    server.issues[1] = issue(2, state="closed", labels=["c"])
    recipe("--state", "closed", "--labels", "a b", "c", "--since", "2026-09-01", *flags)
    assert [row["number"] for row in rows_of(flags)] == [1]
    query = "state=closed&sort=created&direction=asc&since=2026-09-01T00%3A00%3A00Z&labels=a+b%2Cc"
    assert f"{query}&per_page=100" in server.requests[0]


def test_an_update_replaces_the_rows_that_changed(recipe, flags, server):
    recipe(*flags)
    before = flags[-1].stat()
    assert "is unchanged." in recipe("--update", *flags)
    assert flags[-1].stat() == before  # so that what was prepared from it stays valid
    server.issues[1] = issue(2, updated=LATER, labels=["bug"])
    server.issues.append(issue(6, updated=LATER))
    recipe("--update", *flags)
    assert rows_of(flags) == server.issues


def test_a_repetition_also_sees_what_was_deleted(recipe, flags, server):
    recipe(*flags)
    del server.issues[0]
    recipe("--update", *flags)
    assert len(rows_of(flags)) == 5
    recipe(*flags)
    assert rows_of(flags) == server.issues


def test_the_same_rows_are_the_same_bytes(recipe, flags, tmp_path):
    recipe(*flags)
    recipe(*flags[:-1], tmp_path / "another.jsonl.gz")
    assert flags[-1].read_bytes() == (tmp_path / "another.jsonl.gz").read_bytes()


def test_through_accelerate_launch(server, flags):
    result = launch("recipes/fetch_issues.py", *flags)
    assert rows_of(flags) == server.issues
    assert result.stderr == ""
    assert SECRET not in result.stdout


# --- interruptions -------------------------------------------------------------------------------


# Run a recipe, and say in a file which process does.
RUN = """
import os, pathlib, runpy, sys
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on_at_the_page(number, flags, recipe, server, tmp_path):
    """The third request stops the process that sends it."""
    pid, ended = tmp_path / "pid", threading.Event()

    def answer(path, n):
        if n == 2:
            os.kill(int(pid.read_text()), number)
            ended.wait(60)

    server.answer = answer
    process = run_script("-c", RUN, pid, "recipes/fetch_issues.py", *flags, check=False)
    ended.set()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert process.stdout == "pages kept: 2; the same command goes on\n"
        assert process.stderr == "error: interrupted\n"
    assert SECRET not in process.stdout + process.stderr
    assert not flags[-1].exists()
    recipe(*flags)
    assert rows_of(flags) == server.issues
    assert server.requests[3:] == server.requests[2:3]
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_while_the_output_is_replaced_is_no_change_by_somebody(
    moment, recipe, flags, server, monkeypatch
):
    recipe(*flags)
    server.issues.append(issue(6, updated=LATER))
    replace = Path.replace

    def killed(path, target):
        if moment == "after":
            replace(path, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        recipe.mistake("--update", *flags, code=130)
    assert len(rows_of(flags)) == (5 if moment == "before" else 6)
    recipe("--update", *flags)
    assert rows_of(flags) == server.issues


def test_an_older_copy_of_the_output_is_replaced(recipe, flags, server):
    recipe(*flags)
    old = flags[-1].read_bytes()
    server.issues.append(issue(6, updated=LATER))
    recipe("--update", *flags)
    flags[-1].write_bytes(old)
    recipe("--update", *flags)
    assert rows_of(flags) == server.issues


def test_a_wait_that_is_too_long_ends_the_run_and_can_be_repeated(recipe, flags, server, waits):
    server.remaining = 2
    line = recipe.mistake("--max_wait", 60, *flags)
    assert "the limit of requests is used up: 601 s to wait, more than --max_wait 60" in line
    assert waits == []
    server.remaining = 60
    assert recipe(*flags)
    assert rows_of(flags) == server.issues
    assert len(server.requests) == 3


def test_limits_are_waited_for_with_a_countdown(recipe, flags, server, waits):
    server.answer = lambda path, n: Reply({}, 429, Retry_After="150") if n == 1 else None
    recipe(*flags)
    assert sum(waits) == 150
    assert rows_of(flags) == server.issues


@pytest.mark.parametrize(
    "reply", [Reply({}, 502), Reply(b"<html>", 200), DROP, Reply({}, 403, Retry_After="1")]
)
def test_what_fails_once_is_asked_again(reply, recipe, flags, server):
    server.answer = lambda path, n: reply if n == 1 else None
    recipe(*flags)
    assert rows_of(flags) == server.issues


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--repo=datasets",), "must be owner/name"),
        (("--repo=https://github.com/a/b",), "must be owner/name"),
        (("--repo=../..",), "must be owner/name"),
        (("--repo=a/b?c",), "must be owner/name"),
        (("--repo=",), "must be owner/name"),
        (("--output=issues.csv",), "must end with .jsonl, .ndjson, .parquet"),
        (("--output=issues.parquet.gz",), "must end with"),
        (("--since=yesterday",), "--since yesterday: not a date"),
        (("--labels", "a,b"), "without commas"),
        (("--api=github.org",), "must be a URL"),
        (("--api=https://me:secret@host",), "give the key by GITHUB_TOKEN"),
        (("--max_wait=-1",), "--max_wait"),
    ],
)
def test_wrong_flags_are_refused(more, expected, recipe, flags, server):
    line = recipe.mistake(*flags, *more)
    assert expected in line
    assert "secret" not in line
    assert server.requests == []


def test_a_repository_must_be_named(recipe):
    assert "--repo: name the repository" in recipe.mistake()


def test_a_folder_in_the_place_of_the_output(recipe, flags, tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    assert "is a folder" in recipe.mistake(*flags[:-1], tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("status", "expected"), [(401, "GITHUB_TOKEN is not valid"), (404, "check --repo")]
)
def test_a_refusal_of_the_server(status, expected, recipe, flags, server):
    server.answer = lambda path, n: Reply({"message": f"Refused {SECRET}"}, status)
    line = recipe.mistake(*flags)
    assert expected in line
    assert SECRET not in line
    assert list(flags[-1].parent.iterdir()) == []


def test_a_repository_without_issues_writes_nothing(recipe, flags, server):
    server.issues = []
    assert "no issues fit these flags" in recipe.mistake(*flags)
    assert not flags[-1].exists()


def test_other_flags_are_refused_for_the_same_output(recipe, flags):
    recipe(*flags)
    assert "was fetched with --state all; repeat" in recipe.mistake("--state", "open", *flags)


def test_an_output_of_other_origin_is_not_replaced(recipe, flags, server):
    flags[-1].parent.mkdir()
    flags[-1].write_text("mine")
    assert "move it, or choose another --output" in recipe.mistake(*flags)
    assert flags[-1].read_text() == "mine"
    assert server.requests == []


def test_an_output_that_was_changed_is_not_replaced(recipe, flags, server):
    recipe(*flags)
    n_requests = len(server.requests)
    content = gzip.compress(b'{"mine": 1}\n')
    flags[-1].write_bytes(content)
    assert "was changed since it was fetched" in recipe.mistake(*flags)
    assert flags[-1].read_bytes() == content
    assert len(server.requests) == n_requests
    flags[-1].unlink()
    recipe(*flags)
    assert rows_of(flags) == server.issues


def test_an_output_can_be_moved_with_its_pages(recipe, flags, server, tmp_path):
    recipe(*flags)
    shutil.move(flags[-1].parent, tmp_path / "moved")
    output = tmp_path / "moved" / flags[-1].name
    assert "is unchanged." in recipe("--update", *flags[:-1], output)


def test_an_output_that_cannot_be_written_keeps_the_pages(recipe, flags, server, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(recipe.module, "write_json_lines", full)
        line = recipe.mistake(*flags)
    assert "cannot be written (No space left on device); all pages are kept" in line
    n_requests = len(server.requests)
    recipe("--update", *flags)
    assert len(server.requests) == n_requests + 1
    assert rows_of(flags) == server.issues
    assert sorted(path.suffix for path in flags[-1].parent.iterdir()) == [".gz", ".sqlite"]


def test_a_moved_repository_is_followed(recipe, flags, server):
    url = f"{server.url}/repos/owner/name/issues"

    def answer(path, n):
        if path.startswith("/repos/old/name"):
            return Reply({}, 301, Location=f"{url}?{path.partition('?')[2]}")

    server.answer = answer
    out = recipe("--repo", "old/name", *flags[2:])
    assert "note: old/name is now owner/name" in out
    assert rows_of(flags) == server.issues


def test_without_a_token_a_note_says_what_it_is_for(recipe, flags, monkeypatch, tmp_path):
    monkeypatch.delenv("GITHUB_TOKEN")
    monkeypatch.delenv("GH_TOKEN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert recipe(*flags).startswith("note: no token")
