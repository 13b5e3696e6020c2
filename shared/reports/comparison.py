"""Compare methods over training sizes and seeds: tables, learning curves and what to take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.evaluation.bootstrap import paired_bootstrap


@dataclass(frozen=True)
class Result:
    """What one method reached with one training size and one seed.

    Attributes
    ----------
    method, size, seed : which cell; the size as a person writes it, a number or "all".
    metrics : the recipe's ``metrics.json``.
    predictions : the recipe's ``test_predictions.jsonl``.
    """

    method: str
    size: str
    seed: int
    metrics: Mapping[str, Any]
    predictions: Path


@dataclass(frozen=True)
class Recommendation:
    """The best method at one size by validation, and how it compares with the next on test.

    Attributes
    ----------
    size : training size.
    best, runner_up : methods; there is no runner-up where there is one method only.
    valid : mean validation micro F1 of both.
    test : what `shared.evaluation.bootstrap.paired_bootstrap` says of best minus runner-up, test micro F1.
    """

    size: str
    best: str
    runner_up: str | None
    valid: tuple[float, ...]
    test: Mapping[str, float] | None

    @property
    def verdict(self) -> str:
        """Whether the difference is real."""
        if self.test is None:
            return "nothing to compare with"
        if self.test["low"] > 0:
            return "real"
        if self.test["high"] < 0:
            return f"real, but for {self.runner_up}: validation misled"
        return "may be chance"


def result_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row per cell, for a CSV file: test F1, seconds of training and of scoring the test."""
    return [
        {
            **{"method": r.method, "size": r.size, "seed": r.seed},
            **{name: round(r.metrics[f"test_{name}"], 4) for name in ("micro_f1", "macro_f1")},
            "train_seconds": round(r.metrics.get("train_runtime", 0.0), 3),
            "predict_seconds": round(r.metrics["test_runtime"], 3),
        }
        for r in results
    ]


def metric_values(results: Sequence[Result], method: str, size: str, metric: str) -> list[float]:
    """One metric of a method at a size, seed by seed."""
    return [r.metrics.get(metric, 0.0) for r in results if (r.method, r.size) == (method, size)]


