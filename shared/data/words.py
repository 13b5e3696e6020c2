"""Words of texts in any script: what classifiers of words, summaries and tokenizers count.

Most scripts put spaces between words. A word is then a run of letters, digits and underscores, with
the marks on them: accents and vowel signs. Some scripts write the words of a sentence without
spaces. There, n-grams of characters take the place of words, as neighbouring characters say nearly
as much as a dictionary would, in any language and any domain.

A character is what a reader takes for one (a grapheme cluster of Unicode's annex 29): a consonant
and the signs on it are never separated.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

# Raise it whenever the same text gives other words; `analyzer_of_version` keeps the older ones.
VERSION = 2

# --- scripts without spaces between words --------------------------------------------------------

# Patterns of the library `regex` (in its mode V1, with set operations on classes).
# Characters that stand for words or syllables; ー and its like belong to several scripts.
_IDEOGRAPHS = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Tangut}\p{Nushu}ー〆ｰﾞﾟ\u3099\u309a"
)
# Alphabets.
_ALPHABETS = (
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Ahom}"
)
_IDEOGRAPH = rf"[[{_IDEOGRAPHS}]&&[\p{{L}}\p{{M}}\p{{Nl}}]]"
_UNSPACED_LETTER = rf"[[{_ALPHABETS}]&&[\p{{L}}\p{{M}}]]"
# For other regular expressions: a letter or mark of these scripts, and a character, which may have
# several of them. The library `tokenizers` understands both, too.
UNSPACED = rf"[[{_IDEOGRAPHS}{_ALPHABETS}]&&[\p{{L}}\p{{M}}\p{{Nl}}]]"
CHARACTER = rf"(?={UNSPACED})\X"
# n-grams of characters, shortest and longest. Longer ones of ideographs are too rare to learn from;
# a word of an alphabet has several letters. Chosen on Chinese headlines and on English without its
# spaces.
_IDEOGRAPH_NGRAMS, _ALPHABET_NGRAMS = (1, 2), (2, 4)

# --- words ---------------------------------------------------------------------------------------

_LETTER = rf"[[\p{{L}}\p{{N}}_]--{UNSPACED}]"
# The zero-width (non-)joiners belong to the spelling of words in Persian and in Indian scripts.
# Signs of emoji are marks, too, but not of words.
_INSIDE = rf"[[\p{{L}}\p{{N}}\p{{M}}_\u200c\u200d]--{UNSPACED}--\p{{Me}}--\p{{Variation_Selector}}]"

# Characters that need the patterns above: marks, joiners, scripts without spaces, and the letters
# between them. Without any, `\w` of Python's `re` finds the same words, several times as fast.
_SPECIAL = re.compile(
    "[\u0300-\u036f\u0483-\u1dff\u200c\u200d\u2c00-\ufdff\ufe20-\U0001efff\U0001fb00-\U0010ffff]"
)
_PLAIN_WORD = re.compile(r"\b\w\w+\b")
_WORD_OR_RUN = (
    rf"(?!\p{{M}})(?:(?P<ideographs>{_IDEOGRAPH}+)|(?P<letters>{_UNSPACED_LETTER}+))"
    rf"|{_LETTER}{_INSIDE}+"
)
_PLAIN_TOKEN = re.compile(r"\w+|[^\w\s]")
_TOKEN = rf"{CHARACTER}|{_LETTER}{_INSIDE}*|\S"


@cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern when a text first needs it, since most texts do not."""
    import regex

    return regex.compile(f"(?V1){pattern}")


def _is_plain(text: str) -> bool:
    return text.isascii() or not _SPECIAL.search(text)


@dataclass(frozen=True)
class WordAnalyzer:
    """Turns a text into words and runs of words: an ``analyzer`` for scikit-learn's vectorizers.

    Texts are put into lower case and into Unicode's form NFC. A word has two characters or more.
    Where a script has no spaces, n-grams of characters take the place of words: of one and two
    characters of Chinese and Japanese, of two to four of Thai, Lao, Khmer, Burmese and their
    relatives. Of a text in ASCII, the result is that of ``CountVectorizer(ngram_range=...)``.

    Attributes
    ----------
    ngram_range : (int, int)
        Shortest and longest run of adjacent words; (1, 2): words and pairs of words. It does not
        change the n-grams of characters.
    """

    ngram_range: tuple[int, int] = (1, 1)

    def __call__(self, text: str) -> list[str]:
        """Return the terms of a text in no particular order, each as often as it occurs."""
        text = text.lower()
        if _is_plain(text):
            return _joined(_PLAIN_WORD.findall(text), self.ngram_range, " ")
        words: list[str] = []
        terms: list[str] = []
        for match in _compiled(_WORD_OR_RUN).finditer(unicodedata.normalize("NFC", text)):
            if match.lastgroup is None:
                words.append(match[0])
                continue
            lengths = _IDEOGRAPH_NGRAMS if match.lastgroup == "ideographs" else _ALPHABET_NGRAMS
            characters = _compiled(r"\X").findall(match[0])
            # A run that is shorter than the shortest n-gram is one as a whole.
            shortest = min(lengths[0], len(characters))
            terms += _joined(characters, (shortest, lengths[1]), "")
        return terms + _joined(words, self.ngram_range, " ")


def _joined(parts: Sequence[str], lengths: tuple[int, int], separator: str) -> list[str]:
    """Return all runs of adjacent parts, from the shortest length to the longest, each joined."""
    shortest, longest = lengths
    terms = list(parts) if shortest == 1 else []
    for n in range(max(shortest, 2), longest + 1):
        terms += map(separator.join, zip(*(parts[i:] for i in range(n)), strict=False))
    return terms


def analyzer_of_version(version: int, ngram_range: tuple[int, int]) -> Callable[[str], list[str]]:
    """Return the analyzer with which a saved classifier of words was fitted.

    Version 1 took every run of two or more letters, digits and underscores as a word, in any
    script.

    Raises
    ------
    ValueError
        If there is no such version.
    """
    if version == VERSION:
        return WordAnalyzer(ngram_range)
    if version != 1:
        raise ValueError(f"version {version} of the words is not known")
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(ngram_range=ngram_range).build_analyzer()


# --- counts and positions ------------------------------------------------------------------------


def count_words(text: str) -> int:
    """Return the number of words between white space.

    Each character of a script without spaces counts as a word.
    """
    return len((text if _is_plain(text) else _compiled(CHARACTER).sub(" x ", text)).split())


def has_unspaced(text: str) -> bool:
    """Return whether a text has a character of a script without spaces between words."""
    return not _is_plain(text) and _compiled(CHARACTER).search(text) is not None


def token_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end of each word, of any length, and of each other sign.

    Each character of a script without spaces is a word.
    """
    pattern = _PLAIN_TOKEN if _is_plain(text) else _compiled(_TOKEN)
    return [match.span() for match in pattern.finditer(text)]
