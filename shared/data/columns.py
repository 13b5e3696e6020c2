"""The columns of a source: which of them hold the texts and the labels.

From a row of a source to its text and to the cell that holds its labels. Which labels are in a
cell is for `shared.data.labels` to say.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.data.arguments import DEFAULT_LABEL_COLUMN, DEFAULT_TEXT_COLUMNS
from shared.data.labels import describe_value, has_labels, is_missing
from shared.data.words import count_words

if TYPE_CHECKING:
    from shared.data.arguments import DataArguments
    from shared.data.sources import Source

# The answers of Prodigy's binary interfaces: the label applies, does not apply, is not known.
ANSWERS = ("accept", "reject", "ignore")

# The column in which annotate.py says what a person did with a text. An empty list of
# labels then means that none applies, which it means nowhere else.
ANNOTATION_STATUS = "annotation_status"
LABELLED = "labelled"
SKIPPED = "skipped"

# Other names of a column of labels, in lower case.
_USUAL_LABEL_COLUMNS = (
    *("label", "labels", "category", "categories", "class", "classes", "target", "targets"),
    *("tag", "tags", "topic", "topics", "cats", "sentiment", "intent", "emotion", "emotions"),
)

_NUMBERS_OF_ROWS = ("", "id", "index", "unnamed: 0")  # may be 0 and 1 in a file of two rows

# A column of texts: half of its cells have at least so many words, and as many are different.
_WORDS_OF_A_TEXT = 3
_SHARE_OF_TEXTS = 0.5


# --- which columns -------------------------------------------------------------------------------


def find_text_columns(columns: Sequence[str], wanted: list[str], source: str) -> list[str]:
    """Return the columns of a source that make up its texts.

    These are the columns in `wanted`. If `wanted` is the default, title and body, they are those
    of the two that exist; if neither exists, the column text.

    Raises
    ------
    UserError : a column of `wanted` is not among `columns`.
    """
    if wanted == list(DEFAULT_TEXT_COLUMNS):
        present = [name for name in wanted if name in columns]
        wanted = present or (["text"] if "text" in columns else wanted)
    for name in wanted:
        if name not in columns:
            raise missing_column(name, columns, "--text_columns", source)
    return wanted


def recognise_text_columns(source: Source, wanted: list[str]) -> tuple[list[str], str]:
    """Return the columns that make up the texts, and why: by their names, or by what they hold.

    Without columns of the names that `find_text_columns` knows, it is the only column that holds
    sentences.

    Raises
    ------
    UserError : as `find_text_columns`; or several columns hold sentences.
    """
    usual = {*DEFAULT_TEXT_COLUMNS, "text"}
    if wanted != list(DEFAULT_TEXT_COLUMNS):
        return find_text_columns(source.columns, wanted, source.name), ""
    if usual & set(source.columns):
        return find_text_columns(source.columns, wanted, source.name), ""
    rows = source.first_rows()
    texts = [name for name in source.columns if _holds_texts([row.get(name) for row in rows])]
    if len(texts) > 1:
        raise UserError(
            f"{source.name}: several columns hold texts ({', '.join(texts)}); name one of them, or "
            "several to be joined, with --text_columns"
        )
    if texts:
        return texts, "the only column of sentences"
    return find_text_columns(source.columns, wanted, source.name), ""


def unread_text_columns(source: Source, read: Sequence[str]) -> list[str]:
    """Return the columns that hold sentences, but are not among those that are read."""
    rows = source.first_rows()
    others = [name for name in source.columns if name not in read]
    return [name for name in others if _holds_texts([row.get(name) for row in rows])]


def _holds_texts(cells: Sequence[Any]) -> bool:
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    if not texts:
        return False
    long = sum(count_words(" ".join(text.split())) >= _WORDS_OF_A_TEXT for text in texts)
    return min(long, len(set(texts))) >= _SHARE_OF_TEXTS * len(texts)


def find_label_column(
    columns: Sequence[str], wanted: str, source: str, *, required: bool = True
) -> str | None:
    """Return the column of a source that holds its labels.

    This is the column `wanted`. If `wanted` is the default, labels, and does not exist, it is the
    column label. If that does not exist either, and `required` is false, it is None.

    Raises
    ------
    UserError : `wanted` is not among `columns`.
    """
    for name in (wanted, "label") if wanted == DEFAULT_LABEL_COLUMN else (wanted,):
        if name in columns:
            return name
    if not required and wanted == DEFAULT_LABEL_COLUMN:
        return None
    raise missing_column(wanted, columns, "--label_column", source)


def find_weight_column(columns: Sequence[str], wanted: str, source: str) -> str:
    """Return the column of a source that holds the weights of its labels.

    Raises
    ------
    UserError : `wanted` is not among `columns`.
    """
    if wanted not in columns:
        raise missing_column(wanted, columns, "--weight_column", source)
    return wanted


def find_annotator_column(source: Source, wanted: str | None) -> str | None:
    """Return the column that says who gave the labels of a row; None if there is none.

    Raises
    ------
    UserError : `wanted` is not among the columns.
    """
    if wanted is not None and wanted not in source.columns:
        raise missing_column(wanted, source.columns, "--annotator_column", source.name)
    return wanted or source.annotator_column


def find_split_column(
    source: Source, args: Any, *, targets: Sequence[str] = (), inputs: Sequence[str] = ()
) -> str | None:
    """Return the column of ``--split_by`` or ``--split_time``; None if there is neither.

    Parameters
    ----------
    source : Source
    args : SplitColumnArguments
    targets, inputs : sequences of str
        Columns to predict, and columns that a model reads.

    Raises
    ------
    UserError : it is not among the columns, or is one to predict or to read.
    """
    for name in ("split_by", "split_time"):
        if column := getattr(args, name, None):
            if column not in source.columns:
                raise missing_column(column, source.columns, f"--{name}", source.name)
            if column in targets:
                raise UserError(f"--{name} {column}: divides the rows, and cannot be predicted")
            if column in inputs:
                raise UserError(f"--{name} {column}: divides the rows, and is no input")
            return column
    return None


def find_label_cells(source: Source, args: DataArguments, required: bool) -> LabelCells:
    """Return what takes the labels from the rows of a source.

    The flags decide; then the format, if it has labels of its own; then the usual names. If labels
    are required, a column with another usual name, or columns of 0 and 1, are recognised.

    Raises
    ------
    UserError : there is no column of labels, or it is not clear which one it is; the message names
        the flag that decides.
    """
    for name in args.label_columns:
        if name not in source.columns:
            raise missing_column(name, source.columns, "--label_columns", source.name)
    if args.label_columns and args.label_column != DEFAULT_LABEL_COLUMN:
        raise UserError("--label_columns and --label_column: give one of them")
    if args.label_columns:
        return LabelCells(source.columns, None, args.label_columns)
    if source.label_column is not None:
        return LabelCells(source.columns, source.label_column)
    column = find_label_column(source.columns, args.label_column, source.name, required=False)
    if column is not None or not required:
        confirmed = args.empty_labels == "auto" and ANNOTATION_STATUS in source.columns
        return LabelCells(source.columns, column, confirmed=confirmed)

    rows = source.first_rows()
    flags = columns_of_zeros_and_ones(rows, source.columns)
    usual = [name for name in source.columns if name.lower() in _USUAL_LABEL_COLUMNS]
    usual = [name for name in usual if name not in flags]
    problem = missing_column(args.label_column, source.columns, "--label_column", source.name)
    if len(usual) + bool(flags) > 1:
        choice = f"--label_column {usual[0]}"
        if flags:
            choice += f", or --label_columns {' '.join(flags)}"
        raise UserError(
            f"{source.name}: several columns could be the labels ({', '.join([*usual, *flags])}); "
            f"give {choice}"
        )
    if usual:
        return LabelCells(source.columns, usual[0], reason="by its name")
    if len(flags) > 1:
        positions = [source.columns.index(name) for name in flags]
        if positions != list(range(positions[0], positions[0] + len(flags))):
            raise UserError(
                f"{problem}; columns of 0 and 1 do not stand together, so that some may be no "
                f"labels; name those that are: --label_columns {' '.join(flags)}"
            )
        return LabelCells(source.columns, None, flags, reason="columns of 0 and 1")
    if flags:
        raise UserError(
            f"{problem}; for classes 0 and 1: --label_column {flags[0]}; for one label that "
            f"applies or not: --label_columns {flags[0]}"
        )
    if spans := {"spans", "entities"} & set(source.columns):
        raise UserError(f"{problem}; {min(spans)} are parts of texts, no labels of whole texts")
    raise problem


def missing_column(name: str, columns: Sequence[str], flag: str, source: str) -> UserError:
    """Return the error of a column that a flag names and a source does not have."""
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"name the right one with {flag}"
    return UserError(f"{source}: no column {name!r} (found: {', '.join(columns)}); {hint}")


# --- the text of a row ---------------------------------------------------------------------------


def join_text(row: dict, columns: Sequence[str]) -> str:
    """Return the text of a row: its text columns, joined by a blank line.

    Columns that are null, NaN or blank are left out. Half a surrogate pair is replaced by U+FFFD:
    JSON can hold one, but UTF-8 and tokenizers cannot.

    Raises
    ------
    ValueError : a column holds something other than text.
    """
    parts = []
    for column in columns:
        value = row.get(column)
        if is_missing(value):
            continue
        if not isinstance(value, str):
            raise ValueError(f"column {column!r} holds {describe_value(value)}, not text")
        if value and not value.isspace():
            parts.append(value)
    text = "\n\n".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 can write half a pair; reading it back replaces the half and keeps whole pairs.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# --- the weight of a row -------------------------------------------------------------------------


def read_weight(row: dict, column: str) -> float | None:
    """Return the weight of the labels of a row; None for labels that were given by hand.

    Raises
    ------
    ValueError : the column holds something other than a number from 0 on.
    """
    value: Any = row.get(column)
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if isinstance(value, bool) or not 0 <= weight < float("inf"):
        raise ValueError(
            f"column {column!r} of --weight_column holds {str(value)[:40]!r}, not a number of 0 or "
            "more"
        )
    return weight


# --- the cell of labels of a row -----------------------------------------------------------------


class LabelCells:
    """Take the cell of labels from each row of a source.

    Parameters
    ----------
    columns : sequence of str
        All columns of the source.
    label_column : str, optional
        The column that holds the labels; None: there is none.
    label_columns : sequence of str
        Columns that each stand for one label, with 0 or 1 in each row. They take the place of
        `label_column`.
    reason : str
        Why these columns were recognised as labels; "" if their names or a flag say so.
    confirmed : bool, default False
        An empty list counts as labels only in rows that a person labelled with annotate.py;
        `ANNOTATION_STATUS` says so. In all others it counts as unlabelled.

    Attributes
    ----------
    needed : list of str
        The columns that are read.
    answers : Counter
        Number of rows with each of Prodigy's answers; empty if the source is not from Prodigy.
    """

    def __init__(
        self,
        columns: Sequence[str],
        label_column: str | None,
        label_columns: Sequence[str] = (),
        *,
        reason: str = "",
        confirmed: bool = False,
    ) -> None:
        self.label_column, self.label_columns, self.reason = label_column, label_columns, reason
        self.needed = [*label_columns, *([] if label_column is None else [label_column])]
        self.answers: Counter[str] = Counter()
        self._asked: set[str] = set()  # labels that were accepted or rejected; two are enough
        self._unanswered = 0  # rows with labels and without an answer
        self.confirmed = confirmed and label_column is not None
        if self.confirmed:
            self.needed.append(ANNOTATION_STATUS)
        # The first answer tells whether the column is that of Prodigy.
        self._may_be_answered = label_column is not None and "answer" in columns
        if self._may_be_answered:
            self.needed = list(dict.fromkeys([*self.needed, "answer"]))

    def __call__(self, row: dict) -> Any:
        """Return the cell of a row: its labels, [] if none of them applies, None if unlabelled.

        Raises
        ------
        ValueError
            If a value is not one that the column can have.
        """
        if self.label_columns:
            return self._labels_with_one(row)
        if self.label_column is None:
            return None
        cell, value = row.get(self.label_column), row.get("answer")
        if self.confirmed and row.get(ANNOTATION_STATUS) != LABELLED and not has_labels(cell):
            return None
        # A spreadsheet may change the case, and CSV has no null.
        answer = "" if is_missing(value) else str(value).strip().lower()
        if self._may_be_answered and not answer:
            self._unanswered += not (is_missing(cell) or cell == "")
        elif self._may_be_answered:
            if answer in ANSWERS:
                if self._unanswered and not self.answers:
                    raise ValueError(
                        f"the answer is {answer!r}, but rows before it have labels and no answer; "
                        "give them one, or remove the column 'answer'"
                    )
                self.answers[answer] += 1
                if isinstance(cell, str) and len(self._asked) < 2:
                    self._asked.add(cell)
                # A label that was rejected does not apply; of a rejected choice, nothing is known.
                rejected: list | None = [] if isinstance(cell, str) else None
                return {"accept": cell, "reject": rejected, "ignore": None}[answer]
            if self.answers:
                raise ValueError(
                    f"the answer is {str(value)[:40]!r}; Prodigy writes {', '.join(ANSWERS)}"
                )
            self._may_be_answered = False
        return None if self.answers else cell

    @property
    def asked_for_one(self) -> bool:
        """Whether Prodigy asked for the same label in every row, and it was rejected in some."""
        return len(self._asked) == 1 and self.answers["reject"] > 0

    def _labels_with_one(self, row: dict) -> list[str] | None:
        flags = {name: _zero_or_one(name, row.get(name)) for name in self.label_columns}
        blank = [name for name, value in flags.items() if value is None]
        if len(blank) == len(flags):
            return None
        if blank:
            raise ValueError(f"column {blank[0]!r} is blank, but others are not; write 0 or 1")
        return [name for name, value in flags.items() if value]

    def notes(self) -> list[str]:
        """Return what a user should know about the cells read so far."""
        if not self.answers:
            return []
        counts = {answer: f"{self.answers[answer]:,}" for answer in ANSWERS}
        return [
            f"answers of Prodigy: {counts['accept']} accepted, {counts['reject']} rejected (the "
            f"label does not apply), {counts['ignore']} ignored (unlabelled)"
            + (f", {self._unanswered:,} without an answer (unlabelled)" if self._unanswered else "")
        ]


def _zero_or_one(column: str, value: Any) -> bool | None:
    """Return whether a cell of a column of zeros and ones is 1; None if it is blank."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    text = str(value).strip().lower()
    if text in ("1", "1.0", "true"):
        return True
    if text in ("0", "0.0", "false"):
        return False
    raise ValueError(f"column {column!r} of --label_columns holds {str(value)[:40]!r}, not 0 or 1")


def columns_of_zeros_and_ones(rows: Sequence[dict], columns: Sequence[str]) -> list[str]:
    """Return the columns that hold nothing but 0 and 1.

    The cells of rare labels can all be 0 in the first rows, so that one of the columns must hold
    both; else there are none.
    """

    def flags(name: str) -> set[bool | None]:
        try:
            return {_zero_or_one(name, row.get(name)) for row in rows}
        except ValueError:
            return set()

    held = {name: flags(name) - {None} for name in columns if name.lower() not in _NUMBERS_OF_ROWS}
    names = [name for name, values in held.items() if values]
    return names if any(len(held[name]) == 2 for name in names) else []
