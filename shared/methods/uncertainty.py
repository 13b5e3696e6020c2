"""How far a model doubts its predictions: Monte-Carlo dropout, BALD, and the variance of a label.

The uncertainty of uncertainty-aware self-training (Mukherjee and Awadallah 2020, "Uncertainty-aware
Self-training for Text Classification with Few Labels", arXiv 2006.15315). Dropout stays on while a
trained model predicts, so that each pass is the prediction of another model drawn from an
approximate posterior (Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation"). Where the
passes contradict each other, the model does not know; where all of them say one half, it knows that
the text is ambiguous.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shared.cli.errors import UserError
from shared.models.loading import has_dropout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# --- Monte-Carlo dropout -------------------------------------------------------------------------


class DropoutPasses(torch.nn.Module):
    """A classifier that reads each batch several times, with other units dropped in each pass.

    Only its dropout layers act as in a training; everything else is in evaluation mode.
    `trainer.predict` returns logits of shape (rows, passes, labels) as ``predictions``: one sweep
    over the rows, whose batches are loaded and padded once.

    A pass drops the same units for all texts and all of their tokens. So pass t is one model for
    all texts, as the method has it, and its predictions do not depend on the batch that a text is
    in, on the order of the batches, or on the number of processes.

    Parameters
    ----------
    model : PreTrainedModel
        A trained classifier.
    passes : int
        Number of passes, T of the paper.
    seed : int
        Decides which units are dropped.

    Raises
    ------
    UserError
        If `passes` is below 2, or if the model has no dropout.
    """

    def __init__(self, model: PreTrainedModel, passes: int, seed: int = 0):
        super().__init__()
        if passes < 2:
            raise UserError(f"--passes {passes}: must be 2 or more; one pass shows no uncertainty")
        if not has_dropout(model):
            raise UserError(
                "--uncertainty dropout: the model has no dropout, so all passes are the same; add "
                "--dropout 0.1, or take --uncertainty none"
            )
        self.model, self.passes, self.seed = model, passes, seed
        self.config = model.config

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the logits of all passes, (rows, passes, labels), for rows (rows, length)."""
        logits = []
        layers = [m for m in self.model.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]
        for number in range(self.passes):
            hooks = [
                layer.register_forward_hook(partial(_drop_units, seed=(self.seed, number, i)))
                for i, layer in enumerate(layers)
            ]
            try:
                output = self.model(input_ids=input_ids, attention_mask=attention_mask)
            finally:
                for hook in hooks:
                    hook.remove()
            logits.append(output.logits.float())
        return {"logits": torch.stack(logits, dim=1)}


def _drop_units(
    layer: torch.nn.Dropout, inputs: Any, output: torch.Tensor, *, seed: tuple[int, ...]
) -> torch.Tensor:
    """Drop units of what a dropout layer passes on: the same places of the last dimension."""
    kept = np.random.default_rng(seed).random(output.shape[-1]) >= layer.p
    mask = torch.from_numpy(kept).to(output.device, output.dtype)
    return output * mask / (1 - layer.p)


# --- from the passes to uncertainty --------------------------------------------------------------


def bald(probabilities: np.ndarray, *, single_label: bool) -> np.ndarray:
    """Return the information that the label of each text would give about the model, in nats.

    Bayesian Active Learning by Disagreement (Houlsby et al. 2011; equation 6 of the paper above):
    H(mean of p) - mean of H(p), with the `entropy` H.

    Parameters
    ----------
    probabilities : array of shape (rows, passes, labels)
    single_label : bool
        Whether each text has exactly one label.

    Returns
    -------
    float array of shape (rows,)
        From 0, where all passes agree.
    """
    information = entropy(probabilities.mean(axis=1), single_label=single_label)
    information -= entropy(probabilities, single_label=single_label).mean(axis=1)
    return information.clip(min=0)  # below it by a rounding error


def entropy(probabilities: np.ndarray, *, single_label: bool) -> np.ndarray:
    """Return the entropy of the labels in the last dimension, in nats, of shape (...).

    Parameters
    ----------
    probabilities : array of shape (..., labels)
    single_label : bool
        True: the entropy of one distribution over all labels. False: the sum of the entropies of
        labels that apply independently.
    """
    p = probabilities
    terms = _minus_p_log_p(p) if single_label else _minus_p_log_p(p) + _minus_p_log_p(1 - p)
    return terms.sum(axis=-1)


def _minus_p_log_p(p: np.ndarray) -> np.ndarray:
    return -p * np.log(np.where(p > 0, p, 1))  # 0 where p is 0


def label_variance(probabilities: np.ndarray, *, single_label: bool) -> np.ndarray:
    """Return the variance of the predicted label over the passes: float array (rows,).

    Section 3.3 of the paper above: the predictive variance that weighs a pseudo-label in the loss.
    With one label per text it is that of the probability of the predicted class; with several, the
    mean over all labels, each of which is predicted to apply or not.

    Parameters
    ----------
    probabilities : array of shape (rows, passes, labels)
    single_label : bool
    """
    variance = probabilities.var(axis=1)  # (rows, labels)
    if not single_label:
        return variance.mean(axis=1)
    best = probabilities.mean(axis=1).argmax(axis=1)
    return variance[np.arange(len(variance)), best]
