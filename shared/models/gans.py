"""Generators of images: the flags of their sizes, new ones, and trained ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.models.own_models import load_own_model

if TYPE_CHECKING:
    from shared.models.gan_networks import GanModel

LEAST_SIDE = 8  # pixels, of an image that convolutions generate


@dataclass
class GanArguments:
    """Flags of the two networks."""

    architecture: Literal["gan", "dcgan"] = flag(
        "dcgan", "Fully connected layers (gan), or convolutions (default: dcgan)."
    )
    latent_size: int = flag(
        64, "Random numbers that an image is made of (default: 64).", least=1, most=10_000
    )
    base_width: int = flag(
        64,
        "dcgan: channels of the finest hidden map; each coarser one has twice as many (default: "
        "64).",
        least=1,
        most=1024,
    )
    hidden_size: int = flag(
        256, "gan: units of the smallest hidden layer (default: 256).", least=1, most=10_000
    )
    upsampling: Literal["transposed", "resize"] = flag(
        "transposed",
        "dcgan: how the generator doubles a map: transposed convolutions, or nearest neighbour and "
        "then a convolution, which leaves no checkerboard (default: transposed).",
    )
    dropout: float = flag(0.0, "Dropout rate of the discriminator (default: 0).", least=0, below=1)
    ema: float = flag(
        0.99,
        "Decay of a moving average of the generator's weights, which then makes the images; 0: "
        "none (default: .99).",
        least=0,
        below=1,
    )


def build_gan(args: GanArguments, size: tuple[int, int], channels: int) -> GanModel:
    """Return a new generator and discriminator, with random weights.

    Parameters
    ----------
    args : GanArguments
    size : tuple of int
        Height and width of the images.
    channels : int
        1 (grey) or 3.

    Raises
    ------
    UserError
        If the images are too small for convolutions.
    """
    from shared.models.gan_networks import GanConfig, GanModel

    if args.architecture == "dcgan" and min(size) < LEAST_SIDE:
        raise UserError(
            f"--architecture dcgan: images of {size[0]} x {size[1]} pixels are too small, at least "
            f"{LEAST_SIDE} a side; set --image_size, or choose --architecture gan"
        )
    names = ("architecture", "latent_size", "base_width", "hidden_size", "upsampling", "dropout")
    sizes = {name: getattr(args, name) for name in names}
    height, width = size
    config = GanConfig(
        **sizes, height=height, width=width, channels=channels, has_average=args.ema > 0
    )
    return GanModel(config)


def load_gan(name: str) -> GanModel:
    """Return a trained generator and its discriminator, to make images.

    Parameters
    ----------
    name : str
        A folder, or a hub id.

    Raises
    ------
    UserError
        If it is no generator of images, or its weights are missing or damaged.
    """
    from shared.models.gan_networks import GanModel

    return load_own_model(name, GanModel, "generator of images", "gan")
