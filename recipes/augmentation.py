"""Fine-tune an encoder on changed copies of few training texts, and measure what they are worth.

Why: copies with other words in other places cost no labelling. Six augmentations to choose from and
combine: synonyms (WordNet), words swapped or deleted ("EDA", Wei and Zou 2019), words inserted or
substituted by a masked language model, translation there and back. The model learns from the
training texts and --copies of each, changed anew in every epoch. --compare true tells what that is
worth: naive Bayes without copies, with unchanged and with augmented ones ("Natural Language
Processing with Transformers", chapter 9), and the fine-tuning with either, in as many steps.

    accelerate launch recipes/augmentation.py --config recipes/configs/augmentation_sample.yaml
    accelerate launch recipes/augmentation.py --data issues.jsonl --augmentations delete --copies 2

Data: as for recipes/github_tagger.py, with the same parts and the same nested --train_size, so that
their figures compare. Code and line breaks of a text stay as they are.

Expect on 64 labelled texts of the sample (the config above, mean of seeds 1 to 3), in two minutes
on one CPU core: micro / macro F1 of the fine-tuning .665 / .536 with unchanged copies, .649 / .531
with swapped and deleted words: no gain, in a spread of .02. Naive Bayes .317 / .187 without copies,
.448 / .308 with unchanged and .448 / .305 with augmented ones: words count twice, which is all.
"""

import copy
import shutil
from dataclasses import dataclass
from functools import partial

