"""Classify texts by their words: naive Bayes, or TF-IDF with logistic regression.

Why: done in seconds on any machine, hard to beat with very few labels, and the figure that any
model with a training time must beat. `naive_bayes` is the baseline of "Natural Language Processing
with Transformers", chapter 9 (counts of words, one multinomial classifier per label);
`logistic_regression` weighs words and pairs of words by TF-IDF and is the stronger one from a few
dozen labels up.

    accelerate launch recipes/naive_bayes.py --config recipes/configs/naive_bayes_sample.yaml
    accelerate launch recipes/naive_bayes.py --classifier logistic_regression --data issues.jsonl

Data: as for recipes/github_tagger.py, with the same parts and the same nested --train_size, so that
their figures compare.

Expect on the sample (219 training texts, mean of three seeds), in a few seconds: micro F1 .60 and
macro F1 .39 with naive Bayes, .68 and .55 with logistic regression.
"""

import os
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from shared.arguments import flag, parse_arguments
from shared.baselines import fit_scorer, naive_bayes, tfidf_logistic_regression
from shared.data import load_data, load_held_out
from shared.data_arguments import SplitArguments
from shared.errors import exit_on_user_error
from shared.files import make_output_dir
from shared.parts import split_corpus
from shared.predictions import examples
from shared.progress import quiet_libraries
from shared.results import contents, part_figures, write_results
from shared.thresholds import tune_thresholds

CLASSIFIERS = {"naive_bayes": naive_bayes, "logistic_regression": tfidf_logistic_regression}


@dataclass
class NaiveBayesArguments(SplitArguments):
    """Flags of this recipe; there is no Trainer, so none of its flags."""

    classifier: Literal["naive_bayes", "logistic_regression"] = flag(
        "naive_bayes", "How to classify (default: naive_bayes)."
    )
    thresholds: Literal["global", "per_label"] = flag(
        "global", "Tune one threshold on validation, or one per label (default: global)."
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

    # Fit on the training texts; thresholds on validation
    started = perf_counter()
    score = fit_scorer(CLASSIFIERS[args.classifier](), rows["train"]["text"], y["train"])
    scores = {"valid": score(rows["valid"]["text"])}
    per_label = args.thresholds == "per_label"
    thresholds = tune_thresholds(scores["valid"], y["valid"], per_label=per_label, tolerance=2)

    # One look at the test rows
    trained = perf_counter()
    scores["test"] = score(rows["test"]["text"])
    runtimes = {"train_runtime": trained - started, "test_runtime": perf_counter() - trained}
    metrics = part_figures(y, scores, thresholds)
    unlabelled = corpus.dataset.select(corpus.unlabelled[:3])["text"]

    # Save: figures, predictions, plots, card
    report = write_results(
        output_dir,
        corpus=corpus,
        labels=y,
        test_rows=rows["test"],
        scores=scores["test"],
        thresholds=thresholds,
        metrics=metrics | runtimes | {"seed": args.seed},
    )

    print(f"\nTest ({len(y['test']):,} texts; thresholds from validation)\n\n{report}")
    if len(unlabelled):
        print("\nTags for texts without labels")
        print(examples(unlabelled, score(unlabelled), thresholds, corpus.label_names))
    print(f"\n{contents(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
