"""Classification by vote of the k nearest neighbours, and F1 for all k at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from shared.cli.errors import UserError

if TYPE_CHECKING:
    import faiss

# Rows processed at a time: bounds the memory for any number of rows.
_BLOCK = 1024
# Breaks ties between labels with the same number of votes: a label loses up to this part of a vote.
# It is below one vote, so that it never changes the order of labels with different votes.
_TIE_BREAK = 0.01

IndexType = Literal["flat", "ivf", "hnsw"]


# --- lookup --------------------------------------------------------------------------------------


class NearestNeighbours:
    """Labelled vectors in a FAISS index, and labels by vote of the nearest vectors.

    The score of a text for a label is the share of its k nearest neighbours that have the label.
    "Natural Language Processing with Transformers", chapter 9 (embeddings as a lookup table).

    Parameters
    ----------
    vectors : array of shape (rows, width), float32
        Of length one, so that the inner product is the cosine; see
        `shared.methods.embeddings.normalized`.
    labels : array of shape (rows, labels)
        Multi-hot.
    index_type : {"flat", "ivf", "hnsw"}
        flat: the search compares all vectors and is exact. ivf: the vectors are divided into about
        √rows clusters by k-means, and a search reads the nearest sixteenth of them (Jégou et al.
        2011, "Product Quantization for Nearest Neighbor Search", section IV, without the
        quantization of the vectors). hnsw: the search follows a graph of 32 neighbours per vector
        (Malkov and Yashunin 2020, "Efficient and robust approximate nearest neighbor search using
        Hierarchical Navigable Small World graphs").
    """

    index: faiss.Index

    def __init__(self, vectors: np.ndarray, labels: np.ndarray, index_type: IndexType = "flat"):
        self.labels = np.asarray(labels, dtype=np.uint8)
        self.index_type = index_type
        self.index = _build_index(np.ascontiguousarray(vectors, dtype=np.float32), index_type)

    def search(self, vectors: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of the k nearest neighbours of each vector: int64, (vectors, k).

        Raises
        ------
        UserError
            If k is below 1, or the index holds fewer than k rows.
        """
        if not 1 <= k <= self.index.ntotal:
            raise UserError(f"k = {k}: must be 1 to {self.index.ntotal}, the rows of the index")
        import faiss

        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        rows = self.index.search(vectors, k)[1]
        # The clusters read, or the part of the graph reached, may hold fewer than k vectors: -1.
        short = (rows < 0).any(axis=1)
        if short.any():
            metric = faiss.METRIC_INNER_PRODUCT
            rows[short] = faiss.knn(vectors[short], self.vectors, k, metric=metric)[1]
        return rows

    def search_outside_groups(self, groups: np.ndarray, k: int) -> np.ndarray:
        """Return the k nearest neighbours of each vector of the index, outside of its group.

        Parameters
        ----------
        groups : int array of shape (rows,)
            The group of each row of the index, such as its near duplicates.
        k : int
            At most the number of rows outside of the largest group.

        Returns
        -------
        int64 array of shape (rows, k)
        """
        largest = np.unique(groups, return_counts=True)[1].max()
        rows = self.search(self.vectors, int(k + largest))
        # Rows of the own group go to the end; the others keep their order.
        own = groups[rows] == groups[:, None]
        order = np.argsort(own, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, order, axis=1)

    def scores(self, vectors: np.ndarray, k: int, *, single_label: bool = False) -> np.ndarray:
        """Return the share of the k neighbours with each label: float64, (vectors, labels).

        Parameters
        ----------
        vectors : array of shape (vectors, width), float32
        k : int
        single_label : bool
            Every text has exactly one label: the one with the highest score. If several labels
            have the same number of votes, the label of the nearest neighbour wins: each label loses
            up to a hundredth of a vote, more if its nearest neighbour is further down the list.

        Raises
        ------
        UserError
            If k is below 1, or the index holds fewer than k rows.
        """
        neighbours = self.search(vectors, k)
        parts = [np.zeros((0, self.labels.shape[1]))]  # so that no vectors give no rows
        for start in range(0, len(neighbours), _BLOCK):
            neighbour_labels = self.labels[neighbours[start : start + _BLOCK]]  # (rows, k, labels)
            parts.append(neighbour_labels.mean(axis=1))
            if single_label:
                # argmax is the position of a label's first neighbour, 0 to k - 1. Divided by k it
                # is below 1; divided by k once more it is in shares, of which a vote is 1 / k.
                parts[-1] -= _TIE_BREAK * neighbour_labels.argmax(axis=1) / k**2
        return np.concatenate(parts)

    @property
    def vectors(self) -> np.ndarray:
        """The vectors in the index: float32, of shape (rows, width)."""
        return self.index.reconstruct_n(0, self.index.ntotal)


def _build_index(vectors: np.ndarray, index_type: IndexType) -> faiss.Index:
    """Return an index of vectors, (rows, width); the same vectors give the same index."""
    import faiss

    n_rows, width = vectors.shape
    n_clusters = max(1, min(round(n_rows**0.5), n_rows // 39))  # k-means needs 39 rows for each
    description = {"flat": "Flat", "ivf": f"IVF{n_clusters},Flat", "hnsw": "HNSW32"}[index_type]
    index = faiss.index_factory(width, description, faiss.METRIC_INNER_PRODUCT)
    parameters = {
        "flat": {},
        # How many clusters a search reads.
        "ivf": {"nprobe": max(8, n_clusters // 16)},
        # How many candidates are kept while a vector is added, and in a search.
        "hnsw": {"efConstruction": 128, "efSearch": 128},
    }[index_type]
    for name, value in parameters.items():
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    index.train(vectors)
    # Several threads add to a graph in an order that is left to chance.
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if index_type == "hnsw" else threads)
    index.add(vectors)
    faiss.omp_set_num_threads(threads)
    return index


@dataclass(frozen=True)
class NeighbourVote:
    """A classifier of vectors: the vote of the k nearest labelled ones.

    The attributes are `NearestNeighbours` and the other parameters of its `scores`.
    """

    lookup: NearestNeighbours
    k: int
    single_label: bool = False

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return the scores of vectors (rows, width): float64, (rows, labels)."""
        return self.lookup.scores(vectors, self.k, single_label=self.single_label)


# --- choosing k and m ----------------------------------------------------------------------------


class Votes(NamedTuple):
    """How many neighbours vote, and how many votes a label needs.

    Attributes
    ----------
    k : int
    m : int, optional
        None if every text has exactly one label: the label with the most votes applies.
    grid : dict, optional
        The F1 of all k and m, from `f1_grid`.
    """

    k: int
    m: int | None = None
    grid: dict[str, np.ndarray] | None = None


def choose_votes(
    lookup: NearestNeighbours,
    vectors: np.ndarray,
    y_true: np.ndarray,
    *,
    groups: np.ndarray,
    max_neighbours: int,
    single_label: bool,
) -> Votes:
    """Return the k, and the m if a text can have several labels, with the highest micro F1.

    Parameters
    ----------
    lookup : NearestNeighbours
    vectors : array of shape (rows, width)
        Vectors of the validation set. If it is empty, each vector of the lookup is classified by
        the others (leave-one-out), without its near duplicates.
    y_true : array of shape (rows, labels)
        Multi-hot.
    groups : int array of shape (lookup rows,)
        The same for near duplicates. A negative number marks a row that is no text, such as the
        name of a label: it votes, but is not classified.
    max_neighbours : int
        The largest k; less if the lookup holds fewer rows.
    single_label : bool
    """
    n_rows = len(lookup.labels)
    if len(vectors):
        neighbours = lookup.search(vectors, min(max_neighbours, n_rows))
    else:
        k_max = min(max_neighbours, n_rows - np.unique(groups, return_counts=True)[1].max())
        if k_max < 1:  # nothing to choose by
            return Votes(1, None if single_label else 1)
        is_text = groups >= 0
        neighbours = lookup.search_outside_groups(groups, k_max)[is_text]
        y_true = lookup.labels[is_text]
    if single_label:
        return Votes(int(micro_f1_by_k(neighbours, lookup.labels, y_true).argmax()) + 1)
    grid = f1_grid(neighbours, lookup.labels, y_true)
    k, m = np.unravel_index(np.nanargmax(grid["micro_f1"]), grid["micro_f1"].shape)
    return Votes(int(k) + 1, int(m) + 1, grid)


def f1_grid(
    neighbours: np.ndarray, train_labels: np.ndarray, y_true: np.ndarray
) -> dict[str, np.ndarray]:
    """Return F1 of "a label applies if m of the k nearest neighbours have it", for all k and m.

    One pass over the rows counts how often each label has 0, 1, ..., K votes among the first k
    neighbours. True positives and predictions for every k and m are sums of these counts.

    Parameters
    ----------
    neighbours : array of shape (rows, K), int
        Rows of the training labels, nearest first.
    train_labels : array of shape (train rows, labels)
        Multi-hot.
    y_true : array of shape (rows, labels)
        Multi-hot.

    Returns
    -------
    dict
        ``micro_f1`` and ``macro_f1``: arrays of shape (K, K) with the value for k and m at
        ``[k - 1, m - 1]``; NaN where m > k. F1 is 0 for a label without positives and predictions,
        as in scikit-learn with ``zero_division=0``.
    """
    train_labels = np.asarray(train_labels, dtype=np.uint8)
    y_true = np.asarray(y_true, dtype=bool)
    n_rows, k_max = neighbours.shape
    n_labels = y_true.shape[1]

    # Encode (k, label, number of votes) as one integer, so that one bincount counts all three:
    # `offset` is where the K + 1 possible numbers of votes of a (k, label) begin.
    shape = (k_max, n_labels, k_max + 1)
    offset = np.arange(k_max * n_labels).reshape(k_max, n_labels) * (k_max + 1)
    # [0] counts all rows, [1] only the rows to which the label truly applies.
    counts = np.zeros((2, np.prod(shape)), np.int64)
    for start in range(0, n_rows, _BLOCK):
        rows = slice(start, start + _BLOCK)
        # The cumulative sum over neighbours holds the votes for every k: (rows, k, labels).
        codes = train_labels[neighbours[rows]].cumsum(axis=1, dtype=np.int64) + offset
        is_true = np.broadcast_to(y_true[rows, None], codes.shape)
        counts[0] += np.bincount(codes.ravel(), minlength=counts.shape[1])
        counts[1] += np.bincount(codes[is_true], minlength=counts.shape[1])

    # Rows with exactly v votes become rows with at least m votes: a cumulative sum from the most
    # votes down. The slice drops m = 0 and puts m = 1 first: (2, k, labels, m).
    at_least = counts.reshape(2, *shape)[..., ::-1].cumsum(axis=-1)[..., -2::-1]
    predicted, true_positives = at_least  # each (k, labels, m)
    support = y_true.sum(axis=0)[:, None]  # (labels, 1)

    def f1(true_positives: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        # 2 TP / (predicted + support), and 0 instead of 0 / 0
        zeros = np.zeros(true_positives.shape)
        return np.divide(2.0 * true_positives, denominator, out=zeros, where=denominator > 0)

    grids = {
        "micro_f1": f1(true_positives.sum(axis=1), predicted.sum(axis=1) + support.sum()),
        "macro_f1": f1(true_positives, predicted + support).mean(axis=1),
    }
    impossible = np.arange(k_max) > np.arange(k_max)[:, None]  # more votes than neighbours, m > k
    return {name: np.where(impossible, np.nan, grid) for name, grid in grids.items()}


def micro_f1_by_k(
    neighbours: np.ndarray, train_labels: np.ndarray, y_true: np.ndarray
) -> np.ndarray:
    """Return micro F1 of "the most frequent label of the k nearest neighbours applies", for all k.

    If several labels are equally frequent, the label of the nearest neighbour applies, as in
    `NearestNeighbours.scores` with ``single_label``.

    Parameters
    ----------
    neighbours : array of shape (rows, K), int
        Rows of the training labels, nearest first.
    train_labels : array of shape (train rows, labels)
        One-hot.
    y_true : array of shape (rows, labels)
        Multi-hot; micro F1 equals accuracy if it is one-hot.

    Returns
    -------
    float64 array of shape (K,)
        The value for k at ``[k - 1]``.
    """
    train_labels = np.asarray(train_labels, dtype=np.uint8)
    y_true = np.asarray(y_true, dtype=bool)
    n_rows, k_max = neighbours.shape
    true_positives = np.zeros(k_max, np.int64)
    for start in range(0, n_rows, _BLOCK):
        rows = slice(start, start + _BLOCK)
        neighbour_labels = train_labels[neighbours[rows]]  # (rows, K, labels)
        # Integers, so that ties are exact: one vote counts K, more than the position of any
        # neighbour (0 to K - 1), which breaks ties between equally frequent labels.
        votes = neighbour_labels.cumsum(axis=1, dtype=np.int64) * k_max
        best = (votes - neighbour_labels.argmax(axis=1)[:, None]).argmax(axis=2)  # (rows, K)
        true_positives += np.take_along_axis(y_true[rows], best, axis=1).sum(axis=0)
    # Every row has one predicted label, so the predictions number `n_rows`.
    return 2 * true_positives / (n_rows + y_true.sum())
