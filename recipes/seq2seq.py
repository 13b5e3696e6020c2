"""Train a model that reads a text and writes another one: translations, titles, summaries.

Why: an encoder-decoder learns from pairs alone what a rule cannot say. Each step stands here: a
joint vocabulary, padded labels that do not count, a decoder that reads the labels shifted right,
smoothed labels, and generation by greedy, beam or random search with its length penalty. The model
is measured beside two systems that learn nothing: the source itself, and its first sentence.

    accelerate launch recipes/seq2seq.py --config recipes/configs/seq2seq_multi30k.yaml
    accelerate launch recipes/seq2seq.py --data pairs.csv --source_column text --target_column title

- parts: a transformer from its parts (Vaswani et al. 2017; shared/models/text_generators.py).
- rnn: a GRU that reads in both directions, and one that writes with attention (Bahdanau et al.
  2015; Luong et al. 2015; shared/models/recurrent_generators.py).
- a folder or hub id of T5, BART, Marian or the like is trained further with its own vocabulary; so
  is an output folder of this recipe. With --evaluate_only true it is only measured.

With --copy true, parts and rnn can also copy tokens of the source (See et al. 2017). With --encoder
parts reads with a pretrained encoder, whose token vectors the decoder shares (Rothe et al. 2020).
It learns slower than the rest. It also gives the vocabulary: an uncased one writes no capitals, and
a decoded text has spaces around marks.

Data: two columns of any file that the other recipes read, by default source and target, or body and
title, as raw GitHub issues have them. Rows that lack a text and repeated pairs are left out and
counted; nearly equal sources stay on one side of a random split.

The figures are those of the reference libraries (sacrebleu, rouge-score, NLTK), times 100, with
intervals of 95 % by a bootstrap over the test texts. predictions.jsonl has the output for each.
The folder translates in `augmentation --augmentations back_translation`.

Expect BLEU 30.4 from English to German on Multi30k, from scratch in seven minutes of processor
time, and ROUGE-1 37.3 for titles of issues and pull requests; their first sentence has 26.8
(recipes/FIGURES.md).
"""

import math
from dataclasses import dataclass

from transformers import Seq2SeqTrainingArguments, set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
    write_json,
)
from shared.cli.files import atomic_write
from shared.data import PairArguments, load_pairs, write_json_lines
from shared.evaluation import TEXT_METRICS, first_sentence, score_texts
from shared.methods import GenerationArguments, generation_settings
from shared.models import (
    Seq2SeqArguments,
    build_seq2seq_model,
    load_encoder,
    load_tokenizer,
    load_translator,
    longest_input,
    resolve_model,
    train_pair_tokenizer,
)
from shared.plots import plot_training_curve
from shared.reports import (
    push_to_hub,
    seq2seq_usage,
    text_samples,
    text_score_table,
    write_model_card,
)
from shared.training import (
    CheckpointOnSignal,
    EpochTrainingArguments,
    ReadableProgress,
    SequenceCollator,
    SequenceLoss,
    SequenceTrainer,
    check_health,
    decode_texts,
    find_checkpoint,
    grouped_optimizer,
    losses_of_tokens,
    remove_checkpoints,
    tokenize_pairs,
)

ARCHITECTURES = ("parts", "rnn")  # from random weights


