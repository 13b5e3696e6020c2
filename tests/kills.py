"""Kill a recipe at its file operations, and compare what it leaves after a second run.

A kill (SIGKILL, a lost machine) leaves on the disk what was written before it. So a recipe need not
be started anew for each kill: one run is recorded, and before each of its file operations the
folder that it works in is copied. Each copy is the *state* that a kill at this moment leaves. For
each operation that writes a file there is a second state, with half of the file. `Case.check` then
runs the recipe again from each state, and compares the whole folder with that of a run that nobody
killed: all files must be the same bytes, but for times, and no other file may be there.

File operations are those that Python reports to audit hooks (open for writing, rename, remove,
mkdir, rmdir) and the writers of C++ and Rust libraries that do not report theirs. The recipes run
in forks of this process, so that imports cost their seconds once. Needs fork and /proc: Linux.
"""

import hashlib
import importlib
import json
import os
import re
import runpy
import shutil
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Names of values, columns and files that hold times, or what was printed.
_TIME_NAME = re.compile(r"runtime|per_second|seconds")
_TIME_FILES = ("log.txt",)
# The cached rows of a data set have the time of its file in their name.
_KEYED_BY_TIME = re.compile(r"(cache|mapped)-[0-9a-f]{16}\.arrow$")


# --- forks ---------------------------------------------------------------------------------------


def prepare_process():
    """Do once, before the first fork, what every run of a recipe would repeat."""
    import matplotlib.figure
    import numpy as np
    import pyarrow as pa

    from shared.data.near_duplicates import near_duplicate_groups

    near_duplicate_groups(pa.chunked_array([["a text", "another text"]]))  # compiles

    def save_numbers(figure, target, **_):
        """Write the numbers of a plot instead of drawing them, which takes most of the time."""
        numbers = [line.get_xydata() for axes in figure.axes for line in axes.lines]
        numbers += [bar.get_bbox().bounds for axes in figure.axes for bar in axes.patches]
        content = b"".join(np.asarray(values, float).tobytes() for values in numbers)
        if hasattr(target, "write"):
            target.write(content)
        else:
            Path(target).write_bytes(content)

    matplotlib.figure.Figure.savefig = save_numbers


def import_modules(names):
    """Import what a run has imported, so that later forks find it."""
    for name in names:
        if name != "__main__":
            with suppress(Exception):
                importlib.import_module(name)


def fork(function, log):
    """Call a function in a fork, with its output in a file; return the process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        function()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(pid):
    """Wait for a fork; return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_script(script, flags):
    """Run a recipe in this process, as the command line does."""
    sys.argv = [str(ROOT / script), *map(str, flags)]
    runpy.run_path(sys.argv[0], run_name="__main__")


class ForkedJob:
    """Stands for `subprocess.Popen` in `shared.cli.jobs`: a job is another fork."""

    def __init__(self, command, *, stdout, **_):
        _, script, *flags = command
        self.pid = fork(lambda: run_script(script, flags), stdout.name)
        self.code = None

    def poll(self):
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code


# --- states --------------------------------------------------------------------------------------


