"""Each strategy against a computation by hand or by brute force, on few texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.methods import STRATEGIES, Pool, choose_batch
from shared.methods.acquisition import doubt, facility_location

NONE = np.zeros(0, int)


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def angles(*degrees):
    """Texts on a circle."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def pool_of(vectors, labelled=NONE, labels=None, scores=None, committee=None, **options):
    labelled = np.asarray(labelled, int)
    labels = np.zeros((len(labelled), 2), np.uint8) if labels is None else np.asarray(labels)
    candidates = np.setdiff1d(np.arange(len(vectors)), labelled)
    return Pool(vectors, labelled, labels, candidates, scores, committee, **options)


def random_pool(seed, n=60, n_labelled=5, single_label=False, width=8):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(4), n) if single_label else rng.random((n, 4))
    labels = np.eye(4, dtype=np.uint8)[rng.integers(4, size=n_labelled)]
    committee = rng.random((n - n_labelled, 3, 4))
    labelled = np.sort(rng.choice(n, n_labelled, replace=False))
    vectors = unit(rng.normal(size=(n, width)))
    return pool_of(vectors, labelled, labels, scores, committee, single_label=single_label)


# --- all strategies ------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_labelled", [0, 5])
def test_a_batch_has_different_candidates_and_is_repeatable(strategy, n_labelled):
    pool = random_pool(0, n_labelled=n_labelled)
    batch = choose_batch(pool, strategy, 12, seed=3)
    assert len({*batch.rows}) == 12 == len(batch.values) == len(batch.strategies)
    assert {*batch.rows} <= {*pool.candidates.tolist()}
    assert {*batch.strategies} == {strategy}
    assert choose_batch(pool, strategy, 12, seed=3).rows == batch.rows


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_can_take_all_texts_that_are_left(strategy):
    pool = random_pool(1, n=9, n_labelled=2)
    assert sorted(choose_batch(pool, strategy, 7).rows) == pool.candidates.tolist()
    for size in (0, 8):
        with pytest.raises(ValueError, match=f"a batch of {size} from 7 texts"):
            choose_batch(pool, strategy, size)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_texts_that_are_all_equal_are_chosen_once_each(strategy):
    vectors, scores = np.ones((50, 1), np.float32), np.full((50, 2), 0.5)
    pool = pool_of(vectors, scores=scores, committee=np.full((50, 3, 2), 0.5))
    assert len({*choose_batch(pool, strategy, 40).rows}) == 40


@pytest.mark.parametrize("strategy", ["entropy", "balance", "bald"])
def test_a_strategy_without_what_it_needs(strategy):
    with pytest.raises(ValueError, match=f"{strategy} needs "):
        choose_batch(pool_of(angles(0, 90)), strategy, 1)


# --- doubt ---------------------------------------------------------------------------------------


def test_doubt_with_one_label_per_text():
    scores = np.array([[0.5, 0.3, 0.2], [0.45, 0.45, 0.1], [1.0, 0.0, 0.0]])
    pool = pool_of(angles(0, 1, 2), scores=scores, single_label=True)
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in scores]
    assert doubt(pool, "entropy") == pytest.approx(entropies)
    assert doubt(pool, "margin") == pytest.approx([0.8, 1, 0])
    assert doubt(pool, "least_confidence") == pytest.approx([0.5, 0.55, 0])


def test_doubt_with_several_labels_per_text():
    scores = np.array([[0.9, 0.4], [0.5, 0.0], [1.0, 0.0]])
    pool = pool_of(angles(0, 1, 2), scores=scores)
    binary = lambda p: -(p * np.log(p) + (1 - p) * np.log(1 - p))  # noqa: E731
    expected = [binary(0.9) + binary(0.4), binary(0.5), 0]
    assert doubt(pool, "entropy") == pytest.approx(expected)
    assert doubt(pool, "margin") == pytest.approx([0.8, 1, 0])
    assert doubt(pool, "least_confidence") == pytest.approx([1 - 0.9 * 0.6, 0.5, 0])


def test_bald_is_high_where_models_contradict_each_other_not_where_all_doubt():
    committee = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    pool = pool_of(angles(0, 1), committee=committee, single_label=True)
    assert doubt(pool, "bald") == pytest.approx([np.log(2), 0])


def test_a_margin_of_a_single_label():
    pool = pool_of(angles(0, 1), scores=np.ones((2, 1)), single_label=True)
    assert doubt(pool, "margin").tolist() == [0, 0]


def test_doubtful_texts_that_resemble_each_other_are_not_all_taken():
    # Twenty copies of the most doubtful text, and a slightly less doubtful one elsewhere.
    vectors = angles(*[0] * 20, 90, *[45] * 200)
    scores = np.full((221, 1), 0.05)
    scores[:20], scores[20] = 0.5, 0.45
    batch = choose_batch(pool_of(vectors, scores=scores), "entropy", 3)
    assert 20 in batch.rows
    assert batch.values == sorted(batch.values, reverse=True)


# --- coverage ------------------------------------------------------------------------------------


