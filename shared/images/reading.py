"""Read images with their classes, masks or boxes, and split them.

All images of a data set get the same size and are kept in memory, three bytes a pixel. Exact
duplicates of a validation or test image are left out of the training, as with texts.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from shared.cli.arguments import named_flags
from shared.cli.errors import UserError, first_line
from shared.cli.files import expand_path
from shared.cli.launch import progress
from shared.images.annotations import check_boxes, parse_annotations
from shared.images.arguments import UNLABELLED
from shared.images.classic import check_operations, preprocess
from shared.images.shapes import SHAPES, draw_shapes
from shared.images.sources import (
    SUFFIXES,
    Source,
    fit_image,
    mask_to_array,
    part_name,
    part_of,
    scale_of,
    to_array,
)
from shared.splitters import train_valid_test_split

PARTS = ("train", "valid", "test")
IGNORED = 255  # value of a mask where no class counts
N_DRAWN = 480  # images of the sample to segment and detect
DEFAULT_SIZE = 128  # pixels, of images of different sizes
ANNOTATIONS = "annotations.json"
CLASSES = "classes.json"
MOST_CLASSES = 255  # of masks, which are bytes; `IGNORED` is none


@dataclass
class ImageData:
    """Images of one size, with what a model is to say of them.

    Attributes
    ----------
    task : "classify", "segment", "detect" or "generate"
    images : uint8 array of shape (images, height, width, 3)
    class_names : names of the classes
    targets : of each image the class number; the mask, uint8 (height, width), `IGNORED` where no
        class counts; or the boxes, float64 (boxes, 5), x1, y1, x2, y2 in pixels and class number.
        None: not known.
    files : path or number of each image
    parts : rows of "train", "valid" and "test"
    second_inputs, second_outputs : class numbers of each image; None: there is none
    context_names, second_names : what the class numbers of second inputs and outputs mean
    first_image : the first image before ``--preprocess``
    source, notes : what was read, and what was left out
    """

    task: str
    images: np.ndarray
    class_names: list[str]
    targets: Any
    files: list[str]
    source: str
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    second_inputs: np.ndarray | None = None
    second_outputs: np.ndarray | None = None
    context_names: list[str] = field(default_factory=list)
    second_names: list[str] = field(default_factory=list)
    first_image: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    def classes_of_images(self) -> np.ndarray:
        """Return which classes are in each image: bool (images, classes)."""
        present = np.zeros((len(self.images), len(self.class_names)), bool)
        for row, target in enumerate(self.targets):
            if self.task == "detect":
                present[row, target[:, 4].astype(int)] = True
            else:
                numbers = np.unique(target)
                present[row, numbers[numbers != IGNORED] if self.task == "segment" else numbers] = 1
        return present

    def fingerprints(self) -> np.ndarray:
        """Return a number for each image and its target, which tells changed data: int64."""
        targets = [()] * len(self.images) if self.targets is None else self.targets
        pairs = zip(self.images, map(np.ascontiguousarray, targets), strict=True)
        return np.array([_hash(image, target) for image, target in pairs])

    def label_counts(self) -> dict[str, int]:
        """Return the number of training images with each class."""
        counts = self.classes_of_images()[self.parts["train"]].sum(axis=0)
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def describe(self) -> str:
        """Return the source, the sizes of the parts, and the notes, in lines."""
        height, width = self.images.shape[1:3]
        sizes = ", ".join(f"{part} {len(self.parts[part]):,}" for part in PARTS)
        lines = [
            f"{self.source}: {len(self.images):,} images of {height} x {width} pixels, "
            f"{len(self.class_names)} classes",
            sizes,
            *self.notes,
        ]
        return "\n".join(lines)


def load_images(args: Any, task: str) -> ImageData:
    """Read and split the images that ``args.data`` names.

    Parameters
    ----------
    args : ImageArguments
        With a flag `seed`: the same seed gives the same split.
    task : {"classify", "segment", "detect", "generate"}
        To generate images no classes are needed: a folder or a .npz may have none, and all images
        then count as one class. If they have different sizes, ``--image_size`` must be given.

    Raises
    ------
    UserError
        For a file that is missing, damaged or does not fit, by its name; if a class of the
        validation or test images is in no training image; if there is only one class to tell apart.
    """
    check_operations(args.preprocess)
    if len(args.image_size) > 2:
        raise UserError("--image_size: must be one number, or height and width")
    if args.data == "sample":
        data, given = _sample(args, task)
    else:
        path = expand_path(args.data)
        if path.suffix == ".npz":
            if task not in ("classify", "generate"):
                raise UserError(f"--data {path}: a .npz is read with --task classify only")
            data, given = _read_arrays(path, args, needs_labels=task == "classify")
        elif path.is_dir() or path.suffix.lower() == ".zip":
            if getattr(args, "second_input", None) or getattr(args, "second_output", None):
                raise UserError("--second_input, --second_output: name arrays of a .npz")
            reader: dict[str, Callable[..., tuple[ImageData, list[str | None]]]] = {
                "classify": _read_folders,
                "segment": _read_masks,
                "detect": _read_boxes,
                "generate": partial(_read_folders, needs_labels=False),
            }
            data, given = reader[task](Source(path), args)
        else:
            raise UserError(f"--data {path}: no such folder, .zip or .npz")
    _split(data, given, args)
    if task != "generate":
        _check_classes(data)
    return data


def load_new_images(
    args: Any, task: str, context_names: Sequence[str] = ()
) -> tuple[ImageData, Callable[[int], np.ndarray]]:
    """Read the images that ``args.predict`` names, to apply a model to them.

    Parameters
    ----------
    args : ImageArguments
        ``image_size`` and ``preprocess`` are those of the model. ``predict`` is a folder, a .zip,
        an image, or a .npz with the arrays ``image_array`` and, for a model that reads it,
        ``second_input``.
    task : {"classify", "segment", "detect"}
    context_names : sequence of str
        The values of the second input that the model knows.

    Returns
    -------
    data : ImageData
        Without targets; all images are in the part "new".
    original : callable
        Returns the image of a row in its own size, uint8 (height, width, 3).

    Raises
    ------
    UserError
        As `load_images`; for a value of the second input that the model does not know.
    """
    path = expand_path(args.predict)
    if context_names and not (path.suffix == ".npz" and args.second_input):
        raise UserError(
            f"--predict {path}: the model reads a second input; give a .npz, and the name of its "
            "array by --second_input"
        )
    if path.suffix == ".npz":
        arrays = _load_arrays(path)
        for flag in ("image_array", *(["second_input"] if context_names else [])):
            if getattr(args, flag) not in arrays:
                raise UserError(f"--{flag} {getattr(args, flag)}: {path} has {', '.join(arrays)}")
        images = _as_bytes(arrays[args.image_array], path)
        data = _collect(args, task, _size(args, {images.shape[1:3]}), images, len(images))
        data.files, data.source = [f"image {i}" for i in range(len(images))], str(path)
        if context_names:
            values = arrays[args.second_input]
            _check_numbers(values, len(images), f"--second_input {args.second_input}")
            names, codes = _class_names(values, arrays, args.second_input)
            if unknown := [name for name in names if name not in context_names]:
                raise UserError(
                    f"--second_input {args.second_input}: the value {unknown[0]} was in no "
                    f"training image; known are {', '.join(context_names)}"
                )
            data.second_inputs = np.array([context_names.index(name) for name in names])[codes]
        data.parts = {"new": np.arange(len(images))}
        return data, images.__getitem__
    if not (path.is_dir() or path.is_file()):
        raise UserError(f"--predict {path}: no such folder, .zip, .npz or image")
    source = Source(path)
    data = _collect_files(args, task, source, _image_names(source, "predict"))
    data.source, data.parts = str(path), {"new": np.arange(len(data.files))}
    upright = task == "classify"

    def original(row: int) -> np.ndarray:
        name = data.files[row]
        return to_array(source.open(name), f"{source.path}, {name}", upright=upright)

    return data, original


# --- where images come from ----------------------------------------------------------------------


def _sample(args: Any, task: str) -> tuple[ImageData, list[str | None]]:
    """Return the digits of scikit-learn, or drawn shapes to segment or detect."""
    if task in ("classify", "generate"):
        return _digits(args)
    drawings = draw_shapes(N_DRAWN, seed=0)
    size = _size(args, {drawings[0].mask.shape})
    data = _collect(args, task, size, [drawing.image for drawing in drawings], N_DRAWN)
    if task == "segment":
        masks = [drawing.mask for drawing in drawings]
        data.targets = [fit_image(m, size, keep_shape=True, nearest=True) for m in masks]
        data.class_names = ["background", *SHAPES]
    else:
        scale = scale_of(drawings[0].mask.shape, size)
        data.targets = [drawing.boxes * [scale, scale, scale, scale, 1] for drawing in drawings]
        data.class_names = list(SHAPES)
    data.source, data.files = "sample, drawn by code", [f"drawing {i}" for i in range(N_DRAWN)]
    return data, [None] * N_DRAWN


def _digits(args: Any) -> tuple[ImageData, list[str | None]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    n = len(digits.images)
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)  # from 0 to 16
    images = np.repeat(grey[..., None], 3, axis=3)
    data = _collect(args, "classify", _size(args, {images.shape[1:3]}), images, n)
    data.targets, data.class_names = digits.target, [str(name) for name in digits.target_names]
    data.source = "sample, the digits of scikit-learn"
    data.files = [f"digit {i}" for i in range(n)]
    return data, [None] * n


def _read_folders(
    source: Source, args: Any, *, needs_labels: bool = True
) -> tuple[ImageData, list[str | None]]:
    """Read a folder of images for each class; without `needs_labels` they may lie in none."""
    names = _image_names(source, "data")
    folders = [PurePosixPath(name).parent.name for name in names]
    if "" in folders and needs_labels:
        raise UserError(
            f"{source.path}, {names[folders.index('')]}: lies in no folder of a class; make a "
            "folder for each class"
        )
    classes = sorted(set(folders))
    data = _collect_files(args, "classify" if needs_labels else "generate", source, names)
    parts = [part_of(name, n_last=2) for name in names]
    if not needs_labels:
        # A folder of a part, or of all images, is no class.
        parts = [part_of(name) for name in names]
        if "" in folders or any(part_of(f"{folder}/x") for folder in classes):
            classes, folders = ["image"], ["image"] * len(names)
    data.class_names, data.source = classes, str(source.path)
    numbers = {name: number for number, name in enumerate(classes)}
    data.targets = np.array([numbers[folder] for folder in folders])
    return data, parts


def _image_names(source: Source, flag: str) -> list[str]:
    if not (names := source.images()):
        raise UserError(f"--{flag} {source.path}: holds no images ({', '.join(SUFFIXES)})")
    return names


def _read_masks(source: Source, args: Any) -> tuple[ImageData, list[str | None]]:
    """Read pairs of files in folders named images and masks."""
    pairs = {}
    for kind in ("images", "masks"):
        in_folder = [n for n in source.images() if kind in PurePosixPath(n).parts[:-1]]
        pairs[kind] = {_pair_key(name, kind): name for name in in_folder}
    if not pairs["images"]:
        raise UserError(f"--data {source.path}: holds no folder named images with images in it")
    if lonely := sorted(set(pairs["images"]) ^ set(pairs["masks"])):
        has = "images" if lonely[0] in pairs["images"] else "masks"
        lacks = "mask" if has == "images" else "image"
        raise UserError(
            f"{source.path}, {pairs[has][lonely[0]]}: has no {lacks} of the same name "
            f"({len(lonely)} such files)"
        )
    keys = sorted(pairs["images"])
    names = [pairs["images"][key] for key in keys]
    data = _collect_files(args, "segment", source, names)
    size = data.images.shape[1:3]
    masks = []
    for key in progress(keys, "reading masks", unit="masks"):
        name = pairs["masks"][key]
        mask = mask_to_array(source.open(name), f"{source.path}, {name}")
        shape = source.open(pairs["images"][key]).size[::-1]
        if mask.shape != shape:
            raise UserError(
                f"{source.path}, {name}: has {mask.shape[0]} x {mask.shape[1]} pixels, its image "
                f"{shape[0]} x {shape[1]}"
            )
        if args.instance_class:
            mask = np.where(mask == IGNORED, IGNORED, mask > 0)
        if mask.min() < 0 or mask.max() > IGNORED:
            raise UserError(
                f"{source.path}, {name}: has the value {mask.max()}; class numbers are 0 to 254, "
                f"{IGNORED} does not count (--instance_class for masks that number objects)"
            )
        # The rest of an image that keeps its proportions has no class.
        raised = fit_image((mask.astype(np.uint8) + 1), size, keep_shape=True, nearest=True)
        masks.append(raised - np.uint8(1))
    data.targets, data.source = masks, str(source.path)
    _name_mask_classes(data, source, args)
    return data, [part_of(name) for name in names]


def _pair_key(name: str, kind: str) -> str:
    """Return what the paths of an image and of its mask have in common."""
    path = PurePosixPath(name)
    return "/".join([*(part for part in path.parts[:-1] if part != kind), path.stem])


def _name_mask_classes(data: ImageData, source: Source, args: Any) -> None:
    """Name the values of the masks, and take away the classes that do not count."""
    present = np.zeros(IGNORED + 1, bool)
    for mask in data.targets:
        present[np.unique(mask)] = True
    highest = int(np.flatnonzero(present[:IGNORED]).max(initial=0))
    names = list(args.class_names)
    if args.instance_class:
        names = ["background", args.instance_class]
    elif not names:
        file = next((n for n in source.names if PurePosixPath(n).name == CLASSES), None)
        if file is None:
            names = [str(number) for number in range(highest + 1)]
        else:
            names = _read_class_names(source.read(file), f"{source.path}, {file}")
    if highest >= len(names):
        raise UserError(
            f"{source.path}: a mask has the value {highest}, but only {len(names)} classes have a "
            "name (--class_names, or classes.json); --instance_class for masks that number objects"
        )
    for name in args.ignored_classes:
        if name not in names:
            raise UserError(f"--ignored_classes {name}: must be any of {', '.join(names)}")
    ignored = {n for n in names if n in (args.ignored_classes or UNLABELLED)}
    data.class_names = [name for name in names if name not in ignored]
    table = np.full(IGNORED + 1, IGNORED, np.uint8)
    for number, name in enumerate(names):
        if name not in ignored:
            table[number] = data.class_names.index(name)
    data.targets = [table[mask] for mask in data.targets]


def _read_class_names(content: bytes, name: str) -> list[str]:
    try:
        names = json.loads(content)
    except ValueError as error:
        raise UserError(f"{name}: no valid JSON: {error}") from error
    if not isinstance(names, list) or len(set(map(str, names))) < len(names):
        raise UserError(f"{name}: must be a list of different names")
    return [str(value) for value in names]


def _read_boxes(source: Source, args: Any) -> tuple[ImageData, list[str | None]]:
    """Read images and a file of boxes."""
    file = next((n for n in source.names if PurePosixPath(n).name == ANNOTATIONS), None)
    if file is None:
        raise UserError(f"--data {source.path}: holds no {ANNOTATIONS}")
    annotations = parse_annotations(source.read(file), f"{source.path}, {file}")
    folder = PurePosixPath(file).parent
    names = [str(folder / annotation.file) for annotation in annotations]
    known = set(source.names)
    for name in names:
        if name not in known:
            raise UserError(f"{source.path}, {file}: names {name}, which does not exist")
    if not names:
        raise UserError(f"{source.path}, {file}: names no image")
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UserError(
            f"{source.path}, {file}: names {twice[0]} twice; put all of its boxes into one entry"
        )
    data = _collect_files(args, "detect", source, names)
    data.class_names = sorted({label for a in annotations for label in a.labels})
    if not data.class_names:
        raise UserError(f"{source.path}, {file}: holds no box")
    size, data.targets, n_empty = data.images.shape[1:3], [], 0
    for annotation, name in zip(annotations, names, strict=True):
        shape = source.open(name).size[::-1]
        clip = args.boxes_outside == "clip"
        boxes = check_boxes(annotation, shape, clip=clip, name=f"{source.path}, {file}")
        numbers = [data.class_names.index(label) for label in annotation.labels]
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        n_empty += int((~has_area).sum())
        boxes = np.column_stack([boxes * scale_of(shape, size), np.array(numbers, float)])
        data.targets.append(boxes[has_area])
    if n_empty:
        data.notes.append(f"{n_empty} boxes without area are left out")
    data.source = str(source.path)
    parts = [a.part or part_of(name) for a, name in zip(annotations, names, strict=True)]
    return data, parts


def _read_arrays(
    path: Path, args: Any, *, needs_labels: bool
) -> tuple[ImageData, list[str | None]]:
    """Read arrays of images and class numbers; parts by names such as ``x_train``."""
    arrays = _load_arrays(path)
    images, labels, given = _pick_arrays(arrays, path, args, needs_labels=needs_labels)
    images = _as_bytes(images, path)
    _check_numbers(labels, len(images), f"{path}, labels")
    size = _size(args, {images.shape[1:3]})
    data = _collect(args, "classify", size, images, len(images))
    data.class_names, data.targets = _class_names(labels, arrays, args.label_array)
    data.files, data.source = [f"image {i}" for i in range(len(images))], str(path)
    for flag, array in (("second_input", "second_inputs"), ("second_output", "second_outputs")):
        name = getattr(args, flag, None)
        if name:
            if name not in arrays:
                raise UserError(f"--{flag} {name}: {path} has {', '.join(arrays)}")
            _check_numbers(arrays[name], len(images), f"--{flag} {name}")
            names, numbers = _class_names(arrays[name], arrays, name)
            setattr(data, array, numbers)
            setattr(data, "context_names" if flag == "second_input" else "second_names", names)
    return data, given


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable .npz: {first_line(error)}") from error


def _as_bytes(images: np.ndarray, path: Path) -> np.ndarray:
    """Return the images of an array as uint8 of shape (images, height, width, 3)."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
        raise UserError(
            f"{path}: images of shape {images.shape}; must be (images, height, width), with 1 or 3 "
            "channels last"
        )
    if images.dtype != np.uint8:
        if not np.isfinite(images).all():
            raise UserError(f"{path}: an image has a value that is not finite")
        top = images.max()
        images = (images * (255 if 0 < top <= 1 else 1)).clip(0, 255).round().astype(np.uint8)
    return np.broadcast_to(images, (*images.shape[:3], 3))


