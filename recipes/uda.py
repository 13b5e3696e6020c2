"""Fine-tune an encoder on a few labelled and many unlabelled texts: consistency training.

Why: a few dozen labels are too few to fine-tune on, but thousands of texts without labels are often
at hand. The recipe first fine-tunes on the labelled texts alone. Then it goes on with both kinds:
where the model is sure of an unlabelled text, its prediction becomes the target for a copy with
other words ("UDA", Xie et al. 2020, "Unsupervised Data Augmentation for Consistency Training"). The
targets keep the class shares of the labelled texts, or one class would take over ("ReMixMatch",
Berthelot et al. 2020); at the end the logits are shifted so that the predictions keep them as well.
The targets come from a moving mean of the weights, or the model would follow its own mistakes
("Mean teachers", Tarvainen and Valpola 2017). If the training collapses all the same, the first
model is kept, and console, card and metrics.json say so.

    accelerate launch recipes/uda.py --config recipes/configs/uda_sample.yaml
    accelerate launch recipes/uda.py --data my_issues.jsonl --output_dir outputs/mine
    accelerate launch recipes/uda.py --data labelled.csv --unlabelled_data more.csv --copies 8

Data: as described in README.md. Unlabelled texts are the rows without a label, and the training
rows that --train_size or --train_per_label leaves out; or those of --unlabelled_data. By default
there is no validation set, so that all labels are for training and the test.

Copies: --augmentations changes the words of each unlabelled text, --copies times, before the
training; the epochs take the copies in turn. "tfidf" replaces the words that say least about a
text, as in the paper, and needs nothing else; "back_translation" needs two translation models.

Expect on one CPU core with the default encoder: an epoch takes about as long as fine-tuning on the
unlabelled texts, 5 to 10 minutes for 5,000 texts of 128 tokens.
"""

import copy
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import TaggingArguments, UnlabelledArguments, load_and_split, load_unlabelled
from shared.evaluation import (
    THRESHOLDS_HELP,
    DecisionRule,
    calibrate,
    describe_collapse,
    f1_scores,
    find_thresholds,
    fixed_threshold,
    multilabel_metrics,
    sigmoid,
    softmax,
)
from shared.methods import (
    NAMES_HELP,
    AugmentationArguments,
    load_augmentations,
    naive_bayes_labels,
    tokenize_copies,
)
from shared.models import (
    EncoderArguments,
    check_unknown_tokens,
    find_encoder,
    fit_head,
    limit_length,
    load_classifier_to_train,
    shift_logits,
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
    AnnealedLoss,
    CheckpointOnSignal,
    ConsistencyArguments,
    ConsistencyLoss,
    ConsistencyTrainer,
    EpochTrainingArguments,
    LabelAlignment,
    LengthGroupedTrainer,
    MultilabelCollator,
    NotFiniteError,
    ReadableProgress,
    RefitArguments,
    classification_loss,
    find_checkpoint,
    refit_arguments,
    remove_checkpoints,
    round_arguments,
    train_again,
)

COLLAPSE_TEXTS = 1000  # unlabelled texts on which predictions before and after are compared


