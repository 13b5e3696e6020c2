"""The texts that a person should label next, as JSON lines, CSV and tasks of Label Studio."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from shared.cli.files import atomic_write, write_csv
from shared.data.writers import write_json_lines
from shared.evaluation.rules import DecisionRule, prediction_records, scores_per_text
from shared.methods.acquisition import Batch
from shared.reports.excerpts import headline

JSON_LINES, CSV, TASKS = "to_label.jsonl", "to_label.csv", "label_studio.json"
CONFIG = "label_studio.xml"
# The names of the controls in the labelling interface of Label Studio, and so of the column with
# the labels in its exports.
_TEXT, _LABELS = "text", "labels"


def batch_records(
    batch: Batch,
    texts: Sequence[str],
    numbers: Sequence[int],
    label_names: Sequence[str],
    scores: np.ndarray | None,
    rule: DecisionRule,
    counts: np.ndarray,
) -> list[dict[str, Any]]:
    """Return what a person should know about each text of a batch.

    Parameters
    ----------
    batch : Batch
    texts, numbers : sequences of str and int
        Of the batch: the texts, and their row numbers in the source.
    label_names : sequence of str
    scores : array of shape (batch, labels), optional
        Probabilities of a model. None: there is no model yet.
    rule : DecisionRule
        Which of the labels are suggested.
    counts : int array of shape (labels,)
        Labelled texts of each label.

    Returns
    -------
    list of dict
        ``row``, ``text``, ``labels`` (None: to be filled in), ``suggested`` (labels), ``scores`` (a
        dict of the best labels), ``strategy``, ``score``, ``reason``.
    """
    blank: Iterator[dict[str, Any]] = ({"labels": [], "scores": {}} for _ in texts)
    n_scores = scores_per_text(len(label_names), None)
    predictions = blank
    if scores is not None:
        predictions = prediction_records(scores, rule.choose(scores), label_names, n_scores)
    records = []
    for i, prediction in enumerate(predictions):
        row_scores = None if scores is None else scores[i]
        reason = _reason(batch, i, label_names, row_scores, counts)
        records.append(
            {
                "row": numbers[i],
                "text": texts[i],
                "labels": None,
                "suggested": prediction["labels"],
                "scores": prediction["scores"],
                "strategy": batch.strategies[i],
                "score": round(batch.values[i], 6),
                "reason": reason,
            }
        )
    return records


def _reason(
    batch: Batch,
    i: int,
    label_names: Sequence[str],
    scores: np.ndarray | None,
    counts: np.ndarray,
) -> str:
    """Say in a few words why a text was chosen."""
    strategy, value, label = batch.strategies[i], batch.values[i], batch.sought[i]
    if label is not None and scores is not None:
        n = f"{counts[label]:,} labelled text{'' if counts[label] == 1 else 's'}"
        return f"may be {label_names[label]} ({scores[label]:.2f}), which has {n}"
    return {
        "random": "drawn at random",
        "coverage": "many texts are near it, and no labelled one is",
        "k_means": f"the middle of a cluster with {value:.1%} of the texts",
        "k_center": f"its nearest labelled text is far away (cosine {1 - value:.2f})",
        "bald": f"models that weigh the labelled texts differently contradict each other "
        f"({value:.2f} nats)",
        "entropy": f"the labels are uncertain (entropy {value:.2f} nats)",
        "margin": f"one more label, or another one, is nearly as probable (margin {1 - value:.2f})",
        "least_confidence": f"the suggested labels are wrong with a probability of {value:.2f}",
    }[strategy]


def write_batch(
    folder: Path,
    records: Sequence[dict[str, Any]],
    label_names: Sequence[str],
    *,
    single_label: bool,
    model: str,
) -> None:
    """Write the records of `batch_records` in all formats, and the interface for Label Studio.

    Parameters
    ----------
    folder : Path
    records : list of dict
    label_names : sequence of str
        May be empty: then there is no interface, since it must list the labels.
    single_label : bool
        Whether an annotator can choose one label, or several.
    model : str
        What Label Studio calls the model of the suggestions.
    """
    with atomic_write(folder / JSON_LINES) as file:
        write_json_lines(file, records)
    rows = [
        record
        | {"labels": "", "suggested": "; ".join(record["suggested"])}
        | {"scores": json.dumps(record["scores"], ensure_ascii=False)}
        for record in records
    ]
    write_csv(folder / CSV, rows)
    with atomic_write(folder / TASKS) as file:
        tasks = [_task(record, single_label=single_label, model=model) for record in records]
        json.dump(tasks, file, indent=1, ensure_ascii=False)
        file.write("\n")
    config = folder / CONFIG
    config.unlink(missing_ok=True)  # of an earlier run with other labels
    if label_names:
        with atomic_write(config) as file:
            file.write(_interface(label_names, single_label=single_label))


def _task(record: dict[str, Any], *, single_label: bool, model: str) -> dict[str, Any]:
    """Return a task of Label Studio, with the suggested labels as a prediction.

    The form is that of https://labelstud.io/guide/predictions.
    """
    data = {name: record[name] for name in ("text", "row", "strategy", "reason")}
    task: dict[str, Any] = {"data": data, "predictions": []}
    if record["suggested"]:
        result = {"from_name": _LABELS, "to_name": _TEXT, "type": "choices"}
        value = {"choices": record["suggested"]}
        score = min(record["scores"][label] for label in record["suggested"])
        prediction = {"model_version": model, "score": score, "result": [result | {"value": value}]}
        task["predictions"] = [prediction]
    return task


def _interface(label_names: Sequence[str], *, single_label: bool) -> str:
    """Return the labelling interface of Label Studio: XML."""
    choice = "single-radio" if single_label else "multiple"
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in label_names)
    return (
        f'<View>\n  <Text name="{_TEXT}" value="$text"/>\n  <Text name="reason" value="$reason"/>\n'
        f'  <Choices name="{_LABELS}" toName="{_TEXT}" choice="{choice}">\n{choices}\n'
        "  </Choices>\n</View>\n"
    )


def show_batch(records: Sequence[dict[str, Any]], most: int = 10) -> str:
    """Return the first texts of a batch, one line each with the reason on the next."""
    lines = []
    for record in records[:most]:
        labels = ", ".join(record["suggested"])
        lines.append(f"row {record['row']:,}: {headline(record['text'])}")
        lines.append(f"  {record['reason']}" + (f"; suggested: {labels}" if labels else ""))
    if len(records) > most:
        lines.append(f"and {len(records) - most:,} more")
    return "\n".join(lines)
