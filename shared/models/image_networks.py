"""Convolutional networks for images, from random weights: one trunk with three heads.

- `ImageTrunkForClassification`: a class for each image, also with a second input and output.
- `ImageTrunkForSegmentation`: a class for each pixel, by a U-Net.
- `ImageTrunkForDetection`: boxes, by a map of their centres.

To load a saved network, import this module. The import registers the classes with transformers, and
``AutoModelForImageClassification``, ``AutoModelForSemanticSegmentation`` and
``AutoModelForObjectDetection`` then load the folder.

This file must not import other modules of this project: `save_pretrained` copies it into the folder
of the network, so that transformers can load the folder without this project, with
``trust_remote_code=True``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput, SemanticSegmenterOutput

BLOCKS = ("plain", "batch_norm", "residual")
WIDEST = 8  # times the width of the first level
PEAK_SHARE = 0.1  # what the centre map of a new detector says everywhere
DISTANCE_SCALE = 4.0  # cells that an output of 1 stands for, in the distances to the sides of a box


class ImageTrunkConfig(PreTrainedConfig):
    """Sizes of a trunk.

    Attributes
    ----------
    block : "plain" (two convolutions), "batch_norm" (each normalised), "residual" (and their input
        added to their output).
    width : channels of the first level; each level doubles them, up to eight times.
    num_levels : levels; each halves height and width.
    blocks_per_level : blocks of each level.
    stem_stride : 1, or 2 or 4: the first convolution moves by so many pixels.
    dropout : rate before the head.
    """

    model_type = "image-trunk"

    block: str = "residual"
    width: int = 32
    num_levels: int = 4
    blocks_per_level: int = 1
    stem_stride: int = 1
    dropout: float | int = 0.0

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.width * min(2**level, WIDEST) for level in range(self.num_levels)]


class ImageClassifierConfig(ImageTrunkConfig):
    """Sizes of an `ImageTrunkForClassification`.

    Attributes
    ----------
    num_contexts : values of the second input, a class number; 0: there is none.
    num_second_labels : classes of the second output; 0: there is none.
    context_names, second_names : what their numbers mean.
    """

    model_type = "image-trunk-classifier"

    num_contexts: int = 0
    num_second_labels: int = 0
    context_names: list[str] | None = None
    second_names: list[str] | None = None


class ImageSegmenterConfig(ImageTrunkConfig):
    """Sizes of an `ImageTrunkForSegmentation`: those of the trunk."""

    model_type = "image-trunk-segmenter"


class ImageDetectorConfig(ImageTrunkConfig):
    """Sizes of an `ImageTrunkForDetection`.

    Attributes
    ----------
    cell_size : pixels of a cell of the map of centres, height and width; a power of 2, at least
        `stem_stride`.
    """

    model_type = "image-trunk-detector"

    cell_size: int = 4


class Block(nn.Module):
    """Two convolutions of 3 x 3.

    Sources: Simonyan and Zisserman 2015 (plain); Ioffe and Szegedy 2015 (batch norm); He et al.
    2016, "Deep Residual Learning for Image Recognition" (residual).

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    block : str
        As in `ImageTrunkConfig`.
    stride : int
        Of the first convolution.
    """

    def __init__(self, n_in: int, n_out: int, block: str, stride: int = 1):
        super().__init__()
        normalised = block != "plain"

        def convolution(n_in: int, stride: int) -> nn.Sequential:
            layer = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=not normalised)
            return nn.Sequential(layer, nn.BatchNorm2d(n_out) if normalised else nn.Identity())

        self.first, self.second = convolution(n_in, stride), convolution(n_out, 1)
        self.activation = nn.ReLU()
        self.shortcut: nn.Module | None = None
        if block == "residual":
            same = n_in == n_out and stride == 1
            # The mean of the pixels that are left out loses less than every second pixel alone.
            pooling = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
            self.shortcut = (
                nn.Identity()
                if same
                else nn.Sequential(
                    pooling, nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
                )
            )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (rows, n_out, height / stride, width / stride), rounded up."""
        values = self.second(self.activation(self.first(pixels)))
        if self.shortcut is not None:
            values = values + self.shortcut(pixels)
        return self.activation(values)


