"""Sentence encoders: load one that embeds texts, with a cache of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.data.corpus import cache_folder
from shared.methods.embeddings import CachedEmbedder
from shared.methods.mean_pooling import MeanPooling
from shared.models.lengths import limit_length
from shared.models.loading import load_encoder, load_tokenizer
from shared.models.sources import choose_text_prefix, resolve_model
from shared.models.tokenizers import check_unknown_tokens
from shared.training.callbacks import ReadableProgress
from shared.training.collators import PaddingCollator
from shared.training.trainer import LengthGroupedTrainer


def load_embedder(model: str, args: Any, texts: Sequence[str]) -> CachedEmbedder:
    """Load an encoder that embeds texts: the mean of its last hidden states, cached.

    Parameters
    ----------
    model : str
        A hub id or a folder.
    args : TrainingArguments
        Of the Trainer that predicts; with `max_length`, `text_prefix`, `truncation_side`, `bf16`
        and `cache_dir`.
    texts : sequence of str
        Whose unknown tokens are counted; a note is printed if there are many.

    Raises
    ------
    UserError
        If the model cannot be loaded, or reads fewer tokens than `max_length`.
    """
    folder = resolve_model(model)
    prefix = choose_text_prefix(model, args.text_prefix)
    tokenizer = load_tokenizer(folder, prefix, args.truncation_side)
    encoder = load_encoder(folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    check_unknown_tokens(tokenizer, texts)
    trainer = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    return CachedEmbedder(trainer, tokenizer, folder, cache_folder(args.cache_dir))
