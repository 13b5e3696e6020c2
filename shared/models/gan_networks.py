"""A generator of images and its discriminator, from random weights.

To load a saved pair, import this module. The import registers the class with transformers, and
``AutoModel`` then loads the folder.

This file must not import other modules of this project: `save_pretrained` copies it into the folder
of the network, so that transformers can load the folder without this project, with
``trust_remote_code=True``.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

SLOPE = 0.2  # of LeakyReLU below 0
FIRST_DEVIATION = 0.02  # of the first weights of convolutions (Radford et al. 2016)
SMALLEST_SIDE = 4  # pixels of the coarsest map of a DCGAN; 2 for images below 16 pixels
MOST_LEVELS = 4
_SAMPLED = 256  # images at a time


class GanConfig(PreTrainedConfig):
    """Sizes of a `GanModel`.

    Attributes
    ----------
    architecture : "gan" (fully connected layers) or "dcgan" (convolutions).
    height, width, channels : of the images; 1 channel is grey, 3 are colours.
    latent_size : numbers that an image is made of.
    base_width : dcgan: channels of the finest hidden map; each coarser one has twice as many.
    hidden_size : gan: units of the smallest hidden layer.
    upsampling : dcgan: "transposed" convolutions, or "resize": nearest neighbour, then convolution.
    dropout : rate before the last layer of the discriminator.
    has_average : whether a moving average of the generator's weights makes the images.
    """

    model_type = "adversarial-images"

    architecture: str = "dcgan"
    height: int = 28
    width: int = 28
    channels: int = 1
    latent_size: int = 64
    base_width: int = 32
    hidden_size: int = 256
    upsampling: str = "transposed"
    dropout: float | int = 0.0
    has_average: bool = False

    @property
    def num_levels(self) -> int:
        """Steps of a DCGAN, each of which doubles the size: two to four."""
        levels = (min(self.height, self.width) // SMALLEST_SIDE).bit_length() - 1
        return min(max(levels, 2), MOST_LEVELS)


class DenseGenerator(nn.Sequential):
    """Fully connected layers from latent vectors to pixels (Goodfellow et al. 2014)."""

    def __init__(self, config: GanConfig):
        layers: list[nn.Module] = []
        n_in = config.latent_size
        for n_out in (config.hidden_size * factor for factor in (1, 2, 4)):
            layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.LeakyReLU(SLOPE)]
            n_in = n_out
        shape = config.channels, config.height, config.width
        n_pixels = config.channels * config.height * config.width
        super().__init__(*layers, nn.Linear(n_in, n_pixels), nn.Tanh(), nn.Unflatten(1, shape))


class DenseDiscriminator(nn.Sequential):
    """Fully connected layers from pixels to one logit."""

    def __init__(self, config: GanConfig):
        layers: list[nn.Module] = [nn.Flatten()]
        n_in = config.channels * config.height * config.width
        for n_out in (config.hidden_size * factor for factor in (2, 1)):
            layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(SLOPE), nn.Dropout(config.dropout)]
            n_in = n_out
        super().__init__(*layers, nn.Linear(n_in, 1), nn.Flatten(0))


class ConvolutionalGenerator(nn.Module):
    """Convolutions from a small map to the image, by the rules of Radford et al. 2016.

    Batch normalisation and ReLU after each layer but the last, which ends in tanh. The map begins
    with at least four pixels a side; what reaches over the image at the end is cut off.
    """

    def __init__(self, config: GanConfig):
        super().__init__()
        self.size = config.height, config.width
        levels = config.num_levels
        widths = [config.base_width * 2 ** (levels - 1 - level) for level in range(levels)]
        start = [-(-side // 2**levels) for side in self.size]
        self.first = nn.Sequential(
            nn.Linear(config.latent_size, widths[0] * start[0] * start[1], bias=False),
            nn.Unflatten(1, (widths[0], *start)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        steps: list[nn.Module] = []
        for n_in, n_out in zip(widths, [*widths[1:], config.channels], strict=True):
            is_last = len(steps) == levels - 1
            if config.upsampling == "resize":
                double = nn.Sequential(
                    nn.Upsample(scale_factor=2), nn.Conv2d(n_in, n_out, 3, padding=1, bias=is_last)
                )
            else:
                double = nn.Sequential(
                    nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1, bias=is_last)
                )
            end = [nn.Tanh()] if is_last else [nn.BatchNorm2d(n_out), nn.ReLU()]
            steps.append(nn.Sequential(double, *end))
        self.steps = nn.Sequential(*steps)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return (rows, channels, height, width), from -1 to 1."""
        pixels = self.steps(self.first(latents))
        top, left = (
            (have - want) // 2 for have, want in zip(pixels.shape[2:], self.size, strict=True)
        )
        return pixels[:, :, top : top + self.size[0], left : left + self.size[1]]


