"""The results of a cross-validation of a regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.files import atomic_write, write_json
from shared.data.writers import write_json_lines
from shared.evaluation.task_metrics import regression_metrics
from shared.plots.numbers import plot_predicted_numbers
from shared.reports.cards import write_model_card

if TYPE_CHECKING:
    from shared.data.folded_numbers import FoldedNumbers

METRICS = {"mae": "MAE", "rmse": "RMSE", "r2": "R2", "spearman": "Spearman"}


def write_out_of_fold_numbers(
    output_dir: Path,
    data: FoldedNumbers,
    predicted: Mapping[str, Mapping[str, np.ndarray]],
    *,
    base_model: str,
    settings: Mapping[str, object],
    folders: Sequence[str],
) -> str:
    """Write what a regression has reached, out of fold and on the test rows.

    ``metrics.json``, ``oof_predictions.jsonl``, ``test_predictions.jsonl``, a picture and the card.

    Parameters
    ----------
    output_dir : Path
    data : FoldedNumbers
    predicted : mapping of "model" and baselines to part to float array of shape (documents, 1)
    base_model : str
    settings : mapping
        For the card and the metrics.
    folders : sequence of str
        Those of the models of the folds, below `output_dir`.

    Returns
    -------
    str
        The table: for each method the mean over the folds, and the standard deviation.
    """
    true, fold_of = data.labels["oof"][:, 0], data.fold_of
    rows = [["", *METRICS.values()]]
    metrics: dict[str, float] = {}
    for method, parts in predicted.items():
        folds = [
            regression_metrics(true[fold_of == n], parts["oof"][fold_of == n, 0])
            for n in range(fold_of.max() + 1)
        ]
        cells = []
        for name in METRICS:
            values = [fold[name] for fold in folds]
            cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
            metrics[f"{method}_{name}"] = float(np.mean(values))
        rows.append([method, *cells])
    model = predicted["model"]
    metrics |= {f"oof_{k}": v for k, v in regression_metrics(true, model["oof"][:, 0]).items()}
    if "test" in model:
        scores = regression_metrics(data.labels["test"][:, 0], model["test"][:, 0])
        metrics |= {f"test_{name}": value for name, value in scores.items()}
        rows.append(["test, mean of the folds", *(f"{scores[name]:.3f}" for name in METRICS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
    for part, numbers in model.items():
        documents = data.documents[part]
        columns = (documents["row"], documents["text"], numbers[:, 0], data.labels[part][:, 0])
        with atomic_write(output_dir / f"{part}_predictions.jsonl") as file:
            write_json_lines(
                file,
                (
                    {"row": row, "text": text, "value": float(value), "true_value": float(y)}
                    | ({"fold": int(fold_of[i])} if part == "oof" else {})
                    for i, (row, text, value, y) in enumerate(zip(*columns, strict=True))
                ),
            )
    (output_dir / "plots").mkdir(exist_ok=True)
    picture = output_dir / "plots" / "numbers.png"
    plot_predicted_numbers(true, model["oof"][:, 0], data.name, picture)
    write_json(output_dir / "metrics.json", {**metrics, **settings, **data.method.metrics()})
    write_model_card(
        output_dir,
        title=f"Regression of {data.name}",
        base_model=base_model,
        description=f"Predicts the number `{data.name}` of a text.",
        evaluation="Out of fold: each text is predicted by the fold that did not train on it.",
        data=data.description,
        metrics={name: value for name, value in metrics.items() if name.startswith("oof_")},
        report=table,
        usage=_usage(output_dir, folders),
        limits="The figures are those of texts from the same source. A text that is longer than a "
        "window needs the mean over its windows, weighted by their tokens, as in training.",
        settings=settings,
    )
    return table


def _usage(output_dir: Path, folders: Sequence[str]) -> str:
    paths = ", ".join(f'"{output_dir / name}"' for name in folders)
    return f"""Each fold has a model; the mean of all is best.

```python
import shared.models.heads
from transformers import pipeline

models = [pipeline("text-classification", path) for path in [{paths}]]
options = {{"function_to_apply": "none", "truncation": True}}
values = [model("a text", **options)[0]["score"] for model in models]
print(sum(values) / len(values))
```"""
