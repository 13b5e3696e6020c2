"""The tagger of a classifier of words: naive Bayes, or TF-IDF with logistic regression.

The functions that read and write linear classifiers and vocabularies serve other taggers, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.methods.linear import (
    LinearClassifier,
    LinearEnsemble,
    WordClassifier,
    WordFeatures,
)
from shared.taggers.folder import TaggerContents

if TYPE_CHECKING:
    from shared.taggers.tagger import Loading


class WordScorer:
    """Naive Bayes, or TF-IDF with logistic regression.

    Parameters
    ----------
    classifier : WordClassifier
    """

    def __init__(self, classifier: WordClassifier):
        self.classifier = classifier

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of the classifier."""
        return self.classifier(texts)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the vocabulary and the weights."""
        contents.method = "words"
        add_words(contents, self.classifier.features)
        add_linear(contents, self.classifier.classifier)

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> WordScorer:
        """Rebuild the classifier from its arrays."""
        return cls(WordClassifier(read_words(contents), read_linear(contents)))


# --- linear classifiers and vocabularies ---------------------------------------------------------


def add_linear(contents: TaggerContents, classifier: LinearClassifier | LinearEnsemble) -> None:
    """Add the arrays of a linear classifier, or of several, to the contents of a folder."""
    members = classifier.members if isinstance(classifier, LinearEnsemble) else [classifier]
    # (members, labels, width) and (members, labels)
    contents.arrays["weights"] = np.stack([member.weights for member in members])
    contents.arrays["bias"] = np.stack([member.bias for member in members])
    contents.settings["single_label"] = members[0].single_label


def read_linear(contents: TaggerContents) -> LinearClassifier | LinearEnsemble:
    """Return the classifier, or the classifiers, that `add_linear` added."""
    single_label = contents.settings["single_label"]
    pairs = zip(contents.arrays["weights"], contents.arrays["bias"], strict=True)
    members = [LinearClassifier(weights, bias, single_label) for weights, bias in pairs]
    return members[0] if len(members) == 1 else LinearEnsemble(members)


def add_words(contents: TaggerContents, features: WordFeatures) -> None:
    """Add a vocabulary to the contents of a folder."""
    contents.words = features.words
    contents.settings["words"] = features.options
    if features.idf is not None:
        contents.arrays["idf"] = features.idf


def read_words(contents: TaggerContents) -> WordFeatures:
    """Return the features that `add_words` added."""
    options = contents.settings["words"]
    # No other option of the vectorizer: some read files, or run any regular expression.
    low, high = options.get("ngram_range", (1, 1))
    if options.keys() - {"ngram_range", "sublinear_tf"} or not 1 <= low <= high <= 10:
        raise ValueError("settings of the words")
    return WordFeatures(contents.words, options, contents.arrays.get("idf"))