@dataclass
class SequenceArguments(
    PairArguments,
    Seq2SeqArguments,
    GenerationArguments,
    EpochTrainingArguments,
    Seq2SeqTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    architecture: str = flag(
        "parts",
        "parts, rnn; or a sequence-to-sequence model to train further, a hub id or a folder, also "
        "an output folder of this recipe (default: parts).",
    )
    vocab_size: int = flag(
        8000,
        "From scratch: maximum number of tokens, pieces of words of both sides; two more begin and "
        "pad texts (default: 8000).",
        least=3,
        most=10_000_000,
    )
    source_prefix: str = flag(
        "", "Put before each source, such as 'summarize: ' for T5 (default: nothing)."
    )
    max_source_length: int = flag(
        256, "Tokens of a source; longer ones are truncated (default: 256).", least=2
    )
    max_target_length: int = flag(
        64,
        "Tokens of a target to learn, and of a text to write (default: 64).",
        least=2,
    )
    metrics: list[str] = flag(
        ["bleu", "chrf", "rouge"],
        f"Measured on the test set: {', '.join(TEXT_METRICS)} (default: bleu chrf rouge).",
    )
    evaluate_only: bool = flag(
        False, "Only measure a trained model, such as with another search (default: false)."
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/seq2seq", "Output folder (default: outputs/seq2seq).")
    num_train_epochs: float = flag(10, "Epochs (default: 10).")
    learning_rate: float = flag(
        1e-3, "Peak learning rate (default: 1e-3; to train a large model further, 5e-5)."
    )
    lr_scheduler_type: str = flag("cosine", "Course of the learning rate (default: cosine).")
    label_smoothing_factor: float = flag(
        0.1, "Share of the target that is divided among all tokens (default: .1)."
    )
    adam_beta2: float = flag(0.98, "Second moment of AdamW (default: .98).")
    per_device_train_batch_size: int = flag(64, "Pairs per step and device (default: 64).")
    metric_for_best_model: str | None = flag(
        "loss",
        "Validation metric that selects the best checkpoint; with --predict_with_generate also "
        "those of --metrics, such as bleu (default: loss).",
    )
    predict_with_generate: bool = flag(
        False, "Measure --metrics in each evaluation, which takes longer (default: false)."
    )
    remove_unused_columns: bool = flag(False, "Must stay false: the collator reads all columns.")

    def __post_init__(self):
        for name in ("generation_max_length", "generation_num_beams", "generation_config"):
            if getattr(self, name) is not None:
                raise UserError(f"--{name}: use --num_beams and --max_target_length")
        if self.evaluate_only and self.architecture in ARCHITECTURES:
            raise UserError("--evaluate_only: name a trained model with --architecture")
        if self.encoder and self.architecture != "parts" and not self.evaluate_only:
            raise UserError(f"--encoder: not for --architecture {self.architecture}; leave it out")
        if self.encoder_learning_rate and not self.encoder:
            raise UserError("--encoder_learning_rate: name a pretrained --encoder, or leave it out")
        super().__post_init__()


def main() -> None:
    """Load and split pairs, learn a vocabulary, train, write, measure beside baselines, save."""
    args = parse_arguments(SequenceArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    set_seed(args.seed)

    # Load and split. What learns nothing is measured first, so that a metric that cannot read the
    # texts says so before the training.
    with args.main_process_first(desc="loading pairs"):
        pairs = load_pairs(args)
    print_once(f"\nData\n{pairs.describe()}")
    part = "test" if pairs.sources["test"] else "valid"
    sources, references = pairs.sources[part], pairs.references[part]
    scores = {}
    if sources:
        scores["source as it is"] = score_texts(sources, references, args.metrics)
        firsts = [first_sentence(source) for source in sources]
        scores["its first sentence"] = score_texts(firsts, references, args.metrics)

    # The vocabulary, of both sides, and the model.
    is_new = args.architecture in ARCHITECTURES
    optimizer = None  # that of --optim, with one learning rate
    if is_new and args.encoder:
        folder = resolve_model(args.encoder, flag="encoder")
        tokenizer = load_tokenizer(folder)
        encoder = load_encoder(folder, tokenizer=tokenizer, dropout=args.dropout)
        model = build_seq2seq_model(args, tokenizer, encoder)
        optimizer = grouped_optimizer(
            *(args, model),
            learning_rate=args.encoder_learning_rate or args.learning_rate / 10,
            head_learning_rate=args.learning_rate,
        )
    elif is_new:
        texts = pairs.sources["train"] + pairs.targets("train")
        tokenizer = train_pair_tokenizer(texts, args.vocab_size)
        model = build_seq2seq_model(args, tokenizer)
    else:
        folder = resolve_model(args.architecture, flag="architecture")
        tokenizer, model = load_tokenizer(folder), load_translator(folder)
        longest = longest_input(model) or math.inf
        for name in ("max_source_length", "max_target_length"):
            if getattr(args, name) > longest:
                raise UserError(f"--{name} {getattr(args, name)}: the model reads {longest:,}")
    tokenizer.model_max_length = args.max_source_length
    n_weights = model.num_parameters()
    print_once(f"{len(tokenizer):,} tokens, {n_weights:,} weights")
    generation = generation_settings(args, args.max_target_length)
    model.generation_config.update(**generation)  # the saved model writes in the same way

    # Rows of tokens; a batch pads the labels with -100, and shifts them right for the decoder.
    rows = {
        name: tokenize_pairs(
            [args.source_prefix + text for text in texts],
            pairs.targets(name),
            tokenizer,
            max_source_length=args.max_source_length,
            max_target_length=args.max_target_length,
            start_token_id=model.config.decoder_start_token_id,
        )
        for name, texts in pairs.sources.items()
        if texts
    }

    def compute_metrics(output) -> dict[str, float]:
        if not trainer.args.predict_with_generate:
            return {}  # the loss alone, which the Trainer adds
        written, right = (decode_texts(tokenizer, ids) for ids in (output[0], output[1]))
        return score_texts(written, [[text] for text in right], args.metrics)

    trainer = SequenceTrainer(
        model=model,
        args=args,
        train_dataset=rows["train"],
        eval_dataset=rows.get("valid"),
        processing_class=tokenizer,
        data_collator=SequenceCollator(tokenizer, model.prepare_decoder_input_ids_from_labels),
        compute_loss_func=SequenceLoss(args.label_smoothing_factor),
        preprocess_logits_for_metrics=losses_of_tokens,
        compute_metrics=compute_metrics,
        optimizer_cls_and_kwargs=optimizer,
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    if args.health_check:
        longest = args.max_source_length
        lengths = [len(ids) for ids in rows["train"]["input_ids"]]
        check_health(trainer, longest, lengths=lengths, uninformed=math.log(len(tokenizer)))
        return

    training: dict[str, float] = {}
    if not args.evaluate_only:
        print_once("\nTraining")
        training = trainer.train(resume_from_checkpoint=checkpoint).metrics
    history = list(trainer.state.log_history)
    trainer.save_model()  # before the texts are written

    # Evaluate: the loss per token, then a text for each source.
    trainer.args.predict_with_generate = False
    losses = {
        name: trainer.predict(rows[name]).metrics["test_loss"]
        for name in ("valid", "test")
        if name in rows
    }
    predictions: list[str] = []
    if sources:
        print_once(f"\nWriting {len(sources):,} texts")
        set_seed(args.seed)  # of --do_sample
        predictions = decode_texts(tokenizer, trainer.generate(rows[part], **generation))
    if args.process_index != 0:
        return
    report = ", ".join(f"{name} loss per token {loss:.4f}" for name, loss in losses.items())
    metrics = {f"{name}_loss": loss for name, loss in losses.items()} | training
    metrics |= {"n_weights": n_weights, "vocab_size": len(tokenizer), "seed": args.seed}
    metrics |= pairs.method.metrics()
    card_metrics: dict[str, float] = {}
    if sources:
        with atomic_write(output_dir / "predictions.jsonl") as file:
            columns = zip(sources, references, predictions, strict=True)
            names = ("source", "references", "prediction")
            write_json_lines(file, (dict(zip(names, row, strict=True)) for row in columns))
        model_scores = score_texts(predictions, references, args.metrics, confidence=0.95)
        if part == "test":
            bounds = ("_low", "_high")
            card_metrics = {k: v for k, v in model_scores.items() if not k.endswith(bounds)}
        scores = {"model": model_scores, **scores}
        metrics |= {f"{part}_{name}": value for name, value in model_scores.items()}
        for baseline in ("source as it is", "its first sentence"):
            key = baseline.replace(" ", "_")
            metrics |= {f"{key}_{name}": value for name, value in scores[baseline].items()}
        samples = text_samples(sources, references, predictions)
        report = f"{part} set, x 100\n{text_score_table(scores)}\n{report}\n\nSamples\n\n{samples}"

    # Save the metrics and the card.
    write_json(output_dir / "metrics.json", metrics)
    if history:
        (output_dir / "plots").mkdir(exist_ok=True)
        plot_training_curve(history, output_dir / "plots" / "training_curve.png")
    write_model_card(
        output_dir,
        title=f"Sequence-to-sequence model ({args.architecture})",
        base_model=args.encoder if is_new else args.architecture,
        task="text2text-generation",
        description=f"Reads `{pairs.columns[0]}` and writes `{pairs.columns[1]}`; {n_weights:,} "
        f"weights, a vocabulary of {len(tokenizer):,} tokens.",
        data=pairs.describe(),
        metrics=card_metrics,
        report=report,
        usage=seq2seq_usage(
            output_dir,
            own_architecture=type(model).__module__.startswith("shared."),
            source=args.source_prefix + pairs.sources["train"][0],
        ),
        limits="It writes what its training pairs make likely, true or not. The figures are those "
        "of texts from the same source.",
        settings=generation,
    )
    remove_checkpoints(args.output_dir)
    push_to_hub(output_dir, args)
    print(f"\n{report}\n\nEverything is in {output_dir}.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
