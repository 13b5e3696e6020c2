"""The files of a data set of images, in a folder or a zip archive, and the images in them."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError, first_line

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_PART = re.compile(r"(?:.*[-_ ])?(train|training|valid|validation|val|dev|test|testing)", re.I)
_PARTS = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}


class Source:
    """The files below a folder or in a zip archive, by their path there with ``/``; or one image.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    names : list of str
        All files, sorted. Hidden files, and those that macOS adds to an archive, are left out.

    Raises
    ------
    UserError
        If there is no such folder, or the archive is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            self.path, names = path.parent, [path.name]
        elif path.is_dir():
            files = (file for file in path.rglob("*") if file.is_file())
            names = [file.relative_to(path).as_posix() for file in files]
        else:
            try:
                self._archive = zipfile.ZipFile(path)
                names = [entry.filename for entry in self._archive.infolist() if not entry.is_dir()]
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"{path}: not a readable zip: {first_line(error)}") from error
        self.names = sorted(n for n in names if not _is_hidden(n))

    def images(self) -> list[str]:
        """Return the names of the image files."""
        return [name for name in self.names if name.lower().endswith(SUFFIXES)]

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises
        ------
        UserError
            If there is no such file, or it is damaged.
        """
        try:
            if self._archive is not None:
                return self._archive.read(name)
            return (self.path / name).read_bytes()
        except KeyError:
            raise UserError(f"{self.path}: no file {name}") from None
        except (OSError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
            raise UserError(f"{self.path}, {name}: {first_line(error)}") from error

    def open(self, name: str) -> Image.Image:
        """Return an image of which only the header was read.

        Raises
        ------
        UserError
            If the file is no image.
        """
        return _open(io.BytesIO(self.read(name)), f"{self.path}, {name}")


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def part_of(name: str, *, n_last: int = 1) -> str | None:
    """Return "train", "valid" or "test" if a folder of a path says so, else None.

    Parameters
    ----------
    name : str
        A path with ``/``.
    n_last : int, default 1
        How many of its last parts cannot be the name of a part: the file, and the class.
    """
    for folder in PurePosixPath(name).parts[:-n_last]:
        if match := _PART.fullmatch(folder):
            return part_name(match[1])
    return None


def part_name(name: str) -> str | None:
    """Return "train", "valid" or "test" for a usual name of that part, else None."""
    name = name.lower().removesuffix("ing").removesuffix("ation")
    return _PARTS.get({"valid": "valid"}.get(name, name))


def _open(file: io.BytesIO, name: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(file)
    except UnidentifiedImageError:
        raise UserError(f"{name}: not an image; remove the file") from None
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name}: unreadable image: {first_line(error)}") from error


def read_image(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Return the image in a file: uint8 of shape (height, width, 3).

    Parameters
    ----------
    path : str or Path
    upright : bool, default True
        Turn the image as its EXIF data says.

    Raises
    ------
    UserError
        If the file is missing, damaged or no image.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {first_line(error)}") from error
    return to_array(_open(io.BytesIO(content), str(path)), str(path), upright=upright)


def to_array(image: Image.Image, name: str, *, upright: bool) -> np.ndarray:
    """Decode an image: uint8 of shape (height, width, 3). `name` is for errors.

    Transparent parts become white, and 16 bits become 8.

    Raises
    ------
    UserError
        If the file is damaged, such as a truncated one.
    """
    from PIL import Image, ImageOps

    try:
        if upright:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            values = np.asarray(image, dtype=np.float64)
            values = values / (257 if values.max() > 255 else 1)
            image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{name}: unreadable image: {first_line(error)}") from error


def mask_to_array(image: Image.Image, name: str) -> np.ndarray:
    """Decode a mask: int64 of shape (height, width), the number of each pixel.

    Raises
    ------
    UserError
        If the file is damaged, or has colours instead of numbers.
    """
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise UserError(
            f"{name}: a mask of {image.mode} colours; a mask has one channel, of class numbers"
        )
    try:
        return np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{name}: unreadable image: {first_line(error)}") from error


def fit_image(
    image: np.ndarray, size: tuple[int, int], *, keep_shape: bool, nearest: bool = False
) -> np.ndarray:
    """Return an image, or a mask, in another size.

    Parameters
    ----------
    image : uint8 array of shape (height, width) or (height, width, 3)
    size : tuple of int
        Height and width of the result.
    keep_shape : bool
        Keep the proportions; the rest, on the right or below, is 0. Otherwise stretch the image.
    nearest : bool, default False
        Take the nearest pixel, as numbers of classes need it, instead of a mean.
    """
    from PIL import Image

    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    new_height, new_width = size
    if keep_shape:
        scale = scale_of((height, width), size)
        new_height, new_width = (max(round(side * scale), 1) for side in (height, width))
    resampling = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    resized = Image.fromarray(image).resize((new_width, new_height), resampling)
    result = np.zeros((*size, *image.shape[2:]), image.dtype)
    result[:new_height, :new_width] = resized
    return result


def restore_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask in the size that its image had before `fit_image` with `keep_shape`.

    Parameters
    ----------
    mask : uint8 array of shape (height, width)
    size : tuple of int
        Height and width of the image.
    """
    from PIL import Image

    scale = scale_of(size, (mask.shape[0], mask.shape[1]))
    height, width = (max(round(side * scale), 1) for side in size)
    inner = Image.fromarray(mask[:height, :width])
    return np.asarray(inner.resize((size[1], size[0]), Image.Resampling.NEAREST))


def restore_boxes(boxes: np.ndarray, size: tuple[int, int], fitted: tuple[int, int]) -> np.ndarray:
    """Return boxes in pixels of the image before `fit_image` with `keep_shape`, cut at its sides.

    Parameters
    ----------
    boxes : array of shape (boxes, 4)
        x1, y1, x2, y2 in pixels of the fitted image.
    size, fitted : tuples of int
        Height and width of the image, before and after.
    """
    limits = np.array([size[1], size[0], size[1], size[0]])
    return np.clip(boxes / scale_of(size, fitted), 0, limits)


def scale_of(size: tuple[int, int], new: tuple[int, int]) -> float:
    """Return by how much `fit_image` enlarges an image that keeps its proportions."""
    return min(new[0] / size[0], new[1] / size[1])
