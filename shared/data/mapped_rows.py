"""Apply a function to the rows of a data set, and keep the result beside the data set's file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.files import temporary_folder

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset


def add_column(dataset: Dataset, name: str, values: np.ndarray) -> Dataset:
    """Return the data set with one more column; `Dataset.add_column` with the cache of `map_rows`.

    Parameters
    ----------
    dataset : Dataset
    name : str
    values : array of shape (rows,)
    """

    def add(_: dict, numbers: list[int]) -> dict:
        return {name: values[numbers]}

    return map_rows(dataset, add, with_indices=True)


def map_rows(dataset: Dataset, function: Callable[..., dict], **settings: Any) -> Dataset:
    """Return the rows that a function makes of batches of rows, from the cache if they are there.

    `Dataset.map` has a cache as well. But a process that is killed leaves its temporary file there,
    under a name that nobody can tell from other files.

    Parameters
    ----------
    dataset : Dataset
        If it was not read from a file, the result stays in memory.
    function : callable
        Maps a batch, a dict of columns, to a dict of columns. With all values that it uses it is
        part of the key of the cache.
    settings
        As for `Dataset.map`, such as ``remove_columns``.
    """
    from datasets import Dataset
    from datasets.fingerprint import Hasher

    if not (len(dataset) and dataset.cache_files):
        return dataset.map(function, batched=True, **settings)
    folder = Path(dataset.cache_files[0]["filename"]).parent
    key = Hasher.hash((dataset._fingerprint, function, sorted(settings.items())))
    path = folder / f"mapped-{key}.arrow"
    if not path.is_file():
        with temporary_folder(folder) as scratch:
            rows = scratch / "rows.arrow"
            dataset.map(function, batched=True, cache_file_name=str(rows), **settings)
            os.replace(rows, path)
    return Dataset.from_file(str(path))
