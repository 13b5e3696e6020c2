"""Apply a trained tagger to a file: every row comes back with labels and scores.

Why: to use what recipes/github_tagger.py or recipes/document_classification.py trained, on files of
any size. Rows are read, tagged and written in blocks, in their order; the output appears under its
name only when it is complete. Of several models, such as the folds of a cross-validation, the mean
of the scores and of the thresholds counts. What was trained on windows of documents reads windows.

    accelerate launch recipes/tag.py --model outputs/github_tagger --data new.jsonl
    accelerate launch recipes/tag.py --model outputs/documents/fold_0 outputs/documents/fold_1

Each output line is the input row as JSON, with `labels` (those whose score reaches the threshold
the tagger was saved with, best first; where every text has exactly one, the best alone) and
`scores` (all labels). Columns of these names in the
input are kept as `input_labels` and `input_scores`. A row without text gets no label and no score.

Expect on two CPU cores, default encoder, texts of 200 tokens: 20 texts per second or more, 1 GB of
memory whatever the size of the file.
"""

import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
SINGLE = "single_label_classification"
_TRAIN = "train a tagger with the recipe github_tagger"


@dataclass
class TagArguments(TrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    model: list[str] = flag(
        [DEFAULT_TAGGER], f"The tagger, or several to average (default: {DEFAULT_TAGGER})."
    )
    data: str = flag("sample", "File to tag, as for training (default: the sample).")
    output: str = flag("tagged.jsonl", "File to write (default: tagged.jsonl).")
    text_columns: list[str] = flag(
        list(DEFAULT_TEXT_COLUMNS), "Columns that make up the text (default: title body, or text)."
    )
    column_names: list[str] | None = flag(None, "Columns of a CSV or TSV file without a header.")
    threshold: float | None = flag(
        None, "One threshold for all labels (default: the tagger's own, one per label)."
    )
    block_size: int = flag(4096, "Rows in memory at a time (default: 4096).")
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    # The Trainer creates its output folder; this one is there already.
    output_dir: str = flag(tempfile.gettempdir(), "Not used: nothing but --output is written.")
    remove_unused_columns: bool = flag(False, "Must stay false: the collator needs the text.")

    def __post_init__(self):
        if self.block_size < 1:
            raise UserError(f"--block_size {self.block_size}: must be 1 or more")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError(f"--threshold {self.threshold}: must be from 0 to 1")
        super().__post_init__()


def main() -> None:
    """Read a block, tag it, write it; then the next."""
    args = parse_arguments(TagArguments, description=__doc__)
    quiet_libraries()
    source = open_source(args.data, column_names=args.column_names)
    columns = find_text_columns(source.columns, args.text_columns, source.name)
    if args.model == [DEFAULT_TAGGER] and not Path(DEFAULT_TAGGER).is_dir():
        raise UserError(f"--model {DEFAULT_TAGGER}: no such folder; {_TRAIN}, or name its folder")
    taggers = [Tagger(name, args) for name in args.model]
    label_names, single_label = taggers[0].label_names, taggers[0].single_label
    for tagger in taggers[1:]:
        if tagger.label_names != label_names:
            raise UserError(f"--model: {tagger.name} has other labels than {taggers[0].name}")
        if (tagger.classes, tagger.single_label) != (taggers[0].classes, single_label):
            raise UserError(
                f"--model: {tagger.name} decides otherwise than {taggers[0].name}: one takes the "
                "best of classes that exclude each other, one each label for itself"
            )
    thresholds = np.mean([tagger.thresholds for tagger in taggers], axis=0)

    started, n_rows, n_texts = time.perf_counter(), 0, 0
    rows = iter(progress(source.read(), f"tagging {source.name}"))
    with output_file(args) as file:
        while block := list(itertools.islice(rows, args.block_size)):
            texts = [
                read_text(row, columns, source.name, n_rows + i) for i, row in enumerate(block, 1)
            ]
            known = [text for text in texts if text]
            tagged = iter(())
            if known:
                scores = np.mean([tagger.score(known) for tagger in taggers], axis=0)
                predicted = choose_labels(scores, thresholds, single_label=single_label)
                tagged = prediction_records(scores, predicted, label_names)
            for number, (row, text) in enumerate(zip(block, texts, strict=True), n_rows + 1):
                result = next(tagged) if text else {"labels": [], "scores": {}}
                file.write(output_line(row, result, f"{source.name}, row {number}"))
            n_rows, n_texts = n_rows + len(block), n_texts + len(known)
    if args.process_index == 0:
        seconds = time.perf_counter() - started
        blank = f" ({n_rows - n_texts:,} without text)" if n_rows > n_texts else ""
        print(f"{n_rows:,} rows{blank} tagged in {args.output}: ", end="")
        print(f"{n_texts / seconds:,.0f} texts per second")


class Tagger:
    """A trained model: its labels, how it decides, and the scores it gives texts."""

    def __init__(self, name: str, args: TagArguments):
        self.name = name
        folder = resolve_model(name)
        self.tokenizer = load_tokenizer(folder)
        model = load_sequence_classifier(folder, tokenizer=self.tokenizer)
        self.label_names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        self.thresholds = find_thresholds(name, args, model.config)
        self.classes = model.config.problem_type == SINGLE
        single_label = self.classes or getattr(model.config, "one_label_each", False)
        self.single_label = args.threshold is None and single_label
        # One window that cuts the text off, for what was not trained on windows.
        self.cut = dict(getattr(model.config, "windows", {"stride": 0, "max_windows": 1}))
        self.pooling = self.cut.pop("pooling", "mean")
        pad = PaddingCollator(self.tokenizer)
        self.trainer = LengthGroupedTrainer(model=model, args=args, data_collator=pad)

    def score(self, texts: list[str]) -> np.ndarray:
        """Return probabilities of shape (texts, labels)."""
        dataset = Dataset.from_dict({"text": texts})
        windows = Windows.of_texts(dataset, self.tokenizer, **self.cut)
        logits = windows.predict(self.trainer, self.pooling)
        return (softmax if self.classes else sigmoid)(logits)


def find_thresholds(name: str, args: TagArguments, config) -> list[float]:
    """Return one threshold per label, from --threshold or the tagger's config."""
    if config.id2label == {i: f"LABEL_{i}" for i in range(config.num_labels)}:
        raise UserError(f"{name}: the config names no labels; {_TRAIN}")
    if config.problem_type not in ("multi_label_classification", SINGLE):
        raise UserError(
            f"{name}: its problem_type is {config.problem_type}, neither "
            f"multi_label_classification nor {SINGLE}; its scores do not stand for labels"
        )
    if args.threshold is not None or config.problem_type == SINGLE:
        return [args.threshold or 0.0] * config.num_labels
    thresholds = getattr(config, "thresholds", None)
    known = isinstance(thresholds, list) and len(thresholds) == config.num_labels
    if not known or not all(isinstance(t, float) and 0 <= t <= 1 for t in thresholds):
        raise UserError(
            f"{name}: the config holds no threshold for each label; {_TRAIN}, or give one "
            "with --threshold"
        )
    return thresholds


def read_text(row: dict, columns: list[str], name: str, number: int) -> str:
    """Return a row's text, "" if it has none."""
    try:
        return join_text(row, columns)
    except ValueError as error:
        raise UserError(f"{name}, row {number}: {error}") from error


def output_line(row: dict, result: dict, where: str) -> str:
    """Return a row and its result as a line of JSON."""
    kept = {f"input_{name}" if name in result else name: value for name, value in row.items()}
    if len(kept) < len(row):
        raise UserError(
            f"{where}: labels and scores are kept as input_labels and input_scores, which it has "
            "as well; rename those"
        )
    line = json.dumps(kept | result, ensure_ascii=False, default=str)
    # Half a surrogate pair, which UTF-8 cannot hold, stays the escape it was.
    return line.encode(errors="backslashreplace").decode() + "\n"


@contextmanager
def output_file(args: TagArguments) -> Iterator[IO[str]]:
    """Open --output in the first process; the others have the same results and drop them."""
    if args.process_index != 0:
        with open(os.devnull, "w", encoding="utf-8") as file:
            yield file
        return
    path = Path(args.output)
    if path.exists() and not path.is_file():
        raise UserError(f"--output {path}: this is not a file; choose another name")
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
