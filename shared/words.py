"""Where the words of a text are that may be changed without breaking its code and layout."""

from __future__ import annotations

import re

WORD = r"[^\s`]+"
# Of letters alone, with nothing but punctuation beside it: no piece of an identifier or a path.
PLAIN_WORD = r"(?<![^\s(])[^\W\d_]+(?=[.,;:!?)]*(?:\s|\Z))"
CODE = r"```.*?(?:```|\Z)|`[^`\n]+`"


def word_spans(text: str, word: str = WORD) -> list[tuple[int, int]]:
    """Return start and end of each word, in order; none is in code (Markdown's backticks).

    Parameters
    ----------
    text : str
    word : str
        Regular expression without groups, such as `WORD` or `PLAIN_WORD`.
    """
    found = re.finditer(f"{CODE}|({word})", text, re.DOTALL)
    return [match.span(1) for match in found if match[1] is not None]
