"""The launch that a recipe is part of: its processes, its devices, and what it prints."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shared.cli.errors import UserError, first_line, log_errors_to
from shared.cli.files import expand_path, make_output_dir

if TYPE_CHECKING:
    from tqdm import tqdm
    from transformers import TrainingArguments

Item = TypeVar("Item")

# Threads of OpenMP that wait for others sleep, where they would spin by default: on a machine with
# other work, two spinning threads take several times the time of two that sleep. The library reads
# the variable when torch is imported, so a launcher must set it.
PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}

# Seconds between two lines of progress in a log file.
LOG_SECONDS = 60


# --- output --------------------------------------------------------------------------------------


def start_recipe(args: Any) -> Path:
    """Silence the libraries and create the output folder; return the folder.

    With ``--push_to_hub``, also create the repository on the hub, so that a missing token shows
    before anything is computed.

    Parameters
    ----------
    args : dataclass
        The recipe's arguments; ``output_dir``, those that name files of rows, and the flags of the
        hub are read. ``hub_model_id`` becomes the full name of the repository.

    Raises
    ------
    UserError
        If the folder or the repository cannot be written, or if a file of rows lies in the folder:
        the files that the recipe writes could replace it.
    """
    quiet_libraries()
    folder = Path(args.output_dir)
    for name in ("data", "train_data", "valid_data", "test_data", "predict"):
        value = getattr(args, name, None) or []
        for path in [value] if isinstance(value, str) else value:  # train_nli takes several
            file = expand_path(path)
            if file.is_file() and file.resolve().parent == folder.resolve():
                raise UserError(
                    f"--{name} {file}: lies in --output_dir, where files are replaced; move it, or "
                    "choose another folder"
                )
    folder = make_output_dir(args.output_dir)
    log_errors_to(folder)
    pushes = getattr(args, "push_to_hub", False) and not getattr(args, "health_check", False)
    if pushes and is_main_process():
        args.hub_model_id = create_hub_repository(args)
    return folder


def create_hub_repository(args: TrainingArguments) -> str:
    """Create the repository of ``--push_to_hub``, unless it exists; return its full name.

    Without ``--hub_model_id`` it has the name of the output folder.

    Raises
    ------
    UserError
        If there is no valid token, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # that of its HTTP library

    name = args.hub_model_id or Path(args.output_dir).resolve().name
    try:
        repository = HfApi(token=args.hub_token).create_repo(
            name, private=args.hub_private_repo, exist_ok=True
        )
    except (HTTPError, OSError, ValueError) as error:
        raise UserError(
            f"--push_to_hub: cannot create {name}: {first_line(error)}; log in with "
            "`hf auth login`, or remove the flag"
        ) from error
    return repository.repo_id


def is_main_process() -> bool:
    """Return whether this is the first process of the launch, which prints and writes files."""
    return os.environ.get("RANK", "0") == "0"


def print_once(*values: object) -> None:
    """Print in the main process only."""
    if is_main_process():
        print(*values, flush=True)


def progress(
    iterable: Iterable[Item], description: str, *, unit: str = "rows", total: int | None = None
) -> Iterable[Item]:
    """Iterate with a `progress_bar`, shown once two seconds have passed."""
    return progress_bar(description, total, iterable=iterable, unit=unit, delay=2)


def progress_bar(description: str, total: int | None = None, *, unit: str, **settings: Any) -> tqdm:
    """Return a progress bar on stderr; where that is no terminal, a line each minute instead.

    Only the main process shows it. The settings are those of `tqdm.tqdm`.
    """
    from tqdm import tqdm

    settings |= {"unit": f" {unit}", "leave": False}
    if not sys.stderr.isatty():
        # A step may be longer than a minute, so each one looks at the clock (miniters).
        settings |= {"delay": LOG_SECONDS, "mininterval": LOG_SECONDS, "miniters": 1}
        settings |= {"file": _LogLines(), "ncols": 0}
    return tqdm(desc=description, total=total, disable=not is_main_process(), **settings)


