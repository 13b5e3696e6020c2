"""Nearest neighbours: scores against brute force, F1 for all k against scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import NearestNeighbors

from shared.cli.errors import UserError
from shared.methods.embeddings import normalized
from shared.methods.neighbours import (
    NearestNeighbours,
    NeighbourVote,
    choose_votes,
    f1_grid,
    micro_f1_by_k,
)


def example(rows=60, queries=30, labels=4, seed=0):
    rng = np.random.default_rng(seed)
    vectors = normalized(rng.normal(size=(rows, 8)))
    return vectors, rng.random((rows, labels)) < 0.3, normalized(rng.normal(size=(queries, 8)))


def test_neighbours_equal_those_of_brute_force():
    vectors, labels, queries = example()
    neighbours = NearestNeighbours(vectors, labels).search(queries, 7)
    brute = NearestNeighbors(n_neighbors=7, algorithm="brute", metric="cosine").fit(vectors)
    np.testing.assert_array_equal(neighbours, brute.kneighbors(queries, return_distance=False))


@pytest.mark.parametrize("index_type", ["ivf", "hnsw"])
def test_an_approximate_search_has_few_misses_and_repeats(index_type):
    vectors, labels, queries = example(rows=2000, queries=200)
    exact = NearestNeighbours(vectors, labels).search(queries, 10)
    lookup, again = (NearestNeighbours(vectors, labels, index_type) for _ in range(2))
    rows = lookup.search(queries, 10)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, rows, strict=True)])
    assert 0.8 < recall <= 1
    np.testing.assert_array_equal(again.search(queries, 10), rows)
    np.testing.assert_array_equal(lookup.vectors, vectors)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["ivf", "hnsw"]), st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_an_approximate_search_returns_k_different_rows(index_type, seed, k):
    """Also where the clusters that it reads, or the graph, hold fewer vectors."""
    vectors, labels, queries = example(queries=5, seed=seed)
    vectors[20:] = vectors[:1]  # duplicates, far from each other in no cluster
    for row in NearestNeighbours(vectors, labels, index_type).search(queries, k):
        assert len(set(row)) == k
        assert row.min() >= 0


def test_scores_are_shares_of_the_neighbours():
    vectors, labels, queries = example(queries=2500)  # more than one block
    lookup = NearestNeighbours(vectors, labels)
    expected = labels[lookup.search(queries, 5)].mean(axis=1)
    np.testing.assert_allclose(lookup.scores(queries, 5), expected)
    assert lookup.scores(queries[:0], 5).shape == (0, 4)


def most_votes(labels, k):
    """Return the most frequent of the first k labels; of equals, the one that comes first."""
    labels = labels[:k].tolist()
    return max(labels, key=lambda label: (labels.count(label), -labels.index(label)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 15), st.integers(1, 6), st.integers(0, 12))
def test_the_best_score_has_the_most_votes_and_ties_go_to_the_nearest(seed, k, n, queries):
    vectors, _, query_vectors = example(rows=15, queries=queries, seed=seed)
    labels = np.random.default_rng(seed).integers(n, size=15)
    lookup = NearestNeighbours(vectors, np.eye(n)[labels])
    scores = lookup.scores(query_vectors, k, single_label=True)
    expected = [most_votes(labels[row], k) for row in lookup.search(query_vectors, k)]
    np.testing.assert_array_equal(scores.argmax(axis=1), expected)
    assert ((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()
    assert (scores >= 0).all()
    shares = lookup.scores(query_vectors, k)
    assert (scores <= shares).all()
    np.testing.assert_allclose(scores, shares, rtol=0, atol=0.01 / k)
    np.testing.assert_array_equal(scores > 0, shares > 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 15), st.integers(1, 6), st.integers(1, 12))
def test_f1_of_most_votes_equals_that_of_a_plain_loop(seed, k_max, n, n_rows):
    rng = np.random.default_rng(seed)
    labels, true = rng.integers(n, size=15), rng.integers(n, size=n_rows)
    neighbours = np.array([rng.permutation(15)[:k_max] for _ in range(n_rows)])
    micro_f1 = micro_f1_by_k(neighbours, np.eye(n)[labels], np.eye(n)[true])
    assert micro_f1.shape == (k_max,)
    for k in range(1, k_max + 1):
        predicted = [most_votes(labels[row], k) for row in neighbours]
        assert micro_f1[k - 1] == pytest.approx(accuracy_score(true, predicted))


@pytest.mark.parametrize("k", [0, 61])
def test_k_beyond_the_index_is_refused(k):
    vectors, labels, queries = example()
    with pytest.raises(UserError, match=f"k = {k}: must be 1 to 60"):
        NearestNeighbours(vectors, labels).search(queries, k)


def test_the_vectors_of_the_index_make_the_same_index():
    vectors, labels, queries = example()
    lookup = NearestNeighbours(vectors, labels)
    again = NearestNeighbours(lookup.vectors, lookup.labels)
    np.testing.assert_array_equal(lookup.vectors, vectors)
    np.testing.assert_array_equal(NeighbourVote(again, 3)(queries), lookup.scores(queries, 3))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 6), st.integers(1, 12))
def test_every_cell_of_the_grid_equals_scikit_learns_f1(seed, k_max, n_labels, n_rows):
    rng = np.random.default_rng(seed)
    train = (rng.random((15, n_labels)) < 0.4).astype(np.uint8)
    y = (rng.random((n_rows, n_labels)) < 0.4).astype(np.uint8)
    neighbours = np.array([rng.permutation(15)[:k_max] for _ in range(n_rows)])
    grid = f1_grid(neighbours, train, y)
    # One column is a binary task to scikit-learn, with other averages: a second one that is never
    # positive and never predicted changes no micro F1 and halves macro F1.
    pad = ((0, 0), (0, 1 if n_labels == 1 else 0))
    for k in range(1, k_max + 1):
        votes = train[neighbours[:, :k]].sum(axis=1)
        for m in range(1, k_max + 1):
            cell = {name: values[k - 1, m - 1] for name, values in grid.items()}
            if m > k:
                assert np.isnan(list(cell.values())).all()
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                micro, macro = (
                    f1_score(
                        np.pad(y, pad), np.pad(votes >= m, pad), average=average, zero_division=0
                    )
                    for average in ("micro", "macro")
                )
            assert cell["micro_f1"] == pytest.approx(micro)
            assert cell["macro_f1"] == pytest.approx(macro * (2 if n_labels == 1 else 1))


def test_the_grid_does_not_depend_on_the_blocks(monkeypatch):
    vectors, labels, queries = example(queries=50)
    y = np.random.default_rng(1).random((50, 4)) < 0.3
    neighbours = NearestNeighbours(vectors, labels).search(queries, 9)
    whole = f1_grid(neighbours, labels, y)
    monkeypatch.setattr("shared.methods.neighbours._BLOCK", 7)
    for name, grid in f1_grid(neighbours, labels, y).items():
        np.testing.assert_array_equal(grid, whole[name])


def test_f1_of_most_votes_does_not_depend_on_the_blocks(monkeypatch):
    vectors, labels, queries = example(queries=50)
    one_hot = np.eye(4)[labels.argmax(axis=1)]
    neighbours = NearestNeighbours(vectors, one_hot).search(queries, 9)
    y = np.random.default_rng(1).random((50, 4)) < 0.3  # any number of labels
    whole = micro_f1_by_k(neighbours, one_hot, y)
    predicted = one_hot[neighbours[:, 0]]
    assert whole[0] == pytest.approx(f1_score(y, predicted, average="micro"))
    monkeypatch.setattr("shared.methods.neighbours._BLOCK", 7)
    np.testing.assert_array_equal(micro_f1_by_k(neighbours, one_hot, y), whole)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 15))
def test_no_neighbour_is_of_the_group_of_the_vector(seed, n_groups, k):
    vectors, labels, _ = example(rows=15, seed=seed)
    groups = np.random.default_rng(seed).integers(n_groups, size=15)
    outside = 15 - np.bincount(groups).max()
    if k > outside:
        return
    neighbours = NearestNeighbours(vectors, labels).search_outside_groups(groups, k)
    assert neighbours.shape == (15, k)
    for row in range(15):
        others = np.flatnonzero(groups != groups[row])
        nearest = others[np.argsort(-(vectors[others] @ vectors[row]), kind="stable")]
        np.testing.assert_array_equal(neighbours[row], nearest[:k])


@pytest.mark.parametrize("single_label", [False, True])
def test_votes_are_chosen_by_validation_or_by_leaving_one_out(single_label):
    vectors, labels, _ = example()
    if single_label:
        labels = np.eye(labels.shape[1], dtype=np.uint8)[labels.argmax(axis=1)]
    lookup = NearestNeighbours(vectors, labels)
    groups = np.arange(len(labels))
    options = {"max_neighbours": 7, "single_label": single_label, "groups": groups}
    by_validation = lookup.search(vectors[:9], 7), vectors[:9], labels[:9]
    alone = lookup.search_outside_groups(groups, 7), vectors[:0], labels
    for neighbours, x, y in (by_validation, alone):
        votes = choose_votes(lookup, x, y[: len(x)], **options)
        if single_label:
            assert votes.m is None
            assert votes.k == micro_f1_by_k(neighbours, labels, y).argmax() + 1
        else:
            grid = f1_grid(neighbours, labels, y)["micro_f1"]
            assert grid[votes.k - 1, votes.m - 1] == np.nanmax(grid)


def test_near_duplicates_and_names_of_labels_do_not_choose_k():
    rng = np.random.default_rng(3)
    vectors = normalized(rng.normal(size=(40, 8)))
    labels = (rng.random((40, 3)) < 0.4).astype(np.uint8)
    options = {"max_neighbours": 20, "single_label": False}
    nothing = vectors[:0], labels[:0]
    once = choose_votes(
        NearestNeighbours(vectors, labels), *nothing, groups=np.arange(40), **options
    )
    twice = NearestNeighbours(np.tile(vectors, (2, 1)), np.tile(labels, (2, 1)))
    groups = np.tile(np.arange(40), 2)
    votes = choose_votes(twice, *nothing, groups=groups, **options)
    assert votes.grid["micro_f1"][0, 0] == once.grid["micro_f1"][0, 0] < 1
    # Five copies of the name of each label are near one another, but no texts to classify.
    names = np.tile(np.eye(3, 8, dtype=np.float32), (5, 1))
    lookup = NearestNeighbours(
        np.concatenate([vectors, names]), np.concatenate([labels, np.tile(np.eye(3), (5, 1))])
    )
    groups = np.concatenate([np.arange(40), -1 - np.arange(15)])
    assert choose_votes(lookup, *nothing, groups=groups, **options).grid["micro_f1"][0, 0] < 0.75
    alone = NearestNeighbours(vectors[:1], labels[:1])
    assert choose_votes(alone, *nothing, groups=np.zeros(1), **options)[:2] == (1, 1)
