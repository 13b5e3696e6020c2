"""What to ask a masked language model: hidden tokens to learn from, words in a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from shared.collators import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def score_hidden_tokens_only(model: PreTrainedModel) -> None:
    """Let a masked language model apply its head to the hidden tokens of a batch alone.

    The head scores every word of the vocabulary at every token, which takes a small encoder as long
    as all its layers, and most of the memory; the loss reads one score in seven.

    From here on the model wants ``targets`` by name: int64, shape (rows, length), the hidden tokens
    and `IGNORED` elsewhere. Its ``logits`` become the log-probabilities of these tokens, float32,
    of the same shape and 0 elsewhere: few enough to keep those of a whole evaluation, of which
    `shared.losses.hidden_token_loss` takes the mean.

    Parameters
    ----------
    model : PreTrainedModel
        With a head for masked-language modelling; gets three hooks.
    """
    targets = None

    def before(module, args, kwargs):
        nonlocal targets
        targets = kwargs["targets"]
        return args, {name: value for name, value in kwargs.items() if name != "targets"}

    def after_encoder(module, args, output):
        output.last_hidden_state = output.last_hidden_state[targets != IGNORED]
        return output

    def after(module, args, output):
        hidden = targets != IGNORED
        scores = output.logits.float()
        log_p = scores.new_zeros(targets.shape)
        log_p[hidden] = -cross_entropy(scores, targets[hidden], reduction="none")
        output.logits = log_p
        return output

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.base_model.register_forward_hook(after_encoder)
    model.register_forward_hook(after)


class MaskedWords(torch.nn.Module):
    """A masked language model whose output is the log-probability of some words at the mask.

    `trainer.predict` returns them as ``predictions``, of shape (rows, words): Schick and Schütze
    2021, "Exploiting Cloze Questions for Few Shot Text Classification", section 3.1. Of a word that
    the vocabulary holds in pieces only, it is the mean over the pieces.

    Parameters
    ----------
    model : PreTrainedModel
        From `shared.models.load_masked_language_model`.
    tokenizer : PreTrainedTokenizerBase
    words : sequence of str
    """

    def __init__(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, words: Sequence[str]
    ):
        super().__init__()
        self.model = model
        self.mask_id = tokenizer.mask_token_id
        # With a blank before it: byte-level vocabularies tell a word from its inside by that.
        pieces = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
        rows = [row for row, ids in enumerate(pieces) for _ in ids]
        self.register_buffer("ids", torch.tensor([i for ids in pieces for i in ids]))
        mean = torch.zeros(len(pieces), len(rows))
        mean[rows, torch.arange(len(rows))] = 1.0
        self.register_buffer("mean", mean / mean.sum(1, keepdim=True))

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        """Score rows of shape (rows, length), each with a mask token in its last sentence."""
        pair = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, **pair).logits
        # The last mask of a row is that of the sentence; a text may hold others.
        last = (input_ids == self.mask_id).cumsum(dim=1).argmax(dim=1)
        at_mask = logits[torch.arange(len(logits)), last].float().log_softmax(-1)
        # Autocast would round the product, of numbers near -10, to steps of 1/16.
        with torch.autocast(logits.device.type, enabled=False):
            return {"logits": at_mask[:, self.ids] @ self.mean.T}
