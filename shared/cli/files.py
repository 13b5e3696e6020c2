"""Write results so that a reader never meets half a file."""

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from shared.cli.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # of the project


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary neighbour of `path` and rename it onto `path` once all is written.

    After an error, an interruption or a full disk the old file is still whole. Text is UTF-8 with
    "\\n" line ends.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with temporary.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write one indented JSON object, atomically. NaN is refused: it is not JSON."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys as CSV with a header, atomically."""
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make_output_dir(path: str) -> Path:
    """Create the output folder and prove that it can be written, before anything is computed.

    Raises
    ------
    UserError
        If the path is a file, or may not be written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # nameless: in no one's way
            file.write(b"\n")
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--output_dir {path}: a file is in the way") from None
    except OSError as error:
        raise UserError(
            f"--output_dir {path}: cannot be written ({error.strerror}); choose another folder"
        ) from None
    return folder


def folder_fingerprint(folder: str) -> str:
    """Name, size and time of the files in a folder: of a model, the tokenizer's as well."""
    files = sorted(path for path in Path(folder).glob("*") if path.is_file())
    stats = [(path.name, path.stat()) for path in files]
    return " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
