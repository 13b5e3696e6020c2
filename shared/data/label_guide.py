"""The label guide: what each label means, with examples, for a person who labels texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.cli.errors import UserError
from shared.cli.files import expand_path
from shared.cli.yaml_files import read_yaml

_KEYS = ("definition", "examples")


@dataclass(frozen=True)
class GuideEntry:
    """What the guide says about a label.

    Attributes
    ----------
    definition : str
        When the label applies; may be "".
    examples : tuple of str
        Texts with the label.
    """

    definition: str = ""
    examples: tuple[str, ...] = ()


def read_label_guide(path: str) -> dict[str, GuideEntry]:
    """Read a label guide: a YAML file that maps each label to a definition and examples.

    A label may also have its definition alone, as a string, or nothing::

        bug:
          definition: Something that worked, or should work, does not.
          examples: [The tokenizer drops the last word]
        question: The author asks how to do something.
        other:

    Parameters
    ----------
    path : str
        ``~`` and environment variables are expanded.

    Returns
    -------
    dict of str to GuideEntry
        In the order of the file.

    Raises
    ------
    UserError
        If the file cannot be read or has another form; the message names the label.
    """
    try:
        content = read_yaml(expand_path(path))
    except UserError as error:
        raise UserError(f"--guide {path}: {error}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"--guide {path}: expected lines of 'label: definition'")
    return {_label(path, name): _entry(path, name, value) for name, value in content.items()}


def _label(path: str, name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"--guide {path}: {name!r} is no name of a label")
    return name.strip()


def _entry(path: str, name: str, value: Any) -> GuideEntry:
    place = f"--guide {path}, label {name!r}"
    if value is None or isinstance(value, str):
        return GuideEntry((value or "").strip())
    if not isinstance(value, dict):
        raise UserError(f"{place}: expected a definition, or {' and '.join(_KEYS)}")
    if unknown := [key for key in value if key not in _KEYS]:
        raise UserError(f"{place}: there is no {unknown[0]!r}; write {' and '.join(_KEYS)}")
    definition = value.get("definition") or ""
    if not isinstance(definition, str):
        raise UserError(f"{place}: the definition must be a text")
    examples = value.get("examples") or []
    examples = [examples] if isinstance(examples, str) else examples
    if not isinstance(examples, list) or not all(isinstance(text, str) for text in examples):
        raise UserError(
            f"{place}: the examples must be a list of texts; put quotation marks around them"
        )
    return GuideEntry(definition.strip(), tuple(text.strip() for text in examples if text.strip()))
