"""The labels in a cell of a source: from what the cell holds to names.

A cell is one label, several in one string, a list, or what an annotation tool writes. What looks
like labels but is not understood is refused with a `ValueError`; nothing is learned from a guess.
"""

from __future__ import annotations

import json
import re
from ast import literal_eval
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

SEPARATORS = (",", ";", "|")  # of several labels in one string
# Also the commas of Chinese and Japanese, and one label per line.
_POSSIBLE_SEPARATORS = (*SEPARATORS, "\uff0c", "\u3001", "\n")

# Class numbers look like this once a table of floats has been written as CSV.
_FRACTION = re.compile(r"nan|[+-]?\d+\.\d*", re.IGNORECASE)
_WHOLE_FLOAT = re.compile(r"(\d+)\.0*")
# An array of strings as NumPy prints it, with or without its type.
_NUMPY_ITEM = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NUMPY_ARRAY = re.compile(rf"\[\s*{_NUMPY_ITEM}(?:\s+{_NUMPY_ITEM})*\s*\]", re.DOTALL)
_ARRAY_CALL = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^()]*)?\)", re.DOTALL)
_ZEROS_AND_ONES = re.compile(r"[01](?:\s*[,;|\uff0c\u3001\s]\s*[01])+")
# Numbers without commas are an array of NumPy; a separator inside of brackets makes a list.
_BARE_LIST = re.compile(r"\[[\d.\s]+\]$|[\[{][^\]}]*[,;|\uff0c\u3001\n]")
# Commas of numbers such as 1,000-5,000 separate nothing. In class numbers, as 1,2, they do.
_CLASS_NUMBERS = re.compile(r"[\d,\s]+")
_COMMA_OUTSIDE_NUMBERS = re.compile(r"(?<!\d),|,(?!\d)")


def is_missing(value: Any) -> bool:
    """Return whether a value is null, or the NaN that pandas writes for a missing one."""
    return value is None or (isinstance(value, float) and value != value)


def describe_value(value: Any) -> str:
    """Return the words for a value in an error message."""
    words = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    return words.get(type(value)) or f"{json.dumps(value, default=str)} ({type(value).__name__})"


def name_some(labels: Sequence[str], most: int = 10) -> str:
    """Return the first labels, and how many others there are, as text."""
    others = f", and {len(labels) - most:,} others" if len(labels) > most else ""
    return ", ".join(labels[:most]) + others


def has_labels(cell: Any) -> bool:
    """Return whether a cell of the label column names a label."""
    try:
        return bool(LabelEncoder("", None).encode(cell, 0))
    except ValueError:
        return True  # not understood, but not blank


