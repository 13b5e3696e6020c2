"""Classify texts by prompting a causal language model, with a few labelled texts or with none.

Why: nothing is trained. A template makes a prompt of a text, and the model says how likely the
words for each label are as its continuation. Methods:

zero_shot  The prompt holds the text only.
few_shot   Before the text the prompt shows labelled ones, with their answers (Brown et al. 2020):
           the same for all texts, of all labels in turn, or those that are nearest to the text
           (Liu et al. 2022), in one or several orders.

The score of a word is the mean log probability of its tokens. A model prefers some words whatever
the text, so the score is compared with that of the same word after other texts (batch calibration,
Zhou et al. 2024) or after texts without content, such as "N/A" (contextual calibration, Zhao et al.
2021). What prompts have in common is read once, and so is a text for all labels.

    accelerate launch recipes/prompts.py --config recipes/configs/prompts_sample.yaml
    accelerate launch recipes/prompts.py --data texts.csv --candidate_labels bug question praise
    accelerate launch recipes/prompts.py --data labelled.csv --method few_shot --prompts mine.yaml

What matters most is the prompt, above all several words for each label: write your own (--prompts,
as recipes/configs/data/ag_news_prompts.yaml). Choose it on training texts, not on test texts.

Data: as described in README.md. few_shot takes its demonstrations from the training set, so that
--train_size 8 is all that it sees. With several labels per text, a text gets a fixed number of
labels, or all above a threshold, whichever has the higher F1 on the validation set or, without one,
on training texts that are no demonstrations.

Expect of the default model on a CPU core with AMX: 16 texts of 70 tokens per second, 7 with eight
demonstrations, 1 with --choose nearest. Accuracy on 1,000 test rows of AG News, without labelled
texts: .824, or .749 without calibration; with eight of them .790 (recipes/FIGURES.md).
"""

from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
from transformers import TrainingArguments

