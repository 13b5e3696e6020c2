"""From the hidden states of tokens to one vector per text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

POOLINGS = ("first", "last", "mean", "max", "mean_max", "attention")


class Pooling(torch.nn.Module):
    """Make one vector of the hidden states of a text; padding has no say, on either side.

    A row of padding alone gives zeros.

    Parameters
    ----------
    kind : {"first", "last", "mean", "max", "mean_max", "attention"}
        The first token, as BERT was trained; the mean of the last `last_tokens` ones, for decoders,
        whose last token alone has seen all others; the mean of all, as sentence encoders were
        trained; the largest value of each dimension; both of these side by side, as in ULMFiT
        (Howard and Ruder 2018, section 3.3, without the last state); a mean weighted by a layer and
        a context vector (Yang et al. 2016, "Hierarchical Attention Networks for Document
        Classification", section 2.2), which starts as the plain mean.
    width : int
        Of a hidden state.
    last_tokens : int
        For "last".

    Raises
    ------
    ValueError
        For another kind.
    """

    def __init__(self, kind: str, width: int, last_tokens: int = 1):
        super().__init__()
        if kind not in POOLINGS:
            raise ValueError(f"pooling {kind!r}: there are {', '.join(POOLINGS)}")
        self.kind = kind
        self.last_tokens = last_tokens
        self.out_width = 2 * width if kind == "mean_max" else width
        if kind == "attention":
            self.hidden = torch.nn.Linear(width, width)
            self.context = torch.nn.Linear(width, 1, bias=False)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool states (rows, length, width) where the mask (rows, length) is 1."""
        real = mask.bool()
        if self.kind == "first":
            return _mean(states, real & (real.cumsum(1) == 1))
        if self.kind == "last":
            from_end = real.flip(1).cumsum(1).flip(1)
            return _mean(states, real & (from_end <= self.last_tokens))
        if self.kind == "mean":
            return _mean(states, real)
        if self.kind == "max":
            return _max(states, real)
        if self.kind == "mean_max":
            return torch.cat([_mean(states, real), _max(states, real)], dim=-1)
        score = self.context(torch.tanh(self.hidden(states))).squeeze(-1)
        score = score.float().masked_fill(~real, torch.finfo(torch.float32).min)
        weight = score.softmax(1) * real
        return (states * weight[..., None].to(states.dtype)).sum(1)


class LayerPooling(torch.nn.Module):
    """Make one sequence of hidden states of those of the last layers.

    Parameters
    ----------
    kind : {"concatenate", "weighted"}
        All of them side by side, as BERT's paper uses frozen features (Devlin et al. 2019, table
        7), or a learned weighted sum (Peters et al. 2018, "Deep contextualized word
        representations", equation 1), which starts as the plain mean.
    n_layers : int
        The last so many.
    width : int
        Of a hidden state.
    """

    def __init__(self, kind: str, n_layers: int, width: int):
        super().__init__()
        self.n_layers = n_layers
        self.out_width = width * n_layers if kind == "concatenate" else width
        self.weights = torch.nn.Parameter(torch.zeros(n_layers)) if kind == "weighted" else None

    def forward(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        """Combine the last of some layers, each of shape (rows, length, width)."""
        layers = layers[-self.n_layers :]
        if self.weights is None:
            return torch.cat(tuple(layers), dim=-1)
        shares = self.weights.softmax(0)
        return sum(
            share.to(layer.dtype) * layer for share, layer in zip(shares, layers, strict=True)
        )


def _mean(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    weight = chosen[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


def _max(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    smallest = torch.finfo(states.dtype).min
    largest = states.masked_fill(~real[..., None], smallest).amax(1)
    return largest * real.any(1, keepdim=True)
