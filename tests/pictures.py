"""Plots that tests draw once.

Drawing takes a good part of the time of a tiny run, and the tests of shared/plots draw plots of all
kinds of figures.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

DRAW = Figure.savefig
PICTURES = tempfile.TemporaryDirectory()  # of this process and its forks


def draw_once(figure, file, **options):
    """Stand for `Figure.savefig`: a recipe gets the same picture for all its plots of one name."""
    name = re.sub(r"\.\d+\.tmp$", "", Path(file.name).name)  # without the number of the process
    picture = Path(PICTURES.name, f"{Path(sys.argv[0]).stem}{name}")
    if not picture.exists():
        part = picture.with_suffix(f".{os.getpid()}")
        DRAW(figure, part, **options)
        part.replace(picture)
    file.write(picture.read_bytes())
