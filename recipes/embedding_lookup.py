"""Classify texts by nearest neighbours or logistic regression on sentence embeddings.

Why: the encoder is not trained, it only embeds the texts once, and a handful of labels gives good
results. A label applies if m of the k nearest labelled texts have it; the best k and m on the
validation set are used ("Natural Language Processing with Transformers", chapter 9, embeddings as a
lookup table). If every text has exactly one label, a text gets the most frequent label among the k
nearest texts, and in a tie that of the nearest text. `--head logistic` fits one logistic regression
per label on the same embeddings, which is stronger with some dozens of labels or more.

    accelerate launch recipes/embedding_lookup.py --config recipes/configs/lookup_sample.yaml
    accelerate launch recipes/embedding_lookup.py --data issues.jsonl --head logistic

Data: as for recipes/github_tagger.py, with the same split and the same nested --train_size, so that
figures are comparable. Embeddings are cached: a second run on the same texts takes seconds.

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
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens per text; longer texts are truncated (default: 256).")
    head: Literal["neighbours", "logistic"] = flag(
        "neighbours", "Vote of the nearest texts, or logistic regression (default: neighbours)."
    )
    max_neighbours: int = flag(50, "Largest k to try, at most the training rows (default: 50).")
    label_name_rows: int = flag(
        0, "Add each label's name this many times to its training texts (default: 0)."
    )
    thresholds: Literal["global", "per_label"] = flag(
        "global", "Logistic head: one tuned decision threshold, or one per label (default: global)."
    )
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16; false for exact figures (default: if the hardware supports it).",
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag(
        "outputs/embedding_lookup", "Output folder (default: outputs/embedding_lookup)."
    )

    def __post_init__(self):
        for name, least in (("max_neighbours", 1), ("label_name_rows", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: must be {least} or more")
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, split, embed, choose k and m (or fit the regression), evaluate once, save."""
    args = parse_arguments(LookupArguments, description=__doc__)
    output_dir = start_recipe(args)

    # Load and split; y maps each part to its multi-hot labels, (rows, labels).
    corpus, split = load_and_split(args, seed=args.seed)
    y, single_label = split.labels, corpus.single_label

    # Embed: the mean of the encoder's last hidden states. The Trainer only predicts here. All
    # labelled rows are embedded, so that runs with other seeds and training sizes find them cached.
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

    # The training set: texts, and the names of the labels if wanted.
    train_labels = y["train"]
    for _ in range(args.label_name_rows):
        vectors["train"] = np.concatenate([vectors["train"], embed(corpus.label_names)])
        labels_of_names = np.eye(len(corpus.label_names), dtype=np.uint8)
        train_labels = np.concatenate([train_labels, labels_of_names])
    started = perf_counter()
    if args.process_index != 0:
        return

    # Tune on validation: k, and also m if a text can have several labels; or the thresholds.
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
        valid, per_label = score(vectors["valid"]), args.thresholds == "per_label"
        thresholds = tune_thresholds(valid, y["valid"], per_label=per_label, tolerance=2)
    trained = perf_counter()

    # Score all but the training texts. The time per text includes its embedding.
    parts = [part for part in ("valid", "test", "unlabelled") if part in vectors]
    scores = {part: score(vectors[part]) for part in parts}
    seconds_per_text = embed.seconds / embed.n_texts
    seconds_per_text += (perf_counter() - trained) / sum(map(len, scores.values()))

    # Evaluate on the test set, once; save metrics, predictions, plots and the card.
    predicted = {
        part: choose_labels(values, thresholds, single_label=single_label)
        for part, values in scores.items()
    }
    figures |= split_metrics(y, scores, predicted)
    figures |= {"embed_runtime": embed.seconds, "train_runtime": trained - started}
    figures["test_runtime"] = seconds_per_text * len(y["test"])
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
        (output_dir / name).unlink(missing_ok=True)  # left by an earlier run with another --head
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
