"""Apply a trained tagger to a file: write every row with its labels and scores.

Why: to use a model that recipes/github_tagger.py or recipes/document_classification.py trained, on
files of any size. Rows are read, tagged and written in blocks, in their order; the output file
appears only when it is complete. Several models, such as the folds of a cross-validation, are
averaged: their scores and their thresholds. A model trained on windows of documents reads windows.

    accelerate launch recipes/tag.py --model outputs/github_tagger --data new.jsonl
    accelerate launch recipes/tag.py --model outputs/documents/fold_0 outputs/documents/fold_1

Each output line is the input row as JSON, with `labels` and `scores` added. `labels` are those with
a score at or above the threshold that is saved with the tagger, best first; if every training text
had exactly one label, only the best label. `scores` has all labels. Input columns of these names
are kept as `input_labels` and `input_scores`. A row without text gets no labels and no scores.

Expect on two CPU cores with the default encoder: 20 texts of 200 tokens per second or more, 1 GB of
memory for a file of any size.
"""

import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments

from shared.cli import (
    UserError,
    atomic_write,
    exit_on_user_error,
    flag,
    parse_arguments,
    progress,
    quiet_libraries,
)
from shared.data import DEFAULT_TEXT_COLUMNS, find_text_columns, join_text, open_source
from shared.evaluation import choose_labels, sigmoid, softmax
from shared.methods import Windows
from shared.models import load_sequence_classifier, load_tokenizer, resolve_model
from shared.reports import prediction_records
from shared.training import LengthGroupedTrainer, PaddingCollator

DEFAULT_TAGGER = "outputs/github_tagger"
SINGLE_LABEL = "single_label_classification"
TRAIN_FIRST = "train a tagger with the recipe github_tagger"


