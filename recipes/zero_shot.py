"""Zero-shot classification: classify texts by the names of the labels, without labelled texts.

Why: there are no labelled texts yet, or you want to know which texts to label first. Methods:

auto       The mean of nli and embedding, brought to one scale and weighted by how clearly each of
           them tells the labels apart. The default: no labels are needed to choose a method.
nli        Does the text entail "This example is about {label}."? A model for natural language
           inference scores each text with each label (Yin, Hay and Roth 2019).
fill_mask  Which label's words fit the mask in "It is about {mask}."? A masked language model scores
           each text once (Schick and Schütze 2021).
embedding  How similar are the embeddings of the text and of the label's name? The fastest method.

What matters most are the phrases that stand for the labels: describe the labels (--descriptions).

    accelerate launch recipes/zero_shot.py --config recipes/configs/zero_shot_sample.yaml
    accelerate launch recipes/zero_shot.py --data texts.csv --candidate_labels bug question praise

Data: as described in README.md. If some texts have labels, the number of labels per text, or
the threshold, is tuned on the validation set ("Natural Language Processing with Transformers",
chapter 9) and evaluated on the test set. If none has, each text gets its best label (or see --top_k
and --threshold) in unlabelled_predictions.jsonl.

Expect on a CPU core with AVX-512 BF16: nli scores 3 texts of 256 tokens with 12 labels per second,
and auto little less. Accuracy on AG News: auto .64, nli .54, embedding .63. Auto is not always the
best: micro F1 on the issues of huggingface/datasets (12 labels) is .39, with nli .45.
"""

from dataclasses import dataclass
from pathlib import Path
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
from shared.data import SplitArguments, TaggingArguments, load_corpus, split_corpus
from shared.evaluation import (
    DecisionRule,
    best_cutoff,
    f1_by_threshold,
    f1_by_top_k,
    fit_calibration,
)
from shared.methods import (
    CalibratedMean,
    SentenceScorer,
    check_templates,
    flatten_phrases,
    label_phrases,
    load_scoring_model,
    note_crowding,
)
from shared.models import (
    DEFAULT_MODEL,
    TEXT_PREFIX_HELP,
    check_unknown_tokens,
    choose_text_prefix,
    resolve_model,
)
from shared.plots import plot_cutoffs
from shared.reports import (
    TaggerCard,
    describe_output,
    push_to_hub,
    split_metrics,
    tag_unlabelled,
    write_results,
)
from shared.taggers import EncoderReference, MeanScorer, Tagger, ZeroShotScorer
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress

NLI_MODEL = Path(__file__).parent / "models" / "minilm_nli"
TEMPLATES = {
    "nli": "This example is about {label}.",
    "fill_mask": "It is about {mask}.",
    "embedding": "{label}",
}
THRESHOLDS = np.linspace(0.01, 0.99, 99)  # the candidates for --threshold
CALIBRATION_TEXTS = 1000  # enough for the mean score of a label


