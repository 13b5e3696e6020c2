"""Classify texts with 8 to a thousand or two labels: logistic regression and self-training.

Why: this is the best recipe when labels are few. Each text gets two vectors: the embedding of a
sentence encoder, and a vector of its words, from latent semantic analysis (Deerwester et al. 1990)
of your own texts, also unlabelled ones, which covers the terms of your domain. With 200 training
texts, and 20 for each label (--features wide), titles get such vectors of their own, and all words
and pairs of words join as TF-IDF: a wide part beside the deep one (Cheng et al. 2016). One logistic
regression per label, with more weight on rare labels, is fitted in seconds. The name of a label
counts as one more training text for it, so that even labels without a labelled text can be
predicted. Then comes self-training (Scudder 1965): the unlabelled texts with the most confident
predictions become training texts with less weight, in two rounds, and the probabilities of all
rounds are averaged.

With fewer than 500 labelled texts, every text is tested by cross-validation. Settings are fixed
(chosen on the sample, arXiv, cooking.stackexchange.com, GoEmotions and AG News; with one label per
text, a cross-validation within the training texts chooses C), or chosen by a validation set of at
least 200 texts. In the end the tagger is fitted on all labelled texts.

Every text gets its best label and all other labels with a probability of at least one half. If all
labelled texts have exactly one label, a text gets only the best; if some have none (--empty_labels
negative), only the labels with a probability of at least one half.

    accelerate launch recipes/few_label_probe.py --config recipes/configs/few_label_sample.yaml
    accelerate launch recipes/few_label_probe.py --data issues.jsonl --train_size 64
    accelerate launch recipes/few_label_probe.py --data issues.jsonl --encoder static

Data: as described in README.md. With --evaluate held_out, the split and the nested --train_size are
the same in all recipes, so that figures are comparable; texts that --train_size leaves out count as
unlabelled. Embeddings are cached: a second run on the same texts takes seconds.

Expect on one CPU core with the default encoder: embedding 1,000 texts of at most 256 tokens takes
41 seconds in bfloat16, or about one with --encoder static; fits take seconds. Issues of
huggingface/datasets (12 labels, five seeds, no validation texts) have micro / macro F1 .57 / .30
with 8 training texts, .74 / .36 with 16, .79 / .41 with 64 and .83 / .56 with 1,152.
"""

