"""`accelerate launch`, as this project installs it."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands import config, launch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from shared.cli import launcher
from shared.cli.errors import UserError

ROOT = Path(__file__).parents[3]
LAUNCH = (sys.executable, ROOT / "shared" / "cli" / "launcher.py", "launch")
SCRIPT = """
import os, sys
print(os.getpid(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("OMP_WAIT_POLICY"))
sys.exit(int(sys.argv[1]))
"""


def run(*words, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    return subprocess.Popen(
        [*map(str, LAUNCH), *map(str, words)],
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_accelerate_is_installed_as_the_launcher():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = settings["options.entry_points"]["console_scripts"]
    assert "accelerate = shared.cli.launcher:main" in scripts


def test_a_users_mistake_is_one_line_and_keeps_its_exit_code(tmp_path):
    flags = ("--data", "nowhere.jsonl", "--output_dir", tmp_path)
    process = run("recipes/naive_bayes.py", *flags)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert err == "error: nowhere.jsonl: no such file\n"
    assert "ccelerate" not in out


def test_the_script_takes_the_place_of_the_launcher(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = run(script, 130, OMP_NUM_THREADS="3")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == ""
    # Signals reach the script, since it has the number of the process that was started.
    assert out.split() == [str(process.pid), "3", "PASSIVE"]


# --- defaults ------------------------------------------------------------------------------------


@pytest.fixture
def defaults(monkeypatch, tmp_path):
    """Return the arguments of a launch with its defaults, on a machine with some GPUs."""

    def of(*words, gpus=0, cores=8, own_config=False, **environment):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: gpus)
        monkeypatch.setattr("joblib.cpu_count", lambda: cores)
        path = tmp_path / "default_config.yaml"
        monkeypatch.setattr(config, "default_config_file", str(path))
        if own_config:
            path.write_text((launcher.CONFIGS / "one_cpu.yaml").read_text())
        args = launch.launch_command_parser().parse_args([*words, "script.py"])
        launcher.set_defaults(args, environment)
        return args

    return of


@pytest.mark.parametrize(
    ("gpus", "name", "processes"),
    [(0, "one_cpu.yaml", None), (1, "one_gpu.yaml", None), (4, "several_gpus.yaml", 4)],
)
def test_the_config_is_chosen_by_the_gpus(gpus, name, processes, defaults):
    args = defaults(gpus=gpus)
    assert args.config_file == str(ROOT / "recipes" / "configs" / "accelerate" / name)
    assert args.num_processes == processes
    assert args.num_cpu_threads_per_process == 8 // (processes or 1)


def test_what_the_user_chose_is_kept(defaults, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text((launcher.CONFIGS / "one_cpu.yaml").read_text())
    assert defaults("--config_file", str(mine)).config_file == str(mine)
    assert defaults(ACCELERATE_CONFIG=str(mine)).config_file == str(mine)
    assert defaults("--multi_gpu").config_file is None
    assert defaults(OMP_NUM_THREADS="1").num_cpu_threads_per_process is None
    assert defaults("--num_cpu_threads_per_process=2").num_cpu_threads_per_process == 2
    assert defaults("--num_processes=2", gpus=4).num_processes == 2
    assert defaults(own_config=True).config_file is None
    with pytest.raises(UserError, match=r"ACCELERATE_CONFIG=nowhere.yaml: no such file"):
        defaults(ACCELERATE_CONFIG="nowhere.yaml")


def test_a_launch_on_the_cpu_has_the_config_of_one(defaults):
    args = defaults("--cpu", gpus=4, own_config=True)
    assert args.config_file == str(launcher.CONFIGS / "one_cpu.yaml")
    assert args.num_processes is None


@pytest.mark.parametrize(
    ("name", "threads"), [("several_gpus", 32), ("fsdp", 32), ("several_nodes", 16)]
)
def test_the_cores_are_divided_among_the_processes_of_a_config(name, threads, defaults):
    path = str(launcher.CONFIGS / f"{name}.yaml")
    assert defaults("--config_file", path, cores=64).num_cpu_threads_per_process == threads


def test_several_processes_without_a_gpu_are_not_promised(monkeypatch, capsys):
    started = []
    monkeypatch.setattr(launcher.os, "execvpe", lambda *words: started.append(words))
    for words in (["--cpu", "--num_processes=2"], ["--cpu"]):
        args = launch.launch_command_parser().parse_args([*words, "script.py", "--use_cpu"])
        args, *_ = launch._validate_launch_command(args)
        launcher.replace_process(args)
    assert len(started) == 2
    (note,) = capsys.readouterr().err.splitlines()
    assert "one process, not 2; to start them, use torchrun --nproc_per_node 2 script.py" in note


@pytest.mark.parametrize(
    "text", ["a: [", "- a\n- b\n", "", "num_machines: x\n", "num_processes: two\n"]
)
def test_a_config_that_cannot_be_read_is_one_line(text, tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    monkeypatch.setattr(launch, "simple_launcher", launch.simple_launcher)
    with pytest.raises(SystemExit) as end:
        launcher.launch(["--config_file", str(path), "script.py"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: no config of accelerate: ")


# --- several processes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (ChildFailedError("x", {0: ProcessFailure(0, 1, 2, "none")}), 2, ""),
        (ChildFailedError("x", {0: ProcessFailure(0, 1, -9, "none")}), 137, ""),
        (SignalException("x", sigval=15), 143, ""),
        (ValueError("two\nlines"), 2, "error: two lines\n"),
    ],
)
def test_the_exit_code_of_a_process_is_kept(error, code, printed, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(launch, "launch_command", fail)
    monkeypatch.setattr(launch, "simple_launcher", launch.simple_launcher)
    with pytest.raises(SystemExit) as end:
        launcher.launch(["script.py"])
    assert end.value.code == code
    assert capsys.readouterr().err == printed
