"""How many tokens of a text a model can read, and tokenizers that truncate texts there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.cli.errors import UserError
from shared.models.tokenizers import PADDING_MULTIPLE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def longest_input(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model can read at once; None if there is no limit."""
    config = model.config.get_text_config()
    if not getattr(config, "position_biased_input", True):
        return None  # DeBERTa with relative positions only
    # MPT has a name of its own for it. XLNet has -1.
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "weight"):
            # RoBERTa and related models count positions from the padding index + 1, so that the
            # first rows of the table are never used by tokens.
            padding = getattr(module, "padding_idx", None)
            limits.append(len(module.weight) - (0 if padding is None else padding + 1))
            break
    return min((limit for limit in limits if limit and limit > 0), default=None)


def _longest_text(model: PreTrainedModel) -> int | None:
    """Return how many tokens a text may have, special tokens included; None if there is no limit.

    Batches are padded up to a multiple, and padding tokens need positions, too.
    """
    longest = longest_input(model)
    if longest is None or longest <= PADDING_MULTIPLE:
        return longest
    return longest - longest % PADDING_MULTIPLE


def limit_length(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    max_length: int,
    flag: str = "max_length",
) -> None:
    """Make a tokenizer truncate texts at `max_length` tokens, also after it is saved and loaded.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Changed in place.
    model : PreTrainedModel
        The model that reads the tokens.
    max_length : int
        Tokens per text, special tokens included.
    flag : str
        Flag to name in errors, without the dashes.

    Raises
    ------
    UserError
        If `max_length` leaves no room for a token of text, or is more than the model can read.
    """
    shortest = tokenizer.num_special_tokens_to_add() + 1
    longest = _longest_text(model) or max_length
    if not shortest <= max_length <= longest:
        raise UserError(f"--{flag} {max_length}: must be {shortest} to {longest} tokens")
    tokenizer.model_max_length = max_length


def limit_to_input(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Make a tokenizer truncate texts at what the model can read, if its own limit is higher.

    The tokenizers of some published models name no limit.

    Parameters
    ----------
    tokenizer, model
        As in `limit_length`.
    """
    own = tokenizer.model_max_length
    tokenizer.model_max_length = min(own, _longest_text(model) or own)
