"""Pretrained word vectors in the text format of word2vec, GloVe and fastText."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping

import numpy as np

from shared.errors import UserError
from shared.readers import expand_path


def read_word_vectors(path: str, vocabulary: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors of the tokens of a vocabulary.

    One token per line, followed by its numbers, all separated by spaces; a first line with count
    and width (word2vec, fastText) is passed over. A token may hold spaces, as some of GloVe's do.
    Tokens are compared as they are, so that a vocabulary in lower case finds those in lower case.

    Parameters
    ----------
    path : str
        Text, UTF-8, or the same as .gz; $NAME and ~ are filled in.
    vocabulary : mapping of token to id

    Returns
    -------
    ids : int64 array of shape (found,)
    vectors : float32 array of shape (found, width)

    Raises
    ------
    UserError
        If the file cannot be read, a line is no vector of the width of the others, or no token of
        the vocabulary is in it.
    """
    file_path = expand_path(path)
    open_file = gzip.open if file_path.suffix == ".gz" else open
    found: dict[int, np.ndarray] = {}
    width = None
    try:
        with open_file(file_path, "rt", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip().split(" ")
                if number == 1 and len(fields) == 2 and all(map(str.isdigit, fields)):
                    continue
                width = width or len(fields) - 1
                token = " ".join(fields[: max(len(fields) - width, 0)])
                if token and (token not in vocabulary or vocabulary[token] in found):
                    continue
                try:
                    vector = np.array(fields[len(fields) - width :], dtype=np.float32)
                except ValueError:
                    vector = np.zeros(0)
                if not token or not vector.size or not np.isfinite(vector).all():
                    numbers = f"{width or 'some'} numbers"
                    raise UserError(f"{file_path}, line {number}: expected a token and {numbers}")
                found[vocabulary[token]] = vector
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file_path}: cannot be read ({reason})") from error
    if not found:
        raise UserError(f"{file_path}: holds no vector of any of the {len(vocabulary):,} tokens")
    return np.array(list(found)), np.stack(list(found.values()))