class LabelEncoder:
    """Turn cells of the label column into codes, numbered in order of first appearance.

    Parameters
    ----------
    separator : separates several labels in one string; "" if each string is one label; None to
        find out: `split_strings` then decides when all cells have been seen.
    class_names : name of each class number; None if labels are not class numbers.
    known_names : labels that there are in any case, for this decision.
    may_be_multi_hot : whether a cell may have a 0 or 1 for each class, in place of numbers.

    Attributes
    ----------
    first_rows : for each code, the 1-based row in which it first occurred.
    multi_hot : whether cells have a 0 or 1 for each class; None: not known yet.
    """

    def __init__(
        self,
        separator: str | None,
        class_names: list[str] | None,
        known_names: Sequence[str] = (),
        *,
        may_be_multi_hot: bool = False,
    ) -> None:
        # Numbers of classes have no comma in them.
        self.separator = "," if separator is None and class_names else separator
        if separator == "\\n":  # as a shell passes it on
            self.separator = "\n"
        self.class_names = class_names
        self.known_names = known_names
        self.first_rows: list[int] = []
        self.multi_hot: bool | None = None if may_be_multi_hot else False
        self._printed = ""  # an example of a printed list
        self._fraction = ""  # an example of a whole number with a fraction
        self._codes: dict[str, int] = {}
        self._strings: set[str] = set()  # that may have to be split
        self._type: type | None = None  # type of the first label; all others must have it, too

    @property
    def names(self) -> list[str]:
        """Label of each code."""
        return list(self._codes)

    def encode(self, cell: Any, row: int) -> list[int] | None:
        """Return the codes of the labels in a cell; None if the row is unlabelled.

        Raises
        ------
        ValueError : the cell holds something other than labels.
        """
        # Hub data sets write -1 for hidden test labels.
        if is_missing(cell) or (cell == -1 and self.class_names):
            return None
        if isinstance(cell, str):
            text, cell = cell, _parse_list(cell)
            if isinstance(cell, (list, tuple, set)):
                cell, self._printed = sorted(cell), self._printed or text.strip()
        if isinstance(cell, dict) and isinstance(cell.get("choices"), list):  # Label Studio
            cell = cell["choices"]
        items: list[Any]
        if isinstance(cell, str):
            self._check_string(cell)
            items = [cell]
            if self.separator:  # the user's, which divides numbers, too
                items = list(filter(None, map(str.strip, cell.split(self.separator))))
            if self.separator is None and any(_divides(s, cell) for s in _POSSIBLE_SEPARATORS):
                self._strings.add(cell.strip())
        else:
            items = cell if isinstance(cell, list) else [cell]
            items = self._numbers_of_ones(items)
        return [self._code(name, row) for item in items if (name := self._name(item))]

    def split_strings(self) -> list[list[int]]:
        """Split the strings that hold several labels, once all cells have been encoded.

        Returns
        -------
        For each code so far, the new codes of its labels. `names`, `first_rows` and `separator` are
        those after the split.

        Raises
        ------
        ValueError : it is not clear whether strings hold several labels; or numbers with a fraction
            stand beside names.
        """
        others = [name for name in self.names if not name.isdecimal()]
        if self._fraction and others:
            raise ValueError(
                f"the label is {self._fraction} in one row and {others[0][:40]!r} in another; give "
                "names or whole numbers"
            )
        if self._strings:
            self.separator = find_separator({*self.names, *self.known_names}, self._strings)
        old = list(zip(self.names, self.first_rows, strict=True))
        self._codes, self.first_rows = {}, []
        new_codes = []
        for name, row in old:
            if self.separator and name in self._strings:
                parts = _parts(name, self.separator)
            else:
                parts = [name]
            new_codes.append([self._code(part, row) for part in parts])
        return new_codes

    def notes(self) -> list[str]:
        """Return what a user should know about the form of the labels."""
        notes = []
        if self._printed:
            notes.append(f"labels are lists in a string, such as {self._printed[:60]}")
        if self._fraction:
            notes.append(f"labels such as {self._fraction} are read as whole numbers")
        if self.multi_hot:
            notes.append("labels are a 0 or 1 for each line of --class_names")
        return [*notes, *self._separator_notes()]

    def _separator_notes(self) -> list[str]:
        """Return whether strings that could hold several labels were split."""
        if not self._strings:
            return []
        if self.separator:
            parts = (part for text in self._strings for part in _parts(text, self.separator))
            names = list(dict.fromkeys(sorted(parts)))
            more = ", ..." if len(names) > 10 else ""
            return [
                f"labels in one string are separated by {self.separator!r}: "
                f"{', '.join(names[:10])}{more} (--label_separator)"
            ]
        example = min(self._strings)
        separator = next(s for s in _POSSIBLE_SEPARATORS if _divides(s, example))
        return [
            f"labels are kept whole, such as {example!r} (--label_separator {separator!r} would "
            "split them)"
        ]

    def _check_string(self, cell: str) -> None:
        """Refuse strings that are not names or class numbers."""
        text = cell.strip()
        if _is_printed_value(text):
            raise ValueError(
                f"the label {cell[:40]!r} is a printed list or object; write a list of names as "
                'JSON, such as ["a", "b"], or names with a separator between them '
                "(--label_separator)"
            )
        if _FRACTION.fullmatch(text) and not _WHOLE_FLOAT.fullmatch(text):
            raise ValueError(f"the label is {text}; give names or whole numbers")
        if _ZEROS_AND_ONES.fullmatch(text):
            digits = re.findall("[01]", text)
            if len(set(digits)) < len(digits):
                raise _multi_hot(digits)

    def _numbers_of_ones(self, items: list[Any]) -> list[Any]:
        """Return the numbers of the classes that have a 1, if `items` is a 0 or 1 for each class.

        Other items are returned as they are.
        """
        if len(items) < 2 or type(items[0]) not in (int, bool):
            return items
        n_classes = len(self.class_names or ())
        is_multi_hot = len(items) == n_classes and set(items) <= {0, 1}
        # Numbers of classes do not repeat; a 0 or 1 for each of three classes or more does.
        if len(set(items)) == len(items) and not (is_multi_hot and self.multi_hot):
            if is_multi_hot and self.multi_hot is None:
                raise ValueError(
                    f"labels {items} may be numbers of classes, or a 0 or 1 for each class; write "
                    "names"
                )
            if self.multi_hot:
                raise ValueError(
                    f"labels {str(items)[:40]} are no 0 or 1 for each class, as in rows before"
                )
            self.multi_hot = False
            return items
        if not is_multi_hot or self.multi_hot is False:
            raise _multi_hot(items)
        self.multi_hot = True
        return [number for number, item in enumerate(items) if item]

    def _code(self, name: str, row: int) -> int:
        code = self._codes.setdefault(name, len(self._codes))
        if code == len(self.first_rows):  # a new label
            self.first_rows.append(row)
        return code

    def _name(self, item: Any) -> str:
        """Return the name of one label; "" for an empty string, which is no label."""
        if isinstance(item, dict):  # GitHub's label objects
            item = item.get("name")
        if isinstance(item, float) and item.is_integer():
            self._fraction, item = self._fraction or str(item), int(item)
        if not isinstance(item, (str, int)):
            raise ValueError(f"the label is {describe_value(item)}; give names or whole numbers")
        if self._type is None:
            self._type = type(item)
        if type(item) is not self._type:
            raise ValueError(
                f"the label is {describe_value(item)}, but the labels before it are not; "
                "use only names or only whole numbers"
            )
        if isinstance(item, bool):
            if self.class_names:
                raise ValueError("the label is true or false, no number of --class_names")
            return str(item).lower()
        if isinstance(item, str):
            item = item.strip()
            if whole := _WHOLE_FLOAT.fullmatch(item):
                self._fraction, item = self._fraction or item, whole[1]
            if not (item and self.class_names):
                return item
            if not item.isdecimal():
                raise ValueError(
                    f"the label is {item[:40]!r}; labels with class names must be whole numbers"
                )
            item = int(item)
        if self.class_names:
            if not 0 <= item < len(self.class_names):
                raise ValueError(
                    f"there is no class {item}; the {len(self.class_names)} classes are numbered "
                    "from 0"
                )
            return self.class_names[item]
        return str(item)