class Recorder:
    """Copies a folder before each file operation inside it.

    Parameters
    ----------
    folder : Path
    states : Path
        Receives a folder for each state, named after its number and the operation.
    """

    def __init__(self, folder, states):
        self.folder, self.states = str(folder), states
        self.seen, self.busy = set(), False
        self.written = []  # files that are open for writing, with the state before

    def install(self):
        """Watch the file operations of this process and its forks, as long as they run."""
        import pyarrow
        import safetensors.numpy
        import safetensors.torch
        import torch
        from transformers import PreTrainedTokenizerFast

        sys.addaudithook(self._on_event)

        def watch(owner, name, path_of):
            original = getattr(owner, name)

            def watched(*args, **kwargs):
                self._before(name, path_of(*args, **kwargs), writes=True)
                return original(*args, **kwargs)

            setattr(owner, name, watched)

        watch(pyarrow, "OSFile", lambda path, *_, **__: path)
        watch(safetensors.torch, "serialize_file", lambda _, path, *__, **___: path)
        watch(torch, "save", lambda _, path, *__, **___: path)
        watch(
            PreTrainedTokenizerFast,
            "_save_pretrained",
            lambda _, save_directory, **__: Path(save_directory, "tokenizer.json"),
        )

    def _on_event(self, event, args):
        if self.busy:
            return
        if event == "open":
            path, _, flags = args
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._before(event, path, writes=True)
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
            self._before(event, _full_path(*args) if event != "os.rename" else args[0])

    def _before(self, event, path, *, writes=False):
        if not isinstance(path, (str, os.PathLike)):
            return
        path = os.path.abspath(path)
        if not path.startswith(self.folder + os.sep):
            return
        self.busy = True
        try:
            for written, state in self.written:
                self._add_torn(written, state)
            place = os.path.relpath(path, self.folder)
            state = self._add(f"before {event} {place}", self.folder)
            self.written = [(place, state)] if writes else []
        finally:
            self.busy = False

    def _add_torn(self, place, before):
        """Add the state with half of a file that is written now."""
        whole = Path(self.folder, place)
        if not whole.is_file() or whole.stat().st_size < 2:
            return
        copy = self.states / "torn"
        shutil.copytree(before, copy, symlinks=True)
        (copy / place).parent.mkdir(parents=True, exist_ok=True)
        (copy / place).write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        self._add(f"within {place}", copy)
        shutil.rmtree(copy)

    def _add(self, name, folder):
        """Copy a folder, unless the last state of the same content has been copied."""
        digest = _digest(folder)
        known = self.states / f"digest-{digest}"
        if known.exists():
            return Path(known.read_text())
        number = len(list(self.states.iterdir()))
        state = self.states / f"{number:05} {name.replace('/', '|')}"
        shutil.copytree(folder, state, symlinks=True)
        known.write_text(str(state))
        return state


def _full_path(path, *options):
    """Return the path of an operation that may be relative to an open folder."""
    dir_fd = options[-1] if options else -1
    if isinstance(dir_fd, int) and dir_fd >= 0 and not os.path.isabs(path):
        return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
    return path


def _digest(folder):
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        # The number of a process in the name of a temporary file is another one in each run.
        digest.update(re.sub(r"\.\d+\.tmp", ".tmp", str(path.relative_to(folder))).encode())
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


# --- comparison ----------------------------------------------------------------------------------


def differences(expected, actual):
    """Return what differs between two folders, but for times: one line each."""
    files = [_files(folder) for folder in (expected, actual)]
    lines = [f"{name} is missing" for name in sorted(files[0].keys() - files[1].keys())]
    lines += [f"{name} is left over" for name in sorted(files[1].keys() - files[0].keys())]
    for name in sorted(files[0].keys() & files[1].keys()):
        if Path(name).name in _TIME_FILES:
            continue
        contents = [without_times(paths[name]) for paths in files]
        if contents[0] != contents[1]:
            lines.append(f"{name} differs{_first_difference(*contents)}")
    return lines


def _files(folder):
    """Return the path of each file by its name in the folder."""
    import pyarrow as pa

    files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder))
            if _KEYED_BY_TIME.search(name):
                with pa.memory_map(str(path)) as file:  # its metadata has a key, too
                    rows = pa.ipc.open_stream(file).read_all().to_pylist()
                digest = hashlib.sha256(repr(rows).encode()).hexdigest()
                name = f"{path.parent.name}/mapped rows {digest[:8]}"
            files[name] = path
    return files


def without_times(path):
    """Return the content of a file without the times in it."""
    if path.suffix == ".json":
        return _drop_times(json.loads(path.read_text("utf-8")))
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path) as arrays:
            return {k: (v.shape, v.tobytes()) for k, v in arrays.items() if k != "seconds"}
    if path.name == "results.csv":
        header, *rows = [line.split(",") for line in path.read_text("utf-8").splitlines()]
        kept = [i for i, name in enumerate(header) if not _TIME_NAME.search(name)]
        return [[row[i] for i in kept] for row in (header, *rows)]
    if _KEYED_BY_TIME.search(path.name):
        return None  # compared by name, which has its content
    if path.name == "README.md":
        return _drop_columns_of_seconds(path.read_text("utf-8"))
    return path.read_bytes()


