"""Compare methods over training sizes and seeds: tables, learning curves and a recommendation.

A *cell* is one method with one training size: its results have one entry per seed. The method is
chosen by its validation F1, and the test set then shows whether the choice is significant.
"""

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
    """The result of one method with one training size and one seed.

    Attributes
    ----------
    method : str
    size : str
        Training size as in the flags: a number or "all".
    seed : int
    metrics : mapping
        The contents of the recipe's ``metrics.json``.
    predictions : Path
        The recipe's ``test_predictions.jsonl``.
    """

    method: str
    size: str
    seed: int
    metrics: Mapping[str, Any]
    predictions: Path


# --- results as CSV rows and learning curves -----------------------------------------------------


def result_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return one row per result, for a CSV file: test F1, seconds of training and of testing."""
    return [
        {
            **{"method": result.method, "size": result.size, "seed": result.seed},
            **{name: round(result.metrics[f"test_{name}"], 4) for name in ("micro_f1", "macro_f1")},
            "train_seconds": round(result.metrics.get("train_runtime", 0.0), 3),
            "predict_seconds": round(result.metrics["test_runtime"], 3),
        }
        for result in results
    ]


def metric_values(results: Sequence[Result], method: str, size: str, metric: str) -> list[float]:
    """Return one metric of a method at a training size, with one value per seed."""
    return [
        result.metrics.get(metric, 0.0)
        for result in results
        if (result.method, result.size) == (method, size)
    ]


def curves(
    results: Sequence[Result], sizes: Sequence[str]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return the learning curves for `shared.plots.learning_curves.plot_learning_curves`.

    Returns
    -------
    dict of method to dict of metric to (mean, standard deviation)
        The metrics are micro F1, called accuracy if each text has one label, and macro F1. Both
        arrays have shape (sizes,), over seeds. The mean is NaN for a size without results.
    """
    by_method: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for method in _methods(results):
        by_method[method] = {}
        for metric in (_micro_metric(results), "macro_f1"):
            cells = [metric_values(results, method, size, f"test_{metric}") for size in sizes]
            by_method[method][metric] = (
                np.array([mean(cell) if cell else np.nan for cell in cells]),
                np.array([stdev(cell) if len(cell) > 1 else 0.0 for cell in cells]),
            )
    return by_method


# --- recommendation ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recommendation:
    """The best method at one training size, and its comparison with the second-best on test.

    Attributes
    ----------
    size : str
        Training size.
    best, runner_up : str
        The two best methods. `runner_up` is None if there is only one method.
    part : {"validation", "test"}
        The rows that they were chosen on: test rows if the results have no validation rows.
    chosen_on : tuple of float
        Mean micro F1 of both on these rows.
    test : mapping, optional
        The result of `shared.evaluation.bootstrap.paired_bootstrap` for test micro F1, best minus
        runner-up.
    """

    size: str
    best: str
    runner_up: str | None
    part: str
    chosen_on: tuple[float, ...]
    test: Mapping[str, float] | None

    @property
    def verdict(self) -> str:
        """Whether the 95 % interval of the difference on test excludes 0, and on which side."""
        if self.test is None:
            return "no second method"
        if self.test["low"] > 0:
            return "significant"
        if self.test["high"] < 0:
            return f"significant, but {self.runner_up} is better on test"
        return "not significant"


def recommend(results: Sequence[Result], size: str) -> Recommendation | None:
    """Return the best method at a training size by mean micro F1, and compare on test.

    Validation decides, or, if the methods have seen no validation rows, the test rows.

    Only methods that have a result for every seed are compared; without such a method, return None.

    The comparison joins the test rows of all seeds. A row that is tested under several seeds counts
    as one observation.

    Raises
    ------
    UserError
        If two methods were tested on different rows.
    """
    seeds = {result.seed for result in results if result.size == size}
    cells: dict[str, dict[int, Result]] = {method: {} for method in _methods(results)}
    for result in results:
        if result.size == size:
            cells[result.method][result.seed] = result
    cells = {method: cell for method, cell in cells.items() if cell.keys() == seeds}
    if not seeds or not cells:
        return None

    part = "validation" if _have_validation(results) else "test"
    key = "valid_micro_f1" if part == "validation" else "test_micro_f1"
    f1 = {
        method: mean(result.metrics[key] for result in cell.values())
        for method, cell in cells.items()
    }
    best, *others = sorted(f1, key=lambda method: -f1[method])
    if not others:
        return Recommendation(size, best, None, part, (f1[best],), None)

    runner_up = others[0]
    pairs = [_read_pair(cells[best][seed], cells[runner_up][seed]) for seed in sorted(seeds)]
    y_true, pred_best, pred_runner_up, rows = (
        np.concatenate(arrays) for arrays in zip(*pairs, strict=True)
    )
    # The seeds may share test rows. Grouped by row number, a shared row is not counted as several
    # independent observations, which would make the interval too narrow.
    test = paired_bootstrap(y_true, pred_best, pred_runner_up, groups=rows)
    return Recommendation(size, best, runner_up, part, (f1[best], f1[runner_up]), test)


def _have_validation(results: Sequence[Result]) -> bool:
    """Return whether all results have metrics of validation rows."""
    return all("valid_micro_f1" in result.metrics for result in results)


