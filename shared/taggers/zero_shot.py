"""The tagger of the zero-shot methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.methods.embeddings import MeanPooling
from shared.methods.zero_shot import MaskedWords, SentenceScorer, calibrate
from shared.models.loading import (
    limit_length,
    load_encoder,
    load_masked_language_model,
    load_sequence_classifier,
    load_tokenizer,
)
from shared.taggers.folder import EncoderReference, TaggerContents

if TYPE_CHECKING:
    from shared.taggers.tagger import Loading


class ZeroShotScorer:
    """Sentences about the labels, scored by a model that has seen no labelled text.

    Parameters
    ----------
    sentences : SentenceScorer
    encoder : EncoderReference
        The model of `sentences`.
    phrases : sequence of str
        The words of the labels, for the method "fill_mask"; else not used.
    offsets : array of shape (labels,)
        From `shared.methods.zero_shot.calibration_offsets`.
    """

    def __init__(
        self,
        sentences: SentenceScorer,
        encoder: EncoderReference,
        phrases: Sequence[str],
        offsets: np.ndarray,
    ):
        self.sentences, self.encoder = sentences, encoder
        self.phrases, self.offsets = phrases, offsets

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the calibrated scores."""
        return calibrate(self.sentences(texts), self.offsets)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the sentences, the phrases and the calibration."""
        contents.method, contents.encoder = "zero_shot", self.encoder
        contents.arrays |= {"label_of": self.sentences.label_of, "offsets": self.offsets}
        contents.settings |= {
            "scoring": self.sentences.method,
            "sentences": list(self.sentences.sentences),
            "phrases": list(self.phrases),
        }

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> ZeroShotScorer:
        """Load the model and rebuild the sentences."""
        encoder, settings, arrays = contents.encoder, contents.settings, contents.arrays
        if encoder is None:
            raise ValueError("encoder is missing")
        source = encoder.resolve(loading.encoder)
        tokenizer = load_tokenizer(source)
        method, phrases = settings["scoring"], settings["phrases"]
        model: Any
        if method == "nli":
            model = base = load_sequence_classifier(source, tokenizer=tokenizer)
        elif method == "fill_mask":
            base = load_masked_language_model(source, tokenizer=tokenizer)
            model = MaskedWords(base, tokenizer, phrases)
        else:
            base = load_encoder(source, tokenizer=tokenizer)
            model = MeanPooling(base)
        limit_length(tokenizer, base, encoder.max_length)
        trainer = loading.trainer(model, tokenizer)
        scorer = SentenceScorer(
            method, trainer, tokenizer, settings["sentences"], arrays["label_of"]
        )
        return cls(scorer, encoder, phrases, arrays["offsets"])
