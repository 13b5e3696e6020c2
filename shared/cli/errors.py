"""One way to tell a user what went wrong."""

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
# safetensors and torch.save put exceptions of their own in the place of the system's.
_SIGNS_OF_A_FULL_DISK = ("No space left on device", "unexpected pos", "PytorchStreamWriter failed")


class UserError(Exception):
    """A mistake the user can mend: says what is wrong, where (file, row, label, flag), what to do.

    Recipes print it as one line, without a traceback, and exit with code 2.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Run a recipe's ``main()``: one line and exit code 2 for a user's mistake, 130 for Ctrl-C.

    A full disk, a folder that may not be written, an optional package that is not installed and a
    hub that cannot be reached count as mistakes a user can mend. Anything else is a fault of the
    program and keeps its traceback. A process of a distributed run that ends as it should leaves
    its group first.
    """
    # A launcher that shields itself from Ctrl-C hands the deaf ear down to its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        leave_processes()
    except UserError as error:
        _exit(str(error), EXIT_USER_ERROR)
    except Exception as error:
        if isinstance(error, (ImportError, RuntimeError)) and "pip install" in str(error):
            _exit(str(error), EXIT_USER_ERROR)  # such as the package that --report_to wants
        if type(error).__module__.startswith(("huggingface_hub.errors", "httpx")):
            _exit(f"the hub: {first_line(error)}", EXIT_USER_ERROR)
        full = any(sign in str(error) for sign in _SIGNS_OF_A_FULL_DISK)
        number = errno.ENOSPC if full else getattr(error, "errno", None)
        if number not in _ADVICE:
            raise
        where = getattr(error, "filename", None) or "output"
        _exit(f"{where}: {os.strerror(number)}; {_ADVICE[number]}", EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _exit("interrupted", EXIT_INTERRUPTED)
    except SystemExit as end:
        _leave_status(end.code)
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
    # Every process of a distributed run meets the same mistake; one line is enough.
    if os.environ.get("RANK", "0") == "0":
        print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    _leave_status(code)
    sys.exit(code)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says anything, else its type."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _leave_status(code: int | str | None) -> None:
    # `accelerate launch` ends with 1 whatever its child ended with; run.sh reads the code here.
    if (path := os.environ.get("RECIPE_EXIT_STATUS")) and isinstance(code, int):
        Path(path).write_text(str(code))
