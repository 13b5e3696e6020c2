"""Turn a few labels into a fill-in-the-blank task: pattern-exploiting training (PET).

Why: a masked language model knows words, and the names of labels are words. In a pattern, such as
"{text} It is about {mask}.", it fills in the label's word; so a few labels fine-tune a task that it
was trained for, and no new head. Schick and Schütze 2021, "Exploiting Cloze Questions for Few Shot
Text Classification and Natural Language Inference" (arXiv 2001.07676). One model is fine-tuned for
each pattern; their mean labels the unlabelled texts softly, and an encoder learns these labels.

    accelerate launch recipes/pet.py --data my_issues.jsonl --masked_model outputs/adapted
    accelerate launch recipes/pet.py --data my_issues.jsonl --masked_model bert-base-uncased \\
        --prompts my_patterns.yaml
    accelerate launch recipes/pet.py --config recipes/configs/pet_ag_news.yaml

The masked language model is one of the hub, or what the recipe domain_adaptation makes of an
encoder and texts without labels: the default encoder has no head for hidden words. Patterns and the
words of the labels, each one token of the model, are in a YAML file (--prompts): `templates`, each
with {text} and {mask}, and `verbalizer`. Without it the patterns are general ones, and the words
are the names of the labels.

--loss pet is the cross-entropy over the words of the labels, with a little masked-language
modelling on unlabelled texts, so that the model keeps its language. --loss adapet is that of Tam et
al. 2021, "Improving and Simplifying Pattern Exploiting Training" (arXiv 2103.11955): the right word
against all words of the vocabulary, and the text predicted beside right and wrong labels. Where a
text can have several labels, there is only adapet's loss: each label's word competes with the words
of no label, not with those of the others.

The mean of the models weighs each by its accuracy on the labelled texts before training, which says
how well its pattern fits the task (section 3.3). Nothing is chosen by validation rows unless
--valid_size holds some out for thresholds and calibration.

Data: as described in README.md. Unlabelled texts are the rows without a label, and the training
rows that --train_size or --train_per_label leaves out; or those of --unlabelled_data. Each training
has a folder with its checkpoints until the run ends, 270 MB for the default size.

Expect with the adapted default encoder and 30 labels of each class of AG News: accuracy .856 on the
test file, where fine-tuning on the same labels has .824; 40 seconds of processor time to train a
pattern at 64 tokens, and 5 ms to score a text with it.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
from transformers import set_seed

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
    DecisionRule,
    calibrate,
    f1_scores,
    multilabel_metrics,
    sigmoid,
    softmax,
    tuned_rule,
)
from shared.methods import (
    StudentArguments,
    best_label_accuracy,
    ensemble_scores,
    label_word_ids,
    naive_bayes_labels,
    read_prompt_templates,
    soft_labels,
    student_rows,
    tokenize_pattern,
)
from shared.models import (
    EncoderArguments,
    check_unknown_tokens,
    find_encoder,
    fit_head,
    limit_length,
    load_classifier_to_train,
    load_masked_language_model,
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
    write_patterns,
)
from shared.training import (
    CheckpointOnSignal,
    ClozeArguments,
    ClozeCollator,
    ClozeTrainer,
    EpochTrainingArguments,
    LabelWords,
    LengthGroupedTrainer,
    ReadableProgress,
    SoftLabelCollator,
    check_health,
    classification_loss,
    cloze_objective,
    cloze_rows,
    remove_checkpoints,
    round_arguments,
    score_masked_tokens_only,
    with_soft_labels,
)

TEMPLATES = [
    "{text}\nIt is about {mask}.",
    "{mask}: {text}",
    "[ Topic: {mask} ] {text}",
    "{text} ({mask})",
]
CHECKED_TOKENS = 64  # of a row, in the health check


@dataclass
class PetArguments(
    ClozeArguments,
    StudentArguments,
    EncoderArguments,
    TaggingArguments,
    UnlabelledArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    masked_model: str | None = flag(
        None,
        "The masked language model of the patterns: a hub id, or a folder such as "
        "domain_adaptation leaves; --model is the encoder of the tagger that learns from it.",
    )
    prompts: str | None = flag(
        None,
        "YAML file with templates and a verbalizer (default: general patterns, and the names of "
        "the labels as words).",
    )
    repetitions: int = flag(
        1, "Models of each pattern, with other seeds (default: 1; 3 in the paper).", least=1
    )
    weights: Literal["accuracy", "uniform"] = flag(
        "accuracy",
        "Weight of a pattern in the mean: its accuracy on the labelled texts before training, or "
        "the same for all (default: accuracy).",
    )
    temperature: float = flag(
        2.0, "Divides the logits of the mean; above 1 softens the labels (default: 2).", above=0
    )
    student_learning_rate: float = flag(
        1e-4, "Peak learning rate of the student (default: 1e-4).", above=0
    )
    max_length: int = flag(
        128,
        "Tokens per text and pattern; longer texts are truncated (default: 128).",
        least=1,
    )
    num_train_epochs: float = flag(10, "Epochs of each pattern (default: 10).")
    learning_rate: float = flag(1e-4, "Peak learning rate of each pattern (default: 1e-4).")
    health_check: bool = flag(
        False, "Only check data, masked model and learning rate (default: false)."
    )
    eval_strategy: str = flag("no", "When to evaluate the student (default: no).")
    save_strategy: str = flag("steps", "When to save: no, steps, epoch (default: steps).")
    save_steps: float = flag(
        250, "Steps between checkpoints; each training ends with one (default: 250)."
    )
    load_best_model_at_end: bool = flag(
        False, "Use the best checkpoint of the student, not the last (default: false)."
    )
    output_dir: str = flag("outputs/pet", "Output folder (default: outputs/pet).")

    def __post_init__(self):
        if self.masked_model is None:
            raise UserError(
                "--masked_model: name a masked language model: a hub id such as "
                "bert-base-uncased, or a folder that the recipe domain_adaptation has left"
            )
        if str(self.resume_from_checkpoint or "false").lower() not in ("true", "false"):
            raise UserError("--resume_from_checkpoint: true or false; each training finds its own")
        if self.dataloader_persistent_workers:
            raise UserError("--dataloader_persistent_workers: would mask the same in each epoch")
        super().__post_init__()


def main() -> None:
    """Load, fine-tune a model for each pattern, label texts softly, train a student, save."""
    args = parse_arguments(PetArguments, description=__doc__)
    output_dir = start_recipe(args)

    # Load the data and split the labelled rows; y maps each part to (rows, labels), multi-hot.
    corpus, split = load_and_split(args, seed=args.seed)
    unlabelled = load_unlabelled(split, args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    rows, y = split.rows | {"unlabelled": unlabelled.rows}, split.labels
    objective = cloze_objective(args, single_label=single_label)

    # Patterns, and the words of the labels in the vocabulary of the masked language model.
    prompts = read_prompt_templates(args.prompts, label_names, "{mask}", TEMPLATES)
    masked_folder = resolve_model(args.masked_model, flag="masked_model")
    masked_tokenizer = load_tokenizer(masked_folder, truncation_side=args.truncation_side)

    def load_masked():
        """Return the masked language model."""
        return load_masked_language_model(masked_folder, tokenizer=masked_tokenizer)

    masked_model = load_masked()
    length = min(args.max_length, CHECKED_TOKENS) if args.health_check else args.max_length
    limit_length(masked_tokenizer, masked_model, length)
    vocab_size = masked_model.config.vocab_size
    label_words = LabelWords(label_word_ids(masked_tokenizer, prompts, label_names))
    check_unknown_tokens(masked_tokenizer, corpus.dataset["text"])

    def in_pattern(template, parts):
        """Return the tokenised rows of some parts in a pattern."""
        options = (template, masked_tokenizer, prompts.instruction)
        return {part: tokenize_pattern(rows[part]["text"][:], *options) for part in parts}

    for template in prompts.templates:
        in_pattern(template, ["train"])  # raises now if the pattern leaves no room for a text

    # The student: the encoder with a new head, whose weights the seed decides.
    model_folder, tokenizer = find_encoder(args)
    options = {"single_label": single_label, "dropout": args.dropout, "seed": args.seed}
    model = load_classifier_to_train(model_folder, label_names, tokenizer=tokenizer, **options)
    limit_length(tokenizer, model, args.max_length)

    def build_cloze(run_args, tokens):
        """Return a Trainer for a pattern; `tokens` maps parts to their rows in the pattern."""
        set_seed(run_args.seed)
        masks = objective.masked_weight > 0 and not args.health_check
        masked_model = load_masked()
        score_masked_tokens_only(masked_model, label_words)
        trainer = ClozeTrainer(
            model=masked_model,
            args=run_args,
            train_dataset=cloze_rows(tokens["train"], y["train"]),
            processing_class=masked_tokenizer,
            data_collator=ClozeCollator(
                masked_tokenizer,
                seed=run_args.seed,
                epoch=lambda: int(trainer.state.epoch or 0),
                texts=tokens["unlabelled"] if masks and objective.loss == "pet" else None,
                label_words=label_words if masks and objective.loss == "adapet" else None,
            ),
            compute_loss_func=objective.label_loss(label_smoothing=args.label_smoothing_factor),
            masked_weight=objective.masked_weight,
            callbacks=[CheckpointOnSignal(), ReadableProgress()],
            bf16_predictions=args.bf16,
        )
        return trainer

    if args.health_check:
        trainer = build_cloze(args, in_pattern(prompts.templates[0], ["train"]))
        uninformed = None if objective.loss == "pet" else np.log(vocab_size) * y["train"].mean()
        counts = split.label_counts()
        check_health(trainer, length, label_counts=counts, uninformed=uninformed)
        return

    half_rule = DecisionRule.of(
        *(0.5, len(label_names)),
        single_label=single_label,
        at_least_one=corpus.empty_labels == "unlabelled",
    )

    def test_f1(logits):
        """Return the F1 scores of logits on the test texts, at a threshold of .5."""
        predicted = half_rule.choose(soft_labels(logits, 1.0, single_label=single_label))
        return f1_scores(*split.with_unknown_labels("test", predicted))

    # Fine-tune one or more models for each pattern, and let them score the labels of texts.
    started = perf_counter()
    runs = [(template, i) for template in prompts.templates for i in range(args.repetitions)]
    weights, logits, table = [], {"unlabelled": [], "test": []}, []
    for number, (template, repetition) in enumerate(runs):
        run_args = round_arguments(args, number, num_train_epochs=args.num_train_epochs)
        run_args.eval_strategy, run_args.load_best_model_at_end = "no", False
        run_args.seed = args.seed + repetition
        print_once(f"\nPattern {number + 1} of {len(runs)}: {template!r}")
        tokens = in_pattern(template, ["train", "unlabelled", "test"])
        # A Trainer of its own: a prediction before a training keeps processes from sharing
        # gradients.
        before = build_cloze(run_args, tokens).predict(tokens["train"]).predictions
        accuracy = best_label_accuracy(before, y["train"])
        weights.append(accuracy if args.weights == "accuracy" else 1.0)
        trainer = build_cloze(run_args, tokens)
        trainer.train(resume_from_checkpoint=run_args.resume_from_checkpoint)
        for part, of_part in logits.items():
            of_part.append(trainer.predict(tokens[part]).predictions)
        trainer.optimizer = None  # make room for that of the next model
        trainer.accelerator.free_memory()
        f1 = test_f1(logits["test"][-1])
        table.append({"pattern": template, "seed": run_args.seed, "accuracy_before": accuracy})
        table[-1] |= {"test_micro_f1": f1["micro_f1"], "test_macro_f1": f1["macro_f1"]}
    ensemble = ensemble_scores(logits["unlabelled"], weights)
    targets = soft_labels(ensemble, args.temperature, single_label=single_label)

    # The student. The collator pads each batch and collects the weights of rows.
    run_args = round_arguments(args, len(runs), num_train_epochs=args.student_epochs)
    run_args.learning_rate = args.student_learning_rate
    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(dataset, tokenizer) for part, dataset in rows.items()}
    train = student_rows(
        [(tokens["train"], y["train"], np.ones(len(y["train"])))],
        [(tokens["unlabelled"], targets, np.ones(len(targets)))],
        args.labelled_share,
    )
    tokens |= {part: with_soft_labels(tokens[part], y[part]) for part in y if len(y[part])}
    collator = SoftLabelCollator(tokenizer)
    student_loss = classification_loss(
        np.array(train["labels"]),
        label_names,
        single_label=single_label,
        balanced=False,
        label_smoothing=args.label_smoothing_factor,
    )
    if run_args.resume_from_checkpoint is None:
        options = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
        fit_head(model, train.remove_columns("weight"), collator, student_loss, **options)
    print_once(f"\nTraining the tagger on {len(targets):,} texts that {len(runs)} models labelled")
    student = LengthGroupedTrainer(
        model=model,
        args=run_args,
        train_dataset=train,
        eval_dataset=tokens["valid"],
        processing_class=tokenizer,
        data_collator=collator,
        compute_loss_func=student_loss,
        compute_metrics=multilabel_metrics(label_names, single_label=single_label),
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    student.train(resume_from_checkpoint=run_args.resume_from_checkpoint)
    train_seconds = perf_counter() - started

    # Evaluate on the test set, once: the student, and the mean of the models that taught it.
    to_scores = softmax if single_label else sigmoid
    test = student.predict(tokens["test"], metric_key_prefix="test")
    scores = {"test": to_scores(test.predictions)}
    scores["valid"] = to_scores(student.predict(tokens["valid"]).predictions)
    options = {"single_label": single_label, "every_text_has_a_label": half_rule.at_least_one}
    rule = tuned_rule(scores["valid"], y["valid"], **options)
    predicted = {part: rule.choose(values) for part, values in scores.items()}
    calibration, _ = calibrate(scores, predicted, y, single_label=single_label)
    mean_f1 = test_f1(ensemble_scores(logits["test"], weights))

    # Save the tagger with metrics, predictions, plots and the card.
    metrics = {
        **test.metrics,
        **split_metrics(split, scores, predicted, naive_bayes_labels(split)),
        **{f"ensemble_test_{name}": mean_f1[name] for name in ("micro_f1", "macro_f1")},
        **unlabelled.metrics(),
        **reading_metrics(tokenizer, rows["test"]["text"]),
        "train_runtime": train_seconds,
        "seed": args.seed,
    }
    report = save_trained_tagger(
        student,
        output_dir,
        metrics,
        split=split,
        scores=scores["test"],
        predicted=predicted["test"],
        rule=rule,
        calibration=calibration,
        card=TaggerCard.of_encoder(
            args,
            tokenizer,
            evaluation=split.explain(None),
            note=f"It learned the labels that {len(runs)} fine-tuned masked language models gave "
            f"{len(targets):,} unlabelled texts ({objective.loss}); patterns.csv has their "
            "figures.",
        ),
        log_history=student.state.log_history,
        top_scores=args.top_scores,
    )
    if args.process_index == 0:
        of_patterns = write_patterns(output_dir, table, mean_f1)
        print(f"\nTest ({len(y['test']):,} texts)\n\n{report}\n\n{of_patterns}")
    remove_checkpoints(args.output_dir)
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print_once(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
