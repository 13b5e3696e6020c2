"""Split the labelled rows into a training, a validation and a test set.

Near duplicates are never on two sides of a split, and the rows of held-out files are not trained
on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import print_once
from shared.data.arguments import NEGATIVE_HINT, SplitArguments
from shared.data.corpus import append_unknown_labels, load_corpus, unknown_label_names
from shared.data.labels import name_some
from shared.data.split_columns import (
    SplitMethod,
    check_validation_left,
    drop_repeats,
    split_by_column,
)
from shared.splitters.multilabel import nested_slice, train_valid_test_split

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.data.corpus import Corpus


@dataclass(frozen=True)
class Split:
    """Training, validation and test set, and the other rows that a recipe may use.

    The three sets have the keys "train", "valid" and "test".

    Attributes
    ----------
    rows : for each set, a `datasets.Dataset` with the columns of `Corpus.dataset`.
    labels : for each set, multi-hot labels: a uint8 array of shape (rows, labels). Labels of a
        held-out file that `--data` does not have are not among them; see `with_unknown_labels`.
    sources : for each set, the `Corpus` that its rows come from, and their int64 indices there.
    unlabelled : int64 indices of rows of `--data` whose labels are not known to the model: the
        unlabelled rows without a near duplicate in the validation or test set, and the rows of
        `left_out`. Sorted.
    left_out : int64 indices of the rows of `--data` that `--train_size` or `--train_per_label`
        leaves out of the training set. Their labels must be treated as unknown.
    repeated : number of labelled rows that are in none of the sets because they are near duplicates
        of held-out rows.
    method : how the rows were divided.
    """

    rows: dict[str, Dataset]
    labels: dict[str, np.ndarray]
    sources: dict[str, tuple[Corpus, np.ndarray]]
    unlabelled: np.ndarray
    left_out: np.ndarray
    repeated: int
    method: SplitMethod = field(default_factory=SplitMethod)

    @property
    def corpus(self) -> Corpus:
        """The data set of `--data`."""
        return self.sources["train"][0]

    @property
    def fingerprints(self) -> list[str]:
        """One fingerprint per data set: that of `--data`, then those of held-out files."""
        # By identity, so that a data set that gives several of the three sets is listed once.
        sources = {id(source): source for source, _ in self.sources.values()}
        return [source.fingerprint for source in sources.values()]

    @property
    def tests_its_training_rows(self) -> bool:
        """Whether training set and test set are the same rows: those of a cross-validation."""
        (train, train_rows), (test, test_rows) = (self.sources[p] for p in ("train", "test"))
        return train is test and np.array_equal(train_rows, test_rows)

    @property
    def pseudo_labelled(self) -> np.ndarray:
        """int64 indices of the rows of `Corpus.pseudo_labelled` to train on.

        Those with a near duplicate in the validation or test set are not among them.
        """
        corpus, rows = self.corpus, self.corpus.pseudo_labelled
        held_out = [self.sources[part] for part in ("valid", "test")]
        own = [corpus.groups[held] for source, held in held_out if source is corpus]
        others = [source for source, _ in held_out if source is not corpus]
        repeats = np.isin(corpus.groups, np.concatenate([corpus.groups[:0], *own]))
        if len(rows):
            repeats |= corpus.repeats(others)
        return rows[~repeats[rows]]

    def label_counts(self, part: str = "train") -> dict[str, int]:
        """Return how many texts of a set ("train", "valid" or "test") have each label."""
        counts = self.labels[part].sum(axis=0, dtype=int).tolist()
        return dict(zip(self.corpus.label_names, counts, strict=True))

    def with_unknown_labels(self, part: str, *values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the labels of a set with its unknown labels, and `values` with equal columns.

        Take metrics from these arrays: the unknown labels then count as misses. `values` are scores
        or predicted labels; see `shared.data.corpus.append_unknown_labels`.
        """
        return append_unknown_labels(self.rows[part], self.labels[part], *values)

    def all_labelled(self) -> Split:
        """Return a split whose training set has all rows of the three sets that are in `--data`."""
        sources = self.sources.values()
        rows = [rows for source, rows in sources if source is self.corpus]
        none = self.corpus.labelled[:0]
        return split_without_validation(self.corpus, train=np.sort(np.concatenate(rows)), test=none)

    def explain(self, all_rows: Split | None) -> str:
        """Return sentences for a card: which figures belong to which classifier.

        `all_rows` has the training set of a last fit after the evaluation, if there was one.
        """
        n_train, n_test = len(self.labels["train"]), len(self.labels["test"])
        text = f"The figures are those of a classifier that was fitted on {n_train:,} texts, "
        text += f"on {n_test:,} held-out texts."
        if self.method.column:
            text += f" {self.method.explain()}"
        return text if all_rows is None else f"{text} {all_rows.explain_last_fit()}"

    def explain_last_fit(self) -> str:
        """Return sentences for a card: the saved tagger learned from this training set."""
        return (
            f"The tagger in this folder was then fitted on all {len(self.labels['train']):,} "
            "labelled texts of --data. It should be a little better than the figures say."
        )

    def describe(self) -> str:
        """Return a summary: texts in each set, and the labels that a set lacks."""
        lines = []
        if self.repeated:
            repeating = "a held-out file repeats"
            if self.method.column:
                repeating = "nearly repeat a text of a later part (--drop_repeated)"
            lines.append(f"left out: {self.repeated:,} labelled texts that {repeating}")
        lines.append(self.method.describe({part: len(y) for part, y in self.labels.items()}))
        for part in [part for part, y in self.labels.items() if len(y)]:
            counts = self.label_counts(part)
            absent = [name for name, count in counts.items() if not count]
            if absent:
                lines.append(f"note: no {part} text has the label {name_some(absent)}")
        return "\n".join(lines)


