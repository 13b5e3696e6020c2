"""The tagger of a classifier of sentence embeddings: probe or nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.methods.embeddings import CachedEmbedder, Embedder, MeanPooling
from shared.methods.linear import LinearClassifier, LinearEnsemble
from shared.methods.neighbours import NearestNeighbours, NeighbourVote
from shared.methods.probe import LatentSemanticAnalysis
from shared.models.loading import limit_length, load_encoder, load_tokenizer
from shared.taggers.folder import EncoderReference, TaggerContents
from shared.taggers.words import add_linear, add_words, read_linear, read_words

if TYPE_CHECKING:
    from shared.taggers.tagger import Loading


class EmbeddingScorer:
    """A classifier of sentence embeddings, to which vectors of words may be appended.

    Parameters
    ----------
    embed : callable
        Maps texts to vectors of length one, (texts, width): an `Embedder`.
    encoder : EncoderReference
        The encoder of `embed`.
    classifier : LinearClassifier, LinearEnsemble or NeighbourVote
        Maps vectors to scores.
    analysis : LatentSemanticAnalysis, optional
    word_weight : float
        Weight of the vectors of words.
    """

    def __init__(
        self,
        embed: Embedder,
        encoder: EncoderReference,
        classifier: LinearClassifier | LinearEnsemble | NeighbourVote,
        analysis: LatentSemanticAnalysis | None = None,
        word_weight: float = 0.0,
    ):
        self.embed, self.encoder, self.classifier = embed, encoder, classifier
        self.analysis, self.word_weight = analysis, word_weight

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of the classifier."""
        return self.score_embedded(texts, self.embed(texts))

    def score_embedded(self, texts: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Return the scores of texts whose embeddings, (texts, width), are there already."""
        if self.analysis is not None:
            words = self.word_weight * self.analysis(texts)
            vectors = np.concatenate([vectors, words], axis=1)
        return self.classifier(vectors)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the classifier, and the word vectors if there are any."""
        contents.method, contents.encoder = "embeddings", self.encoder
        if isinstance(self.classifier, NeighbourVote):
            lookup = self.classifier.lookup
            contents.arrays |= {"vectors": lookup.vectors, "labels": lookup.labels}
            contents.settings |= {"neighbours": self.classifier.k}
            contents.settings |= {"single_label": self.classifier.single_label}
        else:
            add_linear(contents, self.classifier)
        if self.analysis is not None:
            add_words(contents, self.analysis.features)
            contents.arrays["components"] = self.analysis.components
            contents.settings["word_weight"] = self.word_weight

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> EmbeddingScorer:
        """Load the encoder and rebuild the classifier from its arrays."""
        encoder = contents.encoder
        if encoder is None:
            raise ValueError("encoder is missing")
        source = encoder.resolve(loading.encoder)
        tokenizer = load_tokenizer(source)
        model = load_encoder(source, tokenizer=tokenizer)
        limit_length(tokenizer, model, encoder.max_length)
        embed = Embedder(loading.trainer(MeanPooling(model), tokenizer), tokenizer)
        if loading.cache_dir is not None:
            embed = CachedEmbedder(embed.trainer, tokenizer, source, loading.cache_dir)
        settings, arrays = contents.settings, contents.arrays
        classifier: LinearClassifier | LinearEnsemble | NeighbourVote
        if "neighbours" in settings:
            lookup = NearestNeighbours(arrays["vectors"], arrays["labels"])
            classifier = NeighbourVote(lookup, settings["neighbours"], settings["single_label"])
        else:
            classifier = read_linear(contents)
        if "components" not in arrays:
            return cls(embed, encoder, classifier)
        analysis = LatentSemanticAnalysis(read_words(contents), arrays["components"])
        return cls(embed, encoder, classifier, analysis, settings["word_weight"])
