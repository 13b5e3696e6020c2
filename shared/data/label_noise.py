"""Wrong labels that are planted on purpose, to measure how well a method finds label errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shared.data.corpus import Corpus


def plant_label_errors(corpus: Corpus, share: float, *, seed: int) -> tuple[Corpus, np.ndarray]:
    """Give a share of the labelled rows a wrong label each.

    A row that has some labels, but not all, gets another label in place of one of its own; with
    exactly one label per text, this is another class. A row without a label gets one, and a row
    that has all labels loses one: where there is only one label, it is flipped. Rows and labels are
    drawn uniformly (symmetric noise).

    Parameters
    ----------
    corpus : Corpus
    share : float
        From 0 to 1, of the labelled rows; at least one row is changed.
    seed : int

    Returns
    -------
    corpus : Corpus
        With the wrong labels.
    rows : int64 array
        The sorted indices of the changed rows in ``corpus.dataset``.
    """
    rng = np.random.default_rng(seed)
    size = max(1, round(share * len(corpus.labelled)))
    rows = np.sort(rng.choice(corpus.labelled, size, replace=False))
    labels = corpus.dataset["labels"][:]
    for row in rows.tolist():
        own = labels[row]
        others = np.setdiff1d(np.arange(len(corpus.label_names)), own)
        dropped = rng.choice(own, min(1, len(own)))
        added = rng.choice(others, min(1, len(others)))
        labels[row] = sorted({*own} - {*dropped.tolist()} | {*added.tolist()})
    column = corpus.dataset.features["labels"]
    dataset = corpus.dataset.remove_columns("labels").add_column("labels", labels, feature=column)
    noisy = replace(corpus, dataset=dataset)
    counts = noisy.label_matrix(noisy.labelled).sum(axis=0, dtype=int).tolist()
    report = {**corpus.report, "labels": dict(zip(corpus.label_names, counts, strict=True))}
    return replace(noisy, report=report), rows
