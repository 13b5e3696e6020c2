"""Flags that name the data, its text and label columns, and the validation and test rows."""

from dataclasses import dataclass
from typing import Any, Literal

from shared.cli.arguments import flag
from shared.cli.errors import UserError

DEFAULT_TEXT_COLUMNS = ("title", "body")
DEFAULT_LABEL_COLUMN = "labels"

# The help text of --unknown_labels, for every class that has --test_data.
UNKNOWN_LABELS_HELP = (
    "Labels of a file of held-out rows that --data does not have: 'miss' (they stay, and count as "
    "labels that were not predicted) or 'error' (stop, and name them) (default: miss)."
)

# The end of messages where all rows have the same labels.
NEGATIVE_HINT = (
    "rows without a label count as unlabelled; if no label applies to them, give --empty_labels "
    "negative"
)


@dataclass
class SourceArguments:
    """Flags that name rows, and say how a file of rows is read."""

    data: str = flag(
        "sample",
        "Data set: 'sample' (issues shipped with the project, the default), a file (.jsonl, "
        ".ndjson, .json, .csv or .tsv, each also compressed as .gz, .parquet or .xlsx; JSON from "
        "GitHub's REST API and exports of Label Studio, Argilla, Prodigy and doccano are "
        "recognised; $NAME and ~ are expanded), a pattern such as 'texts/*.csv', several files "
        "with commas between them, a folder of text files for each class, a folder that `datasets` "
        "saved, or the id of a hub data set.",
    )
    data_config: str | None = flag(
        None, "Configuration of a hub data set (default: its only configuration)."
    )
    data_split: str = flag(
        "train",
        "Split of a hub data set, of a saved data set or of a folder; sheet of a workbook, or key "
        "of a JSON object, if there are several (default: train).",
    )
    encoding: str | None = flag(
        None,
        "Encoding of text files, such as cp1251 (default: UTF-8, UTF-16 or Windows-1252, whichever "
        "it clearly is).",
    )
    column_names: list[str] | None = flag(
        None,
        "Column names of a CSV, TSV or Excel file that has no header line (default: the first line "
        "is the header).",
    )
    delimiter: str | None = flag(
        None,
        "Separator of the columns of a CSV or TSV file, such as ';', or tab (default: a comma in "
        ".csv, a tab in .tsv; if the first line has none, another that it has).",
    )
    quoting: Literal["auto", "double", "backslash", "none"] = flag(
        "auto",
        "Quotation marks in a CSV or TSV file: 'double' (a cell in marks may hold delimiters and "
        "line breaks, its own marks are doubled), 'backslash' (its own marks have a backslash "
        "before them), 'none' (marks are plain characters, each line is a row) or 'auto' (what "
        "fits the whole file; an error if two of them fit and differ in rows) (default: auto).",
    )


