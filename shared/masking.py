"""Masked-language modelling that computes no more than its loss needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.collators import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def score_hidden_tokens_only(model: PreTrainedModel) -> None:
    """Let a masked language model apply its head to the hidden tokens of a batch alone.

    The head scores every word of the vocabulary at every token, which takes a small encoder as long
    as all its layers, and most of the memory; the loss reads one score in seven. The loss and its
    gradient stay the same. From here on the model wants ``labels`` by name, and its logits are of
    shape (hidden tokens, vocabulary).

    Parameters
    ----------
    model : PreTrainedModel
        With a head for masked-language modelling; gets two hooks.
    """
    hidden = None

    def before(module, args, kwargs):
        nonlocal hidden
        hidden = kwargs["labels"] != IGNORED
        return args, kwargs | {"labels": kwargs["labels"][hidden]}

    def after(module, args, output):
        output.last_hidden_state = output.last_hidden_state[hidden]
        return output

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.base_model.register_forward_hook(after)