def _pick_arrays(
    arrays: dict[str, np.ndarray], path: Path, args: Any, *, needs_labels: bool
) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """Return images, labels and the part of each row.

    Labels that are not needed are all 0 if no part has some.
    """
    named = {"image_array", "label_array"} & named_flags(args)
    if "x_train" in arrays and not named:
        # Without the labels of a part, its images would count as of the first class.
        has_labels = any(
            name.startswith("y_") and part_name(name.removeprefix("y_")) for name in arrays
        )
        images, labels = list[np.ndarray](), list[np.ndarray]()
        parts = list[str | None]()
        for name, values in arrays.items():
            stem, _, suffix = name.partition("_")
            if stem == "x" and (part := part_name(suffix)):
                if f"y_{suffix}" not in arrays and (needs_labels or has_labels):
                    raise UserError(f"{path}: has {name}, but no y_{suffix}")
                images.append(values)
                labels.append(arrays.get(f"y_{suffix}", np.zeros(len(values), np.int64)))
                parts += [part] * len(values)
        if len({values.shape[1:] for values in images}) > 1:
            raise UserError(f"{path}: the images of its parts have different sizes")
        return np.concatenate(images), np.concatenate(labels), parts
    wanted = {"image_array"} if not needs_labels and "label_array" not in named else set()
    for flag in sorted(wanted or {"image_array", "label_array"}):
        if getattr(args, flag) not in arrays:
            raise UserError(f"--{flag} {getattr(args, flag)}: {path} has {', '.join(arrays)}")
    images_alone = arrays[args.image_array]
    labels_alone = arrays.get(args.label_array, np.zeros(len(images_alone), np.int64))
    return images_alone, labels_alone, [None] * len(images_alone)


