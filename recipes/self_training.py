"""Learn from a few labels and many unlabelled texts: uncertainty-aware self-training.

Why: a few dozen labelled texts and thousands of unlabelled ones are what most people have. A
teacher labels the unlabelled texts, and a student is fine-tuned on the labelled texts and on those
that were chosen of the others; then the student is the next teacher. The recipe follows Mukherjee
and Awadallah 2020, "Uncertainty-aware Self-training for Text Classification with Few Labels" (arXiv
2006.15315): the teacher predicts several times, with dropout; texts are chosen class by class, and
weigh less in the loss, the more these passes disagree.

    accelerate launch recipes/self_training.py --data my_issues.jsonl --output_dir outputs/mine
    accelerate launch recipes/self_training.py --data my_issues.jsonl --teacher outputs/teacher
    accelerate launch recipes/self_training.py --data unlabelled.jsonl --test_data labelled.jsonl \\
        --teacher outputs/teacher
    accelerate launch recipes/self_training.py --data labels.jsonl --weight_column confidence
    accelerate launch recipes/self_training.py --config recipes/configs/self_training_imdb.yaml

The first teacher is the encoder, fine-tuned on the labelled texts; or, with --teacher, any saved
tagger, such as a zero-shot tagger, which needs no labels at all. Several are averaged: taggers of
different methods make different mistakes. The scores are then distilled into the encoder. The paper
draws the texts, by BALD: --acquisition easy or hard. --uncertainty none is classic self-training:
one pass, and all texts have one weight.

Rounds: without validation rows (--valid_size 0, the default: few labels are better spent on
training) they end when less than one text in a hundred gets other labels than in the round before,
or after --rounds; the last one is kept. With validation rows, they end with the first round that is
no better, and the best one is kept. A student that has collapsed, onto one class for example, is
dropped, and the run says so; if it is the first one, the model of the labelled texts alone is kept.

Data: as described in README.md. Rows without labels are the unlabelled texts, and so are those that
--train_size or --train_per_label leave out; or name a file with --unlabelled_data. Rows with a
value in --weight_column are labelled by another source, such as a language model.

Expect on one CPU core with bfloat16 and the default encoder, 128 tokens per text: 20 seconds for
1,000 texts and a pass, a minute for 1,000 texts and an epoch of a student; with 5,000 texts and the
defaults an hour. In a pilot on AG News (10 labels of each class, 1,500 unlabelled texts, 64 tokens,
--uncertainty none, one round, one seed) the student was right in .829 of 800 other texts; its
teacher, fine-tuned on the labelled ones, in .751, and a probe in .764.
"""

from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Literal

