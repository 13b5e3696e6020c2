"""Pooling: plain computation row by row, padding, rows of padding alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.pooling import POOLINGS, LayerPooling, Pooling

WIDTH = 5


def plain(kind, states, last_tokens=1):
    """Pool the real states (length, width) of one text, in NumPy."""
    if kind == "first":
        return states[0]
    if kind == "last":
        return states[-last_tokens:].mean(0)
    if kind == "max":
        return states.max(0)
    if kind == "mean_max":
        return np.concatenate([states.mean(0), states.max(0)])
    return states.mean(0)


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    left=st.booleans(),
    last_tokens=st.integers(1, 8),
    kind=st.sampled_from(POOLINGS),
    seed=st.integers(0, 99),
)
@settings(max_examples=120, deadline=None)
def test_each_row_is_pooled_over_its_real_tokens(lengths, left, last_tokens, kind, seed):
    rng = np.random.default_rng(seed)
    longest = max(*lengths, 1)
    states = rng.normal(size=(len(lengths), longest, WIDTH)).astype(np.float32)
    mask = np.arange(longest) < np.array(lengths)[:, None]
    if left:
        mask = mask[:, ::-1].copy()
    pooling = Pooling(kind, WIDTH, last_tokens)
    if kind == "attention":  # as it starts
        torch.nn.init.zeros_(pooling.context.weight)
    found = pooling(torch.from_numpy(states), torch.from_numpy(mask.astype(np.int64)))
    assert found.shape == (len(lengths), pooling.out_width)
    for row, length in enumerate(lengths):
        expected = np.zeros(pooling.out_width)
        if length:
            expected = plain(kind, states[row][mask[row]], last_tokens)
        np.testing.assert_allclose(found[row].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_row_of_padding_alone_has_finite_gradients(kind):
    torch.manual_seed(0)
    pooling = Pooling(kind, WIDTH)
    states = torch.randn(2, 3, WIDTH, requires_grad=True)
    mask = torch.tensor([[0, 0, 0], [1, 1, 0]])
    pooling(states, mask).square().sum().backward()
    gradients = [states.grad, *(p.grad for p in pooling.parameters())]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert states.grad[0].eq(0).all()
    assert states.grad[1, 2].eq(0).all()


def test_attention_weighs_tokens_by_their_score():
    torch.manual_seed(0)
    pooling = Pooling("attention", WIDTH)
    states = torch.randn(1, 4, WIDTH)
    with torch.no_grad():
        score = pooling.context(torch.tanh(pooling.hidden(states[0, :3])))
        expected = (score.softmax(0) * states[0, :3]).sum(0)
        found = pooling(states, torch.tensor([[1, 1, 1, 0]]))[0]
    torch.testing.assert_close(found, expected)


def test_layers_are_averaged_or_put_side_by_side():
    layers = [torch.randn(2, 3, WIDTH) for _ in range(4)]
    averaged = LayerPooling("weighted", 2, WIDTH)
    torch.testing.assert_close(averaged(layers), (layers[2] + layers[3]) / 2)
    with torch.no_grad():
        averaged.weights.copy_(torch.tensor([0.0, 50.0]))
    torch.testing.assert_close(averaged(layers), layers[3])
    together = LayerPooling("concatenate", 3, WIDTH)
    assert together.out_width == 3 * WIDTH
    torch.testing.assert_close(together(layers), torch.cat(layers[1:], -1))
