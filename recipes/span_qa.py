"""Answer questions with a piece of a text (extractive question answering), or say that it has none.

Why: you want to pull facts out of texts ("Which Python version?", "Who founded it?"), and see where
they stand. An encoder gets two heads, which score each token as the start and as the end of the
answer (Devlin et al. 2019, BERT, 4.2 and 4.3). An answer is a piece of the text: none is made up.

    accelerate launch recipes/span_qa.py --config recipes/configs/span_qa_xquad.yaml
    accelerate launch recipes/span_qa.py --data my_questions.jsonl
    accelerate launch recipes/span_qa.py --model outputs/span_qa --predict new_questions.csv

Data: rows with context, question and answers, as files of SQuAD 1.1 and 2.0, rows of the `datasets`
library, or a table with a column answer, which is then searched in the context. An empty answer
says that the context has none. All questions on a context, or on a nearly equal one, are on one
side of the split. With --template the questions are made: about lines that a bug report template
prints, in other forms or removed (shared/data/template_questions.py).

A long context becomes windows of --max_length tokens that share --stride; the best span of all
windows is the answer. If the data have questions without an answer, a threshold decides between the
best span and "no answer"; it comes from the validation rows. Exact match and F1 are those of
SQuAD's script. Beside the model stands a baseline of patterns.

--predict answers the questions of a file with a trained --model; nothing is trained.

Expect on 116 test questions of XQuAD (English), learned from 951 questions in ten minutes of
processor time: exact match 32.8 and F1 44.4, patterns 6.9 and 19.9. Models trained on the 87,599
questions of SQuAD reach an F1 above 80. On lines of bug reports, in forms that training has not
seen: F1 80.4, a pattern written by hand 67.5 (recipes/FIGURES.md).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import EvalPrediction, set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import (
    QuestionArguments,
    load_questions,
    load_template_questions,
    read_questions,
    read_template,
)
from shared.evaluation import answer_figures, squad_scores
from shared.methods import (
    WINDOW,
    Answer,
    answer_record,
    answer_settings,
    baseline_answers,
    best_answers,
    check_windows,
    choose_threshold,
    question_windows,
)
from shared.models import (
    DEFAULT_MODEL,
    check_unknown_tokens,
    load_question_answerer,
    load_tokenizer,
    resolve_model,
)
from shared.reports import answer_samples, push_to_hub, write_answer_results, write_answers
from shared.training import (
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    PaddingCollator,
    ReadableProgress,
    check_health,
    find_checkpoint,
    remove_checkpoints,
    span_loss,
)


@dataclass
class SpanArguments(QuestionArguments, EpochTrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    predict: str | None = flag(
        None, "Answer the questions of this file with a trained --model; train nothing."
    )
    template: str | None = flag(
        None,
        "YAML file: make questions on these lines of a template in the texts of --data, which then "
        "needs no questions (default: --data has questions).",
    )
    questions_per_text: int = flag(
        1, "With --template: questions per text (default: 1).", least=1, most=1000
    )
    max_length: int = flag(384, "Tokens of a window, with the question (default: 384).", least=8)
    stride: int = flag(128, "Tokens that neighbouring windows share (default: 128).", least=0)
    empty_windows: int | None = flag(
        None,
        "Train on at most so many windows of a question that do not hold its answer (default: "
        "all).",
        least=0,
    )
    max_answer_length: int = flag(
        30, "Maximum number of tokens of an answer (default: 30).", least=1, most=1000
    )
    n_best: int = flag(3, "Spans per question to write (default: 3).", least=1, most=100)
    dropout: float | None = flag(
        None, "Dropout probability (default: that of the model's config).", least=0, below=1
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/span_qa", "Output folder (default: outputs/span_qa).")
    metric_for_best_model: str | None = flag(
        "f1", "Validation metric that selects the best checkpoint: f1, exact_match (default: f1)."
    )
    label_names: list[str] | None = flag(["labels"], "Must stay: the collator makes this column.")
    remove_unused_columns: bool = flag(False, "Must stay false: the collator chooses columns.")


def main() -> None:
    """Load and split questions, cut windows, train, choose a threshold, evaluate, save."""
    args = parse_arguments(SpanArguments, description=__doc__)
    output_dir = start_recipe(args)
    if args.predict:
        predict(args, output_dir)
        return
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    set_seed(args.seed)

    # Load and split.
    with args.main_process_first(desc="loading questions"):
        questions = load_template_questions(args) if args.template else load_questions(args)
    print_once(f"\nData\n{questions.describe()}")
    train = questions.parts["train"]
    if not any(question.answers for question in train):
        raise UserError("the training questions have no answer to learn from")

    # Load the model, and cut the windows.
    folder = resolve_model(args.model)
    tokenizer = load_tokenizer(folder)
    model = load_question_answerer(folder, tokenizer=tokenizer, dropout=args.dropout, new_head=True)
    check_windows(tokenizer, model, args.max_length, args.stride)
    check_unknown_tokens(tokenizer, [question.context for question in train])
    windows = {
        part: question_windows(
            rows,
            tokenizer,
            stride=args.stride,
            keep_offsets=part != "train",
            empty_windows=args.empty_windows if part == "train" else None,
            seed=args.seed,
        )
        for part, rows in questions.parts.items()
    }
    references = {
        part: [question.references for question in rows] for part, rows in questions.parts.items()
    }
    print_once(", ".join(f"{part} {len(w.rows):,} windows" for part, w in windows.items()))

    def answer(logits: np.ndarray, part: str) -> list[Answer]:
        return best_answers(
            logits,
            windows[part],
            questions.parts[part],
            max_answer_length=args.max_answer_length,
            n_best=args.n_best,
        )

    def decide(logits: np.ndarray) -> tuple[list[Answer], float | None]:
        """Return the validation answers, and the threshold that gives them the highest F1."""
        answers = answer(logits, "valid")
        f1 = [
            squad_scores(a.text(None), question.references)[1]
            for a, question in zip(answers, questions.parts["valid"], strict=True)
        ]
        return answers, choose_threshold(answers, f1, questions.parts["valid"])

    def validation_metrics(prediction: EvalPrediction) -> dict[str, float]:
        # The Trainer evaluates the longest windows first; their numbers are in the labels.
        logits = prediction.predictions[np.argsort(prediction.label_ids[:, WINDOW])]
        answers, threshold = decide(logits)
        figures = answer_figures([a.text(threshold) for a in answers], references["valid"])
        return {name: figures[name] for name in ("exact_match", "f1")}

    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=windows["train"].rows,
        eval_dataset=windows["valid"].rows if questions.parts["valid"] else None,
        processing_class=tokenizer,
        data_collator=PaddingCollator(tokenizer),
        compute_loss_func=span_loss,
        compute_metrics=validation_metrics,
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    if args.health_check:
        check_health(trainer, args.max_length)
        return

    # Train.
    print_once("\nTraining")
    training = trainer.train(resume_from_checkpoint=checkpoint).metrics
    history = list(trainer.state.log_history)
    trainer.compute_metrics = None  # it would take the rows of a prediction for validation rows

    # Choose the threshold on the validation rows; without any, the more likely one of the best span
    # and "no answer" is taken, if there are questions without an answer.
    can_be_missing = any(not question.answers for question in train)
    threshold = 0.0 if can_be_missing else None
    if questions.parts["valid"]:
        threshold = decide(trainer.predict(windows["valid"].rows).predictions)[1]
    model.config.question_answering = {
        "null_threshold": threshold,
        "stride": args.stride,
        "max_answer_length": args.max_answer_length,
    }

    # Save the model and the tokenizer, then look at the test questions.
    trainer.save_model()
    figures, records = {}, []
    test = questions.parts["test"]
    if test:
        answers = answer(trainer.predict(windows["test"].rows).predictions, "test")
        records = [answer_record(a, threshold) for a in answers]
        texts = {args.model: [record["answer"] for record in records]}
        template = read_template(args.template) if args.template else None
        texts |= baseline_answers(train, test, template)
        figures = {
            name: answer_figures(of_system, references["test"], confidence=0.95)
            for name, of_system in texts.items()
        }
    if args.process_index != 0:
        return

    # Save the answers, the figures and the card.
    report = write_answer_results(
        output_dir,
        questions,
        records,
        figures,
        training | {"null_threshold": threshold, "seed": args.seed},
        model=args.model,
        max_answer_length=args.max_answer_length,
        log_history=history,
    )
    remove_checkpoints(args.output_dir)
    push_to_hub(output_dir, args)
    print(f"\n{report}\n\nEverything is in {output_dir}.")


def predict(args: SpanArguments, output_dir: Path) -> None:
    """Answer the questions of a file with a trained model; write ``answers.jsonl``."""
    rows, notes = read_questions(args, args.predict, answers_required=False)
    for note in notes:
        print_once(f"note: {note}")
    folder = resolve_model(args.model)
    tokenizer = load_tokenizer(folder)
    model = load_question_answerer(folder, tokenizer=tokenizer)
    settings = answer_settings(model, folder)
    windows = question_windows(rows, tokenizer, stride=settings["stride"])
    print_once(f"{len(rows):,} questions, {len(windows.rows):,} windows")
    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        processing_class=tokenizer,
        data_collator=PaddingCollator(tokenizer),
        compute_loss_func=span_loss,
        callbacks=[ReadableProgress()],
    )
    answers = best_answers(
        trainer.predict(windows.rows).predictions,
        windows,
        rows,
        max_answer_length=settings["max_answer_length"],
        n_best=args.n_best,
    )
    if args.process_index != 0:
        return
    records = [answer_record(answer, settings["null_threshold"]) for answer in answers]
    path = output_dir / "answers.jsonl"
    write_answers(path, rows, records)
    print(f"\n{answer_samples(rows, records, with_right=False)}\n\nThe answers are in {path}.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
