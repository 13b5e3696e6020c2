"""Which unlabelled texts to label next: strategies of active learning.

A strategy reads a `Pool`: texts as vectors, which of them have labels, and the scores of a model.
`choose_batch` returns the texts to label next, which differ from each other.

- ``random``: the baseline.
- ``entropy``, ``margin``, ``least_confidence``: where the model doubts (Settles 2009, "Active
  Learning Literature Survey", section 3.1).
- ``bald``: where several models contradict each other (Houlsby et al. 2011, "Bayesian Active
  Learning for Classification and Preference Learning").
- ``k_center``: the texts that are farthest from all labelled ones (Sener and Savarese 2018, "Active
  Learning for Convolutional Neural Networks: A Core-Set Approach").
- ``k_means``: the middles of clusters without a labelled text.
- ``coverage``: the texts that are near to many others, none of which has a labelled text near it:
  facility location (Bae et al. 2024, "Generalized Coverage for More Robust Low-Budget Active
  Learning").
- ``balance``: the texts that probably have labels with few examples.
- ``mix``: coverage, where texts that probably have labels with few examples weigh more.

Texts where the model doubts resemble each other, so that ``entropy``, ``margin``,
``least_confidence`` and ``bald`` take the ten times as many highest scores, and choose among them
by coverage. Ties go to the text that comes first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

# The similarity of two texts is exp(SHARPNESS * (cosine - 1)).
SHARPNESS = 3.0
# Texts that coverage counts, at most: every n-th of the pool.
LANDMARKS = 3000
# Texts among which the strategies of doubt choose by coverage, for each text of the batch.
DOUBTFUL_PER_CHOICE = 10
RECOMPUTED = 32  # values that are computed again at a time
BLOCK = 1024  # texts that are compared with all landmarks at a time: 12 MB


@dataclass(frozen=True)
class Pool:
    """Texts, some of which have labels, and what a model says about them.

    Attributes
    ----------
    vectors : float32 array of shape (texts, width)
        Of length one.
    labelled : int array of shape (n,)
        The texts that have labels.
    labels : array of shape (n, labels)
        Their labels, multi-hot.
    candidates : int array
        The texts to choose from, in ascending order; none of `labelled`.
    scores : float array of shape (texts, labels), optional
        Probabilities of a model.
    committee : float array of shape (candidates, models, labels), optional
        Probabilities of several models, for ``bald``.
    single_label : bool
        Whether each text has exactly one label.
    """

    vectors: np.ndarray
    labelled: np.ndarray
    labels: np.ndarray
    candidates: np.ndarray
    scores: np.ndarray | None = None
    committee: np.ndarray | None = None
    single_label: bool = False

    @cached_property
    def landmarks(self) -> np.ndarray:
        """The candidates that coverage counts: every n-th, at most `LANDMARKS`."""
        return self.candidates[:: max(1, -(-len(self.candidates) // LANDMARKS))]


@dataclass
class Batch:
    """The texts to label next, best first.

    Attributes
    ----------
    rows : list of int
    values : list of float
        How much the strategy wants each text: its own scale.
    strategies : list of str
        The strategy that chose it: ``coverage`` where ``mix`` has no scores.
    sought : list of int or None
        The label that ``mix`` or ``balance`` hopes to find.
    """

    rows: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    sought: list[int | None] = field(default_factory=list)

    def add(self, strategy: str, row: int, value: float, sought: int | None = None) -> None:
        """Append a text."""
        self.rows.append(int(row))
        self.values.append(float(value))
        self.strategies.append(strategy)
        self.sought.append(sought)


def choose_batch(pool: Pool, strategy: str, size: int, *, seed: int = 0) -> Batch:
    """Return the texts to label next.

    Parameters
    ----------
    pool : Pool
    strategy : str
        One of `STRATEGIES`.
    size : int
        Number of texts.
    seed : int
        Of ``random`` and ``k_means``; the others are deterministic.

    Raises
    ------
    ValueError
        If the pool has fewer candidates, or lacks what the strategy needs.
    """
    if not 1 <= size <= len(pool.candidates):
        raise ValueError(f"a batch of {size} from {len(pool.candidates)} texts")
    needs = STRATEGIES[strategy].needs
    if needs is not None and getattr(pool, needs) is None:
        raise ValueError(f"{strategy} needs {needs}")
    return STRATEGIES[strategy].choose(pool, size, seed)


# --- doubt ---------------------------------------------------------------------------------------


def doubt(pool: Pool, strategy: str) -> np.ndarray:
    """Return how far a model doubts its labels of each candidate: float array (candidates,).

    Parameters
    ----------
    pool : Pool
    strategy : str
        ``entropy``: of the distribution over all labels, or the sum over labels that apply
        independently. ``margin``: 1 minus the distance of the best two labels; with several labels
        per text, 1 minus twice the distance of the score nearest to one half. ``least_confidence``:
        the probability that the most probable set of labels is wrong. ``bald``: the information
        that the labels would give about the model, from `Pool.committee`.
    """
    from shared.methods.uncertainty import bald, entropy

    if strategy == "bald":
        assert pool.committee is not None  # checked by `choose_batch`
        return bald(pool.committee, single_label=pool.single_label)
    assert pool.scores is not None
    scores = pool.scores[pool.candidates]
    if strategy == "entropy":
        return entropy(scores, single_label=pool.single_label)
    if strategy == "margin":
        if not pool.single_label:
            return 1 - 2 * np.abs(scores - 0.5).min(axis=1)
        if scores.shape[1] == 1:
            return np.zeros(len(scores))
        best = np.partition(scores, -2, axis=1)[:, -2:]
        return 1 - (best[:, 1] - best[:, 0])
    if pool.single_label:
        return 1 - scores.max(axis=1)
    return 1 - np.maximum(scores, 1 - scores).prod(axis=1)


def _choose_doubtful(strategy: str) -> Callable[[Pool, int, int], Batch]:
    def choose(pool: Pool, size: int, seed: int) -> Batch:
        values = doubt(pool, strategy)
        order = np.argsort(-values, kind="stable")[: DOUBTFUL_PER_CHOICE * size]
        rows = pool.candidates[order]
        chosen, _ = facility_location(pool.vectors, rows, rows, pool.labelled[:0], size)
        batch = Batch()
        for i in np.sort(chosen):  # positions in `order`: the most doubtful one first
            batch.add(strategy, rows[i], values[order[i]])
        return batch

    return choose


# --- coverage ------------------------------------------------------------------------------------


def facility_location(
    vectors: np.ndarray,
    candidates: np.ndarray,
    landmarks: np.ndarray,
    centres: np.ndarray,
    size: int,
    *,
    scores: np.ndarray | None = None,
    examples: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose texts so that all landmarks have a similar text among them, greedily.

    The next text is the one that raises most the sum, over all landmarks, of the similarity
    exp(3 (cosine - 1)) to the nearest chosen text. What a text adds never grows with what is
    chosen before it (the sum is submodular), so that only the texts with the highest values of
    before are computed again (Minoux 1978, "Accelerated Greedy Algorithms"): the result is that
    of the plain greedy algorithm.

    With `scores`, landmarks that probably have labels with few examples weigh more: a label with n
    examples has the weight 1 / (1 + n), and a landmark the sum of those of its labels, by their
    probabilities. What the chosen texts probably have counts as examples, so that weights only
    become smaller.

    Parameters
    ----------
    vectors : float32 array of shape (texts, width)
        Of length one.
    candidates, landmarks, centres : int arrays
        Rows: those to choose from, those to be near to, and those that are chosen already.
    size : int
        At most the number of candidates.
    scores : float array of shape (texts, labels), optional
        Probabilities. None: all landmarks weigh the same.
    examples : float array of shape (labels,), optional
        Number of examples of each label, with `scores`.

    Returns
    -------
    chosen : int array of shape (size,)
        Positions in `candidates`, in the order of the choice.
    gains : float array of shape (size,)
        What each of them adds, per landmark.
    """
    targets = vectors[landmarks].T
    nearest = np.zeros(len(landmarks), np.float32)
    for start in range(0, len(centres), BLOCK):
        similar = _similarity(vectors[centres[start : start + BLOCK]] @ targets)
        nearest = np.maximum(nearest, similar.max(axis=0))

    def weigh() -> np.ndarray:
        if scores is None or examples is None:
            return np.ones(len(landmarks), np.float32)
        return (scores[landmarks] @ (1 / (1 + examples))).astype(np.float32)

    def added(positions: np.ndarray) -> np.ndarray:
        similar = _similarity(vectors[candidates[positions]] @ targets)
        return np.maximum(similar - nearest, 0, out=similar) @ weights

    weights = weigh()
    everything = np.arange(len(candidates))
    starts = range(0, len(candidates), BLOCK)
    bounds = np.concatenate([added(everything[start : start + BLOCK]) for start in starts])
    fresh = np.ones(len(candidates), bool)
    chosen, gains = list[int](), list[float]()
    while len(chosen) < size:
        best = int(bounds.argmax())
        if not fresh[best]:
            highest = np.argpartition(-bounds, min(RECOMPUTED, len(bounds) - 1))[:RECOMPUTED]
            stale = np.union1d(highest[~fresh[highest] & np.isfinite(bounds[highest])], [best])
            bounds[stale], fresh[stale] = added(stale), True
            continue
        chosen.append(best)
        gains.append(float(bounds[best]) / len(landmarks))
        similar = _similarity(vectors[candidates[best]] @ targets)
        nearest, bounds[best], fresh[:] = np.maximum(nearest, similar), -np.inf, False
        if scores is not None and examples is not None:
            examples = examples + scores[candidates[best]]
            weights = weigh()
    return np.array(chosen), np.array(gains)


