"""Fine-tune an encoder to give each text one or more labels: the GitHub issue tagger.

Why: with a thousand labelled texts or more, all weights of the encoder can learn from them. With
fewer, logistic regression on embeddings (recipes/few_label_probe.py) is better, and faster. The
recipe follows "Natural Language Processing with Transformers", chapter 9 (fine-tuning). It adds
what that chapter leaves out: stratified splits, decision thresholds tuned on the validation set,
and a confidence interval on the test set.

    accelerate launch recipes/github_tagger.py --config recipes/configs/sample.yaml
    accelerate launch recipes/github_tagger.py --data my_issues.jsonl --output_dir outputs/mine
    accelerate launch recipes/github_tagger.py --config recipes/configs/hf_datasets_issues.yaml

Data: one row per text. Rows look like the issues of GitHub's REST API, or have columns for the text
and the labels (--text_columns, --label_column). Rows without labels are not used for training; the
trained model tags them at the end. With --refit true this model has learned from all labelled rows,
also from those of the validation and test set.

Expect on two CPU cores with the default encoder (22 M parameters): a thousand issues of 250 tokens
take about a minute per epoch and 2 GB of memory. With a thousand training rows, --dropout 0.25
--r_drop 4 takes twice as long and gives slightly better results. The sample (sample.yaml, one seed)
gives micro F1 .751 and macro F1 .683; the configs name the figures of the other runs.
"""

from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Literal

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
    softmax,
)
from shared.methods import naive_bayes_labels
from shared.models import (
    EncoderArguments,
    check_unknown_tokens,
    find_encoder,
    fit_head,
    has_dropout,
    limit_length,
    load_classifier_to_train,
    tokenize,
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
    CheckpointOnSignal,
    EarlyStoppingArguments,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    ReadableProgress,
    RefitArguments,
    check_health,
    classification_loss,
    early_stopping,
    find_checkpoint,
    refit_arguments,
    remove_checkpoints,
    train_again,
)


@dataclass
class TaggerArguments(
    RefitArguments,
    EncoderArguments,
    TaggingArguments,
    EarlyStoppingArguments,
    SplitArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    pooling: Literal["mean", "first"] = flag(
        "mean",
        "Input of the head of BERT-like models: the mean of all token states, or the state of the "
        "first token (default: mean).",
    )
    r_drop: float = flag(
        0.0,
        "Weight of the R-Drop loss, usually 1 to 5: every text passes the model twice with "
        "different dropout, and the two predictions are pulled together. Doubles the training "
        "time; useful with a thousand training rows or fewer (default: 0, off).",
        least=0,
        below=100,
    )
    loss: Literal["sigmoid", "softmax"] = flag(
        "sigmoid",
        "Binary cross-entropy of each label, or cross-entropy over labels that exclude each other, "
        "for data with exactly one label per text (default: sigmoid).",
    )
    pos_weight: Literal["none", "balanced"] = flag(
        "balanced",
        "Weight of the positive examples of a label in the loss (softmax: of the texts of a "
        "label): all 1, or higher for rarer labels (default: balanced).",
    )
    thresholds: str = flag("global", f"{THRESHOLDS_HELP} (default: global).")
    health_check: bool = flag(
        False, "Only check the data, the model and the learning rate (default: false)."
    )
    num_train_epochs: float = flag(8, "Maximum number of epochs (default: 8).")
    learning_rate: float = flag(
        1e-4, "Peak learning rate (default: 1e-4; use 3e-5 for BERT-base and larger)."
    )
    output_dir: str = flag(
        "outputs/github_tagger", "Output folder (default: outputs/github_tagger)."
    )

    def __post_init__(self):
        fixed_threshold(self.thresholds)  # checks the flag
        super().__post_init__()


def main() -> None:
    """Load, split, tokenise, train, tune thresholds, evaluate on the test set once, save."""
    args = parse_arguments(TaggerArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    refit_args = refit_arguments(args)

    # Load the data and split the labelled rows; y maps each part to (rows, labels), multi-hot.
    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    rows, y = split.rows, split.labels
    exclusive = args.loss == "softmax"
    if exclusive and not single_label:
        raise UserError("--loss softmax: a text of --data has several labels; use --loss sigmoid")
    to_scores = softmax if exclusive else sigmoid

    # Load the model and tokenise; the collator pads each batch and builds the attention mask.
    model_folder, tokenizer = find_encoder(args)

    load_new = partial(
        load_classifier_to_train,
        *(model_folder, label_names),
        tokenizer=tokenizer,
        seed=args.seed,
        single_label=exclusive,
        dropout=args.dropout,
        mean_pooling=args.pooling == "mean",
    )
    model = load_new()
    limit_length(tokenizer, model, args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    if args.r_drop and not has_dropout(model):
        raise UserError("--r_drop: without dropout both passes are the same; add --dropout 0.1")
    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(dataset, tokenizer) for part, dataset in rows.items()}

    # Every evaluation tunes a threshold first, so that epochs are compared at their best threshold.
    collator = MultilabelCollator(tokenizer, len(label_names))
    tune = partial(find_thresholds, setting=args.thresholds, tolerance=2)
    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)

    def build_trainer(run_args, model, train, labels, checkpoint):
        """Return a Trainer for the tokenised rows `train` with `labels`, (rows, labels)."""
        # The loss: rare labels have a higher weight.
        loss = classification_loss(
            labels,
            label_names,
            single_label=exclusive,
            balanced=args.pos_weight == "balanced",
            r_drop=args.r_drop,
            label_smoothing=args.label_smoothing_factor,
        )
        # Fit the head to the features of the unchanged encoder before all weights are trained: with
        # a random head the first epochs would disturb the encoder (Kumar et al. 2022).
        if checkpoint is None and not args.health_check:
            options = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
            fit_head(model, train, collator, loss, **options)
        return LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=train,
            eval_dataset=tokens["valid"],
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            passes=2 if args.r_drop else 1,
            compute_metrics=compute_metrics,
            callbacks=[CheckpointOnSignal(), ReadableProgress(), *early_stopping(run_args)],
        )

    started = perf_counter()
    trainer = build_trainer(args, model, tokens["train"], y["train"], checkpoint)
    if args.health_check:
        check_health(trainer, args.max_length, label_counts=split.label_counts())
        return

    # Train. The Trainer keeps the epoch with the best validation micro F1, or the last epoch.
    print_once("\nTraining")
    training = trainer.train(resume_from_checkpoint=checkpoint)

    # Tune the thresholds on the validation set.
    scores = {"valid": to_scores(trainer.predict(tokens["valid"]).predictions)}
    thresholds = tune(scores["valid"], y["valid"])
    rule = DecisionRule.of(thresholds, len(label_names), single_label=single_label)
    train_seconds = perf_counter() - started

    # Evaluate on the test set, once, with these thresholds.
    trainer.compute_metrics = None  # it would tune thresholds on the test set
    test = trainer.predict(tokens["test"], metric_key_prefix="test")
    scores["test"] = to_scores(test.predictions)
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
        card=TaggerCard.of_encoder(args, tokenizer),
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
        again = build_trainer(refit_args, load_new(), train, labels, checkpoint)
        train_again(again, trainer)
        save(again, all_rows=all_rows)
    remove_checkpoints(args.output_dir)
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print_once(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
