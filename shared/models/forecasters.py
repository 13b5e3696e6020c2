"""Models that forecast time series: linear, DLinear, recurrent networks, a transformer of patches.

A `Forecaster` reads the last values of some columns and returns the next values of some of them,
all steps at once (direct forecasts). It knows the scale of the columns, so that `forecast` takes
and returns values in their own units.

To load a saved model, import this module. The import registers the classes with transformers, and
``AutoModel`` then loads the folder.

Of this project, this file must import only `transformer`, and that relatively: `save_pretrained`
copies it, and what it imports, into the folder of a model, so that transformers can load the folder
without this project, with ``trust_remote_code=True``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .transformer import Block, TransformerConfig

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
SMALLEST_SPREAD = 1e-5  # of a window, in standard deviations of its column


class ForecasterConfig(PreTrainedConfig):
    """Sizes and variants of a `Forecaster`; each architecture reads only its own.

    Attributes
    ----------
    architecture : "linear", "dlinear", "rnn", "lstm", "gru" or "transformer".
    columns : names of the columns that are read.
    targets : names of those of them that are forecast.
    mean, scale : of each column: what is subtracted, and what the rest is divided by.
    input_size : steps that are read.
    horizon : steps that are forecast.
    centring : what each window is measured from: "none": the means of the columns; "last": its last
        values; "window": its mean, divided by its standard deviation.
    kernel_size : dlinear: steps of the moving average; odd.
    individual : linear, dlinear: whether each column has weights of its own.
    hidden_size : recurrent: width of the state; transformer: of the hidden states.
    num_layers : recurrent and transformer: layers.
    nonlinearity : rnn: "tanh" or "relu".
    num_attention_heads : transformer: heads of each attention.
    patch_size, patch_stride : transformer: steps of a patch, and from one to the next.
    dropout : rate on the states of each layer, and before the output layer.
    """

    model_type = "series-forecaster"

    architecture: str = "dlinear"
    columns: list = field(default_factory=lambda: ["value"])
    targets: list = field(default_factory=lambda: ["value"])
    mean: list = field(default_factory=lambda: [0.0])
    scale: list = field(default_factory=lambda: [1.0])
    input_size: int = 96
    horizon: int = 24
    centring: str = "none"
    kernel_size: int = 25
    individual: bool = False
    hidden_size: int = 64
    num_layers: int = 1
    nonlinearity: str = "tanh"
    num_attention_heads: int = 4
    patch_size: int = 16
    patch_stride: int = 8
    dropout: float | int = 0.0


@dataclass
class ForecastOutput(ModelOutput):
    """What a `Forecaster` returns.

    Attributes
    ----------
    loss : mean squared error of the scaled values; only with labels.
    logits : forecasts (rows, horizon, targets), scaled.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


# --- networks: (rows, input_size, columns) -> (rows, horizon, outputs) ---------------------------


class ColumnLinear(nn.Module):
    """A linear layer from the steps of a column to its next ones.

    All columns share its weights, or each has its own.
    """

    def __init__(self, n_steps: int, horizon: int, n_columns: int | None):
        super().__init__()
        several = () if n_columns is None else (n_columns,)
        self.weight = nn.Parameter(torch.empty(*several, horizon, n_steps))
        self.bias = nn.Parameter(torch.empty(*several, horizon))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (rows, steps, columns) to (rows, horizon, columns)."""
        if self.weight.ndim == 2:
            return nn.functional.linear(values.mT, self.weight, self.bias).mT
        return torch.einsum("rsc,chs->rhc", values, self.weight) + self.bias.T


class DLinear(nn.Module):
    """The sum of two linear layers, on a moving average of the window and on what it leaves.

    Source: Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?". At the ends
    of a window, the average repeats its first and last values.
    """

    def __init__(self, config: ForecasterConfig):
        super().__init__()
        self.reach = config.kernel_size // 2
        n_columns = len(config.targets) if config.individual else None
        self.trend = ColumnLinear(config.input_size, config.horizon, n_columns)
        self.rest = ColumnLinear(config.input_size, config.horizon, n_columns)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (rows, steps, columns) to (rows, horizon, columns)."""
        padded = nn.functional.pad(values.mT, (self.reach, self.reach), mode="replicate")
        trend = nn.functional.avg_pool1d(padded, 2 * self.reach + 1, stride=1).mT
        return self.trend(trend) + self.rest(values - trend)