def curves(
    results: Sequence[Result], sizes: Sequence[str]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return what `shared.plots.plot_learning_curves` draws: mean and spread over seeds."""
    found = {}
    for method in _methods(results):
        found[method] = {}
        for metric in ("micro_f1", "macro_f1"):
            cells = [metric_values(results, method, size, f"test_{metric}") for size in sizes]
            found[method][metric] = (
                np.array([mean(cell) if cell else np.nan for cell in cells]),
                np.array([stdev(cell) if len(cell) > 1 else 0.0 for cell in cells]),
            )
    return found


def report(results: Sequence[Result], sizes: Sequence[str]) -> str:
    """Markdown: what to take at each size and why, F1 on test, seconds."""
    choices = [choice for size in sizes if (choice := recommend(results, size))]
    return f"""## What to take

{recommendation_table(choices)}

In brackets the mean validation micro F1, by which a method is chosen; then the difference of test
micro F1 with its 95 % interval (paired bootstrap over the test texts, all seeds together). Only
methods that have finished every seed at a size compete; the tables below name the others.

## Micro F1 on test

{f1_table(results, sizes, "micro_f1")}

## Macro F1 on test

{f1_table(results, sizes, "macro_f1")}

## Seconds of training by size, and of scoring 1,000 texts

{time_table(results, sizes)}
"""


def f1_table(results: Sequence[Result], sizes: Sequence[str], metric: str) -> str:
    """Markdown: a row per method, a column per size, mean ± standard deviation over seeds.

    The best mean of a column is bold; a cell with fewer seeds than others says how many.
    """
    n_seeds = len({r.seed for r in results})
    columns = []
    for size in sizes:
        cells = [
            metric_values(results, method, size, f"test_{metric}") for method in _methods(results)
        ]
        best = max((mean(cell) for cell in cells if cell), default=None)
        columns.append([_mean_and_spread(cell, n_seeds, best) for cell in cells])
    return _markdown(["method", *sizes], list(zip(_methods(results), *columns, strict=True)))


def time_table(results: Sequence[Result], sizes: Sequence[str]) -> str:
    """Markdown: mean seconds of training per size, and of scoring a thousand texts."""
    rows = []
    for method in _methods(results):
        train = [metric_values(results, method, size, "train_runtime") for size in sizes]
        own = [r.metrics for r in results if r.method == method]
        per_text = mean(m["test_runtime"] / m["test_samples"] for m in own)
        seconds = [_seconds(mean(cell)) if cell else "-" for cell in train]
        rows.append([method, *seconds, _seconds(1000 * per_text)])
    return _markdown(["method", *sizes, "1,000 texts"], rows)


def recommend(results: Sequence[Result], size: str) -> Recommendation | None:
    """Return the best method at a size by mean validation micro F1, and what the test says of it.

    Methods compete that have finished every seed; None where none has.

    The test rows of all seeds count together; a row that is tested under several seeds counts as
    one observation.

    Raises
    ------
    UserError
        If two methods were tested on different rows.
    """
    seeds = {r.seed for r in results if r.size == size}
    cells = {
        method: {r.seed: r for r in results if (r.method, r.size) == (method, size)}
        for method in _methods(results)
    }
    cells = {method: found for method, found in cells.items() if found.keys() == seeds}
    if not seeds or not cells:
        return None
    valid = {m: mean(r.metrics["valid_micro_f1"] for r in c.values()) for m, c in cells.items()}
    best, *others = sorted(valid, key=lambda method: -valid[method])
    if not others:
        return Recommendation(size, best, None, (valid[best],), None)
    parts = [_pair(cells[best][seed], cells[others[0]][seed]) for seed in sorted(seeds)]
    y_true, ours, theirs, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
    test = paired_bootstrap(y_true, ours, theirs, groups=rows)
    return Recommendation(size, best, others[0], (valid[best], valid[others[0]]), test)


def recommendation_table(choices: Sequence[Recommendation]) -> str:
    """Markdown: what to take at each size, and why."""
    rows = []
    for choice in choices:
        row = [choice.size, f"**{choice.best}** ({choice.valid[0]:.3f})", "-", "-", choice.verdict]
        if choice.test is not None:
            row[2] = f"{choice.runner_up} ({choice.valid[1]:.3f})"
            interval = f"{choice.test['low']:+.3f} to {choice.test['high']:+.3f}"
            row[3] = f"{choice.test['difference']:+.3f} ({interval})"
        rows.append(row)
    header = ["training texts", "take (validation)", "next (validation)", "difference on test"]
    return _markdown([*header, "the difference is"], rows)


def _pair(ours: Result, theirs: Result) -> tuple[np.ndarray, ...]:
    """Truth, two predictions (rows, labels) and the rows' numbers (rows,)."""
    lines = []
    for result in (ours, theirs):
        text = result.predictions.read_text("utf-8")
        lines.append([json.loads(line) for line in text.split("\n") if line])
    rows, other_rows = ([line["row"] for line in part] for part in lines)
    if rows != other_rows:
        raise UserError(
            f"{theirs.predictions}: its test rows are not those of {ours.predictions}; "
            "methods compare on the same --data, --test_size and seed only"
        )
    names = sorted(lines[0][0]["scores"])

    def matrix(part: list[dict], key: str) -> np.ndarray:
        return np.array([[name in line[key] for name in names] for line in part])

    truth = matrix(lines[0], "true_labels")
    return truth, *(matrix(part, "labels") for part in lines), np.array(rows)


def _methods(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(r.method for r in results))


def _mean_and_spread(cell: Sequence[float], n_seeds: int, best: float | None) -> str:
    if not cell:
        return "-"
    text = f"{mean(cell):.3f}"
    text = f"**{text}**" if mean(cell) == best else text
    text += f" ± {stdev(cell):.3f}" if len(cell) > 1 else ""
    return text if len(cell) == n_seeds else f"{text} ({len(cell)} of {n_seeds} seeds)"


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
