"""The flags of recipes that read time series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.cli.arguments import flag


@dataclass
class SeriesArguments:
    """Flags of the data, the windows, and the parts. A step is the time between two rows."""

    data: str = flag(
        "sample",
        "Table with a row for each time: 'sample' (a year of hours that the project makes, the "
        "default), a file (.csv, .tsv, .jsonl, .json, also .gz; .parquet, .xlsx; $NAME and ~ are "
        "expanded), a pattern, several files with commas between them, in the order of time, or "
        "the id of a hub data set.",
    )
    data_config: str | None = flag(
        None, "Configuration of a hub data set (default: its only configuration)."
    )
    data_split: str = flag(
        "train", "Split of a hub data set; sheet of a workbook, or key of JSON (default: train)."
    )
    encoding: str | None = flag(
        None, "Encoding of text files, such as cp1251 (default: found by their content)."
    )
    delimiter: str | None = flag(
        None, "Separator of the columns of a CSV or TSV file (default: found in its first line)."
    )
    time_column: str | None = flag(
        None,
        "Column of the times, in ascending order (default: date, timestamp, time or another usual "
        "name; else the first column of dates; else none, and each row is a step).",
    )
    columns: list[str] = flag(
        [], "Columns of numbers to read (default: all), also to forecast the others from."
    )
    target_columns: list[str] = flag([], "Columns to forecast (default: all of --columns).")
    steps: Literal["times", "rows"] = flag(
        "times",
        "What a step is: equal times, so that a missing row is a gap; or a row, whatever its time, "
        "such as a working day (default: times).",
    )
    fill_gaps: bool = flag(
        False,
        "Fill gaps in what is read with the value before them; gaps in what is forecast are never "
        "filled, nor counted (default: false: no window has a gap).",
    )
    input_size: int = flag(
        96, "Steps that a forecast is made from (default: 96).", least=1, most=1_000_000
    )
    horizon: int = flag(
        24, "Steps that are forecast, all at once (default: 24).", least=1, most=100_000
    )
    train_size: float = flag(
        0, "Steps of the training part, the first one; below 1: their share; 0: the rest.", least=0
    )
    valid_size: float = flag(
        0.1, "Steps of the validation part; below 1: their share; 0: none (default: .1).", least=0
    )
    test_size: float = flag(
        0.2,
        "Steps of the test part, the last one; below 1: their share; 0: none (default: .2).",
        least=0,
    )
    gap: int | None = flag(
        None,
        "Steps left out between two parts. Fewer than --input_size let the inputs of a part reach "
        "into the part before, which is known at that time (default: --input_size: no window has a "
        "step that another part forecasts).",
        least=0,
    )
    period: int | None = flag(
        None,
        "Steps of a season, for the seasonal naive forecast; 0: none (default: where the "
        "training part resembles itself most).",
        least=0,
    )
