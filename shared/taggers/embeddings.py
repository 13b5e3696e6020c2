"""The tagger of a classifier of sentence embeddings: probe or nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.methods.attributions import Chosen, Contributions, NoWordsError
from shared.methods.embeddings import CachedEmbedder, Embedder
from shared.methods.linear import LinearClassifier, LinearEnsemble
from shared.methods.linear_attributions import probe_contributions
from shared.methods.neighbours import NearestNeighbours, NeighbourVote
from shared.methods.probe import LatentSemanticAnalysis, probe_features
from shared.methods.titles import TitledEmbedder
from shared.models.lengths import limit_length
from shared.models.loading import load_encoder, load_tokenizer
from shared.taggers.folder import TOKENIZER, EncoderReference, TaggerContents, add_tokenizer
from shared.taggers.onnx_model import ONNX, OnnxEmbedder, OnnxModel
from shared.taggers.words import add_linear, add_words, read_linear, read_words

if TYPE_CHECKING:
    import torch

    from shared.taggers.loading import Loading


class EmbeddingScorer:
    """A classifier of sentence embeddings, to which vectors of words may be appended.

    Parameters
    ----------
    embed : callable
        Maps texts to vectors, (texts, width): an `Embedder`, `OnnxEmbedder` or `TitledEmbedder`.
    encoder : EncoderReference, optional
        The encoder of `embed`. None: the folder holds a `StaticEncoder` or `OnnxModel`.
    classifier : callable
        Maps vectors to scores: a `LinearClassifier`, `LinearEnsemble` or `NeighbourVote`.
    analysis : LatentSemanticAnalysis, optional
    word_weight : float
        Weight of the vectors of the analysis.
    wide : bool
        Whether the classifier reads the TF-IDF of the words, too.
    """

    def __init__(
        self,
        embed: Embedder | OnnxEmbedder | TitledEmbedder,
        encoder: EncoderReference | None,
        classifier: Callable[[Any], np.ndarray],
        analysis: LatentSemanticAnalysis | None = None,
        word_weight: float = 0.0,
        wide: bool = False,
    ):
        self.embed, self.encoder, self.classifier = embed, encoder, classifier
        self.analysis, self.word_weight, self.wide = analysis, word_weight, wide
        self.embedder = embed.embed if isinstance(embed, TitledEmbedder) else embed
        self.tokenizer = self.embedder.tokenizer

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of the classifier."""
        return self.score_embedded(texts, self.embed(texts))

    def score_embedded(self, texts: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Return the scores of texts whose embeddings, (texts, width), are there already."""
        if self.analysis is None:
            return self.classifier(vectors)
        tfidf = self.analysis.features(texts)
        words = self.analysis.project(texts, tfidf)
        used = tfidf if self.wide else None
        return self.classifier(probe_features(vectors, words, self.word_weight, used))

    def contributions(self, texts: Sequence[str], chosen: Chosen) -> Contributions:
        """Return what the words of texts add to the logits of chosen labels, beside embeddings.

        Raises
        ------
        NoWordsError
            If the classifier reads nothing but embeddings.
        """
        if self.analysis is None or not isinstance(
            self.classifier, (LinearClassifier, LinearEnsemble)
        ):
            raise NoWordsError("the classifier reads nothing but embeddings")
        options = self.analysis, self.word_weight, self.wide
        return probe_contributions(texts, self.classifier, *options, chosen)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the classifier, and the word vectors and the encoder if there are any."""
        contents.method, contents.encoder = "embeddings", self.encoder
        if isinstance(self.embedder, OnnxEmbedder):
            self.embedder.model.save(folder, contents)
        elif self.encoder is None:
            static = self.embedder.trainer.model.vectors.weight
            contents.arrays["static"] = static.half().cpu().numpy()
            add_tokenizer(folder, contents, self.tokenizer)
        if isinstance(self.classifier, NeighbourVote):
            lookup = self.classifier.lookup
            contents.arrays |= {"vectors": lookup.vectors, "labels": lookup.labels}
            contents.settings |= {"neighbours": self.classifier.k}
            contents.settings |= {"single_label": self.classifier.single_label}
            contents.settings |= {"index": lookup.index_type}
        elif isinstance(self.classifier, (LinearClassifier, LinearEnsemble)):
            add_linear(contents, self.classifier)
        if self.analysis is not None:
            add_words(contents, self.analysis.features)
            contents.arrays["components"] = self.analysis.components
            contents.settings |= {"word_weight": self.word_weight, "wide": self.wide}
            contents.settings["title_weight"] = self.analysis.title_weight

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> EmbeddingScorer:
        """Load the encoder and rebuild the classifier from its arrays."""
        arrays, settings = contents.arrays, contents.settings
        embed: Embedder | OnnxEmbedder | TitledEmbedder
        if ONNX in contents.files:
            embed = OnnxEmbedder(OnnxModel.load(folder))
        else:
            embed = _load_embedder(folder, contents, loading)
        classifier: Callable[[Any], np.ndarray]
        if "neighbours" in settings:
            index_type = settings.get("index", "flat")  # older taggers do not name it
            lookup = NearestNeighbours(arrays["vectors"], arrays["labels"], index_type)
            classifier = NeighbourVote(lookup, settings["neighbours"], settings["single_label"])
        else:
            classifier = read_linear(contents)
        if "components" not in arrays:
            return cls(embed, contents.encoder, classifier)
        title_weight = settings["title_weight"]
        analysis = LatentSemanticAnalysis(
            read_words(contents), arrays["components"], title_weight=title_weight
        )
        embed = TitledEmbedder(embed, title_weight) if title_weight else embed
        options = settings["word_weight"], settings["wide"]
        return cls(embed, contents.encoder, classifier, analysis, *options)


def _load_embedder(folder: Path, contents: TaggerContents, loading: Loading) -> Embedder:
    """Load an encoder, or the static embeddings that the folder holds, for torch."""
    from shared.methods.mean_pooling import MeanPooling
    from shared.methods.static_embeddings import StaticEncoder

    encoder = contents.encoder
    model: torch.nn.Module
    if "static" in contents.arrays:
        source = str(folder / TOKENIZER)
        tokenizer, model = load_tokenizer(source), StaticEncoder(contents.arrays["static"])
    elif encoder is not None:
        source = encoder.resolve(loading.encoder)
        tokenizer = load_tokenizer(source, encoder.text_prefix, encoder.truncation_side)
        transformer = load_encoder(source, tokenizer=tokenizer)
        limit_length(tokenizer, transformer, encoder.max_length)
        model = MeanPooling(transformer)
    else:
        raise ValueError("encoder is missing")
    trainer = loading.trainer(model, tokenizer)
    if loading.cache_dir is None:
        return Embedder(trainer, tokenizer)
    return CachedEmbedder(trainer, tokenizer, source, loading.cache_dir)
