"""Run Python scripts in forks of a process that has imported the libraries already.

Starting Python and importing the libraries takes a recipe most of its time in a test. `Script`, in
place of `subprocess.Popen`, starts this file as a process that does it once, and has it fork.
`run_script` runs a script to its end.

A fork has its own arguments, environment, folder, files and signals, as a process that was started
from the command line has. What a library reads when it is imported, such as OMP_NUM_THREADS, is
that of the process here. A Python script that a fork starts, as ``accelerate launch`` and the
recipes that run others do, is a fork of it; one that takes the place of a fork, as by `os.execvpe`,
takes it without a new start. Needs fork: Linux or macOS.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from subprocess import Popen  # a test may put `Script` in its place

ROOT = Path(__file__).parent.parent
MODULES = (
    *("transformers.trainer", "transformers.pipelines", "transformers.models.bert.modeling_bert"),
    *(
        "accelerate.commands.launch",
        "cleanlab",
        "datasets",
        "faiss",
        "matplotlib.figure",
        "numba",
        "pandas",
        "peft",
    ),
    *("scipy.optimize", "sklearn.linear_model", "torch.distributed"),
)
TIMEOUT = 300  # seconds
# Stands for Python in a shell script, which cannot start a `Script`: it runs its words as a fork.
INTERPRETER = f'"{sys.executable}" "{__file__}"'


# --- for tests -----------------------------------------------------------------------------------


def run_script(*words, processes=1, check=True, cwd=ROOT):
    """Do what ``python WORDS`` does, in a project; return the finished process with its output.

    The first word is a script, or -c with code, or -m with a module.

    With two `processes` they are those of one launch, as torchrun starts them. The output is that
    of all, the exit code that of the first one that failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(cwd)}
    ranks = [{}]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        environment |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    with ExitStack() as files:
        outputs = {
            name: files.enter_context(tempfile.NamedTemporaryFile("a"))
            for name in ("stdout", "stderr")
        }
        options = {"cwd": cwd, "stdin": subprocess.DEVNULL, **outputs}
        command = [sys.executable, *map(str, words)]
        scripts = [Script(command, env=environment | rank, **options) for rank in ranks]
        codes = [script.wait() for script in scripts]
        texts = {n: Path(file.name).read_text(encoding="utf-8") for n, file in outputs.items()}
    result = subprocess.CompletedProcess(words, next(filter(None, codes), 0), **texts)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


class _Popen(Popen):
    """Starts this interpreter as a fork; other programs as ever."""

    def _execute_child(self, args, *rest):
        if isinstance(args, str) or args[0] != sys.executable:
            super()._execute_child(args, *rest)
            return
        # The order of Python 3.10 to 3.13. The files are the two ends of three pipes, or -1.
        cwd, env, files, new_session = rest[4], rest[5], rest[9:15], rest[20]
        call = {
            "words": [*map(str, args[1:])],
            "environment": dict(os.environ if env is None else env),
            "cwd": os.getcwd() if cwd is None else str(cwd),
            "new_session": new_session,
        }
        ends = enumerate((files[0], files[3], files[5]))
        self.pid = self._fork(call, [number if end == -1 else end for number, end in ends])
        self._child_created = True
        self._close_pipe_fds(*files)


class Script(_Popen):
    """`subprocess.Popen` whose Python scripts are forks of the process with the libraries.

    They are no children of this process: who waits for them, there, sends their exit codes.
    """

    _keeper = None

    def _fork(self, call, files):
        self._keeper, other = socket.socketpair()
        with other:
            socket.send_fds(_server(), [b"."], [other.fileno(), *files])
        self._answers = self._keeper.makefile()
        self._keeper.sendall(json.dumps(call).encode() + b"\n")
        return int(self._answers.readline())

    def _internal_poll(self, *args, **options):
        if self._keeper is None:
            return super()._internal_poll(*args, **options)
        if self.returncode is None and select.select([self._keeper], [], [], 0)[0]:
            self._wait(None)
        return self.returncode

    def _wait(self, timeout):
        if self._keeper is None:
            return super()._wait(timeout)
        if self.returncode is None:
            if not select.select([self._keeper], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._keeper.close()
        return self.returncode


def forking():
    """Return the number of a file, and the variables, for a program in which `INTERPRETER` works.

    The program inherits the file.
    """
    number = _server().fileno()
    return number, {"FORKS": str(number)}


def _be_interpreter(words):
    """Run a script as a fork, in the place of this process."""
    script = Script([sys.executable, *words])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: script.send_signal(number))
    code = script.wait()
    sys.exit(code if code >= 0 else 128 - code)