def _check_numbers(values: np.ndarray, n: int, name: str) -> None:
    if values.shape != (n,) or not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
        raise UserError(
            f"{name}: {values.dtype} of shape {values.shape}; must be {n:,} whole numbers from 0"
        )


def _class_names(
    numbers: np.ndarray, arrays: dict[str, np.ndarray], array: str
) -> tuple[list[str], np.ndarray]:
    """Return the names of the classes that occur, and the number of each row among them."""
    used, codes = np.unique(numbers, return_inverse=True)
    keys = (f"{array.removesuffix('s')}_names", f"{array}_names", "class_names", "classes")
    listed = next((arrays[key] for key in keys if key in arrays), None)
    if listed is None or listed.ndim != 1 or len(listed) <= used.max():
        return [str(number) for number in used], codes
    return [str(listed[number]) for number in used], codes


# --- images of one size --------------------------------------------------------------------------


def _collect_files(args: Any, task: str, source: Source, names: Sequence[str]) -> ImageData:
    """Read image files into one array, in the size of all; see `_collect`.

    Photographs to classify are turned as their EXIF data says. Masks and boxes belong to the pixels
    as they are stored.
    """
    headers = progress(names, "checking images", unit="images")
    sizes = {source.open(name).size[::-1]: name for name in headers}
    if task == "generate" and len(sizes) > 1 and not args.image_size:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise UserError(
            f"{source.path}: {one} has {first[0]} x {first[1]} pixels, {other} {second[0]} x "
            f"{second[1]}; set --image_size to stretch all to one size"
        )
    upright = task in ("classify", "generate")
    images = (
        to_array(source.open(name), f"{source.path}, {name}", upright=upright) for name in names
    )
    data = _collect(args, task, _size(args, sizes), images, len(names))
    data.files = list(names)
    return data


