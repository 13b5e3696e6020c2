"""Changed copies of training texts: which augmentations there are, and how they are applied."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.methods.model_augmentation import BackTranslation, ContextualWords
from shared.methods.word_augmentation import WORD_AUGMENTATIONS, WordFlow, WordNet, find_wordnet
from shared.models.loading import load_masked_language_model, load_tokenizer, load_translator
from shared.models.sources import resolve_model

AUGMENTATIONS = (*WORD_AUGMENTATIONS, "insert", "substitute", "back_translation")
NAMES_HELP = (
    "synonym (WordNet), swap (neighbouring words), delete (words), insert, substitute (words, by "
    "--mlm_model), back_translation (by --to_model, --from_model)"
)

# Takes texts and a generator for each; returns as many texts, each made by its generator alone.
Augmentation = Callable[[Sequence[str], Sequence[np.random.Generator]], list[str]]


@dataclass
class AugmentationArguments:
    """Flags of recipes that can augment their training texts."""

    copies: int = flag(1, "Augmented copies of each training text (default: 1).")
    augment_share: float = flag(
        0.1, "Share of the words that each augmentation changes, one word at least (default: .1)."
    )
    wordnet: str | None = flag(
        None,
        "Folder of WordNet's files for synonym (default: where WNSEARCHDIR, WNHOME or NLTK_DATA "
        "say, NLTK's downloader or Debian's package wordnet-base put them).",
    )
    mlm_model: str | None = flag(
        None, "For insert and substitute: a checkpoint with a masked-language-model head."
    )
    to_model: str | None = flag(
        None, "For back_translation: a sequence-to-sequence checkpoint into another language."
    )
    from_model: str | None = flag(None, "For back_translation: the checkpoint that leads back.")

    def __post_init__(self):
        if self.copies < 1:
            raise UserError(f"--copies {self.copies}: must be 1 or more")
        if not 0 < self.augment_share <= 1:
            raise UserError(f"--augment_share {self.augment_share}: must be above 0, at most 1")


def missing_requirement(name: str, args: AugmentationArguments) -> str:
    """Say in one line what an augmentation lacks on this machine; "" if nothing.

    Raises
    ------
    UserError
        If there is no augmentation of that name.
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
            f"{name}: name a checkpoint with a masked-language-model head by --mlm_model; "
            "recipes/domain_adaptation.py trains one"
        )
    if name == "back_translation" and None in (args.to_model, args.from_model):
        return f"{name}: name two translators, by --to_model and --from_model"
    return ""


def load_augmentations(
    names: Sequence[str], args: AugmentationArguments, *, device="cpu"
) -> list[Augmentation]:
    """Make augmentations: those of words first, in one flow, then the others in their order.

    Parameters
    ----------
    names : sequence of str
        Of `AUGMENTATIONS`.
    args : AugmentationArguments
    device : torch.device or str
        Where models go.

    Raises
    ------
    UserError
        For an unknown name, or one that lacks something; says what.
    """
    for name in names:
        if lack := missing_requirement(name, args):
            raise UserError(lack)
    found = []
    if words := [name for name in names if name in WORD_AUGMENTATIONS]:
        wordnet = WordNet(find_wordnet(args.wordnet)) if "synonym" in words else None
        found.append(WordFlow(words, args.augment_share, wordnet))
    for name in names:
        if name in ("insert", "substitute"):
            masked = _masked_language_model(args.mlm_model, device)
            found.append(ContextualWords(*masked, name, args.augment_share))
        elif name == "back_translation":
            there = _translator("to_model", args.to_model, device)
            back = _translator("from_model", args.from_model, device)
            found.append(BackTranslation(*there, *back))
    return found


@cache  # insert and substitute share it
def _masked_language_model(name, device):
    folder = resolve_model(name, "mlm_model")
    tokenizer = load_tokenizer(folder)
    return load_masked_language_model(folder, tokenizer=tokenizer).to(device), tokenizer


@cache
def _translator(flag_name, name, device):
    folder = resolve_model(name, flag_name)
    return load_translator(folder).to(device), load_tokenizer(folder)


def augmentation_table(text: str, args: AugmentationArguments, *, device="cpu", seed: int) -> str:
    """Show what each augmentation makes of a text's first sentence, or lacks, one per line."""
    sentence = re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0]
    lines = ["Augmentations", f"  {'':16}  {sentence}"]
    for name in AUGMENTATIONS:
        shown = missing_requirement(name, args)
        if not shown:
            augmentations = load_augmentations([name], args, device=device)
            (shown,) = augment([sentence], [0], augmentations, seed=seed)
        lines.append(f"  {name:16}  {shown.removeprefix(f'{name}: ')}")
    return "\n".join(lines)


def augment(
    texts: Sequence[str],
    samples: Sequence[int],
    augmentations: Sequence[Augmentation],
    *,
    seed: int,
    epoch: int = 0,
) -> list[str]:
    """Apply augmentations, one after another; row i of the result is row i of `texts`, changed.

    Parameters
    ----------
    texts : sequence of str
    samples : sequence of int
        Number of each text, 0 or more. The same (seed, epoch, sample) gives the same text, whatever
        the others are.
    augmentations : sequence
        From `load_augmentations`.
    seed, epoch : int
        0 or more.
    """
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
    """Return the texts, then so many augmented copies of all of them, and the labels of each.

    Parameters
    ----------
    texts : sequence of str
    labels : array of shape (texts, labels)
    augmentations, copies, seed : as in `augment` and `AugmentationArguments`

    Returns
    -------
    list of (1 + copies) * len(texts) str, and the labels of as many rows
    """
    repeated = list(texts) * copies
    added = augment(repeated, range(len(repeated)), augmentations, seed=seed)
    return [*texts, *added], np.tile(labels, (1 + copies, 1))