def _read_pair(best: Result, runner_up: Result) -> tuple[np.ndarray, ...]:
    """Read the predictions of two results on the same test rows.

    Returns
    -------
    y_true, pred_best, pred_runner_up : bool array of shape (rows, labels)
    rows : int array of shape (rows,)
        Row numbers in the source.
    """
    lines = []
    for result in (best, runner_up):
        # Not splitlines(), which would also split at U+2028 inside a text.
        text = result.predictions.read_text("utf-8")
        lines.append([json.loads(line) for line in text.split("\n") if line])
    rows, other_rows = ([line["row"] for line in of_result] for of_result in lines)
    if rows != other_rows:
        raise UserError(
            f"{runner_up.predictions}: its test rows differ from those of {best.predictions}; "
            "compare methods only with the same --data, --test_size and seed"
        )
    # The other labels have no hits, misses or false alarms.
    names = sorted(
        {name for line in (*lines[0], *lines[1]) for name in line["true_labels"] + line["labels"]}
    )

    def multi_hot(of_result: list[dict], key: str) -> np.ndarray:
        return np.array([[name in line[key] for name in names] for line in of_result])

    y_true = multi_hot(lines[0], "true_labels")
    return y_true, *(multi_hot(of_result, "labels") for of_result in lines), np.array(rows)


# --- Markdown ------------------------------------------------------------------------------------


def report(results: Sequence[Result], sizes: Sequence[str]) -> str:
    """Return Markdown: the recommended method at each size, F1 on test, and seconds."""
    recommendations = [choice for size in sizes if (choice := recommend(results, size))]
    micro = _micro_metric(results).replace("_f1", " F1")
    chosen_on = f"The method with the highest mean validation {micro} (in brackets) is recommended."
    if not _have_validation(results):
        chosen_on = (
            "The methods have seen no labelled rows but the training rows. The best one is that "
            f"with the highest mean {micro} (in brackets) on the test rows; as the best of several "
            "figures, this one is a little too high."
        )
    return f"""## Best method by number of labels

{recommendation_table(recommendations)}

{chosen_on}

The difference is that of test {micro}, best minus second, with its 95 % interval (paired bootstrap
over the test texts, all seeds together); it is significant if the interval does not include 0. Only
methods that have finished every seed at a size are compared; the tables below also show the others.

## {micro[0].upper()}{micro[1:]} on test

{f1_table(results, sizes, "micro_f1")}

## Macro F1 on test

{f1_table(results, sizes, "macro_f1")}

## Seconds for training, by training size, and for scoring 1,000 texts

{time_table(results, sizes)}
"""


def recommendation_table(choices: Sequence[Recommendation]) -> str:
    """Return Markdown: the recommended method at each training size, and the comparison."""
    rows = []
    for choice in choices:
        runner_up = difference = "-"
        if choice.test is not None:
            runner_up = f"{choice.runner_up} ({choice.chosen_on[1]:.3f})"
            interval = f"{choice.test['low']:+.3f} to {choice.test['high']:+.3f}"
            difference = f"{choice.test['difference']:+.3f} ({interval})"
        best = f"**{choice.best}** ({choice.chosen_on[0]:.3f})"
        rows.append([choice.size, best, runner_up, difference, choice.verdict])
    part = choices[0].part if choices else "validation"
    header = ["training texts", f"best ({part})", f"second ({part})", "difference on test"]
    return _markdown_table([*header, "conclusion"], rows)


def f1_table(results: Sequence[Result], sizes: Sequence[str], metric: str) -> str:
    """Return Markdown: a row per method, a column per size, mean ± standard deviation over seeds.

    The best mean of a column is bold. A cell with fewer seeds than the others states the number.
    """
    n_seeds = len({result.seed for result in results})
    columns = []
    for size in sizes:
        cells = [
            metric_values(results, method, size, f"test_{metric}") for method in _methods(results)
        ]
        best = max((mean(cell) for cell in cells if cell), default=None)
        columns.append([_mean_and_deviation(cell, n_seeds, best) for cell in cells])
    # Each column holds one size; zip turns the columns into rows, one for each method.
    rows = list(zip(_methods(results), *columns, strict=True))
    return _markdown_table(["method", *sizes], rows)


def time_table(results: Sequence[Result], sizes: Sequence[str]) -> str:
    """Return Markdown: mean seconds for training at each size, and for scoring 1,000 texts."""
    rows = []
    for method in _methods(results):
        train_times = [metric_values(results, method, size, "train_runtime") for size in sizes]
        metrics = [result.metrics for result in results if result.method == method]
        per_text = mean(m["test_runtime"] / m["test_samples"] for m in metrics)
        seconds = [_seconds(mean(cell)) if cell else "-" for cell in train_times]
        rows.append([method, *seconds, _seconds(1000 * per_text)])
    return _markdown_table(["method", *sizes, "1,000 texts"], rows)


def _methods(results: Sequence[Result]) -> list[str]:
    """Return the methods in the order of their first result."""
    return list(dict.fromkeys(result.method for result in results))


def _micro_metric(results: Sequence[Result]) -> str:
    """Return the name of micro F1: accuracy if each text has one label."""
    one_label_each = all("test_accuracy" in result.metrics for result in results)
    return "accuracy" if one_label_each else "micro_f1"


def _mean_and_deviation(cell: Sequence[float], n_seeds: int, best: float | None) -> str:
    if not cell:
        return "-"
    text = f"{mean(cell):.3f}"
    text = f"**{text}**" if mean(cell) == best else text
    text += f" ± {stdev(cell):.3f}" if len(cell) > 1 else ""
    return text if len(cell) == n_seeds else f"{text} ({len(cell)} of {n_seeds} seeds)"


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