def _similarity(cosines: np.ndarray) -> np.ndarray:
    return np.exp(SHARPNESS * (cosines - 1))


def _choose_coverage(pool: Pool, size: int, seed: int) -> Batch:
    chosen, gains = facility_location(
        pool.vectors, pool.candidates, pool.landmarks, pool.labelled, size
    )
    batch = Batch()
    for i, gain in zip(chosen, gains, strict=True):
        batch.add("coverage", pool.candidates[i], gain)
    return batch


def _choose_mix(pool: Pool, size: int, seed: int) -> Batch:
    """Choose by coverage, in which texts that probably have labels with few examples weigh more."""
    if pool.scores is None:
        return _choose_coverage(pool, size, seed)
    examples = pool.labels.sum(axis=0, dtype=np.float64)
    chosen, gains = facility_location(
        pool.vectors,
        pool.candidates,
        pool.landmarks,
        pool.labelled,
        size,
        scores=pool.scores,
        examples=examples,
    )
    batch = Batch()
    for row, gain in zip(pool.candidates[chosen], gains, strict=True):
        sought = int((pool.scores[row] / (1 + examples)).argmax())
        batch.add("mix", row, gain, sought)
        examples += pool.scores[row]
    return batch


def _choose_k_center(pool: Pool, size: int, seed: int) -> Batch:
    vectors = pool.vectors[pool.candidates]
    if len(pool.labelled):
        nearest = _nearest(vectors, pool.vectors[pool.labelled])
    else:  # begin in the middle of all texts
        nearest = -(vectors @ vectors.mean(axis=0))
    batch = Batch()
    for number in range(size):
        best = int(nearest.argmin())
        cosines = vectors @ vectors[best]
        if not number and not len(pool.labelled):
            batch.add("k_center", pool.candidates[best], 2.0)  # as if there were an opposite text
            nearest = cosines
        else:
            batch.add("k_center", pool.candidates[best], 1 - nearest[best])
            nearest = np.maximum(nearest, cosines)
        nearest[best] = np.inf
    return batch


