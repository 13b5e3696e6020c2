"""The labels of all rows of a source as arrays, and how those of exact duplicates fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class RowLabels:
    """Labels of n rows as pairs (row, label id).

    Attributes
    ----------
    rows, ids : int64 arrays with one entry per pair: 0-based row and label id. Pairs are sorted by
        row, then by id; each occurs once.
    listed : bool array of shape (n,): whether the row has a list of labels in the source. The list
        may be empty; a row without any list is unlabelled.
    """

    rows: np.ndarray
    ids: np.ndarray
    listed: np.ndarray

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> RowLabels:
        """Return the labels in an Arrow column of lists of ids; null: no list."""
        import numpy as np
        import pyarrow.compute as pc

        lengths = pc.list_value_length(column).fill_null(0).to_numpy()
        rows = np.repeat(np.arange(len(column)), lengths)
        ids = pc.list_flatten(column).to_numpy().astype(np.int64)
        row_labels = cls(rows, ids, column.is_valid().to_numpy())
        # Renumbering each id to itself sorts the pairs and removes repeated ones.
        return row_labels.renumber(np.arange(ids.max(initial=-1) + 1))

    def split(self, parts: Sequence[Sequence[int]]) -> RowLabels:
        """Replace each id i by the ids in ``parts[i]``."""
        import numpy as np

        lengths = np.array([len(ids) for ids in parts], np.int64)
        starts = np.cumsum(lengths) - lengths
        repeats = lengths[self.ids]
        # Position of each new pair within the parts of its old one.
        within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        flat = np.array([i for ids in parts for i in ids], np.int64)
        ids = flat[np.repeat(starts[self.ids], repeats) + within]
        row_labels = RowLabels(np.repeat(self.rows, repeats), ids, self.listed)
        return row_labels.renumber(np.arange(len(flat)))

    def join(self, first: np.ndarray) -> RowLabels:
        """Give the labels of each row to the row ``first[row]``, which has them in addition."""
        import numpy as np

        listed = np.zeros_like(self.listed)
        listed[first[self.listed]] = True
        row_labels = RowLabels(first[self.rows], self.ids, listed)
        return row_labels.renumber(np.arange(self.ids.max(initial=-1) + 1))

    def vote(self, first: np.ndarray, annotators: np.ndarray) -> Vote:
        """Give the row ``first[row]`` the labels that most annotators of its text gave.

        Parameters
        ----------
        first : int64 array of shape (n,), from `first_of_duplicates`.
        annotators : int64 array of shape (n,): who gave the labels of each row. Rows of a text by
            the same annotator count once, with the labels of all of them.
        """
        import numpy as np

        n = len(self.listed)
        # Each (text, annotator) as one number; a text has as many voters as it has of them.
        n_annotators = int(annotators.max(initial=0)) + 1
        voters = np.unique((first * n_annotators + annotators)[self.listed])
        n_voters = np.bincount(voters // n_annotators, minlength=n)
        n_labels = int(self.ids.max(initial=0)) + 1
        ballots = np.unique(
            np.stack([(first * n_annotators + annotators)[self.rows], self.ids]), axis=1
        )
        pairs, votes = np.unique(
            ballots[0] // n_annotators * n_labels + ballots[1], return_counts=True
        )
        rows, ids = np.divmod(pairs, n_labels)
        wins = 2 * votes > n_voters[rows]
        has_winner, has_vote = np.zeros(n, bool), np.zeros(n, bool)
        has_winner[rows[wins]], has_vote[rows] = True, True
        several = n_voters > 1
        undecided = several & has_vote & ~has_winner
        unanimous = several.copy()
        unanimous[rows[votes < n_voters[rows]]] = False
        labels = RowLabels(rows[wins], ids[wins], (n_voters > 0) & ~undecided)
        return Vote(labels, int(several.sum()), int(unanimous.sum()), int(undecided.sum()))

    def renumber(self, new_ids: np.ndarray) -> RowLabels:
        """Replace each id i by `new_ids[i]`; -1 removes the label.

        Two ids may become the same one. `listed` does not change, so that a row whose labels are
        all removed has an empty list.
        """
        import numpy as np

        n_labels = new_ids.max(initial=0) + 1
        ids = new_ids[self.ids]
        # Each pair as one number, row * n_labels + id: np.unique then sorts the pairs by row and id
        # and removes those that occur twice, and divmod turns the numbers back into pairs.
        pairs = np.unique((self.rows * n_labels + ids)[ids >= 0])
        return RowLabels(*np.divmod(pairs, n_labels), self.listed)

    def known(self, empty_labels: str) -> np.ndarray:
        """Return which rows count as labelled (bool, n).

        Rows with a label always do. Rows with an empty list do if `empty_labels` is "negative":
        none of the labels applies to them. Rows without a list never do.
        """
        import numpy as np

        has_label = np.zeros(len(self.listed), bool)
        has_label[self.rows] = True
        return has_label | self.listed if empty_labels == "negative" else has_label

    def count(self, kept: np.ndarray, n_labels: int) -> list[int]:
        """Return the number of kept rows (bool, n) per label."""
        import numpy as np

        return np.bincount(self.ids[kept[self.rows]], minlength=n_labels).tolist()

    def to_arrow(self, known: np.ndarray) -> pa.ListArray:
        """Return a list of ids per row; null where `known` (bool, n) is false."""
        import numpy as np
        import pyarrow as pa

        # The ids are sorted by row: the list of row i is ids[offsets[i]:offsets[i + 1]].
        lengths = np.bincount(self.rows, minlength=len(known))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, self.ids, mask=pa.array(~known))


@dataclass(frozen=True)
class Vote:
    """The labels that most annotators gave, and how much they agreed.

    Attributes
    ----------
    labels : labels of the n rows; only one row of each text has any.
    several : number of texts with several annotators.
    unanimous : number of these whose annotators all gave the same labels.
    undecided : number of these without a label that more than half of their annotators gave; they
        are unlabelled.
    """

    labels: RowLabels
    several: int
    unanimous: int
    undecided: int


# --- exact duplicates ----------------------------------------------------------------------------


def first_of_duplicates(keys: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Return the row to keep of each set of exact duplicates: the first of the highest priority.

    Parameters
    ----------
    keys : uint64 array of shape (n,); rows with the same key are duplicates.
    priority : int array of shape (n,), such as 1 for labelled rows and 0 for others.

    Returns
    -------
    int64 array of shape (n,) : the kept row of the set that each row belongs to.
    """
    import numpy as np

    # Sort by key, within a key the highest priority first. The sort is stable, so that rows which
    # agree in both stay in the order of the source, and the row to keep is the first with its key.
    order = np.lexsort((-priority, keys))
    is_first = np.ones(len(keys), bool)  # whether a row in sorted order is the first with its key
    is_first[1:] = keys[order][1:] != keys[order][:-1]
    duplicate_set = np.cumsum(is_first) - 1  # number of the set, per row in sorted order
    first = np.empty(len(keys), np.int64)
    first[order] = order[is_first][duplicate_set]
    return first


