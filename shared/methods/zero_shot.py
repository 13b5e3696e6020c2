"""Zero-shot classification: phrases for labels, entailment pairs, and the scores of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from shared.cli.errors import UserError
from shared.data.readers import expand_path, open_source
from shared.training.losses import EntailmentLoss

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


# --- phrases and scores --------------------------------------------------------------------------


ENOUGH_TEXTS = 20  # to tell what a label's name attracts from any text


def label_phrases(label_names: Sequence[str], descriptions: str | None) -> list[list[str]]:
    """Return what each label is called in a sentence: one phrase or several.

    Parameters
    ----------
    label_names : sequence of str
        A label without a description is called by its name, with blanks for - and _.
    descriptions : str, optional
        YAML file: label to phrase, or to a list of phrases.

    Raises
    ------
    UserError
        For no labels, a name without a letter or digit, or a file that is not as described.
    """
    import yaml

    if not label_names:
        raise UserError("there are no candidate labels; name them with --candidate_labels")
    given = {}
    if descriptions is not None:
        try:
            given = yaml.safe_load(expand_path(descriptions).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"--descriptions {descriptions}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"--descriptions {descriptions}: not valid YAML: {reason}") from error
        if not isinstance(given, dict):
            raise UserError(f"--descriptions {descriptions}: expected lines of 'label: phrase'")
        if unknown := [str(name) for name in given if str(name) not in label_names]:
            raise UserError(
                f"--descriptions {descriptions}: there is no label {unknown[0]!r} "
                f"(there are {', '.join(label_names)})"
            )
    given = {str(name): value for name, value in given.items()}
    phrases = []
    for name in label_names:
        value = given.get(name, name.replace("_", " ").replace("-", " "))
        several = value if isinstance(value, list) else [value]
        for phrase in several or [""]:
            if not isinstance(phrase, str) or not any(letter.isalnum() for letter in phrase):
                raise UserError(
                    f"label {name!r}: {phrase!r} says nothing; describe the label in a YAML file "
                    "(--descriptions) or rename it (--label_map)"
                )
        phrases.append(several)
    return phrases


def flatten_phrases(phrases: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Return all phrases of `label_phrases` in one list, and the label of each, (phrases,)."""
    owners = np.repeat(np.arange(len(phrases)), [len(several) for several in phrases])
    return [phrase for several in phrases for phrase in several], owners


def check_templates(templates: Sequence[str], slot: str) -> None:
    """Refuse a template without its slot, "{label}" or "{mask}", or with another one."""
    for template in templates:
        rest = template.replace(slot, "")
        if template.count(slot) != 1 or "{" in rest or "}" in rest:
            raise UserError(f"--templates {template!r}: must hold {slot} once, and no other braces")


def check_lengths(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]) -> None:
    """Refuse a sentence that leaves no room for a text beside it."""
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add(pair=True)
    for sentence in sentences:
        if len(tokenizer.encode(sentence, add_special_tokens=False)) >= room:
            raise UserError(
                f"{sentence!r} leaves no room for a text within --max_length "
                f"{tokenizer.model_max_length}"
            )


def tokenize_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    sentences: Sequence[str] | None = None,
) -> Dataset:
    """Tokenise texts, each with each sentence: (text 0, sentence 0), (text 0, sentence 1), ...

    A pair that is too long for the model loses the end of the text, never of the sentence.

    Returns
    -------
    datasets.Dataset
        With ``input_ids``, ``length`` and, if the tokenizer makes them, ``token_type_ids``.
    """
    from datasets import Dataset

    if sentences is None:
        tokens = tokenizer(list(texts), truncation=True)
    else:
        firsts = [text for text in texts for _ in sentences]
        tokens = tokenizer(firsts, list(sentences) * len(texts), truncation="only_first")
    columns = {name: tokens[name] for name in ("input_ids", "token_type_ids") if name in tokens}
    lengths = [len(row) for row in tokens["input_ids"]]
    return Dataset.from_dict(columns | {"length": lengths})


def entailment_classes(config: PreTrainedConfig) -> tuple[int, int]:
    """Return which class of a model means entailment, and which contradiction, by ``id2label``.

    Raises
    ------
    UserError
        If no class is called entailment.
    """
    names = [config.id2label[i].lower() for i in range(config.num_labels)]
    yes = [i for i, name in enumerate(names) if name.startswith("entail")]
    if not yes or len(names) < 2:
        raise UserError(
            f"the model's classes are {', '.join(names)}; --method nli needs a model for natural "
            "language inference, with a class entailment"
        )
    # Where none is called so, it is the one at the other end, as the pipeline takes it.
    no = [i for i, name in enumerate(names) if name.startswith("contradict")]
    no = no[0] if no else (-1 if yes[0] == 0 else 0)
    return yes[0], no


def entailment_scores(logits: np.ndarray, classes: tuple[int, int]) -> np.ndarray:
    """Probability that the first text of a pair entails the second.

    Between entailment and contradiction alone, as in the zero-shot pipeline of transformers with
    ``multi_label=True`` (Yin, Hay and Roth 2019, "Benchmarking Zero-shot Text Classification").

    Parameters
    ----------
    logits : array of shape (pairs, classes)
        Of a model for natural language inference.
    classes : (int, int)
        From `entailment_classes`.

    Returns
    -------
    float64 array of shape (pairs,)
    """
    entailment, contradiction = classes
    difference = np.asarray(logits[:, contradiction] - logits[:, entailment], dtype=np.float64)
    return 1 / (1 + np.exp(difference))


def calibrate(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Take from each label's scores what its name attracts from any text.

    Names differ in how readily a model says yes to them, whatever the text. On the logit scale each
    label's mean over texts is set to zero, so that 0.5 means "more than from most texts" (Zhou et
    al. 2024, "Batch Calibration", section 3).

    Parameters
    ----------
    scores : array of shape (texts, labels)
        Probabilities.
    reference : array of shape (other texts, labels)
        Scores of the texts that the mean is taken over; their labels need not be known. A mean over
        fewer than 20 is none: scores stay as they are.
    """
    if len(reference) < ENOUGH_TEXTS:
        return scores

    def logit(p):
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return np.log(p) - np.log1p(-p)

    return 1 / (1 + np.exp(logit(reference).mean(axis=0) - logit(scores)))


# --- pairs of sentences --------------------------------------------------------------------------


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


# --- words in a gap ------------------------------------------------------------------------------


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
