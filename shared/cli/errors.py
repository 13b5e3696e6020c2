"""Every error of a program is one clear line on stderr, and an exit code.

A mistake of the user is a `UserError`, exit code 2. Whatever else ends a program unexpectedly is
exit code 1, and its traceback lies in a file, which the line names.
"""

import errno
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

EXIT_UNEXPECTED = 1
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
_MEMORY_ADVICE = (
    "lower --per_device_train_batch_size, --per_device_eval_batch_size or --max_length, or free "
    "some memory"
)
_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
_ROOT = Path(__file__).resolve().parents[2]  # the folder of the project
_LONGEST_LINE = 1000  # characters of an error; more hides what is wrong
_log_folder: Path | None = None  # for the traceback of an unexpected error; see `log_errors_to`
# safetensors and torch.save replace the exception of the system by one of their own.
_FULL_DISK_MESSAGES = ("No space left on device", "unexpected pos", "PytorchStreamWriter failed")


class UserError(Exception):
    """A mistake that the user can correct.

    The message says what is wrong, where (file, row, label, flag), and what to do. Recipes print it
    as one line, without a traceback, and exit with code 2.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Run the ``main()`` of a recipe: print any error as one line and exit.

    The exit code is 2 for a mistake of the user, 130 for Ctrl-C and 1 for everything else. These
    count as mistakes of the user, too: a full disk, a folder without write permission, memory that
    does not suffice, an optional package that is not installed, a hub that cannot be reached. The
    traceback of everything else is written to ``error.log`` in the folder of `log_errors_to`, or in
    the temporary folder.

    Warnings of libraries are not shown, unless Python is told to (``python -W``,
    ``PYTHONWARNINGS``): they tell a user nothing, and hide the error.
    """
    # A launcher that ignores Ctrl-C passes this setting to its child processes: undo it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
        leave_processes()
    except UserError as error:
        _exit(str(error), EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _exit("interrupted", EXIT_INTERRUPTED)
    except SystemExit:
        leave_processes()
        raise
    # Not only Exception: a library written in Rust ends with an exception that is none.
    except BaseException as error:
        if message := _mistake(error):
            _exit(message, EXIT_USER_ERROR)
        _exit_unexpectedly(error)


def log_errors_to(folder: Path) -> None:
    """Set the folder for ``error.log``, and remove that of an earlier run."""
    global _log_folder
    _log_folder = folder
    _log_file(folder).unlink(missing_ok=True)


def _mistake(error: BaseException) -> str | None:
    """Return the message for an error that the user can correct, though it is no `UserError`."""
    text = str(error)
    if isinstance(error, (ImportError, RuntimeError)) and "pip install" in text:
        return text  # for example a package that --report_to needs
    if type(error).__module__.startswith(("huggingface_hub.errors", "httpx")):
        return f"the hub: {first_line(error)}"
    if isinstance(error, MemoryError) or any(part in text for part in _MEMORY_MESSAGES):
        return f"not enough memory ({first_line(error)}); {_MEMORY_ADVICE}"
    full = any(part in text for part in _FULL_DISK_MESSAGES)
    number = errno.ENOSPC if full else getattr(error, "errno", None)
    if number not in _ADVICE:
        return None
    file = getattr(error, "filename", None) or "output"
    return f"{file}: {os.strerror(number)}; {_ADVICE[number]}"


def _exit_unexpectedly(error: BaseException) -> NoReturn:
    """Write the traceback to a file; print what was done last, and where the file is."""
    frames = traceback.extract_tb(error.__traceback__)
    # The last line of the program itself; the frames below it are in libraries.
    own = [frame for frame in frames if _is_own(frame)]
    last = (own or frames)[-1]
    file = Path(last.filename).resolve()
    place = file.relative_to(_ROOT) if own else file
    text = "".join(traceback.format_exception(error))
    message = (
        f"unexpected {type(error).__name__}: {_shorten(first_line(error), 300)}; last step: "
        f"{place}, line {last.lineno}: {_shorten(last.line or last.name, 100)}; "
        f"{_write_log(text)}"
    )
    _exit(message, EXIT_UNEXPECTED)


def is_raised_by_library(error: BaseException) -> bool:
    """Return whether an error was raised outside of this project's own code."""
    return not _is_own(traceback.extract_tb(error.__traceback__)[-1])


def _is_own(frame: traceback.FrameSummary) -> bool:
    file = Path(frame.filename).resolve()
    # Not "<frozen posixpath>", which is no file.
    return file.is_file() and file.is_relative_to(_ROOT) and "site-packages" not in file.parts


def _log_file(folder: Path) -> Path:
    rank = os.environ.get("RANK", "0")
    return folder / ("error.log" if rank == "0" else f"error_rank{rank}.log")


def _write_log(text: str) -> str:
    """Write a traceback; return where it is, as text."""
    with suppress(OSError):  # a full disk; try the other folder
        if _log_folder is not None:
            _log_file(_log_folder).write_text(text, encoding="utf-8")
            return f"the traceback is in {_log_file(_log_folder)}"
    with suppress(OSError):
        # A new name: other users have their files there, too.
        descriptor, path = tempfile.mkstemp(prefix="error_", suffix=".log")
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return f"the traceback is in {path}"
    return "the traceback could not be written"


def leave_processes() -> None:
    """Leave the process group of a distributed run, if there is one.

    A group that still exists when the interpreter ends can abort the process in its last moment
    (pytorch/pytorch#190489), and the launcher then ends the other processes, too.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()


def _exit(message: str, code: int) -> NoReturn:
    # All processes of a distributed run have the same mistake; only the first one prints it. An
    # unexpected error can be in one process only.
    if code == EXIT_UNEXPECTED or os.environ.get("RANK", "0") == "0":
        line = _shorten(" ".join(message.split()), _LONGEST_LINE)
        print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(code)


def _shorten(text: str, length: int) -> str:
    """Cut the middle out of a text that is longer than `length` characters."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank, else the error's type."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
