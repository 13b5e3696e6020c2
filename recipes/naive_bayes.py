"""Classify texts by their words: naive Bayes, or TF-IDF with logistic regression.

Why: done in seconds on any machine, hard to beat with very few labels, and the figure that any
model with a training time must beat. `naive_bayes` is the baseline of "Natural Language Processing
with Transformers", chapter 9 (counts of words, one multinomial classifier per label);
`logistic_regression` weighs words and pairs of words by TF-IDF and is the stronger one from a few
dozen labels up.

    accelerate launch recipes/naive_bayes.py --config recipes/configs/naive_bayes_sample.yaml
    accelerate launch recipes/naive_bayes.py --classifier logistic_regression --data issues.jsonl
    accelerate launch recipes/naive_bayes.py --data issues.jsonl --augment swap delete

Data: as for recipes/github_tagger.py, with the same parts and the same nested --train_size, so that
their figures compare.

Expect on the sample (219 training texts, mean of three seeds), in a few seconds: micro F1 .60 and
macro F1 .39 with naive Bayes, .68 and .55 with logistic regression. With one augmented copy of each
text (--augment swap delete, seeds 1 to 3) micro / macro F1 of naive Bayes rise from .24 / .16 to
.28 / .19 with 8 training texts, from .27 / .16 to .30 / .16 with 32, from .32 / .19 to .45 / .31
with 64 and from .59 / .38 to .66 / .51 with all. Unchanged copies do as much (.28, .31, .45 and .66
micro): its smoothing weighs less when words count twice. Logistic regression gains .00, .02, .02
and loses .02.
"""

import os
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from shared.arguments import flag, parse_arguments
from shared.augmentations import (
    NAMES_HELP,
    AugmentationArguments,
    load_augmentations,
    with_copies,
)
from shared.baselines import fit_scorer, naive_bayes, tfidf_logistic_regression
from shared.data import load_data, load_held_out
from shared.data_arguments import SplitArguments
from shared.decisions import choose_labels
from shared.errors import exit_on_user_error
from shared.files import make_output_dir
from shared.parts import split_corpus
from shared.predictions import examples
from shared.progress import quiet_libraries
from shared.results import contents, part_figures, write_results
from shared.thresholds import tune_thresholds

CLASSIFIERS = {"naive_bayes": naive_bayes, "logistic_regression": tfidf_logistic_regression}


@dataclass
class NaiveBayesArguments(AugmentationArguments, SplitArguments):
    """Flags of this recipe; there is no Trainer, so none of its flags."""

    classifier: Literal["naive_bayes", "logistic_regression"] = flag(
        "naive_bayes", "How to classify (default: naive_bayes)."
    )
    thresholds: Literal["global", "per_label"] = flag(
        "global", "Tune one threshold on validation, or one per label (default: global)."
    )
    augment: list[str] = flag(
        [], f"Learn from augmented copies of the training texts, too: {NAMES_HELP} (default: none)."
    )
    output_dir: str = flag("outputs/naive_bayes", "Folder (default: outputs/naive_bayes).")
    seed: int = flag(42, "Of the split (default: 42).")


def main() -> None:
    """Load, split, fit, score, save."""
    args = parse_arguments(NaiveBayesArguments, description=__doc__)
    if os.environ.get("RANK", "0") != "0":
        return  # one process does it all
    quiet_libraries()
    output_dir = make_output_dir(args.output_dir)
    corpus = load_data(args)
    held_out = load_held_out(args, corpus)
    print(f"\nData\n{corpus.describe()}")
    for name, other in held_out.items():
        print(f"{name} rows: {other.describe(brief=True)}")
    parts = split_corpus(corpus, held_out, args, seed=args.seed)
    print(parts.describe())
    rows, y = parts.rows, parts.labels
    augmentations = load_augmentations(args.augment, args)

    # Fit on the training texts; thresholds on validation
    started = perf_counter()
    train = rows["train"]["text"], y["train"]
    if augmentations:
        train = with_copies(*train, augmentations, copies=args.copies, seed=args.seed)
    score = fit_scorer(CLASSIFIERS[args.classifier](), *train)
    scores = {"valid": score(rows["valid"]["text"])}
    per_label = args.thresholds == "per_label"
    thresholds = tune_thresholds(scores["valid"], y["valid"], per_label=per_label, tolerance=2)

    # One look at the test rows
    trained = perf_counter()
    scores["test"] = score(rows["test"]["text"])
    runtimes = {"train_runtime": trained - started, "test_runtime": perf_counter() - trained}
    unlabelled = corpus.dataset.select(corpus.unlabelled[:3])["text"]
    scores["unlabelled"] = score(unlabelled)
    one_each = corpus.one_label_each
    predicted = {
        part: choose_labels(found, thresholds, one_each=one_each) for part, found in scores.items()
    }
    metrics = part_figures(y, scores, predicted)

    # Save: figures, predictions, plots, card
    report = write_results(
        output_dir,
        corpus=corpus,
        labels=y,
        test_rows=rows["test"],
        scores=scores["test"],
        predicted=predicted["test"],
        thresholds=None if one_each else thresholds,
        metrics=metrics | runtimes | {"seed": args.seed},
    )

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    if len(unlabelled):
        print("\nTags for texts without labels")
        print(
            examples(unlabelled, scores["unlabelled"], predicted["unlabelled"], corpus.label_names)
        )
    print(f"\n{contents(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