def _size(args: Any, sizes: Any) -> tuple[int, int]:
    """Return height and width of all images."""
    if args.image_size:
        return args.image_size[0], args.image_size[-1]
    if len(sizes) == 1:
        return next(iter(sizes))
    return DEFAULT_SIZE, DEFAULT_SIZE


def _collect(
    args: Any,
    task: str,
    size: tuple[int, int],
    images: Iterable[np.ndarray],
    n: int,
) -> ImageData:
    """Read images into one array, each preprocessed and in the size of all."""
    try:
        array = np.empty((n, *size, 3), np.uint8)
    except MemoryError:
        raise UserError(
            f"--image_size: {n:,} images of {size[0]} x {size[1]} pixels do not fit into memory; "
            "lower it"
        ) from None
    first = None
    for row, image in enumerate(progress(images, "reading images", unit="images", total=n)):
        first = image if first is None else first
        array[row] = fit_image(
            preprocess(image, args.preprocess), size, keep_shape=task in ("segment", "detect")
        )
    return ImageData(task, array, [], None, [], "", first_image=first)


# --- the split -----------------------------------------------------------------------------------


def _split(data: ImageData, given: Sequence[str | None], args: Any) -> None:
    """Divide the images: by the parts that the data has, else stratified by their classes."""
    digests = np.array([_hash(image) for image in data.images])
    _, groups = np.unique(digests, return_inverse=True)
    rows = {part: np.flatnonzero([g == part for g in given]) for part in PARTS}
    unassigned = np.flatnonzero([g is None for g in given])
    present = data.classes_of_images()
    if not len(rows["test"]):
        # All images that are in no part, or in the training part.
        pool = np.sort(np.concatenate([unassigned, rows["train"]]))
        valid_size = 0 if len(rows["valid"]) else args.valid_size
        drawn = _draw(data.source, present, groups, pool, valid_size, args.test_size, args.seed)
        rows["train"], valid, rows["test"] = drawn
    else:
        if len(unassigned):
            raise UserError(
                f"--data {args.data}: {len(unassigned)} images, first {data.files[unassigned[0]]}, "
                "lie outside the folders train, valid and test; move them into one"
            )
        if not len(rows["train"]):
            raise UserError(f"--data {args.data}: has a part for the test, but none to train on")
        valid = rows["valid"]
        if not len(valid) and args.valid_size:
            drawn = _draw(
                data.source, present, groups, rows["train"], args.valid_size, 0, args.seed
            )
            rows["train"], valid, _ = drawn
    rows["valid"] = valid if len(valid) else rows["valid"]
    # An exact duplicate of an image that is held out would be learned by heart.
    for part, held_out in (("train", ("valid", "test")), ("valid", ("test",))):
        others = np.concatenate([rows[other] for other in held_out])
        twice = np.isin(groups[rows[part]], groups[others])
        if twice.any():
            data.notes.append(
                f"{twice.sum()} exact duplicates of {' or '.join(held_out)} images are left out of "
                f"{part}"
            )
            rows[part] = rows[part][~twice]
    if not len(rows["train"]):
        raise UserError(f"--data {args.data}: no image is left to train on")
    data.parts = rows


