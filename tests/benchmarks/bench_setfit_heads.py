"""Compare SetFit, with each of its heads, with the few-label recipe: F1 by number of labels.

    RECIPES_DATA=... PYTHONPATH=. python tests/benchmarks/bench_setfit_heads.py \
        [--train_sizes 8 16 32] [--seeds 1 2 3 4 5] [--protocol few|chapter]

SetFit fine-tunes its sentence encoder on pairs of training texts, then fits a head on the
embeddings. The pairs do not depend on the head, so one fine-tuning serves all heads:

one-vs-rest         one logistic regression per label, SetFit's own choice for several labels
balanced            the same with class_weight="balanced"
multi-output        MultiOutputClassifier of logistic regressions
classifier-chain    ClassifierChain of logistic regressions
differentiable      SetFit's head of PyTorch, trained for 16 epochs with the encoder frozen

Heads that need a positive training text for every label are fitted to the labels that have one.
Labels are predicted from a score of 0.5, SetFit's rule, and by the rule of the few-label probe (the
best label of each text, and every other one from 0.5), which SetFit does not offer. Rows, splits,
slices and length are those of recipes/configs/few_label_benchmark_issues.yaml; the protocol says,
as there, whether the slices leave out validation rows. Prints Markdown.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier

from shared.cli import parse_arguments
from shared.data import SplitArguments, load_data, split_corpus
from shared.evaluation import at_least_one, f1_scores
from shared.models import DEFAULT_MODEL, resolve_model

DATA = Path(os.environ.get("RECIPES_DATA", Path(__file__).parents[3] / "shared" / "data"))
ISSUES = "$RECIPES_DATA/hf-datasets-issues/issues.jsonl.gz"
MAX_LENGTH = 128
HEADS = {
    "one-vs-rest": OneVsRestClassifier(LogisticRegression()),
    "balanced": OneVsRestClassifier(LogisticRegression(class_weight="balanced")),
    "multi-output": MultiOutputClassifier(LogisticRegression()),
    "classifier-chain": ClassifierChain(LogisticRegression()),
}


def train_body(texts, labels, seed):
    """Fine-tune SetFit's encoder on pairs of texts; return the model and the seconds."""
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(
        resolve_model(DEFAULT_MODEL), multi_target_strategy="one-vs-rest"
    )
    model.model_body.max_seq_length = MAX_LENGTH
    train = Dataset.from_dict({"text": texts, "label": labels.astype(int).tolist()})
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            max_length=MAX_LENGTH,
            seed=seed,
            save_strategy="no",
            report_to="none",
        )
        Trainer(model=model, args=args, train_dataset=train).train()
    return model, time.perf_counter() - started


def scores_of_head(head, train, labels, test):
    """Fit a head of scikit-learn on labels with positives and negatives; score the test rows."""
    scores = np.tile(labels.all(axis=0).astype(float), (len(test), 1))
    usable = labels.any(axis=0) & ~labels.all(axis=0)
    probabilities = head.fit(train, labels[:, usable]).predict_proba(test)
    if isinstance(probabilities, list):  # one array of two columns per label
        probabilities = np.stack([p[:, 1] for p in probabilities], axis=1)
    scores[:, usable] = probabilities
    return scores


def scores_of_differentiable_head(model, texts, labels, test):
    """Train SetFit's head of PyTorch with the encoder frozen, at the defaults of its Trainer."""
    from setfit import SetFitHead

    model.model_head = SetFitHead(
        in_features=test.shape[1], out_features=labels.shape[1], multitarget=True
    )
    model.fit(
        texts,
        labels.astype(int).tolist(),
        num_epochs=16,
        batch_size=16,
        head_learning_rate=1e-2,
        max_length=MAX_LENGTH,
        show_progress_bar=False,
    )
    with torch.no_grad():
        return model.model_head.predict_proba(torch.tensor(test)).numpy()


def main():
    parser = argparse.ArgumentParser(description="SetFit with each of its heads")
    parser.add_argument("--train_sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--protocol", choices=["few", "chapter"], default="few")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: {DATA} does not exist; RECIPES_DATA must name it")
        return
    os.environ["RECIPES_DATA"] = str(DATA.resolve())
    disable_progress_bars()
    args = parse_arguments(SplitArguments, ["--data", ISSUES, "--min_label_count", "19"])
    args.drop_labels = ["duplicate", "wontfix"]
    if options.protocol == "few":
        args.valid_size = 0.0
    corpus = load_data(args)
    figures, seconds = defaultdict(list), defaultdict(list)
    for size in options.train_sizes:
        for seed in options.seeds:
            split = split_corpus(corpus, {}, replace(args, train_size=size), seed=seed)
            texts, labels = split.rows["train"]["text"][:], split.labels["train"]
            model, duration = train_body(texts, labels, seed)
            train, test = (
                np.asarray(model.encode(split.rows[part]["text"][:], show_progress_bar=False))
                for part in ("train", "test")
            )
            scores = {
                name: scores_of_head(head, train, labels, test) for name, head in HEADS.items()
            }
            scores["differentiable"] = scores_of_differentiable_head(model, texts, labels, test)
            seconds[size].append(duration)
            for name, values in scores.items():
                for rule, predicted in (
                    ("0.5", values >= 0.5),
                    ("best label and 0.5", at_least_one(values)),
                ):
                    f1 = f1_scores(split.labels["test"], predicted)
                    figures[name, rule, size].append((f1["micro_f1"], f1["macro_f1"]))
                    print(size, seed, name, rule, figures[name, rule, size][-1], flush=True)
            print(f"{size} labels, seed {seed}: {duration:.0f} s", flush=True)

    header = " | ".join(f"{size} labels" for size in options.train_sizes)
    print(f"\n| head | rule | {header} |\n|---|---|{'---|' * len(options.train_sizes)}")
    for name in [*HEADS, "differentiable"]:
        for rule in ("0.5", "best label and 0.5"):
            means = [np.mean(figures[name, rule, size], axis=0) for size in options.train_sizes]
            cells = " | ".join(f"{micro:.3f} / {macro:.3f}" for micro, macro in means)
            print(f"| {name} | {rule} | {cells} |")
    cells = " | ".join(f"{np.mean(seconds[size]):.0f}" for size in options.train_sizes)
    print(f"| seconds of training | | {cells} |")


if __name__ == "__main__":
    main()