from dataclasses import dataclass
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
    progress,
    start_recipe,
)
from shared.data import (
    EvaluationArguments,
    SplitArguments,
    TaggingArguments,
    cache_folder,
    load_resampling,
)
from shared.evaluation import DecisionRule, calibrate
from shared.methods import (
    TITLE_WEIGHT,
    CachedEmbedder,
    LatentSemanticAnalysis,
    MeanPooling,
    ProbeInputs,
    StaticEncoder,
    TitledEmbedder,
    choose_settings,
    distil,
    embed_split,
    fit_with_self_training,
    flatten_phrases,
    have_titles,
    label_phrases,
    naive_bayes_labels,
)
from shared.models import (
    DEFAULT_MODEL,
    TEXT_PREFIX_HELP,
    TRUNCATION_SIDE_HELP,
    check_unknown_tokens,
    choose_text_prefix,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.reports import (
    Reasons,
    TaggerCard,
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

# Training texts with which --features auto is wide. Fewer for each label are too few to weigh
# single words: the wide probe lost .04 with 3 on cooking questions, .05 with 5 or 10 on BANKING77.
WIDE_FROM, WIDE_TO, WIDE_PER_LABEL = 200, 5000, 20


@dataclass
class ProbeArguments(TaggingArguments, EvaluationArguments, SplitArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    features: Literal["auto", "narrow", "wide"] = flag(
        "auto",
        "narrow: embeddings of texts and vectors of their words; wide: also embeddings of titles, "
        "and TF-IDF of all words and pairs of words, in memory that grows with the square of the "
        "texts; auto: wide with 200 to 5,000 training texts, and 20 for each label (default: "
        "auto).",
    )
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    truncation_side: Literal["right", "left"] | None = flag(None, TRUNCATION_SIDE_HELP)
    encoder: Literal["transformer", "static"] = flag(
        "transformer",
        "static: the mean of vectors of tokens, which are distilled from the encoder once: about "
        "thirty times as fast, and less exact (default: transformer).",
    )
    max_length: int = flag(
        256, "Tokens per text; longer texts are truncated (default: 256).", least=1
    )
    vocabulary_size: int = flag(
        256, "Maximum dimensions of the word vectors (default: 256).", least=1, most=65_536
    )
    name_weight: float = flag(
        1.0,
        "Weight of a label's name as a training text; 0 if it has no meaning (default: 1).",
        least=0,
        most=1e6,
    )
    descriptions: str | None = flag(
        None, "YAML file: label to phrase or phrases that replace its name (default: none)."
    )
    max_unlabelled: int = flag(
        20_000, "Maximum number of unlabelled texts to use at all (default: 20,000).", least=0
    )
    self_training: int = flag(
        1000,
        "Maximum number of unlabelled texts to embed for self-training, in addition to training "
        "rows that --train_size leaves out; 0: no self-training (default: 1000).",
        least=0,
    )
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16; false for exact figures (default: if the hardware supports it).",
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag(
        "outputs/few_label_probe", "Output folder (default: outputs/few_label_probe)."
    )

    def __post_init__(self):
        if self.text_prefix and self.encoder == "static":
            raise UserError("--text_prefix: static embeddings have no use for one; remove it")
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, split, embed, fit with self-training, evaluate, fit on all labelled rows, save."""
    args = parse_arguments(ProbeArguments, description=__doc__)
    output_dir = start_recipe(args)

    # Load, and split for the evaluation: one split, or one for each fold. `label_of` is the label
    # of each phrase.
    resampling = load_resampling(args, seed=args.seed)
    corpus, single_label = resampling.corpus, resampling.corpus.single_label
    phrases, label_of = [], np.zeros(0, int)
    if args.name_weight:
        phrases, label_of = flatten_phrases(label_phrases(corpus.label_names, args.descriptions))

    def used_rows(split):
        """Return the unlabelled rows that a fit uses, and those of them that were left out."""
        rows = split.unlabelled
        if len(rows) > args.max_unlabelled:
            rng = np.random.default_rng(args.seed)
            rows = np.sort(rng.choice(rows, args.max_unlabelled, replace=False))
        return rows, split.left_out[np.isin(split.left_out, rows) & (args.self_training > 0)]

    # Embed: the mean of the encoder's last hidden states. The Trainer only predicts here.
    model_folder, cache = resolve_model(args.model), cache_folder(args.cache_dir)
    prefix = None  # static embeddings have no use for one
    if args.encoder == "transformer":
        prefix = choose_text_prefix(args.model, args.text_prefix)
    tokenizer = load_tokenizer(model_folder, prefix, args.truncation_side)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    options = {"args": args, "data_collator": PaddingCollator(tokenizer)}
    options |= {"callbacks": [ReadableProgress()], "bf16_predictions": args.bf16}
    trainer = LengthGroupedTrainer(model=MeanPooling(encoder), **options)
    if args.encoder == "static":
        token_vectors = distil(trainer, tokenizer, model_folder, cache)
        trainer = LengthGroupedTrainer(model=StaticEncoder(token_vectors), **options)
    embed = embedder = CachedEmbedder(trainer, tokenizer, model_folder, cache)
    n_train = min(len(split.labels["train"]) for split in resampling.splits)
    wide_from = max(WIDE_FROM, WIDE_PER_LABEL * len(corpus.label_names))
    auto = args.features == "auto" and wide_from <= n_train <= WIDE_TO
    wide = args.features == "wide" or auto
    title_weight = TITLE_WEIGHT if wide and have_titles(corpus.dataset["text"][:]) else 0.0
    if title_weight:
        embed = TitledEmbedder(embedder, title_weight)
    labelled_vectors = {}
    embeddings = [
        embed_split(split, embed, labelled_vectors, left_out=used_rows(split)[1])
        for split in resampling.all_splits
    ]
    name_vectors = embed(phrases) if phrases else embeddings[0]["train"][:0]

    # Unlabelled texts for self-training: every n-th, the same for all seeds, so that they are
    # cached. Training rows that --train_size leaves out come on top.
    sampled, sampled_vectors = corpus.unlabelled[:0], embeddings[0]["train"][:0]
    if args.self_training and args.max_unlabelled and len(corpus.unlabelled):
        sampled = corpus.unlabelled[:: -(-len(corpus.unlabelled) // args.self_training)]
        sampled_vectors = embed(corpus.dataset.select(sampled)["text"])
    started = perf_counter()
    if args.process_index != 0:
        if resampling.planted is None:
            tag_unlabelled(output_dir, corpus, args)
        return

    reference = None  # static vectors are part of the tagger
    if args.encoder == "transformer":
        reference = EncoderReference.of(args.model, args.max_length, prefix, args.truncation_side)
    rule = DecisionRule.of(
        *(0.5, len(corpus.label_names)),
        single_label=single_label,
        at_least_one=corpus.empty_labels == "unlabelled",
    )

    def fit(split, embeddings, settings=None):
        """Return the tagger of a split, and its settings: as given, or chosen."""
        unlabelled, left_out = used_rows(split)
        extra = np.concatenate([left_out, sampled])
        usable = np.isin(extra, unlabelled)  # not those that repeat a test text
        texts = {part: split.rows[part]["text"] for part in ("train", "valid")}
        texts |= {"extra": corpus.dataset.select(extra[usable])["text"], "names": phrases}
        extra_vectors = np.concatenate([embeddings["left_out"], sampled_vectors])[usable]

        # Learn the word vectors from the training and the unlabelled texts, none of them held out.
        analysis = LatentSemanticAnalysis.fit(
            [*texts["train"], *corpus.dataset.select(unlabelled)["text"]],
            n_components=args.vocabulary_size,
            pairs=wide,
            title_weight=title_weight,
            seed=args.seed,
        )
        tfidf = {part: analysis.features(part_texts) for part, part_texts in texts.items()}
        inputs = ProbeInputs(
            embeddings={**embeddings, "extra": extra_vectors, "names": name_vectors},
            words={part: analysis.project(texts[part], tfidf[part]) for part in texts},
            tfidf=tfidf if wide else None,
            labels=split.labels,
            label_of=label_of,
            name_weight=args.name_weight,
            single_label=single_label,
        )
        if settings is None:
            options = {"self_train": args.self_training > 0, "seed": args.seed}
            settings = choose_settings(inputs, rule.choose, **options)
        probe = fit_with_self_training(inputs, settings, rule.choose)
        options = {"word_weight": settings.word_weight, "wide": wide}
        scorer = EmbeddingScorer(embed, reference, probe, analysis, **options)
        return Tagger(corpus.label_names, rule, scorer), settings

    # Fit on the training set; in a cross-validation, once for each fold. The embeddings of
    # `all_rows`, the last ones, are left over for the last fit.
    folds = list(zip(resampling.splits, embeddings, strict=False))
    fitted = [fit(*fold) for fold in progress(folds, "fitting", unit="folds")]
    tagger, settings = fitted[0]
    trained = perf_counter()

    # Evaluate on the test set, once; in a cross-validation, on the texts of each fold. The time per
    # text includes its embedding.
    def score(fold, tagger, part):
        split, vectors = fold
        return tagger.scorer.score_embedded(split.rows[part]["text"], vectors[part])

    tested = [score(fold, tagger, "test") for fold, (tagger, _) in zip(folds, fitted, strict=True)]
    scores = {"valid": score(folds[0], tagger, "valid"), "test": resampling.join(tested)}
    if resampling.planted is not None:  # --simulate_noise
        print(f"\n{report_simulation(output_dir, resampling, scores['test'])}")
        return
    split, predicted = resampling.tested, {part: rule.choose(s) for part, s in scores.items()}
    options = {"single_label": single_label, "fold_of": resampling.fold_of}
    calibration, calibrated = calibrate(scores, predicted, split.labels, **options)
    seconds_per_text = embedder.seconds / embedder.n_texts * (2 if title_weight else 1)
    n_scored = len(scores["valid"]) + sum(map(len, tested))
    seconds_per_text += (perf_counter() - trained) / n_scored
    baseline = resampling.join([naive_bayes_labels(part) for part in resampling.first_repeat])
    figures = split_metrics(split, scores, predicted, baseline)
    figures |= reading_metrics(tokenizer, split.rows["test"]["text"])
    figures |= repeat_metrics(resampling, [rule.choose(values) for values in tested])
    figures |= {"embed_runtime": embedder.seconds, "train_runtime": trained - started}
    figures |= {"test_runtime": seconds_per_text * len(scores["test"]), "seed": args.seed}

    # Fit on all labelled rows and save the tagger; then metrics, predictions, plots and the card.
    # Tag the unlabelled texts.
    if resampling.all_rows:
        chosen = None if resampling.cross_validated else settings
        tagger, settings = fit(resampling.all_rows, embeddings[-1], chosen)
    tagger.calibration = calibration
    tagger.save(output_dir)
    print_once(
        f"settings: word weight {settings.word_weight:g}, C {settings.C:g}, balance "
        f"{settings.balance:g}, {settings.rounds} rounds of self-training"
    )
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        figures,
        card=TaggerCard(args, evaluation=resampling.explain()),
        rule=tagger.rule,
        calibrated=calibrated,
        reasons=Reasons(tagger, resampling.all_rows or split),
        top_scores=args.top_scores,
    )
    print(f"\n{resampling.title()}\n\n{report}")
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
