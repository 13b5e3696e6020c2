"""Texts with their labels, memory-mapped, and what was found out while reading them."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset


@dataclass(frozen=True)
class Corpus:
    """Texts, their labels, and what was found out while reading them.

    Attributes
    ----------
    dataset : memory-mapped `datasets.Dataset` of n rows in the order of the source, with columns
        `text` (string); `labels` (sorted list of ClassLabel; null: unlabelled, empty: none of the
        labels applies); `row` (int64, 1-based row in the source); `group` (int64, the same for
        near duplicates); `words` (int32, words of the text).
    report : counts of what was read, kept and left out, as plain JSON values.
    """

    dataset: Dataset
    report: dict[str, Any]

    @property
    def label_names(self) -> list[str]:
        """Name of each label id."""
        return self.dataset.features["labels"].feature.names

    @cached_property
    def labelled(self) -> np.ndarray:
        """int64 indices of the rows that have labels (or are known to have none)."""
        return self._rows(labelled=True)

    @cached_property
    def unlabelled(self) -> np.ndarray:
        """int64 indices of the rows nobody has labelled."""
        return self._rows(labelled=False)

    @property
    def one_label_each(self) -> bool:
        """Whether every labelled row has exactly one label: classes exclude each other."""
        r = self.report
        return r["multilabel"] == 0 and sum(r["labels"].values()) == r["labelled"]

    @cached_property
    def groups(self) -> np.ndarray:
        """int64 array of shape (n,): near-duplicate group of each row, for splitters."""
        return self.dataset.data["group"].to_numpy()

    @property
    def fingerprint(self) -> str:
        """Changes when the rows or the labels do, and not when their file moves or is touched."""
        digest = hashlib.blake2b(repr(self.label_names).encode(), digest_size=16)
        for column in self.dataset.data.columns:
            for chunk in column.chunks:
                for buffer in filter(None, chunk.buffers()):
                    digest.update(buffer)
        return digest.hexdigest()

    def _rows(self, labelled: bool) -> np.ndarray:
        import numpy as np

        return np.flatnonzero(self.dataset.data["labels"].is_valid().to_numpy() == labelled)

    def label_matrix(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Multi-hot labels.

        Parameters
        ----------
        rows : indices into `dataset`, in any order (default: all). Unlabelled rows come out as
            zeros, so pass `labelled` or a part of it.

        Returns
        -------
        uint8 array of shape (rows, labels).
        """
        import numpy as np
        import pyarrow.compute as pc

        labels = self.dataset.data["labels"]
        if rows is not None:
            labels = labels.take(np.asarray(rows, np.int64))
        lengths = pc.list_value_length(labels).fill_null(0).to_numpy()
        matrix = np.zeros((len(labels), len(self.label_names)), np.uint8)
        matrix[np.repeat(np.arange(len(labels)), lengths), pc.list_flatten(labels).to_numpy()] = 1
        return matrix

    def repeats(self, others: Sequence[Corpus]) -> np.ndarray:
        """Which rows have a near duplicate in other data sets: bool, shape (n,).

        What the test holds must not be trained or tuned on.
        """
        import numpy as np
        import pyarrow as pa

        from shared.duplicates import near_duplicate_groups

        if not others:
            return np.zeros(len(self.dataset), bool)
        chunks = [chunk for c in (self, *others) for chunk in c.dataset.data["text"].chunks]
        groups = near_duplicate_groups(pa.chunked_array(chunks))
        own, other = np.split(groups, [len(self.dataset)])
        return np.isin(own, other)

    def describe(self, *, brief: bool = False) -> str:
        """Summary of the report in about ten lines; brief: what was read and what left out."""
        r = self.report
        rows = ", ".join(map(str, r["first_blank_rows"]))
        rows += ", ..." if r["blank_texts"] > len(r["first_blank_rows"]) else ""
        left_out = _counts(
            {
                "pull requests": r["pull_requests"],
                f"blank texts (rows {rows})": r["blank_texts"],
                "exact duplicates": r["exact_duplicates"],
            }
        )
        conflicts = _counts(
            {"sets of exact duplicates with different labels": r["label_conflicts"]}
        )
        words, labels = r["words"], r["labels"]
        per_text = sum(labels.values()) / max(r["labelled"], 1)
        lines = [
            f"{r['source']}: {r['rows_read']:,} rows read"
            + (f"; left out: {', '.join(left_out)}" if left_out else ""),
            f"{r['rows']:,} texts: {r['labelled']:,} labelled, {r['unlabelled']:,} unlabelled "
            f"({r['unlabelled'] / r['rows']:.0%})",
            f"words per text: median {words['p50']:,.0f}, 5% at most {words['p5']:,.0f}, "
            f"95% at most {words['p95']:,.0f}, longest {words['max']:,.0f}",
            f"near duplicates: {r['near_duplicates']:,} texts in {r['near_duplicate_groups']:,} "
            "groups, each kept on one side of a split",
            *conflicts,
        ]
        if r["labelled"]:
            lines += [
                f"{len(labels)} labels, {per_text:.2f} per labelled text, two or more on "
                f"{r['multilabel']:,} texts:",
                _wrapped(labels, 20),
            ]
        if brief:
            lines = lines[:2]
        if r["labels_left_out"]:
            lines += [f"{len(r['labels_left_out'])} labels left out:"]
            lines += [_wrapped(r["labels_left_out"], 10)]
        return "\n".join(lines)


def _counts(numbers: dict[str, int]) -> list[str]:
    return [f"{name} {number:,}" for name, number in numbers.items() if number]


def _wrapped(numbers: dict[str, int], most: int) -> str:
    """The largest numbers with their names, indented, no name broken over two lines."""
    largest = dict(sorted(numbers.items(), key=lambda item: -item[1])[:most])
    items = [item.replace(" ", "\u00a0") for item in _counts(largest)]
    if len(numbers) > most:
        items.append(f"and {len(numbers) - most:,} more")
    text = textwrap.fill(
        ", ".join(items), 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return text.replace("\u00a0", " ")
