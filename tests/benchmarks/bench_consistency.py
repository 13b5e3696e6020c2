"""Compare the time of an epoch of consistency training with that of the tokens it must compute.

    PYTHONPATH=. python tests/benchmarks/bench_consistency.py [--rows N] [--repeats R]

An epoch must train on the labelled texts of its steps and on a changed copy of each unlabelled
text, and must predict each unlabelled text. So two other measurements price these tokens, in the
same process and in turn with it: supervised training on the same labelled texts and copies
(`LengthGroupedTrainer`, as many rows per step), and prediction of the same texts without gradient
(batches of the same size and length, bfloat16 as in the training). The ratio is the time of the
epoch over the sum of these two prices, per real token, padding not counted.

All three run with the default encoder and the defaults of recipes/uda.py, on AG News and on IMDB
reviews of at most 128 tokens. Making the copies is timed as well. Prints Markdown.
"""

import argparse
import os
import tempfile
from itertools import chain
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from datasets import concatenate_datasets

from recipes.uda import UdaArguments
from shared.cli import parse_arguments
from shared.data import load_and_split, load_unlabelled
from shared.methods import load_augmentations, tokenize_copies
from shared.models import (
    append_mean_pooling,
    limit_length,
    load_sequence_classifier,
    load_tokenizer,
    resolve_model,
    tokenize,
)
from shared.training import (
    AnnealedLoss,
    ConsistencyLoss,
    ConsistencyTrainer,
    LengthGroupedTrainer,
    MultilabelCollator,
    classification_loss,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RECIPES_DATA", ROOT.parent / "shared" / "data"))


def measure(name, n_rows, repeats, folder):
    """Print the seconds of the three runs and their ratio."""
    flags = [f"--data={DATA / name / 'train.jsonl.gz'}", f"--max_unlabelled={n_rows}"]
    flags += ["--train_per_label=30", "--max_length=128", "--num_train_epochs=1", "--use_cpu"]
    flags += ["--save_strategy=no", f"--output_dir={folder}", "--disable_tqdm=true"]
    args = parse_arguments(UdaArguments, flags)
    _, split = load_and_split(args, seed=args.seed)
    unlabelled = load_unlabelled(split, args, seed=args.seed)
    label_names, y = split.corpus.label_names, split.labels["train"]
    model_folder = resolve_model(args.model)
    tokenizer = load_tokenizer(model_folder)
    model = load_sequence_classifier(model_folder, label_names, tokenizer=tokenizer)
    append_mean_pooling(model)
    limit_length(tokenizer, model, args.max_length)
    labelled, texts = tokenize(split.rows["train"], tokenizer), tokenize(unlabelled.rows, tokenizer)

    started = perf_counter()
    augmentations = load_augmentations(args.augmentations, args, texts=texts["text"])
    options = {"copies": 1, "seed": int(started * 1e6) % 2**32}  # another seed: not from the cache
    texts = tokenize_copies(texts, augmentations, tokenizer, **options)
    copying = perf_counter() - started

    collator = MultilabelCollator(tokenizer, len(label_names))
    loss = classification_loss(y, label_names, single_label=True, balanced=True)
    common = {"model": model, "args": args, "data_collator": collator}
    consistency = ConsistencyTrainer(
        train_dataset=labelled,
        compute_loss_func=AnnealedLoss(loss, "none", lambda: 0.0),
        unlabelled=texts,
        ratio=args.unlabelled_ratio,
        # Every copy is trained on, also those of a text without a confident prediction.
        consistency_loss=ConsistencyLoss(single_label=True, confidence=0.0),
        teacher_decay=args.teacher_decay,
        **common,
    )
    # The same tokens as labelled rows: those of the epoch's steps, and the copies.
    rows = list(chain.from_iterable(consistency.get_train_dataloader().batch_sampler))
    drawn = labelled.select([row for row in rows if row < len(labelled)])
    copies = texts.map(
        lambda row: {"input_ids": row["copies"][0], "length": len(row["copies"][0]), "labels": [0]},
        remove_columns=texts.column_names,
    )
    columns = ["input_ids", "length", "labels"]
    trained = concatenate_datasets(
        [drawn.select_columns(columns).cast(copies.features), copies.select_columns(columns)]
    )
    common["args"] = parse_arguments(UdaArguments, flags)
    common["args"].per_device_train_batch_size *= 1 + args.unlabelled_ratio
    supervised = LengthGroupedTrainer(train_dataset=trained, compute_loss_func=loss, **common)
    batches = list(
        texts.select(np.argsort(texts["length"]))
        .select_columns("input_ids")
        .iter(args.per_device_train_batch_size * args.unlabelled_ratio)
    )

    def predict():
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bool(args.bf16)):
            for batch in batches:
                model(**collator([{"input_ids": ids} for ids in batch["input_ids"]]))

    runs = {"consistency": consistency.train, "supervised": supervised.train, "forward": predict}
    seconds = {run: [] for run in runs}
    for run, function in [*runs.items()] * repeats:
        started = perf_counter()
        function()
        seconds[run].append(perf_counter() - started)
    tokens = {"supervised": sum(trained["length"]), "forward": sum(texts["length"])}
    whole, training, forward = (np.median(seconds[run]) for run in runs)
    print(
        f"\n## {name}: {len(texts):,} unlabelled texts, {len(drawn):,} labelled rows in the steps\n"
    )
    print("| run | real tokens | seconds, by run | microseconds per token |\n|---|---|---|---|")
    for run, total in (("consistency", sum(tokens.values())), *tokens.items()):
        by_run = ", ".join(f"{value:.1f}" for value in seconds[run])
        rate = 1e6 * np.median(seconds[run]) / total
        print(f"| {run} | {total:,} | {by_run} | {rate:.0f} |")
    print(f"\nThe epoch takes **{whole / (training + forward):.2f}** times its tokens.")
    print(f"Changed copies, once: {copying:.1f} s for {len(texts):,} texts.", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Time of an epoch of consistency training")
    parser.add_argument("--rows", type=int, default=960, help="unlabelled texts")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    for name in ("ag_news", "imdb"):
        with tempfile.TemporaryDirectory() as folder:
            measure(name, args.rows, args.repeats, folder)


if __name__ == "__main__":
    main()
