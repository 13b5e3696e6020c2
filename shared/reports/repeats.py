"""The figures of a repeated cross-validation: mean and spread over the repeats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.cli.files import atomic_write, write_json

_FIGURES = ("micro_f1", "macro_f1", "accuracy", "mae", "rmse", "r2", "spearman")


def summarize_repeats(folders: Sequence[Path]) -> str:
    """Add mean and standard deviation over the repeats to the metrics and the card of the first.

    Parameters
    ----------
    folders : sequence of Path
        The output folder of each repeat, with ``metrics.json``. That of the first one gets
        ``repeats`` and, for each figure, ``*_mean`` and ``*_std``; and a table at the end of its
        ``README.md``.

    Returns
    -------
    str
        The table.
    """
    runs = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in folders]
    first = runs[0]
    lines = [
        f"| figure | mean ± sd of {len(runs)} repeats | by seed: "
        f"{', '.join(str(run['seed']) for run in runs)} |",
        "|---|---|---|",
    ]
    summary: dict[str, float] = {"repeats": len(runs)}
    for name in [name for name in first if name.endswith(_FIGURES)]:
        values = [run[name] for run in runs]
        summary |= {f"{name}_mean": float(np.mean(values))}
        summary |= {f"{name}_std": float(np.std(values, ddof=1))}
        spread = f"{summary[f'{name}_mean']:.3f} ± {summary[f'{name}_std']:.3f}"
        lines.append(f"| {name} | {spread} | {', '.join(f'{value:.3f}' for value in values)} |")
    table = "\n".join(lines)
    write_json(folders[0] / "metrics.json", first | summary)
    card = (folders[0] / "README.md").read_text(encoding="utf-8")
    with atomic_write(folders[0] / "README.md") as file:
        file.write(f"{card.rstrip()}\n\n## Repeated cross-validation\n\n{table}\n")
    return table
