"""Optimisation: which weights train, their learning rates, and training on perturbed inputs.

In order: the flags; learning rate and weight decay per parameter; warm-up; freezing and gradual
unfreezing; the depth of a parameter; adversarial weights; mixup.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import Trainer, TrainerCallback

from shared.cli.arguments import flag
from shared.cli.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

# --- flags ---------------------------------------------------------------------------------------


@dataclass
class TuningArguments:
    """Flags for frozen layers, learning rates per layer, adversarial training and mixup."""

    freeze: str = flag(
        "none",
        "Part of the encoder to freeze: none, embeddings, K (the embeddings and the first K "
        "layers), all; gradual: all in the first epoch, then one layer less in each epoch, from "
        "the top (default: none).",
    )
    head_learning_rate: float | None = flag(
        None, "Learning rate of the classification head (default: --learning_rate).", above=0
    )
    layer_decay: float = flag(
        1.0,
        "Factor by which the learning rate changes from each layer to the layer below (default: "
        "1, the same for all).",
        above=0,
        most=10,
    )
    adversary: float = flag(
        0.0,
        "Adversarial training: train in each step also on weights that are moved by this share of "
        "their norm to raise the loss, such as .01. Takes twice the time (default: 0, off).",
        least=0,
        below=1,
    )
    adversary_moves: Literal["embeddings", "weights"] = flag(
        "embeddings",
        "Weights that --adversary moves: the word embeddings, or all matrices (default: "
        "embeddings).",
    )
    mixup: float = flag(
        0.0,
        "Train on mixtures of two texts, in proportions from the distribution Beta(X, X) "
        "(default: 0, off).",
        least=0,
        below=100,
    )


def check_tuning(args: TuningArguments) -> None:
    """Check that the flags fit together.

    Raises
    ------
    UserError
        If they do not.
    """
    if args.adversary and args.adversary_moves == "embeddings" and args.freeze != "none":
        raise UserError(
            f"--adversary: with --freeze {args.freeze} the embeddings have no gradient along which "
            "to move them; use --adversary_moves weights"
        )


# --- learning rate and weight decay per parameter ------------------------------------------------

_NORM_LAYERS = (
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
    """Group the parameters by learning rate and weight decay, for an optimiser.

    Biases and the parameters of normalisation layers get no weight decay. They are recognised by
    the type of the module and the shape of the parameter, because their names differ between
    architectures ("ln_f", "norm", "LayerNorm").

    Parameters
    ----------
    model : PreTrainedModel
        Frozen parameters are in the groups, too, so that they train if they are unfrozen later.
    learning_rate : float
        Learning rate of the top layer of the encoder.
    weight_decay : float
    head_learning_rate : float, optional
        Learning rate of all parameters outside the encoder. None: `learning_rate`.
    layer_decay : float
        Factor of the learning rate from each layer to the layer below, and from the first layer to
        the embeddings. Howard and Ruder (2018, "Universal Language Model Fine-tuning for Text
        Classification", section 3.2) use 1 / 2.6. 1: the same rate for all layers.

    Returns
    -------
    list of dict
        For any optimiser of PyTorch: ``params``, ``lr`` and ``weight_decay``.
    """
    decays = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            decays[parameter] = parameter.dim() > 1 and not isinstance(module, _NORM_LAYERS)
    depths = _depths(model)
    top = max(depths.values(), default=0)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    # A dict of parameters holds one that two modules share only once, as an optimiser requires.
    for parameter, decay in decays.items():
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
    args: TrainingArguments, model: PreTrainedModel, **rates: Any
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return the optimiser of ``--optim`` and its arguments, with `parameter_groups`.

    The pair is for the Trainer's ``optimizer_cls_and_kwargs``.

    Parameters
    ----------
    args : TrainingArguments
        Must also be `TuningArguments`, unless there are `rates`.
    model : PreTrainedModel
    **rates
        Learning rates, as for `parameter_groups`. Default: those of the flags.
    """
    names = ("learning_rate", "head_learning_rate", "layer_decay")
    optimizer, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    rates = rates or {name: getattr(args, name) for name in names}
    groups = parameter_groups(model, weight_decay=args.weight_decay, **rates)
    # The Trainer uses these groups instead of its own because of the key "params".
    return optimizer, {**settings, "params": groups}


# --- warm-up -------------------------------------------------------------------------------------


def warm_up_at_constant_rate(
    schedule: torch.optim.lr_scheduler.LRScheduler, n_steps: int, factor: float
) -> None:
    """Keep the learning rate constant during the warm-up, instead of raising it from 0.

    Parameters
    ----------
    schedule : LambdaLR
        As transformers makes it, before its first step. Changed in place.
    n_steps : int
        Number of warm-up steps.
    factor : float
        Learning rate of these steps, as a share of the peak (`torch.optim.lr_scheduler.ConstantLR`
        does the same on a schedule without decay).

    Raises
    ------
    UserError
        If there are no warm-up steps, or the schedule depends on the metrics.
    """
    if not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
        raise UserError("--warmup_factor: this --lr_scheduler_type has no warm-up")
    if not n_steps:
        raise UserError("--warmup_factor: there are no warm-up steps; give --warmup_steps")

    def warmed_up(share_at: Callable[[int], float]) -> Callable[[int], float]:
        return lambda step: factor if step < n_steps else share_at(step)

    schedule.lr_lambdas = [warmed_up(share_at) for share_at in schedule.lr_lambdas]
    # The schedule has already set the rate of the first step.
    for group, base, share_at in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * share_at(0)


# --- freezing and gradual unfreezing -------------------------------------------------------------


def freeze(model: PreTrainedModel, part: str) -> int:
    """Freeze a part of the encoder; return the number of parameters that train.

    Parameters
    ----------
    model : PreTrainedModel
        Parameters outside `part` are unfrozen, also those that were frozen before. The head always
        trains.
    part : str
        "none"; "embeddings"; a number K: the embeddings and the first K layers, from the bottom;
        "all": the whole encoder; "gradual": the whole encoder, for `GradualUnfreezing`.

    Raises
    ------
    UserError
        If `part` is another word, or a number above the number of layers.
    """
    depths = _depths(model)
    top = max(depths.values(), default=0)
    if part.isdecimal() and int(part) > top:
        raise UserError(f"--freeze {part}: the model has {top} layers; give at most {top}")
    named_depths = {"none": -1, "embeddings": 0, "all": top, "gradual": top}
    if part not in named_depths and not part.isdecimal():
        raise UserError(
            f"--freeze {part}: must be none, embeddings, a number of layers, all or gradual"
        )
    _freeze_up_to(model, named_depths[part] if part in named_depths else int(part))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class GradualUnfreezing(TrainerCallback):
    """Train only the head in the first epoch, then one more layer in each epoch, from the top.

    So the upper layers have adapted before the lower layers change (Howard and Ruder 2018,
    "Universal Language Model Fine-tuning for Text Classification", section 3.3). One epoch after
    the last layer, the embeddings train, too. The optimiser must hold all parameters from the
    start, as with `parameter_groups`. The state follows from the epoch, so a resumed run continues
    correctly.

    Raises
    ------
    UserError
        On several processes. `DistributedDataParallel` synchronises only the gradients of the
        parameters that train when it wraps the model.
    """

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        """Unfreeze the next layer."""
        if args.world_size > 1:
            raise UserError(
                "--freeze gradual: gradual unfreezing runs in one process only; launch one process"
            )
        _freeze_up_to(model, len(layers(model)) - int(state.epoch or 0))


def unfreezing_callbacks(part: str) -> list[TrainerCallback]:
    """Return the callbacks that `freeze` needs for the same value: one for "gradual"."""
    return [GradualUnfreezing()] if part == "gradual" else []


def _freeze_up_to(model: PreTrainedModel, depth: int) -> None:
    """Freeze the parameters of the encoder up to a depth; -1 freezes none."""
    depths = _depths(model)
    for parameter in model.parameters():
        # Parameters of the head have no depth and count as deeper than `depth`.
        parameter.requires_grad_(depths.get(parameter, depth + 1) > depth)


# --- depth of a parameter ------------------------------------------------------------------------


def layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Return the layers of an encoder or decoder, from the bottom.

    No attribute name holds for all architectures. The layers are the longest `ModuleList` whose
    modules all have the same type; the list is empty if there is none.
    """
    lists = [
        module
        for module in model.base_model.modules()
        if isinstance(module, torch.nn.ModuleList) and len({type(child) for child in module}) == 1
    ]
    return max(lists, key=len, default=torch.nn.ModuleList())


def _depths(model: PreTrainedModel) -> dict[torch.nn.Parameter, int]:
    """Return the depth of each parameter of the encoder: 0 for the embeddings, 1 for layer 1, ...

    Parameters that are registered before the layers, such as a projection of the embeddings, have
    depth 0. Those registered after them, such as a last normalisation, have the depth of the last
    layer. Parameters of the head are not in the dict. In a network that is not an encoder with a
    head, only the embeddings have a depth, and all other parameters count as head.
    """
    encoder, stack = model.base_model, layers(model)
    depths = {p: i for i, layer in enumerate(stack, 1) for p in layer.parameters()}
    # A network without a separate encoder is its own base model.
    if encoder is model:
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                depths |= dict.fromkeys(module.parameters(), 0)
        return depths
    # Parameters come in the order of registration, so those of the layers mark where the rest lies:
    # depth 0 until the first of them, the depth of the last layer after it.
    depth = 0
    for parameter in encoder.parameters():
        if parameter in depths:
            depth = len(stack)
        depths.setdefault(parameter, depth)
    return depths


# --- adversarial weights -------------------------------------------------------------------------


class AdversarialWeights:
    """Move weights a little to raise the loss, for `LengthGroupedTrainer(adversary=...)`.

    Each step of the optimiser uses the gradient of the loss at the current weights plus that at the
    moved weights. The weights move along their gradient, which is the worst direction to first
    order. A step takes twice the time. To move the embeddings is the adversarial training of
    Miyato, Dai and Goodfellow (2017, "Adversarial Training Methods for Semi-Supervised Text
    Classification", section 3), but with the same perturbation wherever a token occurs. To move all
    matrices is that of Wu, Xia and Wang (2020, "Adversarial Weight Perturbation Helps Robust
    Generalization", equation 7).

    Parameters
    ----------
    epsilon : float
        Norm of the move of a matrix, as a share of the norm of the matrix (Frobenius norm). Useful
        values: .001 to .05.
    target : {"embeddings", "weights"}
        Move the word embeddings, or all matrices.
    """

    def __init__(self, epsilon: float, target: Literal["embeddings", "weights"] = "embeddings"):
        self.epsilon = epsilon
        self.target = target

    @contextlib.contextmanager
    def against(self, model: PreTrainedModel) -> Iterator[None]:
        """Move the weights along the gradients they hold; restore them exactly afterwards."""
        # Copies, because subtracting the move again would leave a rounding error.
        before = {}
        with torch.no_grad():
            for weight in self._weights(model):
                gradient = weight.grad
                assert gradient is not None  # see `_weights`
                norm = gradient.norm()
                if norm > 0 and torch.isfinite(norm):
                    before[weight] = weight.clone()
                    weight.add_(gradient, alpha=float(self.epsilon * weight.norm() / norm))
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in before.items():
                    weight.copy_(value)

    def _weights(self, model: PreTrainedModel) -> Iterator[torch.nn.Parameter]:
        """Return the weights to move that have a gradient; frozen ones have none."""
        if self.target == "embeddings":
            weights = [model.get_input_embeddings().weight]
        else:
            weights = [p for p in model.parameters() if p.dim() > 1]
        return (weight for weight in weights if weight.grad is not None)


# --- mixup ---------------------------------------------------------------------------------------


class Mixup:
    """Train on mixtures of two texts and their labels, for `LengthGroupedTrainer(mixup=...)`.

    The token embeddings are mixed position by position, and the labels in the same proportion
    (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", equation 2; Guo, Mao and Zhang
    2019, "Augmenting Data with Mixup for Sentence Classification", wordMixup). The losses of
    `shared.training.losses` accept such fractional labels.

    Parameters
    ----------
    alpha : float
        The proportions are drawn from the distribution Beta(alpha, alpha). With a small alpha one
        of the two texts dominates; with 1 all proportions are equally likely.
    """

    def __init__(self, alpha: float):
        self.alpha = alpha

    def __call__(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor], seed: tuple[int, ...]
    ) -> dict[str, torch.Tensor]:
        """Mix each row of a batch with another row of it.

        Parameters
        ----------
        model : PreTrainedModel
            Its input embeddings are mixed.
        batch : dict
            ``input_ids`` and ``attention_mask`` (rows, length), float ``labels`` (rows, labels).
        seed : tuple of int
            Seed of the proportions and partners. No global generator is used or changed.

        Returns
        -------
        dict
            The batch with ``inputs_embeds`` (rows, length, width) instead of ``input_ids``. The
            attention mask is 1 where at least one of the two texts has a token.

        Raises
        ------
        UserError
            If the model does not accept embeddings.
        """
        if "inputs_embeds" not in inspect.signature(model.forward).parameters:
            raise UserError(
                f"mixup: {type(model).__name__} takes no embeddings to mix; train without --mixup"
            )
        rng = np.random.default_rng(seed)
        labels, mask = batch["labels"], batch["attention_mask"]
        proportions = rng.beta(self.alpha, self.alpha, len(labels)).astype(np.float32)
        share = torch.from_numpy(proportions).to(labels.device)  # (rows,), of the row itself
        partner = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
        # Padding gets embeddings of 0, so the end of a longer text is mixed with zeros.
        embeds = model.get_input_embeddings()(batch["input_ids"]) * mask[..., None]
        others = {k: v for k, v in batch.items() if k != "input_ids"}
        return {
            **others,
            "inputs_embeds": _mix(embeds, embeds[partner], share),
            "attention_mask": mask | mask[partner],
            "labels": _mix(labels, labels[partner], share),
        }


def _mix(first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return the mean of two tensors, with weights `share` (rows,) and 1 - `share`."""
    share = share.view(-1, *[1] * (first.dim() - 1)).to(first.dtype)  # (rows, 1, ...)
    return share * first + (1 - share) * second


def regularizers(args: TuningArguments) -> dict[str, AdversarialWeights | Mixup | None]:
    """Return the arguments of `LengthGroupedTrainer` for ``--adversary`` and ``--mixup``."""
    adversary = AdversarialWeights(args.adversary, args.adversary_moves) if args.adversary else None
    return {"adversary": adversary, "mixup": Mixup(args.mixup) if args.mixup else None}
