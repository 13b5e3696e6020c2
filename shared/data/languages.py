"""The language of each text, without a network."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from shared.cli.launch import progress

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

CHARACTERS = 1000  # of a text that are read; more hardly change the answer
SURE = 0.5  # probability from which a text counts for a language
_MOST = 20  # languages; the others have no probability to speak of
NO_LANGUAGE = "zxx"  # ISO 639: no linguistic content, such as code or numbers
# Languages that a short text does not tell from the one that far more texts are in: Wu and
# Cantonese from Mandarin, Nigerian Pidgin from English.
_VARIETIES = {"wuu": "zh", "yue": "zh", "pcm": "en"}


def detect_languages(texts: Iterable[str]) -> list[tuple[str, float]]:
    """Return the most probable language of each text, and its probability.

    The library is py3langid, naive Bayes on byte n-grams (Lui and Baldwin 2012, "langid.py"). At
    `SURE`, it places 99 % of 12,600 English, German, French, Spanish and Chinese texts, most of
    them sentences, and 5 of them wrongly (recipes/FIGURES.md).

    Parameters
    ----------
    texts : iterable of str
        The first 1,000 characters of each are read.

    Returns
    -------
    list of (str, float)
        ISO 639 code of two or three letters; "zxx" for a text without words of a language.
    """
    identifier = _identifier()
    languages = []
    for text in progress(texts, "finding languages"):
        probabilities: dict[str, float] = {}
        for code, probability in identifier.rank(text[:CHARACTERS])[:_MOST]:
            code = _VARIETIES.get(code, code)
            probabilities[code] = probabilities.get(code, 0.0) + float(probability)
        best = max(probabilities, key=probabilities.__getitem__)
        languages.append((best, min(probabilities[best], 1.0)))
    return languages


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
