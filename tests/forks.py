"""Run Python scripts in forks of a process that has imported the libraries already.

Starting Python and importing the libraries takes a recipe most of its time in a test. `run_script`
starts this file as a process that does it once. That process reads calls from its standard input,
one JSON object per line, and answers with the exit codes of the forks of that call.

A fork has its own arguments, environment, folder, output and signals, as a process that was started
from the command line has. What a library reads when it is imported, such as OMP_NUM_THREADS, is
that of the process here. A Python script that a fork starts, as ``accelerate launch`` and the
recipes that run others do, is a fork of it. Needs fork: Linux or macOS.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

import vl_convert

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
OUTPUTS = ("stdout", "stderr")


# --- for tests -----------------------------------------------------------------------------------


def run_script(*words, processes=1, check=True, cwd=ROOT):
    """Do what ``python WORDS`` does, in a project; return the finished process with its output.

    The first word is a script, or -c with code, or -m with a module.

    With two `processes` they are those of one launch, as torchrun starts them. The output is that
    of all, the exit code that of the first one that failed.
    """
    launch = {}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        launch |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    call = {"words": [*map(str, words)], "processes": processes, "cwd": str(cwd)}
    call["environment"] = {**os.environ, "PYTHONPATH": str(cwd), **launch}
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: Path(folder, name) for name in OUTPUTS}
        for name, path in outputs.items():
            path.touch()
            call[name] = str(path)
        server = _server()
        print(json.dumps(call), file=server.stdin, flush=True)
        codes = json.loads(server.stdout.readline())
        texts = {name: path.read_text(encoding="utf-8") for name, path in outputs.items()}
    result = subprocess.CompletedProcess(words, next(filter(None, codes), 0), **texts)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


@cache
def _server():
    """Start the process that forks, once; it ends with this one, which closes its input."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__], env=environment, **pipes)


# --- in the process that forks -------------------------------------------------------------------


class Popen(subprocess.Popen):
    """Starts this interpreter as a fork, in a session of its own; other programs as ever."""

    def _execute_child(self, args, *rest):
        if isinstance(args, str) or args[0] != sys.executable:
            super()._execute_child(args, *rest)
            return
        # The order of Python 3.10 to 3.13. The files are the two ends of three pipes, or -1.
        cwd, env, files = rest[4], rest[5], rest[9:15]
        self.pid = fork(
            [*map(str, args[1:])],
            dict(os.environ if env is None else env),
            os.getcwd() if cwd is None else cwd,
            dict(enumerate([files[0], files[3], files[5]])),
            close={files[1], files[2], files[4]} - {-1},
            new_session=True,
        )
        self._child_created = True
        self._close_pipe_fds(*files)


def fork(words, environment, cwd, files, close=(), new_session=False):
    """Start a process that does what ``python WORDS`` does; return its id.

    Parameters
    ----------
    words : list of str
    environment : dict
    cwd : path
    files : dict
        What takes the place of the standard files, by number; -1 leaves a file as it is.
    close : iterable of int
        Files that the process does not inherit.
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
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        for number in close:
            os.close(number)
        for number, other in files.items():
            if other not in (-1, number):
                os.dup2(other, number)
        run(words)
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


def answer(call):
    """Run the processes of a call; return their exit codes."""
    pids = []
    with open(os.devnull) as nothing:
        for rank in range(call["processes"]):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if call["processes"] > 1 else {}
            outputs = [os.open(call[name], os.O_WRONLY | os.O_APPEND) for name in OUTPUTS]
            files = dict(enumerate([nothing.fileno(), *outputs]))
            pids.append(fork(call["words"], call["environment"] | ranks, call["cwd"], files))
            for number in outputs:
                os.close(number)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    subprocess.Popen = Popen  # before the import of what takes it from there
    for module in MODULES:
        importlib.import_module(module)
    vl_convert.javascript_bundle()  # the charts of report.html; made once in a process
    gc.freeze()  # the forks' garbage collections need not visit what was imported
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
