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

from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from shared.cli import exit_on_user_error, flag, is_main_process, parse_arguments, start_recipe
from shared.data import SplitArguments, load_and_split
from shared.evaluation import choose_labels, tune_thresholds
from shared.methods import (
    NAMES_HELP,
    AugmentationArguments,
    add_augmented_copies,
    fit_scorer,
    load_augmentations,
    naive_bayes,
    tfidf_logistic_regression,
)
from shared.reports import (
    TaggerCard,
    describe_output,
    format_examples,
    split_metrics,
    write_results,
)

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
    if not is_main_process():
        return  # one process does it all
    output_dir = start_recipe(args)
    corpus, split = load_and_split(args, seed=args.seed)
    rows, y = split.rows, split.labels
    augmentations = load_augmentations(args.augment, args)

    # Fit on the training texts; thresholds on validation
    started = perf_counter()
    train = rows["train"]["text"], y["train"]
    if augmentations:
        train = add_augmented_copies(*train, augmentations, copies=args.copies, seed=args.seed)
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
    single_label = corpus.single_label
    predicted = {
        part: choose_labels(found, thresholds, single_label=single_label)
        for part, found in scores.items()
    }
    metrics = split_metrics(y, scores, predicted)

    # Save: figures, predictions, plots, card
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        metrics | runtimes | {"seed": args.seed},
        card=TaggerCard(),
        thresholds=None if single_label else thresholds,
    )

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    if len(unlabelled):
        print("\nTags for texts without labels")
        print(
            format_examples(
                unlabelled, scores["unlabelled"], predicted["unlabelled"], corpus.label_names
            )
        )
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
