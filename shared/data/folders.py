"""Folders of text files: one folder for each class, one file for each text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.cli.errors import UserError
from shared.data.encodings import find_encoding
from shared.data.sources import Source

COLUMNS = ("text", "label", "file")


def open_class_folders(path: Path, split: str, encoding: str | None) -> Source | None:
    """Open ``path/CLASS/*.txt``, or ``path/SPLIT/CLASS/*.txt``.

    Text files have the suffix .txt or none. The rows have the columns `COLUMNS`.

    Parameters
    ----------
    path : Path
        An existing folder.
    split : str
        The folder to take, if folders of classes lie one level deeper.
    encoding : str, optional
        Of all files (default: UTF-8).

    Returns
    -------
    Source or None
        None if no folder in `path` holds text files.

    Raises
    ------
    UserError
        If there are several splits, and none of this name.
    """
    classes = [folder for folder in _subfolders(path) if _text_files(folder)]
    if not classes:
        splits = [f for f in _subfolders(path) if any(map(_text_files, _subfolders(f)))]
        if not splits:
            return None
        names = [folder.name for folder in splits]
        if split not in names:
            raise UserError(
                f"{path}: folders of classes are in {', '.join(names)}; name one of them with "
                f"--data_split, or give its path, such as {splits[0]}"
            )
        source = open_class_folders(path / split, split, encoding)
        if source and len(names) > 1:
            others = ", ".join(str(path / name) for name in names if name != split)
            source.notes.append(
                f"read the folder {split!r} (--data_split); not read: {others} (--valid_data and "
                "--test_data take such a path)"
            )
        return source

    files = [(folder.name, file) for folder in classes for file in _text_files(folder)]
    notes = []
    if beside := len(_text_files(path)):
        notes.append(f"not read: {beside:,} text files beside the folders of the classes")

    def read(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        for label, file in files:
            cells = (_read_text(file, encoding), label, str(file.relative_to(path)))
            yield dict(zip(COLUMNS, cells, strict=True))

    digest = hashlib.sha256()
    for _, file in files:
        status = file.stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return Source(
        str(path),
        f"{path.resolve()} {digest.hexdigest()}",
        list(COLUMNS),
        read,
        f"a folder of text files for each of {len(classes):,} classes",
        notes=notes,
        place_of_row=lambda row: str(files[row - 1][1]),
    )


def _subfolders(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith((".", "__")))


def _text_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in (".txt", "") and not file.name.startswith(".") and file.is_file()
    )


def _read_text(file: Path, encoding: str | None) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    try:
        return content.decode(encoding or "utf-8-sig")
    except LookupError:
        find_encoding(file, encoding)  # raises an error that names encodings
        raise
    except UnicodeError as error:
        if encoding is not None:
            raise UserError(f"{file}: not {encoding} ({error}); name another --encoding") from error
        # The files of a folder need not have the same encoding: nothing is guessed from one.
        likely = find_encoding(file)[0].name
        raise UserError(f"{file}: not UTF-8 but probably {likely}; name its --encoding") from error
