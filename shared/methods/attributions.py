"""Attributions of trained models: what each word of a text adds to the logit of a label.

Gradient x input, with the mean gradient on the way from an input of nothing but padding to the text
(Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks"), summed over the dimensions of
a token's embedding and over the tokens of a word. The gradient at the text alone says little: most
encoders normalise their embeddings first, so that it hardly has a part along the input.

All functions return, for each text, a dict from word to contribution for each of its chosen labels,
in their order. Where labels exclude each other, only differences between logits count: a logit is
then what it is above the mean of all logits of the text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.data.words import token_spans
from shared.methods.windows import encode_windows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from shared.training.trainer import LengthGroupedTrainer

Contributions = list[list[dict[str, float]]]
Chosen = Sequence[Sequence[int]]  # of each text, the numbers of the labels to explain
STEPS = 8  # from padding to the text, at which the gradient is computed


class NoWordsError(ValueError):
    """The logits have no part that is a sum over words."""


# --- trained models ------------------------------------------------------------------------------


def gradient_contributions(
    trainer: LengthGroupedTrainer,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    chosen: Chosen,
    *,
    stride: int = 0,
    max_windows: int | None = 1,
    pooling: str = "mean",
) -> Contributions:
    """Return mean gradient x input of the words of each text, in batches of similar length.

    The sum over all tokens is about the logit of the text minus that of padding. It takes a forward
    and a backward pass for each of 8 steps, and one more backward pass for each further label.

    A word that occurs several times has the sum. Special tokens and padding are left out, and so is
    what a decoder of an encoder-decoder reads. Of windows, a word has the mean that its logits are
    pooled by; with maximum pooling, the contribution in the window of the highest logit.

    Parameters
    ----------
    trainer : LengthGroupedTrainer
        Of the model; gives batch size, device and collator.
    tokenizer : PreTrainedTokenizerBase
        A fast one, which knows the place of each token in its text.
    texts : sequence of str
    chosen : sequence of sequences of int, one for each text
    stride, max_windows, pooling
        Of the windows of long texts, as in `shared.methods.windows.Windows`.

    Raises
    ------
    ValueError
        If the tokenizer does not know the places of tokens, or the model does not read the
        embeddings of all tokens at once.
    """
    if not tokenizer.is_fast:
        raise ValueError("the tokenizer does not know the places of its tokens")
    columns, documents = encode_windows(
        tokenizer, texts, stride=stride, max_windows=max_windows, return_offsets_mapping=True
    )
    lengths = np.array([len(ids) for ids in columns["input_ids"]])
    of_tokens: dict[int, np.ndarray] = {}  # window: (chosen labels, tokens)
    logits: dict[int, np.ndarray] = {}  # window: (chosen labels,)
    order = np.argsort(-lengths, kind="stable").tolist()
    # A text without a label to explain takes no time.
    order = [window for window in order if chosen[documents[window]]]
    size = trainer.args.eval_batch_size
    for begin in range(0, len(order), size):
        batch = order[begin : begin + size]
        inputs = trainer.data_collator([{"input_ids": columns["input_ids"][i]} for i in batch])
        of_batch = [chosen[documents[i]] for i in batch]
        results_of_batch = _gradients(trainer, inputs, of_batch, tokenizer.pad_token_id)
        for window, *results in zip(batch, *results_of_batch, strict=True):
            of_tokens[window], logits[window] = results

    prefix = len(tokenizer.init_kwargs.get("text_prefix") or "")
    contributions = []
    for document, labels in enumerate(chosen):
        spans = token_spans(texts[document]) if labels else []
        sums: list[dict[str, float]] = [defaultdict(float) for _ in labels]
        first, stop = np.searchsorted(documents, [document, document + 1])
        windows = range(first, stop) if labels else range(0)
        # Of each window, a share for each label: (windows, chosen labels).
        if pooling == "max" and labels:
            highest = np.argmax([logits[i] for i in windows], axis=0)
            shares = highest == np.arange(len(windows))[:, None]
        else:
            part = lengths[windows] / max(lengths[windows].sum(), 1)
            shares = np.repeat(part[:, None], len(labels), axis=1)
        for window, share in zip(windows, shares, strict=True):
            places = np.array(columns["offset_mapping"][window]) - prefix  # (tokens, 2)
            token, word = _words_of_tokens(places, spans)
            names = [texts[document][slice(*spans[i])] for i in word.tolist()]
            for label in np.flatnonzero(share).tolist():
                values = share[label] * of_tokens[window][label, token]
                for name, value in zip(names, values.tolist(), strict=True):
                    sums[label][name] += value
        contributions.append([dict(totals) for totals in sums])
    return contributions


def _words_of_tokens(
    places: np.ndarray, spans: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens that belong to a word, and for each of them the number of its word.

    A token belongs to the word of its last character: the space before a word may be part of it.
    """
    starts, stops = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    last = places[:, 1] - 1
    word = np.searchsorted(starts, last, side="right") - 1
    inside = (places[:, 1] > np.maximum(places[:, 0], 0)) & (word >= 0)
    inside &= last < np.append(stops, -1)[word]
    return np.flatnonzero(inside), word[inside]