def gains_of_candidates(chosen, vectors, candidates, landmarks, centres, scores, examples):
    """What each candidate adds before each choice, computed as facility location is defined."""
    similar = np.exp(3 * (vectors.astype(float) @ vectors.astype(float).T - 1))
    gains = []
    for n in range(len(chosen)):
        before = chosen[:n]

        def value(rows, before=before):
            nearest = similar[np.ix_(rows, landmarks)].max(axis=0) if len(rows) else 0
            weights = 1.0
            if scores is not None:
                known = examples + scores[candidates[before]].sum(axis=0)
                weights = scores[landmarks] @ (1 / (1 + known))
            return (nearest * np.ones(len(landmarks)) * weights).mean()

        taken = [*centres, *candidates[before]]
        gains.append(np.array([value([*taken, row]) - value(taken) for row in candidates]))
        gains[-1][before] = -1
    return gains


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.integers(0, 4))
def test_facility_location_is_the_plain_greedy_algorithm(seed, weighted, n_centres):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(70, 3)))
    rows = rng.permutation(70)
    centres, candidates, landmarks = rows[:n_centres], np.sort(rows[n_centres:60]), rows[20:]
    scores, examples = None, None
    if weighted:
        scores, examples = rng.random((70, 3)), rng.integers(5, size=3).astype(float)
    options = {"scores": scores, "examples": examples} if weighted else {}
    chosen, gains = facility_location(vectors, candidates, landmarks, centres, 8, **options)
    expected = gains_of_candidates(
        *(chosen.tolist(), vectors, candidates, landmarks, centres, scores, examples)
    )
    assert len({*chosen.tolist()}) == 8
    for choice, gain, of_all in zip(chosen, gains, expected, strict=True):
        assert gain == pytest.approx(of_all[choice], abs=1e-5)
        # Of texts that add the same, but for rounding, any may be taken.
        assert of_all[choice] >= of_all.max() - 1e-5


def test_coverage_takes_the_middle_of_each_group_and_leaves_labelled_groups():
    vectors = angles(0, 2, 4, 90, 92, 94, 96, 98, 180, 182, 184)
    assert choose_batch(pool_of(vectors), "coverage", 2).rows[0] == 5  # of the largest group
    batch = choose_batch(pool_of(vectors, labelled=[5]), "coverage", 2)
    assert sorted(batch.rows) == [1, 9]
    assert batch.values[0] >= batch.values[1] > 0


def test_k_center_takes_the_farthest_text():
    vectors = angles(0, 10, 50, 120)
    assert choose_batch(pool_of(vectors, labelled=[0]), "k_center", 2).rows == [3, 2]
    # Without labelled texts it begins in the middle: the mean direction is about 42 degrees.
    assert choose_batch(pool_of(vectors), "k_center", 3).rows == [2, 3, 0]


def test_k_means_takes_clusters_without_a_labelled_text_first_the_largest_of_them():
    vectors = angles(*np.linspace(-4, 4, 9), *np.linspace(116, 124, 15), *np.linspace(237, 243, 5))
    pool = pool_of(vectors, labelled=[4])
    batch = choose_batch(pool, "k_means", 2)
    assert 16 in batch.rows  # the middle of the largest one
    pool = pool_of(vectors)
    assert sorted(choose_batch(pool, "k_means", 3).rows) == [4, 16, 26]


# --- labels with few examples --------------------------------------------------------------------


def test_balance_looks_for_the_label_with_the_fewest_examples():
    vectors = angles(0, 30, 60, 90, 120)
    labels = [[1, 0], [1, 0]]
    scores = np.array([[1, 0], [1, 0], [0.9, 0.0], [0.0, 0.8], [0.8, 0.1]])
    pool = pool_of(vectors, labelled=[0, 1], labels=labels, scores=scores)
    batch = choose_batch(pool, "balance", 3)
    assert (batch.rows[0], batch.sought[0]) == (3, 1)
    # value: (0 / 9 + .8 / 1) x (1 - cosine of 60 degrees)
    assert batch.values[0] == pytest.approx(0.8 * 0.5)


def test_mix_prefers_a_group_that_probably_has_a_rare_label():
    vectors = angles(0, 1, 2, 3, 90, 91)
    scores = np.array([[0.9, 0.05]] * 4 + [[0.05, 0.9]] * 2)
    plain = pool_of(vectors, scores=scores)
    assert choose_batch(plain, "mix", 1).rows[0] < 4
    many = pool_of(
        np.concatenate([vectors, angles(180, 181, 182)]),
        labelled=[6, 7, 8],
        labels=[[1, 0]] * 3,
        scores=np.concatenate([scores, [[0.9, 0.05]] * 3]),
    )
    batch = choose_batch(many, "mix", 2)
    assert (batch.rows[0] in (4, 5), batch.sought[0]) == (True, 1)
    assert batch.rows[1] < 4


def test_mix_without_scores_is_coverage():
    pool = random_pool(2)
    without = Pool(pool.vectors, pool.labelled, pool.labels, pool.candidates)
    batch = choose_batch(without, "mix", 5)
    assert batch.rows == choose_batch(pool, "coverage", 5).rows
    assert {*batch.strategies} == {"coverage"}


@settings(max_examples=20, deadline=None)
@given(
    arrays(np.float32, (30, 2), elements=st.sampled_from([-1.0, 0.5, 1.0])),
    st.sampled_from(sorted(STRATEGIES)),
    st.integers(1, 30),
)
def test_texts_that_repeat_each_other_never_stop_a_strategy(vectors, strategy, size):
    scores = np.abs(vectors)
    committee = np.stack([scores, scores], axis=1)
    pool = pool_of(unit(vectors), scores=scores, committee=committee)
    assert len({*choose_batch(pool, strategy, size).rows}) == size
