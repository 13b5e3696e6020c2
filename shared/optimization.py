"""Which weights train, at which rate, and with which decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback

from shared.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

_NORMS = (
    *(torch.nn.LayerNorm, torch.nn.RMSNorm, torch.nn.GroupNorm),
    torch.nn.modules.batchnorm._BatchNorm,
)


def parameter_groups(
    model: PreTrainedModel,
    *,
    learning_rate: float,
    weight_decay: float,
    head_learning_rate: float | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Group parameters by rate and decay, for the optimiser.

    Biases and the parameters of normalisation layers do not decay. Which these are is decided by
    the type of the module and the shape of the parameter, not by names, which differ between
    architectures ("ln_f", "norm", "LayerNorm").

    Parameters
    ----------
    model : PreTrainedModel
        Frozen parameters are among the groups: what is unfrozen later is trained then.
    learning_rate : float
        Of the top layer of the encoder.
    weight_decay : float
    head_learning_rate : float, optional
        Of all that is not part of the encoder. None: `learning_rate`.
    layer_decay : float
        Factor of the rate from each layer to the one below, the embeddings below the first (Howard
        and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.2,
        take 1 / 2.6). 1: all layers alike.

    Returns
    -------
    list of dict
        For any optimiser of PyTorch: ``params``, ``lr`` and ``weight_decay``.
    """
    decays = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            decays[parameter] = parameter.dim() > 1 and not isinstance(module, _NORMS)
    depths = _depths(model)
    top = max(depths.values(), default=0)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for parameter, decay in decays.items():  # each once, also where two modules share it
        if parameter in depths:
            rate = learning_rate * layer_decay ** (top - depths[parameter])
        else:
            rate = learning_rate if head_learning_rate is None else head_learning_rate
        groups.setdefault((rate, weight_decay if decay else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def grouped_optimizer(
    args: TrainingArguments, model: PreTrainedModel
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return `--optim` over `parameter_groups`, for the Trainer's ``optimizer_cls_and_kwargs``.

    Parameters
    ----------
    args : TrainingArguments and `shared.model_arguments.TuningArguments`
    model : PreTrainedModel
    """
    optimizer, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    groups = parameter_groups(
        model,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        head_learning_rate=args.head_learning_rate,
        layer_decay=args.layer_decay,
    )
    return optimizer, {**settings, "params": groups}


def freeze(model: PreTrainedModel, what: str) -> int:
    """Freeze a part of the encoder; return the number of parameters that train.

    Parameters
    ----------
    model : PreTrainedModel
        What was frozen before is not any more. The head always trains.
    what : str
        "none"; "embeddings"; a number: these and so many layers, from the bottom; "all"; "gradual":
        all until `GradualUnfreezing` lets go of them.

    Raises
    ------
    UserError
        For another word, or more layers than there are.
    """
    depths = _depths(model)
    top = max(depths.values(), default=0)
    if what.isdecimal() and int(what) > top:
        raise UserError(f"--freeze {what}: the model has {top} layers")
    named = {"none": -1, "embeddings": 0, "all": top, "gradual": top}
    if what not in named and not what.isdecimal():
        raise UserError(
            f"--freeze {what}: must be none, embeddings, a number of layers, all or gradual"
        )
    _freeze_up_to(model, named[what] if what in named else int(what))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class GradualUnfreezing(TrainerCallback):
    """Train the head alone for an epoch, then with each epoch one more layer, from the top.

    So that the top settles before what lies below moves (Howard and Ruder 2018, "Universal Language
    Model Fine-tuning for Text Classification", section 3.3). After the last layer the embeddings
    train, too. The optimiser must hold all parameters from the start, as those of
    `parameter_groups` do; a resumed run goes on where it was.

    Raises
    ------
    UserError
        On several processes, which share only the gradients that there are at the start.
    """

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        """Unfreeze the next layer."""
        if args.world_size > 1:
            raise UserError("gradual unfreezing runs in one process; launch it without more")
        _freeze_up_to(model, len(layers(model)) - int(state.epoch or 0))


def unfreezing(what: str) -> list[TrainerCallback]:
    """Return the callbacks that `freeze` needs for the same word: one for "gradual"."""
    return [GradualUnfreezing()] if what == "gradual" else []


def layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Return the layers of an encoder or decoder, from the bottom.

    They are the longest list of modules of one type that it holds; a network without one has none.
    """
    lists = [
        module
        for module in model.base_model.modules()
        if isinstance(module, torch.nn.ModuleList) and len({type(child) for child in module}) == 1
    ]
    return max(lists, key=len, default=torch.nn.ModuleList())


def _freeze_up_to(model: PreTrainedModel, depth: int) -> None:
    depths = _depths(model)
    for parameter in model.parameters():
        parameter.requires_grad_(depths.get(parameter, depth + 1) > depth)


def _depths(model: PreTrainedModel) -> dict[torch.nn.Parameter, int]:
    """Depth of the encoder's parameters: 0 for the embeddings, then the layers from 1.

    What is registered before the layers, such as a projection of the embeddings, has depth 0, what
    follows them, such as a last normalisation, the depth of the last. A network that is no encoder
    below a head has embeddings, if any, and all else is its head.
    """
    encoder, stack = model.base_model, layers(model)
    depths = {p: i for i, layer in enumerate(stack, 1) for p in layer.parameters()}
    if encoder is model:
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                depths |= dict.fromkeys(module.parameters(), 0)
        return depths
    below = 0
    for parameter in encoder.parameters():
        if parameter in depths:
            below = len(stack)
        depths.setdefault(parameter, below)
    return depths
