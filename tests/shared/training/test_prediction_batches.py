"""Tests of `shared.training.prediction_batches`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.training.prediction_batches import prediction_batches


@given(
    lengths=st.lists(st.integers(1, 300), max_size=80),
    max_tokens=st.integers(1, 600),
    max_padding=st.integers(0, 100),
    max_rows=st.none() | st.integers(1, 20),
    multiple_of=st.sampled_from([1, 8]),
)
def test_every_row_is_in_one_batch_and_batches_keep_the_limits(
    lengths, max_tokens, max_padding, max_rows, multiple_of
):
    lengths = np.array(lengths, dtype=int)
    batches = prediction_batches(
        lengths,
        max_tokens=max_tokens,
        max_padding=max_padding,
        max_rows=max_rows,
        multiple_of=multiple_of,
    )
    order = np.concatenate([np.zeros(0, int), *batches])
    assert order.tolist() == np.argsort(-lengths, kind="stable").tolist()
    padded = -(-lengths // multiple_of) * multiple_of
    for batch in batches:
        tokens = len(batch) * padded[batch].max()
        assert len(batch) == 1 or tokens <= max_tokens
        assert tokens - padded[batch].sum() <= max_padding
        assert max_rows is None or len(batch) <= max_rows


def test_a_batch_ends_only_where_a_limit_is_reached():
    lengths = np.array([10, 10, 9, 4, 4, 4, 4])
    batches = prediction_batches(lengths, max_tokens=30, max_padding=2)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5, 6]]
    batches = prediction_batches(lengths, max_tokens=30, max_padding=2, max_rows=2)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2], [3, 4], [5, 6]]


@pytest.mark.parametrize(("multiple_of", "sizes"), [(1, [1, 1, 1]), (8, [2, 1])])
def test_padding_up_to_the_multiple_costs_nothing(multiple_of, sizes):
    lengths = np.array([16, 9, 8])
    batches = prediction_batches(lengths, max_tokens=64, max_padding=0, multiple_of=multiple_of)
    assert [len(batch) for batch in batches] == sizes