def load_and_split(args: SplitArguments, *, seed: int) -> tuple[Corpus, Split]:
    """Load the data, split the labelled rows, and print a summary of both.

    For parameters and errors see `shared.data.corpus.load_corpus` and `split_corpus`.
    """
    corpus, held_out = load_corpus(args)
    split = split_corpus(corpus, held_out, args, seed=seed)
    print_once(split.describe())
    return corpus, split


def split_corpus(
    corpus: Corpus,
    held_out: Mapping[str, Corpus],
    args: SplitArguments,
    *,
    seed: int,
    labels_required: bool = True,
) -> Split:
    """Split the labelled rows into a training, a validation and a test set.

    Near duplicates stay in one set, and the labels are spread as evenly as possible
    (`shared.splitters.multilabel`).

    Parameters
    ----------
    corpus : the data set of `--data`.
    held_out : "valid" and "test" to the data sets of `--valid_data` and `--test_data`, as far as
        they are given, from `load_held_out`. Such a set is not drawn from `corpus`.
    args : `valid_size` and `test_size` are shares of the labelled rows; a `valid_size` of 0 gives
        an empty validation set. `train_size` is a number of training rows; smaller training sets
        are part of larger ones. `train_per_label` is the same for each label; of a label with
        fewer rows, all are used.
    seed : the same seed gives the same split.
    labels_required : false: `corpus` may have no labelled row. The training set is then empty, and
        `held_out` must have the test set.

    Raises
    ------
    UserError
        There are too few labelled rows, every row has every label, a set has no label at all, or
        more training rows are wanted than there are.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed}: must be 0 or more, below {2**32}")

    # Leave out rows that a held-out file repeats.
    not_repeated = ~corpus.repeats(list(held_out.values()) if args.drop_repeated else [])
    labelled = corpus.labelled[not_repeated[corpus.labelled]]
    repeated = len(corpus.labelled) - len(labelled)
    if not labels_required and not len(corpus.labelled):
        return _split_without_labels(corpus, held_out, args, not_repeated)
    y = corpus.label_matrix(labelled)  # (labelled rows, labels)
    n_sets = 3 - len(held_out) - ("valid" not in held_out and args.valid_size == 0)
    if len(y) < n_sets:
        hint = f" ({repeated} more repeat held-out rows)" if repeated else ""
        raise UserError(f"{args.data}: {len(y)} labelled rows are too few for {n_sets} parts{hint}")
    if y.all():
        raise UserError(
            f"{args.data}: every labelled row has every label: nothing to learn; {NEGATIVE_HINT}"
        )

    # Split. train, valid, test and pool are positions in `labelled`, not rows of the corpus.
    method = SplitMethod("files" if held_out else "random")
    groups = corpus.groups[labelled]
    if args.split_by or args.split_time:
        method, (train, valid, test) = _split_by_column(corpus, labelled, y, args, seed)
        if args.drop_repeated:
            n_before = len(train) + len(valid)
            train, valid = drop_repeats(groups, train, valid, test)
            repeated += n_before - len(train) - len(valid)
    else:
        train, valid, test = train_valid_test_split(
            y,
            valid_size=0 if "valid" in held_out else args.valid_size,
            test_size=0 if "test" in held_out else args.test_size,
            groups=groups,
            random_state=seed,
        )

    # Unlabelled rows may be trained on, too: leave out those that repeat a row of a held-out file,
    # of the validation set or of the test set.
    held_out_groups = corpus.groups[labelled[np.concatenate([valid, test])]]
    unlabelled = corpus.unlabelled[not_repeated[corpus.unlabelled]]
    unlabelled = unlabelled[~np.isin(corpus.groups[unlabelled], held_out_groups)]
    if args.split_time:
        unlabelled = _older(corpus, unlabelled, labelled[np.concatenate([valid, test])])

    # Reduce the training set. This comes after the split, so that training sets of any size are
    # compared on the same validation and test set.
    pool = train
    if args.train_size is not None:
        if not 0 < args.train_size <= len(train):
            raise UserError(f"--train_size {args.train_size}: the pool has {len(train)} rows")
        train = train[nested_slice(y[train], args.train_size, random_state=seed)]
    if args.train_per_label is not None:
        train = train[_rows_per_label(y[train], args.train_per_label, corpus, seed)]
    left_out = labelled[np.setdiff1d(pool, train)]

    # Put the sets together; held-out files replace the (empty) sets from the split.
    sources = {
        "train": (corpus, labelled[train]),
        "valid": (corpus, labelled[valid]),
        "test": (corpus, labelled[test]),
    }
    for name, other in held_out.items():
        rows = other.labelled
        # Two files may repeat each other: then the row stays in the test set.
        if name == "valid" and "test" in held_out and args.drop_repeated:
            rows = rows[~other.repeats([held_out["test"]])[rows]]
            check_validation_left(len(other.labelled), len(rows))
            repeated += len(other.labelled) - len(rows)
        sources[name] = (other, rows)
    labels = {name: source.label_matrix(rows) for name, (source, rows) in sources.items()}
    for name, matrix in labels.items():
        if name == "valid" and not len(matrix) and "valid" not in held_out:
            continue  # --valid_size 0: no validation set is wanted
        if not matrix.any():
            unknown = unknown_label_names(sources[name][0].dataset)
            raise UserError(
                f"no {name} text has a label{' that --data has' if unknown else ''}; label more "
                "rows of --data, or name other files with --valid_data and --test_data"
            )
    return Split(
        rows={name: source.dataset.select(rows) for name, (source, rows) in sources.items()},
        labels=labels,
        sources=sources,
        unlabelled=np.union1d(unlabelled, left_out),
        left_out=left_out,
        repeated=repeated,
        method=method,
    )


def split_without_validation(corpus: Corpus, *, train: np.ndarray, test: np.ndarray) -> Split:
    """Return a split of rows of the corpus, int64 indices; the validation set is empty."""
    none = corpus.labelled[:0]
    sources = {"train": (corpus, train), "valid": (corpus, none), "test": (corpus, test)}
    # Unlabelled rows that repeat a test row must not be trained on.
    repeats = np.isin(corpus.groups[corpus.unlabelled], corpus.groups[test])
    return Split(
        rows={name: source.dataset.select(rows) for name, (source, rows) in sources.items()},
        labels={name: source.label_matrix(rows) for name, (source, rows) in sources.items()},
        sources=sources,
        unlabelled=corpus.unlabelled[~repeats],
        left_out=none,
        repeated=0,
        method=SplitMethod("cross_validation"),
    )


def _split_by_column(
    corpus: Corpus, labelled: np.ndarray, y: np.ndarray, args: SplitArguments, seed: int
) -> tuple[SplitMethod, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Divide the labelled rows as a column says; return positions in `labelled`."""

    def draw(train: np.ndarray) -> tuple[np.ndarray, ...]:
        return train_valid_test_split(
            y[train],
            valid_size=args.valid_size,
            test_size=0,
            groups=corpus.groups[labelled[train]],
            random_state=seed,
        )

    values = corpus.split_values(args, labelled)
    return split_by_column(args, values, valid_size=args.valid_size, draw=draw)


