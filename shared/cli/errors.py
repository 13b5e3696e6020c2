"""Errors of the user: one clear line on stderr, and an exit code."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_ADVICE = {
    errno.ENOSPC: "free some space or choose another --output_dir, then run again "
    "(--resume_from_checkpoint true continues from the newest complete checkpoint)",
    errno.EDQUOT: "free some of your quota or choose another --output_dir",
    errno.EACCES: "choose another --output_dir or change the permissions",
    errno.EPERM: "choose another --output_dir or change the permissions",
    errno.EROFS: "the file system is read-only, choose another --output_dir",
}
# safetensors and torch.save replace the exception of the system by one of their own.
_FULL_DISK_MESSAGES = ("No space left on device", "unexpected pos", "PytorchStreamWriter failed")


class UserError(Exception):
    """A mistake that the user can correct.

    The message says what is wrong, where (file, row, label, flag), and what to do. Recipes print it
    as one line, without a traceback, and exit with code 2.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Run the ``main()`` of a recipe: print a mistake of the user as one line and exit.

    The exit code is 2 for a mistake and 130 for Ctrl-C. These count as mistakes of the user, too: a
    full disk, a folder without write permission, an optional package that is not installed, a hub
    that cannot be reached. Every other exception is a fault of the program and keeps its traceback.
    """
    # A launcher that ignores Ctrl-C passes this setting to its child processes: undo it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        leave_processes()
    except UserError as error:
        _exit(str(error), EXIT_USER_ERROR)
    except Exception as error:
        if isinstance(error, (ImportError, RuntimeError)) and "pip install" in str(error):
            _exit(str(error), EXIT_USER_ERROR)  # for example a package that --report_to needs
        if type(error).__module__.startswith(("huggingface_hub.errors", "httpx")):
            _exit(f"the hub: {first_line(error)}", EXIT_USER_ERROR)
        full = any(message in str(error) for message in _FULL_DISK_MESSAGES)
        number = errno.ENOSPC if full else getattr(error, "errno", None)
        if number not in _ADVICE:
            raise
        file = getattr(error, "filename", None) or "output"
        _exit(f"{file}: {os.strerror(number)}; {_ADVICE[number]}", EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _exit("interrupted", EXIT_INTERRUPTED)
    except SystemExit as end:
        _write_exit_status(end.code)
        leave_processes()
        raise


def leave_processes() -> None:
    """Leave the process group of a distributed run, if there is one.

    A group that still exists when the interpreter ends can abort the process in its last moment
    (pytorch/pytorch#190489), and the launcher then ends the other processes, too.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()


def _exit(message: str, code: int) -> None:
    # All processes of a distributed run have the same mistake; only the first one prints it.
    if os.environ.get("RANK", "0") == "0":
        print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    _write_exit_status(code)
    sys.exit(code)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank, else the error's type."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _write_exit_status(code: int | str | None) -> None:
    # `accelerate launch` turns every exit code into 1; run.sh reads the real one from this file.
    if (path := os.environ.get("RECIPE_EXIT_STATUS")) and isinstance(code, int):
        Path(path).write_text(str(code))
