"""Which labelled rows a method is evaluated on, and which rows its tagger is fitted on.

With many labelled rows, a part of them is held out. With few, this part would be too small to
measure anything and is missed in training: cross-validation tests every row, with a classifier that
has not seen it. Either way, the tagger that is saved may learn from all labelled rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from shared.cli.arguments import flag, named_flags
from shared.cli.errors import UserError
from shared.cli.launch import print_once
from shared.data.arguments import SplitArguments
from shared.data.corpus import Corpus, load_corpus
from shared.data.folds import assign_folds, describe_folds
from shared.data.label_noise import plant_label_errors
from shared.data.splits import Split, split_corpus, split_without_validation

FEW_ROWS = 500  # labelled rows below which `--evaluate auto` is a cross-validation


@dataclass
class EvaluationArguments:
    """Flags about the evaluation of methods that are fitted in seconds."""

    evaluate: Literal["auto", "cross_validation", "held_out"] = flag(
        "auto",
        "cross_validation: every labelled row is tested by a classifier of the other folds; "
        "held_out: a part of the rows is for validation and test; auto: cross_validation below "
        f"{FEW_ROWS} labelled rows, unless other flags name files, sizes or a part of the rows "
        "(default: auto).",
    )
    folds: int = flag(5, "Folds of a cross-validation (default: 5).", least=2)
    repeats: int = flag(
        1,
        "Number of cross-validations, each with other folds; the figures then have a mean and a "
        "standard deviation (default: 1).",
        least=1,
    )
    refit: bool = flag(
        True,
        "Fit the saved tagger on all labelled rows after the evaluation; not with a part of the "
        "training rows (default: true).",
    )
    simulate_noise: float = flag(
        0.0,
        "Share of the labelled rows that get a wrong label before the cross-validation, which "
        "then only measures how many of them are found as likely label errors; no tagger is saved "
        "(default: 0).",
        least=0,
        most=0.9,
    )


@dataclass(frozen=True)
class Resampling:
    """The splits of an evaluation, and the rows of the tagger that is saved.

    Attributes
    ----------
    corpus : Corpus
    splits : list of Split
        One, or one for each fold of each repeat: the test set is the fold, there is no validation
        set.
    all_rows : Split, optional
        Its training set has all labelled rows. None: the tagger of the only split is saved.
    repeats : int
        Number of cross-validations. Predictions and figures are those of the first one.
    planted : bool array of shape (rows of `tested`,), optional
        The rows that got a wrong label (``--simulate_noise``).
    """

    corpus: Corpus
    splits: list[Split]
    all_rows: Split | None
    repeats: int = 1
    planted: np.ndarray | None = None

    @property
    def folds(self) -> int:
        """Number of splits of a repeat."""
        return len(self.splits) // self.repeats

    @property
    def first_repeat(self) -> list[Split]:
        """The splits that `tested` is about."""
        return self.splits[: self.folds]

    @property
    def cross_validated(self) -> bool:
        """Whether there is a split for each fold."""
        return len(self.splits) > 1

    @property
    def all_splits(self) -> list[Split]:
        """All splits to fit to: those of the evaluation, then `all_rows`, if there is one."""
        return [*self.splits, *([] if self.all_rows is None else [self.all_rows])]

    @cached_property
    def tested(self) -> Split:
        """The split to report on: that of the evaluation, or all rows as test set of all folds."""
        if not self.cross_validated:
            return self.splits[0]
        rows = np.concatenate([split.sources["test"][1] for split in self.first_repeat])
        rows.sort()
        return split_without_validation(self.corpus, train=rows, test=rows)

    @property
    def fold_of(self) -> np.ndarray | None:
        """The fold that holds out each row of `tested`: int, (rows,). None without folds."""
        if not self.cross_validated:
            return None
        parts = [np.full(len(s.labels["test"]), n) for n, s in enumerate(self.first_repeat)]
        return self.join(parts)

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Return the rows of the test sets of the first repeat in the order of `tested`.

        Parameters
        ----------
        arrays : sequence of arrays of shape (test rows, ...)
            One for each split, at least for those of the first repeat.
        """
        return self._join(arrays, 0)

    def join_repeats(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the same as `join` for every repeat."""
        return [self._join(arrays, repeat) for repeat in range(self.repeats)]

    def _join(self, arrays: Sequence[np.ndarray], repeat: int) -> np.ndarray:
        if not self.cross_validated:
            return arrays[0]
        part = slice(repeat * self.folds, (repeat + 1) * self.folds)
        rows = np.concatenate([split.sources["test"][1] for split in self.splits[part]])
        return np.concatenate(arrays[part])[np.argsort(rows)]

    def title(self) -> str:
        """Return the title of a report: what the figures are measured on."""
        n = len(self.tested.labels["test"])
        if self.cross_validated:
            repeats = f", first of {self.repeats} repeats" if self.repeats > 1 else ""
            return f"Out of fold ({n:,} texts, {self.folds} folds{repeats})"
        return f"Test ({n:,} texts)"

    def explain(self) -> str:
        """Return sentences for a card: which figures belong to which classifier."""
        if not self.cross_validated:
            return self.splits[0].explain(self.all_rows)
        n_tested = len(self.tested.labels["test"])
        text = (
            f"The figures are out of fold: each of the {n_tested:,} labelled "
            "texts was tested by a classifier that was fitted on the texts of the other folds "
            f"({self.folds} folds)."
        )
        return text if self.all_rows is None else f"{text} {self.all_rows.explain_last_fit()}"


def load_resampling(args: Any, *, seed: int) -> Resampling:
    """Load the data, split the labelled rows for an evaluation, and print a summary.

    Parameters
    ----------
    args : SplitArguments with EvaluationArguments
    seed : int
        Of the split, or of the folds.

    Raises
    ------
    UserError
        As `shared.data.splits.split_corpus` and `shared.data.folds.assign_folds`; or if a
        cross-validation is wanted together with held-out files or a part of the training rows; or
        if ``--simulate_noise`` is set without a cross-validation or with repeats of it.
    """
    corpus, held_out = load_corpus(args)
    partial = args.train_size is not None or args.train_per_label is not None
    evaluate = args.evaluate
    column = args.split_by or args.split_time
    if evaluate == "cross_validation" and (held_out or partial or not args.refit):
        name = "--train_size and --train_per_label" if partial else "--valid_data and --test_data"
        name = name if args.refit else "--refit false"
        raise UserError(f"--evaluate cross_validation: uses all labelled rows; remove {name}")
    # A flag that the user has set decides, also with the value that it has by default.
    defaults = {name: getattr(SplitArguments, name) for name in ("valid_size", "test_size")}
    defaults |= {
        name: getattr(EvaluationArguments, name) for name in ("folds", "repeats", "simulate_noise")
    }
    chosen = {name for name, value in defaults.items() if getattr(args, name) != value}
    chosen |= named_flags(args)
    if column and (
        evaluate == "cross_validation" or {"folds", "repeats", "simulate_noise"} & chosen
    ):
        flag_name = "--split_by" if args.split_by else "--split_time"
        raise UserError(
            f"{flag_name} {column}: holds out the rows that the column says, but folds are drawn "
            "at random; remove --evaluate cross_validation, --folds, --repeats and --simulate_noise"
        )
    if evaluate == "auto" and column:
        evaluate = "held_out"
    if evaluate == "auto":
        free = args.refit and not (held_out or partial or {"valid_size", "test_size"} & chosen)
        wanted = len(corpus.labelled) < FEW_ROWS or {"folds", "repeats", "simulate_noise"} & chosen
        evaluate = "cross_validation" if wanted and free else "held_out"

    if evaluate == "cross_validation":
        planted = None
        if args.simulate_noise:
            if args.repeats > 1:
                raise UserError("--simulate_noise: reports one cross-validation; remove --repeats")
            corpus, rows = plant_label_errors(corpus, args.simulate_noise, seed=seed)
            planted = np.isin(corpus.labelled, rows)
        resampling = cross_validation(corpus, args.folds, seed=seed, repeats=args.repeats)
        if planted is None:
            return resampling
        return replace(resampling, all_rows=None, planted=planted)
    if args.simulate_noise:
        raise UserError("--simulate_noise: needs --evaluate cross_validation")
    if folding := sorted({"folds", "repeats"} & chosen):
        raise UserError(
            f"--{folding[0]}: only for a cross-validation; add --evaluate cross_validation"
        )
    split = split_corpus(corpus, held_out, args, seed=seed)
    print_once(split.describe())
    all_rows = split.all_labelled() if args.refit and not partial else None
    return Resampling(corpus, [split], all_rows)


def cross_validation(corpus: Corpus, folds: int, *, seed: int, repeats: int = 1) -> Resampling:
    """Assign the labelled rows to folds, once for each repeat, and print a summary of them.

    Repeat r has the folds of the seed `seed` + r.

    Raises
    ------
    UserError
        As `shared.data.folds.assign_folds`.
    """
    rows, y = corpus.labelled, corpus.label_matrix(corpus.labelled)
    parts = []
    for repeat in range(repeats):
        fold_of = assign_folds(y, folds, groups=corpus.groups[rows], seed=seed + repeat)
        if repeat == 0:
            print_once(describe_folds(fold_of, y, corpus.label_names))
        parts += [fold_of == number for number in range(folds)]
    splits = [
        split_without_validation(corpus, train=rows[~part], test=rows[part]) for part in parts
    ]
    all_rows = split_without_validation(corpus, train=rows, test=rows[:0])
    return Resampling(corpus, splits, all_rows, repeats)
