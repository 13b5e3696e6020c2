"""How near generated images come to real ones: Frechet distance, coverage, diversity, collapse.

All of it compares features of images, rows of numbers; which network gave them is part of every
figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.cli.errors import UserError

NEIGHBOURS = 5  # of a real image, whose distance is its neighbourhood
# Far from what good generators measured, near what a generator that repeats itself measures.
SAME = 0.3  # spread of the samples, as a share of that of real images
TWINS = 0.2  # distance of a sample to its nearest other one, as a share of that of real images
LOST_CLASS = 0.1  # a class is lost if samples show it less often than this share of real images
LOST_SHARE = 0.25  # lost classes are a collapse if they hold this share of the real images
_BATCH = 1024


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Frechet distance of two sets of features, each taken as a normal distribution.

    Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium", equation 6. It grows as the sets get smaller: compare figures of the same sizes
    and the same features only.

    Parameters
    ----------
    first, second : float arrays of shape (rows, features)

    Raises
    ------
    UserError
        If a set has not more rows than features: its covariance would be singular.
    """
    for rows in (first, second):
        if len(rows) <= rows.shape[1]:
            raise UserError(
                f"a Frechet distance on {rows.shape[1]} features needs more than {len(rows)} "
                "images; take more, or lower --feature_size"
            )
    moments = [(rows.mean(axis=0), np.cov(rows, rowvar=False)) for rows in (first, second)]
    return gaussian_distance(*moments[0], *moments[1])


def gaussian_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Return the squared Frechet (2-Wasserstein) distance of two normal distributions.

    It is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The trace of the root is that of the root of
    the symmetric C1^(1/2) C2 C1^(1/2), which has the same eigenvalues and is stable.

    Parameters
    ----------
    mean, other_mean : arrays of shape (features,)
    covariance, other_covariance : arrays of shape (features, features)
    """
    covariance, other_covariance = np.atleast_2d(covariance), np.atleast_2d(other_covariance)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    products = np.linalg.eigvalsh(root @ other_covariance @ root)
    traces = np.trace(covariance) + np.trace(other_covariance)
    distance = ((mean - other_mean) ** 2).sum() + traces - 2 * np.sqrt(products.clip(0)).sum()
    return max(float(distance), 0.0)


def nearest(
    rows: np.ndarray, known: np.ndarray, k: int = 1, *, other: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Euclidean distance of each row to its k-th nearest known row, and that row.

    Parameters
    ----------
    rows, known : arrays of shape (rows, features), (known rows, features)
    k : int, default 1
    other : bool, default False
        The rows are the known ones: a row is not its own neighbour.

    Returns
    -------
    distances, numbers : float64 array of shape (rows,), int array of shape (rows,)
    """
    rows, known = (np.asarray(values, np.float64) for values in (rows, known))
    squares = (known**2).sum(axis=1)
    distances, numbers = [], []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        all_distances = squares - 2 * batch @ known.T
        if other:
            all_distances[np.arange(len(batch)), start + np.arange(len(batch))] = np.inf
        number = np.argpartition(all_distances, k - 1, axis=1)[:, k - 1]
        numbers.append(number)
        # Directly: the difference of large squares would not be exact.
        distances.append(np.linalg.norm(batch - known[number], axis=1))
    return np.concatenate(distances), np.concatenate(numbers)


def sample_figures(samples: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Return how near samples come to real images.

    Parameters
    ----------
    samples, real : arrays of shape (rows, features)

    Returns
    -------
    dict
        ``frechet_distance``; ``coverage``, the share of the real images with a sample nearer than
        their fifth nearest real image (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics
        for Generative Models"); ``spread``, the root mean square distance of two samples, as a
        share of that of two real images; ``twin_distance``, the median distance of a sample to the
        nearest other sample, as a share of that of as many real images.
    """
    k = min(NEIGHBOURS, len(real) - 1)
    radius, _ = nearest(real, real, k, other=True)
    distance, _ = nearest(real, samples)
    n = min(len(samples), len(real))
    twins = [np.median(nearest(rows[:n], rows[:n], other=True)[0]) for rows in (samples, real)]
    spreads = [rows.var(axis=0).sum() for rows in (samples, real)]
    tiny = np.finfo(float).tiny
    return {
        "frechet_distance": frechet_distance(samples, real),
        "coverage": float((distance < radius).mean()),
        "spread": float(np.sqrt(spreads[0] / max(spreads[1], tiny))),
        "twin_distance": float(twins[0] / max(twins[1], tiny)),
    }


def describe_sample_collapse(
    figures: dict[str, float],
    sample_classes: np.ndarray | None = None,
    real_classes: np.ndarray | None = None,
    class_names: Sequence[str] = (),
) -> str | None:
    """Return what shows that a generator makes the same images again and again, or None.

    Parameters
    ----------
    figures : dict
        From `sample_figures`.
    sample_classes, real_classes : int arrays, optional
        The class that a classifier gives each sample and each real image. None: there is none.
    class_names : sequence of str
    """
    if figures["spread"] < SAME:
        return (
            f"the samples differ from each other {figures['spread']:.0%} as much as real images do"
        )
    if figures["twin_distance"] < TWINS:
        return (
            f"a sample is {figures['twin_distance']:.0%} as far from its nearest other sample as "
            "real images are from theirs"
        )
    if sample_classes is not None and real_classes is not None:
        counts = [
            np.bincount(numbers, minlength=len(class_names)) / len(numbers)
            for numbers in (sample_classes, real_classes)
        ]
        lost = counts[0] < LOST_CLASS * counts[1]
        if counts[1][lost].sum() >= LOST_SHARE:
            names = [name for name, is_lost in zip(class_names, lost, strict=True) if is_lost]
            return (
                f"{len(names)} of {len(class_names)} classes hardly occur among the samples "
                f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            )
    return None
