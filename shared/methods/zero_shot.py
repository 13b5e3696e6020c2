"""Zero-shot classification: sentences about labels, and how well they fit a text.

In the order of use: labels become phrases, phrases in templates become sentences, texts are
tokenised with the sentences, and a model's output becomes scores, which can be calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shared.cli.errors import UserError
from shared.cli.files import expand_path
from shared.cli.launch import print_once, progress
from shared.cli.yaml_files import read_yaml
from shared.evaluation.decisions import softmax
from shared.methods.embeddings import normalized
from shared.methods.mean_pooling import MeanPooling
from shared.models.lengths import limit_length
from shared.models.loading import (
    load_encoder,
    load_masked_language_model,
    load_sequence_classifier,
    load_tokenizer,
)
from shared.models.tokenizers import tokenize_texts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase, Trainer


# --- phrases for labels --------------------------------------------------------------------------


def label_phrases(label_names: Sequence[str], descriptions: str | None) -> list[list[str]]:
    """Return one or several phrases that stand for each label in a sentence.

    Parameters
    ----------
    label_names : sequence of str
        The phrase of a label without a description is its name, with spaces instead of - and _.
    descriptions : str, optional
        YAML file that maps labels to a phrase or to a list of phrases.

    Raises
    ------
    UserError
        For no labels, a name without a letter or digit, or a file in another form.
    """
    if not label_names:
        raise UserError("there are no candidate labels; name them with --candidate_labels")
    described = {} if descriptions is None else _read_descriptions(descriptions, label_names)
    phrases = []
    for name in label_names:
        value = described.get(name, name.replace("_", " ").replace("-", " "))
        phrases_of_label = value if isinstance(value, list) else [value]
        for phrase in phrases_of_label or [""]:  # an empty list is refused like an empty phrase
            if not isinstance(phrase, str) or not any(letter.isalnum() for letter in phrase):
                raise UserError(
                    f"label {name!r}: {phrase!r} is not a phrase with letters or digits; describe "
                    "the label in a YAML file (--descriptions) or rename it (--label_map)"
                )
        phrases.append(phrases_of_label)
    return phrases


def _read_descriptions(path: str, label_names: Sequence[str]) -> dict[str, Any]:
    """Read the YAML file of --descriptions; check that its keys are labels."""
    try:
        described = read_yaml(expand_path(path))
    except UserError as error:
        raise UserError(f"--descriptions {path}: {error}") from error
    if not isinstance(described, dict):
        raise UserError(f"--descriptions {path}: expected lines of 'label: phrase'")
    if unknown := [name for name in described if name not in label_names]:
        raise UserError(
            f"--descriptions {path}: there is no label {unknown[0]!r} "
            f"(there are {', '.join(label_names)})"
        )
    return described


def flatten_phrases(phrases: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Return all phrases of `label_phrases` in one list, and the label of each, (phrases,)."""
    owners = np.repeat(np.arange(len(phrases)), [len(group) for group in phrases])
    return [phrase for group in phrases for phrase in group], owners


# --- sentences and texts as input ----------------------------------------------------------------


def check_templates(templates: Sequence[str], slot: str) -> None:
    """Check that each template has its slot, "{label}" or "{mask}", once and no other braces."""
    for template in templates:
        rest = template.replace(slot, "")
        if template.count(slot) != 1 or "{" in rest or "}" in rest:
            raise UserError(f"--templates {template!r}: must hold {slot} once, and no other braces")


def check_lengths(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]) -> None:
    """Check that each sentence leaves room for a text within the tokenizer's maximum length."""
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add(pair=True)
    for sentence in sentences:
        if len(tokenizer.encode(sentence, add_special_tokens=False)) >= room:
            raise UserError(
                f"{sentence!r} leaves no room for a text within --max_length "
                f"{tokenizer.model_max_length}"
            )


# --- scores from a model for natural language inference ------------------------------------------


