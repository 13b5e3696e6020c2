"""The tagger of the zero-shot methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.methods.zero_shot import Calibration, SentenceScorer, load_scoring_model
from shared.taggers.folder import EncoderReference, TaggerContents

if TYPE_CHECKING:
    from shared.taggers.loading import Loading


class ZeroShotScorer:
    """Sentences about the labels, scored by a model that has seen no labelled text.

    Parameters
    ----------
    sentences : SentenceScorer
    encoder : EncoderReference
        The model of `sentences`.
    phrases : sequence of str
        The words of the labels, for the method "fill_mask"; else not used.
    calibration : Calibration
    """

    def __init__(
        self,
        sentences: SentenceScorer,
        encoder: EncoderReference,
        phrases: Sequence[str],
        calibration: Calibration,
    ):
        self.sentences, self.encoder = sentences, encoder
        self.phrases, self.calibration = phrases, calibration
        self.tokenizer = sentences.tokenizer

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the calibrated scores."""
        return self.calibration(self.sentences(texts))

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the sentences, the phrases and the calibration."""
        contents.method, contents.encoder = "zero_shot", self.encoder
        contents.arrays["label_of"] = self.sentences.label_of
        contents.arrays["offsets"] = self.calibration.offsets
        contents.settings |= {
            "scoring": self.sentences.method,
            "sentences": list(self.sentences.sentences),
            "phrases": list(self.phrases),
            "spread": self.calibration.spread,
        }

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> ZeroShotScorer:
        """Load the model and rebuild the sentences."""
        encoder, settings, arrays = contents.encoder, contents.settings, contents.arrays
        if encoder is None:
            raise ValueError("encoder is missing")
        source, phrases = encoder.resolve(loading.encoder), settings["phrases"]
        model, tokenizer = load_scoring_model(
            settings["scoring"], source, phrases, encoder.max_length, encoder.text_prefix
        )
        scorer = SentenceScorer(
            settings["scoring"],
            loading.trainer(model, tokenizer),
            tokenizer,
            settings["sentences"],
            arrays["label_of"],
            block_size=loading.block_size,
        )
        return cls(scorer, encoder, phrases, Calibration(arrays["offsets"], settings["spread"]))
