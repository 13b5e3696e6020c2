"""Data sets of the library `datasets`: on the hub, and folders that `save_to_disk` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli.errors import UserError
from shared.data.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features

BATCH_ROWS = 1000
_ONE, _SEVERAL = "state.json", "dataset_dict.json"  # written by Dataset and DatasetDict


def is_saved(path: Path) -> bool:
    """Return whether `save_to_disk` wrote a folder."""
    return (path / _SEVERAL).is_file() or (
        (path / _ONE).is_file() and (path / "dataset_info.json").is_file()
    )


def open_saved(path: Path, split: str) -> Source:
    """Open a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Parameters
    ----------
    path : Path
    split : str
        The data set to take from a `DatasetDict`. If it has only one, that one is taken.

    Raises
    ------
    UserError
        If there are several, and none of this name; or if the folder cannot be read.
    """
    import datasets

    layout, notes, folder = "a saved data set", [], path
    if (path / _SEVERAL).is_file():
        try:
            splits = json.loads((path / _SEVERAL).read_text("utf-8"))["splits"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path / _SEVERAL}: cannot be read ({error})") from error
        if len(splits) == 1:
            split = splits[0]
        if split not in splits:
            raise UserError(
                f"{path}: its splits are {', '.join(splits)}; name one of them with --data_split"
            )
        folder, layout = path / split, f"a saved data set, split {split!r}"
        if others := [str(path / name) for name in splits if name != split]:
            notes = [
                f"read the split {split!r} (--data_split); not read: {', '.join(others)} "
                "(--valid_data and --test_data take such a path)"
            ]
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:  # depends on what is damaged, also errors of pyarrow
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: cannot be read as a saved data set ({reason})") from error
    return _source(str(folder), dataset, layout, notes)


def open_hub(name: str, config: str | None, split: str) -> Source:
    """Load a hub data set through the cache of the datasets library.

    Parameters
    ----------
    name : str
        Its id.
    config : str, optional
        Its configuration.
    split : str

    Raises
    ------
    UserError
        If the hub does not answer, or has no such data set.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    offline = datasets.config.HF_HUB_OFFLINE
    try:
        # Without a network, load_dataset retries for most of a minute. This request is sent once.
        if not offline:
            HfApi().dataset_info(name, timeout=5)
    except HfHubHTTPError:
        pass  # The hub has answered. The error of load_dataset says more about the problem.
    except Exception as error:  # the exception types depend on the installed HTTP library
        raise UserError(
            f"{name}: no such file, and the hub does not answer; give the path of a file, or "
            "set HF_HUB_OFFLINE=1 to use a copy that is already in the cache"
        ) from error
    try:
        dataset = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        hint = "; unset HF_HUB_OFFLINE to download it" if offline else ""
        raise UserError(
            f"{name}: no such file, and no usable hub data set: {reason}{hint}"
        ) from error
    return _source(name, dataset, f"a hub data set, split {split!r}", [])


def _source(name: str, dataset: Dataset, layout: str, notes: list[str]) -> Source:
    def read(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        selected = dataset.select_columns(list(columns)) if columns else dataset
        for table in selected.with_format("arrow").iter(BATCH_ROWS):
            yield from table.to_pylist()

    names = _class_names(dataset.features)
    columns = dataset.column_names
    return Source(name, dataset._fingerprint, columns, read, layout, names, notes)


def class_names_of(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the class names of each column in the schema of a file that `datasets` wrote."""
    from datasets import Features

    return _class_names(Features.from_arrow_schema(schema))


def _class_names(features: Features) -> dict[str, list[str]]:
    import datasets

    names = {}
    for column, feature in features.items():
        feature = getattr(feature, "feature", feature)  # the elements of a list
        if isinstance(feature, datasets.ClassLabel):
            names[column] = feature.names
    return names