def _gradients(
    trainer: LengthGroupedTrainer, inputs: dict[str, Any], chosen: Chosen, pad_token_id: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return gradient x input of each token, (chosen labels, tokens), and the logits of each row.

    Rows do not depend on each other, so that one backward pass serves one label of every row.
    """
    import torch

    model = trainer.model.eval()
    inputs = {name: value.to(trainer.args.device) for name, value in inputs.items()}
    with torch.no_grad():
        logits = model(**inputs).logits.float().cpu().numpy()
    table = model.get_input_embeddings().weight
    differences: list[Tensor] = []  # from padding to the text
    embeddings: list[Tensor] = []  # those that the model reads at a step

    def replace(module: Any, args: tuple, output: Tensor) -> Tensor | None:
        # Not the decoder of an encoder-decoder, and not the call below.
        if not torch.equal(args[0], inputs["input_ids"]):
            return None
        padding = module(torch.full_like(args[0], pad_token_id)).detach()
        differences.append(output.detach() - padding)
        embeddings.append((padding + share * differences[-1]).requires_grad_())
        return embeddings[-1].clone()  # which a model may change in place

    n_ranks = max(map(len, chosen))
    values = torch.zeros(n_ranks, *inputs["input_ids"].shape)
    modules = [module for module in model.modules() if getattr(module, "weight", None) is table]
    hooks = [module.register_forward_hook(replace) for module in modules]
    try:
        for step in range(STEPS):
            share = (step + 0.5) / STEPS
            differences.clear()
            embeddings.clear()
            # cuDNN has no gradient of a recurrent network that does not train.
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
                moved = model(**inputs).logits.float()
                if model.config.problem_type == "single_label_classification":
                    moved = moved - moved.mean(dim=1, keepdim=True)
            if not embeddings:
                raise ValueError("the model does not read the embeddings of all tokens at once")
            for rank in range(n_ranks):
                rows = [row for row, labels in enumerate(chosen) if len(labels) > rank]
                picked = moved[rows, [chosen[row][rank] for row in rows]].sum()
                gradients = torch.autograd.grad(picked, embeddings, retain_graph=rank < n_ranks - 1)
                for gradient, difference in zip(gradients, differences, strict=True):
                    values[rank] += (gradient * difference).sum(dim=-1).float().cpu() / STEPS
    finally:
        for hook in hooks:
            hook.remove()
    products = values.numpy()
    mask = inputs["attention_mask"].bool().cpu().numpy()
    return (
        [products[: len(labels), row, mask[row]] for row, labels in enumerate(chosen)],
        [logits[row, labels] for row, labels in enumerate(chosen)],
    )


# --- several classifiers -------------------------------------------------------------------------


def mean_contributions(
    parts: Sequence[Contributions], weights: Sequence[float] | None = None
) -> Contributions:
    """Return the weighted mean of the contributions of several classifiers (None: all the same)."""
    shares = np.ones(len(parts)) if weights is None else np.asarray(weights, dtype=float)
    shares = shares / shares.sum()
    contributions = []
    for of_text in zip(*parts, strict=True):
        means = []
        for of_label in zip(*of_text, strict=True):
            totals: dict[str, float] = defaultdict(float)
            for share, words in zip(shares.tolist(), of_label, strict=True):
                for word, value in words.items():
                    totals[word] += share * value
            means.append(dict(totals))
        contributions.append(means)
    return contributions
