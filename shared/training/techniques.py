"""Techniques of training to compare on one small network, and what their sources say of them.

`TECHNIQUES` has the settings of each technique, `run_arguments` makes them flags of a run, `CLAIMS`
has the sentences to check. All settings of a
technique differ in it alone, from the same defaults (and from `BASES`, where a technique shows only
away from the defaults).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

# Flags whose values a setting changes. `rate_factor` multiplies --learning_rate, `width_factor`
# --hidden_size, `step_factor` the number of steps.
Changes = Mapping[str, Any]

# Learning rates that suit an optimiser differ by orders of magnitude, so that each is tried with
# several and compared at its best one.
_ADAM_RATES = (0.3, 1.0, 3.0)
_MOMENTUM_RATES = (30.0, 100.0, 300.0)
_SGD_RATES = (100.0, 300.0, 1000.0)

TECHNIQUES: dict[str, dict[str, Changes]] = {
    "initialisation": {
        name: {"initialization": name}
        for name in ("zeros", "small", "large", "xavier", "kaiming", "lsuv")
    },
    "normalisation": {
        **{name: {"normalization": name} for name in ("none", "batch", "layer")},
        **{
            f"{name}, rate x 10": {"normalization": name, "rate_factor": 10.0}
            for name in ("none", "batch", "layer")
        },
    },
    # Each with the first weights that were made for it.
    "activation": {
        **{name: {"activation": name, "initialization": "xavier"} for name in ("sigmoid", "tanh")},
        **{
            name: {"activation": name, "initialization": "kaiming"}
            for name in ("relu", "leaky_relu", "gelu", "silu")
        },
    },
    "optimizer": {
        "sgd": {"optim": "sgd", "optim_args": "momentum=0", "rate_factor": _SGD_RATES},
        "momentum": {"optim": "sgd", "optim_args": "momentum=0.9", "rate_factor": _MOMENTUM_RATES},
        "nesterov": {
            "optim": "sgd",
            "optim_args": "momentum=0.9,nesterov=true",
            "rate_factor": _MOMENTUM_RATES,
        },
        "adagrad": {"optim": "adagrad", "rate_factor": (1.0, 10.0, 30.0)},
        "rmsprop": {"optim": "rmsprop", "rate_factor": _ADAM_RATES},
        "adamw": {"optim": "adamw_torch_fused", "rate_factor": _ADAM_RATES},
    },
    "schedule": {
        "constant": {"lr_scheduler_type": "constant", "warmup_steps": 0},
        "warm-up, constant": {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.1},
        "linear": {"lr_scheduler_type": "linear", "warmup_steps": 0},
        "warm-up, linear": {"lr_scheduler_type": "linear", "warmup_steps": 0.1},
        "warm-up at a tenth, linear": {
            "lr_scheduler_type": "linear",
            "warmup_steps": 0.1,
            "warmup_factor": 0.1,
        },
        "cosine": {"lr_scheduler_type": "cosine", "warmup_steps": 0},
        "cosine, 3 restarts": {
            "lr_scheduler_type": "cosine_with_restarts",
            "lr_scheduler_kwargs": {"num_cycles": 3},
            "warmup_steps": 0,
        },
        "inverse root": {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 0.1},
        "plateau": {
            "lr_scheduler_type": "reduce_lr_on_plateau",
            "lr_scheduler_kwargs": {"factor": 0.3, "patience": 1},
            "warmup_steps": 0,
        },
    },
    # A rate of p leaves a share 1 - p of the units, so that layers should be 1 / (1 - p) times as
    # wide (Srivastava et al. 2014, appendix A.2); four times is more.
    "dropout": {
        **{f"{rate:g}": {"dropout": rate} for rate in (0.0, 0.1, 0.2, 0.5)},
        **{
            f"{rate:g}, 4 x as wide": {"dropout": rate, "width_factor": 4}
            for rate in (0.0, 0.2, 0.5)
        },
    },
    "weight_decay": {
        "none": {"weight_decay": 0.0},
        **{f"AdamW, {decay:g}": {"weight_decay": decay} for decay in (0.1, 1.0, 10.0)},
        **{
            f"Adam with L2, {decay:g}": {"weight_decay": decay, "l2": True}
            for decay in (1e-4, 1e-3, 1e-2)
        },
    },
    "clipping": {
        "none": {"max_grad_norm": 0.0},
        **{f"norm {norm:g}": {"max_grad_norm": norm} for norm in (10.0, 1.0, 0.1)},
    },
    "batch_size": {
        **{f"{size}": {"per_device_train_batch_size": size} for size in (16, 64, 256)},
        "256, rate x 4": {"per_device_train_batch_size": 256, "rate_factor": 4.0},
        "256, as many steps as 64": {"per_device_train_batch_size": 256, "step_factor": 4.0},
    },
}

# Where a technique shows nothing at the defaults: Adam divides a gradient by its size, so that
# clipping matters with momentum at a high rate.
BASES: dict[str, Changes] = {
    "clipping": {"optim": "sgd", "optim_args": "momentum=0.9", "rate_factor": 300.0},
}


def run_arguments(args: Any, changes: Changes, seed: int) -> Any:
    """Return the flags of one run: the defaults with the changes of a setting.

    Parameters
    ----------
    args : TrainingArguments
        The defaults, with ``hidden_size``. They are not changed.
    changes : Changes
    seed : int

    Returns
    -------
    object of the class of `args`
        A run with other batches has other ``max_steps``, so that it sees as many texts.
    """
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    values, run_args = dict(changes), copy.copy(args)
    run_args.learning_rate *= values.pop("rate_factor", 1.0)
    run_args.hidden_size *= values.pop("width_factor", 1)
    factor = values.pop("step_factor", 1.0)
    for name, value in values.items():
        setattr(run_args, name, value)
    run_args.num_train_epochs *= factor
    if args.max_steps > 0:
        sizes = args.per_device_train_batch_size / run_args.per_device_train_batch_size
        run_args.max_steps = max(round(factor * sizes * args.max_steps), 1)
    run_args.seed = seed
    run_args.optim = OptimizerNames(run_args.optim)
    run_args.lr_scheduler_type = SchedulerType(run_args.lr_scheduler_type)
    return run_args


def departures(args: Any, changes: Changes) -> dict[str, Any]:
    """Return the changes that change something, so that equal runs are recognised as such."""
    factors = {"rate_factor": 1.0, "step_factor": 1.0, "width_factor": 1}
    return {
        name: value
        for name, value in changes.items()
        if value != (factors[name] if name in factors else getattr(args, name))
    }


def best_rate(losses: Mapping[float, float | None], learning_rate: float) -> tuple[float, str]:
    """Return the factor of the learning rate with the lowest loss, and a note about it.

    Parameters
    ----------
    losses : mapping of factor to validation loss
        None: the training diverged.
    learning_rate : float
        The rate that the factors multiply.
    """
    factor = min(losses, key=lambda f: math.inf if (loss := losses[f]) is None else loss)
    note = f"rate {factor * learning_rate:.2g}"
    if factor in (min(losses), max(losses)):
        note += f", {'lowest' if factor == min(losses) else 'highest'} tried"
    return factor, note


class Claim(NamedTuple):
    """What a source says of two settings of a technique, so that a measurement can contradict it.

    `figure` of `better` is expected to be lower (or higher) than that of `worse`.
    """

    technique: str
    sentence: str
    source: str
    better: str
    worse: str
    figure: str
    direction: Literal["lower", "higher"]


CLAIMS: Sequence[Claim] = (
    Claim(
        "initialisation",
        "Equal first weights of 0 make all units of a layer the same, and nothing is learned",
        "Goodfellow et al. 2016, section 8.4",
        "kaiming",
        "zeros",
        "train_loss",
        "lower",
    ),
    Claim(
        "initialisation",
        "Small first weights let activations vanish from layer to layer; variances of 2 / inputs "
        "keep them",
        "Glorot and Bengio 2010; He et al. 2015",
        "kaiming",
        "small",
        "signal_kept",
        "higher",
    ),
    Claim(
        "initialisation",
        "Large first weights generalise worse",
        "Glorot and Bengio 2010; Goodfellow et al. 2016, section 8.4",
        "kaiming",
        "large",
        "score",
        "higher",
    ),
    Claim(
        "initialisation",
        "With rectifiers, activations keep more of their size under Kaiming's than under Xavier's "
        "weights",
        "He et al. 2015, section 2.2",
        "kaiming",
        "xavier",
        "signal_kept",
        "higher",
    ),
    Claim(
        "initialisation",
        "Layers scaled on a batch (LSUV) keep activations of the same size",
        "Mishkin and Matas 2016",
        "lsuv",
        "xavier",
        "signal_kept",
        "higher",
    ),
    Claim(
        "normalisation",
        "Batch normalisation reaches the same score in fewer steps",
        "Ioffe and Szegedy 2015",
        "batch",
        "none",
        "steps",
        "lower",
    ),
    Claim(
        "normalisation",
        "Batch normalisation permits far higher learning rates",
        "Ioffe and Szegedy 2015",
        "batch, rate x 10",
        "none, rate x 10",
        "score",
        "higher",
    ),
    Claim(
        "normalisation",
        "Layer normalisation makes training faster, too, and needs no other rows of the batch",
        "Ba, Kiros and Hinton 2016",
        "layer",
        "none",
        "steps",
        "lower",
    ),
    Claim(
        "activation",
        "Deep networks train faster with rectifiers than with sigmoids",
        "Glorot, Bordes and Bengio 2011",
        "relu",
        "sigmoid",
        "steps",
        "lower",
    ),
    Claim(
        "activation",
        "GELU scores higher than ReLU",
        "Hendrycks and Gimpel 2016",
        "gelu",
        "relu",
        "score",
        "higher",
    ),
    Claim(
        "optimizer",
        "Momentum makes gradient descent faster",
        "Polyak 1964; Sutskever et al. 2013",
        "momentum",
        "sgd",
        "train_loss",
        "lower",
    ),
    Claim(
        "optimizer",
        "Adaptive rates reach the same score in fewer steps than momentum",
        "Kingma and Ba 2015",
        "adamw",
        "momentum",
        "steps",
        "lower",
    ),
    Claim(
        "optimizer",
        "Momentum generalises better than adaptive rates",
        "Wilson et al. 2017",
        "momentum",
        "adamw",
        "score",
        "higher",
    ),
    Claim(
        "schedule",
        "A rate that falls along a cosine ends with a lower training loss than a constant one",
        "Loshchilov and Hutter 2017",
        "cosine",
        "constant",
        "train_loss",
        "lower",
    ),
    Claim(
        "schedule",
        "Restarts reach a good score in fewer steps",
        "Loshchilov and Hutter 2017",
        "cosine, 3 restarts",
        "cosine",
        "steps",
        "lower",
    ),
    Claim(
        "schedule",
        "A gradual warm-up keeps the first gradients smaller than one at a constant factor",
        "Goyal et al. 2017, section 2.2",
        "warm-up, linear",
        "warm-up at a tenth, linear",
        "grad_norm",
        "lower",
    ),
    Claim(
        "dropout",
        "Dropout lowers the validation loss of a network that overfits",
        "Srivastava et al. 2014",
        "0.2",
        "0",
        "valid_loss",
        "lower",
    ),
    Claim(
        "dropout",
        "A half is too much for narrow layers: with wider ones the score is higher",
        "Srivastava et al. 2014, appendix A.2",
        "0.5, 4 x as wide",
        "0.5",
        "score",
        "higher",
    ),
    Claim(
        "weight_decay",
        "Weight decay lowers the validation loss of a network that overfits",
        "Krogh and Hertz 1992",
        "AdamW, 1",
        "none",
        "valid_loss",
        "lower",
    ),
    Claim(
        "weight_decay",
        "Decay apart from the gradient (AdamW) generalises better than L2 inside Adam",
        "Loshchilov and Hutter 2019",
        "AdamW, 1",
        "Adam with L2, 0.001",
        "score",
        "higher",
    ),
    Claim(
        "clipping",
        "Clipping the norm of the gradient lets a training at a high rate succeed",
        "Pascanu, Mikolov and Bengio 2013",
        "norm 1",
        "none",
        "score",
        "higher",
    ),
    Claim(
        "batch_size",
        "Large batches generalise worse than small ones, also after as many steps",
        "Keskar et al. 2017",
        "64",
        "256, as many steps as 64",
        "score",
        "higher",
    ),
    Claim(
        "batch_size",
        "A rate that grows with the batch makes up for fewer steps",
        "Goyal et al. 2017",
        "256, rate x 4",
        "256",
        "train_loss",
        "lower",
    ),
)
