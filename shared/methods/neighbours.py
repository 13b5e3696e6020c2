"""Labels by vote of the nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import atomic_write, write_json

# Rows counted at a time, to bound the memory whatever the number of rows.
_BLOCK = 1024
# What decides between labels with equally many votes: up to this part of a vote, less than one.
_NEARNESS = 0.01


class NearestNeighbours:
    """Labelled vectors in a FAISS index, and labels by vote of the nearest.

    A text's score for a label is the share of its k neighbours that have it. "Natural Language
    Processing with Transformers", chapter 9 (embeddings as a lookup table). The index is flat, that
    is exact, which is right below about a million rows.

    Parameters
    ----------
    vectors : array of shape (rows, width), float32
        Of length one, so that the inner product is the cosine; see `shared.methods.embeddings.normalized`.
    labels : array of shape (rows, labels)
        Multi-hot.
    """

    def __init__(self, vectors: np.ndarray, labels: np.ndarray):
        import faiss

        self.labels = np.asarray(labels, dtype=np.uint8)
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def search(self, vectors: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of the k nearest neighbours of each vector: int64, (vectors, k).

        Raises
        ------
        UserError
            If the index holds fewer than k rows.
        """
        if not 1 <= k <= self.index.ntotal:
            raise UserError(f"k = {k}: the index holds {self.index.ntotal} rows")
        return self.index.search(np.ascontiguousarray(vectors, dtype=np.float32), k)[1]

    def scores(self, vectors: np.ndarray, k: int, *, single_label: bool = False) -> np.ndarray:
        """Return the share of the k neighbours with each label: float64, (vectors, labels).

        Parameters
        ----------
        vectors : array of shape (vectors, width), float32
        k : int
        single_label : bool
            Every text has exactly one label, and the highest score tells which. Of labels with
            equally many votes it is that of the nearest neighbour: a label loses up to a hundredth
            of a vote, the more the farther its nearest neighbour stands down the list.

        Raises
        ------
        UserError
            If the index holds fewer than k rows.
        """
        neighbours = self.search(vectors, k)
        parts = [np.zeros((0, self.labels.shape[1]))]
        for start in range(0, len(neighbours), _BLOCK):
            found = self.labels[neighbours[start : start + _BLOCK]]
            parts.append(found.mean(axis=1))
            if single_label:
                parts[-1] -= _NEARNESS * found.argmax(axis=1) / k**2
        return np.concatenate(parts)

    def save(self, folder: Path, **settings) -> None:
        """Write ``index.faiss``, ``labels.npy`` and, as ``lookup.json``, the settings."""
        import faiss

        with atomic_write(folder / "index.faiss", "wb") as file:
            file.write(faiss.serialize_index(self.index).tobytes())
        with atomic_write(folder / "labels.npy", "wb") as file:
            np.save(file, self.labels, allow_pickle=False)
        write_json(folder / "lookup.json", settings)

    @classmethod
    def load(cls, folder: Path) -> NearestNeighbours:
        """Read what `save` wrote.

        Raises
        ------
        UserError
            If the folder holds no index, or a damaged one.
        """
        import faiss

        loaded = cls.__new__(cls)
        try:
            data = np.fromfile(Path(folder) / "index.faiss", dtype=np.uint8)
            loaded.index = faiss.deserialize_index(data)
            loaded.labels = np.load(Path(folder) / "labels.npy", allow_pickle=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{folder}: holds no usable index ({type(error).__name__})") from error
        if loaded.index.ntotal != len(loaded.labels):
            raise UserError(f"{folder}: index.faiss and labels.npy do not belong together")
        return loaded


def f1_grid(
    neighbours: np.ndarray, train_labels: np.ndarray, y_true: np.ndarray
) -> dict[str, np.ndarray]:
    """F1 of "a label applies if m of the k nearest neighbours have it", for all k and m at once.

    One pass counts how often each label has how many votes among the first k neighbours; the
    figures of every cell are sums over these counts.

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
        ``micro_f1`` and ``macro_f1``: arrays of shape (K, K), k - 1 by m - 1; NaN where m > k. An
        F1 without positives or predictions is 0, as in scikit-learn with ``zero_division=0``.
    """
    train_labels = np.asarray(train_labels, dtype=np.uint8)
    y_true = np.asarray(y_true, dtype=bool)
    n_rows, k_max = neighbours.shape
    n_labels = y_true.shape[1]
    # Votes of (k, label) for a row, as one number: which (k, label), then how many.
    shape = (k_max, n_labels, k_max + 1)
    cell = np.arange(k_max * n_labels).reshape(k_max, n_labels) * (k_max + 1)
    counts = np.zeros((2, np.prod(shape)), np.int64)
    for start in range(0, n_rows, _BLOCK):
        rows = slice(start, start + _BLOCK)
        votes = train_labels[neighbours[rows]].cumsum(axis=1, dtype=np.int64) + cell
        positive = np.broadcast_to(y_true[rows, None], votes.shape)
        counts[0] += np.bincount(votes.ravel(), minlength=counts.shape[1])
        counts[1] += np.bincount(votes[positive], minlength=counts.shape[1])
    # Rows with at least m votes, m from 1 to K: predicted, and truly positive.
    at_least = counts.reshape(2, *shape)[..., ::-1].cumsum(axis=-1)[..., -2::-1]
    predicted, hits = at_least
    support = y_true.sum(axis=0)[:, None]

    def f1(hits, denominator):
        return np.divide(2.0 * hits, denominator, out=np.zeros(hits.shape), where=denominator > 0)

    impossible = np.arange(k_max) > np.arange(k_max)[:, None]
    grids = {
        "micro_f1": f1(hits.sum(axis=1), predicted.sum(axis=1) + support.sum()),
        "macro_f1": f1(hits, predicted + support).mean(axis=1),
    }
    return {name: np.where(impossible, np.nan, grid) for name, grid in grids.items()}


def micro_f1_by_k(
    neighbours: np.ndarray, train_labels: np.ndarray, y_true: np.ndarray
) -> np.ndarray:
    """Micro F1 of "the most frequent label of the k nearest neighbours applies", for all k at once.

    Of equally frequent labels the one of the nearest neighbour applies, as it does where
    `NearestNeighbours.scores` are computed with ``single_label``.

    Parameters
    ----------
    neighbours : array of shape (rows, K), int
        Rows of the training labels, nearest first.
    train_labels : array of shape (train rows, labels)
        One-hot.
    y_true : array of shape (rows, labels)
        Multi-hot; micro F1 is accuracy where it is one-hot.

    Returns
    -------
    float64 array of shape (K,), k - 1
    """
    train_labels = np.asarray(train_labels, dtype=np.uint8)
    y_true = np.asarray(y_true, dtype=bool)
    n_rows, k_max = neighbours.shape
    hits = np.zeros(k_max, np.int64)
    for start in range(0, n_rows, _BLOCK):
        rows = slice(start, start + _BLOCK)
        found = train_labels[neighbours[rows]]
        # In whole numbers: a vote counts more than any place of a label's nearest neighbour.
        votes = found.cumsum(axis=1, dtype=np.int64) * k_max
        best = (votes - found.argmax(axis=1)[:, None]).argmax(axis=2)
        hits += np.take_along_axis(y_true[rows], best, axis=1).sum(axis=0)
    return 2 * hits / (n_rows + y_true.sum())