@dataclass
class ZeroShotArguments(TaggingArguments, SplitArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    method: Literal["auto", "nli", "fill_mask", "embedding"] = flag(
        "auto", "Method that scores the labels; auto: nli and embedding (default: auto)."
    )
    model: str | None = flag(
        None,
        "A hub id or a folder (default: the adapter in recipes/models for auto and nli, else "
        f"{DEFAULT_MODEL}); fill_mask needs a masked-language-model head.",
    )
    embedding_model: str = flag(
        DEFAULT_MODEL, f"The encoder of auto, beside --model (default: {DEFAULT_MODEL})."
    )
    candidate_labels: list[str] | None = flag(None, "Labels (default: those of the data).")
    templates: list[str] | None = flag(
        None,
        "Sentences with {label} or {mask}; scores are averaged (default: nli 'This example is "
        "about {label}.', fill_mask 'It is about {mask}.', embedding '{label}').",
    )
    descriptions: str | None = flag(
        None,
        "What matters most: YAML file that maps a label to one or more phrases that say what it "
        "means (or words, for fill_mask), used instead of its name; their scores are averaged "
        "(default: none).",
    )
    calibrate: bool = flag(
        True,
        "Subtract half of each label's mean score, in logits; the scores that are written are then "
        "probabilities, learned from the validation texts (default: true).",
    )
    top_k: int | None = flag(
        None, "Labels per text (default: tuned; without labelled texts: 1).", least=1
    )
    threshold: float | None = flag(
        None, "Score from which a label applies (default: tuned).", least=0, most=1
    )
    text_prefix: str | None = flag(None, f"embedding: {TEXT_PREFIX_HELP}")
    max_length: int = flag(
        256, "Tokens of a text and its sentence together (default: 256).", least=1
    )
    bf16: bool | None = flag(None, "Compute in bfloat16 (default: if the hardware supports it).")
    per_device_eval_batch_size: int = flag(32, "Rows per batch and device (default: 32).")
    block_size: int = flag(
        10_000, "Rows scored at once; limits the memory (default: 10,000).", least=1
    )
    output_dir: str = flag("outputs/zero_shot", "Output folder (default: outputs/zero_shot).")

    def __post_init__(self):
        if self.top_k is not None and self.threshold is not None:
            raise UserError("--top_k and --threshold: use only one of them")
        entailment = self.method in ("auto", "nli")
        self.model = self.model or (str(NLI_MODEL) if entailment else DEFAULT_MODEL)
        self.candidate_labels = list(dict.fromkeys(self.candidate_labels or [])) or None
        slot = "{mask}" if self.method == "fill_mask" else "{label}"
        check_templates(self.templates or [], slot)
        if self.text_prefix and self.method in ("nli", "fill_mask"):
            raise UserError("--text_prefix: only for methods that embed texts; remove it")
        choose_precision(self)
        super().__post_init__()


def load_scorer(
    method: str, model: str, phrases: list[str], label_of: np.ndarray, args: ZeroShotArguments
) -> SentenceScorer:
    """Load the model of a method, and fill each of its templates with each phrase."""
    source = resolve_model(model)
    # Sentences and texts are embedded alike; the other methods read pairs, which need no prefix.
    prefix = choose_text_prefix(model, args.text_prefix) if method == "embedding" else None
    network, tokenizer = load_scoring_model(method, source, phrases, args.max_length, prefix)
    trainer = LengthGroupedTrainer(
        model=network,
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    slot, words = "{label}", phrases
    if method == "fill_mask":
        slot, words = "{mask}", [tokenizer.mask_token]
    templates = args.templates or [TEMPLATES[method]]
    sentences = [template.replace(slot, word) for template in templates for word in words]
    label_of = np.tile(label_of, len(templates))  # the label of each sentence
    return SentenceScorer(method, trainer, tokenizer, sentences, label_of, args.block_size)


def main() -> None:
    """Load, write the labels as phrases, score, tune on validation, evaluate once, save."""
    args = parse_arguments(ZeroShotArguments, description=__doc__)
    output_dir = start_recipe(args)
    corpus, held_out = load_corpus(args, label_names=args.candidate_labels, labels_required=False)

    # A label has one or more phrases. One or two methods score each text with each label.
    names = corpus.label_names
    phrases, label_of = flatten_phrases(label_phrases(names, args.descriptions))
    models = {args.method: args.model}
    if args.method == "auto":
        models = {"nli": args.model, "embedding": args.embedding_model}
    scorers = [load_scorer(method, models[method], phrases, label_of, args) for method in models]
    check_unknown_tokens(scorers[0].tokenizer, corpus.dataset["text"])

    def score(texts):
        return [scorer(texts) for scorer in scorers]

    def save_tagger(mean, rule, calibration=None):
        encoders = [
            EncoderReference.of(
                model, args.max_length, scorer.tokenizer.init_kwargs.get("text_prefix")
            )
            for model, scorer in zip(models.values(), scorers, strict=True)
        ]
        parts = zip(scorers, encoders, mean.calibrations, strict=True)
        members = [
            Tagger(names, rule, ZeroShotScorer(scorer, encoder, phrases, shift))
            for scorer, encoder, shift in parts
        ]
        tagger = members[0]
        if args.method == "auto":
            tagger = Tagger(names, rule, MeanScorer(members, list(models), mean.weights))
        tagger.calibration = calibration
        tagger.save(output_dir)

    # Without labelled texts nothing can be tuned or evaluated: calibrate, tag all texts and stop.
    if not len(corpus.labelled):
        if held_out:
            raise UserError(f"{args.data}: has no labels; name the file with labels as --data")
        if args.push_to_hub:
            raise UserError("--push_to_hub: without labelled texts there is no card; remove it")
        step = -(-len(corpus.dataset) // CALIBRATION_TEXTS)
        reference = score(corpus.dataset["text"][::step])
        mean = CalibratedMean.of(reference, shift=args.calibrate)
        note_crowding(mean(reference), names)
        rule = DecisionRule(top_k=args.top_k or 1)
        if args.threshold is not None:
            rule = DecisionRule.of(args.threshold, len(names))
        if args.process_index == 0:
            save_tagger(mean, rule)
        tag_unlabelled(output_dir, corpus, args)
        return

    # Split, and score the validation and test sets.
    split = split_corpus(corpus, held_out, args, seed=args.seed)
    print_once(split.describe())
    y, started = split.labels, perf_counter()
    raw = {"test": score(split.rows["test"]["text"][:])}
    test_runtime = perf_counter() - started
    # Training texts teach these methods nothing, so they may take the place of validation texts.
    tuning = "valid" if len(y["valid"]) else "train"
    raw[tuning] = score(split.rows[tuning]["text"][:])
    if args.process_index != 0:
        tag_unlabelled(output_dir, corpus, args)
        return
    mean = CalibratedMean.of(raw[tuning], shift=args.calibrate)
    scores = {part: mean(values) for part, values in raw.items()}
    note_crowding(scores["test"], names)

    # Tune on validation: either a fixed number of labels per text, or a threshold for all labels.
    by_k = f1_by_top_k(scores[tuning], y[tuning])
    by_threshold = f1_by_threshold(scores[tuning], y[tuning], THRESHOLDS)
    k, threshold = args.top_k, args.threshold
    if k is None and threshold is None:
        k, threshold = 1, None
        if not corpus.single_label:
            k, threshold = best_cutoff(by_k, by_threshold, THRESHOLDS)
    print(f"labels per text: {k}" if k else f"a label applies from a score of {threshold:.2f}")
    rule = DecisionRule(top_k=k) if k else DecisionRule.of(threshold, len(names))
    predicted = {part: rule.choose(values) for part, values in scores.items()}

    # Evaluate on the test set, once. Save the tagger, metrics, predictions, plots and the card.
    metrics = split_metrics(split, scores, predicted)
    metrics |= {"top_k": k, "threshold": threshold}
    metrics |= {"test_runtime": test_runtime, "seed": args.seed}
    calibration = None
    if args.calibrate:
        options = {"single_label": corpus.single_label}
        calibration = fit_calibration(scores[tuning], y[tuning], predicted[tuning], **options)
    save_tagger(mean, rule, calibration)
    limits = "Only the number of labels per text was tuned; a few labelled texts give better F1."
    evaluation = (
        f"The figures are those on {len(y['test']):,} held-out texts. No model was trained; at "
        f"most rule and calibration were tuned, on {len(y[tuning]):,} other texts."
    )
    card = TaggerCard(args, evaluation=evaluation, limits=limits)
    test = scores["test"], predicted["test"]
    options = {"card": card, "rule": rule, "top_scores": args.top_scores}
    options |= {"calibrated": calibration and calibration.apply(*test)}
    report = write_results(output_dir, split, *test, metrics, **options)
    plot_cutoffs(by_k, THRESHOLDS, by_threshold, output_dir / "plots" / "cutoffs.png")
    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