import numpy as np

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import (
    PseudoLabelArguments,
    TaggingArguments,
    UnlabelledArguments,
    cache_folder,
    load_corpus,
    load_unlabelled,
    split_corpus,
)
from shared.evaluation import (
    calibrate,
    describe_collapse,
    f1_scores,
    multilabel_metrics,
    sigmoid,
    softmax,
    tune_thresholds,
    tuned_rule,
)
from shared.methods import (
    AcquisitionArguments,
    DropoutPasses,
    StudentArguments,
    Teacher,
    TeacherPredictions,
    naive_bayes_labels,
    student_rows,
)
from shared.models import (
    EncoderArguments,
    check_unknown_tokens,
    find_encoder,
    fit_head,
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
from shared.taggers import load_known_labels, load_tagger, mean_tagger
from shared.training import (
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    NotFiniteError,
    ReadableProgress,
    RefitArguments,
    SoftLabelCollator,
    classification_loss,
    refit_arguments,
    remove_checkpoints,
    round_arguments,
    train_again,
    with_soft_labels,
)

SETTLED = 0.01  # the share of texts with new labels below which a further round changes little


@dataclass
class SelfTrainingArguments(
    AcquisitionArguments,
    StudentArguments,
    RefitArguments,
    EncoderArguments,
    TaggingArguments,
    UnlabelledArguments,
    PseudoLabelArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    teacher: list[str] = flag(
        [],
        "Folders of saved taggers whose mean labels the texts of the first round (default: the "
        "encoder, fine-tuned on the labelled texts).",
    )
    rounds: int = flag(3, "Maximum number of students, one after another (default: 3).", least=1)
    student: Literal["encoder", "last"] = flag(
        "encoder",
        "A student starts from the encoder, or from the student before (default: encoder).",
    )
    max_length: int = flag(
        128, "Tokens per text; longer texts are truncated (default: 128).", least=1
    )
    learning_rate: float = flag(
        1e-4, "Peak learning rate (default: 1e-4; use 3e-5 for BERT-base and larger)."
    )
    output_dir: str = flag(
        "outputs/self_training", "Output folder (default: outputs/self_training)."
    )

    def __post_init__(self):
        if str(self.resume_from_checkpoint or "false").lower() not in ("true", "false"):
            raise UserError("--resume_from_checkpoint: true or false; each round finds its own")
        super().__post_init__()


def main() -> None:
    """Load, fine-tune a teacher; in rounds choose texts, train a student; evaluate once, save."""
    args = parse_arguments(SelfTrainingArguments, description=__doc__)
    output_dir = start_recipe(args)
    refit_args = refit_arguments(args)

    # Load. With a tagger, the labels are those that it knows; the data need not have any.
    tagger, teachers = None, f"--teacher {' '.join(args.teacher)}"
    if args.teacher:
        options = {"bf16": bool(args.bf16), "cache_dir": cache_folder(args.cache_dir)}
        members = [load_tagger(folder, args, **options) for folder in args.teacher]
        tagger = mean_tagger(members, names=args.teacher)
        corpus, held_out = load_known_labels(args, tagger, teachers)
    else:
        corpus, held_out = load_corpus(args)
    split = split_corpus(corpus, held_out, args, seed=args.seed, labels_required=False)
    print_once(split.describe())
    unlabelled = load_unlabelled(split, args, seed=args.seed, examples_required=tagger is None)
    pseudo_labelled, y, label_names = split.pseudo_labelled, split.labels, corpus.label_names
    n_labelled, n_texts = len(y["train"]) + len(pseudo_labelled), len(unlabelled.rows)
    single_label = corpus.single_label if n_labelled else tagger.rule.top_k == 1
    to_scores = softmax if single_label else sigmoid

    # Load the model and tokenise; the collator pads each batch and collects the weights of rows.
    model_folder, tokenizer = find_encoder(args)
    settings = {"single_label": single_label, "dropout": args.dropout, "seed": args.seed}
    settings |= {"tokenizer": tokenizer}
    load_new = partial(load_classifier_to_train, model_folder, label_names, **settings)
    model = load_new()
    passes = args.passes if args.uncertainty == "dropout" else 0
    limit_length(tokenizer, model, args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    if passes:
        DropoutPasses(model, passes)  # raises if the model has no dropout
    rows = split.rows | {"unlabelled": unlabelled.rows}
    rows |= {"pseudo_labelled": corpus.dataset.select(pseudo_labelled)}
    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(dataset, tokenizer) for part, dataset in rows.items()}
    tokens |= {part: with_soft_labels(tokens[part], y[part]) for part in y if len(y[part])}
    collator = SoftLabelCollator(tokenizer)
    tune = partial(tune_thresholds, tolerance=2)
    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)
    by_others = corpus.label_matrix(pseudo_labelled), corpus.weights(pseudo_labelled)

    def build_trainer(run_args, split, chosen=None, start=None):
        """Return a Trainer for the labelled rows of a split and the texts that a teacher labelled.

        The model is a new one, or has the weights `start`.
        """
        n_rows = len(split.labels["train"])
        by_hand = tokenize(split.rows["train"], tokenizer), split.labels["train"], np.ones(n_rows)
        labelled = [by_hand, (tokens["pseudo_labelled"], *by_others)]
        train = student_rows(labelled, [chosen] if chosen else [], args.labelled_share)
        # Labels of a teacher are probabilities, which balanced weights would change.
        loss = classification_loss(
            np.array(train["labels"]),
            label_names,
            single_label=single_label,
            balanced=chosen is None,
            totals=np.ones(len(label_names)),
            label_smoothing=args.label_smoothing_factor,
        )
        model = load_new()
        if start is not None:
            model.load_state_dict(start)
        elif run_args.resume_from_checkpoint is None:
            options = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
            fit_head(model, train.remove_columns("weight"), collator, loss, **options)
        return LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=train,
            eval_dataset=tokens["valid"],
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            compute_metrics=compute_metrics,
            callbacks=[CheckpointOnSignal(), ReadableProgress()],
        )

    def train_teacher(number, epochs, *more):
        """Train the model of a round, and let it label the unlabelled texts."""
        run_args = round_arguments(args, number, num_train_epochs=epochs)
        trainer = build_trainer(run_args, split, *more)
        trainer.train(resume_from_checkpoint=run_args.resume_from_checkpoint)
        trainer.compute_metrics = None  # it would tune thresholds on the test set
        scores = {k: to_scores(trainer.predict(tokens[k]).predictions) for k in ("train", "valid")}
        rule = tuned_rule(
            *(scores["valid"], y["valid"]),
            single_label=single_label,
            every_text_has_a_label=corpus.empty_labels == "unlabelled",
        )
        if tagger and number and not len(y["valid"]):
            # A student learns the scores of the tagger, and so what they mean.
            rule = replace(tagger.calibrated_rule, reads_calibrated=False)
        valid_f1 = 0.0
        if len(y["valid"]):
            valid_f1 = f1_scores(y["valid"], rule.choose(scores["valid"]))["micro_f1"]
        predictions = TeacherPredictions.of_model(trainer, tokens["unlabelled"], passes=passes)
        labels = rule.choose(predictions.scores)
        labels = {"train": rule.choose(scores["train"]), "unlabelled": labels}
        return Teacher(number, predictions, labels, rule, valid_f1, trainer, *more[:1])

    # The model of the labelled texts alone: the first teacher, and what a collapse leaves.
    started = perf_counter()
    supervised, kept, collapse = None, None, None
    if n_labelled:
        print_once(f"\nTraining on {n_labelled:,} labelled texts")
        supervised = kept = teacher = train_teacher(0, args.num_train_epochs)
    if tagger:
        print_once(f"\nScoring {n_texts:,} unlabelled texts with {', '.join(args.teacher)}")
        raw = {part: tagger.raw_scores(rows[part]["text"][:]) for part in ("train", "unlabelled")}
        scores = tagger.calibrate(raw["unlabelled"])
        predictions = TeacherPredictions.of_scores(scores, single_label=single_label)
        labels = {part: tagger.choose(values) for part, values in raw.items()}
        teacher = Teacher(0, predictions, labels, tagger.rule)

    # Rounds: choose texts and label them; train a student on them, which is the next teacher.
    first = teacher.labels
    for number in range(1, 1 + args.rounds * bool(n_texts)):
        chosen = teacher.choose(tokens["unlabelled"], args, seed=(args.seed, number))
        print_once(f"\nRound {number}: training on {len(chosen[0]):,} unlabelled texts as well")
        start = None
        if args.student == "last" and teacher.trainer:
            start = teacher.trainer.model.state_dict()
        try:
            student = train_teacher(number, args.student_epochs, chosen, start)
        except NotFiniteError as error:
            collapse = error.problem
            break

        # Keep it, unless it has collapsed or is no better on the validation rows.
        if collapse := describe_collapse(first, student.labels, y["train"], label_names):
            break
        if kept and len(y["valid"]) and student.valid_f1 <= kept.valid_f1:
            print_once(f"round {number} is no better on the validation rows")
            break
        changed = (student.labels["unlabelled"] != teacher.labels["unlabelled"]).any(axis=1).mean()
        print_once(f"{changed:.1%} of the unlabelled texts got other labels than before")
        kept = teacher = student
        if changed < SETTLED and not len(y["valid"]):
            break
    if kept is None:
        raise UserError(
            f"{teachers}: its student has collapsed ({collapse}), and there are no "
            "labelled texts to train on instead; use the teacher itself, or label some texts"
        )
    notes = [kept.explain()]  # for the card
    if collapse:
        origin = f"round {kept.round}" if kept.chosen else "the labelled texts"
        note = f"The student of round {number} collapsed: {collapse}."
        notes.append(f"{note} The model of {origin} is kept.")
        print_once(f"\n{notes[-1]}")
    train_seconds = perf_counter() - started

    # Evaluate on the test set, once: the model that is kept, and those that it started from.
    test = kept.trainer.predict(tokens["test"], metric_key_prefix="test")
    scores = {"test": to_scores(test.predictions)}
    scores["valid"] = to_scores(kept.trainer.predict(tokens["valid"]).predictions)
    predicted = {part: kept.rule.choose(values) for part, values in scores.items()}
    calibration, _ = calibrate(scores, predicted, y, single_label=single_label)
    compared = {}
    if tagger:
        compared["teacher"] = tagger.choose(tagger.raw_scores(rows["test"]["text"][:]))
    if supervised and kept is not supervised:
        raw = to_scores(supervised.trainer.predict(tokens["test"]).predictions)
        compared["supervised"] = supervised.rule.choose(raw)
    f1 = {k: f1_scores(*split.with_unknown_labels("test", v)) for k, v in compared.items()}
    baseline = naive_bayes_labels(split) if len(y["train"]) else None

    # Save the tagger with metrics, predictions, plots and the card.
    metrics = {
        **test.metrics,
        **split_metrics(split, scores, predicted, baseline),
        **{f"{k}_test_{name}": f1[k][name] for k in f1 for name in ("micro_f1", "macro_f1")},
        **unlabelled.metrics(),
        **reading_metrics(tokenizer, rows["test"]["text"]),
        **{"round": kept.round, "collapse": collapse},
        "train_runtime": train_seconds,
        "seed": args.seed,
    }
    save = partial(
        save_trained_tagger,
        output_dir=output_dir,
        metrics=metrics,
        split=split,
        scores=scores["test"],
        predicted=predicted["test"],
        rule=kept.rule,
        calibration=calibration,
        card=TaggerCard.of_encoder(
            args, tokenizer, evaluation=split.explain(None), note=" ".join(notes).strip()
        ),
        log_history=kept.trainer.state.log_history,
        top_scores=args.top_scores,
    )
    print_once(f"\nTest ({len(y['test']):,} texts)\n\n{save(kept.trainer)}")
    for name, values in f1.items():
        print_once(f"{name}: micro F1 {values['micro_f1']:.3f}, macro F1 {values['macro_f1']:.3f}")

    # Train the tagger once more, with all labelled rows. The figures stay those of the first model.
    if args.refit:
        print_once("\nTraining on all labelled texts")
        all_rows = split.all_labelled()
        again = build_trainer(refit_args, all_rows, kept.chosen)
        train_again(again, kept.trainer)
        save(again, all_rows=all_rows)
    remove_checkpoints(args.output_dir)
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print_once(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