from shared.cli import (
    UserError,
    atomic_write,
    choose_precision,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import (
    SplitArguments,
    TaggingArguments,
    cache_folder,
    load_corpus,
    split_corpus,
)
from shared.evaluation import (
    DecisionRule,
    best_cutoff,
    f1_by_threshold,
    f1_by_top_k,
    fit_calibration,
)
from shared.llm import draw_examples
from shared.methods import (
    CachedEmbedder,
    Demonstrations,
    MeanPooling,
    PromptScorer,
    Scoring,
    load_words_after_prompts,
    read_prompt_templates,
)
from shared.models import (
    DEFAULT_LANGUAGE_MODEL,
    DEFAULT_MODEL,
    check_unknown_tokens,
    choose_text_prefix,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_language_model,
    resolve_model,
)
from shared.reports import (
    TaggerCard,
    describe_output,
    push_to_hub,
    split_metrics,
    tag_unlabelled,
    write_results,
)
from shared.taggers import EncoderReference, LanguageModelScorer, Tagger
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress

TEMPLATES = ["{text}\nThis text is about {label}"]
THRESHOLDS = np.linspace(0.01, 0.99, 99)
MOST_TUNING_ROWS = 300  # of the training set, where there is no validation set
CALIBRATION_TEXTS = 200  # enough for the mean score of a word
FEWEST_TO_CALIBRATE = 20  # the mean of fewer says more of them than of the model


@dataclass
class PromptsArguments(TaggingArguments, SplitArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    method: Literal["zero_shot", "few_shot"] = flag(
        "zero_shot", "Without or with labelled texts in the prompt (default: zero_shot)."
    )
    model: str = flag(
        DEFAULT_LANGUAGE_MODEL,
        f"Causal language model: a hub id or a folder (default: {DEFAULT_LANGUAGE_MODEL}, of the "
        "extra llm).",
    )
    candidate_labels: list[str] | None = flag(None, "Labels (default: those of the data).")
    prompts: str | None = flag(
        None,
        "What matters most: YAML file with an instruction, templates with {text} and, at the end, "
        "{label}, whose scores are averaged, and a verbalizer, the words of each label (default: "
        f"{TEMPLATES[0]!r} and the names of the labels).",
    )
    chat: bool = flag(
        False,
        "Write prompts by the chat template of the model, as a conversation (default: false).",
    )
    demonstrations: int = flag(
        8, "few_shot: labelled texts in the prompt (default: 8).", least=1, most=1000
    )
    choose: Literal["balanced", "nearest"] = flag(
        "balanced",
        "few_shot: training texts of all labels in turn, the same for every text; or those nearest "
        "to each text by their embeddings, which is slower (default: balanced).",
    )
    orders: int = flag(
        1, "few_shot: random orders of the demonstrations to average (default: 1).", least=1
    )
    embedding_model: str = flag(
        DEFAULT_MODEL, f"--choose nearest: the encoder (default: {DEFAULT_MODEL})."
    )
    normalization: Literal["mean", "sum"] = flag(
        "mean", "Log probability of several tokens: their mean or sum (default: mean)."
    )
    calibration: Literal["batch", "contextual", "none"] = flag(
        "batch",
        "Subtract the score of a word after 200 other texts, whose labels are not read and should "
        "be about equally frequent; contextual: after texts without content (default: batch).",
    )
    top_k: int | None = flag(None, "Labels per text (default: 1, or tuned).", least=1)
    threshold: float | None = flag(
        None, "Score from which a label applies (default: tuned).", least=0, most=1
    )
    max_length: int = flag(
        256,
        "Tokens of a text, also of a demonstration; the prompt around it comes on top (default: "
        "256).",
        least=1,
    )
    bf16: bool | None = flag(None, "Compute in bfloat16 (default: if the hardware supports it).")
    per_device_eval_batch_size: int = flag(32, "Prompts per batch and device (default: 32).")
    block_size: int = flag(
        10_000, "Texts scored at once; limits the memory (default: 10,000).", least=1
    )
    output_dir: str = flag("outputs/prompts", "Output folder (default: outputs/prompts).")

    def __post_init__(self):
        if self.choose == "nearest" and self.calibration == "contextual":
            raise UserError(
                "--calibration contextual: texts without content have no nearest demonstrations; "
                "take batch or none"
            )
        if self.top_k is not None and self.threshold is not None:
            raise UserError("--top_k and --threshold: use only one of them")
        self.candidate_labels = list(dict.fromkeys(self.candidate_labels or [])) or None
        choose_precision(self)
        super().__post_init__()


def load_embedder(args: PromptsArguments, options: dict) -> tuple[CachedEmbedder, EncoderReference]:
    """Load the encoder that finds the nearest demonstrations."""
    source = resolve_model(args.embedding_model, flag="embedding_model")
    prefix = choose_text_prefix(args.embedding_model, None)
    tokenizer = load_tokenizer(source, prefix)
    encoder = load_encoder(source, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    trainer = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        data_collator=PaddingCollator(tokenizer),
        bf16_predictions=args.bf16,
        **options,
    )
    embed = CachedEmbedder(trainer, tokenizer, source, cache_folder(args.cache_dir))
    return embed, EncoderReference.of(args.embedding_model, args.max_length, prefix)


def main() -> None:
    """Load, choose demonstrations, write prompts, score, tune, evaluate once, save."""
    args = parse_arguments(PromptsArguments, description=__doc__)
    output_dir, few_shot = start_recipe(args), args.method == "few_shot"
    corpus, held_out = load_corpus(
        args, label_names=args.candidate_labels, labels_required=few_shot
    )
    names, texts = corpus.label_names, corpus.dataset["text"][:]
    prompts = read_prompt_templates(args.prompts, names, "{label}", TEMPLATES)

    # The language model. The Trainer only predicts here.
    with args.main_process_first(desc="converting the model"):
        folder = resolve_language_model(args.model, cache_folder(args.cache_dir))
    model, tokenizer = load_words_after_prompts(folder, args.bf16)
    check_unknown_tokens(tokenizer, texts)
    options = {"args": args, "callbacks": [ReadableProgress()]}
    collator = PaddingCollator(tokenizer)
    trainer = LengthGroupedTrainer(model=model, data_collator=collator, **options)

    # Split. Demonstrations come from the training set; `hidden` are texts whose labels are not
    # read, and which no prompt of another text shows.
    split, hidden, demonstrations, encoder = None, np.arange(len(texts)), Demonstrations(), None
    if len(corpus.labelled):
        split = split_corpus(corpus, held_out, args, seed=args.seed)
        print_once(split.describe())
        train, y_train = split.sources["train"][1], split.labels["train"]
        rest = np.arange(len(train))  # of the training set, without what every prompt shows
    elif held_out:
        raise UserError(f"{args.data}: has no labels; name the file with labels as --data")
    if few_shot:
        settings = {"n": args.demonstrations, "n_orders": args.orders, "seed": args.seed}
        if args.choose == "balanced":
            shown = draw_examples(y_train, args.demonstrations, seed=args.seed)
            rest = np.delete(rest, shown)
        else:
            shown = np.flatnonzero(y_train.any(axis=1))
            embed, encoder = load_embedder(args, options)
            settings |= {"vectors": embed([texts[row] for row in train[shown]]), "embed": embed}
        answers = [
            ", ".join(prompts.words[label][0] for label in np.flatnonzero(y_train[row]))
            for row in shown
        ]
        demonstrations = Demonstrations([texts[row] for row in train[shown]], answers, **settings)
    if split:
        hidden = np.concatenate([train[rest], split.unlabelled])

    # Prompts, calibrated without labels.
    scoring = Scoring(args.normalization, args.chat, args.max_length)
    score = PromptScorer(trainer, tokenizer, prompts, demonstrations, scoring, args.block_size)
    others = np.random.default_rng(args.seed).permutation(hidden)[:CALIBRATION_TEXTS]
    if args.calibration == "contextual":
        score.calibrate()
    elif args.calibration == "batch" and len(others) >= FEWEST_TO_CALIBRATE:
        score.calibrate([texts[row] for row in others])
    elif args.calibration == "batch":
        print_once(
            f"note: not calibrated: it takes {FEWEST_TO_CALIBRATE} texts beside the test texts and "
            "the demonstrations; or --calibration contextual"
        )
    reference = EncoderReference.of(folder, args.max_length)
    if args.model == DEFAULT_LANGUAGE_MODEL:  # its folder is in a cache, which others do not have
        reference = replace(reference, model=args.model)
    tagger = Tagger(names, DecisionRule(top_k=1), LanguageModelScorer(score, reference, encoder))
    if args.process_index == 0:
        with atomic_write(output_dir / "prompt.txt") as file:
            file.write(score.show(texts[hidden[0]] if len(hidden) else texts[0]))

    # Without labelled texts nothing can be tuned or evaluated: tag all texts and stop.
    if split is None:
        if args.push_to_hub:
            raise UserError("--push_to_hub: without labelled texts there is no card; remove it")
        tagger.rule = DecisionRule(top_k=args.top_k or 1)
        if args.threshold is not None:
            tagger.rule = DecisionRule.of(args.threshold, len(names))
        if args.process_index == 0:
            tagger.save(output_dir)
        tag_unlabelled(output_dir, corpus, args)
        return

    # Score the test set, and the rows that tune the rule: never those that the prompts show.
    started = perf_counter()
    scores = {"test": score(split.rows["test"]["text"][:])}
    test_runtime = perf_counter() - started
    tuning, y_tuning = "valid", split.labels["valid"]
    if len(y_tuning):
        scores["valid"] = score(split.rows["valid"]["text"][:])
    else:
        tuning, rows = "train", np.random.default_rng(args.seed).permutation(rest)
        rows = rows[:MOST_TUNING_ROWS]
        y_tuning, scores["train"] = y_train[rows], score([texts[row] for row in train[rows]])
    if args.process_index != 0:
        tag_unlabelled(output_dir, corpus, args)
        return

    # Tune: either a fixed number of labels per text, or a threshold for all labels.
    k, threshold = args.top_k, args.threshold
    if k is None and threshold is None:
        k = 1 if corpus.single_label else max(1, round(y_train.sum(axis=1).mean()))
        if len(y_tuning) and not corpus.single_label:
            by_threshold = f1_by_threshold(scores[tuning], y_tuning, THRESHOLDS)
            k, threshold = best_cutoff(
                f1_by_top_k(scores[tuning], y_tuning), by_threshold, THRESHOLDS
            )
    print(f"labels per text: {k}" if k else f"a label applies from a score of {threshold:.2f}")
    tagger.rule = rule = DecisionRule(top_k=k) if k else DecisionRule.of(threshold, len(names))
    predicted = {part: rule.choose(values) for part, values in scores.items()}

    # Evaluate on the test set, once. Save the tagger, metrics, predictions, plots and the card.
    metrics = split_metrics(split, scores, predicted)
    metrics |= {"top_k": k, "threshold": threshold, "demonstrations": demonstrations.n}
    metrics |= {"test_runtime": test_runtime, "seed": args.seed}
    metrics["test_samples_per_second"] = len(predicted["test"]) / test_runtime
    tagger.calibration = fit_calibration(
        scores[tuning], y_tuning, predicted[tuning], single_label=corpus.single_label
    )
    tagger.save(output_dir)
    seen = f"The prompts show {demonstrations.n:,} labelled texts" if few_shot else "No labels seen"
    evaluation = (
        f"The figures are those on {len(predicted['test']):,} held-out texts. No model was "
        f"trained. {seen}; rule and calibration were tuned on {len(y_tuning):,} other texts. "
        "prompt.txt has a prompt as the model reads it."
    )
    limits = (
        f"The model reads the first {args.max_length} tokens of a text. Another prompt, other "
        "demonstrations or another order of them can change the figures by a tenth."
    )
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        metrics,
        card=TaggerCard(args, evaluation=evaluation, limits=limits),
        rule=rule,
        calibrated=tagger.calibration.apply(scores["test"], predicted["test"]),
        top_scores=args.top_scores,
    )
    print(f"\nTest ({len(predicted['test']):,} texts)\n\n{report}")
    print(f"{metrics['test_samples_per_second']:.1f} texts per second")
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