def _choose_k_means(pool: Pool, size: int, seed: int) -> Batch:
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    vectors = pool.vectors[pool.candidates]
    n_clusters = min(len(vectors), size + len(pool.labelled))
    clustering = MiniBatchKMeans(n_clusters, n_init=1, batch_size=2048, random_state=seed)
    with warnings.catch_warnings():
        # Texts that are equal make fewer clusters than were asked for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clustering.fit(vectors)
    cluster = clustering.labels_
    closeness = (vectors * clustering.cluster_centers_[cluster]).sum(axis=1)
    is_covered = np.zeros(n_clusters, bool)
    if len(pool.labelled):
        is_covered[clustering.predict(pool.vectors[pool.labelled])] = True
    sizes = np.bincount(cluster, minlength=n_clusters)

    # The text nearest to the centre of each cluster, then the second one, and so on; clusters
    # without a labelled text first, and of these the largest.
    by_closeness = np.lexsort([-closeness, cluster])
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.empty(len(vectors), int)
    rank[by_closeness] = np.arange(len(vectors)) - np.repeat(first, sizes)
    order = np.lexsort([cluster, -sizes[cluster], is_covered[cluster], rank])
    batch = Batch()
    for i in order[:size]:
        batch.add("k_means", pool.candidates[i], sizes[cluster[i]] / len(vectors))
    return batch