def entailment_classes(config: PreTrainedConfig) -> tuple[int, int]:
    """Return the ids of a model's classes entailment and contradiction, found by ``id2label``.

    Raises
    ------
    UserError
        If the model has no class whose name begins with "entail", or only one class.
    """
    names = [config.id2label[i].lower() for i in range(config.num_labels)]
    entailment = [i for i, name in enumerate(names) if name.startswith("entail")]
    if not entailment or len(names) < 2:
        raise UserError(
            f"the model's classes are {', '.join(names)}; --method nli needs a model for natural "
            "language inference, with a class entailment"
        )
    contradiction = [i for i, name in enumerate(names) if name.startswith("contradict")]
    if contradiction:
        return entailment[0], contradiction[0]
    # No class has that name: take the class at the other end, as transformers' pipeline does.
    return entailment[0], -1 if entailment[0] == 0 else 0


def entailment_scores(logits: np.ndarray, classes: tuple[int, int]) -> np.ndarray:
    """Return the probability that the first text of a pair entails the second.

    A softmax over entailment and contradiction only, as in the zero-shot pipeline of transformers
    with ``multi_label=True`` (Yin, Hay and Roth 2019, "Benchmarking Zero-shot Text
    Classification").

    Parameters
    ----------
    logits : array of shape (pairs, classes)
        From a model for natural language inference.
    classes : (int, int)
        From `entailment_classes`.

    Returns
    -------
    float64 array of shape (pairs,)
    """
    entailment, contradiction = classes
    # A softmax over two classes is the sigmoid of the difference of their logits.
    difference = np.asarray(logits[:, contradiction] - logits[:, entailment], dtype=np.float64)
    return 1 / (1 + np.exp(difference))


# --- scores from a masked language model ---------------------------------------------------------


class MaskedWords(torch.nn.Module):
    """A masked language model that outputs the log-probability of given words at the mask.

    `trainer.predict` returns them as ``predictions``, of shape (rows, words): Schick and Schütze
    2021, "Exploiting Cloze Questions for Few Shot Text Classification", section 3.1. The value of a
    word that the vocabulary has only in pieces is the mean over its pieces.

    Parameters
    ----------
    model : PreTrainedModel
        From `shared.models.load_masked_language_model`.
    tokenizer : PreTrainedTokenizerBase
    words : sequence of str
    """

    ids: torch.Tensor
    mean: torch.Tensor

    def __init__(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, words: Sequence[str]
    ):
        super().__init__()
        self.model = model
        self.mask_id = tokenizer.mask_token_id
        # The space before the word matters: byte-level vocabularies have different tokens for the
        # start of a word and for its inside.
        pieces = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
        # All pieces of all words in one list, and a matrix (words, pieces) that takes the means.
        owners = [word for word, ids in enumerate(pieces) for _ in ids]
        self.register_buffer("ids", torch.tensor([i for ids in pieces for i in ids]))
        mean = torch.zeros(len(pieces), len(owners))
        mean[owners, torch.arange(len(owners))] = 1.0
        self.register_buffer("mean", mean / mean.sum(1, keepdim=True))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Score rows of shape (rows, length), each with a mask token in its last sentence."""
        # Some models do not accept token types, so they are passed only if they are given.
        pair = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, **pair).logits
        # The last mask of a row belongs to the sentence; the text may hold others. The cumulative
        # sum first reaches its maximum at the last mask.
        last = (input_ids == self.mask_id).cumsum(dim=1).argmax(dim=1)
        at_mask = logits[torch.arange(len(logits)), last].float().log_softmax(-1)
        # Autocast would round the result of the product, numbers near -10, to steps of 1/16.
        with torch.autocast(logits.device.type, enabled=False):
            return {"logits": at_mask[:, self.ids] @ self.mean.T}


# --- models of the methods -----------------------------------------------------------------------


def load_scoring_model(
    method: str,
    source: str,
    phrases: Sequence[str],
    max_length: int,
    text_prefix: str | None = None,
) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Load the model of a method, as `SentenceScorer` needs it, and its tokenizer.

    Parameters
    ----------
    method : {"nli", "fill_mask", "embedding"}
    source : str
        From `shared.models.resolve_model`.
    phrases : sequence of str
        The words of "fill_mask"; else not used.
    max_length : int
        Tokens of a text and its sentence together.
    text_prefix : str, optional
        As in `shared.models.load_tokenizer`, for "embedding".

    Raises
    ------
    UserError
        If the model has no head for the method.
    """
    tokenizer = load_tokenizer(source, text_prefix)
    model: Any
    if method == "nli":
        model = base = load_sequence_classifier(source, tokenizer=tokenizer)
    elif method == "fill_mask":
        base = load_masked_language_model(source, tokenizer=tokenizer)
        model = MaskedWords(base, tokenizer, phrases)
    else:
        base = load_encoder(source, tokenizer=tokenizer)
        model = MeanPooling(base)
    limit_length(tokenizer, base, max_length)
    return model, tokenizer


