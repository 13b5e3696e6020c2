"""Measure how far annotators agree, and merge their labels into one set.

Why: labels are as good as the people who gave them. Before a classifier learns from the answers of
several annotators, this recipe says label by label whether they mean the same (Cohen's and Fleiss'
kappa, Krippendorff's alpha), who differs from the others and where, and which texts are disputed.
Then it merges the answers, by what those of each annotator are worth (Dawid and Skene 1979) or by
majority.

    accelerate launch recipes/agreement.py --data answers.csv
    accelerate launch recipes/agreement.py --data answers.csv --annotator_column worker
    accelerate launch recipes/agreement.py --data anna.csv,ben.csv,carla.csv
    accelerate launch recipes/agreement.py --data sheet.xlsx --annotator_columns anna ben carla
    accelerate launch recipes/agreement.py --data label_studio.json --merge majority --trust 1

Data: as described in README.md, in one of these forms:
- a row for each answer: the text, the labels, and who gave them (column `annotator`, or
  --annotator_column);
- exports of Label Studio, Argilla and Prodigy with the answers of several annotators;
- a file for each annotator, with commas between them, or a pattern in quotation marks;
- a column for each annotator (--annotator_columns).
Rows with the same text are answers to one text. Where a table has ids in place of texts, name their
column with --text_columns.

Output: labelled.jsonl has each text once, with `labels`, which every recipe reads; `confidence`,
the probability that they are right; `weight`, which is empty where the confidence is at least
--trust and the confidence elsewhere: `self_training --weight_column weight` trains on all texts and
tests on those without a weight; `answers`, their number. A text that its annotators do not decide
has no labels. agreement.json and README.md have the figures. The tables are labels.csv,
annotators.csv, annotator_labels.csv (which labels somebody gives too often or too seldom),
pairs.csv (of annotators), confusions.csv (of labels) and disputed.csv (texts, the most disputed
first).

Expect on one CPU core: 41 seconds for 130,230 answers to 43,410 texts with 28 labels, from reading
to writing. With annotators of unequal reliability, Dawid-Skene is usually better than the majority
(recipes/FIGURES.md); two annotators alone cannot be told apart, so that texts on which they differ
stay undecided.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np

from shared.cli import (
    UserError,
    atomic_write,
    exit_on_user_error,
    flag,
    is_main_process,
    parse_arguments,
    progress_bar,
    start_recipe,
    write_csv,
    write_json,
)
from shared.data import AnnotatorArguments, DataArguments, load_answers, write_labelled_rows
from shared.evaluation import (
    AnnotatorPairs,
    alpha_interval,
    answer_counts,
    fleiss_kappa,
    krippendorff_alpha,
    label_agreement,
    label_confusions,
    merge_by_dawid_skene,
    merge_by_majority,
)
from shared.reports import (
    CONFUSION_COLUMNS,
    DISPUTED_COLUMNS,
    MERGED_COLUMNS,
    alpha_verdict,
    annotator_rows,
    command_line,
    confusion_rows,
    disputed_texts,
    markdown_table,
    merged_records,
    pair_rows,
)

FEWEST_FOR_DAWID_SKENE = 3  # annotators; of two that differ, nothing tells who is right
MOST_ERRORS = 20_000_000  # that Dawid-Skene estimates: annotators x labels x labels; 600 MB
MOST_SHOWN = 20  # rows of a table in README.md


@dataclass
class AgreementArguments(AnnotatorArguments, DataArguments):
    """The flags of this recipe."""

    merge: Literal["auto", "dawid_skene", "majority"] = flag(
        "auto",
        "How labels are merged: 'dawid_skene' (by the errors that each annotator makes, estimated "
        "from all answers), 'majority' (the labels that more than half of a text's annotators "
        "gave) or 'auto' (the first from three annotators on) (default: auto).",
    )
    trust: float = flag(
        0.9,
        "Confidence from which merged labels count as given by hand: their `weight` is left empty "
        "(default: 0.9).",
        least=0,
        most=1,
    )
    output_dir: str = flag("outputs/agreement", "Output folder (default: outputs/agreement).")

    def __post_init__(self):
        if taken := [name for name in self.text_columns if name in MERGED_COLUMNS]:
            raise UserError(f"--text_columns {taken[0]}: the output has this column; rename it")


def main() -> None:
    """Load the answers, measure the agreement, merge the labels, write."""
    args = parse_arguments(AgreementArguments, description=__doc__)
    if not is_main_process():
        return
    output_dir = start_recipe(args)
    answers = load_answers(args)
    print(f"\nData\n{answers.describe()}")
    names, texts, labels = answers.label_names, answers.texts, answers.labels
    n_texts, single_label = len(answers.rows), answers.single_label

    # How far do the annotators agree, label by label?
    pairs = AnnotatorPairs(texts, answers.annotators, labels, single_label=single_label)
    per_label = label_agreement(texts, labels, pairs, names)
    disputes = confusion_rows(label_confusions(texts, labels), names)

    # Merge the labels.
    method, n_annotators = args.merge, len(np.unique(answers.annotators))
    n_errors = n_annotators * (len(names) ** 2 if single_label else 4)
    if method == "auto":
        fits = n_annotators >= FEWEST_FOR_DAWID_SKENE and n_errors <= MOST_ERRORS
        method = "dawid_skene" if fits else "majority"
    elif method == "dawid_skene" and n_errors > MOST_ERRORS:
        raise UserError(
            f"--merge dawid_skene: {len(names):,} labels of {n_annotators:,} annotators are too "
            "many for the memory; give majority"
        )
    majority = merge_by_majority(texts, labels, n_texts=n_texts, single_label=single_label)
    merged = majority
    if method == "dawid_skene":
        n_fits = 1 if single_label else len(names)
        with progress_bar("estimating errors", n_fits, unit="labels", delay=2) as bar:
            merged = merge_by_dawid_skene(
                *(texts, answers.annotators, labels),
                n_texts=n_texts,
                single_label=single_label,
                on_label=bar.update,
            )

    # Who differs, and where?
    per_annotator, per_annotator_label = annotator_rows(answers, pairs, merged)
    disputed = disputed_texts(answers, merged)
    records = merged_records(answers, merged, args.trust)

    # Sum up.
    several = answers.n_answers > 1
    counts = answer_counts(texts, labels, n_texts)
    metrics = {"texts": n_texts, "answers": len(texts), "annotators": len(per_annotator)}
    metrics |= {"texts_with_several": int(several.sum()), "disputed": len(disputed)}
    metrics |= {"full_agreement": 1 - len(disputed) / int(several.sum())}
    metrics |= {"one_label_per_answer": single_label}
    if single_label:
        low, high = alpha_interval(counts) or (None, None)
        metrics |= {"alpha": krippendorff_alpha(counts), "alpha_low": low, "alpha_high": high}
        metrics |= {"fleiss_kappa": fleiss_kappa(counts), "cohen_kappa": pairs.mean(pairs.kappa())}
    else:
        for name in ("alpha", "fleiss_kappa", "cohen_kappa"):
            values = [row[name] for row in per_label if row[name] is not None]
            metrics[name] = float(np.mean(values)) if values else None
    weights = [r["weight"] for r in records.values() if r["labels"] is not None]
    metrics |= {"merged_by": method, "converged": merged.converged, "labelled": len(weights)}
    metrics |= {"trusted": sum(weight is None for weight in weights)}
    metrics |= {"undecided": int((merged.undecided & (answers.n_answers > 0)).sum())}
    differ = (merged.labels != majority.labels).any(axis=1) & ~majority.undecided
    metrics |= {"other_than_majority": int(differ.sum())}

    # Write the merged labels, the tables, and the report.
    write_labelled_rows(output_dir / "labelled.jsonl", args, answers.corpus, records)
    write_csv(output_dir / "labels.csv", per_label)
    write_csv(output_dir / "annotators.csv", per_annotator)
    write_csv(output_dir / "annotator_labels.csv", per_annotator_label)
    write_csv(output_dir / "pairs.csv", pair_rows(answers, pairs))
    write_csv(output_dir / "confusions.csv", disputes, CONFUSION_COLUMNS)
    write_csv(output_dir / "disputed.csv", disputed, DISPUTED_COLUMNS)
    tables = {"per_label": per_label, "per_annotator": per_annotator}
    write_json(output_dir / "agreement.json", metrics | tables)
    summary = describe(metrics)
    label_table = markdown_table(per_label)
    with atomic_write(output_dir / "README.md") as file:
        file.write(
            f"# Agreement of annotators\n\n{date.today()}\n\n```bash\n{command_line()}\n```\n\n"
            f"{summary}\n\n## Labels\n\n{label_table}\n\n"
            f"## Annotators\n\n{markdown_table(per_annotator, MOST_SHOWN)}\n\n"
            "## Labels that an annotator gives too often or too seldom\n\n"
            f"{markdown_table(per_annotator_label, MOST_SHOWN)}\n\n"
            f"## Labels given in place of each other\n\n{markdown_table(disputes, MOST_SHOWN)}\n\n"
            f"## The most disputed texts\n\n{markdown_table(disputed, MOST_SHOWN)}\n\n"
            f"## Data\n\n```\n{answers.describe()}\n```\n"
        )
    show(label_table, summary, disputed, output_dir)


def describe(metrics: dict) -> str:
    """Return the agreement and what became of the texts, in sentences."""
    alpha = "-" if metrics["alpha"] is None else f"{metrics['alpha']:.3f}"
    interval = ""
    if metrics.get("alpha_low") is not None:
        interval = f" (95 % interval {metrics['alpha_low']:.3f} to {metrics['alpha_high']:.3f})"
    scope = "" if metrics["one_label_per_answer"] else ", mean of the labels"
    how = {"majority": "majority", "dawid_skene": "the method of Dawid and Skene"}
    text = (
        f"Of {metrics['texts_with_several']:,} texts with several answers, all annotators agree on "
        f"{metrics['full_agreement']:.1%}. Krippendorff's alpha{scope}: {alpha}{interval}, "
        f"{alpha_verdict(metrics['alpha'])}.\n\nLabels merged by {how[metrics['merged_by']]}: "
        f"{metrics['labelled']:,} of {metrics['texts']:,} texts have labels, "
        f"{metrics['trusted']:,} of them with the confidence of --trust; {metrics['undecided']:,} "
        "are undecided."
    )
    if metrics["merged_by"] != "majority":
        text += f" {metrics['other_than_majority']:,} have other labels than by majority."
    if not metrics["converged"]:
        text += " The estimation did not converge; treat the confidence with caution."
    return text


def show(label_table: str, summary: str, disputed: list[dict], output_dir: Path) -> None:
    """Print the result."""
    print(f"\n{label_table}\n\n{summary}")
    if disputed:
        print("\nThe most disputed texts:")
    for row in disputed[:5]:
        print(f"row {row['row']:,}: {row['text']}\n  {row['answers']}")
    print(f"\nEverything is in {output_dir}: labelled.jsonl, README.md, agreement.json, tables.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
