"""Answers of a language model as JSON: the schema to ask for, and a reader that trusts nothing.

Servers that decode under a schema return nothing but labels that exist. Others add words, fences of
code or single quotes, or invent labels: what can be read without doubt is read, and the rest is a
complaint, with which the model is asked again.
"""

from __future__ import annotations

import json
import re
from ast import literal_eval
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

_MOST_BRACKETS = 20


@dataclass(frozen=True)
class AnswerFormat:
    """One label, or several labels, as a JSON object.

    Attributes
    ----------
    label_names : tuple of str
    multilabel : bool
        Whether a text has any number of labels, also none; else it has exactly one.
    """

    label_names: tuple[str, ...]
    multilabel: bool

    @property
    def key(self) -> str:
        """The key of the object."""
        return "labels" if self.multilabel else "label"

    @property
    def instruction(self) -> str:
        """What the prompt says about the form of the answer."""
        if self.multilabel:
            return (
                'Answer with a JSON object and nothing else: {"labels": [...]}, with the names of '
                "all labels that fit, or [] if none does."
            )
        return (
            'Answer with a JSON object and nothing else: {"label": "..."}, with the name of the '
            "label that fits best."
        )

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the object, for servers that decode under one."""
        name: dict[str, Any] = {"type": "string", "enum": list(self.label_names)}
        value = {"type": "array", "items": name} if self.multilabel else name
        return {
            "type": "object",
            "properties": {self.key: value},
            "required": [self.key],
            "additionalProperties": False,
        }

    def write(self, labels: Sequence[str]) -> str:
        """Return the answer that says these labels."""
        value = list(labels) if self.multilabel else labels[0]
        return json.dumps({self.key: value}, ensure_ascii=False)

    def read(self, answer: str) -> list[int]:
        """Return the indices of the labels in an answer, each once, in the order of the labels.

        Raises
        ------
        ValueError
            If the answer cannot be read, names a label that does not exist, or has not one label
            where it must. The message is one for the model.
        """
        value = _read_value(answer)
        if isinstance(value, dict):
            if not {"label", "labels"} & value.keys():
                raise ValueError(f"The object has no key {self.key!r}.")
            value = value.get("labels", value.get("label"))
        names = value if isinstance(value, list) else [value]
        indices = sorted({self._index(name) for name in names})
        if not self.multilabel and len(indices) != 1:
            raise ValueError(f"There are {len(indices)} labels in the answer; give exactly one.")
        return indices

    def _index(self, name: Any) -> int:
        if name in self.label_names:
            return self.label_names.index(name)
        if isinstance(name, str):
            folded = [label.strip().casefold() for label in self.label_names]
            if folded.count(name.strip().casefold()) == 1:
                return folded.index(name.strip().casefold())
        shown = json.dumps(name, ensure_ascii=False)[:60]
        raise ValueError(f"There is no label {shown}.")


def _read_value(answer: str) -> Any:
    """Return the first JSON or Python value with brackets in an answer; else its words."""
    answer = answer.rpartition("</think>")[2]  # the thoughts of a reasoning model come first
    if fenced := re.search(r"```\w*\n(.*?)```", answer, re.DOTALL):
        answer = fenced[1]
    decoder = json.JSONDecoder()
    # Words with brackets may come before the object, but not many.
    for bracket in islice(re.finditer(r"[{\[]", answer), _MOST_BRACKETS):
        with suppress(ValueError, RecursionError):
            return decoder.raw_decode(answer, bracket.start())[0]
    if first := re.search(r"[{\[]", answer):
        end = max(answer.rfind("}"), answer.rfind("]")) + 1
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return literal_eval(answer[first.start() : end])
    return answer.strip().strip("\"'`.")
