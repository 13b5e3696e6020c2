"""Labels as a source gives them, row by row, and as columns of a million rows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# What class numbers turn into when a table of floats is written as CSV.
_FRACTION = re.compile(r"nan|[+-]?\d+\.\d*", re.IGNORECASE)


def shown(value: Any) -> str:
    """A value as an error message names it."""
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    return kinds.get(type(value)) or f"{json.dumps(value, default=str)} ({type(value).__name__})"


class LabelEncoder:
    """Turns cells of the label column into codes, numbered in order of appearance."""

    def __init__(self, separator: str, class_names: list[str] | None) -> None:
        self.separator = separator
        self.class_names = class_names
        self.first_rows: list[int] = []  # row in which each code was met first
        self._codes: dict[str, int] = {}
        self._type: type | None = None

    @property
    def names(self) -> list[str]:
        """Label of each code."""
        return list(self._codes)

    def encode(self, cell: Any, row: int) -> list[int] | None:
        """Codes of the labels in a cell; None where the row is unlabelled."""
        if cell is None or (cell == -1 and self.class_names):  # -1: the hub's hidden test labels
            return None
        if isinstance(cell, str):
            if cell.startswith(("['", '["')):
                raise ValueError(
                    f"the label {cell[:40]!r} is a printed list; write the labels with "
                    f"{self.separator!r} between them (--label_separator)"
                )
            if _FRACTION.fullmatch(cell.strip()):
                raise ValueError(f"the label is {cell.strip()}; give names or whole numbers")
            items = cell.split(self.separator) if self.separator else [cell]
        else:
            items = cell if isinstance(cell, list) else [cell]
            if len(items) > 1 and type(items[0]) is int and len(set(items)) < len(items):
                raise ValueError(f"labels {str(items)[:40]} repeat; give names or ids, not 0 and 1")
        return [self._code(name, row) for item in items if (name := self._name(item))]

    def _code(self, name: str, row: int) -> int:
        code = self._codes.setdefault(name, len(self._codes))
        if code == len(self.first_rows):
            self.first_rows.append(row)
        return code

    def _name(self, item: Any) -> str:
        if isinstance(item, dict):  # GitHub's label objects
            item = item.get("name")
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise ValueError(f"the label is {shown(item)}; give names or whole numbers")
        if self._type is None:
            self._type = type(item)
        if type(item) is not self._type:
            raise ValueError(
                f"the label is {shown(item)}, those before it are not; "
                "give names throughout, or whole numbers throughout"
            )
        if isinstance(item, str):
            item = item.strip()
            if not (item and self.class_names):
                return item
            if not item.isdecimal():
                raise ValueError(f"the label is {item[:40]!r}; with class names give numbers")
            item = int(item)
        if self.class_names:
            if not 0 <= item < len(self.class_names):
                raise ValueError(f"there is no class {item} among {len(self.class_names)}")
            return self.class_names[item]
        return str(item)


@dataclass(frozen=True)
class RowLabels:
    """Labels of n rows as pairs (row, id), sorted, each pair once.

    `listed` (bool, n) tells an empty list of labels from none at all.
    """

    rows: np.ndarray
    ids: np.ndarray
    listed: np.ndarray

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> RowLabels:
        import numpy as np
        import pyarrow.compute as pc

        lengths = pc.list_value_length(column).fill_null(0).to_numpy()
        rows = np.repeat(np.arange(len(column)), lengths)
        ids = pc.list_flatten(column).to_numpy().astype(np.int64)
        return cls(rows, ids, column.is_valid().to_numpy()).renumber(
            np.arange(ids.max(initial=-1) + 1)
        )

    def renumber(self, new_ids: np.ndarray) -> RowLabels:
        """Give each id its new one; -1 removes it."""
        import numpy as np

        n_labels = new_ids.max(initial=0) + 1
        ids = new_ids[self.ids]
        pairs = np.unique((self.rows * n_labels + ids)[ids >= 0])
        return RowLabels(*np.divmod(pairs, n_labels), self.listed)

    def known(self, empty_labels: str) -> np.ndarray:
        """Which rows are labelled (bool, n)."""
        import numpy as np

        some = np.zeros(len(self.listed), bool)
        some[self.rows] = True
        return some | self.listed if empty_labels == "negative" else some

    def count(self, kept: np.ndarray, n_labels: int) -> list[int]:
        """Number of kept rows per label."""
        import numpy as np

        return np.bincount(self.ids[kept[self.rows]], minlength=n_labels).tolist()

    def to_arrow(self, known: np.ndarray) -> pa.ListArray:
        """A list of ids per row, null where not known."""
        import numpy as np
        import pyarrow as pa

        lengths = np.bincount(self.rows, minlength=len(known))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, self.ids, mask=pa.array(~known))
