"""Latent semantic analysis: few dimensions for the words of a text, learned without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize


def latent_semantic_vectors(
    fit_texts: Sequence[str], *texts: Sequence[str], n_components: int = 256, seed: int = 0
) -> list[np.ndarray]:
    """Project TF-IDF vectors on the directions along which a collection of texts varies most.

    Deerwester et al. 1990, "Indexing by Latent Semantic Analysis". It adds to a sentence embedding
    what that is blind to, the vocabulary of the collection: names of modules, of products, of
    errors. Words in one text only and in more than half of them are left out; term frequencies
    count by their logarithm.

    Parameters
    ----------
    fit_texts : sequence of str
        Texts to learn from; unlabelled ones will do, the more the better.
    *texts : sequences of str
        Texts to project.
    n_components : int
        Dimensions at most; a collection with fewer words or texts has fewer.
    seed : int
        Of the randomised decomposition (Halko, Martinsson and Tropp 2011).

    Returns
    -------
    list of float32 arrays of shape (texts, dimensions)
        Of length one; zero for a text without a known word.
    """
    # A limit in texts rather than a share: half of three texts would be one.
    nothing = [np.zeros((len(part), 1), np.float32) for part in texts]
    most = max(2, len(fit_texts) // 2)
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, max_df=most)
    try:
        known = words.fit_transform(fit_texts)
    except ValueError as error:
        if "empty vocabulary" not in str(error) and "no terms remain" not in str(error):
            raise
        return nothing
    if min(known.shape) < 2:
        return nothing
    n_components = min(n_components, min(known.shape))
    decomposition = TruncatedSVD(n_components, random_state=seed).fit(known)
    vectors = []
    for part in texts:
        projected = np.zeros((0, n_components))
        if len(part):
            projected = decomposition.transform(words.transform(part))
        vectors.append(normalize(projected).astype(np.float32) if len(part) else projected)
    return vectors
