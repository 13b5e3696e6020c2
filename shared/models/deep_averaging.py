"""A deep averaging network: its flags, and how it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shared.cli.arguments import flag

if TYPE_CHECKING:
    from shared.models.networks import TextMLPForSequenceClassification


@dataclass
class MLPArguments:
    """Flags of recipes that train a deep averaging network (Iyyer et al. 2015)."""

    embedding_size: int = flag(64, "Width of the word vectors (default: 64).", least=1, most=65_536)
    hidden_size: int = flag(64, "Width of the hidden layers (default: 64).", least=1, most=65_536)
    num_layers: int = flag(4, "Number of hidden layers (default: 4).", least=1, most=100)
    activation: Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu", "silu"] = flag(
        "relu", "Activation function of the hidden layers (default: relu)."
    )
    normalization: Literal["none", "batch", "layer"] = flag(
        "none", "Normalisation before each activation (default: none)."
    )
    dropout: float = flag(
        0.0, "Dropout rate on word vectors and hidden layers (default: 0).", least=0, below=1
    )


def build_mlp(args: MLPArguments, **settings: Any) -> TextMLPForSequenceClassification:
    """Build a deep averaging network with random weights.

    Parameters
    ----------
    args : MLPArguments
    **settings
        Further settings of the config, such as ``vocab_size`` and ``num_labels``.
    """
    from shared.models.networks import TextMLPConfig, TextMLPForSequenceClassification

    settings |= {name: getattr(args, name) for name in MLPArguments.__annotations__}
    return TextMLPForSequenceClassification(TextMLPConfig(**settings))
