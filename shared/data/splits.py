"""Rows to train on, to choose by and to test on, none of which knows another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import print_once
from shared.data.corpus import load_corpus
from shared.splitters.multilabel import nested_slice, train_valid_test_split

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.data.arguments import SplitArguments
    from shared.data.corpus import Corpus


@dataclass(frozen=True)
class Split:
    """Labelled rows in three parts, "train", "valid" and "test", and what is left besides.

    Attributes
    ----------
    rows : part to `datasets.Dataset` with the columns of `Corpus.dataset`.
    labels : part to uint8 array of shape (rows, labels), multi-hot.
    sources : part to the `Corpus` that its rows come from, and their indices there, int64.
    unlabelled : int64 indices of the unlabelled rows of `--data` that repeat no held-out row, and
        of those in `left_out`.
    left_out : int64 indices of the training rows that `--train_size` leaves out: their labels count
        as unknown.
    repeated : labelled rows left out of all parts, since a file of held-out rows repeats them.
    """

    rows: dict[str, Dataset]
    labels: dict[str, np.ndarray]
    sources: dict[str, tuple[Corpus, np.ndarray]]
    unlabelled: np.ndarray
    left_out: np.ndarray
    repeated: int

    @property
    def corpus(self) -> Corpus:
        """What `--data` holds."""
        return self.sources["train"][0]

    @property
    def fingerprints(self) -> list[str]:
        """One fingerprint for each file of rows: of `--data`, then of held-out files."""
        sources = {id(source): source for source, _ in self.sources.values()}
        return [source.fingerprint for source in sources.values()]

    def label_counts(self, part: str = "train") -> dict[str, int]:
        """Return how many texts of a part have each label."""
        counts = self.labels[part].sum(axis=0, dtype=int).tolist()
        return dict(zip(self.corpus.label_names, counts, strict=True))

    def describe(self) -> str:
        """Return how many texts each part has, and which labels are on none of them."""
        lines = []
        if self.repeated:
            lines.append(f"left out: {self.repeated:,} labelled texts that a held-out file repeats")
        sizes = ", ".join(f"{len(y):,} {part}" for part, y in self.labels.items())
        lines.append(f"split: {sizes} texts")
        for part in self.labels:
            absent = [name for name, count in self.label_counts(part).items() if not count]
            if absent:
                lines.append(f"note: no {part} text has the label {', '.join(absent)}")
        return "\n".join(lines)


def load_and_split(args: SplitArguments, *, seed: int) -> tuple[Corpus, Split]:
    """Read the data, split the labelled rows, and print a summary of both.

    Parameters and errors are those of `shared.data.corpus.load_corpus` and `split_corpus`.
    """
    corpus, held_out = load_corpus(args)
    split = split_corpus(corpus, held_out, args, seed=seed)
    print_once(split.describe())
    return corpus, split


def split_corpus(
    corpus: Corpus, held_out: Mapping[str, Corpus], args: SplitArguments, *, seed: int
) -> Split:
    """Split the labelled rows: near duplicates on one side, labels spread as evenly as possible.

    Parameters
    ----------
    corpus : what `--data` holds.
    held_out : "valid" and "test" as far as they have files of their own, from `load_held_out`.
    args : `valid_size` and `test_size` are shares of the labelled rows; `train_size` is a number of
        training rows, drawn so that smaller ones are part of larger ones; `train_per_label` the
        same for each label, as far as it has so many.
    seed : same seed, same parts.

    Raises
    ------
    UserError
        For too few rows, labels that are on all of them or on none of a part, or a training size
        beyond the pool.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed}: must be 0 or more, below {2**32}")
    outside = ~corpus.repeats(list(held_out.values()) if args.drop_repeated else [])
    labelled = corpus.labelled[outside[corpus.labelled]]
    repeated = len(corpus.labelled) - len(labelled)
    labels = corpus.label_matrix(labelled)
    if len(labels) < (n := 3 - len(held_out)):
        but = f" ({repeated} more repeat held-out rows)" if repeated else ""
        raise UserError(f"{args.data}: {len(labels)} labelled rows are too few for {n} parts{but}")
    if labels.all():
        raise UserError(f"{args.data}: every labelled row has every label: nothing to learn")
    train, valid, test = train_valid_test_split(
        labels,
        valid_size=0 if "valid" in held_out else args.valid_size,
        test_size=0 if "test" in held_out else args.test_size,
        groups=corpus.groups[labelled],
        random_state=seed,
    )
    kept_back = corpus.groups[labelled[np.concatenate([valid, test])]]
    unlabelled = corpus.unlabelled[outside[corpus.unlabelled]]
    unlabelled = unlabelled[~np.isin(corpus.groups[unlabelled], kept_back)]
    pool = train
    if args.train_size is not None:
        if not 0 < args.train_size <= len(train):
            raise UserError(f"--train_size {args.train_size}: the pool has {len(train)} rows")
        train = train[nested_slice(labels[train], args.train_size, random_state=seed)]
    if args.train_per_label is not None:
        train = train[_some_of_each(labels[train], args.train_per_label, corpus, seed)]
    left_out = labelled[np.setdiff1d(pool, train)]
    parts = {"train": train, "valid": valid, "test": test}
    parts = {name: (corpus, labelled[rows]) for name, rows in parts.items()}
    for name, other in held_out.items():
        rows = other.labelled
        if name == "valid" and "test" in held_out and args.drop_repeated:
            rows = rows[~other.repeats([held_out["test"]])[rows]]
            repeated += len(other.labelled) - len(rows)
        parts[name] = (other, rows)
    labels = {name: source.label_matrix(rows) for name, (source, rows) in parts.items()}
    for name, y in labels.items():
        if not y.any():
            raise UserError(
                f"no {name} text has a label; label more rows of --data, or give others "
                "(--valid_data, --test_data)"
            )
    return Split(
        rows={name: source.dataset.select(rows) for name, (source, rows) in parts.items()},
        labels=labels,
        sources=parts,
        unlabelled=np.union1d(unlabelled, left_out),
        left_out=left_out,
        repeated=repeated,
    )


def _some_of_each(labels: np.ndarray, size: int, corpus: Corpus, seed: int) -> np.ndarray:
    """Rows that hold `size` of each label; those of a smaller size are among them."""
    if size < 1:
        raise UserError(f"--train_per_label {size}: must be 1 or more")
    if not corpus.single_label:
        raise UserError(
            "--train_per_label: some texts have several labels or none; use --train_size"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = labels[order].cumsum(axis=0)[np.arange(len(labels)), labels[order].argmax(axis=1)]
    return np.sort(order[rank <= size])
