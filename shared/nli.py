"""Pairs of sentences for natural language inference: does the first entail the second?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import UserError
from shared.losses import EntailmentLoss
from shared.readers import open_source

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

CLASSES = ("entailment", "neutral", "contradiction")
_NO_GOLD = ("", "-", "-1", "none", "nan")
_CODES = {name: code for code, name in enumerate(CLASSES)} | {"0": 0, "1": 1, "2": 2}
for _word in ("not_entailment", "non-entailment", "not-entailment", "non_entailment"):
    _CODES[_word] = EntailmentLoss.NOT_ENTAILED


def read_pairs(data: str, flag: str) -> Dataset:
    """Read a file of pairs, as SNLI and MultiNLI publish them.

    Parameters
    ----------
    data : str
        A file, or the id of a hub data set, with columns ``premise``, ``hypothesis`` and ``label``:
        a name of `CLASSES`, "not_entailment", or 0, 1, 2 in the order of `CLASSES`, if the data set
        names its classes not otherwise. Pairs whose label is null, -1 or "-" have no gold label
        and are left out.
    flag : str
        Whose value `data` is, for errors.

    Returns
    -------
    datasets.Dataset
        With ``premise``, ``hypothesis`` and ``label``, a code of `EntailmentLoss`.

    Raises
    ------
    UserError
        For a missing column, another label, a blank sentence, or no pair at all.
    """
    from datasets import Dataset

    source = open_source(data)
    for column in ("premise", "hypothesis", "label"):
        if column not in source.columns:
            found = ", ".join(source.columns)
            raise UserError(f"{flag} {source.name}: no column {column!r} (found: {found})")
    pairs = {"premise": [], "hypothesis": [], "label": []}
    names = source.class_names.get("label")  # those of a hub data set
    for number, row in enumerate(source.read(list(pairs)), 1):
        label = row["label"]
        if isinstance(label, float) and label.is_integer():  # a column with gaps
            label = int(label)
        if names and isinstance(label, int) and label >= 0:
            label = names[label]
        label = str(label).strip().lower()
        if label in _NO_GOLD:
            continue
        code = _CODES.get(label)
        if code is None:
            raise UserError(
                f"{flag} {source.name}, row {number}: the label is {row['label']!r}; expected "
                f"{', '.join(CLASSES)}, not_entailment, or 0, 1, 2"
            )
        for column in ("premise", "hypothesis"):
            if not isinstance(row[column], str) or not row[column].strip():
                raise UserError(f"{flag} {source.name}, row {number}: {column} is no text")
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
    """Turn classified texts into pairs: each is about one of its labels, and not about others.

    What such pairs teach carries over to labels that were never seen (Laurer et al. 2023,
    "Building Efficient Universal Classifiers with Natural Language Inference", section 2).

    Parameters
    ----------
    texts : sequence of str
    labels : array of shape (texts, labels)
        Multi-hot; rows with no label, or with every one, give nothing.
    label_names : sequence of str
        With blanks for - and _ in the sentences.
    template : str
        With {label}.
    negatives : int
        Sentences about other labels per text, at most.
    seed : int

    Returns
    -------
    datasets.Dataset
        As `read_pairs` gives it.
    """
    from datasets import Dataset

    rng = np.random.default_rng(seed)
    labels = np.asarray(labels, dtype=bool)
    names = [name.replace("_", " ").replace("-", " ") for name in label_names]
    pairs = {"premise": [], "hypothesis": [], "label": []}
    for text, applies in zip(texts, labels, strict=True):
        own, others = np.flatnonzero(applies), np.flatnonzero(~applies)
        if not len(own) or not len(others):
            continue
        wrong = rng.choice(others, min(negatives, len(others)), replace=False)
        for label in (rng.choice(own), *wrong):
            pairs["premise"].append(text)
            pairs["hypothesis"].append(template.replace("{label}", names[label]))
            pairs["label"].append(0 if applies[label] else EntailmentLoss.NOT_ENTAILED)
    return Dataset.from_dict(pairs)


def tokenize_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Dataset) -> Dataset:
    """Tokenise pairs within the tokenizer's length, the longer sentence cut first."""

    def tokenize(batch):
        tokens = tokenizer(batch["premise"], batch["hypothesis"], truncation="longest_first")
        columns = {k: tokens[k] for k in ("input_ids", "token_type_ids") if k in tokens}
        lengths = [len(row) for row in tokens["input_ids"]]
        return columns | {"length": lengths, "labels": batch["label"]}

    return pairs.map(tokenize, batched=True, remove_columns=pairs.column_names, desc="tokenising")
