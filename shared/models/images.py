"""Networks for images: the flags of their sizes, new ones, and those of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError, first_line
from shared.cli.files import write_json
from shared.images.sources import fit_image
from shared.models.checks import check_config, check_weight_files
from shared.models.sources import resolve_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PREPROCESSOR = "preprocessor_config.json"
_MOST_PIXELS = 50_000_000  # enough for the mean and the deviation of the channels


@dataclass
class ImageModelArguments:
    """Flags of the network."""

    model: str | None = flag(
        None,
        "Network to train further, a hub id or a folder, also an output folder of this recipe "
        "(default: a new one of the sizes below).",
    )
    block: Literal["plain", "batch_norm", "residual"] = flag(
        "residual",
        "What a block of two convolutions adds: nothing, batch normalisation, and a shortcut "
        "(default: residual).",
    )
    width: int = flag(
        32,
        "Channels of the first level; each level doubles them (default: 32).",
        least=1,
        most=1024,
    )
    num_levels: int = flag(4, "Levels; each halves height and width (default: 4).", least=1, most=8)
    blocks_per_level: int = flag(1, "Blocks of each level (default: 1).", least=1, most=50)
    stem_stride: int = flag(
        1,
        "Pixels that the first convolution moves: 1, 2 or 4. 2 is four times as fast, for large "
        "images (default: 1).",
        least=1,
        most=4,
    )
    cell_size: int = flag(
        4,
        "detect: pixels of a cell of the map of box centres; at most one box of a class has its "
        "centre in a cell (default: 4).",
        least=1,
        most=64,
    )
    dropout: float = flag(0.0, "Dropout rate before the head (default: 0).", least=0, below=1)


def check_sizes(args: ImageModelArguments, task: str) -> None:
    """Raise a `UserError` for sizes that do not fit each other."""
    if args.stem_stride not in (1, 2, 4):
        raise UserError(f"--stem_stride {args.stem_stride}: must be 1, 2 or 4")
    if task == "detect":
        steps = [args.stem_stride * 2**level for level in range(args.num_levels)]
        if args.cell_size not in steps:
            raise UserError(
                f"--cell_size {args.cell_size}: must be the pixels of a level, "
                f"{', '.join(map(str, steps))}; change it, --stem_stride or --num_levels"
            )


def build_image_model(
    args: ImageModelArguments,
    task: str,
    class_names: list[str],
    *,
    n_second_inputs: int = 0,
    n_second_outputs: int = 0,
) -> PreTrainedModel:
    """Return a new network with random weights, or that of ``args.model`` with a new head.

    A folder or hub id with other classes gets a new head; one with the same classes keeps its own.

    Parameters
    ----------
    args : ImageModelArguments
    task : {"classify", "segment", "detect"}
    class_names : list of str
    n_second_inputs, n_second_outputs : int, default 0
        Values of the second input, and classes of the second output, of a new classifier.

    Raises
    ------
    UserError
        If the model is damaged, or of another task.
    """
    from shared.models import image_networks as networks

    names = {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: number for number, name in enumerate(class_names)},
    }
    if args.model is not None:
        if n_second_inputs or n_second_outputs:
            raise UserError("--model: a second input or output needs a new network; remove it")
        return _load(args.model, task, class_names, names)
    sizes = {
        name: getattr(args, name)
        for name in (
            *("block", "width", "num_levels", "blocks_per_level", "stem_stride", "dropout"),
        )
    }
    if task == "segment":
        return networks.ImageTrunkForSegmentation(networks.ImageSegmenterConfig(**sizes, **names))
    if task == "detect":
        config = networks.ImageDetectorConfig(**sizes, **names, cell_size=args.cell_size)
        return networks.ImageTrunkForDetection(config)
    config = networks.ImageClassifierConfig(
        **sizes, **names, num_contexts=n_second_inputs, num_second_labels=n_second_outputs
    )
    return networks.ImageTrunkForClassification(config)


def _load(name: str, task: str, class_names: list[str], names: dict[str, Any]) -> PreTrainedModel:
    """Load a network of the hub or of a folder, with a head for these classes."""
    import transformers

    folder = resolve_model(name)
    auto = {
        "classify": transformers.AutoModelForImageClassification,
        "segment": transformers.AutoModelForSemanticSegmentation,
        "detect": transformers.AutoModelForObjectDetection,
    }[task]
    config, _ = transformers.PreTrainedConfig.get_config_dict(folder)
    check_config(config, folder)
    check_weight_files(folder)
    if task == "detect" and config.get("model_type") != "image-trunk-detector":
        raise UserError(
            f"--model {name}: detect trains the networks of this recipe only, not "
            f"{config.get('model_type')}"
        )
    try:
        model, info = auto.from_pretrained(
            folder,
            **names,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:  # whatever damaged files cause
        raise UserError(f"--model {name}: cannot load it to {task}: {first_line(error)}") from error
    # The head may be new; without the rest, the weights belong to another architecture.
    prefix = f"{model.base_model_prefix}."
    new = [*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])]
    if lost := [key for key in new if key.startswith(prefix)]:
        raise UserError(
            f"--model {name}: the weights lack {len(lost)} tensors of the network, first "
            f"{min(lost)}; they belong to another architecture or are incomplete"
        )
    if getattr(model.config, "num_contexts", 0) or getattr(model.config, "num_second_labels", 0):
        raise UserError(f"--model {name}: has a second input or output; train a new one")
    return model


# --- how pixels become inputs --------------------------------------------------------------------


def read_preprocessor(name: str | None) -> dict[str, Any]:
    """Return what is known of the inputs of a model.

    These are ``image_mean`` and ``image_std``, 0 to 1, and ``size``, height and width.

    Parameters
    ----------
    name : str, optional
        The value of ``--model``.
    """
    if name is None:
        return {}
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(resolve_model(name))
    except (OSError, ValueError):  # the model comes without that file
        return {}
    known = {k: settings[k] for k in ("image_mean", "image_std") if settings.get(k)}
    size = settings.get("size")
    if isinstance(size, dict) and {"height", "width"} <= set(size):
        known["size"] = [size["height"], size["width"]]
    elif isinstance(size, int) or (isinstance(size, dict) and "shortest_edge" in size):
        side = size if isinstance(size, int) else size["shortest_edge"]
        known["size"] = [side, side]
    return known


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and deviation of each channel, 0 to 1, of uint8 images (rows, h, w, 3)."""
    step = max(1, images.size // _MOST_PIXELS)
    values = images[::step].reshape(-1, 3)
    mean, std = values.mean(axis=0) / 255, values.std(axis=0) / 255
    return mean.tolist(), np.maximum(std, 1e-3).tolist()


def image_inputs(folder: str | Path, image: np.ndarray, *, keep_shape: bool) -> torch.Tensor:
    """Return what a saved model reads of an image: float32 (1, 3, height, width).

    Parameters
    ----------
    folder : str or Path
        The folder of the model, or its hub id.
    image : uint8 array of shape (height, width, 3)
        From `shared.images.read_image`, after the operations of ``--preprocess``.
    keep_shape : bool
        As in `shared.images.fit_image`: false to classify, true to segment or detect.
    """
    import torch
    from transformers.image_processing_base import ImageProcessingMixin

    settings, _ = ImageProcessingMixin.get_image_processor_dict(str(folder))
    size = settings["size"]["height"], settings["size"]["width"]
    mean, std = (np.array(settings[name], np.float32) for name in ("image_mean", "image_std"))
    pixels = fit_image(image, size, keep_shape=keep_shape).astype(np.float32) / 255
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)[None]


def write_preprocessor(
    folder: Path, size: tuple[int, int], mean: list[float], std: list[float]
) -> None:
    """Write how pixels become inputs, as image processors of transformers read it."""
    write_json(
        folder / PREPROCESSOR,
        {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": size[0], "width": size[1]},
            "resample": 2,  # bilinear
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": mean,
            "image_std": std,
        },
    )
