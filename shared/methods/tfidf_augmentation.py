"""Replace the words of a text that say least about it, chosen by TF-IDF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from shared.data.words import CHARACTER
from shared.methods.word_augmentation import PLAIN_WORD, word_spans

# Each character of a script without spaces is a word.
_WORD = f"{CHARACTER}|{PLAIN_WORD}"


class TfidfReplacement:
    """Replaces uninformative words of a text by uninformative words of all texts.

    Xie et al. 2020, "Unsupervised Data Augmentation for Consistency Training", appendix B. A word
    is the more likely to be replaced the lower its TF-IDF in the text is. The new word is the more
    likely to be drawn the lower its frequency times IDF is in all texts. So words that tell the
    topic of a text stay, and new topics hardly enter. Code and layout stay as they are.

    Parameters
    ----------
    texts : sequence of str
        Texts that frequencies are counted in. They must not be those of a test set.
    share : float
        Mean share of the words that are replaced, above 0.

    Notes
    -----
    Words count in lower case. A word that is not in `texts` counts as one of a single text.
    """

    def __init__(self, texts: Sequence[str], share: float):
        self.share = share
        frequency: Counter[str] = Counter()
        texts_with: Counter[str] = Counter()
        for text in texts:
            words = _words(text, word_spans(text, _WORD))
            frequency.update(words)
            texts_with.update(set(words))
        self.vocabulary = sorted(frequency)  # the order must not depend on that of the texts
        self.most = float(np.log(max(len(texts), 1)))  # the IDF of a word of a single text
        idf = self.most - np.log([texts_with[word] for word in self.vocabulary])
        self.idf = dict(zip(self.vocabulary, idf.tolist(), strict=True))
        information = np.array([frequency[word] for word in self.vocabulary]) * idf
        # Drawn by where a random number falls among the cumulated probabilities.
        self.cumulated = np.cumsum(_odds(information))

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Return the texts with replaced words; each depends only on its own generator."""
        return [self._replace(text, rng) for text, rng in zip(texts, rngs, strict=True)]

    def _replace(self, text: str, rng: np.random.Generator) -> str:
        spans = word_spans(text, _WORD)
        if not spans or not self.vocabulary:
            return text
        words = _words(text, spans)
        counts = Counter(words)
        tfidf = np.array([counts[word] * self.idf.get(word, self.most) for word in words])
        probabilities = self.share * len(words) * _odds(tfidf)
        replaced = np.flatnonzero(rng.random(len(words)) < probabilities)
        drawn = np.searchsorted(self.cumulated, rng.random(len(replaced)), side="right")
        pieces, end = [], 0
        for i, number in zip(replaced, np.minimum(drawn, len(self.vocabulary) - 1), strict=True):
            pieces += [text[end : spans[i][0]], self.vocabulary[number]]
            end = spans[i][1]
        return "".join([*pieces, text[end:]])


def _words(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    return [text[start:end].lower() for start, end in spans]


def _odds(information: np.ndarray) -> np.ndarray:
    """Return probabilities that fall with the information of a word, and add up to 1."""
    below = information.max(initial=0) - information
    return below / below.sum() if below.sum() else np.full(len(below), 1 / max(len(below), 1))