@dataclass
class TagArguments(TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: list[str] = flag(
        [DEFAULT_TAGGER], f"Tagger folder, or several to average (default: {DEFAULT_TAGGER})."
    )
    data: str = flag("sample", "File to tag, as for training (default: the sample).")
    output: str = flag("tagged.jsonl", "JSON-lines file to write (default: tagged.jsonl).")
    text_columns: list[str] = flag(
        list(DEFAULT_TEXT_COLUMNS), "Columns joined to the text (default: title body, or text)."
    )
    column_names: list[str] | None = flag(None, "Columns of a CSV or TSV file without a header.")
    threshold: float | None = flag(
        None, "One decision threshold for all labels (default: those saved with the tagger)."
    )
    block_size: int = flag(4096, "Rows in memory at a time (default: 4096).")
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    # The Trainer creates its output folder, so this names one that always exists.
    output_dir: str = flag(tempfile.gettempdir(), "Not used: only --output is written.")
    remove_unused_columns: bool = flag(False, "Must stay false: the collator needs all columns.")

    def __post_init__(self):
        if self.block_size < 1:
            raise UserError(f"--block_size {self.block_size}: must be 1 or more")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError(f"--threshold {self.threshold}: must be from 0 to 1")
        super().__post_init__()


def main() -> None:
    """Load the taggers; then read, tag and write one block of rows after another."""
    args = parse_arguments(TagArguments, description=__doc__)
    quiet_libraries()
    source = open_source(args.data, column_names=args.column_names)
    columns = find_text_columns(source.columns, args.text_columns, source.name)

    # Load the taggers. They are averaged, so they must have the same labels and decide alike.
    if args.model == [DEFAULT_TAGGER] and not Path(DEFAULT_TAGGER).is_dir():
        raise UserError(f"--model {DEFAULT_TAGGER}: no such folder; {TRAIN_FIRST}, or name another")
    taggers = [Tagger(name, args) for name in args.model]
    label_names, single_label = taggers[0].label_names, taggers[0].single_label
    for tagger in taggers[1:]:
        if tagger.label_names != label_names:
            raise UserError(f"--model: {tagger.name} has other labels than {taggers[0].name}")
        if (tagger.softmax, tagger.single_label) != (taggers[0].softmax, single_label):
            raise UserError(
                f"--model: {tagger.name} and {taggers[0].name} cannot be averaged: one chooses the "
                "best of classes that exclude each other, the other decides on each label"
            )
    thresholds = np.mean([tagger.thresholds for tagger in taggers], axis=0)

    # Tag block by block; rows without text are not scored, but are written in their place.
    started, n_rows, n_texts = perf_counter(), 0, 0
    rows = iter(progress(source.read(), f"tagging {source.name}"))
    with output_file(args) as file:
        while block := list(islice(rows, args.block_size)):
            texts = [
                read_text(row, columns, source.name, n_rows + i) for i, row in enumerate(block, 1)
            ]
            to_score = [text for text in texts if text]
            records = iter(())
            if to_score:
                scores = np.mean([tagger.score(to_score) for tagger in taggers], axis=0)
                predicted = choose_labels(scores, thresholds, single_label=single_label)
                records = prediction_records(scores, predicted, label_names)
            for number, (row, text) in enumerate(zip(block, texts, strict=True), n_rows + 1):
                record = next(records) if text else {"labels": [], "scores": {}}
                file.write(output_line(row, record, f"{source.name}, row {number}"))
            n_rows, n_texts = n_rows + len(block), n_texts + len(to_score)

    if args.process_index == 0:
        seconds = perf_counter() - started
        blank = f" ({n_rows - n_texts:,} without text)" if n_rows > n_texts else ""
        print(f"{n_rows:,} rows{blank} tagged in {args.output}: ", end="")
        print(f"{n_texts / seconds:,.0f} texts per second")


class Tagger:
    """A trained model with its labels, its thresholds and its windows; it scores texts."""

    def __init__(self, name: str, args: TagArguments):
        self.name = name
        folder = resolve_model(name)
        self.tokenizer = load_tokenizer(folder)
        model = load_sequence_classifier(folder, tokenizer=self.tokenizer)
        self.label_names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        self.thresholds = find_thresholds(name, args, model.config)
        self.softmax = model.config.problem_type == SINGLE_LABEL
        single_label = self.softmax or getattr(model.config, "one_label_each", False)
        self.single_label = args.threshold is None and single_label
        # A model that was not trained on windows reads one window: the truncated text.
        self.cutting = dict(getattr(model.config, "windows", {"stride": 0, "max_windows": 1}))
        self.pooling = self.cutting.pop("pooling", "mean")
        collator = PaddingCollator(self.tokenizer)
        self.trainer = LengthGroupedTrainer(model=model, args=args, data_collator=collator)

    def score(self, texts: list[str]) -> np.ndarray:
        """Return probabilities of shape (texts, labels)."""
        dataset = Dataset.from_dict({"text": texts})
        windows = Windows.of_texts(dataset, self.tokenizer, **self.cutting)
        logits = windows.predict(self.trainer, self.pooling)
        return (softmax if self.softmax else sigmoid)(logits)


def find_thresholds(name: str, args: TagArguments, config) -> list[float]:
    """Return one threshold per label, from --threshold or the tagger's config."""
    if config.id2label == {i: f"LABEL_{i}" for i in range(config.num_labels)}:
        raise UserError(f"{name}: the config names no labels; {TRAIN_FIRST}")
    if config.problem_type not in ("multi_label_classification", SINGLE_LABEL):
        raise UserError(
            f"{name}: its problem_type is {config.problem_type}, neither "
            f"multi_label_classification nor {SINGLE_LABEL}; its scores are not those of labels"
        )
    if args.threshold is not None or config.problem_type == SINGLE_LABEL:
        return [args.threshold or 0.0] * config.num_labels
    thresholds = getattr(config, "thresholds", None)
    complete = isinstance(thresholds, list) and len(thresholds) == config.num_labels
    if not complete or not all(isinstance(t, float) and 0 <= t <= 1 for t in thresholds):
        raise UserError(
            f"{name}: the config has no threshold for each label; {TRAIN_FIRST}, or set one with "
            "--threshold"
        )
    return thresholds


def read_text(row: dict, columns: list[str], name: str, number: int) -> str:
    """Return the text of a row, "" if it has none."""
    try:
        return join_text(row, columns)
    except ValueError as error:
        raise UserError(f"{name}, row {number}: {error}") from error


def output_line(row: dict, record: dict, row_name: str) -> str:
    """Return a row with its labels and scores as a line of JSON."""
    kept = {f"input_{name}" if name in record else name: value for name, value in row.items()}
    if len(kept) < len(row):
        raise UserError(
            f"{row_name}: labels and scores are kept as input_labels and input_scores, but the "
            "row has these columns too; rename them"
        )
    line = json.dumps(kept | record, ensure_ascii=False, default=str)
    # Half a surrogate pair cannot be written as UTF-8; it stays an escape.
    return line.encode(errors="backslashreplace").decode() + "\n"


@contextmanager
def output_file(args: TagArguments):
    """Open --output in the first process; other processes have the same results and drop them."""
    if args.process_index != 0:
        with open(os.devnull, "w", encoding="utf-8") as file:
            yield file
        return
    path = Path(args.output)
    if path.exists() and not path.is_file():
        raise UserError(f"--output {path}: not a file; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            yield file
    except OSError as error:
        raise UserError(
            f"--output {path}: cannot be written ({error.strerror}); choose another place"
        ) from error


if __name__ == "__main__":
    with exit_on_user_error():
        main()