def countdown(seconds: float, reason: str) -> None:
    """Wait, and show for how long: on a terminal each second, elsewhere a line each minute."""
    step = 1 if sys.stderr.isatty() else LOG_SECONDS
    with progress_bar(reason, unit="s", bar_format="{desc}") as bar:
        while seconds > 0:
            minutes, rest = divmod(math.ceil(seconds), 60)
            bar.set_description_str(f"{reason}: {minutes}:{rest:02} min left")
            time.sleep(min(seconds, step))
            seconds -= step


class _LogLines:
    """A file for a progress bar: each of its states becomes a line of stderr."""

    def write(self, text: str) -> None:
        """Write a state of the bar, unless it only clears the line."""
        text = text.replace("\x1b[A", "").strip()  # a bar below another one moves the cursor
        if text:
            sys.stderr.write(f"{text}\n")

    def flush(self) -> None:
        """Flush stderr."""
        sys.stderr.flush()


def quiet_libraries() -> None:
    """Turn off progress bars and warnings of libraries that tell a user nothing."""
    from datasets import disable_progress_bars
    from transformers.utils import logging

    # transformers draws a bar for each file of weights that it reads or writes.
    logging.disable_progress_bar()
    # It warns of sorting checkpoints by number where two are less than a second apart.
    logging.get_logger("transformers.trainer_utils").setLevel(logging.ERROR)
    # The Trainer asks for pinned memory also where there is no accelerator to copy it to.
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
    # peft calls a method of transformers that is deprecated.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    if not sys.stderr.isatty():
        disable_progress_bars()


# --- processes and devices -----------------------------------------------------------------------


def max_over_processes(number: int) -> int:
    """Return the highest number that any process of the launch passes; all must call this."""
    import torch  # recipes that do without torch import this module, too

    if not torch.distributed.is_initialized():
        return number
    on_cpu = torch.distributed.get_backend() in ("gloo", "mpi")
    device = "cpu" if on_cpu else _accelerator()
    highest = torch.tensor(number, device=device)
    torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
    return int(highest)


def wait_for_all_processes() -> None:
    """Wait until all processes of the launch have called this."""
    distributed = sys.modules.get("torch.distributed")  # not imported in a recipe without torch
    if distributed is not None and distributed.is_initialized():
        distributed.barrier()


def _accelerator() -> str | None:
    """Return the type of the accelerator of this machine: cuda, xpu, mps, ...; None without one."""
    import torch

    if not torch.accelerator.is_available():
        return None
    device = torch.accelerator.current_accelerator()
    return device.type if device else None


def runs_on_cpu(use_cpu: bool) -> bool:
    """Return whether a run uses the CPU.

    It does with ``--use_cpu``, if accelerate's config says so, and without an accelerator: a GPU
    (CUDA, ROCm, XPU, MPS) or another device that torch knows.
    """
    configured = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")
    return use_cpu or configured or _accelerator() is None


def has_fast_bf16(*, on_cpu: bool) -> bool:
    """Return whether the CPU, or the accelerator, has native bfloat16 arithmetic.

    On a CPU with AVX-512 BF16 or AMX a small encoder trains about twice as fast in bfloat16; other
    CPUs emulate it, which is slower.
    """
    import torch

    name = _accelerator()
    if not on_cpu and name is not None:
        if name == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        # MPS does not say, and XPU, NPU and HPU do.
        return bool(getattr(torch.get_device_module(name), "is_bf16_supported", bool)())
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_precision(args: TrainingArguments) -> None:
    """Set ``args.bf16`` where it is None: true if the hardware has native bfloat16.

    To be called before `TrainingArguments.__post_init__`, which refuses bfloat16 on a CPU unless
    ``use_cpu`` is set.
    """
    on_cpu = runs_on_cpu(args.use_cpu)
    if args.bf16 is None:
        args.bf16 = has_fast_bf16(on_cpu=on_cpu) and not args.fp16
    args.use_cpu = args.use_cpu or (args.bf16 and on_cpu)


def machine() -> str:
    """Describe the hardware, to be printed beside a timing."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    if (name := _accelerator()) is not None:
        return f"{torch.accelerator.device_count()} x {name.upper()}"
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"
