"""Files of a run: written as a whole or not at all, so that no reader gets half a file."""

import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from shared.cli.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: files have no locks, and what a killed process leaves stays
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[2]  # the folder of the project

# --- files and folders that appear when they are complete ----------------------------------------


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; rename it to `path` when everything is written.

    After an error, an interruption or a full disk the old file is unchanged. Text files are UTF-8
    with "\\n" as line end. A killed process leaves its temporary file; the next one that writes the
    same file deletes it.
    """
    path = Path(path)
    remove_abandoned(path.parent, f".{path.name}.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        opened = temporary.open(mode, encoding=encoding, newline=newline)
        with _locked(temporary):
            with opened as file:
                yield file
                # On the disk before the rename: a crash then leaves the old file or the new one.
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Create a hidden folder inside another one, and delete it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=".", suffix=f".{os.getpid()}.tmp", dir=parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, which tells `remove_abandoned` that the process of a temporary file lives.

    The system releases the lock when the process ends, however it ends.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path, prefix: str = ".", *, recursive: bool = False) -> None:
    """Delete the temporary files and folders that killed processes have left.

    Parameters
    ----------
    folder : Path
    prefix : str
        Of the names to look at.
    recursive : bool, default False
        Also look into the folders inside.
    """
    if fcntl is None:
        return
    # Unlike Path.glob, this passes over folders that another process deletes meanwhile.
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if name.startswith(prefix) and re.fullmatch(r"\..*\.\d+\.tmp", name):
                _remove_if_abandoned(Path(parent, name))
        if not recursive:
            break


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):
        # One that has just been created may not be locked yet.
        if time.time() - path.stat().st_mtime < 1:
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if it is in use
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Delete a folder at once: a kill leaves all of it under its name, or nothing."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    folder.rename(temporary)
    shutil.rmtree(temporary)


# --- formats -------------------------------------------------------------------------------------


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write one indented JSON object, atomically.

    Raises
    ------
    ValueError
        For NaN and infinity, which JSON does not have.
    """
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def kept_record(folder: Path, identity: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the record that an earlier call has kept in a folder, or make it and keep it.

    Parameters
    ----------
    folder : Path
    identity : JSON value
        Everything that decides about the record; its hash is the name of the file.
    make : callable
        Called without arguments if there is no file, or a damaged one.
    """
    text = json.dumps(identity, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        record = make()
        write_json(path, record)
        return record


def write_csv(
    path: str | Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write rows that have the same keys as CSV with a header, atomically.

    `columns` are the keys; they are needed where there may be no rows.
    """
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, columns or rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# --- folders -------------------------------------------------------------------------------------


def make_output_dir(path: str) -> Path:
    """Create the output folder and check that it can be written, before anything is computed.

    Temporary files that a killed run has left in it are deleted.

    Raises
    ------
    UserError
        If the path is a file, or the folder cannot be written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # has no name that could be in use
            file.write(b"\n")
        remove_abandoned(folder, recursive=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--output_dir {path}: a file is in the way") from None
    except (OSError, ValueError) as error:  # ValueError: a character that no path can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--output_dir {path}: cannot be written ({reason}); choose another folder"
        ) from None
    return folder


def expand_path(path: str) -> Path:
    """Replace `~`, `$NAME` and `${NAME}` in a path by their values.

    Where `RECIPES_DATA` is not set, it stands for the folder `shared/data` beside the project, if
    that exists.

    Raises
    ------
    UserError
        If an environment variable is not set.
    """

    def value(match: re.Match) -> str:
        name = match[1] or match[2]
        default_folder = ROOT.parent / "shared" / "data"
        if name in os.environ:
            return os.environ[name]
        if name == "RECIPES_DATA" and default_folder.is_dir():
            return str(default_folder)
        raise UserError(
            f"{path}: the environment variable {name} is not set; set it to the path of the folder"
        )

    return Path(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, path)).expanduser()


def folder_fingerprint(folder: str) -> str:
    """Return names, sizes and times of the files in a folder, which change when a file does."""
    files = sorted(path for path in Path(folder).glob("*") if path.is_file())
    stats = [(path.name, path.stat()) for path in files]
    return " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
