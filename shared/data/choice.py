"""The rows that a choice between methods is made on, and the flags that test a recipe on them.

Every recipe that is compared learns from the same rows and is tested on the same rows: by
cross-validation, or on the validation rows of a split that a column of the data says. Then nothing
that is compared sees a test row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.arguments import command_flags
from shared.cli.files import atomic_write
from shared.cli.launch import print_once
from shared.data.arguments import DataArguments, SplitArguments
from shared.data.resampling import Resampling
from shared.data.splits import Split, split_corpus
from shared.data.writers import write_json_lines

if TYPE_CHECKING:
    from shared.data.corpus import Corpus

CHOICE_FILE = "choice.jsonl"


@dataclass(frozen=True)
class ChoiceRows:
    """What methods are compared on.

    Attributes
    ----------
    flags : list of str
        Of the data, for a recipe that is compared.
    evaluate : list of str
        Further ones, for a recipe that has ``--evaluate``.
    rows : int array of shape (rows,)
        The number of each row that a recipe is tested on, in its file of predictions.
    labels : uint8 array of shape (rows, labels)
        Multi-hot.
    label_names : list of str
        Those that the recipes know.
    fold_of : int array of shape (rows,), optional
        The fold that holds out each row; None without folds.
    title, measured : str
        How recipes are compared, for sentences.
    n_rows : int
        Labelled rows that a recipe reads.
    fingerprint : str
        Changes with the rows.
    """

    flags: list[str]
    evaluate: list[str]
    rows: np.ndarray
    labels: np.ndarray
    label_names: list[str]
    fold_of: np.ndarray | None
    title: str
    measured: str
    n_rows: int
    fingerprint: str


def choose_by_folds(args: Any, resampling: Resampling) -> ChoiceRows:
    """Return the rows of a cross-validation; each recipe draws the same folds itself.

    Parameters
    ----------
    args : DataArguments
    resampling : Resampling
        From `shared.data.resampling.cross_validation`.
    """
    corpus, tested = resampling.corpus, resampling.tested
    return ChoiceRows(
        flags=command_flags(args, DataArguments),
        evaluate=["--evaluate=cross_validation", f"--folds={resampling.folds}"],
        rows=np.asarray(tested.rows["test"]["row"][:]),
        labels=tested.labels["test"],
        label_names=corpus.label_names,
        fold_of=resampling.fold_of,
        title="each by cross-validation",
        measured="out of fold",
        n_rows=len(corpus.labelled),
        fingerprint=corpus.fingerprint,
    )


def split_for_choice(args: Any, corpus: Corpus, *, seed: int) -> Split:
    """Divide the labelled rows as a column says, and print a summary.

    Parameters
    ----------
    args : DataArguments and ChoiceSplitArguments
        With ``--split_by`` or ``--split_time``.
    corpus : Corpus
    seed : int
        Of validation rows that a column of parts lacks.

    Raises
    ------
    UserError
        As `shared.data.splits.split_corpus`.
    """
    names = ("data", "split_by", "split_time", "valid_size", "test_size")
    options = SplitArguments(**{name: getattr(args, name) for name in names})
    split = split_corpus(corpus, {}, options, seed=seed)
    print_once(split.describe())
    return split


def choose_by_column(args: Any, split: Split, folder: Path) -> ChoiceRows:
    """Write the rows that recipes are compared on into a file, without the test rows.

    A recipe learns from the training rows, and is tested on the validation rows, which are the test
    rows of that file. It may use the unlabelled rows of the split.

    Parameters
    ----------
    args : DataArguments
    split : Split
        From `split_for_choice`.
    folder : Path
        Receives ``choice.jsonl``.
    """
    corpus = split.corpus
    names = np.array(corpus.label_names)

    def read_rows() -> Iterator[dict[str, Any]]:
        for part, title in (("train", "train"), ("valid", "test")):
            for text, y in zip(split.rows[part]["text"], split.labels[part], strict=True):
                yield {"text": text, "labels": names[y.astype(bool)].tolist(), "part": title}
        for text in corpus.dataset.select(split.unlabelled)["text"]:
            yield {"text": text, "labels": None, "part": None}

    path = folder / CHOICE_FILE
    with atomic_write(path) as file:
        write_json_lines(file, read_rows())
    n_train, n_valid = len(split.labels["train"]), len(split.labels["valid"])
    digest = hashlib.blake2b(corpus.fingerprint.encode(), digest_size=16)
    for rows in (split.sources["train"][1], split.sources["valid"][1], split.unlabelled):
        digest.update(rows.tobytes())
    known = np.concatenate([split.labels["train"], split.labels["valid"]]).any(axis=0)
    flags = [f"--data={path}", "--split_by=part", f"--empty_labels={corpus.empty_labels}"]
    flags += ["--duplicate_labels=separate"] if args.duplicate_labels == "separate" else []
    flags += [f"--cache_dir={args.cache_dir}"] if args.cache_dir else []
    return ChoiceRows(
        flags=flags,
        evaluate=["--evaluate=held_out", "--valid_size=0"],
        rows=n_train + 1 + np.arange(n_valid),
        labels=split.labels["valid"][:, known],
        label_names=names[known].tolist(),
        fold_of=None,
        title="each tested on the validation texts",
        measured="on the validation texts",
        n_rows=n_train + n_valid,
        fingerprint=digest.hexdigest(),
    )


def widen(values: np.ndarray, names: Sequence[str], all_names: Sequence[str]) -> np.ndarray:
    """Return columns of some labels among those of all labels; the others are 0.

    Parameters
    ----------
    values : array of shape (rows, labels)
        In the order of `names`.
    names, all_names : sequences of str
    """
    wide = np.zeros((len(values), len(all_names)), values.dtype)
    wide[:, [list(all_names).index(name) for name in names]] = values
    return wide
