"""Batches of texts of similar length: each row once, the same for any number of processes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.training.batches import LengthGroupedBatches


def batches(lengths, batch_size=4, seed=0, epoch=0, pieces=1):
    return list(LengthGroupedBatches(np.asarray(lengths), batch_size, seed, lambda: epoch, pieces))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 512), max_size=300),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_each_row_once_in_batches_of_equal_size_and_the_longest_first(
    lengths, batch_size, seed, epoch
):
    result = batches(lengths, batch_size, seed, epoch)
    assert sorted(row for batch in result for row in batch) == list(range(len(lengths)))
    assert result == batches(lengths, batch_size, seed, epoch)
    assert len(result) == -(-len(lengths) // batch_size)
    if result:
        sizes = [len(batch) for batch in result]
        assert max(sizes) <= min(batch_size, min(sizes) + 1)
        longest = [max(lengths[row] for row in batch) for batch in result]
        assert longest[0] == max(longest)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 100), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_pieces_joined_are_the_undivided_batches(n, size, pieces, epoch):
    lengths = np.random.default_rng(n).integers(1, 100, size=n)
    whole = batches(lengths, size * pieces, epoch=epoch)
    divided = batches(lengths, size * pieces, epoch=epoch, pieces=pieces)
    sampler = LengthGroupedBatches(lengths, size * pieces, 0, lambda: 0, pieces)
    assert len(divided) == len(whole) * pieces == len(sampler)
    assert all(1 <= len(piece) <= size for piece in divided)
    for i, batch in enumerate(whole):
        joined = [row for piece in divided[i * pieces : (i + 1) * pieces] for row in piece]
        if len(batch) < pieces:  # the first row is repeated
            joined = joined[: len(batch)]
        assert joined == batch


def test_the_order_depends_on_epoch_and_seed_only():
    lengths = np.random.default_rng(0).integers(5, 300, size=500)
    first = batches(lengths)
    assert first != batches(lengths, epoch=1)
    assert first != batches(lengths, seed=1)
    np.random.seed(7)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert first == batches(lengths)
    assert torch.equal(state, torch.get_rng_state())
    assert np.random.random() == np.random.RandomState(7).random()


def test_the_epoch_is_read_at_the_start_of_each_iteration():
    epoch = 0
    sampler = LengthGroupedBatches(np.arange(1, 101), 4, 0, lambda: epoch)
    first = list(sampler)
    epoch = 1
    assert list(sampler) == batches(np.arange(1, 101), epoch=1) != first


def test_little_padding_and_other_batches_in_each_epoch():
    lengths = np.random.default_rng(0).lognormal(4.5, 0.8, size=5000).astype(int).clip(5, 512)

    def padding(batches_of_rows):
        padded = sum(len(rows) * lengths[rows].max() for rows in batches_of_rows)
        return 1 - lengths.sum() / padded

    assert padding(batches(lengths, 16)) < 0.05
    assert padding(np.array_split(np.random.default_rng(0).permutation(5000), 313)) > 0.5
    # The rows of a batch are spread over many batches of the next epoch.
    batch = {row: i for i, rows in enumerate(batches(lengths, 16, epoch=1)) for row in rows}
    n_batches = [len({batch[row] for row in batches(lengths, 16)[i]}) for i in (0, 100)]
    assert min(n_batches) > 5
