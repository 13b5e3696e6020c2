"""Give short comments any of many labels: 28 emotions, by a fine-tuned encoder or from scratch.

Why: many labels, most of them rare, of which a text has one or two. What helps there: a head that
starts from the best linear probe, rates that fall with depth, a loss that weighs rare labels up or
easy negatives down, a threshold for each label. `--architecture scratch` shows what pretraining is
worth: a transformer encoder from random weights, on a vocabulary of the training texts (data and
figures: Demszky et al. 2020, "GoEmotions"). The published recipe for it hands PyTorch its padding
mask the wrong way round, so that tokens attend to padding alone; here they attend to the text.

    accelerate launch recipes/goemotions.py
    accelerate launch recipes/goemotions.py --config recipes/configs/goemotions.yaml
    accelerate launch recipes/goemotions.py --config recipes/configs/goemotions_scratch.yaml

Data: as for recipes/github_tagger.py; GoEmotions' own files are read with --column_names text
labels id --class_names labels.txt. The model loads with `pipeline` once `shared.models.heads` is
imported. The sizes published for scratch, goemotions_scratch_large.yaml, want a GPU.

Expect on one core: the sample in a minute, micro F1 .68; GoEmotions in half an hour, .60, macro
.53; from scratch in six minutes, .55, macro .47.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Literal

from transformers import EarlyStoppingCallback, set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import SplitArguments, load_and_split
from shared.evaluation import choose_labels, multilabel_metrics, sigmoid, tune_thresholds
from shared.methods import naive_bayes_labels
from shared.models import (
    DEFAULT_MODEL,
    HeadArguments,
    PooledForSequenceClassification,
    TransformerArguments,
    build_transformer,
    fit_head,
    head_settings,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
    tokenize,
    train_tokenizer,
)
from shared.reports import TaggerCard, describe_output, split_metrics, write_results
from shared.training import (
    LOSS_SETTINGS,
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    MultilabelLoss,
    ReadableProgress,
    TuningArguments,
    balanced_pos_weight,
    check_health,
    check_tuning,
    find_checkpoint,
    freeze,
    grouped_optimizer,
    regularizers,
    remove_checkpoints,
    unfreezing_callbacks,
)

SAMPLE = Path(__file__).parent / "data" / "comments.jsonl"


@dataclass
class EmotionArguments(
    TransformerArguments, HeadArguments, TuningArguments, SplitArguments, EpochTrainingArguments
):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    data: str = flag(str(SAMPLE), "As in other recipes (default: the comments of the project).")
    architecture: Literal["pretrained", "scratch"] = flag(
        "pretrained", "Fine-tune --model, or start from random weights (default: pretrained)."
    )
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(64, "Tokens of a text that the model reads (default: 64).")
    pooling: Literal["first", "last", "mean", "max", "mean_max", "attention"] | None = flag(
        None, "How hidden states become one vector (default: mean; from scratch max)."
    )
    dropout: float = flag(0.1, "Dropout in the encoder while training (default: .1).")
    pos_weight: float = flag(
        0.5, "Power of a label's rarity that weighs its positives; 0: all alike (default: .5)."
    )
    loss: Literal["cross_entropy", "focal", "asymmetric"] = flag(
        "cross_entropy", "What is sure already counts in full, less, or as a negative hardly."
    )
    layer_decay: float | None = flag(
        None, "Factor of the rate from a layer to the one below (default: .85; from scratch 1)."
    )
    thresholds: Literal["global", "per_label"] = flag(
        "per_label", "Tune one threshold on validation, or one per label (default: per_label)."
    )
    threshold_metric: Literal["micro_f1", "macro_f1"] = flag(
        "macro_f1", "What the thresholds are tuned for (default: macro_f1)."
    )
    patience: int = flag(2, "Epochs without a better one to stop after (default: 2).")
    health_check: bool = flag(False, "Check data, model and rate, then stop (default: no).")
    output_dir: str = flag("outputs/goemotions", "Folder (default: outputs/goemotions).")
    num_train_epochs: float = flag(6, "Passes over the training rows, at most (default: 6).")
    learning_rate: float = flag(2e-4, "Peak rate, of the top layer (default: 2e-4).")
    weight_decay: float = flag(0.01, "Decay of weights, not of biases or norms (default: .01).")
    per_device_train_batch_size: int = flag(32, "Texts per step and device (default: 32).")
    metric_for_best_model: str | None = flag("macro_f1", "What is best (default: macro_f1).")

    def __post_init__(self):
        TransformerArguments.__post_init__(self)
        for name, end in (("dropout", 1), ("pos_weight", 10)):
            if not 0 <= getattr(self, name) < end:
                raise UserError(f"--{name} {getattr(self, name)}: must be 0 or more, below {end}")
        scratch = self.architecture == "scratch"
        self.pooling = self.pooling or ("max" if scratch else "mean")
        if self.layer_decay is None:
            self.layer_decay = 1.0 if scratch else 0.85
        check_tuning(self)
        if scratch and self.freeze != "none":
            raise UserError("--architecture scratch: random weights are not to be frozen")
        self.head = head_settings(self)
        EpochTrainingArguments.__post_init__(self)


def main() -> None:
    """Load, split, tokenise, train, tune thresholds, look at the test rows once, save."""
    args = parse_arguments(EmotionArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)

    corpus, split = load_and_split(args, seed=args.seed)
    rows, y = split.rows, split.labels
    label_names, single_label = corpus.label_names, corpus.single_label

    # Tokenizer and encoder, then a head on it
    set_seed(args.seed)
    from_scratch = args.architecture == "scratch"
    if from_scratch:
        tokenizer = train_tokenizer(rows["train"]["text"], "wordpiece", args.vocab_size)
        encoder = build_transformer(args, tokenizer)
    else:
        folder = resolve_model(args.model)
        tokenizer = load_tokenizer(folder)
        encoder = load_encoder(folder, tokenizer=tokenizer, dropout=args.dropout)
    model = PooledForSequenceClassification.from_encoder(encoder, label_names, **args.head)
    freeze(model, args.freeze)
    limit_length(tokenizer, model, args.max_length)
    print_once(
        f"{args.architecture}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens"
    )

    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(found, tokenizer) for part, found in rows.items()}

    # Loss, start of the head, Trainer
    started = perf_counter()
    collator = MultilabelCollator(tokenizer, len(label_names))
    counts = y["train"].sum(axis=0)
    pos_weight = balanced_pos_weight(counts, len(y["train"]), power=args.pos_weight)
    smoothing = {"label_smoothing": args.label_smoothing_factor}
    loss = MultilabelLoss(pos_weight, **LOSS_SETTINGS[args.loss], **smoothing)
    if not (checkpoint or from_scratch or args.health_check):
        start = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
        fit_head(model, tokens["train"], collator, loss, **start)
    tune = partial(
        tune_thresholds,
        metric=args.threshold_metric,
        per_label=args.thresholds == "per_label",
        tolerance=2,
    )
    # Epochs are compared at the thresholds that each would be used with.
    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)

    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=tokens["train"],
        eval_dataset=tokens["valid"],
        processing_class=tokenizer,
        data_collator=collator,
        compute_loss_func=loss,
        optimizer_cls_and_kwargs=grouped_optimizer(args, model),
        compute_metrics=compute_metrics,
        callbacks=[CheckpointOnSignal(), ReadableProgress(), *unfreezing_callbacks(args.freeze)],
        **regularizers(args),
    )
    if args.load_best_model_at_end:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=args.patience))

    if args.health_check:
        check_health(trainer, args.max_length, label_counts=split.label_counts())
        return

    # Train; the best epoch by validation is kept, or the last
    print_once("\nTraining")
    trained = trainer.train(resume_from_checkpoint=checkpoint)

    # Thresholds on validation, then one look at the test rows
    trainer.compute_metrics = None  # that of an evaluation tunes thresholds of its own
    scores = {"valid": sigmoid(trainer.predict(tokens["valid"]).predictions)}
    thresholds = tune(scores["valid"], y["valid"])
    model.config.thresholds, model.config.one_label_each = thresholds.tolist(), single_label
    seconds = perf_counter() - started
    tested = trainer.predict(tokens["test"], metric_key_prefix="test")
    scores["test"] = sigmoid(tested.predictions)
    predicted = {
        k: choose_labels(p, thresholds, single_label=single_label) for k, p in scores.items()
    }

    # Save: model, tokenizer, labels and thresholds; then everything a person wants to see
    trainer.save_model()
    if args.process_index != 0:
        return
    metrics = {
        **tested.metrics,
        **split_metrics(y, scores, predicted, naive_bayes_labels(split)),
        **trained.metrics,
        "train_runtime": seconds,  # with the fit of the head and the choice of thresholds
        "seed": args.seed,
    }
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        metrics,
        card=TaggerCard(
            base_model=None if from_scratch else args.model,
            max_length=args.max_length,
            register_module="shared.models.heads",
        ),
        thresholds=None if single_label else thresholds,
        log_history=trainer.state.log_history,
    )
    remove_checkpoints(args.output_dir)

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    print(f"\n{describe_output(output_dir, model=True)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
