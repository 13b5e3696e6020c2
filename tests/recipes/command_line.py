"""Run recipes as a person does, from the command line, and read what they leave."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from forks import run_script
from matplotlib.figure import Figure
from pictures import draw_once

from shared.cli.errors import exit_on_user_error

ROOT = Path(__file__).parent.parent.parent
PYTHON = sys.executable
LAUNCH = (
    *(PYTHON, "-m", "accelerate.commands.launch"),
    *("--config_file", "recipes/configs/accelerate/one_cpu.yaml"),
)
# On CPUs, `accelerate launch --num_processes 2` starts one process.
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", 2, "--standalone")


def run(*command, check=True, cwd=ROOT, pass_fds=(), **environment):
    """Run a command; return the finished process with its output.

    `forks.run_script` does the same for a Python script, in a fraction of the time.
    """
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        pass_fds=pass_fds,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def launch(*words):
    """Run a recipe by ``accelerate launch`` in forks; return the finished process.

    `run` with `LAUNCH` does the same in processes that import the libraries themselves.
    """
    return run_script(*LAUNCH[1:], *words)


@cache
def load_recipe(name):
    """Import recipes/NAME.py, which is no package, once."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "recipes" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recipe:
    """A recipe's ``main()``, called in this process to save the seconds of a start.

    `flags` come before those of each call, which override them. A plot of one name is drawn once.
    """

    def __init__(self, name, monkeypatch, capfd, *flags):
        self.module = load_recipe(name)
        self.monkeypatch, self.capfd, self.flags = monkeypatch, capfd, flags
        monkeypatch.setattr(Figure, "savefig", draw_once)

    def __call__(self, *flags):
        """Run it; return what it printed."""
        flags = [*self.flags, *flags]
        self.monkeypatch.setattr(sys, "argv", [self.module.__file__, *map(str, flags)])
        self.capfd.readouterr()
        # A training that ends with an error ends the process, usually; its handlers stay.
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.module.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.capfd.readouterr().out

    def mistake(self, *flags, code=2):
        """Run it with a mistake: an exit code and one line, which is returned."""
        with pytest.raises(SystemExit) as exit, exit_on_user_error():
            self(*flags)
        assert exit.value.code == code
        return the_line(self.capfd.readouterr().err)


def the_line(stderr):
    """Return the one line that a mistake prints, without "error: "."""
    (line,) = stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path):
    # Not splitlines(), which also splits at characters that JSON need not escape.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def report_rows(folder):
    """Return the rows that ``report.html`` shows, in its lists, with their reasons."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="rows">(.*?)</script>', page, re.DOTALL).group(1))


def write(path, content):
    """Write rows as JSON lines, or text, or bytes; return the path."""
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def change_json(path, **values):
    """Set keys of a JSON object in a file; None removes one."""
    content = read_json(path) | values
    kept = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def truncate(path):
    """Leave the first half of a file, as a crash does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
