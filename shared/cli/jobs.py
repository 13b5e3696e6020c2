"""Run many commands, several at a time, each once: the jobs of a comparison."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shared.cli.errors import EXIT_INTERRUPTED, UserError
from shared.cli.files import ROOT, remove_folder, write_json
from shared.cli.launch import PASSIVE_WAITING

Item = TypeVar("Item")
STOPPED = "stopped"  # in place of the reason of a failure
GRACE_SECONDS = 20  # for a job that is asked to stop: a training finishes its step and saves
# Prefixes of the variables that a launcher sets for its own processes. A job is a launch of its
# own and must not take itself for one of them.
_LAUNCHER_VARIABLES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_", "TORCHELASTIC_"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)


@dataclass(frozen=True)
class Job:
    """One run of a recipe, which writes ``metrics.json`` in a folder of its own.

    Attributes
    ----------
    name : shown in the line of progress.
    folder : output folder of the recipe. It also receives ``log.txt``, which holds what the recipe
        printed, and after a successful end ``cell.json``, which says what was run.
    command : path of the script below the folder of the project, and its flags without
        ``--output_dir``.
    data : fingerprints of the rows; a job on other rows is another job.
    after : a job that must have ended before this one starts.
    needs_it : whether the job in `after` must also have been successful.
    resumable : the recipe has the flag ``--resume_from_checkpoint``: a job that was stopped goes on
        from its checkpoints, if it is the same job.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    data: tuple[str, ...] = ()
    after: Job | None = None
    needs_it: bool = False
    resumable: bool = False

    @property
    def finished(self) -> bool:
        """Whether the same command on the same data has been successful before."""
        return self._is_record_in("cell.json")

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of a finished job."""
        return json.loads((self.folder / "metrics.json").read_text("utf-8"))

    def start(self, threads: int) -> subprocess.Popen:
        """Start the command with a number of threads, in an empty folder unless it is resumed."""
        script, *flags = self.command
        if self.resumable and self._is_record_in("started.json"):
            flags.append("--resume_from_checkpoint=true")
        elif (self.folder / "log.txt").exists():  # part of an earlier run, or of another command
            remove_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.resumable:
            write_json(self.folder / "started.json", self._record())
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_LAUNCHER_VARIABLES)
        }
        path = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        with open(self.folder / "log.txt", "wb") as log:
            return subprocess.Popen(
                [sys.executable, str(ROOT / script), *flags, "--output_dir", str(self.folder)],
                env=PASSIVE_WAITING
                | environment
                | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches this process only, which then stops its jobs.
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def finish(self, code: int) -> str | None:
        """Record a successful end; return the reason of a failure, or None."""
        if code == 0 and (self.folder / "metrics.json").is_file():
            write_json(self.folder / "cell.json", self._record())
            return None
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        log = (self.folder / "log.txt").read_text("utf-8", errors="replace")
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"exit code {code}"])[-1] if code else "left no metrics.json"

    def _is_record_in(self, name: str) -> bool:
        """Return whether a file in the folder holds the record of the same job."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.folder / name).read_text("utf-8")) == self._record()
        return False

    def _record(self) -> dict[str, Any]:
        """Return what was run, as ``cell.json`` holds it."""
        record: dict[str, Any] = {"command": list(self.command), "data": list(self.data)}
        if self.needs_it and self.after is not None:
            # The results of this job depend on those of the other one.
            record["after"] = self.after._record()
        return record