@dataclass
class DataArguments(SourceArguments):
    """Flags about texts and their labels. The arguments of every recipe of texts inherit them."""

    text_columns: list[str] = flag(
        list(DEFAULT_TEXT_COLUMNS),
        "Columns that make up the text. They are joined by a blank line, without the empty ones "
        "(default: those of title and body that exist; if neither exists, text, or the only column "
        "of sentences).",
    )
    label_column: str = flag(
        DEFAULT_LABEL_COLUMN,
        "Column with the labels of a row: a name, a whole number, a list of these, or GitHub's "
        "label objects; of an export of annotations, the question (default: labels; if it does not "
        "exist, label, or the only column with another usual name, such as category).",
    )
    label_columns: list[str] = flag(
        [],
        "Columns that stand for one label each, with 1 where it applies and 0 where it does not, "
        "in place of --label_column (default: none; if there is no column of labels, all columns "
        "of 0 and 1).",
    )
    label_separator: str | None = flag(
        None,
        "Separator between several labels in one string; '' if each string is one label "
        "(default: a comma, semicolon, bar or line break, if the parts are also labels of other "
        "rows).",
    )
    annotator_column: str | None = flag(
        None,
        "Column that says who gave the labels of a row, if rows repeat a text for each annotator "
        "(default: annotator, annotator_id or that of an export of annotations).",
    )
    duplicate_labels: Literal["auto", "merge", "first", "majority", "separate"] = flag(
        "auto",
        "Rows with the same text and different labels: 'merge' (the text gets the labels of all), "
        "'first' (those of its first labelled row), 'majority' (those that more than half of its "
        "annotators gave; none: unlabelled), 'separate' (each row stays, all on one side of a "
        "split) or 'auto' ('majority' if texts have several annotators, 'merge' in a table with "
        "one row per text and label, else 'first') (default: auto).",
    )
    class_names: str | None = flag(
        None,
        "Text file with the name of each class, one per line, for labels that are class numbers: "
        "0 stands for the first line (default: labels keep the names they have in the data).",
    )
    label_map: str | None = flag(
        None,
        "YAML file: a list of the labels to keep, or a mapping from each label to keep to its "
        "new name; several labels may get the same name (default: keep all labels and names).",
    )
    drop_labels: list[str] = flag(
        [],
        "Labels to leave out. With --label_map, give the new names (default: leave out no label).",
    )
    min_label_count: int = flag(
        1, "Leave out labels that occur on fewer rows than this (default: 1 row).", least=1
    )
    pull_requests: bool = flag(
        False, "Keep GitHub pull requests as well as issues (default: false)."
    )
    empty_labels: Literal["auto", "unlabelled", "negative"] = flag(
        "auto",
        "Meaning of an empty list of labels, and of a list whose labels are all left out: "
        "'unlabelled' (the correct labels are not known), 'negative' (none of the labels applies) "
        "or 'auto' ('negative' where the data have a 0 for each label, where Prodigy asked for one "
        "label only, or where a person confirmed it on the page of annotate; else 'unlabelled') "
        "(default: auto). A null always means unlabelled.",
    )
    cache_dir: str | None = flag(
        None,
        "Folder for prepared data (default: the folder recipes in the cache of the datasets "
        "library; the environment variable HF_DATASETS_CACHE sets that cache).",
    )


@dataclass
class PseudoLabelArguments:
    """The flag of recipes that learn from labels which no person has given."""

    weight_column: str | None = flag(
        None,
        "Column with the weight, usually 0 to 1, of a label that no person has given, such as the "
        "confidence of a language model. Rows with a value there are trained on with this weight, "
        "and are in no validation or test set; rows without one count as labelled by hand "
        "(default: none).",
    )


@dataclass
class AnnotatorArguments:
    """The flag of recipes that keep the answers of several annotators apart."""

    annotator_columns: list[str] = flag(
        [],
        "Columns that hold the labels which one annotator each has given, in place of "
        "--label_column and --annotator_column; a blank cell is no answer (default: none).",
    )


TOP_SCORES_HELP = (
    "Number of scores of each text in files of predictions: those of the best labels, and of all "
    "predicted ones (default: all, or 20 if there are more than 50 labels)."
)


@dataclass
class TaggingArguments:
    """Flags of recipes that write predictions and a card, and tag the unlabelled rows."""

    tag_unlabelled: int = flag(
        100_000,
        "Maximum number of unlabelled rows to tag at the end; 0: none (default: 100,000).",
        least=0,
    )
    top_scores: int | None = flag(None, TOP_SCORES_HELP, least=1)
    license: str | None = flag(
        None,
        "Licence that the model card names, such as apache-2.0 (default: that of the default "
        "encoder if it was fine-tuned, else none).",
    )
    language: str | None = flag(
        None, "Language of the texts that the model card names, such as en (default: none)."
    )


@dataclass
class SplitColumnArguments:
    """The two flags that divide the rows as a column says."""

    split_by: str | None = flag(
        None,
        "Column of --data that says for each row whether it is for training, validation or test: "
        "train, valid (validation, val, dev) or test (default: the split is drawn).",
    )
    split_time: str | None = flag(
        None,
        "Column of --data with the time of each row, ISO 8601 or seconds or milliseconds since "
        "1970: the last --test_size of the rows are the test set, those before it the validation "
        "set if there is one, and training rows are older than both; of rows with labels, only "
        "the labelled ones count (default: the split is drawn).",
    )


