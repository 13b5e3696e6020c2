"""Sentence pairs that train a model for natural language inference (NLI).

A pair has a premise and a hypothesis, and a label: the premise entails the hypothesis, contradicts
it, or neither. A model is trained on such pairs (recipes/train_nli.py), and then classifies texts
without labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import print_once
from shared.data.mapped_rows import map_rows
from shared.data.readers import open_source
from shared.models.tokenizers import forget_padding
from shared.training.losses import EntailmentLoss

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

CLASSES = ("entailment", "neutral", "contradiction")
# Labels of pairs on which the annotators did not agree, and of empty cells.
_NO_GOLD_LABEL = ("", "-", "-1", "none", "nan")
# Label as text to the code that `EntailmentLoss` takes.
_CODES = {name: code for code, name in enumerate(CLASSES)} | {"0": 0, "1": 1, "2": 2}
_NOT_ENTAILED = ("not_entailment", "non-entailment", "not-entailment", "non_entailment")
_CODES |= dict.fromkeys(_NOT_ENTAILED, EntailmentLoss.NOT_ENTAILED)


def read_pairs(data: str, flag: str) -> Dataset:
    """Read a file of pairs in the form in which SNLI and MultiNLI are published.

    Parameters
    ----------
    data : str
        A file, or the id of a hub data set, with columns ``premise``, ``hypothesis`` and ``label``.
        A label is a name from `CLASSES`, "not_entailment", or 0, 1, 2. The numbers follow the order
        of `CLASSES`, unless the data set names its own classes. Pairs whose label is null, -1 or
        "-" have no gold label and are left out.
    flag : str
        The flag whose value `data` is, for error messages.

    Returns
    -------
    datasets.Dataset
        With ``premise``, ``hypothesis`` and ``label``, a code of `EntailmentLoss`.

    Raises
    ------
    UserError
        For a missing column, an unknown label, a blank sentence, or no pair at all.
    """
    from datasets import Dataset

    source = open_source(data)
    for column in ("premise", "hypothesis", "label"):
        if column not in source.columns:
            columns = ", ".join(source.columns)
            raise UserError(f"{flag} {source.name}: no column {column!r} (found: {columns})")
    for note in source.notes:
        print_once(f"note: {note}")
    pairs: dict[str, list] = {"premise": [], "hypothesis": [], "label": []}
    class_names = source.class_names.get("label")  # of a hub data set
    for number, row in enumerate(source.read(list(pairs)), 1):
        label = row["label"]
        # A column of integers with empty cells is read as floats.
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if class_names and isinstance(label, int) and label >= 0:
            label = class_names[label]
        label = str(label).strip().lower()
        if label in _NO_GOLD_LABEL:
            continue
        code = _CODES.get(label)
        if code is None:
            raise UserError(
                f"{flag} {source.name}, row {number}: the label is {row['label']!r}; expected "
                f"{', '.join(CLASSES)}, not_entailment, or 0, 1, 2"
            )
        for column in ("premise", "hypothesis"):
            if not isinstance(row[column], str) or not row[column].strip():
                raise UserError(
                    f"{flag} {source.name}, row {number}: {column} must be text, and not blank"
                )
            pairs[column].append(row[column])
        pairs["label"].append(code)
    if not pairs["label"]:
        raise UserError(f"{flag} {source.name}: no pair has a label")
    return Dataset.from_dict(pairs)


def topic_pairs(
    texts: Sequence[str],
    labels: np.ndarray,
    label_names: Sequence[str],
    *,
    template: str,
    negatives: int,
    seed: int,
) -> Dataset:
    """Turn labelled texts into pairs: each text with one of its labels, and with labels it lacks.

    A model trained on such pairs can also score labels that it has never seen (Laurer et al. 2023,
    "Building Efficient Universal Classifiers with Natural Language Inference", section 2).

    Parameters
    ----------
    texts : sequence of str
    labels : array of shape (texts, labels)
        Multi-hot. Rows with no label, or with all labels, give no pair.
    label_names : sequence of str
        In the hypotheses, spaces replace - and _.
    template : str
        Hypothesis with {label} in place of the label.
    negatives : int
        Maximum number of hypotheses per text about labels that it lacks.
    seed : int
        Seed of the choice of labels.

    Returns
    -------
    datasets.Dataset
        With the columns and codes of `read_pairs`.
    """
    from datasets import Dataset

    rng = np.random.default_rng(seed)
    labels = np.asarray(labels, dtype=bool)
    names = [name.replace("_", " ").replace("-", " ") for name in label_names]
    pairs: dict[str, list] = {"premise": [], "hypothesis": [], "label": []}
    for text, applies in zip(texts, labels, strict=True):
        positive, negative = np.flatnonzero(applies), np.flatnonzero(~applies)
        if not len(positive) or not len(negative):
            continue
        # The negative labels are drawn first: this order is part of what a seed reproduces.
        wrong = rng.choice(negative, min(negatives, len(negative)), replace=False)
        for label in (rng.choice(positive), *wrong):
            pairs["premise"].append(text)
            pairs["hypothesis"].append(template.replace("{label}", names[label]))
            # A text without a label may contradict it or be neutral; that is not known.
            pairs["label"].append(0 if applies[label] else EntailmentLoss.NOT_ENTAILED)
    return Dataset.from_dict(pairs)


def tokenize_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Dataset) -> Dataset:
    """Tokenise pairs; one that is too long loses tokens from the longer sentence first.

    Returns
    -------
    datasets.Dataset
        With ``input_ids``, ``length``, ``labels`` and, if the tokenizer makes them,
        ``token_type_ids``.
    """

    def tokenize(batch: Mapping[str, list]) -> dict[str, list]:
        tokens = tokenizer(batch["premise"], batch["hypothesis"], truncation="longest_first")
        columns = {k: tokens[k] for k in ("input_ids", "token_type_ids") if k in tokens}
        lengths = [len(row) for row in tokens["input_ids"]]
        return columns | {"length": lengths, "labels": batch["label"]}

    forget_padding(tokenizer)  # it is part of the key of the cache
    return map_rows(pairs, tokenize, remove_columns=pairs.column_names, desc="tokenising")
