"""Classify short comments into 28 emotions, with a fine-tuned encoder or one from scratch.

Why: there are many labels, most of them rare, and a text has one or two of them. The recipe offers
a head that starts from a fitted linear probe, lower learning rates for lower layers, a loss with
more weight on rare labels or less on easy negatives, and one threshold per label. Data and figures:
Demszky et al. 2020, "GoEmotions". `--architecture scratch` shows the value of pretraining: an
encoder with random weights and a vocabulary of the training texts. The published recipe for it
inverts the padding mask, so that tokens attend only to padding; this recipe has the right mask.

    accelerate launch recipes/goemotions.py
    accelerate launch recipes/goemotions.py --config recipes/configs/goemotions.yaml
    accelerate launch recipes/goemotions.py --config recipes/configs/goemotions_scratch.yaml

Data: as described in README.md; to read the original files of GoEmotions, use --column_names
text labels id --class_names labels.txt. `pipeline` loads the model with `trust_remote_code=True`;
its code is then in the output folder. The sizes published for scratch
(goemotions_scratch_large.yaml) need a GPU.

Expect on one core: the sample takes a minute (micro F1 .68); GoEmotions takes half an hour (micro
.60, macro .53), from scratch six minutes (micro .55, macro .47).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Literal

from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import SplitArguments, TaggingArguments, load_and_split
from shared.evaluation import (
    THRESHOLDS_HELP,
    DecisionRule,
    calibrate,
    find_thresholds,
    fixed_threshold,
    multilabel_metrics,
    sigmoid,
)
from shared.methods import naive_bayes_labels
from shared.models import (
    DEFAULT_MODEL,
    TEXT_PREFIX_HELP,
    HeadArguments,
    PooledForSequenceClassification,
    TransformerArguments,
    build_transformer,
    check_n_layers,
    check_unknown_tokens,
    choose_text_prefix,
    fit_head,
    head_settings,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
    tokenize,
    train_tokenizer,
)
from shared.reports import (
    TaggerCard,
    describe_output,
    push_to_hub,
    reading_metrics,
    save_trained_tagger,
    split_metrics,
    tag_unlabelled,
)
from shared.training import (
    LOSS_SETTINGS,
    CheckpointOnSignal,
    EarlyStoppingArguments,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    MultilabelLoss,
    ReadableProgress,
    RefitArguments,
    TuningArguments,
    balanced_pos_weight,
    check_health,
    check_tuning,
    early_stopping,
    find_checkpoint,
    freeze,
    grouped_optimizer,
    refit_arguments,
    regularizers,
    remove_checkpoints,
    train_again,
    unfreezing_callbacks,
)

SAMPLE = Path(__file__).parent / "data" / "comments.jsonl"


@dataclass
class EmotionArguments(
    RefitArguments,
    TaggingArguments,
    TransformerArguments,
    HeadArguments,
    TuningArguments,
    EarlyStoppingArguments,
    SplitArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    data: str = flag(str(SAMPLE), "As in other recipes (default: the sample of comments).")
    architecture: Literal["pretrained", "scratch"] = flag(
        "pretrained", "Fine-tune --model, or train from random weights (default: pretrained)."
    )
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    max_length: int = flag(
        64, "Tokens per text; longer texts are truncated (default: 64).", least=1
    )
    pooling: Literal["first", "last", "mean", "max", "mean_max", "attention"] | None = flag(
        None, "Pooling of the hidden states of a text (default: mean; from scratch: max)."
    )
    dropout: float = flag(
        0.1, "Dropout in the encoder during training (default: .1).", least=0, below=1
    )
    pos_weight: float = flag(
        0.5,
        "Exponent x of the weight (negatives / positives) ** x of positives (default: .5).",
        least=0,
        below=10,
    )
    loss: Literal["cross_entropy", "focal", "asymmetric"] = flag(
        "cross_entropy", "Binary cross-entropy, focal or asymmetric loss (default: cross_entropy)."
    )
    layer_decay: float | None = flag(
        None,
        "Factor of the learning rate per layer downwards (default: .85; from scratch: 1).",
        above=0,
        most=10,
    )
    thresholds: str = flag("per_label", f"{THRESHOLDS_HELP} (default: per_label).")
    threshold_metric: Literal["micro_f1", "macro_f1"] = flag(
        "macro_f1", "Metric that the thresholds maximise (default: macro_f1)."
    )
    patience: int = flag(2, "Early stopping: epochs without improvement (default: 2).", least=1)
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/goemotions", "Output folder (default: outputs/goemotions).")
    num_train_epochs: float = flag(6, "Maximum number of epochs (default: 6).")
    learning_rate: float = flag(2e-4, "Peak learning rate of the top layer (default: 2e-4).")
    weight_decay: float = flag(0.01, "Weight decay, not of biases and norms (default: .01).")
    per_device_train_batch_size: int = flag(32, "Texts per step and device (default: 32).")
    metric_for_best_model: str | None = flag("macro_f1", "Metric of the best epoch (macro_f1).")

    def __post_init__(self):
        TransformerArguments.__post_init__(self)
        fixed_threshold(self.thresholds)  # checks the flag
        scratch = self.architecture == "scratch"
        self.pooling = self.pooling or ("max" if scratch else "mean")
        if self.layer_decay is None:
            self.layer_decay = 1.0 if scratch else 0.85
        check_tuning(self)
        if scratch and self.freeze != "none":
            raise UserError("--architecture scratch: random weights cannot stay frozen")
        if scratch and self.text_prefix:
            raise UserError("--text_prefix: only for a pretrained encoder; remove it")
        self.head = head_settings(self)
        EpochTrainingArguments.__post_init__(self)


def main() -> None:
    """Load, split, tokenise, train, tune thresholds, evaluate on the test set once, save."""
    args = parse_arguments(EmotionArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    refit_args = refit_arguments(args)

    # Load and split; y maps each part to its multi-hot labels, (rows, labels).
    corpus, split = load_and_split(args, seed=args.seed)
    rows, y = split.rows, split.labels
    label_names, single_label = corpus.label_names, corpus.single_label

    # Tokenizer and encoder, pretrained or new, and a new head. Only training texts may shape the
    # new vocabulary.
    from_scratch = args.architecture == "scratch"
    if from_scratch:
        tokenizer = train_tokenizer(rows["train"]["text"], "wordpiece", args.vocab_size)
    else:
        folder = resolve_model(args.model)
        prefix = choose_text_prefix(args.model, args.text_prefix)
        tokenizer = load_tokenizer(folder, prefix)

    def load_model():
        """Return the encoder with a new head; the seed decides its weights."""
        set_seed(args.seed)
        if from_scratch:
            encoder = build_transformer(args, tokenizer)
        else:
            encoder = load_encoder(folder, tokenizer=tokenizer, dropout=args.dropout)
        check_n_layers(args.n_layers, encoder)
        model = PooledForSequenceClassification.from_encoder(encoder, label_names, **args.head)
        freeze(model, args.freeze)
        return model

    model = load_model()
    limit_length(tokenizer, model, args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    n_parameters = model.num_parameters()
    print_once(f"{args.architecture}: {n_parameters:,} parameters, {len(tokenizer):,} tokens")
    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(dataset, tokenizer) for part, dataset in rows.items()}

    # Every evaluation tunes the thresholds first, so that epochs are compared at their best ones.
    options = {"setting": args.thresholds, "metric": args.threshold_metric, "tolerance": 2}
    tune = partial(find_thresholds, **options)
    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)
    collator = MultilabelCollator(tokenizer, len(label_names))

    def build_trainer(run_args, model, train, labels, checkpoint):
        """Return a Trainer for the tokenised rows `train` with `labels`, (rows, labels)."""
        # The loss: rare labels weigh more. A pretrained encoder gets a head fitted to its features.
        pos_weight = balanced_pos_weight(labels.sum(axis=0), len(labels), power=args.pos_weight)
        smoothing = args.label_smoothing_factor
        loss = MultilabelLoss(pos_weight, label_smoothing=smoothing, **LOSS_SETTINGS[args.loss])
        if not (checkpoint or from_scratch or args.health_check):
            options = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
            fit_head(model, train, collator, loss, **options)
        callbacks = [CheckpointOnSignal(), ReadableProgress(), *early_stopping(run_args)]
        callbacks += unfreezing_callbacks(args.freeze)
        return LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=train,
            eval_dataset=tokens["valid"],
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            optimizer_cls_and_kwargs=grouped_optimizer(args, model),
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            **regularizers(args),
        )

    started = perf_counter()
    trainer = build_trainer(args, model, tokens["train"], y["train"], checkpoint)
    if args.health_check:
        check_health(trainer, args.max_length, label_counts=split.label_counts())
        return

    # Train. The Trainer keeps the epoch with the best validation metric, or the last epoch.
    print_once("\nTraining")
    training = trainer.train(resume_from_checkpoint=checkpoint)

    # Tune the thresholds on the validation set, then evaluate on the test set, once.
    trainer.compute_metrics = None  # it would tune thresholds on the test set
    scores = {"valid": sigmoid(trainer.predict(tokens["valid"]).predictions)}
    thresholds = tune(scores["valid"], y["valid"])
    rule = DecisionRule.of(thresholds, len(label_names), single_label=single_label)
    train_seconds = perf_counter() - started
    test = trainer.predict(tokens["test"], metric_key_prefix="test")
    scores["test"] = sigmoid(test.predictions)
    predicted = {part: rule.choose(values) for part, values in scores.items()}
    calibration, _ = calibrate(scores, predicted, y, single_label=single_label)

    # Save the tagger with metrics, predictions, plots and the card.
    metrics = {
        **test.metrics,
        **split_metrics(split, scores, predicted, naive_bayes_labels(split)),
        **training.metrics,
        **reading_metrics(tokenizer, rows["train"]["text"]),
        "train_runtime": train_seconds,  # includes fitting the head and tuning the thresholds
        "seed": args.seed,
    }
    save = partial(
        save_trained_tagger,
        output_dir=output_dir,
        metrics=metrics,
        split=split,
        scores=scores["test"],
        predicted=predicted["test"],
        rule=rule,
        calibration=calibration,
        card=TaggerCard(
            args,
            base_model=None if from_scratch else args.model,
            max_length=args.max_length,
            truncation_side=tokenizer.truncation_side,
            own_architecture=True,
        ),
        log_history=trainer.state.log_history,
        top_scores=args.top_scores,
    )
    print_once(f"\nTest ({len(y['test']):,} texts)\n\n{save(trainer)}")

    # Train the tagger once more, on all labelled rows. The figures stay those of the first model.
    if args.refit:
        print_once("\nTraining on all labelled texts")
        all_rows = split.all_labelled()
        train, labels = tokenize(all_rows.rows["train"], tokenizer), all_rows.labels["train"]
        checkpoint = refit_args.resume_from_checkpoint
        again = build_trainer(refit_args, load_model(), train, labels, checkpoint)
        train_again(again, trainer)
        save(again, all_rows=all_rows)
    remove_checkpoints(args.output_dir)
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print_once(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
