"""Ways through the latent space of a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def slerp(first: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    """Return a point on the arc between two vectors: spherical interpolation (Shoemake 1985).

    In high dimensions vectors of the normal distribution lie near a sphere. A straight line would
    pass through its inside, where no vector is drawn (White 2016, "Sampling Generative Networks").

    Parameters
    ----------
    first, second : tensors of shape (size,)
        The length of the point goes from that of the first to that of the second.
    share : float
        0 gives the first vector, 1 the second.
    """
    import torch

    lengths = first.norm(), second.norm()
    cosine = (first @ second / (lengths[0] * lengths[1])).clamp(-1, 1)
    angle = torch.arccos(cosine)
    length = (1 - share) * lengths[0] + share * lengths[1]
    if angle.sin() < 1e-6:  # the same direction, or opposite ones, with no single arc
        return (1 - share) * first + share * second
    directions = first / lengths[0], second / lengths[1]
    point = (
        torch.sin((1 - share) * angle) * directions[0] + torch.sin(share * angle) * directions[1]
    )
    return length * point / angle.sin()


def corner_grid(corners: torch.Tensor, side: int) -> torch.Tensor:
    """Return a square of vectors between four: (side * side, size), row by row.

    Parameters
    ----------
    corners : tensor of shape (4, size)
        Upper left and right, lower left and right.
    side : int
        Vectors of a row and of a column.
    """
    import torch

    shares = [i / max(side - 1, 1) for i in range(side)]
    return torch.stack(
        [
            slerp(slerp(corners[0], corners[2], down), slerp(corners[1], corners[3], down), right)
            for down in shares
            for right in shares
        ]
    )