@dataclass
class FoldSplitArguments(SplitColumnArguments):
    """Flags of recipes that draw folds, and hold out the test rows that a column says."""

    test_size: float = flag(
        0.25,
        "With --split_time: share of the rows for the test set; the folds have the older ones "
        "(default: .25).",
        above=0,
        below=1,
    )


@dataclass
class ChoiceSplitArguments(FoldSplitArguments):
    """Flags of recipes that choose between methods, and test the choice on the rows of a column."""

    valid_size: float = flag(
        0.25,
        "With --split_time, or a column of --split_by without validation rows: share of the rows "
        "that the choice is made on (default: .25).",
        above=0,
        below=1,
    )
    test_size: float = flag(
        0.25,
        "With --split_time: share of the rows that test the choice (default: .25).",
        above=0,
        below=1,
    )


@dataclass
class TextFoldArguments(FoldSplitArguments):
    """Flags of recipes that cross-validate a model of texts, and may test it on other rows."""

    folds: int = flag(3, "Number of cross-validation folds (default: 3).", least=2)
    repeats: int = flag(
        1, "Cross-validations, each with folds and a seed of its own (default: 1).", least=1
    )
    group_column: str | None = flag(
        None,
        "Column of groups that stay in one fold. Test rows of --split_by or --split_time may share "
        "groups with the folds; a note says how many (default: none).",
    )
    test_data: str | None = flag(None, "File of test rows, scored by all folds (default: none).")
    unknown_labels: Literal["miss", "error"] = flag("miss", UNKNOWN_LABELS_HELP)


@dataclass
class SplitArguments(SplitColumnArguments, DataArguments):
    """Flags of recipes that split the labelled rows into training, validation and test set."""

    valid_data: str | None = flag(None, "File with the validation set (default: a part of --data).")
    test_data: str | None = flag(None, "File with the test set (default: a part of --data).")
    unknown_labels: Literal["miss", "error"] = flag("miss", UNKNOWN_LABELS_HELP)
    valid_size: float = flag(
        0.25,
        "Share of the labelled rows for the validation set; 0: none, all choices come from the "
        "training rows alone (default: 0.25).",
        least=0,
        below=1,
    )
    test_size: float = flag(
        0.25, "Share of the labelled rows for the test set (default: 0.25).", least=0, below=1
    )
    drop_repeated: bool = flag(
        True,
        "Leave out rows of --data that nearly repeat a row of --valid_data or --test_data, and "
        "validation rows that nearly repeat a row of --test_data. Use false only to compare with "
        "published results of models that were trained on such rows (default: true).",
    )
    train_size: int | None = flag(
        None,
        "Number of training rows. With the same seed, a smaller training set is part of a larger "
        "one (default: all).",
        least=1,
    )
    train_per_label: int | None = flag(
        None,
        "Number of training rows of each label, for data with exactly one label per text "
        "(default: all).",
        least=1,
    )


def check_split_flags(args: Any) -> None:
    """Refuse flags that do not fit --split_by or --split_time.

    Raises
    ------
    UserError
        Both are given; or one, and a file of held-out rows or a size that would not act; or neither
        is, and a recipe that draws folds has a size of the test set.
    """
    flags = [name for name in ("split_by", "split_time") if getattr(args, name, None)]
    if not flags:
        if not isinstance(args, FoldSplitArguments):
            return
        if args.test_size != type(args).test_size:
            raise UserError("--test_size: only with --split_time; else all rows are in folds")
        if isinstance(args, ChoiceSplitArguments) and args.valid_size != type(args).valid_size:
            raise UserError(
                "--valid_size: only with --split_by, --split_time; else all are in folds"
            )
        return
    if len(flags) > 1:
        raise UserError("--split_by and --split_time: give one of them")
    for name in ("valid_data", "test_data"):
        if getattr(args, name, None):
            raise UserError(f"--{flags[0]}: divides the rows of --data; remove --{name}")
    if args.split_by and args.test_size != type(args).test_size:
        raise UserError("--test_size: the test rows are those of --split_by")
    if args.split_time and not args.test_size:
        raise UserError("--test_size 0: --split_time needs test rows")
