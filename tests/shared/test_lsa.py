import numpy as np
import pytest

from shared.lsa import latent_semantic_vectors

PAIRS = [("cat", "dog"), ("red", "blue"), ("sun", "rain")]
TEXTS = [f"{a} {b} word{i}" for i, (a, b) in enumerate(PAIRS * 4)]


def test_texts_with_words_that_go_together_are_near():
    (vectors,) = latent_semantic_vectors(TEXTS, ["cat", "dog", "red", "blue"], n_components=3)
    similarity = vectors @ vectors.T
    expected = np.kron(np.eye(2), np.ones((2, 2)))
    np.testing.assert_allclose(similarity, expected, atol=0.05)


def test_shapes_lengths_and_seed():
    many, none = latent_semantic_vectors(TEXTS, [*TEXTS, "unheard of"], [], n_components=3)
    assert many.shape == (13, 3)
    assert none.shape == (0, 3)
    assert many.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), [1] * 12 + [0], atol=1e-6)
    again, _ = latent_semantic_vectors(TEXTS, [*TEXTS, "unheard of"], [], n_components=3)
    np.testing.assert_array_equal(many, again)


@pytest.mark.parametrize(
    "fit",
    [
        *(["one text"], ["? !"] * 4, ["same words"] * 3, ["a b", "b c"]),
        ["alpha one", "alpha two", "three four", "five six"],  # one word comes twice
    ],
)
def test_a_collection_too_small_to_learn_from(fit):
    (vectors,) = latent_semantic_vectors(fit, ["one same b", "?"])
    assert len(vectors) == 2
    assert np.isfinite(vectors).all()