# --- calibration ---------------------------------------------------------------------------------


ENOUGH_TEXTS = 20  # minimum number of texts for an estimate of a label's mean score
# Chosen on development sets, see "Without labels" in recipes/FIGURES.md.
STRENGTH = 0.5  # part of a label's mean score that calibration takes away
CROWDED = 0.6  # share of the texts above which a best label is doubtful; true shares are smaller


@dataclass(frozen=True)
class Calibration:
    """A shift of each label's scores, and a scale for all of them, in logits.

    A model gives some label names high scores for any text. Batch calibration (Zhou et al. 2024,
    section 3) takes away each label's mean score over many texts, as if all labels were equally
    frequent. Here half of it is taken away: the mean does not tell a name that attracts any text
    from a label that many texts have.

    Attributes
    ----------
    offsets : array of shape (labels,), or (1,) for all labels
        What is subtracted from the logits.
    spread : float
        What the logits are divided by then.
    """

    offsets: np.ndarray = field(default_factory=lambda: np.zeros(1))
    spread: float = 1.0

    @classmethod
    def of(
        cls, reference: np.ndarray, *, shift: bool = True, standardize: bool = False
    ) -> Calibration:
        """Estimate a calibration from scores; the labels of the texts need not be known.

        Parameters
        ----------
        reference : array of shape (texts, labels)
            Probabilities.
        shift : bool
            Shift the labels against each other. With fewer than 20 texts, the mean score of a label
            is not reliable, and they stay as they are.
        standardize : bool
            Divide the logits by their standard deviation among the labels of a text, and centre
            them at zero, so that the scores of several methods can be averaged.
        """
        logits = _logit(reference)
        means = logits.mean(axis=0)
        shift = shift and len(logits) >= ENOUGH_TEXTS
        if not shift and not standardize:
            return cls()
        offsets = means.mean() + STRENGTH * shift * (means - means.mean())
        if not standardize:
            return cls(offsets)
        shifted = logits - offsets
        spread = float((shifted - shifted.mean(axis=1, keepdims=True)).std())
        return cls(offsets, spread or 1.0)  # one label has no spread

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Return the calibrated scores, from 0 to 1: (texts, labels)."""
        return 1 / (1 + np.exp((self.offsets - _logit(scores)) / self.spread))


@dataclass(frozen=True)
class CalibratedMean:
    """The mean of the calibrated scores of one or several methods.

    Attributes
    ----------
    calibrations : list of Calibration
        Of each method.
    weights : list of float
        Of each method; their sum is 1.
    """

    calibrations: list[Calibration]
    weights: list[float]

    @classmethod
    def of(cls, reference: Sequence[np.ndarray], *, shift: bool = True) -> CalibratedMean:
        """Calibrate and weigh methods by their scores; the labels of the texts need not be known.

        A method that fits the labels sets the best label of a text apart from the second, and its
        scores depend on the text more than on the label alone. The weight is d⁴ r², with the mean
        distance d between the best two labels of a text, in standardised logits, and the share r of
        the variance between labels that is within labels, before calibration. With fewer than 20
        texts, methods have the same weight.

        Parameters
        ----------
        reference : for each method, an array of shape (texts, labels)
            Probabilities.
        shift : bool
            See `Calibration.of`.
        """
        several = len(reference) > 1
        calibrations = [Calibration.of(s, shift=shift, standardize=several) for s in reference]
        weights = np.ones(len(reference))
        n_texts, n_labels = reference[0].shape
        if several and n_texts >= ENOUGH_TEXTS and n_labels > 1:
            pairs = zip(calibrations, reference, strict=True)
            weights = np.array([_trust(_logit(s), _logit(c(s))) for c, s in pairs])
        return cls(calibrations, (weights / weights.sum()).tolist())

    def __call__(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean of the calibrated scores of all methods: (texts, labels)."""
        pairs = zip(self.calibrations, scores, strict=True)
        return np.average([c(values) for c, values in pairs], axis=0, weights=self.weights)


