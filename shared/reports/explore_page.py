"""``explore.html``: one page about a data set, to read before training, without a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.cli.files import atomic_write
from shared.reports.page_parts import render_page

PAGE = "explore.html"
MOST_LABELS = 300  # of a table
MOST_GROUPS = 30
MOST_LINES = 40


def write_explore_page(
    output_dir: Path,
    figures: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]],
    label_names: Sequence[str],
    *,
    subtitle: str,
    cache_dir: str | None,
) -> None:
    """Write ``explore.html``.

    Parameters
    ----------
    output_dir : Path
    figures : mapping
        Those of explore.json.
    points : sequence of mappings
        From `shared.reports.exploration.map_points`; empty without a map.
    label_names : sequence of str
        The labels to whose positions the points refer.
    subtitle : str
        The line below the title.
    cache_dir : str, optional
        Of `shared.data.corpus.cache_folder`.
    """
    labels, time = figures["labels"], figures.get("time")
    data = {
        "names": list(label_names),
        "labels": [[e["label"], e["texts"]] for e in labels["labels"][:30]],
        "together": None if labels["single_label"] else labels["together"],
        "histogram": figures["lengths"]["histogram"],
        "lengths": [cut["max_length"] for cut in figures["lengths"]["cuts"]],
        "time": time,
        "points": list(points),
    }
    html = render_page(
        "explore.html.j2",
        "explore.js",
        cache_dir,
        title=f"Before training: {Path(figures['rows']['source']).name}",
        evaluation=subtitle,
        data=data,
        figures=figures,
        # Flags at the odd places: they are code, and are not broken over two lines.
        steps=[
            (re.split(r"(--\w+)", step["text"]), step["section"]) for step in figures["next_steps"]
        ],
        most_labels=MOST_LABELS,
        most_groups=MOST_GROUPS,
        most_lines=MOST_LINES,
    )
    with atomic_write(output_dir / PAGE) as file:
        file.write(html)
