"""Training against perturbed weights, and on mixtures of texts."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from shared.errors import UserError

if TYPE_CHECKING:
    from shared.model_arguments import TuningArguments


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
    `shared.losses` takes the proportions as labels.

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