import numpy as np
from datasets import concatenate_datasets
from transformers import set_seed

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
from shared.methods import (
    NAMES_HELP,
    AugmentationArguments,
    add_augmented_copies,
    augment,
    augmentation_table,
    fit_and_score,
    load_augmentations,
    naive_bayes,
)
from shared.models import (
    DEFAULT_MODEL,
    append_mean_pooling,
    fit_head,
    limit_length,
    load_encoder,
    load_sequence_classifier,
    load_tokenizer,
    resolve_model,
    tokenize,
)
from shared.reports import TaggerCard, describe_output, split_metrics, write_results
from shared.training import (
    AugmentingCollator,
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
class AugmentationRecipeArguments(AugmentationArguments, SplitArguments, EpochTrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    augmentations: list[str] = flag(
        ["swap", "delete"], f"One after another: {NAMES_HELP} (default: swap delete)."
    )
    compare: bool = flag(
        False, "Also fine-tune on unchanged copies, and fit naive Bayes on both (default: false)."
    )
    sentence: str | None = flag(
        None, "To show the augmentations of (default: the first of the first training text)."
    )
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens of a text that the model reads (default: 256).")
    health_check: bool = flag(False, "Check data, model and rate, then stop (default: no).")
    output_dir: str = flag("outputs/augmentation", "Folder (default: outputs/augmentation).")
    num_train_epochs: float = flag(8, "Passes over texts and copies (default: 8).")
    learning_rate: float = flag(1e-4, "Peak rate (default: 1e-4; BERT-base and larger: 3e-5).")

    def __post_init__(self):
        AugmentationArguments.__post_init__(self)
        if self.dataloader_num_workers:
            raise UserError("--dataloader_num_workers: augmentation happens in the main process")
        resume = str(self.resume_from_checkpoint or "false").lower()
        if self.compare and resume not in ("true", "false"):
            raise UserError("--resume_from_checkpoint: true or false where --compare trains twice")
        self.remove_unused_columns = False  # what is augmented is the text
        EpochTrainingArguments.__post_init__(self)


def main() -> None:
    """Load, split, show, train on copies made anew each epoch, compare, save."""
    args = parse_arguments(AugmentationRecipeArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    plain = output_dir / ".compare_plain"  # for checkpoints of the training to compare with
    plain_checkpoint = find_checkpoint(plain, args.resume_from_checkpoint) if args.compare else None
    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    rows, y = split.rows, split.labels

    augmentations = load_augmentations(args.augmentations, args, device=args.device)
    shown = args.sentence or rows["train"]["text"][0]
    print_once(f"\n{augmentation_table(shown, args, device=args.device, seed=args.seed)}")

    # Tokens; then what to train on: the texts, whose samples are below 0, and --copies of them
    model_folder = resolve_model(args.model)
    tokenizer = load_tokenizer(model_folder)
    limit_length(tokenizer, load_encoder(model_folder, tokenizer=tokenizer), args.max_length)
    collator = MultilabelCollator(tokenizer, len(label_names))

    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(found, tokenizer) for part, found in rows.items()}
    n = len(tokens["train"])
    train = concatenate_datasets([tokens["train"]] * (1 + args.copies))
    train = train.add_column("sample", np.arange(-n, n * args.copies))
    pos_weight = balanced_pos_weight(y["train"].sum(axis=0), n)
    loss = MultilabelLoss(pos_weight, label_smoothing=args.label_smoothing_factor)

    # Epochs are compared at the thresholds that each would be used with.
    tune = partial(tune_thresholds, tolerance=2)
    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)

    def build_trainer(folder, augmentations, checkpoint):
        """Build a Trainer whose copies are made anew each epoch."""
        set_seed(args.seed)
        model = load_sequence_classifier(model_folder, label_names, tokenizer=tokenizer)
        append_mean_pooling(model)
        if not (checkpoint or args.health_check):
            start = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
            fit_head(model, tokens["train"], collator, loss, **start)

        def change(texts, samples):
            epoch = int(trainer.state.epoch or 0)
            return augment(texts, samples, augmentations, seed=args.seed, epoch=epoch)

        run_args = copy.copy(args)
        run_args.output_dir = str(folder)
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
        """Train; return the Trainer, its metrics and the scores."""
        trainer = build_trainer(folder, augmentations, checkpoint)
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        scores = {k: sigmoid(trainer.predict(tokens[k]).predictions) for k in ("valid", "test")}
        return trainer, metrics, scores

    def on_test(scores):
        """Tune the threshold on validation, then look at the test rows."""
        thresholds = tune_thresholds(scores["valid"], y["valid"], tolerance=2)
        found = f1_scores(
            y["test"], choose_labels(scores["test"], thresholds, single_label=single_label)
        )
        return {name: found[name] for name in ("micro_f1", "macro_f1")}

    if args.health_check:
        check_health(
            build_trainer(output_dir, augmentations, None),
            args.max_length,
            label_counts=split.label_counts(),
        )
        return

    # The others to compare with: naive Bayes on words, and the same training on unchanged copies
    compared = {}
    if args.compare:
        learned = {"naive_bayes": (texts := (rows["train"]["text"], y["train"]))}
        for name, changes in (("plain", ()), ("augmented", augmentations)):
            copied = add_augmented_copies(*texts, changes, copies=args.copies, seed=args.seed)
            learned[f"naive_bayes_{name}"] = copied
        for name, train_on in learned.items():
            asked = (rows[part]["text"] for part in ("valid", "test"))
            valid, test = fit_and_score(naive_bayes(), *train_on, *asked)
            compared[name] = on_test({"valid": valid, "test": test})
        print_once("\nTraining on unchanged copies")
        _, _, scores = fine_tune(plain, (), plain_checkpoint)
        compared["plain"] = on_test(scores)

    print_once("\nTraining on augmented copies")
    trainer, trained, scores = fine_tune(output_dir, augmentations, checkpoint)

    # Save all that a person wants to see
    thresholds = tune_thresholds(scores["valid"], y["valid"], tolerance=2)
    trainer.model.config.thresholds = thresholds.tolist()
    trainer.model.config.one_label_each = single_label
    trainer.save_model()
    if args.process_index != 0:
        return
    predicted = {
        k: choose_labels(v, thresholds, single_label=single_label) for k, v in scores.items()
    }
    figures = split_metrics(y, scores, predicted)
    figures |= {f"{run}_{k}": value for run, f1 in compared.items() for k, value in f1.items()}
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        {**figures, **trained, "seed": args.seed},
        card=TaggerCard(base_model=args.model, max_length=args.max_length),
        thresholds=None if single_label else thresholds,
        log_history=trainer.state.log_history,
    )
    remove_checkpoints(args.output_dir)

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    if args.compare:
        shutil.rmtree(plain, ignore_errors=True)
        compared["augmented"] = on_test(scores)
        print(f"\n{'Effect (plain: unchanged copies)':34} micro F1  macro F1")
        for name, f1 in compared.items():
            print(f"  {name.replace('_', ' '):32} {f1['micro_f1']:8.3f}  {f1['macro_f1']:8.3f}")
    print(f"\n{describe_output(output_dir, model=True)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
