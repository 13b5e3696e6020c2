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
from shared.methods.neighbours import NearestNeighbours, f1_grid, micro_f1_by_k


def example(rows=60, queries=30, labels=4, seed=0):
    rng = np.random.default_rng(seed)
    vectors = normalized(rng.normal(size=(rows, 8)))
    return vectors, rng.random((rows, labels)) < 0.3, normalized(rng.normal(size=(queries, 8)))


def test_neighbours_equal_those_of_brute_force():
    vectors, labels, queries = example()
    neighbours = NearestNeighbours(vectors, labels).search(queries, 7)
    brute = NearestNeighbors(n_neighbors=7, algorithm="brute", metric="cosine").fit(vectors)
    np.testing.assert_array_equal(neighbours, brute.kneighbors(queries, return_distance=False))


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


def test_a_saved_index_gives_the_same_scores(tmp_path):
    vectors, labels, queries = example()
    lookup = NearestNeighbours(vectors, labels)
    lookup.save(tmp_path, k=3)
    loaded = NearestNeighbours.load(tmp_path)
    np.testing.assert_array_equal(loaded.scores(queries, 3), lookup.scores(queries, 3))
    assert '"k": 3' in (tmp_path / "lookup.json").read_text()


def test_a_missing_or_damaged_index_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no usable index"):
        NearestNeighbours.load(tmp_path)
    vectors, labels, _ = example()
    NearestNeighbours(vectors, labels).save(tmp_path)
    np.save(tmp_path / "labels.npy", labels[:3])
    with pytest.raises(UserError, match=r"index.faiss has 60 rows and labels.npy 3"):
        NearestNeighbours.load(tmp_path)
    (tmp_path / "index.faiss").write_bytes(b"no index")
    with pytest.raises(UserError, match="holds no usable index"):
        NearestNeighbours.load(tmp_path)


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