class Trunk(nn.Module):
    """The convolutions of all heads: a stem, then levels of blocks."""

    def __init__(self, config: ImageTrunkConfig):
        super().__init__()
        normalised = config.block != "plain"
        stride = config.stem_stride
        self.stem = nn.Sequential(
            nn.Conv2d(3, config.width, max(3, stride), stride, padding=1 if stride < 4 else 0),
            nn.BatchNorm2d(config.width) if normalised else nn.Identity(),
            nn.ReLU(),
        )
        self.levels = nn.ModuleList()
        n_in = config.width
        for level, n_out in enumerate(config.widths):
            blocks = []
            for number in range(config.blocks_per_level):
                down = 2 if level and not number else 1
                blocks.append(Block(n_in, n_out, config.block, down))
                n_in = n_out
            self.levels.append(nn.Sequential(*blocks))

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return the output of each level, from the finest to the coarsest."""
        # Convolutions on CPUs and on tensor cores are faster with the channels last.
        values = self.stem(pixel_values.contiguous(memory_format=torch.channels_last))
        outputs = []
        for level in self.levels:
            values = level(values)
            outputs.append(values)
        return outputs


class Decoder(nn.Module):
    """The way up of a U-Net: each step doubles the size and adds the level of that size.

    Source: Ronneberger et al. 2015, "U-Net". Up-sampling is bilinear, so that any size fits.

    Parameters
    ----------
    config : ImageTrunkConfig
    finest : int
        Number of the level to end with; 0 is the finest one.
    """

    def __init__(self, config: ImageTrunkConfig, finest: int):
        super().__init__()
        widths = config.widths
        self.finest = finest
        self.steps = nn.ModuleList(
            Block(widths[level] + widths[level + 1], widths[level], config.block)
            for level in reversed(range(finest, len(widths) - 1))
        )

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """Return (rows, channels, height, width) of the finest level."""
        *skipped, values = levels[self.finest :]
        for step, skip in zip(self.steps, reversed(skipped), strict=True):
            values = nn.functional.interpolate(values, skip.shape[2:], mode="bilinear")
            values = step(torch.cat([skip, values], dim=1))
        return values


class ImageNetwork(PreTrainedModel):
    """What all heads share: the trunk and its first weights."""

    main_input_name = "pixel_values"
    base_model_prefix = "trunk"

    def __init__(self, config: ImageTrunkConfig):
        super().__init__(config)
        self.trunk = Trunk(config)
        self.dropout = nn.Dropout(config.dropout)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.01)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)


class ImageTrunkForClassification(ImageNetwork):
    """The mean over all pixels of the coarsest level, and a linear layer.

    A second input, a class number, becomes a vector beside that mean. A second output is a second
    linear layer, whose logits follow those of the first.
    """

    config_class = ImageClassifierConfig

    def __init__(self, config: ImageClassifierConfig):
        super().__init__(config)
        width = config.widths[-1]
        self.context: nn.Embedding | None = None
        if config.num_contexts:
            self.context = nn.Embedding(config.num_contexts, config.width)
            width += config.width
        self.classifier = nn.Linear(width, config.num_labels + config.num_second_labels)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        context: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        """Return the logits (rows, classes + second classes).

        Parameters
        ----------
        pixel_values : float tensor of shape (rows, 3, height, width)
        context : int64 tensor of shape (rows,)
            The second input, if the network has one.
        labels : int64 tensor of shape (rows,), optional
            Adds the cross-entropy as ``loss``; only for a network with one output.
        """
        values = self.trunk(pixel_values)[-1].mean(dim=(2, 3))
        if self.context is not None:
            if context is None:
                raise ValueError("this network has a second input: pass context, a class number")
            values = torch.cat([values, self.context(context)], dim=1)
        logits = self.classifier(self.dropout(values))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class ImageTrunkForSegmentation(ImageNetwork):
    """A U-Net: the trunk, the way up, and a linear layer for each pixel."""

    config_class = ImageSegmenterConfig

    def __init__(self, config: ImageSegmenterConfig):
        super().__init__(config)
        self.decoder = Decoder(config, finest=0)
        self.classifier = nn.Conv2d(config.width, config.num_labels, 1)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> SemanticSegmenterOutput:
        """Return the logits (rows, classes, height, width) for (rows, 3, height, width) pixels."""
        values = self.decoder(self.trunk(pixel_values))
        logits = self.classifier(self.dropout(values))
        if logits.shape[2:] != pixel_values.shape[2:]:
            logits = nn.functional.interpolate(logits, pixel_values.shape[2:], mode="bilinear")
        return SemanticSegmenterOutput(logits=logits)


class ImageTrunkForDetection(ImageNetwork):
    """A map of box centres for each class, and at each cell the distances to the sides of its box.

    No anchors and one stage. Sources: Zhou et al. 2019, "Objects as Points"; Liu et al. 2020,
    "Training-Time-Friendly Network for Real-Time Object Detection".
    """

    config_class = ImageDetectorConfig

    def __init__(self, config: ImageDetectorConfig):
        super().__init__(config)
        finest = (config.cell_size // config.stem_stride).bit_length() - 1
        self.decoder = Decoder(config, finest)
        width = config.widths[finest]
        self.centres = self._head(width, config.num_labels)
        self.distances = self._head(width, 4)
        self.post_init()

    @staticmethod
    def _head(width: int, n_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, n_out, 1)
        )

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Most cells hold no centre: a new network says so, else the first steps learn only this.
        # These are layers, because modules without weights of their own never come here.
        if module is self.centres[-1]:
            init.normal_(module.weight, std=0.001)
            init.constant_(module.bias, float(torch.tensor(PEAK_SHARE).logit()))
        elif module is self.distances[-1]:
            init.normal_(module.weight, std=0.001)
            init.constant_(module.bias, 0.5)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> ImageClassifierOutput:
        """Return the logits (rows, classes + 4, height / cell, width / cell).

        The last four are the distances from the middle of a cell to the left, upper, right and
        lower side of its box, as `boxes_of_cells` reads them.
        """
        values = self.dropout(self.decoder(self.trunk(pixel_values)))
        logits = torch.cat([self.centres(values), self.distances(values)], dim=1)
        return ImageClassifierOutput(logits=logits)


def boxes_of_cells(distances: torch.Tensor, cell_size: int) -> torch.Tensor:
    """Return the box of each cell: (rows, 4, height, width), x1 y1 x2 y2 in pixels.

    Parameters
    ----------
    distances : tensor of shape (rows, 4, height, width)
        The last four outputs of an `ImageTrunkForDetection`.
    cell_size : int
        Pixels.
    """
    height, width = distances.shape[2:]
    distances = nn.functional.softplus(distances.float()) * (DISTANCE_SCALE * cell_size)
    x = (torch.arange(width, device=distances.device) + 0.5) * cell_size
    y = ((torch.arange(height, device=distances.device) + 0.5) * cell_size)[:, None]
    left, top, right, bottom = distances.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=1)


def find_boxes(logits: torch.Tensor, cell_size: int, most: int = 100) -> torch.Tensor:
    """Return the boxes at the peaks of the centre maps, the best first: (rows, most, 6).

    A peak is a cell that none of its eight neighbours exceeds. The columns are x1, y1, x2, y2 in
    pixels, the score (0 to 1) and the class number. The boxes of neighbouring peaks can overlap;
    `shared.images.non_maximum_suppression` removes the lower one.

    Parameters
    ----------
    logits : tensor of shape (rows, classes + 4, height, width)
        From `ImageTrunkForDetection`.
    cell_size : int
        Pixels.
    most : int, default 100
        Boxes of an image; fewer if the maps have fewer cells.
    """
    n_classes = logits.shape[1] - 4
    heat = logits[:, :n_classes].float().sigmoid()
    peaks = heat * (nn.functional.max_pool2d(heat, 3, 1, 1) == heat)
    n_cells = heat.shape[2] * heat.shape[3]
    scores, places = peaks.flatten(1).topk(min(most, n_classes * n_cells))
    boxes = boxes_of_cells(logits[:, n_classes:], cell_size).flatten(2)
    cells = (places % n_cells)[:, None].expand(-1, 4, -1)
    columns = [boxes.gather(2, cells), scores[:, None], (places // n_cells)[:, None].float()]
    return torch.cat(columns, dim=1).transpose(1, 2)


# `exist_ok`: no error if a copy of this file, from the folder of a network, is imported, too.
for _model, _auto in (
    (ImageTrunkForClassification, AutoModelForImageClassification),
    (ImageTrunkForSegmentation, AutoModelForSemanticSegmentation),
    (ImageTrunkForDetection, AutoModelForObjectDetection),
):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    _auto.register(_model.config_class, _model, exist_ok=True)
    # Saving a network copies this file beside its weights, and names it in the config.
    _model.config_class.register_for_auto_class()
    _model.register_for_auto_class(_auto.__name__)
