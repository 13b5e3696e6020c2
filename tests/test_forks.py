"""A fork is to a test what a process is that was started from the command line."""

import os
import signal
import subprocess
import sys

import pytest
from forks import INTERPRETER, Script, forking, run_script

# Takes its own place; then its exit code is the number of its variables.
REPLACE = """
import os, sys
words = [sys.executable, "-c", "import os; exit(len(os.environ))"]
try:
    os.execvpe(sys.executable, words, {"A": "", "B": "", "C": ""})
except Exception:
    sys.exit(9)
"""


def start(code, **options):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return Script([sys.executable, "-c", code], text=True, **pipes, **options)


def test_standard_files_and_the_exit_code_are_its_own():
    script = start("import sys; print(input()); sys.exit('wrong')")
    assert script.communicate("a line\n", timeout=60) == ("a line\n", "wrong\n")
    assert script.returncode == script.poll() == script.wait() == 1


def test_a_signal_reaches_a_script_that_runs():
    script = start("import time; print('up', flush=True); time.sleep(100)", start_new_session=True)
    assert script.stdout.readline() == "up\n"
    assert script.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        script.wait(0.01)
    os.killpg(script.pid, signal.SIGKILL)
    script.communicate(timeout=60)
    assert script.returncode == -signal.SIGKILL


def test_a_script_that_takes_its_place_has_its_own_variables():
    assert run_script("-c", REPLACE, check=False).returncode == 3


def test_a_script_of_a_fork_is_a_fork_without_files_of_others():
    code = "import os, sys; print('numba' in sys.modules, *os.listdir('/dev/fd'))"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    imported, *numbers = run_script("-c", outer).stdout.split()
    assert imported == "True"
    assert {*numbers} <= {"0", "1", "2", "3"}  # the last one is that of the folder itself


def test_a_program_that_is_not_python_is_a_process():
    script = Script(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert script.communicate("a", timeout=60) == ("a", None)
    assert script.poll() == 0


def test_a_shell_script_runs_its_interpreter_as_a_fork():
    file, variables = forking()
    command = f"exec {INTERPRETER} -c 'import sys; print(\"numba\" in sys.modules); sys.exit(7)'"
    process = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | variables,
        pass_fds=[file],
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout, process.stderr) == (7, "True\n", "")
