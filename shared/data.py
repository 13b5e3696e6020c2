"""`--data`: any source of labelled and unlabelled texts as one memory-mapped data set.

The finished file is kept in the data sets cache and used again for as long as the source and the
flags stay the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shared._prepare import prepare
from shared.corpus import Corpus
from shared.data_arguments import DataArguments, SplitArguments
from shared.errors import UserError
from shared.readers import Source, expand_path, open_source

CACHE_FORMAT = 2  # raise it whenever the same source and flags lead to another file


def load_data(
    args: DataArguments,
    *,
    label_names: Sequence[str] | None = None,
    labels_required: bool = True,
) -> Corpus:
    """Read what `args.data` names, or take it from the cache.

    In order: pull requests and blank texts are left out; labels are renamed and selected
    (`label_map`), then dropped (`drop_labels`); of texts that are equal but for white space the
    first labelled one stays; labels on too few of the remaining rows are left out
    (`min_label_count`); near duplicates are grouped (see `shared.duplicates`).

    Label ids follow the order of `label_map`, else that of `class_names` or of the hub data set's
    classes, else the names sorted (whole numbers by value).

    Parameters
    ----------
    args : the flags; only those of `DataArguments` matter.
    label_names : names that label ids must follow, those of a trained model. Then
        `min_label_count` does not apply, and a label that is not among them is an error.
    labels_required : False takes a source without any label, too.

    Raises
    ------
    UserError : whatever is wrong with the flags, the file, a row or a label, in one line.
    """
    import datasets

    if args.min_label_count < 1:
        raise UserError(f"--min_label_count {args.min_label_count}: must be at least 1")
    source = open_source(
        args.data, column_names=args.column_names, config=args.data_config, split=args.data_split
    )
    if args.class_names:  # of whichever column holds the labels
        names = _read_class_names(args.class_names)
        source = replace(source, class_names=dict.fromkeys(source.columns, names))
    label_map = _read_label_map(args.label_map) if args.label_map else None
    folder = Path(args.cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "recipes")
    stem = Path(source.name).name.split(".")[0]
    path = folder / f"{stem}-{_cache_key(source, args, label_map, label_names)}.arrow"
    corpus = _open_prepared(path)
    if corpus is not None and (corpus.label_names or not labels_required):
        return corpus
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Prepared beside its final place and renamed at the end: a file with the final name is
        # whole, however many processes prepare it at once and whatever stops them.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            prepared = prepare(
                source,
                args,
                label_map,
                label_names,
                Path(scratch),
                labels_required=labels_required,
            )
            os.replace(prepared, path)
    except OSError as error:
        raise UserError(
            f"--cache_dir {folder}: cannot be written ({error.strerror or error}); "
            "free some space or name another folder"
        ) from error
    return _open_prepared(path)


def load_held_out(args: SplitArguments, corpus: Corpus) -> dict[str, Corpus]:
    """Read `args.valid_data` and `args.test_data`, with the labels that `corpus` has.

    Labels left out of `corpus`, by a flag or because they are too rare, are left out here as well.
    Where `corpus` has none at all, the files may have any, or none.

    Returns
    -------
    dict of "valid" and "test" to Corpus, as far as they have files of their own.

    Raises
    ------
    UserError : as `load_data`.
    """
    # By their name in the file; one that another label was renamed to stays.
    absent = [name for name in corpus.report["labels_left_out"] if name not in corpus.label_names]
    drop_labels = [*args.drop_labels, *absent]
    return {
        part: load_data(
            replace(args, data=data, drop_labels=drop_labels),
            label_names=corpus.label_names or None,
            labels_required=bool(corpus.label_names),
        )
        for part in ("valid", "test")
        if (data := getattr(args, f"{part}_data", None)) is not None
    }


def _read_class_names(path: str) -> list[str]:
    """Name of each class, in the order of their numbers."""
    try:
        lines = expand_path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"--class_names {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--class_names {path}: not UTF-8 ({error})") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise UserError(f"--class_names {path}: the file is empty; write one name per line")
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            problem = f"{name!r} is there already" if name else "the line is blank"
            raise UserError(f"--class_names {path}, line {number}: {problem}; give each a name")
    return names


def _read_label_map(path: str) -> dict[str, str]:
    """Old name -> new name of the labels to keep."""
    import yaml

    try:
        content = yaml.safe_load(expand_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--label_map {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--label_map {path}: not valid YAML: {reason}") from error
    if not isinstance(content, (list, dict)) or not content:
        raise UserError(f"--label_map {path}: expected a list of labels or a mapping old: new")
    new_names = content.values() if isinstance(content, dict) else content
    for name in (*content, *new_names):
        # YAML reads an unquoted yes, no or null as something else than a name.
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise UserError(f"--label_map {path}: {name!r} is not a label name; put it in quotes")
    return {str(old): str(new) for old, new in zip(content, new_names, strict=True)}


def _cache_key(source: Source, args: DataArguments, label_map, label_names) -> str:
    """Changes whenever the prepared data would."""
    key = [
        CACHE_FORMAT,
        source.name,
        source.version,
        source.class_names,
        args.column_names,
        args.text_columns,
        args.label_column,
        args.label_separator,
        list(label_map.items()) if label_map else None,
        args.drop_labels,
        args.min_label_count,
        args.pull_requests,
        args.empty_labels,
        label_names and list(label_names),
    ]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _open_prepared(path: Path) -> Corpus | None:
    """The prepared file, memory-mapped; None if there is none or it is damaged."""
    import pyarrow as pa
    from datasets import Dataset

    try:
        with pa.memory_map(str(path)) as file:
            report = json.loads(pa.ipc.open_stream(file).schema.metadata[b"report"])
        dataset = Dataset.from_file(str(path))
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    return Corpus(dataset, report) if len(dataset) == report["rows"] else None
