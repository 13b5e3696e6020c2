import numpy as np
import pytest

from shared.methods.projection import project


def clusters():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 16))
    return np.repeat(centres, 20, axis=0) + 0.05 * rng.normal(size=(60, 16))


@pytest.mark.parametrize("name", ["pca", "tsne"])
def test_neighbours_stay_together_and_a_seed_gives_the_same_map(name):
    points = project(clusters(), name, seed=3)
    assert points.shape == (60, 2)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(axis=1) // 20 == np.arange(60) // 20).all()
    np.testing.assert_array_equal(project(clusters(), name, seed=3), points)


@pytest.mark.parametrize("name", ["pca", "tsne"])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_a_few_texts(name, n):
    points = project(np.eye(5)[:n], name)
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("name", ["pca", "tsne"])
def test_equal_vectors_lie_on_one_point(name):
    assert not project(np.full((6, 8), 0.3), name).any()


def test_vectors_of_width_one():
    assert project(np.arange(6.0)[:, None], "pca").shape == (6, 2)
