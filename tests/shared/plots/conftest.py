import warnings

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Return a function that calls a plot and returns its figure, which is not written."""

    def drawn(plot, *args, **kwargs):
        figures = []
        with monkeypatch.context() as patch:
            patch.setattr(
                "matplotlib.figure.Figure.savefig", lambda figure, *_, **__: figures.append(figure)
            )
            plot(*args, tmp_path / "drawn.png", **kwargs)
        return figures[0]

    return drawn


@pytest.fixture
def written(tmp_path):
    """Return a function that calls a plot and returns width and height of the file it wrote."""

    def written(plot, *args, **kwargs):
        path = tmp_path / "written.png"
        plot(*args, path, **kwargs)
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # fails if the end is missing
            return image.size

    return written
