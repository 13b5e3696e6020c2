"""Write the texts of a data set with further columns, such as new labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.files import atomic_write
from shared.data.readers import open_data
from shared.data.writers import write_json_lines

if TYPE_CHECKING:
    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus


def write_labelled_rows(
    path: Path, args: DataArguments, corpus: Corpus, records: Mapping[int, Mapping[str, Any]]
) -> None:
    """Write rows of a source as JSON lines, which every recipe reads.

    Each row has its text columns as they are in the source; ``row``, its number from 1, unless a
    text column has this name; and the values of its record.

    Parameters
    ----------
    path : Path
        The file is written as a whole.
    args : DataArguments
        The source is that of these flags.
    corpus : Corpus
        Loaded from it.
    records : mapping of int to mapping
        The further columns of each row to write, by its number.
    """
    columns = corpus.report["text_columns"]

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(open_data(args).read(columns), 1):
            if number in records:
                texts = {name: row.get(name) for name in columns}
                yield {"row": number} | texts | dict(records[number])

    with atomic_write(path) as file:
        write_json_lines(file, rows())
