"""Learn from a few labels and many unlabelled texts by two classifiers that teach each other.

Why: the embedding of a sentence encoder knows what words mean, but only the first --max_length
tokens, and not all that matters: whether a review is favourable, for example. A classifier of words
and pairs of words reads the whole text, but needs thousands of examples. In co-training (Blum and
Mitchell 1998, "Combining Labeled and Unlabeled Data with Co-Training") each labels the unlabelled
texts that the other learns from. It takes seconds once the texts are embedded. The tagger is the
mean of both, and a good teacher for `self_training`, which fine-tunes an encoder.

The start is a probe: logistic regression on the embeddings of the labelled texts, and of the names
of the labels. In each of --rounds, the surest 70 % of the unlabelled texts of each predicted label
become examples of the classifier of words, then, by the scores of both, of the probe; the labelled
texts keep a tenth of all weights. With one label per text, the classes of the examples keep their
shares among the labelled texts, or one class would take over. Both views have an equal say: their
logits are scaled to the same spread. If the training collapses all the same, the probe of the
labelled texts is kept, and console, card and metrics.json say so.

    accelerate launch recipes/co_training.py --config recipes/configs/co_training_sample.yaml
    accelerate launch recipes/co_training.py --data my_issues.jsonl --output_dir outputs/mine
    accelerate launch recipes/co_training.py --data labelled.csv --unlabelled_data more.csv

Data: as described in README.md. Unlabelled texts are the rows without a label, and the training
rows that --train_size or --train_per_label leaves out; or those of --unlabelled_data. All labels
are for training and the test; validation rows (--valid_size) do nothing but calibrate the scores.

Expect on one CPU core with the default encoder: embedding 1,000 texts of at most 256 tokens takes
41 seconds in bfloat16, once; the fits take seconds. AG News has accuracy .859 with 10 labelled
texts of each class and .866 with 30 (three seeds, 4,000 texts in all), .798 and .834 without
co-training. With several labels per text, and above all with many labels, it gains little or
nothing over few_label_probe.
"""

from dataclasses import dataclass
from functools import partial
from itertools import islice
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
    TaggingArguments,
    UnlabelledArguments,
    cache_folder,
    load_and_split,
    load_unlabelled,
)
from shared.evaluation import DecisionRule, calibrate, describe_collapse, f1_scores
from shared.methods import (
    CachedEmbedder,
    MeanPooling,
    View,
    WordClassifier,
    co_train,
    embed_split,
    fit_probe,
    fit_tfidf,
    flatten_phrases,
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
    split_metrics,
    tag_unlabelled,
    write_results,
)
from shared.taggers import EmbeddingScorer, EncoderReference, Tagger, WordScorer, mean_tagger
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress

# Inverse strengths of the regularisation: that of the few-label probe, for several labels per text
# and for one; and of the classifier of words (3 and 30 are no better on AG News and IMDB).
C_SEVERAL, C_ONE, C_WORDS = 5.0, 3.0, 10.0


