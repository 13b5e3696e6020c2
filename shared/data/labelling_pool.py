"""The texts from which a person labels the next ones, and those with labels; also simulated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.data.corpus import load_data
from shared.data.splits import split_corpus
from shared.data.unlabelled import without_labels

if TYPE_CHECKING:
    from shared.data.corpus import Corpus
    from shared.data.splits import Split


@dataclass(frozen=True)
class LabellingPool:
    """Texts with and without labels, in an order that further labels do not change.

    Attributes
    ----------
    parts : list of list of str
        The texts: those of the file to choose from, or a sample of them, and labelled texts that
        are not among these.
    numbers : int array of shape (texts,)
        The row of each text in its file, counted from 1.
    labelled : int array of shape (n,)
        The texts that have labels.
    labels : uint8 array of shape (n, labels)
        Their labels, multi-hot.
    candidates : int array
        The texts to choose from, in ascending order: one of each group of near duplicates, and none
        of a labelled text.
    """

    parts: list[list[str]]
    numbers: np.ndarray
    labelled: np.ndarray
    labels: np.ndarray
    candidates: np.ndarray

    @cached_property
    def texts(self) -> list[str]:
        """The texts of all parts."""
        return [text for part in self.parts for text in part]

    @property
    def fingerprint(self) -> str:
        """Hash of the labelled texts and their labels."""
        digest = hashlib.blake2b(self.labels.tobytes(), digest_size=16)
        for row in self.labelled:
            digest.update(hashlib.blake2b(self.texts[row].encode()).digest())
        return digest.hexdigest()

    @classmethod
    def of(cls, corpus: Corpus, args: Any, *, seed: int) -> LabellingPool:
        """Return the texts of ``--data``, and of ``--unlabelled_data`` if there is such a file.

        Parameters
        ----------
        corpus : Corpus
            The data set of `args.data`; it need not have any labels.
        args : DataArguments
            With `unlabelled_data` and `max_unlabelled`.
        seed : int
            Draws the texts where there are more than `max_unlabelled`.

        Raises
        ------
        UserError
            If there is no text to choose from, or the file cannot be read.
        """
        source, labelled = corpus, corpus.labelled
        if args.unlabelled_data is not None:
            source = load_data(without_labels(args, args.unlabelled_data), labels_required=False)
        n_texts = len(source.dataset)
        sample = np.arange(n_texts)
        if n_texts > args.max_unlabelled:
            rng = np.random.default_rng(seed)
            sample = np.sort(rng.choice(n_texts, args.max_unlabelled, replace=False))

        # One text of each group of near duplicates, and none of a group with a labelled text.
        if source is corpus:
            usable = np.isin(sample, corpus.unlabelled)
            usable &= ~np.isin(corpus.groups[sample], corpus.groups[labelled])
            extra = np.setdiff1d(labelled, sample)
        else:
            usable, extra = ~source.repeats([corpus])[sample], labelled
        candidates = np.flatnonzero(usable)
        first = np.unique(source.groups[sample[candidates]], return_index=True)[1]
        candidates = candidates[np.sort(first)]
        if not len(candidates):
            name = args.unlabelled_data or args.data
            raise UserError(f"{name}: no text is left without a label; add texts to label")

        rows, others = source.dataset.select(sample), corpus.dataset.select(extra)
        positions = len(sample) + np.searchsorted(extra, labelled)
        if source is corpus:
            in_sample = np.isin(labelled, sample)
            positions[in_sample] = np.searchsorted(sample, labelled[in_sample])
        return cls(
            [rows["text"][:], others["text"][:]],
            np.array([*rows["row"][:], *others["row"][:]], np.int64),
            positions,
            corpus.label_matrix(labelled),
            candidates,
        )


def split_for_simulation(
    corpus: Corpus, held_out: Mapping[str, Corpus], args: Any, *, share: float
) -> tuple[list[Split], list[np.ndarray]]:
    """Split a labelled corpus for each seed; draw the training rows that a simulation labels.

    Parameters
    ----------
    corpus, held_out
        As of `load_corpus`.
    args
        With the flags of a split, ``seeds``, ``seed``, ``max_unlabelled`` and ``labels``, the
        number of rows that are to be labelled.
    share : float
        Of the training rows (at most ``max_unlabelled``, the same for all seeds) to choose from.

    Returns
    -------
    splits : list of Split
    pools : list of int arrays
        Row numbers of the corpus, in ascending order.

    Raises
    ------
    UserError
        If there are fewer rows to choose from than are to be labelled.
    """
    splits, pools = [], []
    for seed in args.seeds:
        split = split_corpus(corpus, held_out, args, seed=seed)
        rows = split.sources["train"][1]
        if len(rows) > args.max_unlabelled:
            rng = np.random.default_rng(args.seed)  # the same rows for all seeds are embedded once
            rows = rng.choice(rows, args.max_unlabelled, replace=False)
        n_rows = round(share * len(rows))
        if n_rows < args.labels:
            raise UserError(f"--labels {args.labels}: there are {n_rows:,} texts to choose from")
        splits.append(split)
        pools.append(np.sort(np.random.default_rng(seed).choice(rows, n_rows, replace=False)))
    return splits, pools
