"""Pictures of images: sheets, grids and animations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.cli.files import atomic_write
from shared.plots.figures import save_figure, short_label
from shared.plots.fonts import fonts_for

SHEET_WIDTH = 150  # characters of a line of captions above images side by side


def plot_image_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    path: Path,
    *,
    boxes: Sequence[Sequence[tuple[Sequence[float], str, str]]] | None = None,
    columns: int | None = None,
) -> None:
    """Images side by side, each with a caption above it.

    Parameters
    ----------
    images : sequence of uint8 arrays of shape (height, width, 3)
    captions : sequence of str
    path : Path
    boxes : sequence, optional
        For each image, what to draw: x1, y1, x2, y2 in pixels, a colour, and a word beside the box.
    columns : int, optional
        The default is 6, or 4 for images of 200 pixels or more, which have details to see.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    height, width = images[0].shape[:2]
    columns = min(columns or (4 if width >= 200 else 6), len(images))
    rows = -(-len(images) // columns)
    lines = max(caption.count("\n") for caption in captions) + 1
    side = 12 / columns
    figure = Figure(
        figsize=(12, rows * (side * height / width + 0.22 * lines)), layout="constrained"
    )
    fonts, _ = fonts_for("".join(captions))
    most = SHEET_WIDTH // columns
    captions = ["\n".join(short_label(line, most) for line in c.split("\n")) for c in captions]
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, axes in enumerate(grid):
        axes.axis("off")
        if number >= len(images):
            continue
        axes.imshow(images[number], interpolation="nearest")
        axes.set_title(captions[number], fontsize=9, parse_math=False, fontfamily=fonts)
        for (x1, y1, x2, y2), colour, word in boxes[number] if boxes is not None else ():
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.2))
            axes.annotate(
                word, (x1, y1), (1, 1), textcoords="offset points", color=colour, fontsize=7
            )
    save_figure(figure, path)


def write_image_grid(
    images: np.ndarray, path: Path, *, columns: int | None = None, side: int = 640
) -> None:
    """Write images as the tiles of one picture.

    Parameters
    ----------
    images : uint8 array of shape (images, height, width, 3)
    path : Path
    columns : int, optional
        Default: as many as rows.
    side : int, default 640
        Pixels of the width, about: each pixel is enlarged by a whole number.
    """
    from PIL import Image

    n, height, width = images.shape[:3]
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 128, np.uint8)
    for number, image in enumerate(images):
        top, left = (
            place * (size + 1) + 1
            for place, size in zip(divmod(number, columns), (height, width), strict=True)
        )
        grid[top : top + height, left : left + width] = image
    scale = max(1, round(side / grid.shape[1]))
    with atomic_write(path, "wb") as file:
        Image.fromarray(grid.repeat(scale, axis=0).repeat(scale, axis=1)).save(file, "PNG")


def epoch_grids(folder: Path) -> dict[int, Path]:
    """Return the pictures ``epoch_001.png``, ... of a folder by their epochs, in ascending order.

    A folder that does not exist has none.
    """
    numbers = {path.stem.removeprefix("epoch_"): path for path in folder.glob("epoch_*.png")}
    return dict(sorted((int(number), p) for number, p in numbers.items() if number.isdecimal()))


def write_animation(paths: Sequence[Path], path: Path, *, seconds: float = 6.0) -> None:
    """Write pictures of one size as a GIF that repeats; the last one stays longer.

    Parameters
    ----------
    paths : sequence of Path
    path : Path
    seconds : float, default 6
        Of all but the last picture.
    """
    from PIL import Image

    frames = [Image.open(file).convert("P", palette=Image.Palette.ADAPTIVE) for file in paths]
    times = [max(40, int(1000 * seconds / len(frames)))] * len(frames)
    times[-1] = 2000
    with atomic_write(path, "wb") as file:
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