# --- labels with few examples --------------------------------------------------------------------


def _choose_balance(pool: Pool, size: int, seed: int) -> Batch:
    """Choose texts that probably have labels with few examples, and that differ from the others.

    A label with n examples has the weight 1 / (1 + n)^2; what the texts chosen before probably have
    counts as examples, too. The value of a text is the sum of the weights of its labels, by their
    probabilities, times its distance to the nearest labelled or chosen text.
    """
    assert pool.scores is not None  # checked by `choose_batch`
    scores, vectors = pool.scores[pool.candidates], pool.vectors[pool.candidates]
    examples = pool.labels.sum(axis=0, dtype=np.float64)
    distance = 1 - _nearest(vectors, pool.vectors[pool.labelled]).clip(min=0)
    free = np.ones(len(vectors), bool)
    batch = Batch()
    for _ in range(size):
        weights = 1 / (1 + examples) ** 2
        values = np.where(free, (scores @ weights) * distance, -1)
        best = int(values.argmax())
        sought = int((scores[best] * weights).argmax())
        batch.add("balance", pool.candidates[best], values[best], sought)
        free[best] = False
        examples += scores[best]
        distance = np.minimum(distance, 1 - (vectors @ vectors[best]).clip(min=0))
    return batch


def _nearest(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the highest cosine of each vector to the others, or -1 if there are none: (rows,)."""
    if not len(others):
        return np.full(len(vectors), -1, np.float32)
    blocks = range(0, len(vectors), BLOCK)
    return np.concatenate([(vectors[b : b + BLOCK] @ others.T).max(axis=1) for b in blocks])


def _choose_random(pool: Pool, size: int, seed: int) -> Batch:
    batch = Batch()
    for row in np.random.default_rng(seed).choice(pool.candidates, size, replace=False):
        batch.add("random", row, 0.0)
    return batch


# --- all strategies ------------------------------------------------------------------------------


class Strategy(NamedTuple):
    """How a batch is chosen, from a pool, a size and a seed, and what of the pool it needs."""

    choose: Callable[[Pool, int, int], Batch]
    needs: Literal["scores", "committee"] | None = None


STRATEGIES = {
    "mix": Strategy(_choose_mix),
    "coverage": Strategy(_choose_coverage),
    "k_means": Strategy(_choose_k_means),
    "k_center": Strategy(_choose_k_center),
    "balance": Strategy(_choose_balance, "scores"),
    "entropy": Strategy(_choose_doubtful("entropy"), "scores"),
    "margin": Strategy(_choose_doubtful("margin"), "scores"),
    "least_confidence": Strategy(_choose_doubtful("least_confidence"), "scores"),
    "bald": Strategy(_choose_doubtful("bald"), "committee"),
    "random": Strategy(_choose_random),
}