class Recurrent(nn.Module):
    """A recurrent network over the steps of all columns; its last state gives the forecast."""

    def __init__(self, config: ForecasterConfig):
        super().__init__()
        self.shape = config.horizon, len(config.targets)
        settings: dict[str, Any] = {"num_layers": config.num_layers, "batch_first": True}
        if config.num_layers > 1:  # torch warns of a dropout between layers that do not exist
            settings["dropout"] = config.dropout
        if config.architecture == "rnn":
            settings["nonlinearity"] = config.nonlinearity
        cells = CELLS[config.architecture]
        self.cells = cells(len(config.columns), config.hidden_size, **settings)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden_size, math.prod(self.shape))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (rows, steps, columns) to (rows, horizon, targets)."""
        states, _ = self.cells(values)
        return self.head(self.dropout(states[:, -1])).unflatten(1, self.shape)


class PatchTransformer(nn.Module):
    """An encoder over overlapping patches of a column; the states of all give its forecast.

    All columns share the weights, and none reads another one. Source: Nie et al. 2023, "A Time
    Series is Worth 64 Words", with layer norms before each part in place of batch norms after it.
    The last value is repeated for another stride, as there.
    """

    def __init__(self, config: ForecasterConfig):
        super().__init__()
        size, stride, width = config.patch_size, config.patch_stride, config.hidden_size
        self.patch_size, self.stride = size, stride
        n_patches = (config.input_size + stride - size) // stride + 1
        blocks = TransformerConfig(
            hidden_size=width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=4 * width,
            dropout=config.dropout,
        )
        self.patches = nn.Linear(size, width)
        self.positions = nn.Parameter(torch.empty(n_patches, width))
        self.blocks = nn.ModuleList(
            Block(blocks, layer, reads_memory=False) for layer in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(n_patches * width, config.horizon)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (rows, steps, columns) to (rows, horizon, columns)."""
        n_rows, _, n_columns = values.shape
        padded = nn.functional.pad(values.mT, (0, self.stride), mode="replicate").flatten(0, 1)
        patches = padded.unfold(-1, self.patch_size, self.stride)
        states = self.dropout(self.patches(patches) + self.positions)
        for block in self.blocks:
            states = block(states)
        outputs = self.head(self.dropout(self.norm(states).flatten(1)))
        return outputs.unflatten(0, (n_rows, n_columns)).mT


# --- the model -----------------------------------------------------------------------------------


class Forecaster(PreTrainedModel):
    """Forecast the next values of some columns from the last values of all.

    The linear models and the transformer forecast each target from its own past; recurrent networks
    read all columns.
    """

    config_class = ForecasterConfig
    main_input_name = "past_values"

    def __init__(self, config: ForecasterConfig):
        super().__init__(config)
        self.places = [config.columns.index(name) for name in config.targets]
        if config.architecture == "linear":
            n_columns = len(config.targets) if config.individual else None
            self.network: nn.Module = ColumnLinear(config.input_size, config.horizon, n_columns)
        elif config.architecture == "dlinear":
            self.network = DLinear(config)
        elif config.architecture == "transformer":
            self.network = PatchTransformer(config)
        else:
            self.network = Recurrent(config)
        self.post_init()

    def centre(self, past_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what windows (rows, input_size, columns) are measured from, and what by.

        Both are (rows, 1, columns). A network whose outputs are 0 forecasts the first.
        """
        level = torch.zeros_like(past_values[:, :1])
        spread = torch.ones_like(level)
        if self.config.centring == "last":
            level = past_values[:, -1:]
        elif self.config.centring == "window":
            level = past_values.mean(1, keepdim=True)
            spread = past_values.std(1, keepdim=True, correction=0) + SMALLEST_SPREAD
        return level, spread

    def forward(
        self,
        past_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> ForecastOutput:
        """Forecast scaled values.

        Parameters
        ----------
        past_values : float tensor of shape (rows, input_size, columns)
            Scaled, the oldest first.
        labels : float tensor of shape (rows, horizon, targets), optional
            What followed, scaled; for the loss.
        """
        if self.config.architecture not in CELLS:
            past_values = past_values[..., self.places]
            targets: Any = slice(None)
        else:
            targets = self.places
        level, spread = self.centre(past_values)
        outputs = self.network((past_values - level) / spread)
        logits = outputs * spread[..., targets] + level[..., targets]
        loss = None if labels is None else nn.functional.mse_loss(logits, labels)
        return ForecastOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def forecast(self, values: np.ndarray) -> np.ndarray:
        """Forecast the next values in the units of the data.

        Parameters
        ----------
        values : array of shape (rows, input_size or more, columns) or (input_size or more, columns)
            The last values of the columns `config.columns`, the oldest first.

        Returns
        -------
        float array of shape (rows, horizon, targets) or (horizon, targets)
            Of the columns `config.targets`.

        Raises
        ------
        ValueError
            If there are too few steps, another number of columns, or missing values.
        """
        config = self.config
        values = np.asarray(values, np.float64)
        if values.ndim not in (2, 3) or values.shape[-1] != len(config.columns):
            raise ValueError(
                f"values of shape {values.shape}: must be (steps, columns) or (rows, steps, "
                f"columns), with the {len(config.columns)} columns {', '.join(config.columns)}"
            )
        if values.shape[-2] < config.input_size:
            raise ValueError(f"{values.shape[-2]} steps: the model reads {config.input_size}")
        last = values[..., -config.input_size :, :]
        if not np.isfinite(last).all():
            raise ValueError("the last values are not all numbers; fill or shift the gap")
        mean, scale = np.array(config.mean), np.array(config.scale)
        scaled = torch.as_tensor((last - mean) / scale, dtype=self.dtype, device=self.device)
        was_training = self.training
        self.eval()
        logits = self(scaled if scaled.ndim == 3 else scaled[None]).logits
        self.train(was_training)
        outputs = logits.double().cpu().numpy() * scale[self.places] + mean[self.places]
        return outputs if values.ndim == 3 else outputs[0]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ColumnLinear):
            bound = module.weight.shape[-1] ** -0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_ih"):
                    init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    init.orthogonal_(parameter)
                else:
                    init.zeros_(parameter)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, PatchTransformer):
            init.normal_(module.positions, std=0.02)


# `exist_ok`: no error if a copy of this file, from the folder of a model, is imported, too.
AutoConfig.register(ForecasterConfig.model_type, ForecasterConfig, exist_ok=True)
AutoModel.register(ForecasterConfig, Forecaster, exist_ok=True)
# Saving a model copies this file beside its weights, and names it in the config.
ForecasterConfig.register_for_auto_class()
Forecaster.register_for_auto_class("AutoModel")
