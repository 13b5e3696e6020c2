"""The texts that a language model learns from, and their split.

A text file gives a document for each line, or one for the whole file. Any other data set gives one
for each row (see `shared.data.corpus.load_data`); no label is read.
"""

from __future__ import annotations

import glob
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.files import expand_path
from shared.data.arguments import DataArguments, SplitColumnArguments, check_split_flags
from shared.data.corpus import load_data
from shared.data.encodings import find_encoding, read_lines
from shared.data.split_columns import PARTS, SplitMethod, drop_repeats, split_by_column
from shared.data.unlabelled import without_labels

_SUFFIXES = (".txt", ".txt.gz")


@dataclass
class DocumentArguments(SplitColumnArguments, DataArguments):
    """Flags of recipes that read and split documents. `seed` is a flag of `TrainingArguments`."""

    documents: Literal["lines", "file"] = flag(
        "lines",
        "What a text file (.txt, .txt.gz) holds: a document on each line, or one document. A row "
        "of another file is a document (default: lines).",
    )
    split: Literal["random", "contiguous"] = flag(
        "random",
        "Which documents are held out: random ones, or the last ones, first for validation, then "
        "for the test. If there is only one document, it is always its end (default: random).",
    )
    valid_size: float = flag(
        0.1, "Share of the texts for validation; 0: none (default: .1).", least=0, below=1
    )
    test_size: float = flag(
        0.1, "Share of the texts for the test; 0: none (default: .1).", least=0, below=1
    )
    keep_together: bool = flag(
        True,
        "Keep equal or nearly equal documents on one side of a random split; leave those out that "
        "repeat one of a later part of --split_by or --split_time. Use false only to compare with "
        "published results whose splits do not (default: true).",
    )


@dataclass(frozen=True)
class Documents:
    """Texts, divided into parts.

    Attributes
    ----------
    parts : dict of "train", "valid" and "test" to a list of texts
    are_whole : whether the texts are whole documents, with a beginning and an end. If not, each
        part is one piece of one document.
    source : what was read, in a line.
    method : how the texts were divided.
    """

    parts: dict[str, list[str]]
    are_whole: bool
    source: str
    method: SplitMethod

    def n_characters(self, part: str) -> int:
        """Return the number of characters of a part; the end of a document counts as one."""
        texts = self.parts[part]
        return sum(map(len, texts)) + self.are_whole * len(texts)

    def describe(self) -> str:
        """Return the source, the sizes of the parts, and what a column says, a line each."""
        sizes = []
        for part in PARTS:
            texts = f"{len(self.parts[part]):,} texts, " if self.are_whole else ""
            sizes.append(f"{part} {texts}{sum(map(len, self.parts[part])):,} characters")
        lines = [self.source, "; ".join(sizes)]
        if self.method.column:
            lines.append(self.method.describe({part: len(self.parts[part]) for part in PARTS}))
        return "\n".join(lines)


def load_documents(args: Any) -> Documents:
    """Read and split the texts that `args.data` names.

    Parameters
    ----------
    args : DocumentArguments
        With a flag `seed`: the same seed gives the same random split.

    Raises
    ------
    UserError
        If there is no text, or not enough of it for all parts; else as `load_data`.
    """
    if args.valid_size + args.test_size >= 1:
        raise UserError(
            f"--valid_size {args.valid_size}, --test_size {args.test_size}: leave nothing to learn "
            "from; lower them"
        )
    check_split_flags(args)
    column = args.split_by or args.split_time
    if column and args.split == "contiguous":
        raise UserError("--split contiguous: --split_by and --split_time divide in another way")
    paths = _text_files(args.data)
    if paths:
        if column:
            raise UserError(
                f"--split_by, --split_time {column}: --data {args.data} is a text file, which has "
                "no columns"
            )
        texts = [text for path in paths for text in _read(path, args)]
        groups = np.arange(len(texts))
        if len(texts) > 1 and args.split == "random" and args.keep_together:
            from shared.data.near_duplicates import near_duplicate_groups

            groups = near_duplicate_groups(texts)
        unit = "lines" if args.documents == "lines" else "files"
        source = f"{args.data}: {len(texts):,} {unit} with text"
    else:
        if args.documents == "file":
            raise UserError(f"--documents file: --data {args.data} is not a text file (.txt)")
        own = without_labels(args, args.data, keep_split=True)
        corpus = load_data(own, labels_required=False)
        texts, groups = list(corpus.dataset["text"]), corpus.groups
        source = corpus.describe(brief=True)
        if column:
            values = corpus.split_values(args, np.arange(len(texts)))
            method, divided, note = split_groups_by_column(
                args, values, groups, drop_repeated=args.keep_together
            )
            return Documents(
                {name: [texts[row] for row in rows] for name, rows in divided.items()},
                are_whole=True,
                source="\n".join(filter(None, [source, note])),
                method=method,
            )
    if not texts:
        raise UserError(f"{args.data}: no text; all lines are blank")
    sizes = [args.valid_size, args.test_size]
    if len(texts) == 1:
        cut = SplitMethod("contiguous")
        return Documents(_cut(texts[0], sizes), are_whole=False, source=source, method=cut)
    if args.split == "contiguous" or not args.keep_together:
        groups = np.arange(len(texts))
    parts = split_groups(groups, sizes, seed=None if args.split == "contiguous" else args.seed)
    return Documents(
        {name: [texts[row] for row in rows] for name, rows in zip(PARTS, parts, strict=True)},
        are_whole=True,
        source=source,
        method=SplitMethod(args.split),
    )