@dataclass
class CoTrainingArguments(TaggingArguments, UnlabelledArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    rounds: int = flag(
        3, "Rounds in which each classifier teaches the other (default: 3).", least=1
    )
    alignment: bool = flag(
        True,
        "If each text has one label, keep the classes of the examples as frequent as among the "
        "labelled texts; false, if these were not drawn at random (default: true).",
    )
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    truncation_side: Literal["right", "left"] | None = flag(None, TRUNCATION_SIDE_HELP)
    max_length: int = flag(
        256,
        "Tokens per text that the encoder reads; the classifier of words reads all (default: 256).",
        least=1,
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
    valid_size: float = flag(
        0.0,
        "Share of the labelled rows for a validation set, which calibrates the scores (default: 0, "
        "none).",
        least=0,
        below=1,
    )
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16; false for exact figures (default: if the hardware supports it).",
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag("outputs/co_training", "Output folder (default: outputs/co_training).")

    def __post_init__(self):
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, embed, let two classifiers teach each other, check, evaluate once, save."""
    args = parse_arguments(CoTrainingArguments, description=__doc__)
    output_dir = start_recipe(args)

    # Load the data and split the labelled rows; y maps each part to (rows, labels), multi-hot.
    corpus, split = load_and_split(args, seed=args.seed)
    unlabelled = load_unlabelled(split, args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    y, texts = split.labels, {part: rows["text"][:] for part, rows in split.rows.items()}
    texts["unlabelled"] = unlabelled.rows["text"][:]
    phrases, label_of = [], np.zeros(0, int)  # that name labels, and the label of each
    if args.name_weight:
        phrases, label_of = flatten_phrases(label_phrases(label_names, args.descriptions))

    # One view, words: TF-IDF of all words and pairs of words of the whole texts.
    started = perf_counter()
    features, tfidf = fit_tfidf([*texts["train"], *texts["unlabelled"]], pairs=True)
    if not features.words:
        raise UserError(
            f"{args.data}: no word is in two of the training and unlabelled texts, and co-training "
            "needs a classifier of words; add unlabelled texts, or use few_label_probe"
        )
    words = {part: features(texts[part]) for part in ("valid", "test")}
    words |= {"train": tfidf[: len(texts["train"])], "unlabelled": tfidf[len(texts["train"]) :]}
    word_seconds = perf_counter() - started

    # The other, embeddings: the mean of the encoder's last hidden states. The Trainer only predicts
    # here.
    model_folder = resolve_model(args.model)
    prefix = choose_text_prefix(args.model, args.text_prefix)
    tokenizer = load_tokenizer(model_folder, prefix, args.truncation_side)
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
    vectors = embed_split(split, embed)
    vectors["unlabelled"] = embed(texts["unlabelled"])
    name_vectors = embed(phrases) if phrases else vectors["train"][:0]
    if args.process_index != 0:
        tag_unlabelled(output_dir, corpus, args)
        return
    started = perf_counter()

    # Co-training. `start`, the probe of the labelled texts alone, is for comparison.
    fit = partial(fit_probe, balance=1.0, name_weight=args.name_weight, single_label=single_label)
    fit_embeddings = partial(
        fit,
        name_vectors=name_vectors,
        name_labels=label_of,
        C=C_ONE if single_label else C_SEVERAL,
    )
    fit_words = partial(fit, name_vectors=words["train"][:0], name_labels=label_of[:0], C=C_WORDS)
    rule = DecisionRule.of(
        *(0.5, len(label_names)),
        single_label=single_label,
        at_least_one=args.empty_labels == "unlabelled",
    )
    rounds = co_train(
        View(vectors["train"], vectors["unlabelled"], fit_embeddings),
        View(words["train"], words["unlabelled"], fit_words),
        y["train"],
        rule.choose,
        shares=y["train"].mean(axis=0) if single_label and args.alignment else None,
    )
    rounds = progress(islice(rounds, args.rounds), "co-training", unit="rounds", total=args.rounds)
    *_, (by_embeddings, by_words) = rounds
    start = fit_embeddings(vectors["train"], y["train"])
    trained = perf_counter()

    # Score all texts. The tagger is the mean of both classifiers, unless the training collapsed:
    # then that of the labelled texts is better.
    parts = [*y, "unlabelled"]
    all_scores = {
        "supervised": {part: start(vectors[part]) for part in parts},
        "embeddings": {part: by_embeddings(vectors[part]) for part in parts},
        "words": {part: by_words(words[part]) for part in parts},
    }
    views = all_scores["embeddings"], all_scores["words"]
    all_scores["both"] = {part: np.mean([view[part] for view in views], axis=0) for part in parts}
    all_predicted = {
        name: {part: rule.choose(values) for part, values in scores.items()}
        for name, scores in all_scores.items()
    }
    f1 = {
        name: f1_scores(*split.with_unknown_labels("test", predicted["test"]))
        for name, predicted in all_predicted.items()
    }
    collapse = describe_collapse(
        all_predicted["supervised"], all_predicted["both"], y["train"], label_names
    )
    reference = EncoderReference.of(args.model, args.max_length, prefix, args.truncation_side)
    evaluation, kept = None, "supervised" if collapse else "both"
    if collapse:
        note = f"Co-training collapsed: {collapse}."
        evaluation = f"{split.explain(None)} {note} The tagger is that of the labelled texts alone."
        print_once(f"\n{note} The probe of the labelled texts is kept.")
        tagger = Tagger(label_names, rule, EmbeddingScorer(embed, reference, start))
    else:
        scorers = {
            "embeddings": EmbeddingScorer(embed, reference, by_embeddings),
            "words": WordScorer(WordClassifier(features, by_words)),
        }
        members = [Tagger(label_names, rule, scorer) for scorer in scorers.values()]
        tagger = mean_tagger(members, folders=list(scorers))
    scores, predicted = all_scores[kept], all_predicted[kept]
    tagger.calibration, calibrated = calibrate(scores, predicted, y, single_label=single_label)
    n_scored = sum(map(len, scores.values()))
    seconds_per_text = embed.seconds / embed.n_texts + (perf_counter() - trained) / n_scored

    # Save the tagger with metrics, predictions, plots and the card. Tag the unlabelled texts.
    metrics = {
        **split_metrics(split, scores, predicted, naive_bayes_labels(split)),
        # Not how many texts are cut: their words are read to the end.
        "unknown_tokens": reading_metrics(tokenizer, texts["train"])["unknown_tokens"],
        **unlabelled.metrics(),
        **{
            f"{view}_test_{name}": value
            for view in ("supervised", "embeddings", "words")
            for name, value in f1[view].items()
        },
        "collapse": collapse,
        "embed_runtime": embed.seconds,
        "train_runtime": word_seconds + trained - started,
        "test_runtime": seconds_per_text * len(y["test"]),
        "seed": args.seed,
    }
    tagger.save(output_dir)
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        metrics,
        card=TaggerCard(args, evaluation=evaluation),
        rule=tagger.rule,
        calibrated=calibrated,
        reasons=Reasons(tagger, split),
        top_scores=args.top_scores,
    )
    print_once(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    print_once("\nMicro and macro F1 of")
    names = {"supervised": "labelled texts alone", "embeddings": "embeddings", "words": "words"}
    for view, name in (names | {"both": "both views"}).items():
        print_once(f"  {name:20}  {f1[view]['micro_f1']:.3f}  {f1[view]['macro_f1']:.3f}")
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print_once(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
