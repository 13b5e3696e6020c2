"""Ways through the latent space."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.methods.latents import corner_grid, slerp


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_an_arc_keeps_length_and_angle(seed, share):
    torch.manual_seed(seed)
    first, second = torch.randn(2, 16, dtype=torch.float64)
    point = slerp(first, second, share)
    lengths = first.norm(), second.norm()
    assert torch.isclose(point.norm(), (1 - share) * lengths[0] + share * lengths[1])

    def angle(a, b):
        return torch.arccos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))

    assert torch.isclose(angle(first, point), share * angle(first, second), atol=1e-6)


def test_the_same_vector_twice_has_no_arc():
    vector = torch.ones(4)
    assert torch.equal(slerp(vector, vector, 0.5), vector)


def test_a_grid_has_its_corners():
    corners = torch.eye(4)
    grid = corner_grid(corners, 3).reshape(3, 3, 4)
    for corner, place in zip(corners, ((0, 0), (0, 2), (2, 0), (2, 2)), strict=True):
        assert torch.allclose(grid[place], corner, atol=1e-6)
