"""The flags of a `Forecaster`, and how one is built or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.models.own_models import load_own_model

if TYPE_CHECKING:
    from shared.models.forecasters import Forecaster

# The published linear models measure from the mean of a column. A network that repeats the last
# value has little to learn where values change slowly; PatchTST scales each window.
_CENTRING = {"linear": "none", "dlinear": "none", "transformer": "window"}


@dataclass
class ForecasterArguments:
    """Flags of recipes that train a `Forecaster`."""

    architecture: Literal["linear", "dlinear", "rnn", "lstm", "gru", "transformer"] = flag(
        "dlinear",
        "linear: a linear layer from the past of a column to its future; dlinear: two, on its "
        "moving average and on the rest; rnn (Elman), lstm, gru: a recurrent network over all "
        "columns; transformer: attention over patches of a column (default: dlinear).",
    )
    centring: Literal["none", "last", "window"] | None = flag(
        None,
        "What a window is measured from: the means of the training part (none), its last values "
        "(last; with linear this is NLinear), or its own mean and standard deviation (window) "
        "(default: linear and dlinear none, recurrent last, transformer window).",
    )
    kernel_size: int = flag(
        25, "dlinear: steps of the moving average, an odd number (default: 25).", least=1, most=9999
    )
    individual: bool = flag(
        False, "linear, dlinear: each column has weights of its own (default: false)."
    )
    hidden_size: int = flag(
        64,
        "rnn, lstm, gru: width of the state; transformer: of the hidden states (default: 64).",
        least=1,
        most=65_536,
    )
    num_layers: int = flag(
        1, "rnn, lstm, gru, transformer: number of layers (default: 1).", least=1, most=1000
    )
    nonlinearity: Literal["tanh", "relu"] = flag(
        "tanh", "rnn: function that the state passes (default: tanh)."
    )
    num_attention_heads: int = flag(
        4, "transformer: number of attention heads per layer (default: 4).", least=1, most=1024
    )
    patch_size: int = flag(
        16, "transformer: steps of a patch (default: 16).", least=1, most=100_000
    )
    patch_stride: int = flag(
        8, "transformer: steps from one patch to the next (default: 8).", least=1, most=100_000
    )
    dropout: float = flag(
        0.0,
        "rnn, lstm, gru, transformer: dropout rate on the states (default: 0).",
        least=0,
        below=1,
    )


def build_forecaster(args: Any, **settings: Any) -> Forecaster:
    """Build a forecaster with random weights.

    Parameters
    ----------
    args : ForecasterArguments
        A subclass of it that also has the flags `input_size` and `horizon`.
    **settings
        The other settings of `ForecasterConfig`: `columns`, `targets`, `mean` and `scale`.

    Raises
    ------
    UserError
        If sizes do not fit each other.
    """
    from shared.models.forecasters import Forecaster, ForecasterConfig

    if args.architecture == "dlinear" and args.kernel_size % 2 == 0:
        raise UserError(f"--kernel_size {args.kernel_size}: must be odd")
    if args.architecture == "transformer":
        if args.hidden_size % args.num_attention_heads:
            raise UserError(
                f"--hidden_size {args.hidden_size}: must be a multiple of --num_attention_heads, "
                f"{args.num_attention_heads}"
            )
        if args.patch_size > args.input_size + args.patch_stride:
            raise UserError(
                f"--patch_size {args.patch_size}: is longer than --input_size {args.input_size} "
                "and one --patch_stride"
            )
    names = (
        *("architecture", "input_size", "horizon", "kernel_size", "individual", "hidden_size"),
        *("num_layers", "nonlinearity", "num_attention_heads", "patch_size", "patch_stride"),
        "dropout",
    )
    own: dict[str, Any] = {name: getattr(args, name) for name in names}
    own["centring"] = args.centring or _CENTRING.get(args.architecture, "last")
    return Forecaster(ForecasterConfig(**own, **settings))


def load_forecaster(name: str) -> Forecaster:
    """Load a saved forecaster, in evaluation mode.

    Parameters
    ----------
    name : str
        A folder, or a hub id.

    Raises
    ------
    UserError
        If it is no forecaster, or its weights are missing or damaged.
    """
    from shared.models.forecasters import Forecaster

    return load_own_model(name, Forecaster, "forecaster", "series")
