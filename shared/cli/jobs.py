"""Run many commands, several at a time, each once: the cells of a comparison."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.cli.errors import EXIT_INTERRUPTED, UserError
from shared.cli.files import ROOT, write_json

GRACE_SECONDS = 20  # for a recipe that is told to stop; one in training finishes its step
# What a launcher tells its own processes and must not reach runs of their own.
_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_", "TORCHELASTIC_"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)


@dataclass(frozen=True)
class Job:
    """One run of a recipe, which leaves ``metrics.json`` in a folder of its own.

    Attributes
    ----------
    name : what to call it in a line of progress.
    folder : where the recipe writes; also receives ``log.txt``, what it printed, and
        ``cell.json``, what was run, once it has ended well.
    command : path of the script below the project's root, and its flags without ``--output_dir``.
    data : changes whenever the rows do; a cell of other rows is another cell.
    after : a cell that must have ended before this one starts.
    needs_it : whether the cell in `after` must have ended well.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    data: tuple[str, ...] = ()
    after: Job | None = None
    needs_it: bool = False

    @property
    def finished(self) -> bool:
        """Whether the same command on the same data has ended well before."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.folder / "cell.json").read_text("utf-8")) == self._what()
        return False

    def metrics(self) -> dict[str, Any]:
        """What a finished cell has measured."""
        return json.loads((self.folder / "metrics.json").read_text("utf-8"))

    def start(self, threads: int) -> subprocess.Popen:
        """Start the command in an empty folder, with so many threads, out of reach of Ctrl-C."""
        if (self.folder / "log.txt").exists():  # half of an earlier run, or of another command
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        script, *flags = self.command
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHER)}
        environment.pop("RECIPE_EXIT_STATUS", None)
        path = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        with open(self.folder / "log.txt", "wb") as log:
            return subprocess.Popen(
                [sys.executable, str(ROOT / script), *flags, "--output_dir", str(self.folder)],
                env=environment | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def judge(self, code: int) -> str | None:
        """Keep a run that ended well; return why another one did not."""
        if code == 0 and (self.folder / "metrics.json").is_file():
            write_json(self.folder / "cell.json", self._what())
            return None
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        log = (self.folder / "log.txt").read_text("utf-8", errors="replace")
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"exit code {code}"])[-1] if code else "left no metrics.json"

    def _what(self) -> dict[str, Any]:
        what = {"command": list(self.command), "data": list(self.data)}
        # What it builds on counts as much as its own flags.
        return what | {"after": self.after._what()} if self.needs_it else what


def run_jobs(cells: Sequence[Job], *, jobs: int | None, keep_models: bool) -> int:
    """Run cells, with a line for each as it ends; return how many failed.

    Ctrl-C or SIGTERM ends the process, with a line that says how to go on.

    Parameters
    ----------
    cells : sequence of Cell
    jobs : int, optional
        See `jobs_and_threads`.
    keep_models : bool
        Whether weights stay in the folders of cells that have test figures.
    """
    jobs, threads = jobs_and_threads(jobs)
    print(f"{jobs} at a time, {threads} threads each")
    n_failed, started = 0, time.perf_counter()
    try:
        with contextlib.closing(completed_jobs(cells, jobs=jobs, threads=threads)) as ended:
            for n, (cell, seconds, fault) in enumerate(ended, 1):
                if fault:
                    n_failed += 1
                    print(f"  {cell.name}: FAILED: {fault} ({cell.folder}/log.txt)", flush=True)
                    continue
                figures = ""
                if "test_micro_f1" in (found := cell.metrics()):
                    figures = "micro F1 {test_micro_f1:.3f}   macro F1 {test_macro_f1:.3f}"
                    for weights in () if keep_models else cell.folder.glob("*.safetensors"):
                        weights.unlink()
                minutes = (time.perf_counter() - started) / 60
                left = f"{minutes:.1f} min, about {minutes / n * (len(cells) - n):.1f} to go"
                line = f"  {n:3}/{len(cells)}  {cell.name:36} {figures.format(**found)}"
                print(f"{line}   {seconds:4.0f} s   ({left})", flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on, finished cells are kept", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    return n_failed


def completed_jobs(
    cells: Sequence[Job], *, jobs: int, threads: int
) -> Iterator[tuple[Job, float, str | None]]:
    """Run the cells, in their order as far as they wait for none, several at a time.

    Where the loop over it is left early, by Ctrl-C or SIGTERM as well, the running ones are
    stopped.

    Parameters
    ----------
    cells : sequence of Cell
        Those to run.
    jobs : int
        How many at a time.
    threads : int
        Of each; ``OMP_NUM_THREADS``.

    Yields
    ------
    cell, seconds, fault : as each ends; the fault is None, or why it did not end well.
    """
    waiting, running, failed = list(cells), {}, set()
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            for cell in [cell for cell in waiting if cell.after not in {*waiting, *running}]:
                if cell.needs_it and cell.after in failed:
                    waiting.remove(cell)
                    failed.add(cell)
                    yield cell, 0.0, f"not run, since {cell.after.name} failed"
                elif len(running) < jobs:
                    waiting.remove(cell)
                    running[cell] = cell.start(threads), time.perf_counter()
            for cell, (process, started) in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[cell]
                    if fault := cell.judge(code):
                        failed.add(cell)
                    yield cell, time.perf_counter() - started, fault
            time.sleep(0.05)
    finally:
        _stop([process for process, _ in running.values()])
        signal.signal(signal.SIGTERM, previous)


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.terminate()
    try:
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.05)
    finally:  # at once after a second Ctrl-C
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def jobs_and_threads(jobs: int | None, *, memory_each: float = 3e9) -> tuple[int, int]:
    """Return how many commands to run at a time, and with how many threads each.

    Parameters
    ----------
    jobs : int, optional
        The first figure, if one is wanted; by default one for each core, eight at most, and no more
        than the free memory has room for.
    memory_each : float
        Bytes that one takes; fine-tuning the default encoder takes two thirds of the default.
    """
    import psutil
    from joblib import cpu_count  # heeds the limits of a container

    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: must be 1 or more")
    room = int(psutil.virtual_memory().available // memory_each)
    jobs = jobs or max(1, min(cpu_count(), 8, room))
    return jobs, max(1, cpu_count() // jobs)
