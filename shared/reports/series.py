"""What a run says of its forecasts: metrics, the training curve, the card, and how to use a model.

Tables and pictures of the forecasts are those of `shared.series.outputs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.files import write_json
from shared.plots.training import plot_training_curve
from shared.reports.cards import write_model_card
from shared.reports.verdict import fit_metrics

if TYPE_CHECKING:
    from shared.models.forecasters import Forecaster

_USAGE = """```python
import pandas as pd
from transformers import AutoModel

model = AutoModel.from_pretrained("{folder}", trust_remote_code=True)
table = pd.read_csv("FILE")  # at least {input_size} rows, the newest last
print(model.forecast(table[model.config.columns]))  # {horizon} steps of {targets}
```

`trust_remote_code=True` lets transformers run the Python files in this folder, the architecture of
the model. Or from the command line:

```bash
accelerate launch recipes/series.py --model {folder} --predict FILE --output_dir forecast
```"""


def write_series_results(
    output_dir: Path,
    model: Forecaster,
    errors: Mapping[str, Mapping[str, Mapping[str, float]]],
    metrics: Mapping[str, Any],
    *,
    data: str,
    report: str,
    log_history: Sequence[Mapping[str, Any]],
) -> None:
    """Write ``metrics.json``, the training curve and the model card.

    Parameters
    ----------
    output_dir : Path
        With the pictures of the forecasts in ``plots``, which the card shows.
    model : Forecaster
    errors : mapping of method and part to `shared.series.forecast_errors`
        Of the model, by the name of its architecture, and of others; empty if nothing was measured.
    metrics : mapping
        Those of the training, and further facts about the run.
    data, report : str
        For the card: what was read and how it was split; tables of the errors.
    log_history : sequence of mappings
        ``trainer.state.log_history``; empty if nothing was trained.
    """
    config, n_weights = model.config, model.num_parameters()
    name, fit = config.architecture, fit_metrics(log_history)
    of_model = {
        f"{part}_{metric}": value
        for part, of_part in errors.get(name, {}).items()
        for metric, value in of_part.items()
    }
    of_others = {
        f"{part}_mse_{method.replace(' ', '_')}": of_part["mse"]
        for method, of_method in errors.items()
        if method != name
        for part, of_part in of_method.items()
    }
    sizes = {"n_weights": n_weights}
    write_json(output_dir / "metrics.json", of_model | of_others | {**metrics} | sizes | fit)
    if log_history:
        (output_dir / "plots").mkdir(exist_ok=True)
        plot_training_curve(log_history, output_dir / "plots" / "training_curve.png")
    pictures = sorted((output_dir / "plots").glob("*.png"))
    targets = ", ".join(config.targets)
    write_model_card(
        output_dir,
        title=f"Forecasts of a time series ({name})",
        base_model=None,
        task="time-series-forecasting",
        description=f"Reads {config.input_size:,} steps of {', '.join(config.columns)}; forecasts "
        f"{config.horizon:,} steps of {targets}. {n_weights:,} weights.",
        data=data,
        metrics={},
        verdict="\n\n".join(
            [
                *([fit["fit_explained"]] if fit else []),
                *(f"![{path.stem}](plots/{path.name})" for path in pictures),
            ]
        ),
        report=report,
        usage=_USAGE.format(
            folder=output_dir,
            input_size=config.input_size,
            horizon=config.horizon,
            targets=targets,
        ),
        limits="Forecasts continue what the training part showed; nothing warns of a change that "
        "it did not have. The figures are those of the time after it.",
    )
