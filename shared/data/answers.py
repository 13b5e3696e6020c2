"""The answers of several annotators to the same texts, kept apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shared.cli.errors import UserError
from shared.data.corpus import load_data
from shared.data.labels import name_some
from shared.data.row_labels import RowLabels, first_of_duplicates, is_long_table

if TYPE_CHECKING:
    import numpy as np

    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus


@dataclass(frozen=True)
class Answers:
    """m answers to n texts: which labels an annotator has given to a text.

    Attributes
    ----------
    corpus : Corpus
        The rows of the source, one or more for each answer.
    rows : int64 array of shape (n,)
        The row of `corpus` where each text comes first, in ascending order.
    texts, annotators : int64 arrays of shape (m,)
        The text and the annotator of each answer, as indices into `rows` and `annotator_names`. No
        two answers have both in common. A text may have no answer.
    labels : bool array of shape (m, labels)
        The labels of each answer, multi-hot. There may be none: none of them applies.
    annotator_names : list of str
        The annotators in the order in which they first occur.
    notes : list of str
        What a user should know about rows that count in a special way.
    """

    corpus: Corpus
    rows: np.ndarray
    texts: np.ndarray
    annotators: np.ndarray
    labels: np.ndarray
    annotator_names: list[str]
    notes: list[str]

    @property
    def label_names(self) -> list[str]:
        """Name of each label id."""
        return self.corpus.label_names

    @property
    def single_label(self) -> bool:
        """Whether each answer is exactly one of several labels."""
        return self.labels.shape[1] > 1 and bool((self.labels.sum(axis=1) == 1).all())

    @property
    def n_answers(self) -> np.ndarray:
        """Number of answers to each text: int64, shape (n,)."""
        import numpy as np

        return np.bincount(self.texts, minlength=len(self.rows))

    def describe(self) -> str:
        """Return a summary in a few lines."""
        report, n_answers = self.corpus.report, self.n_answers
        blank = f"; left out: {n:,} blank texts" if (n := report["blank_texts"]) else ""
        several, without = int((n_answers > 1).sum()), int((n_answers == 0).sum())
        form = "one label each" if self.single_label else "any number of labels each"
        return "\n".join(
            [
                f"{report['source']}: {report['rows_read']:,} rows read{blank}",
                f"format: {report['layout']}; {self.corpus.describe_columns()}",
                f"{len(self.texts):,} answers ({form}) of {len(self.annotator_names):,} annotators "
                f"to {len(self.rows) - without:,} texts; {several:,} texts with several"
                + (f"; {without:,} without an answer" if without else ""),
                *(f"note: {note}" for note in [*report["notes"], *self.notes]),
            ]
        )


def load_answers(args: DataArguments) -> Answers:
    """Load the answers of all annotators to the texts of `args.data`.

    Rows with the same text, apart from white space and Unicode form, are answers to one text. What
    says who gave an answer is ``--annotator_column``, the format, ``--annotator_columns``, or else
    the file, where there are several.

    Several rows of an annotator on a text are one answer with the labels of all of them; but where
    each row has exactly one label, and the table is not one of a row per text and label (see
    `shared.data.row_labels.is_long_table`), the last row counts.

    An answer without a label says that none of them applies. It counts as no answer with
    ``--empty_labels unlabelled``, and with ``auto`` if each other answer is one of several labels.

    Parameters
    ----------
    args : DataArguments
        With `annotator_columns` if the recipe has the flag; see `AnnotatorArguments`.

    Raises
    ------
    UserError
        As `load_data`; or nothing says who gave the answers, or no text has two annotators.
    """
    import numpy as np

    if args.duplicate_labels not in ("auto", "separate"):
        raise UserError(
            f"--duplicate_labels {args.duplicate_labels}: annotators are kept apart here; remove it"
        )
    empty_labels = "negative" if args.empty_labels == "auto" else args.empty_labels
    corpus = load_data(replace(args, duplicate_labels="separate", empty_labels=empty_labels))
    if "annotators" not in corpus.report:
        raise UserError(
            f"{args.data}: nothing says who gave the labels; name the column with "
            "--annotator_column, the columns of the annotators with --annotator_columns, or give "
            "one file per annotator, with commas between them"
        )
    names: list[str] = corpus.report["annotators"]
    table = corpus.dataset.data
    row_labels = RowLabels.from_arrow(table["labels"])
    who = table["annotator"].fill_null(-1).to_numpy().astype(np.int64)

    # Number the texts in the order of their first rows.
    keys = table["key"].to_numpy()
    first = first_of_duplicates(keys, np.zeros(len(keys), np.int8))
    rows, text_of_row = np.unique(first, return_inverse=True)

    # Join the rows of an annotator on a text to one answer.
    notes = []
    labels = corpus.label_matrix() > 0
    answered = row_labels.listed & (who >= 0)
    if unnamed := int((row_labels.listed & (who < 0)).sum()):
        notes.append(f"left out: {unnamed:,} labelled rows that name no annotator")
    of_answers = np.flatnonzero(answered)
    pairs, answer_of_row = np.unique(
        text_of_row[answered] * len(names) + who[answered], return_inverse=True
    )
    texts, annotators = np.divmod(pairs, len(names))
    joined = np.zeros((len(pairs), labels.shape[1]), bool)
    np.logical_or.at(joined, answer_of_row, labels[of_answers])
    if repeated := len(of_answers) - len(pairs):
        one_each = (labels[of_answers].sum(axis=1) == 1).all()
        if one_each and not is_long_table(*_as_table(answer_of_row, labels[of_answers])):
            differ = int((joined.sum(axis=1) > 1).sum())
            joined[answer_of_row] = labels[of_answers]  # the last row of each answer stays
            notes.append(
                f"{repeated:,} rows repeat a text by the same annotator, who has changed the label "
                f"of {differ:,} texts: the last row counts"
            )
        else:
            notes.append(
                f"{repeated:,} rows repeat a text by the same annotator: the labels of all of them "
                "are one answer"
            )

    # What does an answer without a label mean?
    sizes = joined.sum(axis=1)
    empty = sizes == 0
    if n_empty := int(empty.sum()):
        one_of_several = labels.shape[1] > 1 and (sizes[~empty] == 1).all()
        if args.empty_labels == "unlabelled" or (one_of_several and args.empty_labels == "auto"):
            texts, annotators, joined = texts[~empty], annotators[~empty], joined[~empty]
            meaning = "no answer (--empty_labels negative: none of the labels applies)"
        else:
            meaning = "none of the labels applies (--empty_labels unlabelled: no answer)"
        notes.append(f"{n_empty:,} answers without a label: {meaning}")

    answers = Answers(corpus, rows, texts, annotators, joined, names, notes)
    if (answers.n_answers < 2).all():
        counts = np.bincount(annotators, minlength=len(names))
        listed = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True)]
        raise UserError(
            f"{args.data}: no text has answers of two annotators (answers: {name_some(listed, 5)});"
            " nothing to compare"
        )
    return answers


def _as_table(answer_of_row: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, RowLabels]:
    """Return the first row of each row's answer, and the labels of the rows."""
    import numpy as np

    first = first_of_duplicates(answer_of_row, np.zeros(len(answer_of_row), np.int8))
    rows, ids = np.nonzero(labels)
    return first, RowLabels(rows, ids, np.ones(len(labels), bool))