def find_separator(labels: Collection[str], strings: Collection[str]) -> str:
    """Return the character that separates several labels in one string; "" if there is none.

    A part that is a label of its own, or also a part of another string, shows that its string was
    several labels; parts of a name such as "Books, Music & Film" occur nowhere else.

    Parameters
    ----------
    labels : all distinct labels, the strings not yet split.
    strings : those of them that a separator divides.

    Raises
    ------
    ValueError : fewer than half of the parts occur elsewhere, but some do; or two characters could
        separate labels.
    """
    clear = []
    for separator in _POSSIBLE_SEPARATORS:
        split = [_parts(text, separator) for text in strings if _divides(separator, text)]
        parts = [part for text in split for part in text]
        whole = Counter({label: 1 for label in labels if not _divides(separator, label)})
        counts = whole + Counter(part for text in split for part in set(text))
        recurring = sum(counts[part] > 1 or part.isdecimal() for part in parts)
        if recurring and 2 * recurring >= len(parts):
            clear.append(separator)
        elif recurring:
            example = min(text for text in strings if _divides(separator, text))
            raise ValueError(
                f"labels such as {example[:60]!r} may be one label or several; give "
                f"--label_separator {separator!r} to split them there, or --label_separator '' to "
                "keep them whole"
            )
    if len(clear) > 1:
        raise ValueError(
            f"labels could be separated by {' or '.join(map(repr, clear))}; give one of them, or "
            "'', with --label_separator"
        )
    return clear[0] if clear else ""


def _parts(text: str, separator: str) -> list[str]:
    if separator == "," and not _CLASS_NUMBERS.fullmatch(text):
        items = _COMMA_OUTSIDE_NUMBERS.split(text)
    else:
        items = text.split(separator)
    return [part for item in items if (part := item.strip())]


def _divides(separator: str, text: str) -> bool:
    return separator in text and _parts(text, separator) != [text.strip()]


def _multi_hot(items: Sequence[Any]) -> ValueError:
    return ValueError(
        f"labels {str(list(items))[:40]} repeat; list the names or ids of the labels that apply; "
        "for a 0 or 1 for each label, name the labels in this order with --class_names"
    )


def _parse_list(text: str) -> Any:
    """Return the list or the object of choices that a string holds; else the string.

    The list may be JSON, or as Python or NumPy print it.
    """
    stripped = text.strip()
    if stripped.startswith(("[", "{")):
        try:
            value = json.loads(stripped)
        except (ValueError, RecursionError):
            value = None
        if _is_list_of_labels(value):
            return value
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            return value
    if not stripped.startswith(
        ("['", '["', "('", '("', "{'", '{"', "array(", "[]", "[True", "[Fal")
    ):
        return text
    if array := _ARRAY_CALL.fullmatch(stripped):
        stripped = array[1]
    try:
        # Python would join strings that have only a space between them.
        if _NUMPY_ARRAY.fullmatch(stripped):
            return [literal_eval(item) for item in re.findall(_NUMPY_ITEM, stripped, re.DOTALL)]
        value = literal_eval(stripped)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
    return value if _is_list_of_labels(value) else text


def _is_list_of_labels(value: Any) -> bool:
    return isinstance(value, (list, tuple, set)) and all(isinstance(item, str) for item in value)


def _is_printed_value(text: str) -> bool:
    """Return whether a string is a list, tuple, set or object as JSON, Python or NumPy print it."""
    if text.startswith(("['", '["', "{'", '{"', "array(")):
        return True
    if text[:1] + text[-1:] not in ("[]", "{}", "()"):
        return False
    try:
        literal_eval(text)
    except TypeError:  # a set of lists, or an object with such keys
        return True
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return _BARE_LIST.match(text) is not None  # else it is a name in brackets
    return True
