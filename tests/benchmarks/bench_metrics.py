"""Compare the speed of the metric functions with scikit-learn, and ways to choose thresholds.

    PYTHONPATH=. python tests/benchmarks/bench_metrics.py

Prints Markdown tables. The first two use random scores of the size of GoEmotions. The third needs
the data sets in the folder RECIPES_DATA (default ../shared/data) and is skipped without them; it
takes about half a minute, most of it for training the scorers.
"""

import gzip
import json
import os
import timeit
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from sklearn import metrics as sklearn_metrics

from shared.evaluation import (
    bootstrap_interval,
    f1_scores,
    multilabel_metrics,
    sigmoid,
    tune_thresholds,
)

DATA = Path(os.environ.get("RECIPES_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROWS, LABELS = 5000, 28


def milliseconds(function, repeats=7):
    """Return the time of the fastest of a few runs, in ms."""
    return 1000 * min(timeit.repeat(function, number=1, repeat=repeats))


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for row in rows:
        print(
            "| " + " | ".join(f"{c:,.2f}" if isinstance(c, float) else str(c) for c in row) + " |"
        )
    print()


def sklearn_f1(y_true, y_pred, metric):
    average = metric.removesuffix("_f1")
    return sklearn_metrics.f1_score(y_true, y_pred, average=average, zero_division=0)


def bench_thresholds(y_true, scores):
    """Compare the exact sweep with a loop over `f1_score`, for 99 and for all candidates."""
    grid = np.arange(0.01, 1, 0.01)
    rows = []
    for metric in ("micro_f1", "macro_f1"):
        sweep = milliseconds(lambda m=metric: tune_thresholds(scores, y_true, metric=m))
        own = milliseconds(
            lambda m=metric: tune_thresholds(scores, y_true, metric=m, per_label=True)
        )

        def loop(m=metric):
            return max(sklearn_f1(y_true, scores >= t, m) for t in grid)

        coarse = milliseconds(loop, repeats=3)
        # A call takes the same time for each candidate, so the time of all follows from 99.
        candidates = len(np.unique(scores)) + 1
        every = coarse / len(grid) * candidates
        actual = tune_thresholds(scores, y_true, metric=metric)
        assert sklearn_f1(y_true, scores >= actual, metric) >= loop()
        ratios = [f"{time / sweep:,.0f}x" for time in (coarse, every)]
        rows.append([metric, sweep, own, coarse, ratios[0], every, ratios[1]])
    print(f"Threshold for {ROWS:,} x {LABELS} scores, {candidates:,} candidates; ms\n")
    loops = ["sklearn loop, 99 candidates", "ratio", "all candidates (from the 99)", "ratio"]
    table(["metric", "exact sweep", "one per label", *loops], rows)


def sklearn_compute_metrics(y_true, logits):
    y_pred, scores = sigmoid(logits) >= 0.5, sigmoid(logits)
    averages = ("micro", "macro", "weighted", "samples")
    precision, recall, _, _ = sklearn_metrics.precision_recall_fscore_support(
        y_true, y_pred, average="micro", zero_division=0
    )
    return {
        **{f"{a}_f1": sklearn_f1(y_true, y_pred, a) for a in averages},
        "micro_precision": precision,
        "micro_recall": recall,
        "subset_accuracy": sklearn_metrics.accuracy_score(y_true, y_pred),
        "average_precision": sklearn_metrics.average_precision_score(
            y_true, scores, average="micro"
        ),
        "macro_average_precision": sklearn_metrics.average_precision_score(y_true, scores),
        "roc_auc": sklearn_metrics.roc_auc_score(y_true, scores),
    }


def bench_metric_function(y_true, logits):
    evaluation = SimpleNamespace(predictions=logits, label_ids=y_true.astype(np.float32))
    compute_metrics = multilabel_metrics([str(label) for label in range(LABELS)])
    ours, theirs = compute_metrics(evaluation), sklearn_compute_metrics(y_true, logits)
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-9)
    rows = [["compute_metrics", milliseconds(lambda: compute_metrics(evaluation))]]
    rows[0].append(milliseconds(lambda: sklearn_compute_metrics(y_true, logits), repeats=3))

    y_pred = logits > 0
    resamples = np.random.default_rng(0).integers(0, ROWS, (20, ROWS))
    for metric in ("micro_f1", "macro_f1"):

        def loop(m=metric):
            return [sklearn_f1(y_true[draw], y_pred[draw], m) for draw in resamples]

        interval = milliseconds(lambda m=metric: bootstrap_interval(y_true, y_pred, metric=m))
        rows.append([f"bootstrap interval, {metric}, 1,000 resamples (sklearn: from 20)"])
        rows[-1] += [interval, milliseconds(loop, repeats=3) * 1000 / len(resamples)]
    print(f"Metrics of {ROWS:,} x {LABELS} logits; ms\n")
    table(
        ["what", "here", "scikit-learn", "ratio"],
        [[*row, f"{row[2] / row[1]:,.0f}x"] for row in rows],
    )


def goemotions(part):
    texts, y = [], []
    with gzip.open(DATA / "goemotions" / f"{part}.tsv.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            text, ids, _ = line.rstrip("\n").split("\t")
            texts.append(text)
            y.append(np.isin(np.arange(28), [int(i) for i in ids.split(",")]))
    return texts, np.array(y)


def issues():
    path = DATA / "hf-datasets-issues" / "issues.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if not row.get("pull_request")]
    labels = [{label["name"] for label in row["labels"]} for row in rows]
    counts = Counter(name for names in labels for name in names)
    chosen = [n for n, c in counts.items() if c >= 19 and n not in ("duplicate", "wontfix")]
    y = np.array([[name in names for name in chosen] for names in labels])
    texts = np.array([f"{row['title']}\n{row['body'] or ''}" for row in rows], dtype=object)
    return texts[y.any(axis=1)], y[y.any(axis=1)]


def scorer(texts, y):
    """Fit TF-IDF and one logistic regression per label: fast, some labels badly calibrated."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2)),
        OneVsRestClassifier(LogisticRegression(C=5, solver="liblinear")),
    ).fit(texts, y)


def scored_sets():
    """Yield name, scores and labels of rows that the scorer was not trained on."""
    texts, y = goemotions("train")
    held_out = [goemotions(part) for part in ("dev", "test")]
    for n_rows in (4000, len(texts)):
        model = scorer(texts[:n_rows], y[:n_rows])
        scores = np.concatenate([model.predict_proba(part) for part, _ in held_out])
        yield f"GoEmotions, {n_rows:,} rows", scores, np.concatenate([y for _, y in held_out])

    texts, y = issues()
    scores, fold = np.empty(y.shape), np.random.default_rng(0).integers(0, 5, len(y))
    for k in range(5):
        model = scorer(texts[fold != k], y[fold != k])
        scores[fold == k] = model.predict_proba(texts[fold == k])
    yield "datasets issues, 5 folds", scores, y


def bench_choices(draws=40):
    """Tune on n rows, evaluate on other rows (the same for all n); print the mean over draws."""
    choices = {
        "0.5": None,
        "global": {},
        "own": {"per_label": True, "shrinkage": 0},
        "default": {"per_label": True},
    }
    rows = []
    for name, scores, y in scored_sets():
        sizes = (100, 300, 1000)
        for metric in ("micro_f1", "macro_f1"):
            for size in sizes:
                reached = np.empty((draws, len(choices)))
                for draw in range(draws):
                    order = np.random.default_rng(draw).permutation(len(y))
                    valid, test = order[:size], order[max(sizes) :]
                    for column, options in enumerate(choices.values()):
                        thresholds = 0.5
                        if options is not None:
                            thresholds = tune_thresholds(
                                scores[valid], y[valid], metric=metric, **options
                            )
                        reached[draw, column] = f1_scores(y[test], scores[test] >= thresholds)[
                            metric
                        ]
                rows.append([metric, name, size, *(f"{f1:.3f}" for f1 in reached.mean(axis=0))])
    for metric in ("micro_f1", "macro_f1"):
        values = np.array([row[3:] for row in rows if row[0] == metric], dtype=float)
        rows.append([metric, "mean", "", *(f"{f1:.3f}" for f1 in values.mean(axis=0))])
    print(f"Held-out F1 by choice of threshold, mean of {draws} draws\n")
    table(["metric", "scores", "validation rows", *choices], rows)


def main():
    rng = np.random.default_rng(0)
    y_true = rng.random((ROWS, LABELS)) < np.geomspace(0.005, 0.3, LABELS)
    logits = rng.normal(size=y_true.shape) + 3 * y_true - 2
    bench_thresholds(y_true, sigmoid(logits))
    bench_metric_function(y_true, logits)
    if DATA.is_dir():
        bench_choices()
    else:
        print(f"No real data: {DATA} does not exist (RECIPES_DATA); the third table is skipped.")


if __name__ == "__main__":
    main()
