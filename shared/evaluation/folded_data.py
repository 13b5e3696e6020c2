"""`--data` for a cross-validation: documents, their labels, and the fold of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.cli.launch import print_once
from shared.data.corpus import load_corpus
from shared.evaluation.cross_validation import (
    assign_folds,
    describe_folds,
    join_groups,
    read_column,
)

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus


@dataclass(frozen=True)
class FoldedData:
    """The documents of a cross-validation, by part.

    "oof" (out of fold) are the labelled rows of `--data` that repeat no test row; "test", if there
    is a file of test rows, are its labelled rows.

    Attributes
    ----------
    corpus : Corpus
        All rows of `--data`.
    documents : part to `datasets.Dataset` with the columns of `Corpus.dataset`.
    labels : part to uint8 array of shape (documents, labels), multi-hot.
    fold_of : int array of shape (documents of "oof",)
        The fold that holds out each document, from 0.
    fingerprints : list of str
        One for each file of rows: of `--data`, then of the test rows.
    """

    corpus: Corpus
    documents: dict[str, Dataset]
    labels: dict[str, np.ndarray]
    fold_of: np.ndarray
    fingerprints: list[str]


def load_and_fold(
    args: DataArguments, *, folds: int, group_column: str | None, seed: int
) -> FoldedData:
    """Read the data, assign a fold to each labelled row, and print a summary of both.

    Parameters
    ----------
    args : DataArguments
        May have a `test_data` in addition.
    folds : int
        Number of folds.
    group_column : str, optional
        Column of `--data` whose values stay in one fold each. Near duplicates always do.
    seed : int
        Same seed, same folds.

    Raises
    ------
    UserError
        As `shared.data.corpus.load_corpus`, `read_column` and `assign_folds` do.
    """
    corpus, held_out = load_corpus(args)  # type: ignore[arg-type]  # no flags of a split are read
    # Rows that repeat a test row are in no fold.
    rows = corpus.labelled[~corpus.repeats([*held_out.values()])[corpus.labelled]]
    sources = {"oof": (corpus, rows)}
    sources |= {part: (other, other.labelled) for part, other in held_out.items()}
    labels = {part: source.label_matrix(rows) for part, (source, rows) in sources.items()}
    groups = corpus.groups[rows]
    if group_column:
        groups = join_groups(groups, read_column(args, corpus, group_column)[rows])
    fold_of = assign_folds(labels["oof"], folds, groups=groups, seed=seed)
    print_once(describe_folds(fold_of, labels["oof"], corpus.label_names))
    return FoldedData(
        corpus=corpus,
        documents={part: source.dataset.select(rows) for part, (source, rows) in sources.items()},
        labels=labels,
        fold_of=fold_of,
        fingerprints=[source.fingerprint for source, _ in sources.values()],
    )
