"""The flags that say what to learn from."""

from dataclasses import dataclass, field
from typing import Literal

from shared.columns import DEFAULT_LABEL_COLUMN, DEFAULT_TEXT_COLUMNS


@dataclass
class DataArguments:
    """Flags about data, common to all recipes; a recipe's arguments inherit them."""

    data: str = field(
        default="sample",
        metadata={
            "help": "What to learn from: 'sample' (issues shipped with the project, the default), "
            "a file (.jsonl, .json, .csv, .tsv, each also .gz, or .parquet; GitHub REST JSON is "
            "recognised; $NAME and ~ are filled in), or the id of a hub data set."
        },
    )
    data_config: str | None = field(
        default=None,
        metadata={"help": "Configuration of a hub data set (default: its only one)."},
    )
    data_split: str = field(
        default="train", metadata={"help": "Split of a hub data set (default: train)."}
    )
    column_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the columns of a CSV or TSV file that has no header line "
            "(default: the first line is the header)."
        },
    )
    text_columns: list[str] = field(
        default_factory=lambda: list(DEFAULT_TEXT_COLUMNS),
        metadata={
            "help": "Columns that make up the text, joined by a blank line; blank ones are left "
            "out (default: title body, as far as they exist, else text)."
        },
    )
    label_column: str = field(
        default=DEFAULT_LABEL_COLUMN,
        metadata={
            "help": "Column with the labels of a row: names, whole numbers, a list of these, or "
            "GitHub's label objects (default: labels, else label)."
        },
    )
    label_separator: str = field(
        default=",",
        metadata={
            "help": "What separates several labels in one string; '' if a string is always one "
            "label (default: a comma)."
        },
    )
    label_map: str | None = field(
        default=None,
        metadata={
            "help": "YAML file: a list of the labels to keep, or a mapping from each label to keep "
            "to its new name, several to one if wanted (default: keep all as they are)."
        },
    )
    drop_labels: list[str] = field(
        default_factory=list,
        metadata={"help": "Labels to leave out, by their name after --label_map (default: none)."},
    )
    min_label_count: int = field(
        default=1,
        metadata={"help": "Labels on fewer rows than this are left out (default: 1 row)."},
    )
    pull_requests: bool = field(
        default=False,
        metadata={"help": "Keep GitHub pull requests, not only issues (default: false)."},
    )
    empty_labels: Literal["unlabelled", "negative"] = field(
        default="unlabelled",
        metadata={
            "help": "What an empty list of labels means, also where every label of a row is left "
            "out: 'unlabelled', nobody has looked at the row, or 'negative', none of the labels "
            "applies (default: unlabelled). A null is always unlabelled."
        },
    )
    cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder for prepared data (default: recipes/ in the cache of the datasets "
            "library, which HF_DATASETS_CACHE moves)."
        },
    )