@cache
def _server():
    """Start the process that forks, once; it ends with this one, which closes the socket."""
    if number := os.environ.pop("FORKS", None):
        return socket.socket(fileno=int(number))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ours, other = socket.socketpair()
    with other:
        Popen([sys.executable, __file__], env=environment, stdin=other)
    return ours


# --- in the process that forks -------------------------------------------------------------------


class ForkPopen(_Popen):
    """Stands for `subprocess.Popen` in the forks: a script is a fork of the one that starts it."""

    def _fork(self, call, files):
        return fork(**call | {"new_session": True}, files=files)


class Replaced(BaseException):
    """Ends a script whose place another one takes."""


def execvpe(file, args, env):
    """Stands for `os.execvpe` in the forks."""
    if file != sys.executable:
        EXECVPE(file, args, env)
    raise Replaced(args[1:], env)


def fork(words, environment, cwd, files, new_session):
    """Start a process that does what ``python WORDS`` does; return its id.

    Parameters
    ----------
    words : list of str
    environment : dict
    cwd : path
    files : list of int
        What takes the place of the three standard files. No other is inherited.
    new_session : bool
        Whether signals from the terminal do not reach the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        if new_session:
            os.setsid()
        signal.alarm(TIMEOUT)  # ends a process that hangs
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        atexit._clear()
        os.chdir(cwd)
        for number, other in enumerate([os.dup(other) for other in files]):
            os.dup2(other, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        # Not those of pytest, which a test that starts a script may run in.
        sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        while words is not None:
            os.environ.clear()
            os.environ.update(environment)
            try:
                run(words)
                words = None
            except Replaced as other:
                words, environment = other.args
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def run(words):
    """Run a script, or the code after -c, or the module after -m, with its arguments."""
    words = words[words[0] == "-u" :]  # as torchrun starts processes
    option = words[0] if words[0] in ("-c", "-m") else ""
    first = "" if option else str(Path(words[0]).resolve().parent)
    # The folder of this file, or of the script of the parent, gives way to that of the script.
    sys.path[:1] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if option == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif option:
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")


def keep(connection, files):
    """Read a call, fork, and answer with the id of the fork and, once it has ended, its code."""
    with connection, connection.makefile("rw") as stream:
        pid = fork(**json.loads(stream.readline()), files=files)
        print(pid, file=stream, flush=True)
        for number in files:
            os.close(number)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=stream, flush=True)


def serve(calls):
    """Fork a process that keeps the fork of a call, for each call, until there are no more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that keep
    while (received := socket.recv_fds(calls, 1, 4))[0]:
        connection, *files = received[1]
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with suppress(BrokenPipeError):  # who has called is gone
                keep(socket.socket(fileno=connection), files)
            os._exit(0)
        for number in received[1]:
            os.close(number)


def warm_up():
    """Have the libraries make, once, what they then keep."""
    import numba
    import vl_convert
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    vl_convert.javascript_bundle()  # the charts of report.html
    numba.njit(lambda: 0)()  # what numba can compile
    get_checkpoint_conversion_mapping("bert")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _be_interpreter(sys.argv[1:])
    os.fsync = lambda file: None  # as conftest.py has it
    # Python 3.12 and later; the scripts that are forked from a thread do not use its locks.
    warnings.filterwarnings("ignore", ".* multi-threaded, use of fork", DeprecationWarning)
    subprocess.Popen = ForkPopen  # before the import of what takes it from there
    EXECVPE, os.execvpe = os.execvpe, execvpe
    for module in MODULES:
        importlib.import_module(module)
    warm_up()
    sys.modules["matplotlib.figure"].Figure.savefig = importlib.import_module("pictures").draw_once
    gc.freeze()  # the forks' garbage collections need not visit what was imported
    serve(socket.socket(fileno=os.dup(0)))
