"""The unlabelled texts that a recipe trains on: their flags, which rows they are, and their checks.

No label of these rows is read, also where the data has one: `--train_size` and `--train_per_label`
leave rows out of the training set, and these count as unlabelled.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.launch import print_once
from shared.data.arguments import SplitArguments
from shared.data.corpus import load_data
from shared.data.labels import name_some

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.data.splits import Split


@dataclass
class UnlabelledArguments(SplitArguments):
    """Flags of recipes that split the labelled rows, and also train on unlabelled texts."""

    unlabelled_data: str | None = flag(
        None,
        "File with the unlabelled texts, in the form of --data; its labels are not read (default: "
        "the rows of --data without a label, and those that --train_size or --train_per_label "
        "leaves out).",
    )
    max_unlabelled: int = flag(
        5_000,
        "Maximum number of unlabelled texts to train on, drawn by --seed (default: 5,000).",
        least=1,
    )


@dataclass(frozen=True)
class Unlabelled:
    """Unlabelled texts to train on.

    Attributes
    ----------
    rows : `datasets.Dataset` with the columns `text`, `row` and `words` of `Corpus.dataset`.
    available : number of texts that they were drawn from.
    repeats : number of unlabelled texts that were left out before, because they nearly repeat a
        text of the validation or test set.
    """

    rows: Dataset
    available: int
    repeats: int

    def metrics(self) -> dict[str, int]:
        """Return the counts for the metrics of a run."""
        return {"n_unlabelled": len(self.rows), "n_unlabelled_repeats": self.repeats}

    def describe(self) -> str:
        """Return the counts as one line."""
        line = f"unlabelled: {len(self.rows):,} of {self.available:,} texts"
        if self.repeats:
            line += f"; left out: {self.repeats:,} that repeat a validation or test text"
        return line


def load_unlabelled(
    split: Split, args: UnlabelledArguments, *, seed: int, examples_required: bool = True
) -> Unlabelled:
    """Draw the unlabelled texts, and print how many there are.

    Parameters
    ----------
    split : Split
        Its training set must have an example of each class, if each text has exactly one. Of
        several labels per text, some may be absent; `Split.describe` names them.
    args : UnlabelledArguments
    seed : int
        The same seed draws the same rows. A smaller `max_unlabelled` draws a part of them.
    examples_required : bool
        False: the classes are known without examples, such as from a tagger.

    Raises
    ------
    UserError
        If there is no unlabelled text (nor one of `Split.pseudo_labelled`), there are fewer
        labelled texts than classes, a class has no example, or the file of `unlabelled_data` cannot
        be read.
    """
    if examples_required:
        check_examples(split)
    if args.unlabelled_data is None:
        corpus, rows = split.corpus, split.unlabelled
        repeats = len(corpus.unlabelled) + len(split.left_out) - len(rows)
        advice = "add rows without a label to --data, or name a file with --unlabelled_data"
    else:
        own = without_labels(args, args.unlabelled_data)
        # Only arguments that extend TrainingArguments have this method.
        with getattr(args, "main_process_first", contextlib.nullcontext)():
            corpus = load_data(own, labels_required=False)
        rows = np.flatnonzero(~_repeats_held_out(corpus.dataset, split))
        repeats = len(corpus.dataset) - len(rows)
        advice = "add texts to the file"
    if not len(rows) and not (args.unlabelled_data is None and len(split.pseudo_labelled)):
        source = "--data" if args.unlabelled_data is None else "--unlabelled_data"
        lost = f" ({repeats:,} repeat a validation or test text)" if repeats else ""
        raise UserError(f"{source} has no unlabelled text to train on{lost}; {advice}")
    drawn = np.random.default_rng(seed).permutation(rows)[: args.max_unlabelled]
    texts = corpus.dataset.select(np.sort(drawn)).select_columns(["text", "row", "words"])
    unlabelled = Unlabelled(texts, available=len(rows), repeats=repeats)
    print_once(unlabelled.describe())
    return unlabelled


def without_labels(args: Any, path: str, *, keep_split: bool = False) -> Any:
    """Return the flags that read the texts of a file in the form of ``--data``, but no labels.

    Its labels play no part, so the flags about labels do not apply. With `keep_split`, those of the
    split by a column do.
    """
    own = replace(
        args,
        data=path,
        class_names=None,
        duplicate_labels="first",
        label_map=None,
        drop_labels=[],
        min_label_count=1,
    )
    for name in ("weight_column", *(() if keep_split else ("split_by", "split_time"))):
        if hasattr(own, name):
            setattr(own, name, None)
    return own


def check_examples(split: Split) -> None:
    """Check that the training set has an example of each class, if each text has exactly one.

    Unlabelled texts cannot teach a class that no example defines.

    Raises
    ------
    UserError
        The message names the classes without an example.
    """
    if not split.corpus.single_label:
        return
    counts = split.label_counts()
    by_others = split.corpus.label_matrix(split.pseudo_labelled).sum(axis=0, dtype=int).tolist()
    absent = [
        name
        for (name, count), others in zip(counts.items(), by_others, strict=True)
        if not count + others
    ]
    if absent:
        raise UserError(
            f"the {len(split.labels['train']):,} training texts have no example of "
            f"{len(absent):,} of {len(counts):,} classes: {name_some(absent)}; label some, raise "
            "--train_size, use --train_per_label, or leave classes out with --drop_labels"
        )


def _repeats_held_out(dataset: Dataset, split: Split) -> np.ndarray:
    """Return which texts nearly repeat a validation or test text: bool, shape (rows,)."""
    import pyarrow as pa

    from shared.data.near_duplicates import repeats

    held_out = [text for part in ("valid", "test") for text in split.rows[part]["text"]]
    return repeats(
        pa.chunked_array([dataset["text"][:]]), pa.chunked_array([held_out], pa.string())
    )
