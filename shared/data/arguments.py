"""The flags that say what to learn from, and which rows to keep back for a test."""

from dataclasses import dataclass
from typing import Literal

from shared.cli.arguments import flag

DEFAULT_TEXT_COLUMNS = ("title", "body")
DEFAULT_LABEL_COLUMN = "labels"


@dataclass
class DataArguments:
    """Flags about data, common to all recipes; a recipe's arguments inherit them."""

    data: str = flag(
        "sample",
        "What to learn from: 'sample' (issues shipped with the project, the default), a file "
        "(.jsonl, .json, .csv, .tsv, each also .gz, or .parquet; GitHub REST JSON is "
        "recognised; $NAME and ~ are filled in), or the id of a hub data set.",
    )
    data_config: str | None = flag(None, "Configuration of a hub data set (default: its only one).")
    data_split: str = flag("train", "Split of a hub data set (default: train).")
    column_names: list[str] | None = flag(
        None,
        "Names of the columns of a CSV or TSV file that has no header line (default: the "
        "first line is the header).",
    )
    text_columns: list[str] = flag(
        list(DEFAULT_TEXT_COLUMNS),
        "Columns that make up the text, joined by a blank line; blank ones are left out "
        "(default: title body, as far as they exist, else text).",
    )
    label_column: str = flag(
        DEFAULT_LABEL_COLUMN,
        "Column with the labels of a row: names, whole numbers, a list of these, or GitHub's "
        "label objects (default: labels, else label).",
    )
    label_separator: str = flag(
        ",",
        "What separates several labels in one string; '' if a string is always one label "
        "(default: a comma).",
    )
    class_names: str | None = flag(
        None,
        "Text file with the name of each class, one per line, where labels are numbers that count "
        "these lines from 0 (default: labels are called what the data call them).",
    )
    label_map: str | None = flag(
        None,
        "YAML file: a list of the labels to keep, or a mapping from each label to keep to its"
        " new name, several to one if wanted (default: keep all as they are).",
    )
    drop_labels: list[str] = flag(
        [], "Labels to leave out, by their name after --label_map (default: none)."
    )
    min_label_count: int = flag(1, "Labels on fewer rows than this are left out (default: 1 row).")
    pull_requests: bool = flag(
        False, "Keep GitHub pull requests, not only issues (default: false)."
    )
    empty_labels: Literal["unlabelled", "negative"] = flag(
        "unlabelled",
        "What an empty list of labels means, also where every label of a row is left out: "
        "'unlabelled', nobody has looked at the row, or 'negative', none of the labels "
        "applies (default: unlabelled). A null is always unlabelled.",
    )
    cache_dir: str | None = flag(
        None,
        "Folder for prepared data (default: recipes/ in the cache of the datasets library, "
        "which HF_DATASETS_CACHE moves).",
    )


@dataclass
class SplitArguments(DataArguments):
    """Flags of recipes that train on a part of the labelled rows and test on another."""

    valid_data: str | None = flag(None, "File of the validation rows (default: a part of --data).")
    test_data: str | None = flag(None, "File of the test rows (default: a part of --data).")
    valid_size: float = flag(0.25, "Share of the labelled rows for validation (default: .25).")
    test_size: float = flag(0.25, "Share of the labelled rows for the test (default: .25).")
    drop_repeated: bool = flag(
        True,
        "Leave out what a file of held-out rows nearly repeats; false only for figures beside "
        "published ones that were trained on such rows (default: true).",
    )
    train_size: int | None = flag(None, "Training rows, in nested slices (default: all).")
    train_per_label: int | None = flag(
        None, "Training rows of each label, where a text has exactly one (default: all)."
    )
