"""The tagger of a classifier of words: naive Bayes, linear classifiers or trees on TF-IDF.

The functions that read and write linear classifiers and vocabularies serve other taggers, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.methods.attributions import Chosen, Contributions
from shared.methods.linear import (
    LinearClassifier,
    LinearEnsemble,
    WordClassifier,
    WordFeatures,
)
from shared.methods.linear_attributions import linear_contributions, logit_weights
from shared.methods.strategies import ClassifierChain, LabelPowerset, MultilabelClassifier
from shared.methods.trees import BoostedTrees
from shared.taggers.folder import TaggerContents

if TYPE_CHECKING:
    from shared.taggers.loading import Loading

_ANALYZERS = ("word", "char", "char_wb")
_TREE_ARRAYS = ("feature", "threshold", "left", "right", "value", "root", "column", "bias")


class WordScorer:
    """Naive Bayes, or a classifier on TF-IDF, by one of the strategies for several labels.

    Parameters
    ----------
    classifier : WordClassifier
    """

    def __init__(self, classifier: WordClassifier):
        self.classifier = classifier

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of the classifier."""
        return self.classifier(texts)

    def contributions(self, texts: Sequence[str], chosen: Chosen) -> Contributions:
        """Return what the words of texts add to the logits of chosen labels."""
        features = self.classifier.features(texts)
        words = self.classifier.features.words
        return linear_contributions(features, self._logit_weights, words, chosen)

    @cached_property
    def _logit_weights(self) -> np.ndarray:
        classifier: Any = self.classifier.classifier
        return logit_weights(classifier, len(self.classifier.features.words))

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the vocabulary and the weights."""
        contents.method = "words"
        add_words(contents, self.classifier.features)
        _add_multilabel(contents, self.classifier.classifier)

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> WordScorer:
        """Rebuild the classifier from its arrays."""
        words = read_words(contents)
        return cls(WordClassifier(words, _read_multilabel(contents, len(words.words))))


def _add_multilabel(contents: TaggerContents, classifier: Any) -> None:
    """Add the strategy for several labels, and the classifier that it combines."""
    if isinstance(classifier, LabelPowerset):
        contents.settings["strategy"] = "label_powerset"
        contents.arrays["label_sets"] = classifier.label_sets
        classifier = classifier.classifier
    elif isinstance(classifier, ClassifierChain):
        contents.settings["strategy"] = "classifier_chain"
        contents.arrays |= {"order": classifier.order, "constant": classifier.constant}
        classifier = classifier.classifier
    if isinstance(classifier, BoostedTrees):
        contents.settings |= {"trees": classifier.width, "single_label": classifier.single_label}
        contents.arrays |= {f"tree_{name}": getattr(classifier, name) for name in _TREE_ARRAYS}
    else:
        add_linear(contents, classifier)


def _read_multilabel(contents: TaggerContents, n_words: int) -> MultilabelClassifier:
    """Return the classifier that `_add_multilabel` added; check that its arrays fit together."""
    arrays, settings, n_labels = contents.arrays, contents.settings, len(contents.label_names)
    strategy = settings.get("strategy", "binary_relevance")
    classifier: Any
    if "trees" in settings:
        options: dict[str, Any] = {name: arrays[f"tree_{name}"] for name in _TREE_ARRAYS}
        options |= {"width": settings["trees"], "single_label": settings["single_label"]}
        classifier = BoostedTrees(**options)
        width, columns = classifier.width, len(classifier.bias)
    else:
        classifier = read_linear(contents)
        columns, width = arrays["weights"].shape[1:]
    if strategy == "label_powerset":
        sets = arrays["label_sets"]
        if sets.shape != (columns, n_labels) or width != n_words:
            raise ValueError("arrays of the label powerset")
        return LabelPowerset(classifier, sets)
    if strategy == "classifier_chain":
        order, constant = arrays["order"], arrays["constant"]
        distinct = len({*order.tolist()} & {*range(n_labels)})
        if not distinct == len(order) == columns == width - n_words or len(constant) != n_labels:
            raise ValueError("arrays of the classifier chain")
        return ClassifierChain(classifier, order, constant)
    if strategy != "binary_relevance" or (columns, width) != (n_labels, n_words):
        raise ValueError("arrays of the classifier")
    return classifier


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
    low, high = options.get("ngram_range", (1, 1))
    analyzer = options.get("analyzer", "word")
    known = {"analyzer", "ngram_range", "sublinear_tf", "words_version"}
    if options.keys() - known or not 1 <= low <= high <= 10 or analyzer not in _ANALYZERS:
        raise ValueError("settings of the words")
    return WordFeatures(contents.words, options, contents.arrays.get("idf"))
