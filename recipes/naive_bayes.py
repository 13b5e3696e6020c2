"""Classify texts by their words: naive Bayes, logistic regression, a linear SVM or boosted trees.

Why: it takes seconds on any machine, is hard to beat with very few labels, and is the baseline for
every model that needs training time. `naive_bayes` is the baseline of "Natural Language Processing
with Transformers", chapter 9 (word counts, one multinomial classifier per label); the other
classifiers use TF-IDF, the linear ones of words and word pairs, which makes them stronger with a
few dozen labels or more. Boosted trees take two to four times as long. --strategy says how a
classifier gives several labels (Read et al. 2011); recipes/FIGURES.md compares all combinations.

    accelerate launch recipes/naive_bayes.py --config recipes/configs/naive_bayes_sample.yaml
    accelerate launch recipes/naive_bayes.py --classifier linear_svm --min_df 5 --data issues.jsonl
    accelerate launch recipes/naive_bayes.py --classifier logistic_regression --analyzer char_wb
    accelerate launch recipes/naive_bayes.py --data issues.jsonl --augment swap delete

Data: as described in README.md. With fewer than 500 labelled texts, every text is tested by
cross-validation; with more, or with --evaluate held_out, the split and the nested --train_size are
the same in all recipes, so that figures are comparable. In the end the tagger is fitted on all
labelled texts. The terms that speak for and against each label are printed, and written to
terms.csv.

Expect on the sample, in a few seconds: micro / macro F1 .65 / .44 out of fold (441 texts, naive
Bayes). With --evaluate held_out (219 training texts, mean of three seeds): .60 / .39 with naive
Bayes, .68 / .55 with logistic regression. With one augmented copy of each text (--augment swap
delete, seeds 1 to 3) the F1 of naive Bayes then changes as follows:

    training texts          8            32           64           219
    micro / macro F1        .24 / .16    .27 / .16    .32 / .19    .59 / .38
    with augmented copies   .28 / .19    .30 / .16    .45 / .31    .66 / .51

Unchanged copies have the same effect (micro F1 .28, .31, .45 and .66): smoothing has less weight
when words count twice. Logistic regression gains .00, .02 and .02, and loses .02.
"""

from dataclasses import dataclass
from time import perf_counter

from shared.cli import (
    exit_on_user_error,
    flag,
    is_main_process,
    parse_arguments,
    progress,
    start_recipe,
)
from shared.data import (
    EvaluationArguments,
    SplitArguments,
    TaggingArguments,
    load_resampling,
)
from shared.evaluation import (
    THRESHOLDS_HELP,
    DecisionRule,
    calibrate,
    find_thresholds,
    fixed_threshold,
)
from shared.methods import (
    NAMES_HELP,
    AugmentationArguments,
    WordArguments,
    add_augmented_copies,
    feature_weights,
    fit_words,
    load_augmentations,
    word_pipeline,
)
from shared.reports import (
    Reasons,
    TaggerCard,
    describe_output,
    repeat_metrics,
    report_simulation,
    split_metrics,
    tag_unlabelled,
    write_results,
    write_terms,
)
from shared.taggers import Tagger, WordScorer


@dataclass
class NaiveBayesArguments(
    TaggingArguments, EvaluationArguments, AugmentationArguments, WordArguments, SplitArguments
):
    """The flags of this recipe, which uses no Trainer."""

    thresholds: str = flag("global", f"{THRESHOLDS_HELP} (default: global).")
    augment: list[str] = flag(
        [], f"Also train on augmented copies of the texts: {NAMES_HELP} (default: none)."
    )
    terms: int = flag(
        5,
        "Terms for and against each label to print; 0: none, and no terms.csv (default: 5).",
        least=0,
    )
    output_dir: str = flag("outputs/naive_bayes", "Output folder (default: outputs/naive_bayes).")
    seed: int = flag(42, "Random seed of the split, and of boosted trees (default: 42).")

    def __post_init__(self):
        WordArguments.__post_init__(self)
        fixed_threshold(self.thresholds)  # checks the flag


