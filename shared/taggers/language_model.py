"""The tagger of a causal language model that is prompted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.data.corpus import cache_folder
from shared.methods.embeddings import Embedder
from shared.methods.mean_pooling import MeanPooling
from shared.methods.prompt_templates import PromptTemplates
from shared.methods.prompting import (
    Demonstrations,
    PromptScorer,
    Scoring,
    load_words_after_prompts,
)
from shared.models.language_models import DEFAULT_LANGUAGE_MODEL, resolve_language_model
from shared.models.lengths import limit_length
from shared.models.loading import load_encoder, load_tokenizer
from shared.taggers.folder import EncoderReference, TaggerContents

if TYPE_CHECKING:
    from shared.taggers.loading import Loading


class LanguageModelScorer:
    """A causal language model, the prompts that it continues, and the demonstrations in them.

    Parameters
    ----------
    prompted : PromptScorer
    model : EncoderReference
        The language model.
    encoder : EncoderReference, optional
        The encoder of the demonstrations, if each text gets the nearest ones.
    """

    def __init__(
        self,
        prompted: PromptScorer,
        model: EncoderReference,
        encoder: EncoderReference | None = None,
    ) -> None:
        self.prompted, self.model, self.encoder = prompted, model, encoder
        self.tokenizer = prompted.tokenizer

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of the labels."""
        return self.prompted(texts)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the prompts, the demonstrations, and where the models are."""
        contents.method, contents.encoder = "language_model", self.model
        shown = self.prompted.demonstrations
        contents.settings |= {
            "prompts": asdict(self.prompted.prompts),
            "scoring": asdict(self.prompted.scoring),
            "demonstrations": {"texts": shown.texts, "words": shown.words, "n": shown.n}
            | {"n_orders": shown.n_orders, "seed": shown.seed},
            "encoder": self.encoder and self.encoder.to_json(folder, is_adapter=False),
        }
        contents.arrays["offsets"] = self.prompted.offsets
        if shown.vectors is not None:
            contents.arrays["vectors"] = shown.vectors

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> LanguageModelScorer:
        """Load the models and rebuild the prompts."""
        reference, settings = contents.encoder, contents.settings
        if reference is None:
            raise ValueError("the language model is missing")
        place = reference
        if reference.model == DEFAULT_LANGUAGE_MODEL:
            cache = loading.cache_dir or cache_folder(None)
            place = replace(reference, model=resolve_language_model(reference.model, cache))
        model, tokenizer = load_words_after_prompts(place.resolve(loading.encoder), loading.bf16)
        options: dict[str, Any] = dict(settings["demonstrations"])
        encoder = None
        if settings["encoder"] is not None:
            encoder = EncoderReference.from_json(settings["encoder"], folder)
            options |= {"vectors": contents.arrays["vectors"]}
            options |= {"embed": _load_embedder(encoder, loading)}
        prompts = settings["prompts"]
        prompted = PromptScorer(
            loading.trainer(model, tokenizer),
            tokenizer,
            PromptTemplates(
                tuple(prompts["templates"]),
                tuple(tuple(group) for group in prompts["words"]),
                prompts["instruction"],
            ),
            Demonstrations(**options),
            Scoring(**settings["scoring"]),
            block_size=loading.block_size,
            offsets=contents.arrays["offsets"],
        )
        return cls(prompted, reference, encoder)


def _load_embedder(encoder: EncoderReference, loading: Loading) -> Embedder:
    """Load the encoder of the demonstrations."""
    source = encoder.resolve(loading.encoder)
    tokenizer = load_tokenizer(source, encoder.text_prefix)
    model = load_encoder(source, tokenizer=tokenizer)
    limit_length(tokenizer, model, encoder.max_length)
    return Embedder(loading.trainer(MeanPooling(model), tokenizer), tokenizer)
