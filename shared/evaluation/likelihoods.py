"""Perplexity: from log-likelihoods of tokens, and those of a causal language model.

All logarithms are natural ones. Means are taken over all tokens of a corpus, not over the means of
its texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.launch import progress
from shared.training.collators import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def perplexity(log_likelihoods: Sequence[Sequence[float] | np.ndarray]) -> float:
    """Return the perplexity of texts: e to the power of the mean of -log p over their tokens.

    Parameters
    ----------
    log_likelihoods : sequence of (tokens,) arrays, one for each text
        log p of each token that counts, given those before it. Padding and other masked positions
        are left out. `causal_log_likelihoods` returns them.

    Raises
    ------
    ValueError
        If there is no token, or a value is above 0 or not a number.
    """
    return float(perplexity_of_sums(likelihood_sums(log_likelihoods).sum(axis=0)))


def distribution_perplexity(probabilities: np.ndarray) -> np.ndarray:
    """Return the perplexity of distributions over a vocabulary: e to the power of their entropy.

    It says among how many equally likely tokens a model would be as unsure as it is; `perplexity`
    says how unsure it was of the tokens that came.

    Parameters
    ----------
    probabilities : (..., vocabulary) array
        Each distribution sums to 1.

    Returns
    -------
    perplexities : (...) array
        From 1, one token is certain, to the size of the vocabulary.

    Raises
    ------
    ValueError
        If the vocabulary is empty, a probability is negative or not a number, or a sum is not 1.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim == 0 or probabilities.shape[-1] == 0:
        raise ValueError("the vocabulary is empty: a distribution needs at least one probability")
    if not (probabilities >= 0).all():
        raise ValueError(
            "probabilities must be numbers of at least 0; pass logits through a softmax"
        )
    sums = probabilities.sum(axis=-1)
    # The tolerance is that of a softmax in single precision over a large vocabulary.
    if not np.allclose(sums, 1, rtol=0, atol=1e-3):
        worst = sums.flat[np.argmax(np.abs(sums - 1))]
        raise ValueError(f"a distribution must sum to 1, but one sums to {worst:g}")
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return np.exp(-(probabilities * logs).sum(axis=-1))


def likelihood_sums(log_likelihoods: Sequence[Sequence[float] | np.ndarray]) -> np.ndarray:
    """Return the sum of -log p and the number of tokens of each text: (texts, 2).

    Raises as `perplexity`.
    """
    rows = [np.asarray(row, dtype=np.float64) for row in log_likelihoods]
    for index, row in enumerate(rows):
        if np.isnan(row).any():
            raise ValueError(
                f"log_likelihoods[{index}] holds a value that is not a number; leave masked "
                "positions out, or check the output of the model"
            )
        # A log-probability of single precision may be above 0 by rounding.
        if (row > 1e-5).any():
            raise ValueError(
                f"log_likelihoods[{index}] holds {row.max():g}; log-probabilities are at most 0 "
                "(pass neither losses nor probabilities)"
            )
    if not any(row.size for row in rows):
        raise ValueError("log_likelihoods hold no token: all texts are empty or masked")
    return np.array([[-row.sum(), row.size] for row in rows])


def perplexity_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return the perplexity of (..., 2) sums of -log p and numbers of tokens: (...)."""
    with np.errstate(over="ignore"):  # infinity is right
        return np.exp(sums[..., 0] / sums[..., 1])


def causal_log_likelihoods(
    model: PreTrainedModel, batches: Iterable[Mapping[str, Any]]
) -> list[np.ndarray]:
    """Return the log-likelihoods of the tokens of texts under a causal language model.

    Parameters
    ----------
    model : PreTrainedModel
        A model of ``AutoModelForCausalLM``, on any device. Its mode of training is left as it was.
    batches : iterable of dict of (texts, positions) tensors
        ``input_ids``; ``attention_mask`` (default: no padding), with padding on the right;
        ``labels`` (default: the ``input_ids``), in which -100 marks a token that does not count. A
        ``DataLoader`` with a collator of transformers yields them. Other inputs of the model are
        handed to it.

    Returns
    -------
    log_likelihoods : list of (tokens,) arrays of float64, one for each text
        log p of each token that counts, given those before it. The first token of a text is not
        predicted and does not count: texts that begin with a BOS token are scored as a whole.

    Raises
    ------
    ValueError
        If texts are padded on the left, or longer than the positions of the model; if the model is
        not a decoder alone.
    """
    import torch

    if model.config.is_encoder_decoder:
        raise ValueError(f"{model.config.model_type} is an encoder-decoder, not a causal model")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return [
                row
                for batch in progress(batches, "log-likelihoods", unit="batches")
                for row in _score_batch(model, batch)
            ]
    finally:
        model.train(was_training)


def _score_batch(model: PreTrainedModel, batch: Mapping[str, Any]) -> list[np.ndarray]:
    import torch
    from torch.nn.functional import cross_entropy

    inputs = {
        name: value.to(model.device)
        for name, value in batch.items()
        if isinstance(value, torch.Tensor)
    }
    labels = inputs.pop("labels", inputs["input_ids"])
    mask = inputs.get("attention_mask")
    if mask is not None:
        if (mask[:, 1:] > mask[:, :-1]).any():
            raise ValueError(
                "texts are padded on the left, where positions would be counted from the padding; "
                'set tokenizer.padding_side = "right"'
            )
        labels = labels.masked_fill(mask == 0, IGNORE_INDEX)
    _check_length(model, labels.shape[1])
    # Each position predicts the next one.
    logits, targets = model(**inputs).logits[:, :-1], labels[:, 1:]
    losses = cross_entropy(
        logits.float().transpose(1, 2), targets, ignore_index=IGNORE_INDEX, reduction="none"
    )
    counted = (targets != IGNORE_INDEX).cpu().numpy()
    values = -losses.double().cpu().numpy()
    return [value[row] for value, row in zip(values, counted, strict=True)]


def _check_length(model: PreTrainedModel, length: int) -> None:
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise ValueError(
            f"a text has {length} tokens, but {model.config.model_type} has {longest} positions; "
            "cut the texts"
        )
