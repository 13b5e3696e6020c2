"""Make the outputs of a model for a text independent of the other texts in its batch.

A batch is padded to its longest text. Most architectures ignore padding on the right, but not all:

- Heads that read the last position, as that of XLNet, read padding. They need it on the left.
- Architectures without an attention mask (FNet), or whose convolutions and pooling pass over the
  mask (CANINE, Funnel, YOSO), mix padding into every token.
- A few draw random numbers in each pass (Reformer), or need inputs that are not text.

Nothing in a config tells them apart, so `fit_to_padding` measures it: it computes one short text
with and without padding.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shared.cli.errors import UserError, first_line
from shared.cli.launch import print_once
from shared.models.tokenizers import PADDING_MULTIPLE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WORDS = 24  # of the text that is computed; longer than the chunks and windows of tests' models
# Two outputs count as the same if they differ by less than this share of the largest output.
# Rounding makes a difference of about 1e-6.
_TOLERANCE = 1e-4
# Without its kernel for CUDA, the attention of MRA returns zeros: no token reads another.
_REFUSED = {"mra": "need a kernel for CUDA that has to be compiled, and give zeros without it"}
# What models raise that need more than token ids, or cannot compute in bfloat16.
_FAILURES = (
    *(RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(NotImplementedError, AssertionError),
)


def fit_to_padding(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str, longest: int | None
) -> None:
    """Make sure that padding does not change the outputs of a model.

    The tokenizer gets the padding side that the model needs, right if possible. If both sides
    change the outputs, the model computes texts of different lengths separately from now on. A
    model that cannot compute in bfloat16 computes in single precision also under autocast.

    Parameters
    ----------
    model : PreTrainedModel
        Returns ``logits`` of texts (rows, labels) or hidden states (rows, length, width). Its class
        may be changed in place to a subclass of the same name.
    tokenizer : PreTrainedTokenizerBase
        With a padding token. Its ``padding_side`` is set.
    folder : str
        To name in errors.
    longest : int, optional
        Maximum number of tokens that the model reads. None: no limit.

    Raises
    ------
    UserError
        If the model cannot compute plain texts, or returns other outputs each time.
    """
    # A word can be two tokens, and the rest is for padding.
    n_words = _WORDS if longest is None else min(_WORDS, (longest - PADDING_MULTIPLE) // 2)
    name = model.config.get_text_config().model_type
    if name in _REFUSED:
        raise UserError(f"{folder}: {name} models {_REFUSED[name]}; name another model")
    ids = _example(tokenizer, max(n_words, 1))
    n_padding = 2 * PADDING_MULTIPLE - len(ids) % PADDING_MULTIPLE
    if longest is not None:
        n_padding = min(n_padding, longest - len(ids))
    if n_padding < 1:
        return
    pad_id = tokenizer.pad_token_id

    def compute(left: int = 0, right: int = 0) -> torch.Tensor:
        """Return the output for the text between padding, without that for the padding."""
        row = torch.tensor([[pad_id] * left + ids + [pad_id] * right])
        mask = torch.zeros_like(row)
        mask[:, left : left + len(ids)] = 1
        output = model(input_ids=row, attention_mask=mask)
        values = output["logits"] if "logits" in output else output["last_hidden_state"]
        return values if values.dim() == 2 else values[:, left : left + len(ids)]

    was_training = model.training
    model.eval()
    tokenizer.padding_side = "right"
    # The random numbers that follow, such as the weights of a head, must not depend on this.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            alone = compute()
            if not torch.isfinite(alone).all():
                raise UserError(f"{folder}: the outputs are not finite; the weights are damaged")
            if not _same(alone, compute()):
                raise UserError(
                    f"{folder}: {name} models give the same text other outputs each time; name "
                    "another model"
                )
            if not _same(alone, compute(right=n_padding)):
                if _same(alone, compute(left=n_padding)):
                    tokenizer.padding_side = "left"
                else:
                    _compute_lengths_separately(model, pad_id)
        except _FAILURES as error:
            raise UserError(
                f"{folder}: {name} models cannot read plain texts here ({first_line(error)}); name "
                "another model"
            ) from error
        try:
            with torch.autocast("cpu", torch.bfloat16):
                compute()
        except _FAILURES:
            print_once(f"note: {name} models cannot compute in bfloat16; single precision is used")
            _compute_in_single_precision(model)
    model.train(was_training)


def _example(tokenizer: PreTrainedTokenizerBase, n_words: int) -> list[int]:
    """Return the ids of a text: tokens from all parts of the vocabulary, and the special ones."""
    text = tokenizer("a " * n_words, return_special_tokens_mask=True, verbose=False)
    ids = np.array(text["input_ids"])
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    places = np.flatnonzero(np.array(text["special_tokens_mask"]) == 0)
    ids[places] = ordinary[np.linspace(0, len(ordinary) - 1, len(places)).astype(int)]
    return ids.tolist()


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two outputs differ by rounding only."""
    if first.shape != second.shape:
        return False
    return bool((first - second).abs().max() <= _TOLERANCE * first.abs().max())