def _drop_times(value):
    if isinstance(value, dict):
        return {k: _drop_times(v) for k, v in value.items() if not _TIME_NAME.search(k)}
    return [_drop_times(v) for v in value] if isinstance(value, list) else value


def _drop_columns_of_seconds(text):
    """Return a Markdown text without columns of seconds, and without tables of seconds."""
    lines, kept, heading = [], None, ""
    for line in text.splitlines():
        cells = line.split("|")
        if line.startswith("#"):
            heading = line
        if len(cells) < 3:
            kept = None
        elif kept is None:  # the header of a table
            kept = [i for i, name in enumerate(cells) if "second" not in name + heading.lower()]
        lines.append(line if kept is None else "|".join(cells[i] for i in kept))
    return "\n".join(lines)


def _first_difference(expected, actual):
    if isinstance(expected, dict) and isinstance(actual, dict):
        names = sorted({*expected, *actual})
        different = [n for n in names if expected.get(n) != actual.get(n)]
        return f" in {', '.join(different[:4])}"
    if isinstance(expected, str):
        lines = zip(expected.splitlines(), actual.splitlines(), strict=False)
        return next((f": {a!r}, not {b!r}" for b, a in lines if a != b), "")
    return ""


# --- a recipe that is killed ---------------------------------------------------------------------


@dataclass
class Case:
    """A recipe, its flags, and those that continue it after a kill.

    `flags` may name files in the folder of the run as ``{run}``, and fixed inputs as ``{inputs}``.
    """

    script: str
    flags: str
    continued: str = ""

    def check(self, workspace, inputs, *, first=0, every=1, only=""):
        """Yield (name of the state, what went wrong) for each state; "" if nothing did."""
        run, states = workspace / "run", workspace / "states"
        expected, log = workspace / "expected", workspace / "log.txt"
        modules = workspace / "modules.txt"
        flags = self.flags.format(run=run, inputs=inputs).split()

        def start(more=(), recorder=None):
            def call():
                import shared.cli.jobs

                shared.cli.jobs.subprocess.Popen = ForkedJob
                os.chdir(run)
                if recorder:
                    recorder.install()
                try:
                    run_script(self.script, [*flags, *more])
                finally:
                    modules.write_text("\n".join(sys.modules))

            log.unlink(missing_ok=True)
            code = wait(fork(call, log))
            return "" if code == 0 else f"exit code {code}: {_last_line(log)}"

        for folder in (run, states, expected):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (run, states):
            folder.mkdir(parents=True)
        failure = start(recorder=Recorder(run, states))
        if failure:
            yield "no kill", f"{failure} ({log})"
            return
        import_modules(modules.read_text().split())
        shutil.copytree(run, expected)
        names = sorted(p.name for p in states.iterdir() if p.is_dir())
        for name in names[first::every]:
            if only not in name:
                continue
            shutil.rmtree(run)
            shutil.copytree(states / name, run, symlinks=True)
            for path in run.rglob(".*.tmp"):
                os.utime(path, (0, 0))  # in use, a new start takes longer than a second
            failure = start(self.continued.split()) or "; ".join(differences(expected, run))
            yield name, failure


def _last_line(log):
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing printed"


def report(name, results, started=None):
    """Print each failure of a recipe and how many there were; return their number."""
    n_states = n_failed = 0
    for state, failure in results:
        n_states += 1
        if failure:
            n_failed += 1
            print(f"  {name}: {state}: {failure}", flush=True)
    seconds = f", {time.perf_counter() - started:.0f} s" if started else ""
    print(f"{name}: {n_failed} of {n_states} kills end otherwise{seconds}", flush=True)
    return n_failed
