"""Pattern-exploiting training: texts in patterns, words for labels, and what several patterns say.

Schick and Schütze 2021, "Exploiting Cloze Questions for Few Shot Text Classification and Natural
Language Inference" (PET), the paper below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.evaluation.decisions import sigmoid, softmax

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from shared.methods.prompt_templates import PromptTemplates

TEXTS_PER_CALL = 1000  # limits the memory of a call of a tokenizer


def label_word_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: PromptTemplates, label_names: Sequence[str]
) -> list[list[int]]:
    """Return the token ids of the words of each label.

    Raises
    ------
    UserError
        For a word that is not one token of the vocabulary, or that is the same token as a word of
        another label. The message names the label and the tokens.
    """
    label_of: dict[int, str] = {}
    word_ids = []
    for name, words in zip(label_names, prompts.words, strict=True):
        word_ids.append([_word_id(tokenizer, word, name) for word in words])
        for word, token in zip(words, word_ids[-1], strict=True):
            if (other := label_of.setdefault(token, name)) != name:
                raise UserError(
                    f"label {name!r}: {word!r} is the same token as a word of {other!r}; give one "
                    "of them another word (verbalizer in --prompts)"
                )
    return word_ids


def _word_id(tokenizer: PreTrainedTokenizerBase, word: str, label: str) -> int:
    """Return the id of the one token of a word."""
    # The space matters: byte-level vocabularies have other tokens for the start of a word.
    ids = tokenizer.encode(f" {word}", add_special_tokens=False)
    tokens = ", ".join(tokenizer.convert_ids_to_tokens(ids))
    advice = "give the label another word (verbalizer in --prompts)"
    if len(ids) != 1:
        raise UserError(
            f"label {label!r}: {word!r} has {len(ids)} tokens ({tokens}), but a mask stands for "
            f"one; {advice}"
        )
    if ids[0] == tokenizer.unk_token_id:
        raise UserError(f"label {label!r}: the tokenizer does not know {word!r}; {advice}")
    return int(ids[0])


def tokenize_pattern(
    texts: Sequence[str], template: str, tokenizer: PreTrainedTokenizerBase, instruction: str = ""
) -> Dataset:
    """Tokenise texts in a pattern, which stays whole: only the text is truncated.

    Parameters
    ----------
    texts : sequence of str
    template : str
        With ``{text}`` and ``{mask}`` once, from `read_prompt_templates`.
    tokenizer : PreTrainedTokenizerBase
        Truncates at its ``model_max_length``, on its ``truncation_side``. What looks like a special
        token in a text is text like other.
    instruction : str
        Stands on a line of its own before the template. "": none.

    Returns
    -------
    datasets.Dataset
        With ``input_ids``, ``length`` and ``place``, the position of the mask.

    Raises
    ------
    UserError
        If the pattern leaves no room for a text.
    """
    from datasets import Dataset

    mask = tokenizer.mask_token_id
    whole = tokenizer.encode(tokenizer.mask_token)  # with the special tokens around it
    start, end = whole[: whole.index(mask)], whole[whole.index(mask) + 1 :]
    if instruction:
        template = f"{instruction}\n{template}"
    before, after = template.replace("{mask}", tokenizer.mask_token).split("{text}")
    # A space before a word belongs to its token, if any.
    space = " " if before.endswith(" ") else ""
    options = {"add_special_tokens": False}
    head = start + tokenizer.encode(before.removesuffix(" "), **options)
    tail = tokenizer.encode(after, **options) + end
    room = tokenizer.model_max_length - len(head) - len(tail)
    if room < 1:
        raise UserError(
            f"--max_length {tokenizer.model_max_length}: the pattern {template!r} leaves no room "
            f"for a text; it has {len(head) + len(tail)} tokens itself"
        )
    columns: dict[str, list] = {"input_ids": [], "length": [], "place": []}
    for first in progress(range(0, len(texts), TEXTS_PER_CALL), "tokenising", unit="batches"):
        batch = [space + text for text in texts[first : first + TEXTS_PER_CALL]]
        tokens = tokenizer(
            batch, truncation=True, max_length=room, split_special_tokens=True, **options
        )
        for ids in tokens["input_ids"]:
            columns["input_ids"].append(head + ids + tail)
            columns["length"].append(len(head) + len(ids) + len(tail))
            of_mask = head.index(mask) if mask in head else len(head) + len(ids) + tail.index(mask)
            columns["place"].append(of_mask)
    return Dataset.from_dict(columns)


# --- the ensemble --------------------------------------------------------------------------------


def best_label_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of the rows whose best label is one of theirs.

    Parameters
    ----------
    scores, labels : arrays of shape (rows, labels)
    """
    return float((labels[np.arange(len(labels)), scores.argmax(axis=1)] > 0).mean())


def ensemble_scores(scores: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Return the weighted mean of the scores of several models, (texts, labels).

    Equation in section 3.4 of the paper. If all weights are 0, all models count the same.

    Parameters
    ----------
    scores : for each model, an array of shape (texts, labels)
        Logits.
    weights : sequence of float
        Of the models, at least 0.
    """
    total = sum(weights)
    return np.average(scores, axis=0, weights=weights if total > 0 else None)


def soft_labels(scores: np.ndarray, temperature: float, *, single_label: bool) -> np.ndarray:
    """Return probabilities of labels for a student to learn, (texts, labels).

    Parameters
    ----------
    scores : array of shape (texts, labels)
        Logits of an ensemble.
    temperature : float
        Divides the logits (Hinton, Vinyals and Dean 2015); above 1 the labels are softer.
    single_label : bool
        Whether the labels exclude each other: a softmax over them, else a sigmoid of each.
    """
    return (softmax if single_label else sigmoid)(scores / temperature)