def _draw(
    source: str,
    present: np.ndarray,
    groups: np.ndarray,
    pool: np.ndarray,
    valid_size: float,
    test_size: float,
    seed: int,
) -> list[np.ndarray]:
    """Draw train, valid and test rows from a pool; duplicates stay in one part."""
    try:
        parts = train_valid_test_split(
            present[pool].astype(np.int8),
            valid_size=valid_size,
            test_size=test_size,
            groups=groups[pool],
            random_state=seed,
        )
    except UserError as error:
        raise UserError(
            f"{source}: {len(pool)} images, {len(np.unique(groups[pool]))} of them different, "
            f"cannot be divided into train, valid and test ({error}); add some, or lower "
            "--valid_size and --test_size"
        ) from error
    return [pool[part] for part in parts]


def _check_classes(data: ImageData) -> None:
    if data.task != "detect" and len(data.class_names) < 2:
        raise UserError(f"{data.source}: only one class, {data.class_names[0]}; nothing to learn")
    present = data.classes_of_images()
    trained = present[data.parts["train"]].any(axis=0)
    held_out = np.concatenate([data.parts["valid"], data.parts["test"]])
    unseen = Counter[str]()
    for number in np.flatnonzero(~trained):
        unseen[data.class_names[number]] = int(present[held_out, number].sum())
    for name, count in unseen.items():
        if count:
            raise UserError(
                f"{data.source}: the class {name} is in {count} validation or test images, but in "
                "no training image; add some, or remove the class"
            )
    for name in ("second_inputs", "second_outputs"):
        values = getattr(data, name)
        if values is not None:
            missing = np.setdiff1d(values[held_out], values[data.parts["train"]])
            if len(missing):
                raise UserError(
                    f"--{name[:-1]}: the value {missing[0]} is in no training image; add some, or "
                    "remove the images that have it"
                )


def _hash(*arrays: np.ndarray) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)
