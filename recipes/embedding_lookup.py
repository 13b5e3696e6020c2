"""Classify texts by nearest neighbours or logistic regression on sentence embeddings.

Why: the encoder is not trained, it only embeds the texts once, and a handful of labels gives good
results. A label applies if m of the k nearest labelled texts have it; the best k and m on the
validation set are used ("Natural Language Processing with Transformers", chapter 9, embeddings as a
lookup table). If every text has exactly one label, a text gets the most frequent label among the k
nearest texts, and in a tie that of the nearest text. `--head logistic` fits one logistic regression
per label on the same embeddings, which is stronger with some dozens of labels or more.

    accelerate launch recipes/embedding_lookup.py --config recipes/configs/lookup_sample.yaml
    accelerate launch recipes/embedding_lookup.py --data issues.jsonl --head logistic

Data: as described in README.md. With fewer than 500 labelled texts, every text is tested by
cross-validation, and k and m come from the training texts, each classified by all others. With
more, or with --evaluate held_out, the split and the nested --train_size are the same in all
recipes, so that figures are comparable. In the end all labelled texts are looked up. Embeddings are
cached: a second run on the same texts takes seconds.

Expect on two CPU cores, default encoder: 20 texts of 250 tokens per second, 1 GB of memory.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
from transformers import TrainingArguments

from shared.cli import (
    choose_precision,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import (
    EvaluationArguments,
    SplitArguments,
    TaggingArguments,
    cache_folder,
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
    CachedEmbedder,
    MeanPooling,
    NearestNeighbours,
    NeighbourVote,
    choose_votes,
    embed_split,
    fit_strategy,
    logistic_probe,
    naive_bayes_labels,
)
from shared.models import (
    DEFAULT_MODEL,
    TEXT_PREFIX_HELP,
    check_unknown_tokens,
    choose_text_prefix,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.plots import plot_neighbour_grid
from shared.reports import (
    Reasons,
    TaggerCard,
    describe_neighbours,
    describe_output,
    push_to_hub,
    reading_metrics,
    repeat_metrics,
    report_simulation,
    split_metrics,
    tag_unlabelled,
    write_results,
)
from shared.taggers import EmbeddingScorer, EncoderReference, Tagger
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress


@dataclass
class LookupArguments(TaggingArguments, EvaluationArguments, SplitArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    max_length: int = flag(
        256, "Tokens per text; longer texts are truncated (default: 256).", least=1
    )
    head: Literal["neighbours", "logistic"] = flag(
        "neighbours", "Vote of the nearest texts, or logistic regression (default: neighbours)."
    )
    max_neighbours: int = flag(
        50, "Largest k to try, at most the training rows (default: 50).", least=1
    )
    index: Literal["flat", "ivf", "hnsw"] = flag(
        "flat",
        "Search: exact; in the nearest clusters of texts; or along a graph of neighbours. The last "
        "two are faster from about 100,000 training texts on, and miss some neighbours (default: "
        "flat).",
    )
    query: str | None = flag(
        None, "Text whose nearest training texts are shown (default: the first test text)."
    )
    label_name_rows: int = flag(
        0, "Add each label's name this many times to its training texts (default: 0).", least=0
    )
    thresholds: str = flag("global", f"Logistic head: {THRESHOLDS_HELP} (default: global).")
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16; false for exact figures (default: if the hardware supports it).",
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag(
        "outputs/embedding_lookup", "Output folder (default: outputs/embedding_lookup)."
    )

    def __post_init__(self):
        fixed_threshold(self.thresholds)  # checks the flag
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, split, embed, choose k and m (or fit the regression), evaluate once, save."""
    args = parse_arguments(LookupArguments, description=__doc__)
    output_dir = start_recipe(args)

    # Load, and split for the evaluation: one split, or one for each fold.
    resampling = load_resampling(args, seed=args.seed)
    corpus, single_label = resampling.corpus, resampling.corpus.single_label

    # Embed: the mean of the encoder's last hidden states. The Trainer only predicts here.
    model_folder = resolve_model(args.model)
    prefix = choose_text_prefix(args.model, args.text_prefix)
    tokenizer = load_tokenizer(model_folder, prefix)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    trainer = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    embed = CachedEmbedder(trainer, tokenizer, model_folder, cache_folder(args.cache_dir))

    labelled_vectors = {}
    embeddings = [embed_split(s, embed, labelled_vectors) for s in resampling.all_splits]
    # The names of the labels may be training texts, too.
    names = corpus.label_names * args.label_name_rows
    name_vectors = embed(names) if names else embeddings[0]["train"][:0]
    query_vector = embed([args.query]) if args.query else embeddings[0]["test"][:1]
    y_names = np.tile(np.eye(len(corpus.label_names), dtype=np.uint8), (args.label_name_rows, 1))
    started = perf_counter()
    if args.process_index != 0:
        if resampling.planted is None:
            tag_unlabelled(output_dir, corpus, args)
        return

    encoder_reference = EncoderReference.of(args.model, args.max_length, prefix)

    def fit(split, vectors, chosen=None):
        """Return the tagger of a split, and its votes or thresholds: as given, or chosen."""
        x = np.concatenate([vectors["train"], name_vectors])
        y = np.concatenate([split.labels["train"], y_names])
        valid = vectors["valid"], split.labels["valid"]
        if args.head == "neighbours":
            # Choose k, and also m if a text can have several labels, on validation. Without a
            # validation set, each training text is classified by the others.
            lookup = NearestNeighbours(x, y, args.index)
            groups = np.concatenate(
                [corpus.groups[split.sources["train"][1]], -1 - np.arange(len(y_names))]
            )
            options = {"groups": groups}
            options |= {"max_neighbours": args.max_neighbours, "single_label": single_label}
            chosen = chosen or choose_votes(lookup, *valid, **options)
            classifier = NeighbourVote(lookup, chosen.k, single_label)
            thresholds = (chosen.m or 0) / chosen.k
        else:
            classifier = fit_strategy(logistic_probe(), x, y)
            if chosen is None:
                scores, y_valid = classifier(valid[0]), valid[1]
                options = {"setting": args.thresholds, "tolerance": 2}
                chosen = find_thresholds(scores, y_valid, **options)
            thresholds = chosen
        # Untuned thresholds are .5; a text has its best label, too.
        untuned = args.head == "logistic" and not len(valid[1])
        untuned = untuned and fixed_threshold(args.thresholds) is None
        at_least_one = untuned and corpus.empty_labels == "unlabelled"
        options = {"single_label": single_label, "at_least_one": at_least_one}
        rule = DecisionRule.of(thresholds, len(corpus.label_names), **options)
        scorer = EmbeddingScorer(embed, encoder_reference, classifier)
        return Tagger(corpus.label_names, rule, scorer), chosen

    # Fit on the training set; in a cross-validation, once for each fold. The embeddings of
    # `all_rows`, the last ones, are left over for the last fit.
    folds = list(zip(resampling.splits, embeddings, strict=False))
    fitted = [fit(*fold) for fold in folds]
    tagger, chosen = fitted[0]
    trained = perf_counter()

    # Evaluate on the test set, once; in a cross-validation, on the texts of each fold. The time per
    # text includes its embedding.
    tested = [
        (fold_tagger, fold_tagger.scorer.classifier(vectors["test"]))
        for (fold_tagger, _), (_, vectors) in zip(fitted, folds, strict=True)
    ]
    scores = {"valid": tagger.scorer.classifier(folds[0][1]["valid"])}
    scores["test"] = resampling.join([fold_scores for _, fold_scores in tested])
    if resampling.planted is not None:  # --simulate_noise
        print(f"\n{report_simulation(output_dir, resampling, scores['test'])}")
        return
    predicted = {"valid": tagger.rule.choose(scores["valid"])}
    chosen_labels = [t.rule.choose(fold_scores) for t, fold_scores in tested]
    predicted["test"] = resampling.join(chosen_labels)
    seconds_per_text = embed.seconds / embed.n_texts
    n_scored = len(scores["valid"]) + sum(map(len, chosen_labels))
    seconds_per_text += (perf_counter() - trained) / n_scored
    split = resampling.tested
    options = {"single_label": single_label, "fold_of": resampling.fold_of}
    calibration, calibrated = calibrate(scores, predicted, split.labels, **options)
    baseline = resampling.join([naive_bayes_labels(part) for part in resampling.first_repeat])
    figures = split_metrics(split, scores, predicted, baseline)
    figures |= reading_metrics(tokenizer, split.rows["test"]["text"])
    figures |= repeat_metrics(resampling, chosen_labels)
    figures |= {"embed_runtime": embed.seconds, "train_runtime": trained - started}
    figures |= {"test_runtime": seconds_per_text * len(scores["test"]), "seed": args.seed}

    # Fit on all labelled rows and save the tagger; then metrics, predictions, plots and the card.
    # Tag the unlabelled texts.
    if resampling.all_rows:
        kept = None if resampling.cross_validated else chosen
        tagger, chosen = fit(resampling.all_rows, embeddings[-1], kept)
    tagger.calibration = calibration
    tagger.save(output_dir)
    tuned_on = "validation" if len(folds[0][0].labels["valid"]) else "training texts"
    if args.head == "neighbours":
        figures |= {"neighbours": chosen.k} | ({"votes": chosen.m} if chosen.m else {})
        which = f"the label most frequent among the {chosen.k} nearest texts applies"
        if chosen.m:
            which = f"a label applies if {chosen.m} of the {chosen.k} nearest texts have it"
        print_once(f"best on {tuned_on}: {which}")
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        figures,
        card=TaggerCard(
            args,
            max_length=args.max_length,
            truncation_side=tokenizer.truncation_side,
            evaluation=resampling.explain(),
        ),
        rule=tagger.rule,
        calibrated=calibrated,
        reasons=Reasons(tagger, resampling.all_rows or split),
        thresholds=None if resampling.cross_validated else tagger.rule.thresholds or None,
        top_scores=args.top_scores,
    )
    grid_plot = output_dir / "plots" / "neighbours.png"
    grid_plot.unlink(missing_ok=True)  # left by an earlier run with another --head
    if args.head == "neighbours" and chosen.grid is not None:
        plot_neighbour_grid(chosen.grid, (chosen.k, chosen.m), grid_plot)
    print(f"\n{resampling.title()}\n\n{report}")

    # Show the training texts that decide on one text.
    first, vectors = folds[0]
    query = args.query or first.rows["test"]["text"][0]
    texts, y = [*first.rows["train"]["text"], *names], [*first.labels["train"], *y_names]
    x = np.concatenate([vectors["train"], name_vectors])
    print(f"\n{describe_neighbours(query, query_vector[0], texts, x, y, corpus.label_names)}")
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
