"""Run Python scripts in forks of a process that has imported the libraries already.

Starting Python and importing the libraries takes a recipe most of its time in a test. `run_script`
starts this file as a process that does it once. That process reads calls from its standard input,
one JSON object per line, and answers with the exit codes of the forks of that call.

A fork has its own arguments, environment, folder, output and signals, as a process that was started
from the command line has. What a library reads when it is imported, such as OMP_NUM_THREADS, is
that of the process here. Needs fork: Linux or macOS.
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
        "accelerate",
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


# --- for tests -----------------------------------------------------------------------------------


def run_script(*words, processes=1, check=True, cwd=ROOT):
    """Do what ``python WORDS`` does, in a project; return the finished process with its output.

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
        outputs = {name: Path(folder, name) for name in ("stdout", "stderr")}
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


def fork(call, rank):
    """Start a process of a call; return its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        signal.alarm(TIMEOUT)  # ends a process that hangs
        os.environ.clear()
        os.environ.update(call["environment"])
        if call["processes"] > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        os.chdir(call["cwd"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(call[name], os.O_WRONLY | os.O_APPEND), number)
        run(call["words"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
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
    """Run a script, or the code after -c, with the arguments that follow."""
    first = "" if words[0] == "-c" else str(Path(words[0]).resolve().parent)
    # The folder of this file gives way to that of the script.
    sys.path[:1] = [first, *os.environ["PYTHONPATH"].split(os.pathsep)]
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    vl_convert.javascript_bundle()  # the charts of report.html; made once in a process
    gc.freeze()  # the forks' garbage collections need not visit what was imported
    for line in sys.stdin:
        request = json.loads(line)
        pids = [fork(request, rank) for rank in range(request["processes"])]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]))
        sys.stdout.flush()
