"""The flags that say what a classifier is made of, and what of it trains."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from shared.arguments import flag
from shared.errors import UserError


@dataclass
class HeadArguments:
    """Flags about the head, of recipes that make it to measure (see `shared.classifier`)."""

    pooling: Literal["first", "last", "mean", "max", "mean_max", "attention"] = flag(
        "mean", "How the hidden states of a text become one vector (default: mean)."
    )
    last_tokens: int = flag(1, "Tokens that --pooling last averages (default: 1).")
    n_layers: int = flag(1, "Layers that the head reads, from the last down (default: 1).")
    layer_pooling: Literal["concatenate", "weighted"] = flag(
        "weighted", "How several layers are combined (default: weighted, by learned weights)."
    )
    head_sizes: list[int] = flag([], "Widths of hidden layers in the head (default: none).")
    head_dropout: float = flag(0.1, "Dropout ahead of every layer of the head (default: .1).")
    dropout_samples: int = flag(
        1, "Dropout masks per text, of which the losses are averaged (default: 1)."
    )


@dataclass
class TuningArguments:
    """Flags about what trains, how fast, and against what (see `shared.optimization` and
    `shared.regularization`)."""

    freeze: str = flag(
        "none",
        "What stays as it is: none, embeddings, the first K layers, all; gradual: all at first, "
        "then with each epoch a layer less, from the top (default: none).",
    )
    head_learning_rate: float | None = flag(None, "Of the head (default: --learning_rate).")
    layer_decay: float = flag(1.0, "Factor of the rate from a layer to the one below (default: 1).")
    adversary: float = flag(
        0.0,
        "Train against weights moved by this share of their length, such as .01, too, in twice "
        "the time (default: 0, off).",
    )
    adversary_moves: Literal["embeddings", "weights"] = flag(
        "embeddings", "What --adversary moves: the embeddings, or all matrices."
    )
    mixup: float = flag(
        0.0, "Train on mixtures of two texts, of shares drawn from beta(X, X) (default: 0, off)."
    )


def check_tuning(args: TuningArguments) -> None:
    """Refuse values out of range.

    Raises
    ------
    UserError
    """
    for name in ("head_learning_rate", "layer_decay"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} {value}: must be above 0")
    for name, end in (("adversary", 1), ("mixup", 100)):
        if not 0 <= getattr(args, name) < end:
            raise UserError(f"--{name} {getattr(args, name)}: must be 0 or more, below {end}")
    if args.adversary and args.adversary_moves == "embeddings" and args.freeze != "none":
        raise UserError(
            f"--adversary: --freeze {args.freeze} leaves the embeddings without gradients to move "
            "them along; give it --adversary_moves weights"
        )


def head_settings(args: HeadArguments) -> dict[str, Any]:
    """Return the flags as `PooledForSequenceClassification.from_encoder` takes them.

    Raises
    ------
    UserError
        For a value out of range.
    """
    if not 0 <= args.head_dropout < 1:
        raise UserError(f"--head_dropout {args.head_dropout}: must be 0 or more, below 1")
    for name in ("last_tokens", "dropout_samples"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be 1 or more")
    if any(size < 1 for size in args.head_sizes):
        raise UserError(f"--head_sizes {min(args.head_sizes)}: must be 1 or more")
    return {field.name: getattr(args, field.name) for field in fields(HeadArguments)}
