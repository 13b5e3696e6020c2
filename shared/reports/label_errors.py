"""Likely label errors as a file, and how many planted ones are among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import write_csv
from shared.evaluation.label_errors import LabelError, find_label_errors, recovery_table
from shared.reports.excerpts import headline
from shared.taggers.folder import MANIFEST

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.data.resampling import Resampling

LABEL_ERRORS_FILE = "label_errors.csv"
SIMULATED_FILE = "simulated_label_errors.csv"
_COLUMNS = ("rank", "row", "labels", "suggested", "reason", "score", "text")


def write_label_errors(
    path: Path,
    rows: Dataset,
    errors: Sequence[LabelError],
    planted: np.ndarray | None = None,
) -> None:
    """Write likely label errors as CSV, the likeliest first.

    The columns are ``rank``, ``row`` (in the source), ``labels`` (the row has) and ``suggested``
    (joined by "; "), ``reason``, ``score`` (near 0 for a sure error) and ``text`` (its first line).

    Parameters
    ----------
    path : Path
    rows : Dataset with ``row`` and ``text``
        What `LabelError.row` is an index into.
    errors : sequence of LabelError
    planted : bool array of shape (rows,), optional
        Adds the column ``planted``.
    """
    numbers, texts = rows["row"][:], rows["text"]
    records: list[dict[str, Any]] = []
    for rank, error in enumerate(errors, 1):
        record = {
            "rank": rank,
            "row": numbers[error.row],
            "labels": "; ".join(error.labels),
            "suggested": "; ".join(error.suggested),
            "reason": error.reason,
            "score": round(error.score, 6),
            "text": headline(texts[error.row]),
        }
        if planted is not None:
            record["planted"] = bool(planted[error.row])
        records.append(record)
    columns = _COLUMNS if planted is None else (*_COLUMNS, "planted")
    write_csv(path, records, columns)


def report_simulation(output_dir: Path, resampling: Resampling, scores: np.ndarray) -> str:
    """Write the list of a run with planted label errors; return how many of them it has, as text.

    Parameters
    ----------
    output_dir : Path
        Receives ``simulated_label_errors.csv``: likely label errors, and which were planted.
    resampling : Resampling
        Of a run with ``--simulate_noise``.
    scores : array of shape (rows of ``resampling.tested``, labels)
        Out-of-fold probabilities.
    """
    split, planted = resampling.tested, resampling.planted
    assert planted is not None
    corpus = split.corpus
    errors, quality = find_label_errors(
        split.labels["test"], scores, corpus.label_names, single_label=corpus.single_label
    )
    path = output_dir / SIMULATED_FILE
    write_label_errors(path, split.rows["test"], errors, planted)
    earlier = ""
    if (output_dir / MANIFEST).exists():
        earlier = f" The tagger in {output_dir} is of an earlier run."
    return (
        f"Planted label errors: {planted.sum():,} of {len(planted):,} rows\n\n"
        f"{recovery_table(quality, planted)}\n\n"
        f"The list of {len(errors):,} likely label errors is in {path}.\n"
        f"No tagger was saved: it would have learned the wrong labels.{earlier}"
    )
