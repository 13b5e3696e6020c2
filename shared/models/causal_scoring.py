"""What a causal language model says after a prompt: prompts are read once, continuations follow.

The beginning that all prompts share is read once for all, and a prompt once for all that may follow
it, from cached keys and values.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from shared.cli.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class PromptReader:
    """Reads batches of prompts that begin alike.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model in evaluation mode, on its device.
    beginning : sequence of int
        The tokens that all prompts begin with; may be empty. Gradients are not computed.
    """

    def __init__(self, model: PreTrainedModel, beginning: Sequence[int]) -> None:
        self._model = model
        self._accepted = inspect.signature(model.forward).parameters
        self._beginning = DynamicCache()
        self._n_beginning = len(beginning)
        if beginning:
            ids = torch.tensor([[*beginning]], dtype=torch.long, device=model.device)
            self.logits(ids, torch.ones_like(ids), self._beginning, 1)

    def read(self, ids: torch.Tensor, mask: torch.Tensor) -> ReadPrompts:
        """Read what comes after the beginning.

        Parameters
        ----------
        ids, mask : int64 tensors of shape (rows, length)
            Tokens, and 1 for each token and 0 for padding, which may stand on either side. A row
            has at least one token.
        """
        # Padding stands before the tokens, so that what follows stands beside their last one.
        n_tokens = mask.sum(1, keepdim=True)
        width = mask.shape[1]
        places = torch.arange(width, device=mask.device).expand_as(mask)
        first = mask.argmax(1, keepdim=True)
        from_right = (places + first + n_tokens) % width
        ids, mask = ids.gather(1, from_right), mask.gather(1, from_right)
        mask = torch.cat([mask.new_ones(len(mask), self._n_beginning), mask], 1)
        cache = deepcopy(self._beginning)
        cache.batch_repeat_interleave(len(mask))
        return ReadPrompts(self, mask, cache, self.logits(ids, mask, cache, 1)[:, -1])

    def logits(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache, n: int
    ) -> torch.Tensor:
        """Return the logits after the last n tokens: (rows, n, tokens of the vocabulary)."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        options = {"position_ids": positions, "logits_to_keep": n}
        options = {name: value for name, value in options.items() if name in self._accepted}
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
        return self._model(**inputs, **options, use_cache=True).logits[:, -n:]


class ReadPrompts:
    """A batch of prompts that were read, from `PromptReader.read`.

    Attributes
    ----------
    logits : tensor of shape (rows, tokens of the vocabulary)
        After the last token of each prompt.
    """

    def __init__(
        self, reader: PromptReader, mask: torch.Tensor, cache: DynamicCache, logits: torch.Tensor
    ) -> None:
        self._reader, self._mask, self._cache = reader, mask, cache
        self.logits = logits

    def follow(self, tokens: Sequence[int], n: int = 1) -> torch.Tensor:
        """Return the logits after the last n of some tokens that follow each prompt.

        Parameters
        ----------
        tokens : sequence of int
            At least n.

        Returns
        -------
        tensor of shape (rows, n, tokens of the vocabulary)
        """
        ids = torch.tensor([*tokens], device=self._mask.device).expand(len(self._mask), -1)
        mask = torch.cat([self._mask, torch.ones_like(ids)], 1)
        logits = self._reader.logits(ids, mask, self._cache, n)
        self._cache.crop(-len(tokens))
        return logits


@torch.no_grad()
def check_cache(model: PreTrainedModel, folder: str) -> None:
    """Check that `PromptReader` gives the logits that the model gives without a cache.

    Parameters
    ----------
    model : PreTrainedModel
        In single precision.
    folder : str
        Its name, for the error.

    Raises
    ------
    UserError
        For an architecture without a cache (the first GPT), or one whose logits depend on padding
        (MPT).
    """
    ids = torch.arange(5, 11, device=model.device) % model.config.get_text_config().vocab_size
    padded, mask = torch.stack([ids[1:4], ids[1:4]]), torch.ones_like(ids[:6]).view(2, 3)
    mask[1, 1:] = 0  # the second prompt has one token after the beginning
    try:
        prompts = PromptReader(model, ids[:1].tolist()).read(padded, mask)
        actual = torch.cat([prompts.logits, prompts.follow(ids[4:].tolist())[:, 0]])
    except (AttributeError, RuntimeError, TypeError, ValueError):
        actual = None  # each architecture without a cache has another error
    wholes = [ids[:4], ids[:2], ids, ids[[0, 1, 4, 5]]]
    expected = torch.stack([model(input_ids=whole[None]).logits[0, -1] for whole in wholes])
    tolerance = 1e-3 * expected.abs().max().item()
    if actual is None or not torch.allclose(actual, expected, rtol=0, atol=tolerance):
        raise UserError(
            f"{folder}: {model.config.model_type} models cannot go on from a prompt that was read; "
            "name a model such as Llama or GPT-2"
        )


def common_beginning(sequences: Sequence[list[int]]) -> list[int]:
    """Return the longest list that all sequences begin with."""
    first, last = min(sequences), max(sequences)  # these differ most
    pairs = enumerate(zip(first, last, strict=False))
    n = next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))
    return first[:n]


def plain_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts; what looks like a special token is text like other."""
    if not texts:
        return []
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    ids: list[list[int]] = tokenizer(list(texts), **options).input_ids
    return ids


def halve_precision(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model in bfloat16, but for its output layer: close logits stay apart.

    In bfloat16, logits that differ by less than 1 % are the same number: yes and no often do.
    """
    model = model.bfloat16()
    model.set_output_embeddings(_PreciseHead(model.get_output_embeddings()))
    return model


class _PreciseHead(torch.nn.Module):
    """The output layer of a model, in single precision."""

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of hidden states."""
        bias = None if self.bias is None else self.bias.float()
        return torch.nn.functional.linear(hidden.float(), self.weight.float(), bias)
