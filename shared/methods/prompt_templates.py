"""Templates and verbalizers of prompts: a YAML file that says how labels are asked for.

A template makes a prompt of a text. A causal language model continues it with a word for the label,
at ``{label}``; a masked language model fills in the word at ``{mask}``. The verbalizer maps each
label to its words (Schick and Schütze 2021, section 3)::

    instruction: Classify the news articles into {labels}.
    templates:
      - "Article: {text}\\nTopic: {label}"
    verbalizer:
      Sci/Tech: [technology, science]
      World: politics
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shared.cli.errors import UserError
from shared.cli.files import expand_path
from shared.cli.yaml_files import read_yaml

Slot = Literal["{label}", "{mask}"]
_KEYS = ("instruction", "templates", "verbalizer")
_PLACE = re.compile(r"\{\w*\}")


@dataclass(frozen=True)
class PromptTemplates:
    """How labels are asked for.

    Attributes
    ----------
    templates : tuple of str
        Each with ``{text}`` once, and with ``{label}`` at its end or ``{mask}`` once. Their scores
        are to be averaged.
    words : tuple of tuple of str
        The words of each label, at least one; no word stands for two labels.
    instruction : str
        Stands once before everything else; without ``{labels}``, which the first words of the
        labels have replaced. "" if there is none.
    """

    templates: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    instruction: str = ""


def read_prompt_templates(
    path: str | None, label_names: Sequence[str], slot: Slot, default: Sequence[str]
) -> PromptTemplates:
    """Read the YAML file of ``--prompts``.

    Parameters
    ----------
    path : str, optional
        Without a file, or without a key in it: the default templates, no instruction, and the names
        of the labels, with spaces instead of - and _, as words.
    label_names : sequence of str
        The labels that the verbalizer has to name, all and no others.
    slot : {"{label}", "{mask}"}
        Where a template has the word: at its end, for a causal language model, or anywhere, for a
        masked one.
    default : sequence of str
        Templates, used if the file names none.

    Raises
    ------
    UserError
        If the file cannot be read or has another form. The message names the file, the key and the
        template or label.
    """
    content: Any = {}
    if path is not None:
        try:
            content = read_yaml(expand_path(path))
        except UserError as error:
            raise UserError(f"--prompts {path}: {error}") from error
    if not isinstance(content, dict) or (path is not None and not content):
        raise UserError(f"--prompts {path}: expected the keys {', '.join(_KEYS)}")
    if unknown := [key for key in content if key not in _KEYS]:
        raise UserError(
            f"--prompts {path}: there is no key {unknown[0]!r}; there are {', '.join(_KEYS)}"
        )
    place = "--prompts" if path is None else f"--prompts {path}"
    templates = _texts(content.get("templates", list(default)), f"{place}, templates")
    for number, template in enumerate(templates, start=1):
        _check_template(template, slot, f"{place}, templates, number {number}")
    words = _words(content, label_names, f"{place}, verbalizer")
    return PromptTemplates(templates, words, _instruction(content, words, place))


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """Return one text, or a list of them, as a tuple."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise UserError(f"{place}: expected a text, or a list of texts")
    return tuple(texts)


def _check_template(template: str, slot: Slot, place: str) -> None:
    """Check that a template has its places once, no others, and the label at its end."""
    for name in ("{text}", slot):
        if (n_places := template.count(name)) != 1:
            raise UserError(f"{place}: must hold {name} once; it holds it {n_places} times")
    _check_places(template, {"{text}", slot}, place)
    if slot == "{label}" and not template.endswith(slot):
        raise UserError(f"{place}: must end with {{label}}, since the model continues the prompt")


def _check_places(text: str, places: set[str], place: str) -> None:
    if unknown := [name for name in _PLACE.findall(text) if name not in places]:
        there_are = " and ".join(sorted(places, reverse=True))
        raise UserError(f"{place}: there is no place {unknown[0]}; there are {there_are}")


def _words(content: dict, label_names: Sequence[str], place: str) -> tuple[tuple[str, ...], ...]:
    """Return the words of each label."""
    by_name = {name: name.replace("_", " ").replace("-", " ") for name in label_names}
    verbalizer: Any = content.get("verbalizer", by_name)
    if not isinstance(verbalizer, dict):
        raise UserError(f"{place}: expected lines of 'label: word' or 'label: [word, word]'")
    if missing := [name for name in label_names if name not in verbalizer]:
        raise UserError(f"{place}: the label {missing[0]!r} is missing; add its words")
    if unknown := [name for name in verbalizer if name not in by_name]:
        raise UserError(
            f"{place}: there is no label {unknown[0]!r} (there are {', '.join(label_names)})"
        )
    words = []
    label_of: dict[str, str] = {}
    for name in label_names:
        stripped = [word.strip() for word in _texts(verbalizer[name], f"{place}, label {name!r}")]
        words.append(tuple(dict.fromkeys(stripped)))
        for word in words[-1]:
            if not any(letter.isalnum() for letter in word):
                raise UserError(
                    f"{place}, label {name!r}: {word!r} has no letter or digit; give the label a "
                    "word, or rename it (--label_map)"
                )
            if (other := label_of.setdefault(word, name)) != name:
                raise UserError(
                    f"{place}: {word!r} stands for {other!r} and for {name!r}; they could not be "
                    "told apart"
                )
    return tuple(words)


def _instruction(content: dict, words: Sequence[Sequence[str]], place: str) -> str:
    """Return the instruction, in which the first words of the labels replace ``{labels}``."""
    instruction: Any = content.get("instruction", "")
    if not isinstance(instruction, str):
        raise UserError(f"{place}, instruction: expected a text")
    _check_places(instruction, {"{labels}"}, f"{place}, instruction")
    first = [group[0] for group in words]
    listed = " and ".join([", ".join(first[:-1]), first[-1]] if len(first) > 1 else first)
    return instruction.replace("{labels}", listed).strip()
