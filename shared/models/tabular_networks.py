"""A classifier of table rows: an ensemble of small networks over numbers and categories.

To load a saved model, import this module. The import registers the classes with transformers, and
``AutoModelForSequenceClassification`` then loads the folder.

Of this project, this file must import only `networks`, and that relatively: `save_pretrained`
copies it, and what it imports, into the folder of a model, so that transformers can load the folder
without this project, with ``trust_remote_code=True``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .networks import HiddenLayer

SCALINGS = ("standard", "robust")


class TabularConfig(PretrainedConfig):
    """Sizes of a `TabularForSequenceClassification`.

    Attributes
    ----------
    n_numbers : number of numeric columns.
    category_counts : number of categories of each categorical column.
    embedding_size : width of the vector of a category.
    hidden_size, num_layers : width and number of the hidden layers.
    activation, normalization : of the hidden layers, as in `networks.TextMLPConfig`.
    dropout : dropout rate after each hidden layer.
    members : number of networks whose probabilities are averaged.
    scaling : "standard": numbers have mean 0 and standard deviation 1 on the training rows;
        "robust": median 0 and a middle half of width 1, and x is then replaced by
        x / sqrt(1 + (x / 3)**2), which ends at -3 and 3 (Holzmüller et al. 2024, "Better by
        Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data", section 3).
    table : the columns of the table, for programs that read rows from files.
    """

    model_type = "tabular-ensemble"

    n_numbers: int = 0
    category_counts: list[int] | tuple[int, ...] = ()
    embedding_size: int = 8
    hidden_size: int = 64
    num_layers: int = 2
    activation: str = "elu"
    normalization: str = "batch"
    dropout: float | int = 0.3
    members: int = 8
    scaling: str = "standard"
    table: dict[str, Any] | None = None


class Preprocessing(nn.Module):
    """Fill gaps, scale numbers, and embed categories, by what the training rows hold.

    A missing number becomes the median, and an input of its own says that it is missing, if the
    column had gaps in the training rows. A category that these lack has the vector 0.
    """

    centre: torch.Tensor
    spread: torch.Tensor
    fill: torch.Tensor
    has_gaps: torch.Tensor
    is_known: torch.Tensor

    def __init__(self, config: TabularConfig):
        super().__init__()
        n, counts = config.n_numbers, list(config.category_counts)
        self.is_robust = config.scaling == "robust"
        for name, value in {"centre": 0.0, "spread": 1.0, "fill": 0.0, "has_gaps": 0.0}.items():
            self.register_buffer(name, torch.full((n,), value))
        # The categories of all columns, one after another; that of column j begins at first[j].
        self.first = [sum(counts[:j]) + j for j in range(len(counts))]
        n_categories = sum(counts) + len(counts)
        self.register_buffer("is_known", torch.zeros(n_categories))
        self.embeddings = nn.Embedding(n_categories, config.embedding_size) if counts else None
        self.n_outputs = 2 * n + len(counts) * config.embedding_size

    @torch.no_grad()
    def fit(self, numbers: np.ndarray, codes: np.ndarray) -> None:
        """Set everything that is not trained by the training rows.

        Parameters
        ----------
        numbers : float array of shape (rows, numeric columns)
        codes : int array of shape (rows, categorical columns)
        """
        # As doubles: the mean of many floats of 32 bits loses digits.
        values, missing = numbers.astype(np.float64), np.isnan(numbers)
        values[:, missing.all(axis=0)] = 0.0  # no training row has a number
        fill = np.nanmedian(values, axis=0)
        full = np.where(missing, fill, values)
        centre, spread = full.mean(axis=0), full.std(axis=0)
        if self.is_robust:
            low, high = np.nanquantile(values, [0.25, 0.75], axis=0)
            # Where one value fills the middle half, the standard deviation stays.
            centre, spread = fill, np.where(high > low, high - low, spread)
        spread = np.where(spread > 0, spread, 1.0)
        fitted = {"fill": fill, "centre": centre, "spread": spread, "has_gaps": missing.any(axis=0)}
        for name, value in fitted.items():
            self.get_buffer(name).copy_(torch.as_tensor(value))
        self.is_known.zero_()
        self.is_known[self._places(torch.as_tensor(codes)).flatten()] = 1.0
        self.is_known[self.first] = 0.0

    def _places(self, codes: torch.Tensor) -> torch.Tensor:
        return codes + torch.tensor(self.first, dtype=torch.long, device=codes.device)

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the inputs of a network: (rows, inputs).

        Parameters
        ----------
        numbers : float tensor of shape (rows, numeric columns)
            NaN where a cell is missing.
        codes : int tensor of shape (rows, categorical columns)
            From 1; 0 is a category that the table to learn from did not have.
        """
        missing = numbers.isnan()
        values = (torch.where(missing, self.fill, numbers) - self.centre) / self.spread
        if self.is_robust:
            values = values / (1 + (values / 3).square()).sqrt()
        inputs = [values, missing * self.has_gaps]
        if self.embeddings is not None:
            places = self._places(codes)
            vectors = self.embeddings(places) * self.is_known[places].unsqueeze(-1)
            inputs.append(vectors.flatten(1))
        return torch.cat(inputs, dim=1)


class TabularNetwork(nn.Module):
    """One member of the ensemble: preprocessing, hidden layers, and an output for each class."""

    def __init__(self, config: TabularConfig):
        super().__init__()
        self.preprocessing = Preprocessing(config)
        widths = [self.preprocessing.n_outputs] + [config.hidden_size] * config.num_layers
        self.layers = nn.ModuleList(
            HiddenLayer(n_inputs, n_outputs, config) for n_inputs, n_outputs in pairwise(widths)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(widths[-1], config.num_labels)

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the logits (rows, classes); parameters as in `Preprocessing.forward`."""
        values = self.preprocessing(numbers, codes)
        for layer in self.layers:
            values = self.dropout(layer(values))
        return self.classifier(values)


class TabularForSequenceClassification(PreTrainedModel):
    """The mean of several networks that differ in their random start and dropout.

    Each member is trained with a loss of its own, on the same batches. Deep ensembles:
    Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles".
    """

    config_class = TabularConfig
    main_input_name = "numbers"

    def __init__(self, config: TabularConfig):
        super().__init__(config)
        self.members = nn.ModuleList(TabularNetwork(config) for _ in range(config.members))
        self.post_init()

    def fit_preprocessing(self, numbers: np.ndarray, codes: np.ndarray) -> None:
        """Set fillings and scales by the training rows; see `Preprocessing.fit`."""
        for module in self.modules():
            if isinstance(module, Preprocessing):
                module.fit(numbers, codes)

    def forward(
        self,
        numbers: torch.Tensor,
        codes: torch.Tensor,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput | tuple:
        """Score rows; `numbers` and `codes` as in `Preprocessing.forward`.

        Returns
        -------
        SequenceClassifierOutput
            ``logits``: in training those of all members, one after another, (members * rows,
            classes), so that each has a loss of its own; else the logarithms of the mean
            probabilities, (rows, classes). ``loss`` with labels: class numbers (rows,), or a
            probability of each class (rows, classes).
        """
        logits = torch.stack([member(numbers, codes) for member in self.members])
        if self.training:
            logits = logits.flatten(0, 1)
        else:
            logits = logits.float().log_softmax(-1).logsumexp(0)
            logits = logits - logits.logsumexp(-1, keepdim=True)
        loss = None
        if labels is not None:
            copies = len(logits) // len(labels)
            loss = nn.functional.cross_entropy(logits, torch.cat([labels] * copies))
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=1.0)


def join_members(
    models: Sequence[TabularForSequenceClassification],
) -> TabularForSequenceClassification:
    """Return one model with the members of all, such as those of the folds of a cross-validation.

    Parameters
    ----------
    models : sequence of TabularForSequenceClassification
        Of the same sizes, for the same table.
    """
    config = type(models[0].config).from_dict(models[0].config.to_dict())
    config.members = sum(model.config.members for model in models)
    joined = type(models[0])(config)
    members = [member for model in models for member in model.members]
    for target, member in zip(joined.members, members, strict=True):
        target.load_state_dict(member.state_dict())
    return joined


# `exist_ok`: no error if a copy of this file, from the folder of a model, is imported, too.
AutoConfig.register(TabularConfig.model_type, TabularConfig, exist_ok=True)
AutoModelForSequenceClassification.register(
    TabularConfig, TabularForSequenceClassification, exist_ok=True
)
# Saving a model copies this file and `networks` beside its weights, and names it in the config.
TabularConfig.register_for_auto_class()
TabularForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