def _older(corpus: Corpus, rows: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return those of `rows` whose time is known and before that of all held-out rows."""
    if not len(held_out):
        return rows
    times = corpus.dataset.data["time"]
    border = times.take(held_out).to_numpy().min()
    is_older = np.zeros(len(times), bool)
    known = times.is_valid().to_numpy()
    is_older[known] = times.drop_null().to_numpy() < border
    return rows[is_older[rows]]


def _split_without_labels(
    corpus: Corpus, held_out: Mapping[str, Corpus], args: SplitArguments, not_repeated: np.ndarray
) -> Split:
    """Return a split without training rows; `not_repeated` is bool, of shape (rows,)."""
    if "test" not in held_out:
        raise UserError(
            f"{args.data}: no row is labelled by hand, so none can be tested on; name a file of "
            "labelled rows with --test_data"
        )
    none = corpus.labelled
    sources = {"train": (corpus, none), "valid": (corpus, none), "test": (corpus, none)}
    sources |= {name: (other, other.labelled) for name, other in held_out.items()}
    return Split(
        rows={name: source.dataset.select(rows) for name, (source, rows) in sources.items()},
        labels={name: source.label_matrix(rows) for name, (source, rows) in sources.items()},
        sources=sources,
        unlabelled=corpus.unlabelled[not_repeated[corpus.unlabelled]],
        left_out=none,
        repeated=0,
        method=SplitMethod("files"),
    )


def _rows_per_label(y: np.ndarray, size: int, corpus: Corpus, seed: int) -> np.ndarray:
    """Draw `size` rows of each label of y, shape (rows, labels); smaller draws are part of it."""
    if size < 1:
        raise UserError(f"--train_per_label {size}: must be 1 or more")
    if not corpus.single_label:
        raise UserError(
            "--train_per_label: some texts have several labels or none; use --train_size"
        )
    # Shuffle the rows and number those of each label from 1 in this order. Taking the ranks up to
    # `size` makes draws nested, because the order depends on the seed and the rows alone.
    order = np.random.default_rng(seed).permutation(len(y))
    shuffled = y[order]
    label_of_row = shuffled.argmax(axis=1)
    rank = shuffled.cumsum(axis=0)[np.arange(len(y)), label_of_row]
    return np.sort(order[rank <= size])
