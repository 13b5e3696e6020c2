"""Classify texts without any label: by what a model makes of the labels' names.

Why: nobody has labelled anything yet, or one looks where labelling should begin. Three methods:

nli        Does the text entail "This example is about {label}."? Scored by a model for natural
           language inference, each text with each label (Yin, Hay and Roth 2019).
fill_mask  Which label's words fill the gap in "It is about {mask}."? Scored by a masked language
           model, each text once (Schick and Schütze 2021).
embedding  How near are the vectors of the text and of the label's name? Each text once; fastest.

    accelerate launch recipes/zero_shot.py --config recipes/configs/zero_shot_sample.yaml
    accelerate launch recipes/zero_shot.py --data texts.csv --candidate_labels bug question praise

Labels in the data serve to choose and to measure: how many of the best labels a text gets, or from
which score, is swept on validation rows ("Natural Language Processing with Transformers", chapter
9), and the test rows are looked at once. Without any, each text gets its best one (--top_k,
--threshold) in predictions.jsonl.

Expect on a CPU core with AVX-512 BF16: by nli 3 texts of 256 tokens with 12 labels per second.
Micro F1 on AG News .57 by nli, .63 by embedding (.49 and .62 with --calibrate false); on issues of
huggingface/datasets (12 labels) .44 by nli, .32 by embedding.
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
    progress,
    start_recipe,
)
from shared.data import SplitArguments, load_corpus, split_corpus
from shared.evaluation import f1_by_threshold, f1_by_top_k, softmax, top_k
from shared.methods import (
    MaskedWords,
    MeanPooling,
    calibrate,
    check_lengths,
    check_templates,
    entailment_classes,
    entailment_scores,
    flatten_phrases,
    label_phrases,
    normalized,
    tokenize_texts,
)
from shared.models import (
    DEFAULT_MODEL,
    limit_length,
    load_encoder,
    load_masked_language_model,
    load_sequence_classifier,
    load_tokenizer,
    resolve_model,
)
from shared.plots import plot_cutoffs
from shared.reports import (
    TaggerCard,
    describe_output,
    format_examples,
    split_metrics,
    write_results,
    write_tags,
)
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress

NLI_MODEL = Path(__file__).parent / "models" / "minilm_nli"
TEMPLATES = {
    "nli": "This example is about {label}.",
    "fill_mask": "It is about {mask}.",
    "embedding": "{label}",
}
THRESHOLDS = np.linspace(0.01, 0.99, 99)


@dataclass
class ZeroShotArguments(SplitArguments, TrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    method: Literal["nli", "fill_mask", "embedding"] = flag(
        "nli", "What scores a label: nli, fill_mask, embedding (default: nli)."
    )
    model: str | None = flag(
        None,
        "A hub id or a folder (default: for nli the adapter in recipes/models, else "
        f"{DEFAULT_MODEL}; fill_mask needs one with a head for hidden tokens).",
    )
    candidate_labels: list[str] | None = flag(None, "Labels (default: those of the data).")
    templates: list[str] | None = flag(
        None,
        "Sentences with {label}, for fill_mask with {mask}; the scores of several are averaged "
        "(default: nli 'This example is about {label}.', fill_mask 'It is about {mask}.', "
        "embedding the label alone).",
    )
    descriptions: str | None = flag(
        None,
        "YAML file, label to phrase or to several, whose scores are averaged; for fill_mask the "
        "words that stand for it (default: the labels' names).",
    )
    calibrate: bool = flag(True, "Take away what a name attracts from any text (default: true).")
    top_k: int | None = flag(None, "Labels per text (default: by validation; without labels 1).")
    threshold: float | None = flag(None, "Score from which a label applies (default: as top_k).")
    max_length: int = flag(256, "Tokens of a text and a sentence together (default: 256).")
    bf16: bool | None = flag(None, "Compute in bfloat16 (default: where the hardware has it).")
    per_device_eval_batch_size: int = flag(32, "Rows per batch and device (default: 32).")
    block_size: int = flag(10_000, "Rows scored at a time, for memory (default: 10,000).")
    output_dir: str = flag("outputs/zero_shot", "Folder (default: outputs/zero_shot).")

    def __post_init__(self):
        if self.top_k is not None and self.threshold is not None:
            raise UserError("--top_k and --threshold: give one of them")
        for name in ("top_k", "block_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be 1 or more")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError(f"--threshold {self.threshold}: must be from 0 to 1")
        self.model = self.model or (str(NLI_MODEL) if self.method == "nli" else DEFAULT_MODEL)
        self.candidate_labels = list(dict.fromkeys(self.candidate_labels or [])) or None
        self.templates = self.templates or [TEMPLATES[self.method]]
        check_templates(self.templates, "{mask}" if self.method == "fill_mask" else "{label}")
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, put the labels into words, score, choose on validation, look at the test once, save."""
    args = parse_arguments(ZeroShotArguments, description=__doc__)
    output_dir = start_recipe(args)
    corpus, held_out = load_corpus(args, label_names=args.candidate_labels, labels_required=False)
    names = corpus.label_names
    phrases, owner = flatten_phrases(label_phrases(names, args.descriptions))
    # Scores of all phrases of a label in all templates are averaged.
    owner = np.tile(owner, len(args.templates))

    # What the model reads; its output becomes one score per text, template and phrase
    folder = resolve_model(args.model)
    tokenizer = load_tokenizer(folder)
    slot, words = "{label}", phrases
    if args.method == "nli":
        model = base = load_sequence_classifier(folder, tokenizer=tokenizer)
        classes = entailment_classes(model.config)
    elif args.method == "fill_mask":
        base = load_masked_language_model(folder, tokenizer=tokenizer)
        model = MaskedWords(base, tokenizer, phrases)
        slot, words = "{mask}", [tokenizer.mask_token]
    else:
        base = load_encoder(folder, tokenizer=tokenizer)
        model = MeanPooling(base)
    limit_length(tokenizer, base, args.max_length)
    sentences = [template.replace(slot, word) for template in args.templates for word in words]
    check_lengths(tokenizer, sentences)
    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )

    def score_block(texts):
        if args.method == "embedding":
            vectors = normalized(trainer.predict(tokenize_texts(tokenizer, texts)).predictions)
            return (1 + vectors @ label_vectors.T) / 2
        found = trainer.predict(tokenize_texts(tokenizer, texts, sentences)).predictions
        found = entailment_scores(found, classes) if args.method == "nli" else softmax(found)
        return found.reshape(len(texts), -1)

    def score(texts):
        step = max(1, args.block_size // len(sentences))
        starts = progress(range(0, len(texts), step), "scoring", unit="blocks")
        found = np.concatenate([score_block(texts[i : i + step]) for i in starts])
        return np.stack([found[:, owner == i].mean(axis=1) for i in range(len(names))], axis=1)

    if args.method == "embedding":
        label_vectors = normalized(
            trainer.predict(tokenize_texts(tokenizer, sentences)).predictions
        )

    # Without any label there is nothing to choose by: each text gets its best ones
    if not len(corpus.labelled):
        if held_out:
            raise UserError(f"{args.data}: has no labels; give --data the file that has them")
        texts = corpus.dataset["text"][:]
        scores = score(texts)
        if args.calibrate:
            scores = calibrate(scores, scores)
        if args.process_index == 0:
            k = args.top_k or 1
            chosen = top_k(scores, k) if args.threshold is None else scores >= args.threshold
            write_tags(output_dir / "predictions.jsonl", corpus.dataset, names, scores, chosen)
            print(f"\n{format_examples(texts[:5], scores[:5], chosen[:5], names)}\n")
            print(f"All {len(texts):,} texts are in {output_dir}/predictions.jsonl")
        return

    # How many labels, or from which score: by validation
    split = split_corpus(corpus, held_out, args, seed=args.seed)
    print_once(split.describe())
    y, started = split.labels, perf_counter()
    scores = {"test": score(split.rows["test"]["text"][:])}
    test_runtime = perf_counter() - started
    scores["valid"] = score(split.rows["valid"]["text"][:])
    untagged = corpus.dataset.select(corpus.unlabelled[:3])["text"][:]
    if untagged:
        scores["unlabelled"] = score(untagged)
    if args.process_index != 0:
        return
    if args.calibrate:
        scores = {part: calibrate(found, scores["valid"]) for part, found in scores.items()}
    by_k = f1_by_top_k(scores["valid"], y["valid"])
    by_threshold = f1_by_threshold(scores["valid"], y["valid"], THRESHOLDS)
    k, threshold = args.top_k, args.threshold
    if k is None and threshold is None:
        if corpus.single_label:
            k = 1
        elif by_k["micro_f1"].max() >= by_threshold["micro_f1"].max():
            k = int(by_k["micro_f1"].argmax()) + 1
        else:
            threshold = float(THRESHOLDS[by_threshold["micro_f1"].argmax()])
    print_once(
        f"a text gets its {k} best labels" if k else f"a label applies from score {threshold:.2f}"
    )
    predicted = {p: top_k(found, k) if k else found >= threshold for p, found in scores.items()}

    # One look at the test rows; then everything a person wants to see
    chosen = {"top_k": k, "threshold": threshold, "test_runtime": test_runtime}
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        {**split_metrics(y, scores, predicted), **chosen, "seed": args.seed},
        card=TaggerCard(
            limits="It has learned nothing but how many labels to give; a few labelled texts do more."
        ),
    )
    plot_cutoffs(by_k, THRESHOLDS, by_threshold, output_dir / "plots" / "cutoffs.png")
    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    if untagged:
        print("\nTags for texts without labels")
        print(format_examples(untagged, scores["unlabelled"], predicted["unlabelled"], names))
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
