"""The text of a file: decompressed, decoded, and divided into lines.

UTF-8 is checked and never guessed. Other encodings are recognised by their byte order mark, by the
zero bytes of UTF-16, or, for Windows-1252 alone, by what the bytes would be as letters. Where that
is not clear the file is refused, with the encodings that fit and what they would make of a word.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shared.cli.errors import UserError

CHUNK_BYTES = 1 << 20
_BYTES_TO_GUESS = 1 << 23  # from the first byte on that is not UTF-8

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Encodings that a message can name, with the languages that are written in them.
_CANDIDATES = {
    "cp1252": "Western European",
    "cp1250": "Central European",
    "cp1251": "Cyrillic",
    "koi8-r": "Russian",
    "gb18030": "Chinese",
    "big5": "traditional Chinese",
    "shift_jis": "Japanese",
    "euc_kr": "Korean",
    "cp1253": "Greek",
    "cp1254": "Turkish",
}
_UTF8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_HIGH_BYTES = re.compile(rb"[\x80-\xff]+")
# Bytes that are signs or rare letters in Western words, and frequent letters of Polish, Czech,
# Romanian or Turkish ones.
_NOT_WESTERN = re.compile(
    rb"[A-Za-z][\x8c\x8f\x9a\x9c\x9d\x9e\x9f\xa5\xb3\xb9\xba\xbe\xbf\xf0\xfb\xfd\xfe]"
    rb"|[\x8a\x8c\x8e\x9a\x9c\x9e\x9f\xa3\xa5\xaf\xb3\xbf\xf0\xfe][a-z]"
)
# Quotation marks, dashes, an ellipsis, a bullet, currencies, section, degree and trade marks.
_WESTERN_SIGNS = frozenset(
    map(
        ord,
        "\u2018\u2019\u201a\u201c\u201d\u201e\xab\xbb\u2013\u2014\u2026\u2022"
        "\u20ac\xa3\xa7\xb0\xa9\xae\u2122\xb4",
    )
)
_WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]+")


@dataclass(frozen=True)
class Encoding:
    """How the characters of a file are written.

    Attributes
    ----------
    name : str
        A codec of Python; "utf-8-sig" reads UTF-8 with and without a byte order mark.
    newline : str
        The end of a line: a line feed, or a carriage return as on old Macs.
    """

    name: str = "utf-8-sig"
    newline: str = "\n"

    @property
    def is_utf8(self) -> bool:
        """Whether it is UTF-8, with or without a byte order mark."""
        return self.name in ("utf-8", "utf-8-sig")


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, compressed or not, and report errors while it is read as a `UserError`."""
    opener: Callable[..., Any] = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            yield file
    # BadGzipFile is an OSError, so it must come first.
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}: truncated or damaged gzip file ({error}); download or compress it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def find_encoding(path: Path, name: str | None = None) -> tuple[Encoding, list[str]]:
    """Find out how the characters of a file are written. The whole file is read once.

    Parameters
    ----------
    path : Path
    name : str, optional
        The encoding, if it is known (``--encoding``). Only the first part of the file is read then.

    Returns
    -------
    encoding : Encoding
    notes : list of str
        What a user should know about the choice; empty for UTF-8.

    Raises
    ------
    UserError
        If there is no encoding of this name; or if the file is not UTF-8, and it is not clear which
        other encoding it has.
    """
    if name is not None:
        name = _check_name(name)
    with open_bytes(path) as file:
        start = file.read(CHUNK_BYTES)
        if name is None:
            name, notes = _find_name(path, file, start)
        else:
            notes = []
    # Old Macs have no line feed at all. Two bytes of UTF-16 could look like a carriage return.
    is_old_mac = name.startswith(("utf-8", "cp")) and b"\r" in start and b"\n" not in start
    if is_old_mac and len(start.rstrip(b"\r")) > start.find(b"\r"):
        return Encoding(name, "\r"), [*notes, "lines end with a carriage return alone"]
    return Encoding(name), notes


def read_lines(path: Path, encoding: Encoding) -> Iterator[str]:
    """Yield each line of a file with its line end, which is a line feed.

    Raises
    ------
    UserError
        If bytes do not belong to the encoding; the message names the line.
    """
    with open_bytes(path) as file:
        # Lines of UTF-8 are split as bytes and decoded one by one, so that an error can name the
        # place of the byte.
        if encoding.is_utf8 and encoding.newline == "\n":
            for number, line in enumerate(file, 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    raise not_utf8(path, number, file.tell() - len(line), error) from error
                yield text
            return
        number = 0
        try:
            lines = io.TextIOWrapper(file, encoding.name, newline=encoding.newline)
            for decoded in lines:
                number += 1
                if number == 1:  # some codecs keep the byte order mark
                    decoded = decoded.removeprefix("\ufeff")
                yield decoded if encoding.newline == "\n" else decoded.removesuffix("\r") + "\n"
        except UnicodeError as error:
            raise UserError(
                f"{path}, after line {number}: not {encoding.name} ({error}); give another "
                "--encoding"
            ) from error


def not_utf8(path: Path, line: int, offset: int, error: UnicodeDecodeError) -> UserError:
    """Return the error for bytes that are not UTF-8.

    Parameters
    ----------
    path : Path
    line : int
        The line of the file, from 1.
    offset : int
        Where ``error.object`` starts in the file.
    error : UnicodeDecodeError
    """
    return UserError(
        f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x} at position "
        f"{offset + error.start}); correct the file, or name its --encoding, such as cp1252"
    )