def _trust(raw: np.ndarray, standardized: np.ndarray) -> float:
    """Return the weight of a method, from its logits of shape (texts, labels)."""
    among_labels = raw - raw.mean(axis=1, keepdims=True)
    of_label = among_labels.mean(axis=0).var()
    of_text = among_labels.var(axis=0).mean()
    best_two = np.sort(standardized, axis=1)[:, -2:]
    distance = np.ptp(best_two, axis=1).mean()
    share = of_text / max(of_text + of_label, 1e-12)  # the same score for all labels: 0
    return float(max(distance**4 * share**2, 1e-12))


def note_crowding(scores: np.ndarray, label_names: Sequence[str]) -> None:
    """Print a note if one of three or more labels is the best label of too many texts.

    Parameters
    ----------
    scores : array of shape (texts, labels)
    label_names : sequence of str
    """
    if len(scores) < ENOUGH_TEXTS or len(label_names) < 3:
        return
    shares = np.bincount(scores.argmax(axis=1)) / len(scores)
    if shares.max() > CROWDED:
        print_once(
            f"note: {label_names[int(shares.argmax())]!r} is the best label of {shares.max():.0%} "
            "of the texts; unless most texts have it, say what the labels mean (--descriptions)"
        )


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-12, 1 - 1e-12)  # the logits of 0 and 1 are infinite
    return np.log(p) - np.log1p(-p)


# --- from texts to scores ------------------------------------------------------------------------


class SentenceScorer:
    """Scores the labels of texts by sentences about the labels.

    Parameters
    ----------
    method : {"nli", "fill_mask", "embedding"}
        What the Trainer's model is: a classifier of sentence pairs, `MaskedWords`, or
        `shared.methods.embeddings.MeanPooling`.
    trainer : Trainer
    tokenizer : PreTrainedTokenizerBase
    sentences : sequence of str
        For "fill_mask", one for each template; `label_of` then names the labels of its words.
    label_of : int array
        The label of each column that the model scores: of each sentence, or, for "fill_mask", of
        each word in each sentence.
    block_size : int
        Rows scored at once; limits the memory.

    Raises
    ------
    UserError
        If a sentence leaves no room for a text, or, for "nli", if the model does not know the class
        entailment.
    """

    def __init__(
        self,
        method: str,
        trainer: Trainer,
        tokenizer: PreTrainedTokenizerBase,
        sentences: Sequence[str],
        label_of: np.ndarray,
        block_size: int = 10_000,
    ):
        check_lengths(tokenizer, sentences)
        self.method, self.trainer, self.tokenizer = method, trainer, tokenizer
        self.sentences, self.label_of, self.block_size = sentences, label_of, block_size
        if method == "nli":
            self._classes = entailment_classes(trainer.model.config)
        elif method == "embedding":
            self._label_vectors = normalized(self._predict(sentences))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return scores from 0 to 1, not calibrated: (texts, labels).

        The score of a label is the mean over its sentences.
        """
        step = max(1, self.block_size // len(self.sentences))
        starts = progress(range(0, len(texts), step), "scoring", unit="blocks")
        parts = [np.zeros((0, len(self.label_of)))]  # so that no texts give no rows
        scores = np.concatenate(parts + [self._score(texts[i : i + step]) for i in starts])
        labels = range(self.label_of.max() + 1)
        return np.stack([scores[:, self.label_of == i].mean(axis=1) for i in labels], axis=1)

    def _score(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of each column of the model: (texts, columns)."""
        if self.method == "embedding":
            return (1 + normalized(self._predict(texts)) @ self._label_vectors.T) / 2
        logits = self._predict(texts, self.sentences)
        if self.method == "nli":
            scores = entailment_scores(logits, self._classes)
        else:
            scores = softmax(logits)
        return scores.reshape(len(texts), -1)

    def _predict(self, texts: Sequence[str], *sentences: Sequence[str]) -> np.ndarray:
        return self.trainer.predict(tokenize_texts(self.tokenizer, texts, *sentences)).predictions
