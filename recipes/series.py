"""Forecast time series with linear models, recurrent networks or a transformer, beside baselines.

Why: a network is worth its trouble only where it beats a forecast that costs nothing. So each run
prints three of them beside it, on the same windows: the last value repeated, the last period
repeated (seasonal naive), and a ridge regression in closed form.

    accelerate launch recipes/series.py
    accelerate launch recipes/series.py --data my_table.csv --target_columns sales --horizon 14 \\
        --input_size 56 --architecture gru
    accelerate launch recipes/series.py --config recipes/configs/series_etth1.yaml
    accelerate launch recipes/series.py --model outputs/series --predict new_rows.csv

- linear, dlinear: one linear layer from the past of a column to its future, or two, on its moving
  average and on the rest (Zeng et al. 2023, "Are Transformers Effective for Time Series
  Forecasting?"). linear with --centring last is their NLinear.
- rnn, lstm, gru: recurrent networks over all columns.
- transformer: attention over patches of a column (Nie et al. 2023, "A Time Series is Worth 64
  Words").

Data: a table with a row for each time, in order, and one or several columns of numbers; all are
read, --target_columns are forecast, --horizon steps at once. Times that are not in order, occur
twice or lie between two steps are refused. A missing row or cell is a gap: windows with one are
left out, or it is filled with the value before it (--fill_gaps).

The parts follow each other in time: training, validation, test, with --gap steps between them. What
a window of one part has to forecast is in no window of a part before it and, with the default gap,
in no window of another part at all. Means and standard deviations are those of the training part.
A column that holds the future of another one is reported.

MSE and MAE are means over all windows, steps and columns, of scaled values, as in the literature;
MASE divides by the error of a naive forecast in the training part; columns.csv has the errors in
the units of the data, step_errors.csv those by steps ahead. forecast.csv has what comes after the
end of the data; --predict writes it for the rows of another file with a trained --model.

Expect on ETTh1, 336 hours read and 96 forecast, a test MSE of .373 for dlinear (published .375),
.370 for ridge, 1.294 for the last value; half a minute of one core. On one client's electricity, 15
minutes ahead, the last value has .0399, ridge .0397, lstm .0392 and gru .0432 (a course's LSTM has
.0965). recipes/FIGURES.md has more.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.models import ForecasterArguments, build_forecaster, load_forecaster
from shared.reports import push_to_hub, write_series_results
from shared.series import (
    Scaler,
    SeriesArguments,
    WindowCollator,
    baseline_forecasts,
    compare,
    describe_parts,
    error_table,
    fill_forward,
    fit_ridge,
    forecast_errors,
    guess_period,
    load_series,
    naive_errors,
    split_windows,
    target_places,
    window_rows,
    write_forecast,
    write_test_forecasts,
)
from shared.training import (
    CheckpointArguments,
    CheckpointOnSignal,
    EarlyStoppingArguments,
    LengthGroupedTrainer,
    ReadableProgress,
    RegressionLoss,
    check_health,
    early_stopping,
    find_checkpoint,
    remove_checkpoints,
)


@dataclass
class ForecastArguments(
    SeriesArguments, ForecasterArguments, EarlyStoppingArguments, CheckpointArguments
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    standardize: bool = flag(
        True,
        "Scale columns by mean and standard deviation of the training part; false: they are scaled "
        "already (default: true).",
    )
    model: str | None = flag(None, "With --predict: folder of a trained model (default: none).")
    predict: str | None = flag(
        None, "File to forecast the end of with --model; nothing is trained (default: none)."
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/series", "Output folder (default: outputs/series).")
    num_train_epochs: float = flag(10, "Maximum number of epochs (default: 10).")
    learning_rate: float = flag(1e-3, "Peak learning rate (default: 1e-3).")
    per_device_train_batch_size: int = flag(32, "Windows per step and device (default: 32).")
    per_device_eval_batch_size: int = flag(512, "Windows per evaluation batch (default: 512).")
    bf16: bool | None = flag(False, "Train in bfloat16 (default: false).")
    remove_unused_columns: bool = flag(False, "Must stay false (default: false).")

    def __post_init__(self):
        if bool(self.model) != bool(self.predict):
            raise UserError("--model, --predict: give both, or none of them")
        super().__post_init__()


def main() -> None:
    """Load and split a series, train a forecaster, compare it with baselines, forecast, save."""
    args = parse_arguments(ForecastArguments, description=__doc__)
    output_dir = start_recipe(args)
    if args.predict:
        predict(args, output_dir)
        return
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    set_seed(args.seed)

    # Load, and split by time. A window is known by its first step.
    series = load_series(args)
    places = target_places(args, series.columns)
    targets = [series.columns[place] for place in places]
    borders, starts = split_windows(series.values, args, places)
    train = slice(*borders["train"])
    parts = describe_parts(series, borders, starts, places, args.horizon)
    data = f"{series.describe()}\n{parts}"
    print_once(f"\nData\n{data}")

    # Scale. What is missing, too, has the value before it; no window has it, unless it is to.
    scaler = Scaler.of(series.values[train], series.columns, targets)
    if not args.standardize:
        scaler = Scaler(np.zeros(len(scaler.mean)), np.ones(len(scaler.scale)))
    values = scaler.apply(fill_forward(series.values))
    cutting = (args.input_size, args.horizon, places)
    collator = WindowCollator(values, *cutting)
    rows = {part: window_rows(of_part) for part, of_part in starts.items()}

    model = build_forecaster(
        args,
        columns=series.columns,
        targets=targets,
        mean=scaler.mean.tolist(),
        scale=scaler.scale.tolist(),
    )
    print_once(f"{model.num_parameters():,} weights, centring {model.config.centring}")
    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=rows["train"],
        eval_dataset=rows.get("valid"),
        data_collator=collator,
        compute_loss_func=RegressionLoss(),
        callbacks=[CheckpointOnSignal(), ReadableProgress(), *early_stopping(args)],
    )
    if args.health_check:
        past, later = collator.cut(starts["train"][:: max(len(starts["train"]) // 1000, 1)])
        centre, _ = model.centre(torch.from_numpy(past[..., places]))
        uninformed = ((torch.from_numpy(later) - centre) ** 2).mean().item()
        check_health(trainer, None, uninformed=uninformed)
        return

    print_once("\nTraining")
    training = trainer.train(resume_from_checkpoint=checkpoint).metrics
    history = list(trainer.state.log_history)
    held_out = [part for part in ("valid", "test") if part in rows]
    outputs = {part: trainer.predict(rows[part]).predictions for part in held_out}
    trainer.save_model()
    if args.process_index != 0:
        return

    # Baselines on the same windows; the penalty of ridge is chosen on the validation part.
    known = values[train][np.isfinite(values[train]).all(axis=1)][:, places]
    period = guess_period(known) if args.period is None else args.period
    none = np.array([], int)
    ridge = fit_ridge(values, starts["train"], starts.get("valid", none), *cutting)
    naive = naive_errors(known, period)
    errors, report = {}, "No part was held out: nothing is measured."
    for part in held_out:
        baselines = baseline_forecasts(values, starts[part], *cutting, ridge=ridge, period=period)
        forecasts = {args.architecture: outputs[part]} | baselines
        actual = collator.cut(starts[part])[1]
        for method, of_method in forecasts.items():
            errors.setdefault(method, {})[part] = forecast_errors(of_method, actual, naive)
        report = error_table(errors)
        if part == "test":
            report += "\n\n" + compare(forecasts, actual, args.horizon + period, seed=args.seed)
            write_test_forecasts(
                *(output_dir, series, forecasts, actual, starts[part]),
                input_size=args.input_size,
                targets=targets,
                scaler=scaler,
            )
    try:
        write_forecast(output_dir, series, model, fill_gaps=args.fill_gaps)
        report += "\n\nforecast.csv has what comes after the end."
    except ValueError as error:
        report += f"\n\nNo forecast of what comes after the end: {error}."
    write_series_results(
        output_dir,
        model,
        errors,
        training | {"period": period, "seed": args.seed},
        data=data,
        report=report,
        log_history=history,
    )
    remove_checkpoints(args.output_dir)
    push_to_hub(output_dir, args)
    print(f"\n{report}\n\nEverything is in {output_dir}.")


def predict(args: ForecastArguments, output_dir: Path) -> None:
    """Forecast what comes after the end of a file with a trained model."""
    model = load_forecaster(args.model)
    columns, targets = model.config.columns, model.config.targets
    series = load_series(replace(args, columns=columns, target_columns=targets), args.predict)
    print_once(f"\nData\n{series.describe()}")
    if args.process_index != 0:
        return
    try:
        write_forecast(output_dir, series, model, fill_gaps=args.fill_gaps)
    except ValueError as error:
        raise UserError(f"--predict {args.predict}: {error}") from error
    print(f"\nforecast.csv in {output_dir} has what comes after the end.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
