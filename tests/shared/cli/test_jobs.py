import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shared.cli.errors import UserError
from shared.cli.jobs import Job, completed_jobs, jobs_and_threads, run_jobs

ROOT = Path(__file__).parents[3]
# Writes metrics.json unless told to fail; notes its start and end in one log for all.
SCRIPT = """
import json, os, pathlib, signal, sys
words = [word for word in sys.argv[1:] if word != "--resume_from_checkpoint=true"]
flags = dict(zip(words[::2], words[1::2]))
folder = pathlib.Path(flags["--output_dir"])
note = lambda word: open(flags["--notes"], "a").write(f"{word} {folder.name}\\n")
note("start" if len(words) == len(sys.argv) - 1 else "resume")
if "--block" in flags:
    print(os.getpid(), flush=True)
    signal.pause()
if "--signal" in flags:
    os.kill(os.getpid(), int(flags["--signal"]))
if "--fail" in flags:
    print("reading ...")
    sys.exit(flags["--fail"])
if "--silent" not in flags:
    record = {"threads": os.environ["OMP_NUM_THREADS"], "rank": os.environ.get("RANK")}
    (folder / "metrics.json").write_text(json.dumps(record))
note("end")
"""


@pytest.fixture
def make(tmp_path):
    """Make a cell; `make.notes()` are the starts and ends so far."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def cell(name, *flags, data=(), **after):
        command = (str(tmp_path / "script.py"), "--notes", str(tmp_path / "notes"), *flags)
        return Job(name, tmp_path / "cells" / name, command, data, **after)

    cell.notes = lambda: (tmp_path / "notes").read_text().splitlines()
    return cell


def faults(cells, n_parallel):
    return {cell.name: fault for cell, _, fault in completed_jobs(cells, n_parallel, 3)}


def test_cells_run_once_with_their_threads_and_without_the_ranks_of_a_launcher(make, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    cells = [make("a"), make("b")]
    assert not any(cell.finished for cell in cells)
    assert faults(cells, 2) == {"a": None, "b": None}
    assert all(cell.finished for cell in cells)
    assert cells[0].metrics() == {"threads": "3", "rank": None}
    assert sorted(make.notes()) == ["end a", "end b", "start a", "start b"]


def test_other_flags_or_other_data_are_another_cell(make):
    faults([make("a")], 1)
    assert make("a").finished
    assert not make("a", "--x", "1").finished
    assert not make("a", data=("other rows",)).finished
    (make("a").folder / "left by the first").write_text("")
    faults([make("a", "--x", "1")], 1)
    assert make("a", "--x", "1").finished
    assert not make("a").finished
    assert not (make("a").folder / "left by the first").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--fail", "error: rows.jsonl, row 3: no text"], "rows.jsonl, row 3: no text"),
        (["--fail", "KeyError: 'x'"], "KeyError: 'x'"),
        (["--signal", "9"], "ended by SIGKILL"),
        (["--silent", "1"], "left no metrics.json"),
    ],
)
def test_one_that_fails_says_why_and_others_go_on(flags, expected, make):
    bad, good = make("bad", *flags), make("good")
    assert faults([bad, good], 1) == {"bad": expected, "good": None}
    assert not bad.finished
    if flags[0] == "--fail":
        assert flags[1] in (bad.folder / "log.txt").read_text()


def test_a_cell_starts_after_the_one_it_waits_for(make):
    first = make("first")
    others = [make("second", after=first), make("third", after=first)]
    faults([*others, first], 3)
    assert make.notes()[:2] == ["start first", "end first"]
    # One that ended before is not waited for.
    assert faults([make("fourth", after=first, needs_it=True)], 1) == {"fourth": None}


def test_what_a_cell_needs_must_have_ended_well(make):
    failing = make("failing", "--fail", "error: no")
    waits, needs = make("waits", after=failing), make("needs", after=failing, needs_it=True)
    actual = faults([failing, waits, needs], 1)
    assert actual == {"failing": "no", "waits": None, "needs": "not run, since failing failed"}


def test_lines_of_progress(make, capsys):
    n_failed = run_jobs(
        [make("a"), make("b", "--fail", "error: no")], n_parallel=1, keep_models=False
    )
    lines = capsys.readouterr().out.splitlines()
    assert n_failed == 1
    assert lines[1].startswith("    1/2  a ")
    assert lines[2] == f"  b: FAILED: no ({make('b').folder}/log.txt)"


def start_until_blocked(*cells):
    """Run cells, the last of which blocks, in a process; return it and the log of the last one."""
    code = (
        "import sys, pathlib; from shared.cli.jobs import Job, run_jobs\n"
        "cells = [Job(n, pathlib.Path(f), tuple(c.split('|'))) for n, f, c in "
        f"{[(c.name, str(c.folder), '|'.join(c.command)) for c in cells]!r}]\n"
        "run_jobs(cells, n_parallel=1, keep_models=False)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = cells[-1].folder / "log.txt"
    while not (log.exists() and log.read_text().endswith("\n")):
        assert process.poll() is None
    return process, log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_running_ones_and_says_how_to_go_on(number, make):
    done, blocked = make("done"), make("blocked", "--block", "1")
    process, log = start_until_blocked(done, blocked)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "stopped; the same command continues and keeps the finished cells\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)
    assert done.finished
    assert not blocked.finished


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such signal")
def test_a_kill_ends_the_running_ones(make):
    process, log = start_until_blocked(make("blocked", "--block", "1"))
    job = psutil.Process(int(log.read_text()))
    process.kill()
    process.communicate(timeout=60)
    job.wait(timeout=60)


def test_jobs_and_threads():
    jobs, threads = jobs_and_threads(None)
    assert 1 <= jobs <= 8
    assert threads >= 1
    assert jobs_and_threads(None, memory_each=1e18)[0] == 1
    assert jobs_and_threads(3)[0] == 3
    with pytest.raises(UserError, match="--jobs -1: must be 1 or more"):
        jobs_and_threads(-1)


def test_a_damaged_mark_does_not_count(make):
    faults([make("a")], 1)
    mark = make("a").folder / "cell.json"
    assert json.loads(mark.read_text())["command"][1:2] == ["--notes"]
    mark.write_text(mark.read_text()[:20])
    assert not make("a").finished


def test_a_cell_counts_as_another_if_what_it_builds_on_does(make):
    plain, changed = make("first"), make("first", "--x", "1")
    assert faults([plain, make("second", after=plain, needs_it=True)], 1)
    assert make("second", after=plain, needs_it=True).finished
    assert not make("second", after=changed, needs_it=True).finished
    assert faults([make("third", after=plain)], 1) == {"third": None}
    assert make("third", after=changed).finished  # it only waits for it


def test_a_resumable_job_keeps_its_folder_if_it_is_the_same_job(make):
    def start(*flags):
        job = make("a", *flags, resumable=True)
        faults([job], 1)
        return job.folder / "checkpoint"

    start("--fail", "full disk").write_text("")
    kept = start("--fail", "full disk")
    assert kept.exists()
    assert not start("--fail", "other").exists()
    assert make.notes() == ["start a", "resume a", "start a"]
    # The flag of a resumed run is not part of the record.
    record = json.loads((kept.parent / "started.json").read_text())
    assert "--resume_from_checkpoint=true" not in record["command"]
