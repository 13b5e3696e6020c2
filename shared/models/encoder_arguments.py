"""The flags of recipes that fine-tune an encoder: which one, and what it reads of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.cli.arguments import flag
from shared.models.sources import DEFAULT_MODEL, TEXT_PREFIX_HELP, TRUNCATION_SIDE_HELP


@dataclass
class EncoderChoiceArguments:
    """Flags that name the encoder, and say from which side it reads a long text."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    truncation_side: Literal["right", "left"] | None = flag(None, TRUNCATION_SIDE_HELP)


@dataclass
class EncoderArguments(EncoderChoiceArguments):
    """Flags about the encoder and its input; recipes may change the defaults."""

    max_length: int = flag(
        256, "Tokens per text; longer texts are truncated (default: 256).", least=1
    )
    dropout: float | None = flag(
        None,
        "Dropout probability during training (default: that of the model's config).",
        least=0,
        below=1,
    )
