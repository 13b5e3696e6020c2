"""Who gave the labels of a row, where a file or a column stands for each annotator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.data.annotations import ANNOTATOR, LABELS, Record, expand
from shared.data.arguments import DEFAULT_LABEL_COLUMN
from shared.data.columns import missing_column
from shared.data.labels import is_missing, name_some

if TYPE_CHECKING:
    from shared.data.arguments import DataArguments
    from shared.data.sources import Source


def name_annotators(source: Source, args: DataArguments) -> Source:
    """Return a source whose rows say who gave their labels, for recipes that ask for it.

    Only arguments that extend `AnnotatorArguments` do; for others, `source` is returned.

    Raises
    ------
    UserError
        A column of ``--annotator_columns`` does not exist, or the flag contradicts another one.
    """
    columns = getattr(args, "annotator_columns", None)
    if columns:
        for flag in ("annotator_column", "label_columns"):
            if getattr(args, flag):
                raise UserError(f"--annotator_columns and --{flag}: give one of them")
        if args.label_column != DEFAULT_LABEL_COLUMN:
            raise UserError("--annotator_columns and --label_column: give one of them")
        return _column_per_annotator(source, list(dict.fromkeys(columns)))
    unnamed = args.annotator_column is None and source.annotator_column is None
    if columns is not None and unnamed and source.file_of_row is not None:
        return _file_per_annotator(source)
    return source


def _column_per_annotator(source: Source, columns: Sequence[str]) -> Source:
    """Return a source with a row for each answer, from one with a column per annotator."""
    for name in columns:
        if name not in source.columns:
            raise missing_column(name, source.columns, "--annotator_columns", source.name)

    def parse(row: Mapping[str, Any]) -> Record:
        fields = {name: value for name, value in row.items() if name not in columns}
        cells = {name: row.get(name) for name in columns}
        answers = [(cell, name) for name, cell in cells.items() if not _is_blank(cell)]
        return Record(fields, {LABELS: answers} if answers else {})

    layout = f"a column per annotator ({name_some(columns)})"
    return expand(source, parse, layout, DEFAULT_LABEL_COLUMN)


def _is_blank(cell: Any) -> bool:
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


def _file_per_annotator(source: Source) -> Source:
    """Return a source of several files whose rows name the file as their annotator."""
    file_of_row = source.file_of_row
    assert file_of_row is not None

    def read(
        columns: Sequence[str] | None = None, required: Sequence[str] | None = None
    ) -> Iterator[dict]:
        in_file = [
            None if names is None else [name for name in names if name != ANNOTATOR]
            for names in (columns, required)
        ]
        for number, row in enumerate(source.read(*in_file), 1):
            yield row | {ANNOTATOR: file_of_row(number)}

    return replace(
        source,
        columns=[*source.columns, ANNOTATOR],
        read=read,
        annotator_column=ANNOTATOR,
        notes=[*source.notes, "each file is that of an annotator (--annotator_column)"],
    )
