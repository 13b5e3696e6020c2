"""Attributions of linear classifiers: what each word of a text adds to the logit of a label.

- Of words, naive Bayes among them: weight x feature. The sum over the words and the bias are the
  logit.
- Of the probe: the same for its TF-IDF and for its latent semantic analysis, which is linear up to
  the length of the vector. The rest of the logit comes from the embeddings.

The functions return what those of `shared.methods.attributions` do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.methods.attributions import Chosen, Contributions
from shared.methods.linear import LinearClassifier, LinearEnsemble
from shared.methods.strategies import MultilabelClassifier, feature_weights
from shared.methods.titles import titles

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from shared.methods.probe import LatentSemanticAnalysis


def logit_weights(classifier: MultilabelClassifier | LinearEnsemble, width: int) -> np.ndarray:
    """Return the weight of each feature in the logit of each label: of shape (labels, width).

    Exact for a `LinearClassifier`. Of an ensemble, the mean of its members. Of label powersets,
    chains and trees, those of `feature_weights`, which leave out what is not linear.
    """
    if isinstance(classifier, LinearEnsemble):
        return np.mean([logit_weights(member, width) for member in classifier.members], axis=0)
    weights = feature_weights(classifier, width)
    if getattr(classifier, "single_label", False):
        weights = weights - weights.mean(axis=0)
    return weights


def linear_contributions(
    features: csr_matrix, weights: np.ndarray, words: Sequence[str], chosen: Chosen
) -> Contributions:
    """Return weight x feature of the words of each text.

    Parameters
    ----------
    features : csr_matrix of shape (texts, words)
    weights : array of shape (labels, words)
        From `logit_weights`.
    words : sequence of str
    chosen : sequence of sequences of int, one for each text
    """
    contributions = []
    for row, labels in enumerate(chosen):
        columns, values = _row(features, row)
        names = [words[column] for column in columns.tolist()]
        # (chosen labels, words of the text)
        products = weights[np.asarray(labels, int)[:, None], columns] * values
        contributions.append([dict(zip(names, each, strict=True)) for each in products.tolist()])
    return contributions


def probe_contributions(
    texts: Sequence[str],
    classifier: LinearClassifier | LinearEnsemble,
    analysis: LatentSemanticAnalysis,
    word_weight: float,
    wide: bool,
    chosen: Chosen,
) -> Contributions:
    """Return what the words of each text add to the logits of a probe.

    Parameters
    ----------
    texts : sequence of str
    classifier : LinearClassifier or LinearEnsemble
        Of `shared.methods.probe.probe_features`.
    analysis, word_weight, wide
        What made the features, as in `shared.taggers.EmbeddingScorer`.
    chosen : sequence of sequences of int, one for each text
    """
    first = classifier.members[0] if isinstance(classifier, LinearEnsemble) else classifier
    weights = logit_weights(classifier, first.weights.shape[1])
    words, components = analysis.features.words, analysis.components
    # The columns: embeddings, directions of the texts, those of their titles, TF-IDF.
    of_words = weights[:, weights.shape[1] - len(words) :] if wide else None
    end, n_directions = weights.shape[1] - wide * len(words), len(components)
    n_parts = 2 if analysis.title_weight else 1
    start = end - n_parts * n_directions
    parts = [(analysis.features(texts), word_weight)]
    if analysis.title_weight:
        parts.append((analysis.features(titles(texts)), word_weight * analysis.title_weight))
    lengths = [np.linalg.norm(tfidf @ components.T, axis=1) for tfidf, _ in parts]
    contributions = []
    for row, labels in enumerate(chosen):
        sums: list[dict[str, float]] = [defaultdict(float) for _ in labels]
        for part, (tfidf, weight) in enumerate(parts):
            columns, values = _row(tfidf, row)
            first_column = start + part * n_directions
            directions = weights[labels, first_column : first_column + n_directions]
            length = max(lengths[part][row], np.finfo(np.float32).tiny)
            products = weight / length * (directions @ components[:, columns]) * values
            if part == 0 and of_words is not None:
                products += of_words[np.asarray(labels, int)[:, None], columns] * values
            for totals, each in zip(sums, products.tolist(), strict=True):
                for column, value in zip(columns.tolist(), each, strict=True):
                    totals[words[column]] += value
        contributions.append([dict(totals) for totals in sums])
    return contributions


def _row(features: csr_matrix, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns that are not zero in a row, and their values."""
    start, stop = features.indptr[row : row + 2]
    return features.indices[start:stop], features.data[start:stop]
