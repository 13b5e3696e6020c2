"""Augmentation of words: synonyms from WordNet, swapped words, deleted words, by nlpaug."""

from __future__ import annotations

import os
import random
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from shared.cli.errors import UserError

# --- words of a text -----------------------------------------------------------------------------


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


# --- WordNet -------------------------------------------------------------------------------------


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


# --- augmentation by nlpaug ----------------------------------------------------------------------


WORD_AUGMENTATIONS = ("synonym", "swap", "delete")
_DELETED = "\0"  # stands where a word was, until the text is put together again


class WordFlow:
    """Changes words of texts by a flow of nlpaug's augmenters, one after another.

    Nothing but words changes: white space and code stay as they are, and so does a text from which
    every word would be deleted. Swap and delete come from "EDA" (Wei and Zou 2019), synonyms too.

    Parameters
    ----------
    names : sequence of str
        Of `WORD_AUGMENTATIONS`: "synonym" replaces words, "swap" swaps neighbours, "delete" drops
        words.
    share : float
        Share of the words that each of them changes, above 0; one word at least.
    wordnet : WordNet, optional
        For "synonym".

    Notes
    -----
    nlpaug draws from the generators of `random` and NumPy; they are seeded for each text and put
    back as they were. Importing it takes seconds, so it is imported here.
    """

    def __init__(self, names: Sequence[str], share: float, wordnet: WordNet | None = None):
        from nlpaug.augmenter.word import RandomWordAug, SynonymAug
        from nlpaug.flow import Sequential

        class Synonyms(SynonymAug):
            @classmethod
            def get_model(cls, *_):
                return wordnet

        def augmenter(name):
            layout = _Layout(PLAIN_WORD if name == "synonym" else WORD)
            options = {
                "aug_p": share,
                "aug_max": None,
                "tokenizer": layout.split,
                "reverse_tokenizer": layout.join,
            }
            if name == "synonym":
                return Synonyms(**options)
            if name == "swap":
                return RandomWordAug(action="swap", **options)
            # Its own deletion does not tell which words are left.
            return RandomWordAug(action="substitute", target_words=[_DELETED], **options)

        self.flow = Sequential([augmenter(name) for name in names])

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Return the texts with words changed; each depends on its own generator alone."""
        return [self._augment(text, rng) for text, rng in zip(texts, rngs, strict=True)]

    def _augment(self, text: str, rng: np.random.Generator) -> str:
        stripped = text.strip()
        if not stripped:
            return text  # nlpaug returns no text at all for it
        with _global_generators(int(rng.integers(2**32))):
            (augmented,) = self.flow.augment(stripped)
        return text.replace(stripped, augmented, 1)


class _Layout:
    """Cuts a text into words, and puts changed words between the same gaps again."""

    def __init__(self, word: str):
        self.word = word

    def split(self, text: str) -> list[str]:
        """Return the words; remember the text, and what lies between them."""
        spans = word_spans(text, self.word)
        ends = [0, *(end for _, end in spans)]
        starts = [*(start for start, _ in spans), len(text)]
        self.text = text
        self.gaps = [text[end:start] for end, start in zip(ends, starts, strict=True)]
        return [text[start:end] for start, end in spans]

    def join(self, words: list[str]) -> str:
        """Return the text of as many words; a deleted one takes the blanks behind it along."""
        joined = self.gaps[0]
        for word, gap in zip(words, self.gaps[1:], strict=True):
            if word != _DELETED:
                joined += word + gap
            else:
                joined += gap if joined[-1:].strip() else gap.lstrip(" \t")
        return joined.strip() or self.text


@contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """Seed the generators of `random` and NumPy; put them back as they were."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