def main() -> None:
    """Load, split, fit, tune thresholds, evaluate, fit on all labelled rows, save."""
    args = parse_arguments(NaiveBayesArguments, description=__doc__)
    if not is_main_process():
        return  # one process is enough
    output_dir = start_recipe(args)

    # Load, and split for the evaluation: one split, or one for each fold.
    resampling = load_resampling(args, seed=args.seed)
    corpus = resampling.corpus

    def fit(split, rule=None):
        """Fit on the training texts (and their augmented copies), tune thresholds on validation."""
        train = split.rows["train"]["text"], split.labels["train"]
        if args.augment:
            augmentations = load_augmentations(args.augment, args, texts=train[0])
            train = add_augmented_copies(*train, augmentations, copies=args.copies, seed=args.seed)
        classifier = fit_words(word_pipeline(args, seed=args.seed), *train)
        if rule is None:
            scores, y_valid = classifier(split.rows["valid"]["text"]), split.labels["valid"]
            options = {"setting": args.thresholds, "tolerance": 2}
            thresholds = find_thresholds(scores, y_valid, **options)
            # Without a validation set, the thresholds are .5, and a text has its best label, too.
            untuned = fixed_threshold(args.thresholds) is None and not len(y_valid)
            untuned = untuned and corpus.empty_labels == "unlabelled"
            options = {"single_label": corpus.single_label, "at_least_one": untuned}
            rule = DecisionRule.of(thresholds, len(corpus.label_names), **options)
        return Tagger(corpus.label_names, rule, WordScorer(classifier))

    started = perf_counter()
    taggers = [fit(split) for split in progress(resampling.splits, "fitting", unit="folds")]
    trained = perf_counter()

    # Evaluate on the test set, once; in a cross-validation, on the texts of each fold.
    split, splits = resampling.tested, resampling.splits
    parts = [t.scores(s.rows["test"]["text"][:]) for t, s in zip(taggers, splits, strict=True)]
    scores = {"valid": taggers[0].scores(split.rows["valid"]["text"][:])}
    scores["test"] = resampling.join(parts)
    if resampling.planted is not None:  # --simulate_noise
        print(f"\n{report_simulation(output_dir, resampling, scores['test'])}")
        return
    choose = taggers[0].rule.choose
    predicted = {part: choose(values) for part, values in scores.items()}
    options = {"single_label": corpus.single_label, "fold_of": resampling.fold_of}
    calibration, calibrated = calibrate(scores, predicted, split.labels, **options)
    runtimes = {"train_runtime": trained - started, "test_runtime": perf_counter() - trained}
    metrics = split_metrics(split, scores, predicted)
    metrics |= repeat_metrics(resampling, [choose(values) for values in parts])

    # Fit on all labelled rows and save; then metrics, predictions, plots and the card. Tag the
    # unlabelled texts.
    tagger = taggers[0]
    if resampling.all_rows:
        tagger = fit(resampling.all_rows, tagger.rule)
    tagger.calibration = calibration
    tagger.save(output_dir)
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        metrics | runtimes | {"seed": args.seed},
        card=TaggerCard(args, evaluation=resampling.explain()),
        rule=tagger.rule,
        calibrated=calibrated,
        reasons=Reasons(tagger, resampling.all_rows or split),
        thresholds=tagger.rule.thresholds or None,
        top_scores=args.top_scores,
    )
    print(f"\n{resampling.title()}\n\n{report}")
    (output_dir / "terms.csv").unlink(missing_ok=True)  # of an earlier run
    if args.terms:
        words, classifier = tagger.scorer.classifier.features.words, tagger.scorer.classifier
        table = write_terms(
            output_dir,
            corpus.label_names,
            words,
            feature_weights(classifier.classifier, len(words)),
            counts=[corpus.report["labels"][name] for name in corpus.label_names],
            n_terms=args.terms,
        )
        print(f"\nTerms\n{table}")
    tag_unlabelled(output_dir, corpus, args)
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