@dataclass
class UdaArguments(
    RefitArguments,
    EncoderArguments,
    TaggingArguments,
    AugmentationArguments,
    UnlabelledArguments,
    ConsistencyArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    valid_size: float = flag(
        0.0,
        "Share of the labelled rows for the validation set; 0: none, all labels are for training "
        "and testing (default: 0).",
        least=0,
        below=1,
    )
    augmentations: list[str] = flag(
        ["tfidf"], f"Changes of the copies, in this order: {NAMES_HELP} (default: tfidf)."
    )
    augment_share: float = flag(
        0.3,
        "Share of the words that each augmentation changes; at least one word (default: .3).",
        above=0,
        most=1,
    )
    copies: int = flag(
        4,
        "Number of changed copies of each unlabelled text; the epochs take them in turn (default: "
        "4).",
        least=1,
        most=1000,
    )
    supervised_epochs: float = flag(
        8, "Epochs of the first training, on labelled texts alone (default: 8).", above=0
    )
    supervised_learning_rate: float = flag(
        1e-4, "Peak learning rate of the first training (default: 1e-4).", above=0
    )
    thresholds: str = flag("global", f"{THRESHOLDS_HELP} (default: global).")
    num_train_epochs: float = flag(
        4, "Maximum number of epochs; one reads each unlabelled text once (default: 4)."
    )
    learning_rate: float = flag(
        5e-5,
        "Peak learning rate of the training on both kinds of texts (default: 5e-5).",
    )
    output_dir: str = flag("outputs/uda", "Output folder (default: outputs/uda).")

    def __post_init__(self):
        fixed_threshold(self.thresholds)  # checks the flag
        if str(self.resume_from_checkpoint or "false").lower() not in ("true", "false"):
            raise UserError("--resume_from_checkpoint: true or false; this recipe trains twice")
        if self.dataloader_persistent_workers:
            raise UserError(
                "--dataloader_persistent_workers: such a process would take the copies of the "
                "first epoch in all epochs; remove the flag"
            )
        super().__post_init__()


def main() -> None:
    """Load, train on labelled texts, then on unlabelled ones as well, check, evaluate, save."""
    args = parse_arguments(UdaArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    refit_args = refit_arguments(args)

    def supervised_arguments(run_args):
        """Return the arguments of the training on labelled texts alone."""
        first = copy.copy(run_args)
        first.resume_from_checkpoint = args.resume_from_checkpoint
        first = round_arguments(first, 0, num_train_epochs=args.supervised_epochs)
        first.learning_rate = args.supervised_learning_rate
        return first

    supervised_args, supervised_refit_args = map(supervised_arguments, (args, refit_args))

    # Load the data and split the labelled rows; y maps each part to (rows, labels), multi-hot.
    corpus, split = load_and_split(args, seed=args.seed)
    unlabelled = load_unlabelled(split, args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    aligned = args.alignment and single_label  # the final predictions as well as the targets
    rows, y = split.rows, split.labels
    to_scores = softmax if single_label else sigmoid

    # Load the model and tokenise.
    model_folder, tokenizer = find_encoder(args)
    settings = {"single_label": single_label, "dropout": args.dropout, "seed": args.seed}
    settings |= {"tokenizer": tokenizer}
    load_new = partial(load_classifier_to_train, model_folder, label_names, **settings)
    model = load_new()
    limit_length(tokenizer, model, args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    # The copies are made once, here, so that the training waits neither for words nor for tokens.
    options = {"texts": [*rows["train"]["text"], *unlabelled.rows["text"]], "device": args.device}
    augmentations = load_augmentations(args.augmentations, args, **options)
    options = {"copies": args.copies, "seed": args.seed}
    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(dataset, tokenizer) for part, dataset in rows.items()}
        texts = tokenize(unlabelled.rows, tokenizer)
        texts = tokenize_copies(texts, augmentations, tokenizer, **options)
    few_texts = texts.select(range(0, len(texts), -(-len(texts) // COLLAPSE_TEXTS)))

    collator = MultilabelCollator(tokenizer, len(label_names))
    tune = partial(find_thresholds, setting=args.thresholds, tolerance=2)
    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)
    common = {
        "eval_dataset": tokens["valid"],
        "processing_class": tokenizer,
        "data_collator": collator,
        "compute_metrics": compute_metrics,
    }

    def build_supervised(run_args, model, train, labels):
        """Return a Trainer for the tokenised rows `train` with `labels`, (rows, labels), alone."""
        # Rare labels have a higher weight, also as targets.
        loss = classification_loss(
            labels,
            label_names,
            single_label=single_label,
            balanced=True,
            label_smoothing=args.label_smoothing_factor,
        )
        # The head is fitted to the features of the unchanged encoder first.
        if run_args.resume_from_checkpoint is None:
            options = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
            fit_head(model, train, collator, loss, **options)
        return LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=train,
            compute_loss_func=loss,
            callbacks=[CheckpointOnSignal(), ReadableProgress()],
            **common,
        )

    def build_consistent(run_args, supervised, labels, scores):
        """Return a Trainer for both kinds of texts, which goes on with a supervised model.

        `scores` are those that the model gives the unlabelled texts now.
        """
        loss, alignment = supervised.compute_loss_func, None
        if args.alignment:
            # With several labels per text, rare ones are predicted more often than they occur,
            # since they have a higher weight.
            shares = labels.mean(0) if single_label else scores.mean(0)
            alignment = LabelAlignment(shares, scores, single_label=single_label)
        trainer = ConsistencyTrainer(
            model=supervised.model,
            args=run_args,
            train_dataset=supervised.train_dataset,
            compute_loss_func=AnnealedLoss(loss, args.annealing, lambda: trainer.progress),
            unlabelled=texts,
            ratio=args.unlabelled_ratio,
            consistency_loss=ConsistencyLoss(
                single_label=single_label,
                temperature=args.temperature,
                confidence=args.confidence,
                weight=loss.weight if single_label else loss.pos_weight,
            ),
            consistency_weight=args.consistency_weight,
            alignment=alignment,
            teacher_decay=args.teacher_decay,
            callbacks=[CheckpointOnSignal(), ReadableProgress()],
            **common,
        )
        return trainer

    def predict(trainer, rule=None):
        """Return the decision rule, and scores and labels of all parts but the test set."""
        trainer.compute_metrics = None  # it would tune thresholds on the test set
        parts = {"train": trainer.train_dataset, "valid": tokens["valid"], "unlabelled": few_texts}
        scores = {k: to_scores(trainer.predict(part).predictions) for k, part in parts.items()}
        if rule is None:
            thresholds = tune(scores["valid"], y["valid"])
            # Without validation rows, no score of a text may reach the threshold of one half.
            options = {"at_least_one": corpus.empty_labels == "unlabelled" and not len(y["valid"])}
            options["single_label"] = single_label
            rule = DecisionRule.of(thresholds, len(label_names), **options)
        return rule, scores, {part: rule.choose(values) for part, values in scores.items()}

    def align(trainer, scores):
        """Give the classes the shares that they had in the targets.

        `scores` are those of unlabelled texts. The targets were aligned, but the model that learned
        from them can still prefer a class.
        """
        shares, before = trainer.alignment.shares, scores.mean(axis=0)
        shift = LabelAlignment(shares, scores, single_label=True).shift
        worst = abs(shares - before).argmax()
        if shift_logits(trainer.model, shift) and abs(shares - before)[worst] >= 0.01:
            print_once(
                f"{label_names[worst]!r} gets {shares[worst]:.1%} of the unlabelled texts, as of "
                f"the labelled ones, instead of {before[worst]:.1%}; --alignment false, if those "
                "were not drawn at random"
            )

    def predict_test(trainer, rule, scores, predicted):
        """Add scores and labels of the test set to those of `predict`; return the seconds."""
        output = trainer.predict(tokens["test"], metric_key_prefix="test")
        scores["test"] = to_scores(output.predictions)
        predicted["test"] = rule.choose(scores["test"])
        return output.metrics["test_runtime"]

    # Train on the labelled texts alone. The test set says later what the other texts have changed.
    started = perf_counter()
    print_once("\nTraining on labelled texts")
    supervised = build_supervised(supervised_args, model, tokens["train"], y["train"])
    supervised.train(resume_from_checkpoint=supervised_args.resume_from_checkpoint)
    rule, scores, predicted = before = predict(supervised)
    test_seconds = predict_test(supervised, *before)
    supervised_weights = copy.deepcopy(model.state_dict())
    supervised_f1 = f1_scores(*split.with_unknown_labels("test", predicted["test"]))

    # Train on both kinds of texts.
    print_once("\nTraining on labelled and unlabelled texts")
    trainer = build_consistent(args, supervised, y["train"], scores["unlabelled"])
    training_metrics, changed, note = {}, None, None
    try:
        training_metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        after = predict(trainer)
        collapse = describe_collapse(predicted, after[2], y["train"], label_names)
        if not collapse and aligned:
            align(trainer, after[1]["unlabelled"])
            after = predict(trainer)
        changed = (after[2]["unlabelled"] != predicted["unlabelled"]).any(axis=1).mean()
        print_once(f"{changed:.1%} of the unlabelled texts got other labels than before")
    except NotFiniteError as error:
        collapse = error.problem
    if collapse:
        model.load_state_dict(supervised_weights)
        note = f"The training on unlabelled texts collapsed: {collapse}."
        note += " The model of the labelled texts alone is kept."
        print_once(f"\n{note}")
    else:
        rule, scores, predicted = after
        test_seconds = predict_test(trainer, *after)
    train_seconds = perf_counter() - started
    calibration, _ = calibrate(scores, predicted, y, single_label=single_label)

    # Save the tagger with metrics, predictions, plots and the card.
    metrics = {
        **split_metrics(split, scores, predicted, naive_bayes_labels(split)),
        **training_metrics,
        **reading_metrics(tokenizer, rows["train"]["text"]),
        **unlabelled.metrics(),
        **{f"supervised_test_{name}": value for name, value in supervised_f1.items()},
        "collapse": collapse,
        "changed_labels": changed,  # share of the unlabelled texts
        "train_runtime": train_seconds,  # includes the predictions of both models
        "test_runtime": test_seconds,
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
        card=TaggerCard.of_encoder(args, tokenizer, note=note),
        log_history=trainer.state.log_history,
        top_scores=args.top_scores,
    )
    print_once(f"\nTest ({len(y['test']):,} texts)\n\n{save(trainer)}")
    alone = ", ".join(f"{supervised_f1[name]:.3f}" for name in ("micro_f1", "macro_f1"))
    print_once(f"\nMicro and macro F1 of the model of the labelled texts alone: {alone}")

    # Train the tagger once more, with all labelled rows. The figures stay those of the first model.
    if args.refit:
        print_once("\nTraining on all labelled texts")
        all_rows = split.all_labelled()
        train, labels = tokenize(all_rows.rows["train"], tokenizer), all_rows.labels["train"]
        again = build_supervised(supervised_refit_args, load_new(), train, labels)
        train_again(again, supervised)
        problem = None
        if not collapse:
            _, scores, predicted = predict(again, rule)
            again = build_consistent(refit_args, again, labels, scores["unlabelled"])
            try:
                train_again(again, trainer)
                _, final_scores, final = predict(again, rule)
                problem = describe_collapse(predicted, final, labels, label_names)
                if not problem and aligned:
                    align(again, final_scores["unlabelled"])
            except NotFiniteError as error:
                problem = error.problem
        if problem:
            print_once(f"\nThis training collapsed: {problem}. The first tagger is kept.")
        else:
            save(again, all_rows=all_rows)
    remove_checkpoints(args.output_dir)
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print_once(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
