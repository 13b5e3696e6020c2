"""Fine-tune an encoder on few training texts and augmented copies, and measure the effect.

Why: augmented copies add training data without labelling. Six augmentations can be combined:
synonyms (WordNet), swapped or deleted words ("EDA", Wei and Zou 2019), words inserted or
substituted by a masked language model, and back-translation. The model trains on the texts and on
--copies of each, which change in every epoch. --compare true measures the effect: naive Bayes
without copies, with unchanged copies and with augmented copies ("Natural Language Processing with
Transformers", chapter 9), and fine-tuning with both kinds of copies for the same number of steps.

    accelerate launch recipes/augmentation.py --config recipes/configs/augmentation_sample.yaml
    accelerate launch recipes/augmentation.py --data issues.jsonl --augmentations delete --copies 2

Data: as described in README.md, with the same split and the same nested --train_size, so that
figures are comparable with those of other recipes. Code and line breaks in a text are not changed.

Expect on 64 labelled texts of the sample (the config above, mean of seeds 1 to 3), two minutes on
one CPU core. Micro / macro F1 of fine-tuning: .665 / .536 with unchanged copies, .649 / .531 with
swapped and deleted words; this is no gain, since seeds differ by .02. Naive Bayes: .317 / .187
without copies, .448 / .308 with unchanged and .448 / .305 with augmented copies; it gains only
because words count twice.
"""

import copy
import shutil
from dataclasses import dataclass
from functools import partial

import numpy as np
from datasets import concatenate_datasets

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import SplitArguments, TaggingArguments, add_column, load_and_split
from shared.evaluation import (
    DecisionRule,
    calibrate,
    choose_labels,
    f1_scores,
    multilabel_metrics,
    sigmoid,
    tune_thresholds,
)
from shared.methods import (
    NAMES_HELP,
    AugmentationArguments,
    add_augmented_copies,
    augment,
    augmentation_table,
    fit_and_score,
    load_augmentations,
    naive_bayes,
    naive_bayes_labels,
)
from shared.models import (
    DEFAULT_MODEL,
    TEXT_PREFIX_HELP,
    check_unknown_tokens,
    choose_text_prefix,
    fit_head,
    limit_length,
    load_classifier_to_train,
    load_encoder,
    load_tokenizer,
    resolve_model,
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
    AugmentingCollator,
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    MultilabelLoss,
    ReadableProgress,
    RefitArguments,
    balanced_pos_weight,
    check_health,
    check_resume_switch,
    find_checkpoint,
    refit_arguments,
    remove_checkpoints,
    train_again,
)


