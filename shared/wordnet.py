"""Synonyms from the database files of WordNet, wherever they lie."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from shared.errors import UserError

_FILES = ("index", "data")
_PARTS = ("noun", "verb", "adj", "adv")
_ADVICE = (
    "python -m pip install nltk && python -m nltk.downloader wordnet, or (Debian, Ubuntu) apt "
    "install wordnet-base, or name the folder that holds data.noun: --wordnet FOLDER"
)


def find_wordnet(folder: str | None = None) -> Path | zipfile.Path:
    """Return the folder with WordNet's files; it may lie in NLTK's archive.

    Parameters
    ----------
    folder : str, optional
        None looks where WordNet's own variables WNSEARCHDIR and WNHOME say, then where NLTK's
        downloader (NLTK_DATA) and Debian's package wordnet-base put the files.

    Raises
    ------
    UserError
        If they are nowhere; says how to get them.
    """
    if folder is not None:
        places = [Path(folder).expanduser()]
    else:
        variables = {"WNSEARCHDIR": "", "WNHOME": "dict", "NLTK_DATA": "corpora/wordnet"}
        named = [Path(os.environ[k], v) for k, v in variables.items() if os.environ.get(k)]
        downloads = [Path.home() / "nltk_data", Path("/usr/share/nltk_data")]
        places = [*named, *(place / "corpora" / "wordnet" for place in downloads)]
        places.append(Path("/usr/share/wordnet"))
    for place in places:
        archive = Path(f"{place}.zip")
        inside = [zipfile.Path(archive, "wordnet/")] if zipfile.is_zipfile(archive) else []
        for found in (place, *inside):
            if all((found / f"{kind}.{part}").is_file() for kind in _FILES for part in _PARTS):
                return found
    where = f"--wordnet {folder}: no WordNet there" if folder else "synonym: WordNet is not here"
    raise UserError(f"{where}; get it: {_ADVICE}")


class WordNet:
    """Synonyms of a word's most frequent sense as each part of speech; the model of `SynonymAug`.

    Miller 1995, "WordNet: A Lexical Database for English". nlpaug's own model reads the files by
    NLTK, downloads what is missing without asking, wants a part-of-speech tagger that NLTK has
    renamed since, and takes synonyms of every sense. Words are looked up as they are: an inflected
    one, whose synonyms would not be inflected, has none, nor has a stop word ("in" would become
    "inch").

    Parameters
    ----------
    folder : Path or zipfile.Path
        From `find_wordnet`.
    """

    def __init__(self, folder: Path | zipfile.Path):
        # Here, since an import may draw from the generators that nlpaug draws from.
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        self.stop_words = ENGLISH_STOP_WORDS
        # The format is described in WordNet's manual, wndb(5WN).
        self.data = {part: (folder / f"data.{part}").read_bytes() for part in _PARTS}
        self.offsets = {part: {} for part in _PARTS}
        for part in _PARTS:
            for line in (folder / f"index.{part}").read_text(encoding="utf-8").splitlines():
                if not line.startswith(" "):  # those are the licence
                    fields = line.split()
                    # Offsets of all senses come last, the most frequent first.
                    self.offsets[part][fields[0]] = int(fields[-int(fields[2])])

    def predict(self, word: str, pos: str | None = None) -> list[str]:
        """Return the synonyms of a word, without itself; `pos` is nlpaug's, and not looked at."""
        word, found = word.lower(), []
        if word in self.stop_words:
            return []
        for part in _PARTS:
            if (offset := self.offsets[part].get(word)) is not None:
                data = self.data[part]
                fields = data[offset : data.index(b"\n", offset)].decode().split()
                words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                found += [other.split("(")[0] for other in words]  # galore(ip)
        return [other for other in dict.fromkeys(found) if other.lower() != word]

    def pos_tag(self, words: list[str]) -> list[tuple[str, str]]:
        """Return (word, tag) pairs as nlpaug wants them.

        It skips determiners, so words without a synonym are called that: the share of words to
        replace is drawn from the others.
        """
        return [(word, "" if self.predict(word) else "DT") for word in words]
