"""Measure calibration, --target_precision and --abstain on the test rows of real data.

    RECIPES_DATA=... PYTHONPATH=. python tests/benchmarks/bench_calibration.py [--seeds 3]

Naive Bayes and logistic regression on TF-IDF are fitted to the training rows of issues,
GoEmotions, BANKING77 and NLBSE'24; calibration, thresholds and confidence are learned from the
validation rows, all figures are those of the test rows. Issues and NLBSE'24 are split by each seed;
the others come with three parts. Prints Markdown: the expected calibration error and the Brier
score before and after; precision and recall of the labels with --target_precision .9; the share of
texts that are not unsure with --abstain .8, and how many of those have exactly the right labels.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from shared.data import SplitArguments, load_and_split
from shared.evaluation import DecisionRule, calibrate, tune_thresholds
from shared.evaluation.reliability import calibration_metrics
from shared.methods import WordArguments, fit_words, word_pipeline

DATA = Path(os.environ.get("RECIPES_DATA", Path(__file__).parents[3] / "shared" / "data"))
PARTS = (("data", "train"), ("valid_data", "valid"), ("test_data", "test"))
ISSUES = {"drop_labels": ["duplicate", "wontfix"], "min_label_count": 19}


def sources():
    """Return the flags of each data set, and whether a seed splits it."""
    goemotions = {flag: f"{name.replace('valid', 'dev')}.tsv.gz" for flag, name in PARTS}
    banking = {flag: f"{name}.jsonl.gz" for flag, name in PARTS}
    nlbse = {"data": "train.jsonl.gz", "test_data": "test.jsonl.gz"}
    files = {"goemotions": goemotions, "banking77": banking, "nlbse24": nlbse}
    files["hf-datasets-issues"] = {"data": "issues.jsonl.gz"}
    flags = {k: {f: str(DATA / k / name) for f, name in v.items()} for k, v in files.items()}
    names = DATA / "goemotions" / "labels.txt"
    flags["goemotions"] |= {"column_names": ["text", "labels", "id"], "class_names": str(names)}
    flags["hf-datasets-issues"] |= ISSUES
    return {name: (options, "valid_data" not in options) for name, options in flags.items()}


def measure(classifier, options, seed):
    """Return the figures of one classifier on the test rows of one split."""
    corpus, split = load_and_split(SplitArguments(**options), seed=seed)
    single_label, y = corpus.single_label, split.labels
    pipeline = word_pipeline(WordArguments(classifier=classifier), seed=seed)
    score = fit_words(pipeline, split.rows["train"]["text"], y["train"])
    scores = {part: score(split.rows[part]["text"]) for part in ("valid", "test")}
    thresholds = tune_thresholds(scores["valid"], y["valid"], tolerance=2)
    rule = DecisionRule.of(thresholds, len(corpus.label_names), single_label=single_label)
    predicted = {part: rule.choose(values) for part, values in scores.items()}
    calibration, calibrated = calibrate(scores, predicted, y, single_label=single_label)
    truth = y["test"] > 0
    of_scores = truth, scores["test"], calibrated.scores
    figures = calibration_metrics(*of_scores, single_label=single_label)
    rule_of_precision = calibration.rule_of_precision(0.9)
    read = calibrated.scores if rule_of_precision.reads_calibrated else scores["test"]
    precise = rule_of_precision.choose(read)
    hits = (precise & truth).sum()
    figures |= {"precision": hits / max(precise.sum(), 1), "recall": hits / truth.sum()}
    sure = calibrated.confidence >= 0.8
    right = (predicted["test"] == truth).all(axis=1)
    figures |= {"all right": right.mean(), "sure": sure.mean()}
    return figures | {"all right of sure": right[sure].mean() if sure.any() else np.nan}


def main():
    parser = argparse.ArgumentParser(description="Calibration on the test rows of real data")
    parser.add_argument("--seeds", type=int, default=3, help="splits of a data set (default: 3)")
    args = parser.parse_args()
    lines = []
    for name, (options, is_split) in sources().items():
        for classifier in ("naive_bayes", "logistic_regression"):
            seeds = range(1, args.seeds + 1) if is_split else [1]
            runs = [measure(classifier, options, seed) for seed in seeds]
            mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
            errors = [
                f"{mean[f'test_{key}_uncalibrated']:.4f} to {mean[f'test_{key}']:.4f}"
                for key in ("ece", "brier")
            ]
            keys = ("precision", "recall", "sure", "all right of sure", "all right")
            cells = [name, classifier, *errors, *(f"{mean[key]:.3f}" for key in keys)]
            lines.append(f"| {' | '.join(cells)} |")
    print("\n| data | classifier | ECE | Brier | precision at .9 | recall | sure | right | all |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
