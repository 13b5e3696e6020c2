"""Words of a text swapped, deleted or replaced by synonyms, by nlpaug."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from shared.words import PLAIN_WORD, WORD, word_spans

if TYPE_CHECKING:
    from shared.wordnet import WordNet

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
