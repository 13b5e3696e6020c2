"""The flags about images: what is read, how it is split, how it is augmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from shared.cli.arguments import flag
from shared.cli.errors import UserError

# Names of classes whose pixels have no class.
UNLABELLED = ("unlabelled", "unlabeled", "void", "ignore")


@dataclass
class ImageFileArguments:
    """Flags of the images and their parts. `seed` is a flag of `TrainingArguments`."""

    data: str = flag(
        "sample",
        "Data set: 'sample' (the digits of scikit-learn, or shapes drawn by code; the default), a "
        "folder or a .zip of it: a folder of images for each class (classify); images/ and masks/ "
        "(segment); images and annotations.json (detect); or a .npz of arrays (classify). Folders "
        "named train, valid and test, or ending so, are the parts.",
    )
    image_size: list[int] = flag(
        [],
        "Height and width of the images in pixels, or one number for both (default: their own size "
        "if all have the same, else 128).",
        least=4,
        most=4096,
    )
    valid_size: float = flag(
        0.1,
        "Share of the images for validation, if the data has no such part; 0: none (default: .1).",
        least=0,
        below=1,
    )
    test_size: float = flag(
        0.2,
        "Share of the images for the test, if the data has no such part (default: .2).",
        above=0,
        below=1,
    )
    image_array: str = flag("images", "Array of the images in a .npz (default: images).")
    label_array: str = flag("labels", "Array of the class numbers in a .npz (default: labels).")
    preprocess: list[str] = flag(
        [],
        "Operations on all images, in this order: equalise, edges, denoise, dilate, erode, open, "
        "close, grey, sharpen (default: none).",
    )


@dataclass
class ImageArguments(ImageFileArguments):
    """Flags of the images and of what a model is to say of them."""

    task: Literal["classify", "segment", "detect"] = flag(
        "classify", "What to predict: a class of the image, of each pixel, or boxes."
    )
    class_names: list[str] = flag(
        [],
        "segment: names of the mask values 0, 1, ... (default: the list in classes.json, else "
        "their numbers).",
    )
    ignored_classes: list[str] = flag(
        [],
        "segment: classes whose pixels do not count, beside the mask value 255 (default: those "
        f"named {', '.join(UNLABELLED)}).",
    )
    instance_class: str | None = flag(
        None,
        "segment: the masks number objects of this class, 0 is the background (default: the masks "
        "hold class numbers).",
    )
    boxes_outside: Literal["error", "clip"] = flag(
        "error", "detect: what to do with boxes that reach out of their image (default: error)."
    )
    second_input: str | None = flag(
        None, "Array of class numbers in a .npz that the model also reads (default: none)."
    )
    second_output: str | None = flag(
        None, "Array of class numbers in a .npz that the model also predicts (default: none)."
    )


def check_task_flags(args: Any) -> None:
    """Refuse flags that only classification has, with another task.

    Parameters
    ----------
    args : ImageArguments, AugmentationArguments and TrainingArguments
    """
    if args.task == "classify":
        return
    if args.mixup or args.second_input or args.second_output:
        raise UserError("--mixup, --second_input, --second_output: only with --task classify")
    if args.label_smoothing_factor:
        raise UserError("--label_smoothing_factor: only with --task classify")


@dataclass
class AugmentationArguments:
    """Flags of the random changes of training images; each epoch draws them anew."""

    flip: Literal["none", "horizontal", "vertical", "both"] = flag(
        "none", "Mirror half of the images (default: none)."
    )
    shift: float = flag(
        0.0,
        "Move an image by up to this share of its size, as padding and cropping do (default: 0).",
        least=0,
        most=1,
    )
    zoom: float = flag(
        0.0, "Enlarge or shrink an image by up to this share (default: 0).", least=0, below=1
    )
    rotation: float = flag(
        0.0, "Turn an image by up to so many degrees (default: 0).", least=0, most=180
    )
    contrast: float = flag(
        0.0, "Change contrast and brightness by up to this share (default: 0).", least=0, most=1
    )
    mixup: float = flag(
        0.0,
        "classify: mix each image with another one, by shares from Beta(a, a); 0: do not (default: "
        "0).",
        least=0,
        most=100,
    )
