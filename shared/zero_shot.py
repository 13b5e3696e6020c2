"""Labels by their names alone: what a model makes of a text and the words for a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import UserError
from shared.readers import expand_path

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

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


def flat_phrases(phrases: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
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


def tokens_of(
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
