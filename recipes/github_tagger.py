"""Fine-tune an encoder to give a text several labels: the GitHub issue tagger.

Why: the strongest choice from several hundred labels up; with fewer, recipes/few_label_probe.py
is. Follows "Natural Language Processing with Transformers", chapter 9 (fine-tuning), with
what that chapter leaves out: stratified splits, thresholds tuned on validation, an interval.

    accelerate launch recipes/github_tagger.py --config recipes/configs/sample.yaml
    accelerate launch recipes/github_tagger.py --data my_issues.jsonl --output_dir outputs/mine
    accelerate launch recipes/github_tagger.py --config recipes/configs/hf_datasets_issues.yaml

Data: one row per text, as GitHub's REST API returns issues, or with columns for text and labels
(--text_columns, --label_column). Rows without labels are left out of training; three are tagged.

Expect on two CPU cores, default encoder (22 M parameters): a thousand issues of 250 tokens in
about a minute per epoch, 2 GB of memory. With a thousand training rows, --dropout 0.25 --r_drop 4
takes twice as long and finds a little more.
"""

from dataclasses import dataclass
from functools import partial
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
from shared.evaluation import choose_labels, f1_scores, multilabel_metrics, sigmoid, tune_thresholds
from shared.methods import naive_bayes_labels
from shared.models import (
    DEFAULT_MODEL,
    append_mean_pooling,
    fit_head,
    has_dropout,
    limit_length,
    load_sequence_classifier,
    load_tokenizer,
    resolve_model,
    tokenize,
)
from shared.reports import (
    TaggerCard,
    describe_output,
    format_examples,
    interval_metrics,
    write_results,
)
from shared.training import (
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    MultilabelLoss,
    ReadableProgress,
    balanced_pos_weight,
    check_health,
    find_checkpoint,
    remove_checkpoints,
)


@dataclass
class TaggerArguments(SplitArguments, EpochTrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens of a text that the model reads (default: 256).")
    pooling: Literal["mean", "first"] = flag(
        "mean", "What a BERT classifier reads: all tokens or the first (default: mean)."
    )
    dropout: float | None = flag(None, "Dropout while training (default: the model's own).")
    r_drop: float = flag(
        0.0,
        "Weight of R-Drop, 1 to 5: two passes under different dropout are pulled together, in "
        "twice the time; for a thousand rows or fewer (default: 0, off).",
    )
    pos_weight: Literal["none", "balanced"] = flag(
        "balanced", "Weight of positives: alike, or more the rarer the label (default: balanced)."
    )
    thresholds: Literal["global", "per_label"] = flag(
        "global", "Tune one threshold on validation, or one per label (default: global)."
    )
    health_check: bool = flag(False, "Check data, model and rate, then stop (default: no).")
    patience: int = flag(4, "Epochs without a better micro F1 to stop after (default: 4).")
    num_train_epochs: float = flag(8, "Passes over the training rows, at most (default: 8).")
    learning_rate: float = flag(1e-4, "Peak rate (default: 1e-4; BERT-base and larger: 3e-5).")
    output_dir: str = flag("outputs/github_tagger", "Folder (default: outputs/github_tagger).")

    def __post_init__(self):
        for name, end in (("dropout", 1), ("r_drop", 100), ("seed", 2**32)):
            if not 0 <= (getattr(self, name) or 0) < end:
                raise UserError(f"--{name} {getattr(self, name)}: must be 0 or more, below {end}")
        super().__post_init__()


def main() -> None:
    """Load, split, tokenise, train, tune thresholds, look at the test rows once, save."""
    args = parse_arguments(TaggerArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    set_seed(args.seed)

    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    y = split.labels
    rows = {**split.rows, "unlabelled": corpus.dataset.select(corpus.unlabelled[:3])}

    # Model and tokens; the collator pads, and makes the mask from the lengths
    model_folder = resolve_model(args.model)
    tokenizer = load_tokenizer(model_folder)
    head = {"label_names": label_names, "dropout": args.dropout}
    model = load_sequence_classifier(model_folder, tokenizer=tokenizer, **head)
    limit_length(tokenizer, model, args.max_length)
    if args.r_drop and not has_dropout(model):
        raise UserError("--r_drop: two passes of this model are the same; give it --dropout 0.1")

    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(found, tokenizer) for part, found in rows.items()}

    # Loss, head, Trainer
    started = perf_counter()
    collator = MultilabelCollator(tokenizer, len(label_names))
    pos_weight = None
    if args.pos_weight == "balanced":
        pos_weight = balanced_pos_weight(y["train"].sum(axis=0), len(y["train"]))
    smoothing = args.label_smoothing_factor
    loss = MultilabelLoss(pos_weight, r_drop=args.r_drop, label_smoothing=smoothing)
    if args.pooling == "mean":
        append_mean_pooling(model)
    if checkpoint is None and not args.health_check:
        start = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
        fit_head(model, tokens["train"], collator, loss, **start)

    # Epochs are compared at the thresholds that each would be used with.
    tune = partial(tune_thresholds, tolerance=2)
    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)

    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=tokens["train"],
        eval_dataset=tokens["valid"],
        processing_class=tokenizer,
        data_collator=collator,
        compute_loss_func=loss,
        passes=2 if args.r_drop else 1,
        compute_metrics=compute_metrics,
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    if args.load_best_model_at_end:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=args.patience))

    if args.health_check:
        check_health(trainer, args.max_length, label_counts=split.label_counts())
        return

    # Train; the best epoch by validation micro F1 is kept, or the last
    print_once("\nTraining")
    trained = trainer.train(resume_from_checkpoint=checkpoint)

    # Thresholds on validation, then one look at the test rows
    per_label = args.thresholds == "per_label"
    scores = sigmoid(trainer.predict(tokens["valid"]).predictions)
    thresholds = tune_thresholds(scores, y["valid"], per_label=per_label, tolerance=2)
    model.config.thresholds, model.config.one_label_each = thresholds.tolist(), single_label
    valid = f1_scores(y["valid"], choose_labels(scores, thresholds, single_label=single_label))
    seconds = perf_counter() - started
    trainer.compute_metrics = multilabel_metrics(
        label_names, thresholds=thresholds, single_label=single_label
    )
    tested = trainer.predict(tokens["test"], metric_key_prefix="test")
    scores = sigmoid(tested.predictions)
    predicted = choose_labels(scores, thresholds, single_label=single_label)
    tagged = ()
    if unlabelled := tokens["unlabelled"].remove_columns("labels"):
        tagged = sigmoid(trainer.predict(unlabelled).predictions)

    # Save: model, tokenizer, labels and thresholds; then everything a person wants to see
    trainer.save_model()
    if args.process_index != 0:
        return
    metrics = {
        **tested.metrics,
        **interval_metrics(y["test"], predicted, naive_bayes_labels(split)),
        **{f"{part}_samples": len(y[part]) for part in y},
        **{f"valid_{name}": value for name, value in valid.items()},
        **trained.metrics,
        "train_runtime": seconds,  # with the fit of the head and the choice of thresholds
        "seed": args.seed,
    }
    report = write_results(
        output_dir,
        split,
        scores,
        predicted,
        metrics,
        card=TaggerCard(base_model=args.model, max_length=args.max_length),
        thresholds=None if single_label else thresholds,
        log_history=trainer.state.log_history,
    )
    remove_checkpoints(args.output_dir)

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    if len(tagged):
        print("\nTags for texts without labels")
        chosen = choose_labels(tagged, thresholds, single_label=single_label)
        print(format_examples(rows["unlabelled"]["text"], tagged, chosen, label_names))
    print(f"\n{describe_output(output_dir, model=True)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
