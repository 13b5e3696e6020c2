"""Vectors of texts as points of a map."""

from __future__ import annotations

import numpy as np


def project(vectors: np.ndarray, name: str, *, seed: int = 0) -> np.ndarray:
    """Return vectors as points in two dimensions: float, shape (rows, 2).

    Parameters
    ----------
    vectors : array of shape (rows, width)
        Of length one.
    name : str
        "pca" keeps the two directions with the largest variance; distances are honest, and what the
        other directions hold is lost. "tsne" (van der Maaten and Hinton 2008) keeps neighbours
        together; distances between clusters, and their sizes, say nothing.
    seed : int
        Of "tsne".
    """
    from sklearn.decomposition import PCA

    if len(vectors) < 3:
        return np.zeros((len(vectors), 2))
    # t-SNE is faster on 50 dimensions, which hold nearly all that neighbours depend on.
    if not np.ptp(vectors, axis=0).any():  # t-SNE would divide by the variance
        return np.zeros((len(vectors), 2))
    n_components = min(2 if name == "pca" else 50, *vectors.shape)
    reduced = PCA(n_components, random_state=seed).fit_transform(np.asarray(vectors, np.float64))
    if name == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30, (len(vectors) - 1) / 3)
        return TSNE(perplexity=perplexity, random_state=seed).fit_transform(reduced)
    return np.pad(reduced, ((0, 0), (0, 2 - reduced.shape[1])))
