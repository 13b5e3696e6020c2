"""Which weights train, at which learning rate, with which decay and which perturbations."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import Trainer, TrainerCallback

from shared.cli.arguments import flag
from shared.cli.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments


@dataclass
class TuningArguments:
    """Flags about what trains, how fast, and against what (see `shared.training.optimization` and
    `shared.training.optimization`)."""

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


# --- parameter groups and freezing ---------------------------------------------------------------


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
    args : TrainingArguments and `shared.training.optimization.TuningArguments`
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


def unfreezing_callbacks(what: str) -> list[TrainerCallback]:
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


# --- adversarial weights and mixup ---------------------------------------------------------------


class AdversarialWeights:
    """Move weights a little against the model, for `LengthGroupedTrainer(adversary=...)`.

    Each step is taken on the loss at the weights as they are plus the loss at the worst weights
    near by, as far as the gradient tells: twice the time. Moving the embeddings is the adversarial
    training of Miyato, Dai and Goodfellow (2017, "Adversarial Training Methods for Semi-Supervised
    Text Classification", section 3) with the same perturbation for all places of a token; moving
    all matrices is that of Wu, Xia and Wang (2020, "Adversarial Weight Perturbation Helps Robust
    Generalization", equation 7).

    Parameters
    ----------
    epsilon : float
        Length of the step of a matrix, as a share of its own length (Frobenius norm); .001 to .05.
    what : {"embeddings", "weights"}
    """

    def __init__(self, epsilon: float, what: Literal["embeddings", "weights"] = "embeddings"):
        self.epsilon = epsilon
        self.what = what

    @contextlib.contextmanager
    def against(self, model: torch.nn.Module) -> Iterator[None]:
        """Move the weights along the gradients that they hold, and put them back exactly."""
        before = {}
        with torch.no_grad():
            for weight in self._weights(model):
                length = weight.grad.norm()
                if length > 0 and torch.isfinite(length):
                    before[weight] = weight.clone()
                    weight.add_(weight.grad, alpha=float(self.epsilon * weight.norm() / length))
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in before.items():
                    weight.copy_(value)

    def _weights(self, model: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
        if self.what == "embeddings":
            chosen = [model.get_input_embeddings().weight]
        else:
            chosen = [p for p in model.parameters() if p.dim() > 1]
        return (weight for weight in chosen if weight.grad is not None)


class Mixup:
    """Train on mixtures of two texts and of their labels, for `LengthGroupedTrainer(mixup=...)`.

    The embeddings of the tokens are mixed place by place, and the labels in the same proportion
    (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", equation 2; Guo, Mao and Zhang
    2019, "Augmenting Data with Mixup for Sentence Classification", wordMixup). A loss of
    `shared.training.losses` takes the proportions as labels.

    Parameters
    ----------
    alpha : float
        Of the beta distribution that proportions are drawn from: small ones mix little, 1 in any
        proportion alike.
    """

    def __init__(self, alpha: float):
        self.alpha = alpha

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor], seed: tuple[int, ...]
    ) -> dict[str, torch.Tensor]:
        """Mix each row of a batch with another one.

        Parameters
        ----------
        model : PreTrainedModel
            Whose embeddings are mixed.
        batch : dict
            ``input_ids`` and ``attention_mask`` (rows, length), float ``labels`` (rows, labels).
        seed : tuple of int
            Of the proportions and partners; no generator is touched.

        Returns
        -------
        dict
            With ``inputs_embeds`` (rows, length, width) in the place of ``input_ids``; a place
            counts where either text has a token.

        Raises
        ------
        UserError
            For a model that takes no embeddings.
        """
        if "inputs_embeds" not in inspect.signature(model.forward).parameters:
            raise UserError(f"mixup: {type(model).__name__} takes no embeddings to mix")
        rng = np.random.default_rng(seed)
        labels, mask = batch["labels"], batch["attention_mask"]
        share = rng.beta(self.alpha, self.alpha, len(labels)).astype(np.float32)
        share = torch.from_numpy(share).to(labels.device)
        partner = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
        embeds = model.get_input_embeddings()(batch["input_ids"]) * mask[..., None]
        kept = {k: v for k, v in batch.items() if k != "input_ids"}
        return {
            **kept,
            "inputs_embeds": _mix(embeds, embeds[partner], share),
            "attention_mask": mask | mask[partner],
            "labels": _mix(labels, labels[partner], share),
        }


def regularizers(args: TuningArguments) -> dict[str, AdversarialWeights | Mixup | None]:
    """Return what the flags ask for, as `LengthGroupedTrainer` takes it."""
    return {
        "adversary": AdversarialWeights(args.adversary, args.adversary_moves)
        if args.adversary
        else None,
        "mixup": Mixup(args.mixup) if args.mixup else None,
    }


def _mix(these: torch.Tensor, those: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    share = share.view(-1, *[1] * (these.dim() - 1)).to(these.dtype)
    return share * these + (1 - share) * those