# Loaded here: between fork and exec, a process that had threads must not load a library.
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends, also if the parent is killed.

    Otherwise the job would write among the files of the same job in the next run.
    """
    _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def run_jobs(jobs: Sequence[Job], *, n_parallel: int | None, keep_models: bool) -> int:
    """Run jobs and print a line as each one ends; return how many failed.

    Ctrl-C or SIGTERM ends the process with a line that says how to continue.

    Parameters
    ----------
    jobs : sequence of Job
    n_parallel : int, optional
        Jobs at a time; see `jobs_and_threads`.
    keep_models : bool
        Whether weights stay in the folders of jobs that have test metrics.
    """
    n_parallel, threads = jobs_and_threads(n_parallel)
    print(f"{n_parallel} at a time, {threads} threads each")
    n_failed, started = 0, time.perf_counter()
    with continued_by_same_command(completed_jobs(jobs, n_parallel, threads)) as completed:
        for n, (job, seconds, failure) in enumerate(completed, 1):
            if failure:
                n_failed += 1
                print(f"  {job.name}: FAILED: {failure} ({job.folder}/log.txt)", flush=True)
                continue
            metrics, figures = job.metrics(), ""
            if "test_micro_f1" in metrics:
                # With one label per text, micro F1 equals the accuracy.
                name = "accuracy" if "test_accuracy" in metrics else "micro F1"
                figures = f"{name} {metrics['test_micro_f1']:.3f}   "
                figures += f"macro F1 {metrics['test_macro_f1']:.3f}"
                for weights in () if keep_models else job.folder.glob("*.safetensors"):
                    weights.unlink()
            minutes = (time.perf_counter() - started) / 60
            remaining = minutes / n * (len(jobs) - n)
            line = f"  {n:3}/{len(jobs)}  {job.name:36} {figures}"
            line += f"   {seconds:4.0f} s   ({minutes:.1f} min, about {remaining:.1f} to go)"
            print(line, flush=True)
    return n_failed


@contextlib.contextmanager
def continued_by_same_command(completed: Generator[Item]) -> Iterator[Generator[Item]]:
    """Stop the jobs of a generator where its loop is left early; say so after Ctrl-C or SIGTERM."""
    try:
        with contextlib.closing(completed):
            yield completed
    except KeyboardInterrupt:
        print("stopped; the same command continues and keeps the finished cells", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def completed_jobs(
    jobs: Sequence[Job],
    n_parallel: int,
    threads: int,
    *,
    next_job: Callable[[], Job | None] = lambda: None,
    is_hopeless: Callable[[Job], bool] = lambda job: False,
) -> Generator[tuple[Job, float, str | None]]:
    """Run jobs in their order, several at a time; yield each one when it ends.

    A job that waits for another one lets later jobs go first. If the loop over this generator is
    left early, also by Ctrl-C or SIGTERM, the running jobs are stopped.

    Parameters
    ----------
    jobs : sequence of Job
    n_parallel : int
        Jobs at a time.
    threads : int
        Threads of each job, ``OMP_NUM_THREADS``.
    next_job : callable
        Called while fewer jobs run than could; returns a further job, which may depend on those
        that have ended, or None. Default: there are no further jobs.
    is_hopeless : callable
        Called often with each running job; one for which it is true is stopped. Default: none is.

    Yields
    ------
    job, seconds, failure : the failure is None after a success, else its reason; `STOPPED` for one
        that was hopeless.
    """
    waiting, failed = list(jobs), set()
    running: dict[Job, tuple[subprocess.Popen, float]] = {}
    # SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that the `finally` below runs.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            while len(waiting) + len(running) < n_parallel and (job := next_job()) is not None:
                waiting.append(job)
            if not (waiting or running):
                break
            for job in [job for job in waiting if job.after not in {*waiting, *running}]:
                if job.needs_it and job.after is not None and job.after in failed:
                    waiting.remove(job)
                    failed.add(job)  # and with it the jobs that need this one
                    yield job, 0.0, f"not run, since {job.after.name} failed"
                elif len(running) < n_parallel:
                    waiting.remove(job)
                    running[job] = job.start(threads), time.perf_counter()
            n_running = len(running)
            for job, (process, started) in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[job]
                    if failure := job.finish(code):
                        failed.add(job)
                    yield job, time.perf_counter() - started, failure
                elif is_hopeless(job):
                    del running[job]
                    _stop([process])
                    yield job, time.perf_counter() - started, STOPPED
            if len(running) == n_running:  # none has ended
                time.sleep(0.02)
    finally:
        _stop([process for process, _ in running.values()])
        signal.signal(signal.SIGTERM, previous)


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ask processes to end; kill those that have not ended after `GRACE_SECONDS`."""
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.terminate()
    try:
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.05)
    finally:  # a second Ctrl-C kills them at once
        for process in processes:
            if process.poll() is None:
                # The whole session of the job, since a recipe may have started processes itself.
                os.killpg(process.pid, signal.SIGKILL)


def script_flags(script: str) -> frozenset[str]:
    """Return the names of all flags of a recipe, as its ``--help_all`` lists them.

    Raises
    ------
    UserError
        If the script does not exist or prints no help.
    """
    if not (ROOT / script).is_file():
        recipes = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
        raise UserError(f"no {script}; there are {', '.join(recipes)}")
    run = subprocess.run(
        [sys.executable, str(ROOT / script), "--help_all"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        reason = (run.stderr.strip() or f"exit code {run.returncode}").splitlines()[-1]
        raise UserError(f"{script} --help_all: {reason}")
    return frozenset(re.findall(r"^  --(\w+)", run.stdout, re.MULTILINE))


def jobs_and_threads(n_parallel: int | None, *, memory_each: float = 3e9) -> tuple[int, int]:
    """Return how many jobs to run at a time, and with how many threads each.

    Parameters
    ----------
    n_parallel : int, optional
        The number of jobs, if the user gives it. None: one for each core, at most eight, and no
        more than the free memory allows.
    memory_each : float
        Bytes that one job takes. Fine-tuning the default encoder takes two thirds of the default.

    Raises
    ------
    UserError
        For a number below 1.
    """
    import psutil
    from joblib import cpu_count  # respects the limits of a container

    if n_parallel is not None and n_parallel < 1:
        raise UserError(f"--jobs {n_parallel}: must be 1 or more")
    memory_allows = int(psutil.virtual_memory().available // memory_each)
    n_parallel = n_parallel or max(1, min(cpu_count(), 8, memory_allows))
    return n_parallel, max(1, cpu_count() // n_parallel)
