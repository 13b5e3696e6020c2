"""The terms that speak for and against each label, as a file and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.cli.files import write_csv

TERMS_IN_FILE = 50  # for, and as many against, each label
LABELS_SHOWN = 20


def write_terms(
    output_dir: Path,
    label_names: Sequence[str],
    words: Sequence[str],
    weights: np.ndarray,
    *,
    counts: Sequence[int],
    n_terms: int,
) -> str:
    """Write ``terms.csv``; return a table of the strongest terms of each label.

    Parameters
    ----------
    output_dir : Path
    label_names : sequence of str
    words : sequence of str
        The vocabulary.
    weights : array of shape (labels, words)
        From `shared.methods.feature_weights`.
    counts : sequence of int
        Number of texts of each label. The table has the 20 most frequent labels.
    n_terms : int
        Terms for, and as many against, each label in the table. The file has 50.

    Returns
    -------
    str
        Without a vocabulary, "".
    """
    rows, lines = [], []
    shown = {*np.argsort(-np.asarray(counts), kind="stable")[:LABELS_SHOWN].tolist()}
    width = max(map(len, label_names))
    for label, name in enumerate(label_names):
        strongest = np.argsort(-weights[label], kind="stable")
        weakest = strongest[: -TERMS_IN_FILE - 1 : -1]
        sides = {
            "for": [i for i in strongest[:TERMS_IN_FILE] if weights[label, i] > 0],
            "against": [i for i in weakest if weights[label, i] < 0],
        }
        heading = f"  {name:{width}}"
        for side, terms in sides.items():
            entries = [(words[i], float(weights[label, i])) for i in terms]
            rows += [
                {"label": name, "side": side, "term": term, "weight": f"{weight:.4g}"}
                for term, weight in entries
            ]
            if label in shown and entries:
                text = ", ".join(f"{term} {weight:.3g}" for term, weight in entries[:n_terms])
                lines.append(f"{heading}  {side:7}  {text}")
                heading = " " * len(heading)
    if not rows:
        return ""
    write_csv(output_dir / "terms.csv", rows)
    if len(label_names) > LABELS_SHOWN:
        lines.append(f"  ... {len(label_names) - LABELS_SHOWN:,} more labels are in terms.csv")
    return "\n".join(lines)
