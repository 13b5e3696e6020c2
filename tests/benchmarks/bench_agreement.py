"""How many texts get the right labels by majority and by Dawid-Skene, from simulated annotators.

The true labels are those of real data, of which RECIPES_DATA names the folder (default:
../shared/data): AG News (one of 4 labels) and GoEmotions (any of 28). The annotators are invented:
each has an accuracy, or with several labels a recall and a rate of false labels, of its own. So the
figures say how the methods deal with annotators of unequal reliability, not how real ones err.

    python tests/benchmarks/bench_agreement.py
    python tests/benchmarks/bench_agreement.py --write answers.jsonl
"""

import argparse
import gzip
import json
import os
from pathlib import Path
from time import process_time

import numpy as np

from shared.cli import print_once
from shared.evaluation import merge_by_dawid_skene, merge_by_majority

FOLDER = Path(os.environ.get("RECIPES_DATA", "../shared/data"))
ACCURACY = (0.4, 0.95)  # drawn evenly, with one label per text
RECALL, NOISE = (0.4, 0.95), (0.1, 2)  # false labels, in units of the frequency of the label
# Annotators, and answers per text.
CROWDS = ((5, 5), (20, 3), (20, 5), (100, 3))
SEEDS = range(5)


def ag_news():
    """Return the texts and the one-hot labels of the test file."""
    with gzip.open(FOLDER / "ag_news" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    names = sorted({row["label"] for row in rows})
    return [r["text"] for r in rows], np.array([[r["label"] == n for n in names] for r in rows])


def goemotions(part):
    """Return the texts and the multi-hot labels of a part."""
    with gzip.open(FOLDER / "goemotions" / f"{part}.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    labels = np.zeros((len(rows), 28), bool)
    for row, (_, ids, _) in enumerate(rows):
        labels[row, [int(i) for i in ids.split(",")]] = True
    return [text for text, _, _ in rows], labels


def answer(truth, n_annotators, n_answers, seed, *, single_label):
    """Return the texts, annotators and labels of simulated answers; texts are in order."""
    rng = np.random.default_rng(seed)
    n_texts, n_labels = truth.shape
    annotators = rng.permuted(np.tile(np.arange(n_annotators), (n_texts, 1)), axis=1)
    annotators = np.sort(annotators[:, :n_answers], axis=1).ravel()
    texts = np.repeat(np.arange(n_texts), n_answers)
    if single_label:
        right = rng.random(len(texts)) < rng.uniform(*ACCURACY, n_annotators)[annotators]
        other = rng.integers(1, n_labels, size=len(texts))
        chosen = (truth.argmax(axis=1)[texts] + np.where(right, 0, other)) % n_labels
        return texts, annotators, np.eye(n_labels, dtype=bool)[chosen]
    recall = rng.uniform(*RECALL, n_annotators)[annotators, None]
    noise = rng.uniform(*NOISE, n_annotators)[annotators, None] * truth.mean(axis=0)
    return (
        texts,
        annotators,
        rng.random((len(texts), n_labels)) < np.where(truth[texts], recall, noise),
    )


def compare(name, truth, *, single_label):
    """Print accuracy of whole texts, confidence and time, with the spread over seeds."""
    for n_annotators, n_answers in CROWDS:
        columns = []
        for seed in SEEDS:
            texts, annotators, labels = answer(
                truth, n_annotators, n_answers, seed, single_label=single_label
            )
            options = {"n_texts": len(truth), "single_label": single_label}
            majority = merge_by_majority(texts, labels, **options)
            started = process_time()
            merged = merge_by_dawid_skene(texts, annotators, labels, **options)
            seconds = process_time() - started
            right = [(m.labels == truth).all(axis=1).mean() for m in (majority, merged)]
            columns.append([*right, merged.confidence.mean(), seconds])
        means, spread = np.mean(columns, axis=0), np.std(columns, axis=0, ddof=1)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(means[:3], spread[:3], strict=True)]
        print_once(
            f"| {name} | {n_annotators} | {n_answers} | {' | '.join(cells)} | {means[3]:.1f} s |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", help="write answers of 20 annotators, 3 to each text of GoEmotions, and stop"
    )
    path = parser.parse_args().write
    if path:
        texts, truth = goemotions("train")
        answers = answer(truth, 20, 3, 0, single_label=False)
        with open(path, "w", encoding="utf-8") as file:
            for text, who, labels in zip(*answers, strict=True):
                row = {"text": texts[text], "annotator": f"a{who}"}
                row["labels"] = [str(label) for label in np.flatnonzero(labels)]
                file.write(json.dumps(row) + "\n")
        return
    print_once(
        "| data | annotators | answers per text | majority | Dawid-Skene | confidence | time |"
    )
    print_once("|---|---|---|---|---|---|---|")
    compare("AG News, 4 labels", ag_news()[1], single_label=True)
    compare("GoEmotions, 28 labels", goemotions("dev")[1], single_label=False)


if __name__ == "__main__":
    main()