# --- changes of forward --------------------------------------------------------------------------


def _replace_forward(model: PreTrainedModel, forward: Any) -> None:
    """Give a model another method ``forward``.

    The class is changed, not the instance: a copy of the model must not call the original. The name
    of the class stays, because configs record it.
    """
    cls = type(model)
    # The Trainer reads the signature. `functools.wraps` would keep it, too, but accelerate unwraps
    # what it wraps.
    forward.__signature__ = inspect.signature(cls.forward)
    members = {"forward": forward, "__module__": cls.__module__, "__doc__": cls.__doc__}
    model.__class__ = type(cls.__name__, (cls,), members)


def _compute_in_single_precision(model: PreTrainedModel) -> None:
    original = type(model).forward

    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device.type, enabled=False):
            return original(self, *args, **kwargs)

    _replace_forward(model, forward)


def _compute_lengths_separately(model: PreTrainedModel, pad_id: int) -> None:
    """Make a model compute each text as if it were alone in its batch, padded on the right.

    Lengths are rounded up to the multiple to which batches are padded, so that there are fewer of
    them. Outputs of tokens are padded with zeros.
    """
    original = type(model).forward

    def forward(
        self: PreTrainedModel,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        mask = attention_mask
        if mask is None and input_ids is not None:
            mask = input_ids != pad_id  # heads of FNet keep the mask from their encoder
        if mask is None:
            return original(self, input_ids=input_ids, **kwargs)
        n_rows, width = mask.shape
        # The place after the last token: a text may hold padding tokens.
        ends = (mask.long() * torch.arange(1, width + 1, device=mask.device)).amax(1)
        ends = (-(-ends // PADDING_MULTIPLE) * PADDING_MULTIPLE).clamp(PADDING_MULTIPLE, width)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}
        order, parts = [], []
        for length in ends.unique().tolist():
            rows = (ends == length).nonzero().squeeze(1)
            order.append(rows)
            cut = {name: _cut(value, rows, length, n_rows, width) for name, value in inputs.items()}
            parts.append(original(self, **cut))
        return _join(parts, torch.cat(order).argsort(), width)

    _replace_forward(model, forward)


def _cut(value: Any, rows: torch.Tensor, length: int, n_rows: int, width: int) -> Any:
    """Return some rows of an input, up to a length, if it has rows and a length."""
    if not torch.is_tensor(value) or not value.dim() or len(value) != n_rows:
        return value
    value = value[rows]
    return value[:, :length] if value.dim() > 1 and value.shape[1] == width else value


def _join(parts: list[Any], order: torch.Tensor, width: int) -> Any:
    """Join the outputs of groups of rows; pad those of tokens to a width.

    The Trainer passes no labels to a model, so that there are no losses to join.
    """
    first = parts[0]
    if torch.is_tensor(first):
        if first.dim() > 2:  # (rows, length, width)
            pad = torch.nn.functional.pad
            parts = [pad(part, (0, 0, 0, width - part.shape[1])) for part in parts]
        return torch.cat(parts)[order]
    if isinstance(first, dict):
        return type(first)({key: _join([p[key] for p in parts], order, width) for key in first})
    if isinstance(first, (tuple, list)):
        return type(first)(_join(list(group), order, width) for group in zip(*parts, strict=True))
    return first