def _check_name(name: str) -> str:
    """Return the name of a codec of text.

    Raises
    ------
    UserError
        If there is none of this name.
    """
    try:
        codec = codecs.lookup(name)
    except LookupError:
        codec = None
    if codec is None or not getattr(codec, "_is_text_encoding", True):
        raise UserError(
            f"--encoding {name}: there is no such encoding; some are utf-8, utf-16, "
            f"{', '.join(_CANDIDATES)}"
        )
    return "utf-8-sig" if codec.name in ("utf-8", "utf-8-sig") else codec.name


def _find_name(path: Path, file: IO[bytes], start: bytes) -> tuple[str, list[str]]:
    """Return the name of an encoding, and notes; `start` has been read from the file."""
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name, [f"read as {name.upper()}, as its byte order mark says"]
    # Texts of ASCII characters have a zero in every second byte of UTF-16.
    zeros = [start[i::2].count(0) / max(len(start[i::2]), 1) for i in (0, 1)]
    if max(zeros) > 0.3 and min(zeros) < 0.05:
        name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        return name, [f"read as {name.upper()} by its zero bytes (--encoding)"]

    decode = codecs.getincrementaldecoder("utf-8")().decode
    # Of the chunk; and the bytes before it that continue a sequence of UTF-8.
    line, position, valid = 1, 0, 0
    chunk = start
    while True:
        try:
            valid += len(chunk) - len(decode(chunk, final=not chunk))
        except UnicodeDecodeError as error:
            evidence = error.object + file.read(_BYTES_TO_GUESS)
            line += error.object[: error.start].count(b"\n")
            position -= len(error.object) - len(chunk)  # bytes kept from the chunk before
            problem = not_utf8(path, line, position, error)
            return _guess(path, evidence, valid, problem)
        if not chunk:
            return "utf-8-sig", []
        line, position = line + chunk.count(b"\n"), position + len(chunk)
        chunk = file.read(CHUNK_BYTES)


def _guess(path: Path, evidence: bytes, valid: int, problem: UserError) -> tuple[str, list[str]]:
    """Return Windows-1252 if bytes that are not UTF-8 are clearly that; else raise an error.

    `valid` is the number of bytes of valid UTF-8 before, without the first of each sequence.
    """
    high = _HIGH_BYTES.findall(evidence)
    n_high = sum(map(len, high))
    valid += len(sequences := _UTF8_SEQUENCE.findall(evidence))
    if valid and valid >= n_high - sum(map(len, sequences)):
        raise problem  # UTF-8 with some damaged bytes, or lines in two encodings
    words = list(dict.fromkeys(word for word in _WORD.findall(evidence) if not word.isascii()))
    try:
        text = b"".join(high).decode("cp1252")
        strange = sum(not (c.isalpha() or ord(c) in _WESTERN_SIGNS) for c in text)
    except UnicodeDecodeError:
        strange = n_high
    # Accented letters stand alone between others; other scripts have runs of them.
    foreign = len(_NOT_WESTERN.findall(evidence))
    # The o of Hungarian and Estonian; Portuguese has this byte, too, but always beside another one.
    if b"\xe3" not in evidence:
        foreign += evidence.count(b"\xf5")
    if n_high <= 1.5 * len(high) and strange <= n_high / 20 and foreign <= n_high / 20:
        with_letters = [word.decode("cp1252") for word in words]
        examples = [repr(word) for word in with_letters if len(word) > 1][:3] or ["its bytes"]
        return "cp1252", [
            f"not UTF-8: read as Windows-1252, such as {', '.join(examples)} (--encoding)"
        ]
    options = []
    for name, languages in _CANDIDATES.items():
        sample = b" ".join(words[:50])
        try:
            decoded = sample.decode(name)
        except UnicodeDecodeError:
            continue
        if all(c.isalpha() or c.isascii() for c in decoded):
            options.append(f"{name} ({languages}: {decoded.split()[0][:12]!r})")
    choice = f": {', '.join(options[:5])}" if options else f", such as {', '.join(_CANDIDATES)}"
    raise UserError(f"{str(problem).partition(';')[0]}; give its --encoding{choice}")
