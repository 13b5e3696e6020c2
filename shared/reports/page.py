"""``report.html``: one page that shows where a classifier is wrong, without a network.

`page.html.j2` is the template, and `page.js` its script; see `shared.reports.page_parts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import atomic_write
from shared.evaluation.calibration import joint_probability
from shared.evaluation.metrics import per_label_report
from shared.reports import page_data
from shared.reports.page_parts import render_page

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.evaluation.label_errors import LabelError
    from shared.evaluation.rules import DecisionRule
    from shared.reports.reasons import Explain

PAGE = "report.html"
_ROWS = re.compile(r'(<script type="application/json" id="rows">).*?(</script>)', re.DOTALL)
# Of images.html.j2: pictures of the data.
_PICTURES = re.compile(r'<figure class="data">.*?</figure>', re.DOTALL)


def write_page(
    output_dir: Path,
    *,
    title: str,
    evaluation: str,
    rows: Dataset,
    label_names: Sequence[str],
    y_true: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    rule: DecisionRule,
    metrics: Mapping[str, Any],
    n_unknown: int = 0,
    verdict: Sequence[str] = (),
    single_label: bool = False,
    raw_scores: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    thresholds: Sequence[float] | None = None,
    label_errors: Sequence[LabelError] = (),
    explain: Explain | None = None,
    log_history: Sequence[Mapping[str, Any]] = (),
    cache_dir: str | None = None,
) -> None:
    """Write ``report.html``.

    Parameters
    ----------
    output_dir : Path
    title, evaluation : str
        The heading, and what the figures were measured on.
    rows : Dataset with ``row`` and ``text``
        The rows of the evaluation, which no classifier that scored them has learned from.
    label_names : sequence of str
    y_true, scores, predicted : array of shape (rows, labels)
        Multi-hot labels, scores from 0 to 1 as they are shown to users, and predicted labels.
    rule : DecisionRule
        Of the tagger that is saved. The classifiers of a cross-validation may have had other ones.
    metrics : mapping
        As in ``metrics.json``.
    n_unknown : int, default 0
        How many labels, the last ones, only the held-out rows have: no score says anything of them.
    verdict : sequence of str
        Sentences of the summary.
    single_label : bool, default False
        Every text has exactly one label.
    raw_scores : array of shape (rows, labels), optional
        The scores before calibration, which `rule` reads, if `scores` are calibrated.
    confidence : array of shape (rows,), optional
        The probability that all labels of a row are right. Without it, it follows from `scores`, as
        if labels were independent.
    thresholds : sequence of float, optional
        For the table of labels: one per label; NaN for a label without one.
    label_errors : sequence of LabelError
    explain : callable, optional
        Gives the reasons of rows; see `shared.reports.reasons.Reasons.explain`.
    log_history : sequence of mappings
        ``trainer.state.log_history``; empty if nothing was trained in epochs.
    cache_dir : str, optional
        Of `shared.data.corpus.cache_folder`, which keeps the JavaScript of the charts.
    """
    y, predicted = np.asarray(y_true, dtype=bool), np.asarray(predicted, dtype=bool)
    scores = np.asarray(scores, dtype=np.float64)
    decided_by = scores if raw_scores is None else np.asarray(raw_scores, dtype=np.float64)
    known = slice(len(label_names) - n_unknown)
    limits = np.full(len(label_names), np.nan)
    limits[known] = rule.thresholds or np.nan
    if confidence is None:
        confidence = joint_probability(scores, predicted, single_label)
    data: dict[str, Any] = {
        "labels": list(label_names),
        "single": single_label,
        "coverage": page_data.coverage(y, predicted, confidence),
        "calibration": page_data.calibration(
            y[:, known],
            scores[:, known],
            None if raw_scores is None else decided_by[:, known],
            single_label=single_label,
        ),
        "confusions": page_data.confusions(y, predicted),
        "learning": page_data.learning_curve(log_history),
    }
    if single_label:
        data["abstention"] = page_data.abstention_curve(y, predicted, confidence)
    else:
        data["curves"] = page_data.label_curves(
            y[:, known], decided_by[:, known], None if rule.top_k else limits[known]
        )
    html = render_page(
        "page.html.j2",
        "page.js",
        cache_dir,
        title=title,
        evaluation=evaluation,
        figures=page_data.figures(metrics),
        verdict=list(verdict),
        per_label=per_label_report(
            y, predicted, label_names, thresholds=thresholds, scores=decided_by
        ),
        together=[] if single_label else page_data.pairs_together(y, predicted),
        calibrated=raw_scores is not None,
        top_k=rule.top_k,
        best_applies=rule.at_least_one and bool((predicted & (decided_by < limits)).any()),
        other_rules=bool((rule.choose(decided_by[:, known]) != predicted[:, known]).any()),
        data=data,
        rows=page_data.row_lists(rows, y, scores, predicted, confidence, label_errors, explain),
        n_rows=len(y),
    )
    with atomic_write(output_dir / PAGE) as file:
        file.write(html)


def without_texts(page: str) -> str:
    """Return a report.html without the rows and pictures of the data, to publish it."""
    return _PICTURES.sub("", _ROWS.sub(r"\1null\2", page))
