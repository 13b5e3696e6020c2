"""Apply a tagger to a file: write every row with its labels and scores.

Why: to use what any recipe has learned, on files of any size. Rows are read, tagged and written in
their order; the output file appears only when it is complete. Several taggers, also of different
methods, are averaged: their scores and their thresholds.

    accelerate launch recipes/tag.py --model outputs/github_tagger --data new.jsonl
    accelerate launch recipes/tag.py --model outputs/mine outputs/another
    accelerate launch recipes/tag.py --model outputs/mine --explain --explain_data labelled.jsonl
    accelerate launch recipes/tag.py --data texts/ --output tagged/ --engine ray
    accelerate launch recipes/tag.py --data all.csv --only_unlabelled --output tagged.csv

Output: the rows with two more columns. `labels` are those that the rule of the tagger chooses
(usually a score at or above a threshold), best first; `scores` are the scores of all labels, or of
the best 20 if there are more than 50 labels (--top_scores). Input columns of these names are kept
as `input_labels` and `input_scores`. A row without text gets no labels and no scores. JSON lines
and Parquet hold `labels` as a list and `scores` as an object; CSV and TSV hold `labels` in
one cell, separated as training data are, and one column for each score. If rows do not have the
scores of all labels, CSV and TSV hold them as JSON in one cell, and Parquet as a map.

--explain adds a column `explanation`, {"words": {label: [[word, weight], ...]}, "neighbours":
[{"row": 17, "cosine": 0.83, "text": ..., "labels": [...]}, ...]}: the words that speak most for
each label of the row (weight: what the word adds to the logit), and the nearest of the labelled
texts of --explain_data. Without that file, a tagger that votes by neighbours gives their numbers.

--abstain .8 adds `confidence`, the probability that all labels of the row are right, and `unsure`:
whether it is below .8. --target_precision .9 gives a label only where it was right in 9 of 10
held-out texts, and says which recall that costs.

--data can be a folder, a pattern such as "texts/*.parquet", or a URI such as s3://bucket/texts, of
Parquet and JSON lines files. --output is then a folder beside it, with a file for each block of
rows; each row has `input_file` and `input_row` to find it again. --engine ray tags the blocks by
the workers of a Ray cluster (RAY_ADDRESS; else one of this machine). A block appears when it is
complete, and manifest.json says at the end that all are: each row is tagged once, whatever dies
meanwhile.

A run that was stopped goes on when the same command is repeated (--resume false: from the start).

Expect on two CPU cores with the default encoder: 20 texts of 200 tokens per second or more, 1 GB of
memory for a file of any size.
"""

from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Literal

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    progress,
    quiet_libraries,
)
from shared.data import (
    DEFAULT_TEXT_COLUMNS,
    find_label_column,
    has_labels,
    join_text,
    open_source,
    recognise_text_columns,
)
from shared.evaluation import scores_per_text
from shared.reports import DOUBT, TaggedFile, check_output, is_folder, kept_columns, tag_folder
from shared.taggers import (
    TaggerArguments,
    load_explainer,
    load_taggers,
    mean_tagger,
    note_unknown_tokens,
    tagger_fingerprint,
)

DEFAULT_TAGGER = "outputs/github_tagger"
# --resume goes on only with a run that had the same values.
FLAGS_OF_A_RUN = (
    "model",
    "text_columns",
    "column_names",
    "delimiter",
    "quoting",
    "encoding",
    "only_unlabelled",
    "label_column",
    "threshold",
    "target_precision",
    "abstain",
    "top_scores",
)
FLAGS_OF_A_RUN += ("bf16", "block_size", "per_device_eval_batch_size", "explain", "explain_data")


@dataclass
class TagArguments(TaggerArguments):
    """The flags of this recipe."""

    model: list[str] = flag(
        [DEFAULT_TAGGER], f"Tagger folder, or several to average (default: {DEFAULT_TAGGER})."
    )
    data: str = flag(
        "sample",
        "File to tag, as for training; or a folder, pattern or URI of Parquet and JSON lines files "
        "(default: the sample).",
    )
    output: str | None = flag(
        None,
        "File to write: .jsonl, .csv, .tsv (also with .gz) or .parquet (default: tagged.jsonl); "
        "for a folder, the folder to write (default: tagged).",
    )
    explain: bool = flag(
        False,
        "Add a column `explanation`: the words that weigh most, and the nearest labelled texts "
        "(default: false).",
    )
    explain_data: str | None = flag(
        None, "File of labelled texts in which --explain looks for the nearest (default: none)."
    )
    engine: Literal["local", "ray"] = flag(
        "local",
        "What tags a folder: this process, or the workers of a Ray cluster (default: local).",
    )
    workers: int | None = flag(
        None, "Workers of --engine ray (default: the CPUs, or GPUs, of the cluster).", least=1
    )
    text_columns: list[str] = flag(
        list(DEFAULT_TEXT_COLUMNS), "Columns joined to the text (default: title body, or text)."
    )
    label_column: str = flag("labels", "Column for --only_unlabelled (default: labels, or label).")
    column_names: list[str] | None = flag(None, "Columns of a CSV or TSV file without a header.")
    delimiter: str | None = flag(None, "Separator of columns (default: as for training).")
    quoting: Literal["auto", "double", "backslash", "none"] = flag(
        "auto", "Quotation marks in a CSV or TSV file, as for training (default: auto)."
    )
    encoding: str | None = flag(None, "Encoding of a text file (default: as for training).")
    only_unlabelled: bool = flag(False, "Leave out rows that have labels (default: false).")
    resume: bool = flag(
        True, "Go on if the same command was stopped; false: from the start (default: true)."
    )
    block_size: int = flag(
        4096, "Rows in memory at a time, and in a file of a folder (default: 4096).", least=1
    )

    def __post_init__(self):
        if self.explain_data and not self.explain:
            raise UserError("--explain_data: acts with --explain; add it")
        super().__post_init__()


