"""`accelerate`, as this project installs it: ``accelerate launch`` without its detours.

The command of the package accelerate starts a recipe as a child process. A mistake of the user is
then followed by a traceback of the launcher, every exit code becomes 1, and without a config file
a warning of five lines comes first. setup.cfg installs `main` under the same name. It changes three
things of ``accelerate launch`` and hands everything else on:

- Without a config (``--config_file``, the environment variable ACCELERATE_CONFIG, or the file that
  ``accelerate config`` wrote) it takes one from ``recipes/configs/accelerate``, by the GPUs found.
- A single process replaces the launcher, so that its errors, exit code and signals are its own.
  Of several processes, the exit code of the first one that failed is kept.
- Threads that wait for others sleep. By default they spin: on a machine with other work, two
  spinning threads take five times the time of two that sleep.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from shared.cli.errors import EXIT_USER_ERROR, UserError, first_line
from shared.cli.files import ROOT
from shared.cli.launch import PASSIVE_WAITING

CONFIGS = ROOT / "recipes" / "configs" / "accelerate"


def main() -> None:
    """Run ``accelerate`` with the words of the command line."""
    # accelerate imports torch here, so this comes first.
    for name, value in PASSIVE_WAITING.items():
        os.environ.setdefault(name, value)
    if len(sys.argv) > 1 and sys.argv[1] == "launch":
        launch(sys.argv[2:])
    from accelerate.commands import accelerate_cli

    accelerate_cli.main()


def launch(words: list[str]) -> NoReturn:
    """Launch a script, as ``accelerate launch`` does."""
    from accelerate.commands import launch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    args = launch.launch_command_parser().parse_args(words)
    launch.simple_launcher = replace_process
    try:
        set_defaults(args, os.environ)
        launch.launch_command(args)
    except ChildFailedError as error:  # its own message repeats what the processes printed
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
    except SignalException as end:
        sys.exit(128 + end.sigval)
    except Exception as error:  # a config or flags are wrong
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    sys.exit(0)


def set_defaults(args: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Set the config and the number of threads, where the user sets neither.

    Parameters
    ----------
    args : argparse.Namespace
        Of ``accelerate launch``; changed in place.
    environment : mapping
        ACCELERATE_CONFIG and OMP_NUM_THREADS are read.

    Raises
    ------
    UserError
        If ACCELERATE_CONFIG names no file, or the config cannot be read.
    """
    import torch
    from accelerate.commands.config import default_config_file
    from accelerate.commands.config.config_args import load_config_from_file
    from joblib import cpu_count  # respects the limits of a container

    named = environment.get("ACCELERATE_CONFIG")
    if named and not args.config_file and not Path(named).is_file():
        raise UserError(f"ACCELERATE_CONFIG={named}: no such file")
    args.config_file = args.config_file or named
    chosen = args.multi_gpu or args.tpu or args.use_deepspeed or args.use_fsdp
    # With --cpu, accelerate does not read it.
    has_own_config = Path(default_config_file).is_file() and not args.cpu
    if args.config_file is None and not chosen and not has_own_config:
        # Of any maker: torch.accelerator also counts those of Apple, Intel and others.
        has_gpus = torch.accelerator.is_available() and not args.cpu
        n_gpus = torch.accelerator.device_count() if has_gpus else 0
        names = ("one_cpu.yaml", "one_gpu.yaml")
        args.config_file = str(CONFIGS / (names[n_gpus] if n_gpus < 2 else "several_gpus.yaml"))
        if n_gpus > 1 and args.num_processes is None:
            args.num_processes = n_gpus
    path = args.config_file or (default_config_file if has_own_config else None)
    try:
        config = load_config_from_file(path) if path else None
        processes = args.num_processes or int(getattr(config, "num_processes", None) or 1)
        machines = args.num_machines or int(getattr(config, "num_machines", None) or 1)
    except Exception as error:  # anything can be in the file
        raise UserError(f"{path}: no config of accelerate: {first_line(error)}") from error
    if args.num_cpu_threads_per_process is None and not environment.get("OMP_NUM_THREADS"):
        args.num_cpu_threads_per_process = max(1, cpu_count() // max(1, processes // machines))


def replace_process(args: argparse.Namespace) -> NoReturn:
    """Replace this process by the script, in place of accelerate's `simple_launcher`."""
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    n = args.num_processes or 1
    if n > 1 and args.mpirun_hostfile is None:
        print(
            f"note: without a GPU accelerate starts one process, not {n}; to start them, use "
            f"torchrun --nproc_per_node {n} {args.training_script} --use_cpu",
            file=sys.stderr,
        )
    command, environment = prepare_simple_launcher_cmd_env(args)
    if os.name == "nt":  # there, exec returns to the shell before the script ends
        sys.exit(subprocess.run(command, env=environment).returncode)
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main()