def count_conflicts(first: np.ndarray, labels: RowLabels, labelled: np.ndarray) -> int:
    """Return the number of sets of duplicates in which two labelled rows have different labels."""
    import numpy as np

    # Compare sets of labels by one number each: give every label a random 64-bit number and add
    # those of a row (modulo 2^64). Equal sets have equal sums; different sets have, in practice,
    # different sums.
    label_numbers = np.random.default_rng(0).integers(
        2**64, size=labels.ids.max(initial=0) + 1, dtype=np.uint64
    )
    label_sums = np.zeros(len(first), np.uint64)
    np.add.at(label_sums, labels.rows, label_numbers[labels.ids])
    # A labelled row conflicts if its sum differs from that of the kept row of its set. If the set
    # has a labelled row, the kept row is labelled, too.
    return len(np.unique(first[labelled & (label_sums != label_sums[first])]))


# In a table with one row per text and label, at least this share of the labelled texts have several
# labels.
LONG_TABLE_SHARE = 0.05


def is_long_table(first: np.ndarray, labels: RowLabels) -> bool:
    """Return whether the source has one row per text and label ("long format").

    Each row then has one label, and most duplicates of a text add one. Where annotators disagree,
    or texts were collected twice, most of them repeat one.

    Parameters
    ----------
    first : int64 array of shape (n,), from `first_of_duplicates`.
    labels : labels of the n rows.
    """
    import numpy as np

    if not len(labels.rows) or np.bincount(labels.rows).max() > 1:
        return False
    rows_per_set = np.bincount(first[labels.rows])
    labels_per_set = np.bincount(labels.join(first).rows, minlength=len(rows_per_set))
    n_texts = (rows_per_set > 0).sum()
    # One pair alone may as well be a mistake in the labels.
    often = (labels_per_set > 1).sum() >= max(LONG_TABLE_SHARE * n_texts, 2)
    added, repeated = labels_per_set.sum() - n_texts, (rows_per_set - labels_per_set).sum()
    return bool(often and added > repeated)
