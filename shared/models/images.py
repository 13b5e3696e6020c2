"""Networks for images: the flags of their sizes, new ones, and those of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError, first_line
from shared.cli.files import write_json
from shared.models.checks import check_config, check_weight_files
from shared.models.sources import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREPROCESSOR = "preprocessor_config.json"
# By the end of the name of an architecture.
_TASK_OF = {
    "ForImageClassification": "classify",
    "ImageTrunkForClassification": "classify",
    "ForSemanticSegmentation": "segment",
    "ImageTrunkForSegmentation": "segment",
    "ImageTrunkForDetection": "detect",
}
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
    context_names: Sequence[str] = (),
    second_names: Sequence[str] = (),
) -> PreTrainedModel:
    """Return a new network with random weights, or that of ``args.model`` with a new head.

    A folder or hub id with other classes gets a new head; one with the same classes keeps its own.

    Parameters
    ----------
    args : ImageModelArguments
    task : {"classify", "segment", "detect"}
    class_names : list of str
    context_names, second_names : sequences of str
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
        if context_names or second_names:
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
        **sizes,
        **names,
        num_contexts=len(context_names),
        num_second_labels=len(second_names),
        context_names=list(context_names),
        second_names=list(second_names),
    )
    return networks.ImageTrunkForClassification(config)


def _load(name: str, task: str, class_names: list[str], names: dict[str, Any]) -> PreTrainedModel:
    """Load a network of the hub or of a folder, with a head for these classes."""
    folder, config = _read_config(name)
    if task == "detect" and config.get("model_type") != "image-trunk-detector":
        raise UserError(
            f"--model {name}: detect trains the networks of this recipe only, not "
            f"{config.get('model_type')}"
        )
    model, new = _load_weights(name, folder, task, **names, ignore_mismatched_sizes=True)
    # The head may be new; without the rest, the weights belong to another architecture.
    _check_complete(name, [key for key in new if key.startswith(f"{model.base_model_prefix}.")])
    if getattr(model.config, "num_contexts", 0) or getattr(model.config, "num_second_labels", 0):
        raise UserError(f"--model {name}: has a second input or output; train a new one")
    return model


def load_image_model(name: str) -> tuple[PreTrainedModel, str]:
    """Return a trained network, to apply it, and its task: "classify", "segment" or "detect".

    Parameters
    ----------
    name : str
        A folder, or a hub id.

    Raises
    ------
    UserError
        If it is no network of images, is damaged, or has no trained head.
    """
    folder, config = _read_config(name)
    architecture = str((config.get("architectures") or [config.get("model_type")])[0])
    task = next((task for end, task in _TASK_OF.items() if architecture.endswith(end)), None)
    if task is None:
        raise UserError(f"--model {name}: {architecture} neither classifies, segments nor detects")
    model, new = _load_weights(name, folder, task)
    _check_complete(name, new)
    return model.eval(), task


def _read_config(name: str) -> tuple[str, dict[str, Any]]:
    """Return the folder, or the hub id, of a model, and its config."""
    from transformers import PreTrainedConfig

    folder = resolve_model(name)
    config, _ = PreTrainedConfig.get_config_dict(folder)
    check_config(config, folder)
    check_weight_files(folder)
    return folder, config


def _load_weights(
    name: str, folder: str, task: str, **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Return a network, and the names of the tensors that its files lack."""
    import transformers

    from shared.models import image_networks  # noqa: F401 (registers our own architectures)

    auto = {
        "classify": transformers.AutoModelForImageClassification,
        "segment": transformers.AutoModelForSemanticSegmentation,
        "detect": transformers.AutoModelForObjectDetection,
    }[task]
    try:
        model, info = auto.from_pretrained(
            folder,
            **options,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:  # whatever damaged files cause
        raise UserError(f"--model {name}: cannot load it to {task}: {first_line(error)}") from error
    return model, [*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])]


def _check_complete(name: str, lost: list[str]) -> None:
    if lost:
        raise UserError(
            f"--model {name}: the weights lack {len(lost)} tensors of the network, first "
            f"{min(lost)}; they belong to another architecture or are incomplete"
        )


# --- how pixels become inputs --------------------------------------------------------------------


def read_preprocessor(name: str | None) -> dict[str, Any]:
    """Return what is known of the inputs of a model.

    These are ``image_mean`` and ``image_std``, 0 to 1, ``size``, height and width, and
    ``operations``, of ``--preprocess``.

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
    names = ("image_mean", "image_std", "operations")
    known = {name: settings[name] for name in names if settings.get(name)}
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


def write_preprocessor(
    folder: Path,
    size: tuple[int, int],
    mean: list[float],
    std: list[float],
    operations: Sequence[str] = (),
) -> None:
    """Write how pixels become inputs, as image processors of transformers read it.

    They do not know the operations of ``--preprocess``; `read_preprocessor` returns them.
    """
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
            "operations": list(operations),
        },
    )
