"""An encoder to fine-tune: which one, what it reads of a text, and its new head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shared.cli.arguments import flag
from shared.models.loading import load_sequence_classifier, load_tokenizer
from shared.models.sources import (
    DEFAULT_MODEL,
    TEXT_PREFIX_HELP,
    TRUNCATION_SIDE_HELP,
    choose_text_prefix,
    resolve_model,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


def find_encoder(args: EncoderChoiceArguments) -> tuple[str, PreTrainedTokenizerBase]:
    """Return the folder of the encoder that the flags name, and its tokenizer.

    Raises
    ------
    UserError
        As `resolve_model` and `load_tokenizer`.
    """
    folder = resolve_model(args.model)
    prefix = choose_text_prefix(args.model, args.text_prefix)
    return folder, load_tokenizer(folder, prefix, args.truncation_side)


def load_classifier_to_train(
    folder: str,
    label_names: list[str],
    *,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    single_label: bool = False,
    dropout: float | None = None,
    mean_pooling: bool = True,
) -> PreTrainedModel:
    """Load an encoder with a new head, to be fine-tuned.

    Parameters
    ----------
    folder, label_names, tokenizer, dropout
        As in `load_sequence_classifier`.
    seed : int
        Seeds the random generators, and so decides the weights of the head.
    single_label : bool
        Every text has exactly one label: softmax over the labels, and not one sigmoid for each.
    mean_pooling : bool
        Whether the head of a BERT model reads the mean of all tokens (`append_mean_pooling`), and
        not the state of the first one.

    Raises
    ------
    UserError
        For missing, truncated or mismatched weights.
    """
    from transformers import set_seed

    from shared.models.first_weights import append_mean_pooling

    set_seed(seed)
    model = load_sequence_classifier(folder, label_names, tokenizer=tokenizer, dropout=dropout)
    if single_label:
        model.config.problem_type = "single_label_classification"
    if mean_pooling:
        append_mean_pooling(model)
    return model
