"""What each pattern of pattern-exploiting training scores, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.cli.files import write_csv


def write_patterns(
    output_dir: Path, rows: Sequence[Mapping[str, Any]], mean_f1: Mapping[str, float]
) -> str:
    """Write ``patterns.csv``; return the text to print.

    Parameters
    ----------
    output_dir : Path
    rows : sequence of mappings
        One for each model: ``pattern``, ``seed``, ``accuracy_before`` (on the labelled texts),
        ``test_micro_f1`` and ``test_macro_f1``.
    mean_f1 : mapping of "micro_f1" and "macro_f1" to float
        On the test texts, of the mean of the models.
    """
    write_csv(output_dir / "patterns.csv", rows)
    lines = [
        f"{row['pattern']!r}: accuracy before training {row['accuracy_before']:.3f}, test "
        f"micro F1 {row['test_micro_f1']:.3f}"
        for row in rows
    ]
    lines.append(
        f"mean of the patterns: micro F1 {mean_f1['micro_f1']:.3f}, macro F1 "
        f"{mean_f1['macro_f1']:.3f}"
    )
    return "\n".join(lines)
