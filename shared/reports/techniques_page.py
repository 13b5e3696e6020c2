"""``report.html`` of a comparison of techniques: tables, and charts that name each line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.cli.files import atomic_write
from shared.reports.page_parts import render_page

PAGE = "report.html"


def write_techniques_page(
    output_dir: Path,
    *,
    facts: str,
    note: str,
    claims: Sequence[Mapping[str, str]],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    default: Mapping[str, Any],
    test: Mapping[str, str],
    curves: Mapping[str, Mapping[str, Mapping[str, Sequence[float | None]]]],
    signals: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]],
    magnitudes: np.ndarray,
    score: str,
    cache_dir: str | None,
) -> None:
    """Write ``report.html``; for the parameters see `shared.reports.techniques`."""
    data = {
        "score": score,
        "curves": curves,
        "edges": [round(float(edge), 2) for edge in magnitudes],
        "signals": signals,
    }
    html = render_page(
        "techniques.html.j2",
        "techniques.js",
        cache_dir,
        title="Techniques of training, measured",
        evaluation=facts,
        note=note,
        claims=claims,
        results=Counter(claim["result"] for claim in claims),
        tables=tables,
        default=default,
        test=test,
        data=data,
    )
    with atomic_write(output_dir / PAGE) as file:
        file.write(html)
