"""The flags of a `PooledForSequenceClassification`, and their checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from shared.cli.arguments import flag
from shared.cli.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class HeadArguments:
    """Flags of recipes that train a `PooledForSequenceClassification`."""

    pooling: Literal["first", "last", "mean", "max", "mean_max", "attention"] = flag(
        "mean",
        "Pooling of the hidden states of a text into one vector: the first token, the last ones, "
        "the mean, the maximum, mean and maximum together, or attention (default: mean).",
    )
    last_tokens: int = flag(
        1, "With --pooling last: number of tokens at the end to average (default: 1).", least=1
    )
    n_layers: int = flag(
        1, "Number of layers that the head reads, counted from the last (default: 1).", least=1
    )
    layer_pooling: Literal["concatenate", "weighted"] = flag(
        "weighted",
        "With --n_layers 2 or more: concatenate the layers, or average them with learned weights "
        "(default: weighted).",
    )
    head_sizes: list[int] = flag(
        [], "Widths of the hidden layers of the head (default: none).", least=1, most=65_536
    )
    head_dropout: float = flag(
        0.1, "Dropout rate before each layer of the head (default: .1).", least=0, below=1
    )
    dropout_samples: int = flag(
        1,
        "Multi-sample dropout: number of dropout masks per text in training; their losses are "
        "averaged (default: 1).",
        least=1,
        most=1000,
    )


def head_settings(args: HeadArguments) -> dict[str, Any]:
    """Return the settings for `PooledForSequenceClassification.from_encoder`."""
    return {field.name: getattr(args, field.name) for field in fields(HeadArguments)}


def check_n_layers(n_layers: int, encoder: PreTrainedModel) -> None:
    """Check that an encoder has the layers that the head is to read.

    Raises
    ------
    UserError
        If ``--n_layers`` is above their number.
    """
    depth = encoder.config.num_hidden_layers
    if n_layers > depth:
        raise UserError(f"--n_layers {n_layers}: must be 1 to {depth}, the model's own")
