"""The figures of generated images: Frechet distance, neighbours, collapse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from shared.cli.errors import UserError
from shared.evaluation.image_samples import (
    describe_sample_collapse,
    frechet_distance,
    gaussian_distance,
    nearest,
    sample_figures,
)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 12))
def test_the_frechet_distance_is_that_of_the_matrix_root(seed, size):
    rng = np.random.default_rng(seed)
    sets = [rng.normal(size=(60, size)) @ rng.normal(size=(size, size)) + i for i in range(2)]
    means = [rows.mean(axis=0) for rows in sets]
    covariances = [np.cov(rows, rowvar=False) for rows in sets]
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(sum(covariances) - 2 * root)
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert frechet_distance(*sets[::-1]) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_closed_form_of_diagonal_covariances():
    first, second = np.array([4.0, 9.0]), np.array([1.0, 25.0])
    distance = gaussian_distance(np.zeros(2), np.diag(first), np.ones(2), np.diag(second))
    assert distance == pytest.approx(2 + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum())
    singular = np.diag([4.0, 0.0])  # copies of one image have no variance
    assert gaussian_distance(np.zeros(2), singular, np.zeros(2), singular) == pytest.approx(0)


def test_too_few_images_are_refused():
    rows = np.random.default_rng(0).normal(size=(8, 8))
    with pytest.raises(UserError, match="on 8 features needs more than 8 images"):
        frechet_distance(rows, rows)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
def test_neighbours_are_those_of_all_distances(seed, k):
    rng = np.random.default_rng(seed)
    rows, known = rng.normal(size=(9, 3)), rng.normal(size=(6, 3))
    all_distances = np.linalg.norm(rows[:, None] - known[None], axis=2)
    distances, numbers = nearest(rows, known, k)
    assert distances == pytest.approx(np.sort(all_distances, axis=1)[:, k - 1])
    assert (numbers == np.argsort(all_distances, axis=1)[:, k - 1]).all()
    own, _ = nearest(known, known, k, other=True)
    all_own = np.linalg.norm(known[:, None] - known[None], axis=2)
    assert own == pytest.approx(np.sort(all_own, axis=1)[:, k])


@pytest.fixture
def real():
    """Two classes of points, and the class of each."""
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 2
    return rng.normal(size=(400, 4)) + 3 * classes[:, None], classes


def judged(samples, real, classes=None):
    return describe_sample_collapse(
        sample_figures(samples, real[0]), classes, real[1], ["even", "odd"]
    )


def test_samples_of_the_same_distribution_are_no_collapse(real):
    rng = np.random.default_rng(1)
    classes = np.arange(400) % 2
    samples = rng.normal(size=(400, 4)) + 3 * classes[:, None]
    assert judged(samples, real, classes) is None
    figures = sample_figures(samples, real[0])
    assert figures["coverage"] > 0.9
    assert figures["frechet_distance"] < 0.3
    assert figures["spread"] == pytest.approx(1, abs=0.1)
    assert figures["twin_distance"] == pytest.approx(1, abs=0.2)


def test_a_planted_collapse_is_described(real):
    rng = np.random.default_rng(1)
    one = real[0][:1] + rng.normal(scale=0.01, size=(400, 4))
    assert "the samples differ from each other" in judged(one, real)
    # Six images, again and again: the spread is that of real ones.
    few = real[0][rng.integers(0, 6, 400)] + rng.normal(scale=0.01, size=(400, 4))
    assert "from its nearest other sample" in judged(few, real)
    # One of two classes.
    half = np.random.default_rng(2).normal(size=(400, 4))
    assert "1 of 2 classes hardly occur among the samples (odd)" in judged(
        half, real, np.zeros(400, int)
    )