def main() -> None:
    """Load the taggers; then read and tag one block of rows after another; write the output."""
    args = parse_arguments(TagArguments, description=__doc__)
    quiet_libraries()
    if args.engine == "ray" or is_folder(args.data):
        args.output = args.output or "tagged"
        return tag_folder(args, FLAGS_OF_A_RUN, DEFAULT_TAGGER)
    args.output = args.output or "tagged.jsonl"
    names = ("column_names", "delimiter", "quoting", "encoding")
    source = open_source(args.data, **{name: getattr(args, name) for name in names})
    check_output(args.output, source.name)
    for note in source.notes:
        print_once(f"note: {note}")
    columns, why = recognise_text_columns(source, args.text_columns)
    if why:
        print_once(f"note: the text is in {columns[0]!r}, {why} (--text_columns)")
    label_column = None
    if args.only_unlabelled:
        label_column = find_label_column(source.columns, args.label_column, source.name)
    needed = [*columns, label_column]

    def read_rows():
        """Yield each row to tag with its number."""
        for number, row in enumerate(source.read(required=needed), 1):
            if label_column is None or not has_labels(row.get(label_column)):
                yield number, row

    further = [*([] if args.abstain is None else DOUBT), *(["explanation"] if args.explain else [])]
    # Check all rows before any is tagged: a mistake in the last row must not cost hours.
    n_rows, all_columns = 0, set()
    for number, row in progress(read_rows(), f"checking {source.name}"):
        check_row(row, columns, further, f"{source.name}, row {number}")
        n_rows, all_columns = n_rows + 1, all_columns.union(row)

    # Load the taggers; several are averaged, so they must have the same labels and decide alike.
    taggers = load_taggers(args, DEFAULT_TAGGER)
    tagger = mean_tagger(taggers, names=args.model)

    # Tag block by block. All processes predict, the first one writes. Rows that a stopped run has
    # tagged are passed over.
    run = {"data": source.version, "taggers": [tagger_fingerprint(name) for name in args.model]}
    run |= {"flags": {name: getattr(args, name) for name in FLAGS_OF_A_RUN}}
    explainer = None
    if args.explain:
        explainer, run["explain_data"] = load_explainer(tagger, args)
        for note in explainer.notes:
            print_once(f"note: {note}")
    started, n_texts = perf_counter(), 0
    n_scores = scores_per_text(len(tagger.label_names), args.top_scores)
    options = {"columns": all_columns, "label_names": tagger.label_names, "resume": args.resume}
    options |= {"all_scores": n_scores == len(tagger.label_names), "further": further}
    with TaggedFile(args.output, run, **options) as output:
        rows = iter(progress(read_rows(), f"tagging {source.name}", total=n_rows))
        n_done = sum(1 for _ in islice(rows, output.n_records))
        while block := list(islice(rows, args.block_size)):
            texts = [join_text(row, columns) for _, row in block]
            if not n_texts:
                note_unknown_tokens(dict(zip(args.model, taggers, strict=True)), texts[:1000])
            records = tagger.tag(texts, n_scores)
            if explainer:
                explanations = explainer(texts, [record["labels"] for record in records])
                for record, explanation in zip(records, explanations, strict=True):
                    record["explanation"] = explanation
            output.add(records)
            n_texts += sum(map(bool, texts))
        output.finish(lambda: (row for _, row in read_rows()))

    if args.process_index == 0:
        seconds = perf_counter() - started
        blank = n_rows - n_done - n_texts
        notes = [f"{n_done:,} by the stopped run"] if n_done else []
        notes += [f"{blank:,} without text"] if blank else []
        details = f" ({', '.join(notes)})" if notes else ""
        print(f"{n_rows:,} rows{details} tagged in {args.output}: ", end="")
        print(f"{n_texts / seconds:,.0f} texts per second")


def check_row(row: dict, columns: list[str], further: list[str], place: str) -> None:
    """Refuse a row whose text is no text, or whose columns have the names of the tags."""
    try:
        kept_columns(row, further)
        join_text(row, columns)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error


if __name__ == "__main__":
    with exit_on_user_error():
        main()
