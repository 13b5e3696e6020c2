"""Files of a run: written as a whole or not at all, so that no reader gets half a file."""

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from shared.cli.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # the folder of the project


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; rename it to `path` when everything is written.

    After an error, an interruption or a full disk the old file is unchanged. Text files are UTF-8
    with "\\n" as line end.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with temporary.open(mode, encoding=encoding, newline=newline) as file:
            yield file
            # On the disk before the rename: a crash then leaves the old file or the new one.
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same keys as CSV with a header, atomically."""
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make_output_dir(path: str) -> Path:
    """Create the output folder and check that it can be written, before anything is computed.

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
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--output_dir {path}: a file is in the way") from None
    except (OSError, ValueError) as error:  # ValueError: a character that no path can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--output_dir {path}: cannot be written ({reason}); choose another folder"
        ) from None
    return folder


def folder_fingerprint(folder: str) -> str:
    """Return names, sizes and times of the files in a folder, which change when a file does."""
    files = sorted(path for path in Path(folder).glob("*") if path.is_file())
    stats = [(path.name, path.stat()) for path in files]
    return " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
