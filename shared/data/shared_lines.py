"""Lines that many texts have in common: templates, signatures, boilerplate."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.cli.launch import progress
from shared.data.words import count_words

if TYPE_CHECKING:
    import numpy as np

LEAST_TEXTS, LEAST_SHARE = 5, 0.01  # a line is shared from so many texts, and this share of all
LEAST_WORDS = 2  # of a line; "```" and "Thanks" tell nothing
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class SharedLines:
    """The lines that many of n texts have.

    Attributes
    ----------
    lines : list of (str, int, list of int)
        A line as its first text has it, the number of texts with it, and the first ten of these
        (their positions); the most frequent lines come first.
    share : float array of shape (n,)
        The share of the words of each text that are in such lines.
    """

    lines: list[tuple[str, int, list[int]]]
    share: np.ndarray


def find_shared_lines(texts: Iterable[str]) -> SharedLines:
    """Find the lines that at least five texts, and 1 % of all, have.

    Lines count as equal whatever their numbers, their case and their white space: "Version: 2.1"
    and "version: 3". A line of one word is never one of them.

    Parameters
    ----------
    texts : iterable of str
        It is read twice. Between the two, memory holds 8 bytes for each line.
    """
    import numpy as np

    hashes = array("q")
    n = 0
    for text in progress(texts, "reading lines"):
        n += 1
        hashes.extend({key for key, _, _ in _lines(text) if key is not None})
    values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    least = max(LEAST_TEXTS, int(np.ceil(LEAST_SHARE * n)))
    number_of = dict(
        zip(values[counts >= least].tolist(), counts[counts >= least].tolist(), strict=True)
    )

    share = np.zeros(n, np.float32)
    examples: dict[int, tuple[str, list[int]]] = {}
    for i, text in enumerate(progress(texts, "comparing lines")):
        words = shared = 0
        for key, line, n_words in _lines(text):
            words += n_words
            if key is None or key not in number_of:
                continue
            shared += n_words
            rows = examples.setdefault(key, (line, []))[1]
            if len(rows) < 10 and (not rows or rows[-1] != i):
                rows.append(i)
        share[i] = shared / max(words, 1)
    lines = [(line, number_of[key], rows) for key, (line, rows) in examples.items()]
    return SharedLines(sorted(lines, key=lambda entry: -entry[1]), share)


def _lines(text: str) -> Iterator[tuple[int | None, str, int]]:
    """Yield the hash of each line that is not blank, the line and its number of words.

    The hash is None for a line that is too short to be shared.
    """
    for line in text.splitlines():
        line = " ".join(line.split())
        if not line:
            continue
        n_words = count_words(line)
        long_enough = n_words >= LEAST_WORDS and any(map(str.isalpha, line))
        yield hash(_DIGITS.sub("0", line.casefold())) if long_enough else None, line, n_words
