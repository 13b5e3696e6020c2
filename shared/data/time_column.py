"""The time of each text, from a column of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.cli.errors import UserError
from shared.cli.launch import print_once
from shared.data.preparation import cell_as_text
from shared.data.readers import open_data
from shared.data.times import parse_times

if TYPE_CHECKING:
    import numpy as np

    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus

USUAL_NAMES = ("created_at", "date", "timestamp", "time", "datetime", "created", "published_at")
LEAST_READABLE = 0.5  # of the rows, for a column that no flag names


def read_time_column(
    args: DataArguments, corpus: Corpus, column: str | None
) -> tuple[str, np.ndarray] | None:
    """Read the times of all rows of a data set.

    Parameters
    ----------
    args : DataArguments
        The arguments that `corpus` was loaded with.
    corpus : Corpus
        n rows.
    column : str, optional
        Its name; None: the first usual name that the data have, if most of its cells are times.

    Returns
    -------
    (str, datetime64[ns] array of shape (n,)), or None without such a column
        The name, and the times in UTC; NaT where there is none or it cannot be read.

    Raises
    ------
    UserError
        There is no column of this name, or none of its cells is a time.
    """
    import numpy as np

    source = open_data(args)
    name = column or next((usual for usual in USUAL_NAMES if usual in source.columns), None)
    if name is None:
        return None
    if name not in source.columns:
        raise UserError(
            f"--time_column {name}: {source.name} has no such column (it has "
            f"{', '.join(source.columns)})"
        )
    cells = [cell_as_text(row.get(name)) for row in source.read([name], required=[])]
    cells = [cells[number - 1] for number in corpus.dataset["row"]]
    filled = np.flatnonzero([cell is not None for cell in cells])
    times = np.full(len(cells), np.datetime64("NaT"), "datetime64[ns]")
    try:
        parsed = parse_times([cells[i] or "" for i in filled])
    except UserError as error:
        if column:
            raise UserError(f"--time_column {name}: {error}") from error
        print_once(f"note: column {name!r} is not read as times: {error}")
        return None
    readable = filled[parsed.readable]
    times[readable] = parsed.nanoseconds[parsed.readable].view("datetime64[ns]")
    if column and not len(readable):
        raise UserError(f"--time_column {name}: no row of {source.name} has a time there")
    if len(readable) < (0 if column else LEAST_READABLE) * len(cells) or not len(readable):
        return None
    return name, times
