"""Augmentation of words by nlpaug: synonyms, swapped or deleted words, errors of spelling, typing.

Code and layout (white space, line breaks) must not change: a text is split into words and the gaps
between them, nlpaug changes the words only, and the gaps are put back.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import regex

from shared.data.wordnet import PARTS_OF_SPEECH, WordNetFiles
from shared.data.words import CHARACTER, UNSPACED

# --- words of a text -----------------------------------------------------------------------------


# Each character of a script without spaces is a word.
# Python counts the separators U+001C to U+001F as white space, too.
WORD = rf"{CHARACTER}|[\S--[`\x1c-\x1f]--{UNSPACED}]+"
# A word of letters only, with nothing but punctuation around it: no part of an identifier or path.
PLAIN_WORD = r"(?<![^\s(])[^\W\d_]+(?=[.,;:!?)]*(?:\s|\Z))"
# A fenced block (a missing end fence means the end of the text), or inline code within a line.
CODE = r"```.*?(?:```|\Z)|`[^`\n]+`"


def word_spans(text: str, word: str = WORD) -> list[tuple[int, int]]:
    """Return start and end of each word outside code (Markdown's backticks), in order.

    Parameters
    ----------
    text : str
    word : str
        Regular expression of the library `regex`, without groups, such as `WORD` or `PLAIN_WORD`.
    """
    # Code comes first in the alternation, so its characters are used up before words can match.
    matches = regex.finditer(f"{CODE}|({word})", text, regex.DOTALL | regex.V1)
    return [match.span(1) for match in matches if match[1] is not None]


# --- WordNet -------------------------------------------------------------------------------------


class WordNet:
    """Synonyms of a word's most frequent sense in each part of speech; a model for `SynonymAug`.

    Miller 1995, "WordNet: A Lexical Database for English". This class replaces nlpaug's own model,
    which reads the files with NLTK, downloads missing files without asking, needs a part-of-speech
    tagger that NLTK has since renamed, and takes synonyms of every sense. A word is looked up as it
    is written: an inflected word has no synonyms, since they would not be inflected. A stop word
    has none either ("in" would become "inch").

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
        # Imported in the constructor, not at the first look-up: a look-up happens while the global
        # generators are seeded, and an import may draw from them.
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        self.stop_words = ENGLISH_STOP_WORDS
        self.files = WordNetFiles(folder)

    def predict(self, word: str, pos: str | None = None) -> list[str]:
        """Return the synonyms of a word, without the word itself.

        `pos` belongs to nlpaug's interface and is not used.
        """
        word, synonyms = word.lower(), []
        if word in self.stop_words:
            return []
        for part in PARTS_OF_SPEECH:
            for offset in self.files.senses(word, part)[:1]:
                synonyms += self.files.words(part, offset)
        return [synonym for synonym in dict.fromkeys(synonyms) if synonym.lower() != word]

    def pos_tag(self, words: list[str]) -> list[tuple[str, str]]:
        """Return (word, tag) pairs, as nlpaug expects them.

        nlpaug skips determiners, so words without a synonym get that tag: the share of the words to
        replace is then drawn from the words that have one.
        """
        return [(word, "" if self.predict(word) else "DT") for word in words]


# --- augmentation by nlpaug ----------------------------------------------------------------------


WORD_AUGMENTATIONS = ("synonym", "swap", "delete", "spelling", "keyboard", "ocr", "random_chars")
# Marks the place of a deleted word until the text is put together again. No word is white space.
_DELETED = " "


class WordFlow:
    """Changes words of texts with a flow of nlpaug's augmenters, one after another.

    Only words change. White space and code stay as they are. A text from which every word would be
    deleted does not change at all. Swap, delete and synonyms are operations of "EDA" (Wei and Zou
    2019).

    Parameters
    ----------
    names : sequence of str
        Names from `WORD_AUGMENTATIONS`: "synonym" replaces words, "swap" swaps neighbouring words,
        "delete" deletes words. "spelling" replaces English words by errors from nlpaug's list,
        which people have made; some are other words ("not" becomes "note"). The others change one
        character of a word: "keyboard" to a letter that lies beside it (QWERTY), "ocr" to one that
        looks like it, "random_chars" to any letter.
    share : float
        Share of the words that each augmenter changes, above 0; at least one word.
    wordnet : WordNet, optional
        Needed for "synonym".

    Notes
    -----
    nlpaug draws from the global generators of `random` and NumPy. They are seeded for each text and
    then reset to their state before. nlpaug is imported in the constructor, since the import takes
    seconds.
    """

    def __init__(self, names: Sequence[str], share: float, wordnet: WordNet | None = None):
        from nlpaug.augmenter.char import KeyboardAug, OcrAug, RandomCharAug
        from nlpaug.augmenter.word import RandomWordAug, SpellingAug, SynonymAug
        from nlpaug.flow import Sequential
        from nlpaug.model.word_dict import Spelling
        from nlpaug.util import Action

        class Synonyms(SynonymAug):
            @classmethod
            def get_model(cls, *_):  # instead of nlpaug's model; see `WordNet`
                return wordnet

        class Swaps(RandomWordAug):
            def change_case(self, doc, original_word_idx, swap_word_idx, change_seq):
                """Swap two words of a document as they are.

                nlpaug changes their case at the start of a text, which is wrong for identifiers and
                for letters without a single counterpart, such as ß.
                """
                words = [
                    doc.get_token(index).get_latest_token().token
                    for index in (swap_word_idx, original_word_idx)
                ]
                step = {"action": Action.SWAP, "change_seq": self.parent_change_seq + change_seq}
                for index, word in zip((original_word_idx, swap_word_idx), words, strict=True):
                    doc.add_change_log(index, new_token=word, **step)
                return doc

        class Misspellings(SpellingAug):
            def get_model(self, *_, **__):
                model = Spelling(self.dict_path, include_reverse=False)  # the right words as keys
                # nlpaug's lists come from sets: their order would differ from process to process.
                model.dict = {word: sorted(errors) for word, errors in model.dict.items()}
                return model

        def augmenter(name: str) -> SynonymAug | RandomWordAug | KeyboardAug:
            # Swap and delete take any word outside code; the others change words of prose.
            layout = _Layout(WORD if name in ("swap", "delete") else PLAIN_WORD)
            tokenizers = {"tokenizer": layout.split, "reverse_tokenizer": layout.join}
            # No upper limit; nlpaug's default is ten words.
            words = {"aug_p": share, "aug_max": None, **tokenizers}
            chars = {"aug_word_p": share, "aug_word_max": None, "aug_char_max": 1, **tokenizers}
            letters = {"include_upper_case": False, "include_numeric": False}
            if name == "synonym":
                return Synonyms(**words)
            if name == "spelling":
                return Misspellings(**words)
            if name == "keyboard":
                return KeyboardAug(include_special_char=False, **letters, **chars)
            if name == "ocr":
                return OcrAug(aug_char_min=1, **chars)
            if name == "random_chars":
                return RandomCharAug(action="substitute", spec_char="", **letters, **chars)
            if name == "swap":
                return Swaps(action="swap", **words)
            # nlpaug's own deletion does not tell which words are left, and `join` needs to know.
            return RandomWordAug(action="substitute", target_words=[_DELETED], **words)

        self.flow = Sequential([augmenter(name) for name in names])

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Return the texts with changed words; each depends only on its own generator."""
        return [self._augment(text, rng) for text, rng in zip(texts, rngs, strict=True)]

    def _augment(self, text: str, rng: np.random.Generator) -> str:
        # nlpaug strips its input, so the white space around the text is put back afterwards.
        stripped = text.strip()
        if not stripped:
            return text  # nlpaug returns an empty list for a blank text
        with _seeded_global_generators(int(rng.integers(2**32))):
            (augmented,) = self.flow.augment(stripped)
        return text.replace(stripped, augmented, 1)


class _Layout:
    """Splits a text into words, and joins changed words with the same gaps between them.

    nlpaug calls `split`, changes the words and calls `join`, always for one text at a time.
    """

    def __init__(self, word: str):
        self.word = word  # regular expression of a word

    def split(self, text: str) -> list[str]:
        """Return the words; remember the text and the gaps between the words."""
        spans = word_spans(text, self.word)
        # Gaps lie before the first word, between words and after the last: one more than words.
        ends = [0, *(end for _, end in spans)]
        starts = [*(start for start, _ in spans), len(text)]
        self.text = text
        self.gaps = [text[end:start] for end, start in zip(ends, starts, strict=True)]
        return [text[start:end] for start, end in spans]

    def join(self, words: list[str]) -> str:
        """Return the text with the given words; blanks after a deleted word are deleted, too."""
        joined = self.gaps[0]
        for word, gap in zip(words, self.gaps[1:], strict=True):
            if word != _DELETED:
                joined += word + gap
            else:
                # Keep the gap's blanks only if none precede: a deletion must leave no double blank.
                joined += gap if joined[-1:].strip() else gap.lstrip(" \t")
        return joined.strip() or self.text


@contextmanager
def _seeded_global_generators(seed: int) -> Iterator[None]:
    """Seed the generators of `random` and NumPy; reset them to their state before at the end."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