@dataclass
class AugmentationRecipeArguments(
    RefitArguments,
    TaggingArguments,
    AugmentationArguments,
    SplitArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    augmentations: list[str] = flag(
        ["swap", "delete"], f"Applied in this order: {NAMES_HELP} (default: swap delete)."
    )
    compare: bool = flag(
        False, "Also fine-tune on unchanged copies, and fit naive Bayes on both (default: false)."
    )
    sentence: str | None = flag(
        None, "Example to print augmented (default: first sentence of the first training text)."
    )
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    max_length: int = flag(
        256, "Tokens per text; longer texts are truncated (default: 256).", least=1
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/augmentation", "Output folder (default: outputs/augmentation).")

    def __post_init__(self):
        if self.dataloader_num_workers:
            raise UserError("--dataloader_num_workers: augmentation runs in the main process")
        if self.compare:
            check_resume_switch(self, "--compare trains twice")
        self.remove_unused_columns = False  # the collator augments the text
        EpochTrainingArguments.__post_init__(self)


def main() -> None:
    """Load, split, show examples, train on copies that change each epoch, compare, save."""
    args = parse_arguments(AugmentationRecipeArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    refit_args = refit_arguments(args)
    plain_dir = output_dir / ".compare_plain"  # checkpoints of the training on unchanged copies
    resume = args.resume_from_checkpoint
    plain_checkpoint = find_checkpoint(plain_dir, resume) if args.compare else None

    # Load, split, and show what the augmentations do to one sentence.
    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    rows, y = split.rows, split.labels
    options = {"texts": rows["train"]["text"], "device": args.device}
    augmentations = load_augmentations(args.augmentations, args, **options)
    example = args.sentence or rows["train"]["text"][0]
    print_once(f"\n{augmentation_table(example, args, device=args.device, seed=args.seed)}")

    # Tokenise.
    model_folder = resolve_model(args.model)
    prefix = choose_text_prefix(args.model, args.text_prefix)
    tokenizer = load_tokenizer(model_folder, prefix)
    limit_length(tokenizer, load_encoder(model_folder, tokenizer=tokenizer), args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    collator = MultilabelCollator(tokenizer, len(label_names))
    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(dataset, tokenizer) for part, dataset in rows.items()}

    # Every evaluation tunes a threshold first, so that epochs are compared at their best threshold.
    tune = partial(tune_thresholds, tolerance=2)
    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)

    def build_trainer(run_args, train, labels, augmentations, checkpoint):
        """Return a Trainer whose collator augments the copies anew in each epoch.

        `train` are tokenised rows, `labels` their labels, (rows, labels).
        """
        # The loss weighs rare labels more.
        n = len(train)
        pos_weight = balanced_pos_weight(labels.sum(axis=0), n)
        loss = MultilabelLoss(pos_weight, label_smoothing=args.label_smoothing_factor)
        options = {"tokenizer": tokenizer, "seed": args.seed}
        model = load_classifier_to_train(model_folder, label_names, **options)
        if not (checkpoint or args.health_check):
            options = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
            fit_head(model, train, collator, loss, **options)
        # Repeat the rows: `sample` numbers the copies from 0, and the texts themselves, which are
        # never augmented, from -n to -1.
        train = concatenate_datasets([train] * (1 + args.copies))
        train = add_column(train, "sample", np.arange(-n, n * args.copies))

        def change(texts, samples):
            epoch = int(trainer.state.epoch or 0)
            return augment(texts, samples, augmentations, seed=args.seed, epoch=epoch)

        trainer = LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=train,
            eval_dataset=tokens["valid"],
            processing_class=tokenizer,
            data_collator=AugmentingCollator(collator, tokenizer, change),
            compute_loss_func=loss,
            compute_metrics=compute_metrics,
            callbacks=[CheckpointOnSignal(), ReadableProgress()],
        )
        return trainer

    def fine_tune(folder, augmentations, checkpoint):
        """Train; return the Trainer, its metrics, and the scores of validation and test set."""
        run_args = copy.copy(args)
        run_args.output_dir = str(folder)
        train = tokens["train"], y["train"]
        trainer = build_trainer(run_args, *train, augmentations, checkpoint)
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        outputs = {k: trainer.predict(tokens[k], metric_key_prefix=k) for k in ("valid", "test")}
        scores = {part: sigmoid(output.predictions) for part, output in outputs.items()}
        return trainer, metrics | {"test_runtime": outputs["test"].metrics["test_runtime"]}, scores

    def f1_on_test(scores):
        """Tune the threshold on validation, evaluate on the test set."""
        thresholds = tune_thresholds(scores["valid"], y["valid"], tolerance=2)
        predicted = choose_labels(scores["test"], thresholds, single_label=single_label)
        f1 = f1_scores(*split.with_unknown_labels("test", predicted))
        return {name: f1[name] for name in ("micro_f1", "macro_f1")}

    if args.health_check:
        trainer = build_trainer(args, tokens["train"], y["train"], augmentations, None)
        check_health(trainer, args.max_length, label_counts=split.label_counts())
        return

    def naive_bayes_f1(*train_set):
        """Fit naive Bayes; return its F1. Its matrices are not kept during the training below."""
        held_out = (rows[part]["text"] for part in ("valid", "test"))
        valid, test = fit_and_score(naive_bayes(), *train_set, *held_out)
        return f1_on_test({"valid": valid, "test": test})

    # Compare with naive Bayes on all three training sets, and with fine-tuning on unchanged copies.
    compared = {}
    if args.compare:
        texts = rows["train"]["text"], y["train"]
        compared["naive_bayes"] = naive_bayes_f1(*texts)
        for name, changes in (("plain", ()), ("augmented", augmentations)):
            copies = add_augmented_copies(*texts, changes, copies=args.copies, seed=args.seed)
            compared[f"naive_bayes_{name}"] = naive_bayes_f1(*copies)
        del copies
        print_once("\nTraining on unchanged copies")
        _, _, scores = fine_tune(plain_dir, (), plain_checkpoint)
        compared["plain"] = f1_on_test(scores)

    print_once("\nTraining on augmented copies")
    trainer, training_metrics, scores = fine_tune(output_dir, augmentations, checkpoint)

    # Save the tagger with metrics, predictions, plots and the card.
    thresholds = tune_thresholds(scores["valid"], y["valid"], tolerance=2)
    rule = DecisionRule.of(thresholds, len(label_names), single_label=single_label)
    predicted = {part: rule.choose(values) for part, values in scores.items()}
    calibration, _ = calibrate(scores, predicted, y, single_label=single_label)
    metrics = split_metrics(split, scores, predicted, naive_bayes_labels(split))
    metrics |= {**training_metrics, "seed": args.seed}
    metrics |= {f"{run}_{k}": value for run, f1 in compared.items() for k, value in f1.items()}
    metrics |= reading_metrics(tokenizer, rows["train"]["text"])
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
    if args.compare:
        compared["augmented"] = f1_on_test(scores)
        micro = "accuracy" if single_label else "micro F1"
        print_once(f"\n{'Effect (plain: unchanged copies)':34} {micro}  macro F1")
        for name, f1 in compared.items():
            name = name.replace("_", " ")
            print_once(f"  {name:32} {f1['micro_f1']:8.3f}  {f1['macro_f1']:8.3f}")

    # Train the tagger once more, on all labelled rows. The figures stay those of the first model.
    if args.refit:
        print_once("\nTraining on all labelled texts")
        all_rows = split.all_labelled()
        train, labels = tokenize(all_rows.rows["train"], tokenizer), all_rows.labels["train"]
        checkpoint = refit_args.resume_from_checkpoint
        again = build_trainer(refit_args, train, labels, augmentations, checkpoint)
        train_again(again, trainer)
        save(again, all_rows=all_rows)
    remove_checkpoints(args.output_dir)
    shutil.rmtree(plain_dir, ignore_errors=True)
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print_once(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
