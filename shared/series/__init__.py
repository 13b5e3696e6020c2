"""Time series: read and check them, cut them into windows, forecast them without a network.

Modules:

- `arguments`: the flags that name the data, the windows, and the parts.
- `baselines`: repeat the last value, repeat a period, ridge regression.
- `errors`: the errors of forecasts, scaled and in the units of the data.
- `outputs`: tables and pictures of forecasts.
- `panels`: which pieces of a series and its forecasts a picture shows.
- `sample`: the hourly series that the project makes itself.
- `steps`: the step between two times, in nanoseconds or in months.
- `table`: `TimeSeries`, values of columns at equal steps, and how a file becomes one.
- `windows`: parts of a series by time, their windows, and batches of them.

The networks are in `shared.models.forecasters`.

May import: `shared.cli`, `shared.plots`, `shared.splitters`, `shared.data`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arguments": ["SeriesArguments"],
        "baselines": ["baseline_forecasts", "fit_ridge", "guess_period"],
        "errors": [
            "compare",
            "error_table",
            "forecast_errors",
            "naive_errors",
        ],
        "outputs": ["write_forecast", "write_test_forecasts"],
        "table": ["TimeSeries", "load_series", "target_places"],
        "windows": [
            "Scaler",
            "WindowCollator",
            "describe_parts",
            "fill_forward",
            "split_windows",
            "window_rows",
        ],
    },
)
