"""``report.html``: one page that shows where a classifier is wrong, without a network.

Charts are drawn by Vega-Lite, whose JavaScript comes with vl-convert-python and is part of the
page. `page.html.j2` is the template, `page.css` and `page.js` are put into it. Texts and names of
labels reach the page as escaped text or as JSON, never as HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import atomic_write
from shared.evaluation.calibration import joint_probability
from shared.evaluation.metrics import per_label_report
from shared.reports import page_data

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.evaluation.label_errors import LabelError

PAGE = "report.html"
_FOLDER = Path(__file__).parent
_ROWS = re.compile(r'(<script type="application/json" id="rows">).*?(</script>)', re.DOTALL)


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
    metrics: Mapping[str, Any],
    verdict: Sequence[str] = (),
    single_label: bool = False,
    raw_scores: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    thresholds: Sequence[float] | None = None,
    label_errors: Sequence[LabelError] = (),
    log_history: Sequence[Mapping[str, Any]] = (),
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
    metrics : mapping
        As in ``metrics.json``.
    verdict : sequence of str
        Sentences of the summary.
    single_label : bool, default False
        Every text has exactly one label.
    raw_scores : array of shape (rows, labels), optional
        The scores before calibration, which `thresholds` belong to, if `scores` are calibrated.
    confidence : array of shape (rows,), optional
        The probability that all labels of a row are right. Without it, it follows from `scores`, as
        if labels were independent.
    thresholds : sequence of float, optional
        One per label; NaN for a label without one. Without them, sliders start at 0.5.
    label_errors : sequence of LabelError
    log_history : sequence of mappings
        ``trainer.state.log_history``; empty if nothing was trained in epochs.
    """
    y, predicted = np.asarray(y_true, dtype=bool), np.asarray(predicted, dtype=bool)
    scores = np.asarray(scores, dtype=np.float64)
    decided_by = scores if raw_scores is None else np.asarray(raw_scores, dtype=np.float64)
    if confidence is None:
        confidence = joint_probability(scores, predicted, single_label)
    data: dict[str, Any] = {
        "labels": list(label_names),
        "single": single_label,
        "coverage": page_data.coverage(y, predicted, confidence),
        "calibration": page_data.calibration(y, scores, raw_scores, single_label=single_label),
        "confusions": page_data.confusions(y, predicted),
        "learning": page_data.learning_curve(log_history),
    }
    if single_label:
        data["abstention"] = page_data.abstention_curve(y, predicted, confidence)
    else:
        data["curves"] = page_data.label_curves(y, decided_by, thresholds)
    html = _template().render(
        title=title,
        evaluation=evaluation,
        figures=page_data.figures(metrics),
        verdict=list(verdict),
        per_label=per_label_report(
            y, predicted, label_names, thresholds=thresholds, scores=decided_by
        ),
        together=[] if single_label else page_data.pairs_together(y, predicted),
        calibrated=raw_scores is not None,
        best_applies=_best_label_applies(decided_by, predicted, thresholds, single_label),
        data=data,
        rows=page_data.row_lists(rows, y, scores, predicted, confidence, label_errors),
        n_rows=len(y),
        library=_chart_library(),
        css=(_FOLDER / "page.css").read_text("utf-8"),
        js=(_FOLDER / "page.js").read_text("utf-8"),
    )
    with atomic_write(output_dir / PAGE) as file:
        file.write(html)


def without_texts(page: str) -> str:
    """Return a page of `write_page` without the rows of the data, to publish it."""
    return _ROWS.sub(r"\1null\2", page)


def _best_label_applies(
    scores: np.ndarray,
    predicted: np.ndarray,
    thresholds: Sequence[float] | None,
    single_label: bool,
) -> bool:
    """Return whether rows have labels that do not reach their threshold."""
    limits = np.asarray(0.5 if thresholds is None else thresholds)
    return not single_label and bool((predicted & (scores < limits)).any())


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    # In JSON, tojson escapes <, >, & and ', and json.dumps everything that is not ASCII.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("page.html.j2")


@cache  # it takes two seconds
def _chart_library() -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed: 900 kB."""
    import vl_convert

    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # it has a default