def split_groups_by_column(
    args: Any, values: np.ndarray, groups: np.ndarray, *, drop_repeated: bool, unit: str = "texts"
) -> tuple[SplitMethod, dict[str, np.ndarray], str]:
    """Divide rows by ``--split_by`` or ``--split_time``.

    Validation rows that a column lacks are drawn from its training rows, in groups.

    Parameters
    ----------
    args : SplitColumnArguments
        With `valid_size`, `test_size` and `seed`.
    values : int array of shape (rows,)
        As in `shared.data.split_columns.split_by_column`.
    groups : int array of shape (rows,)
        Of near duplicates.
    drop_repeated : bool
        Whether rows that nearly repeat one of a later part are left out.
    unit : str, default "texts"
        What rows are, in the note.

    Returns
    -------
    method : SplitMethod
    parts : dict of "train", "valid" and "test" to int arrays of indices
    note : str
        How many rows were left out; "" if none were.

    Raises
    ------
    UserError
        As `split_by_column`, `split_groups` and `drop_repeats`; or if no training row is left.
    """

    def draw(train: np.ndarray) -> tuple[np.ndarray, ...]:
        return split_groups(groups[train], [args.valid_size], seed=args.seed)

    method, parts = split_by_column(args, values, valid_size=args.valid_size, draw=draw)
    train, valid, test = parts
    if drop_repeated:
        train, valid = drop_repeats(groups, train, valid, test)
    if not len(train):
        raise UserError(f"{args.data}: no {unit} are left to learn from; all repeat a later part")
    n_repeated = len(parts[0]) + len(parts[1]) - len(train) - len(valid)
    note = f"left out: {n_repeated:,} {unit} that nearly repeat one of a later part"
    return method, dict(zip(PARTS, (train, valid, test), strict=True)), note * (n_repeated > 0)


def split_groups(
    groups: np.ndarray, sizes: list[float], *, seed: int | None
) -> tuple[np.ndarray, ...]:
    """Divide rows; those of a group stay together.

    Parameters
    ----------
    groups : int array of shape (rows,)
    sizes : list of float
        Shares of the groups for the second and each further part. A part with a share above 0 gets
        at least one group.
    seed : int, optional
        None: the groups are not shuffled, the last ones are the last part.

    Returns
    -------
    tuple of int arrays
        The rows of the first part and of the others, in ascending order.

    Raises
    ------
    UserError
        If no group is left for the first part.
    """
    names, codes = np.unique(groups, return_inverse=True)
    order = np.arange(len(names))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    stops = _stops(len(names), sizes)
    part_of_group = np.empty(len(names), int)
    part_of_group[order] = np.searchsorted(stops, np.arange(len(names)), side="right")
    parts = part_of_group[codes]
    return tuple(np.flatnonzero(parts == part) for part in range(len(sizes) + 1))


def _stops(n: int, sizes: list[float]) -> np.ndarray:
    """Return where the parts of n things end, but the last one: as many numbers as sizes."""
    wanted = [max(round(size * n), 1) if size else 0 for size in sizes]
    if sum(wanted) >= n:
        raise UserError(
            f"--valid_size, --test_size: {n} texts (nearly equal ones count once) are too few to "
            "hold some out; add texts, or set one of them to 0"
        )
    return n - np.cumsum(wanted[::-1])[::-1]


def _cut(text: str, sizes: list[float]) -> dict[str, list[str]]:
    """Cut one text into training, validation and test part; the parts follow each other."""
    cuts = [math.floor(len(text) * (1 - sum(sizes[i:])) + 1e-9) for i in range(len(sizes))]
    starts, stops = [0, *cuts], [*cuts, len(text)]
    return {
        name: [text[start:stop]] if stop > start else []
        for name, start, stop in zip(PARTS, starts, stops, strict=True)
    }


def _text_files(data: str) -> list[Path]:
    """Return the text files of a name or pattern; none if it names something else."""
    path = expand_path(data)
    if not path.name.lower().endswith(_SUFFIXES):
        return []
    if path.is_file():
        return [path]
    paths = sorted(map(Path, glob.glob(str(path))))
    if not paths:
        raise UserError(f"{path}: no such file")
    return paths


def _read(path: Path, args: Any) -> list[str]:
    """Return the documents of a text file, without blank ones."""
    encoding, _ = find_encoding(path, args.encoding)
    lines = read_lines(path, encoding)
    if args.documents == "file":
        texts = ["".join(lines)]
    else:
        texts = [line.rstrip("\r\n") for line in lines]
    return [text for text in texts if text.strip()]
