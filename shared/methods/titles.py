"""The title of a text: its first line, which says much in few words.

An issue, an article or a mail begins with a line that names its subject. In the embedding of the
whole text this line is one of many; an embedding of its own gives it the weight that it deserves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.data.words import count_words

CHARACTERS = 200  # a longer first line is a paragraph


def split_title(text: str) -> tuple[str, str]:
    """Return the first line of a text, and the rest.

    A line of a single word, such as the name of a repository, takes the next line with it.
    """
    first, _, rest = text.strip().partition("\n")
    if count_words(first) == 1:
        second, _, rest = rest.strip().partition("\n")
        first = f"{first} {second}".strip()
    return first, rest.strip()


def titles(texts: Sequence[str]) -> list[str]:
    """Return the titles of texts, each cut after 200 characters."""
    return [split_title(text)[0][:CHARACTERS] for text in texts]


def have_titles(texts: Sequence[str]) -> bool:
    """Return whether at least half of the texts have a title that more text follows.

    A first line of more than 200 characters is no title.
    """
    parts = map(split_title, texts)
    n_titles = sum(bool(rest) and len(first) <= CHARACTERS for first, rest in parts)
    return 2 * n_titles >= len(texts) > 0


class TitledEmbedder:
    """Embeddings of texts, and behind them those of their titles.

    Parameters
    ----------
    embed : callable
        Maps texts to vectors, (texts, width), such as an `Embedder`.
    title_weight : float
        Weight of the vectors of titles.
    """

    def __init__(self, embed: Any, title_weight: float):
        self.embed, self.title_weight = embed, title_weight

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors of shape (texts, 2 * width)."""
        title_vectors = self.title_weight * self.embed(titles(texts))
        return np.concatenate([self.embed(texts), title_vectors], axis=1)