class ConvolutionalDiscriminator(nn.Sequential):
    """Strided convolutions with LeakyReLU; batch normalisation after each but the first."""

    def __init__(self, config: GanConfig):
        layers: list[nn.Module] = []
        n_in, sides = config.channels, [config.height, config.width]
        for level in range(config.num_levels):
            n_out = config.base_width * 2**level
            layers.append(nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, bias=not level))
            if level:
                layers.append(nn.BatchNorm2d(n_out))
            layers.append(nn.LeakyReLU(SLOPE))
            n_in, sides = n_out, [side // 2 for side in sides]
        last = nn.Linear(n_in * sides[0] * sides[1], 1)
        super().__init__(*layers, nn.Flatten(), nn.Dropout(config.dropout), last, nn.Flatten(0))


class GanModel(PreTrainedModel):
    """A generator and its discriminator; a call of the model generates images.

    Attributes
    ----------
    generator, discriminator : torch.nn.Module
    average : torch.nn.Module or None
        The moving average of the generator.
    """

    config_class = GanConfig
    main_input_name = "latents"
    base_model_prefix = "generator"

    def __init__(self, config: GanConfig):
        super().__init__(config)
        is_dense = config.architecture == "gan"
        self.generator = (DenseGenerator if is_dense else ConvolutionalGenerator)(config)
        self.discriminator = (DenseDiscriminator if is_dense else ConvolutionalDiscriminator)(
            config
        )
        self.average: nn.Module | None = None
        if config.has_average:
            self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.post_init()
        if self.average is not None:
            self.average.load_state_dict(self.generator.state_dict())

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if self.config.architecture == "dcgan":
                init.normal_(module.weight, std=FIRST_DEVIATION)
            else:
                init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            init.normal_(module.weight, mean=1.0, std=FIRST_DEVIATION)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)

    def forward(self, latents: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Return the images of latent vectors: (rows, channels, height, width), from -1 to 1.

        Parameters
        ----------
        latents : float tensor of shape (rows, latent_size)
            Drawn from the standard normal distribution, such as by `draw_latents`.
        """
        return (self.generator if self.average is None else self.average)(latents)

    def num_weights(self) -> dict[str, int]:
        """Return the number of weights of each network."""
        return {
            name: sum(weight.numel() for weight in network.parameters())
            for name, network in (
                ("generator", self.generator),
                ("discriminator", self.discriminator),
            )
        }

    def draw_latents(self, n: int, seed: int = 0) -> torch.Tensor:
        """Return latent vectors, float32 (n, latent_size); the same seed gives the same ones."""
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(n, self.config.latent_size, generator=generator)
        return latents.to(self.device)

    def sample(self, n: int, seed: int = 0) -> torch.Tensor:
        """Return `n` generated images: uint8 (n, height, width, 3)."""
        return self.images_of(self.draw_latents(n, seed))

    @torch.no_grad()
    def images_of(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the images of latent vectors: uint8 (rows, height, width, 3), on the CPU.

        The mode of the model, to train or to evaluate, is the same afterwards.
        """
        was_training = self.training
        self.eval()
        try:
            batches = [self(rows).float().cpu() for rows in latents.split(_SAMPLED)]
        finally:
            self.train(was_training)
        pixels = torch.cat(batches).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the average of the generator by the share 1 - `decay` towards the generator."""
        assert self.average is not None
        state = self.generator.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(state[name], 1 - decay)
            else:
                value.copy_(state[name])


# `exist_ok`: no error if a copy of this file, from the folder of a network, is imported, too.
AutoConfig.register(GanConfig.model_type, GanConfig, exist_ok=True)
AutoModel.register(GanConfig, GanModel, exist_ok=True)
# Saving a network copies this file beside its weights, and names it in the config.
GanConfig.register_for_auto_class()
GanModel.register_for_auto_class("AutoModel")
