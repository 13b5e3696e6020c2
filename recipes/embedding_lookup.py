"""Classify texts by their nearest labelled neighbours, or by a probe, in an embedding space.

Why: no training beyond one pass of an encoder over the texts, and good figures from a handful of
labels. A label applies if m of the k nearest labelled texts have it; all k and m are compared on
validation in one pass. "Natural Language Processing with Transformers", chapter 9 (embeddings as a
lookup table). Where every text has exactly one label, it gets the most frequent one of the k, of
equally frequent ones that of the nearest text. `--head logistic` fits one logistic regression per
label on the same vectors: the stronger of the two from some dozens of labels up.

    accelerate launch recipes/embedding_lookup.py --config recipes/configs/lookup_sample.yaml
    accelerate launch recipes/embedding_lookup.py --data issues.jsonl --head logistic

Data: as for recipes/github_tagger.py, with the same parts and the same nested --train_size, so that
their figures compare. Vectors are kept in the cache: a second run on the same texts takes seconds.

Expect on two CPU cores, default encoder: 20 texts of 250 tokens per second, 1 GB of memory.
"""

from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Literal

import numpy as np
from transformers import TrainingArguments

from shared.cli import (
    UserError,
    choose_precision,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import SplitArguments, cache_folder, load_and_split
from shared.evaluation import choose_labels, tune_thresholds
from shared.methods import (
    CachedEmbedder,
    MeanPooling,
    NearestNeighbours,
    embed_split,
    f1_grid,
    fit_scorer,
    logistic_probe,
    micro_f1_by_k,
)
from shared.models import (
    DEFAULT_MODEL,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.plots import plot_neighbour_grid
from shared.reports import (
    TaggerCard,
    describe_output,
    format_examples,
    split_metrics,
    write_results,
)
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress


@dataclass
class LookupArguments(SplitArguments, TrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens of a text that the model reads (default: 256).")
    head: Literal["neighbours", "logistic"] = flag(
        "neighbours", "Vote of neighbours, or logistic regression (default: neighbours)."
    )
    max_neighbours: int = flag(50, "Largest k to try, as far as there are rows (default: 50).")
    label_name_rows: int = flag(
        0,
        "How often each label's name stands among the labelled texts as one of its own "
        "(default: 0, not at all).",
    )
    thresholds: Literal["global", "per_label"] = flag(
        "global", "Of the logistic head, tuned on validation (default: global)."
    )
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16; false for the last digits (default: where the hardware has it).",
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag(
        "outputs/embedding_lookup", "Folder (default: outputs/embedding_lookup)."
    )

    def __post_init__(self):
        for name, least in (("max_neighbours", 1), ("label_name_rows", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: must be {least} or more")
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, split, embed, choose k and m on validation (or fit the probe), test, save."""
    args = parse_arguments(LookupArguments, description=__doc__)
    output_dir = start_recipe(args)
    corpus, split = load_and_split(args, seed=args.seed)
    y, single_label = split.labels, corpus.single_label

    # One vector per text; those of all labelled rows, which other seeds and slices use again
    model_folder = resolve_model(args.model)
    tokenizer = load_tokenizer(model_folder)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    trainer = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    embed = CachedEmbedder(trainer, tokenizer, model_folder, cache_folder(args.cache_dir))

    vectors = embed_split(split, embed)
    unlabelled = corpus.dataset.select(corpus.unlabelled[:3])["text"]
    if len(unlabelled):
        vectors["unlabelled"] = embed(unlabelled)
    train_labels = y["train"]
    for _ in range(args.label_name_rows):
        vectors["train"] = np.concatenate([vectors["train"], embed(corpus.label_names)])
        labels_of_names = np.eye(len(corpus.label_names), dtype=np.uint8)
        train_labels = np.concatenate([train_labels, labels_of_names])
    started = perf_counter()
    if args.process_index != 0:
        return

    # Choose on validation: k, and m if there may be several labels, or the threshold of the probe
    asked = [part for part in ("valid", "test", "unlabelled") if part in vectors]
    figures, grid = {}, None
    if args.head == "neighbours":
        lookup = NearestNeighbours(vectors["train"], train_labels)
        neighbours = lookup.search(vectors["valid"], min(args.max_neighbours, len(train_labels)))
        if single_label:
            k = int(micro_f1_by_k(neighbours, train_labels, y["valid"]).argmax()) + 1
            print_once(
                f"best on validation: the label most frequent among the {k} nearest texts applies"
            )
            thresholds, rule = None, {"k": k, "one_label_each": True}
            figures = {"neighbours": k}
        else:
            grid = f1_grid(neighbours, train_labels, y["valid"])
            best = np.unravel_index(np.nanargmax(grid["micro_f1"]), grid["micro_f1"].shape)
            k, m = (int(index) + 1 for index in best)
            print_once(
                f"best on validation: a label applies if {m} of the {k} nearest texts have it"
            )
            thresholds, rule = np.full(len(corpus.label_names), m / k), {"k": k, "m": m}
            figures = {"neighbours": k, "votes": m}
        score = partial(lookup.scores, k=k, single_label=single_label)
    else:
        score = fit_scorer(logistic_probe(), vectors["train"], train_labels)
        per_label = args.thresholds == "per_label"
        valid = score(vectors["valid"])
        thresholds = tune_thresholds(valid, y["valid"], per_label=per_label, tolerance=2)
    trained = perf_counter()
    scores = {part: score(vectors[part]) for part in asked}
    per_text = embed.seconds / embed.n_texts
    per_text += (perf_counter() - trained) / sum(map(len, scores.values()))

    # One look at the test rows; then everything a person wants to see
    predicted = {
        part: choose_labels(found, thresholds, single_label=single_label)
        for part, found in scores.items()
    }
    figures |= split_metrics(y, scores, predicted)
    figures |= {"embed_runtime": embed.seconds, "train_runtime": trained - started}
    figures["test_runtime"] = per_text * len(y["test"])
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        {**figures, "seed": args.seed},
        card=TaggerCard(max_length=args.max_length),
        thresholds=None if single_label else thresholds,
    )
    for name in ("index.faiss", "labels.npy", "lookup.json", "plots/neighbours.png"):
        (output_dir / name).unlink(missing_ok=True)  # of an earlier run that chose otherwise
    if args.head == "neighbours":
        settings = {"model": args.model, "max_length": args.max_length, **rule}
        lookup.save(output_dir, **settings, label_names=corpus.label_names)
    if grid is not None:
        plot_neighbour_grid(grid, (k, m), output_dir / "plots" / "neighbours.png")

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
