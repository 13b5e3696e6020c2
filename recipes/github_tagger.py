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
from time import perf_counter
from typing import Literal

from transformers import EarlyStoppingCallback, set_seed

from shared.arguments import flag, parse_arguments
from shared.baselines import fit_and_score, naive_bayes
from shared.callbacks import CheckpointOnSignal, ReadableProgress
from shared.checkpoints import remove_checkpoints, resume_point
from shared.collators import MultilabelCollator, tokenize
from shared.data import load_data, load_held_out
from shared.data_arguments import SplitArguments
from shared.decisions import choose_labels
from shared.errors import UserError, exit_on_user_error
from shared.files import make_output_dir
from shared.heads import append_mean_pooling, fit_head
from shared.health import check_health
from shared.losses import MultilabelLoss, balanced_pos_weight
from shared.metrics import f1_scores, multilabel_metrics, sigmoid
from shared.models import (
    DEFAULT_MODEL,
    has_dropout,
    limit_length,
    load_sequence_classifier,
    load_tokenizer,
    resolve_model,
)
from shared.parts import split_corpus
from shared.predictions import examples
from shared.progress import quiet_libraries
from shared.results import contents, held_out_figures, write_results
from shared.thresholds import tune_thresholds
from shared.trainer import LengthGroupedTrainer
from shared.training_arguments import EpochTrainingArguments


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
    quiet_libraries()
    output_dir = make_output_dir(args.output_dir)
    checkpoint = resume_point(args.output_dir, args.resume_from_checkpoint)
    say = print if args.process_index == 0 else lambda *_: None
    set_seed(args.seed)

    with args.main_process_first(desc="preparing the data"):
        corpus = load_data(args)
        held_out = load_held_out(args, corpus)
    label_names, one_each = corpus.label_names, corpus.one_label_each
    say(f"\nData\n{corpus.describe()}")
    for name, other in held_out.items():
        say(f"{name} rows: {other.describe(brief=True)}")

    # Split: near duplicates on one side, every label in every part as far as it has rows enough
    parts = split_corpus(corpus, held_out, args, seed=args.seed)
    say(parts.describe())
    y = parts.labels
    rows = {**parts.rows, "unlabelled": corpus.dataset.select(corpus.unlabelled[:3])}

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

    def compute_metrics(prediction):
        # Epochs are compared at the threshold that each would be used with.
        best = tune_thresholds(sigmoid(prediction.predictions), prediction.label_ids, tolerance=2)
        metrics = multilabel_metrics(label_names, thresholds=best, one_each=one_each)
        return metrics(prediction)

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
        counts = dict(zip(label_names, y["train"].sum(axis=0), strict=True))
        check_health(trainer, args.max_length, label_counts=counts)
        return

    # Train; the best epoch by validation micro F1 is kept, or the last
    say("\nTraining")
    trained = trainer.train(resume_from_checkpoint=checkpoint)

    # Thresholds on validation, then one look at the test rows
    per_label = args.thresholds == "per_label"
    scores = sigmoid(trainer.predict(tokens["valid"]).predictions)
    thresholds = tune_thresholds(scores, y["valid"], per_label=per_label, tolerance=2)
    model.config.thresholds, model.config.one_label_each = thresholds.tolist(), one_each
    valid = f1_scores(y["valid"], choose_labels(scores, thresholds, one_each=one_each))
    seconds = perf_counter() - started
    trainer.compute_metrics = multilabel_metrics(
        label_names, thresholds=thresholds, one_each=one_each
    )
    tested = trainer.predict(tokens["test"], metric_key_prefix="test")
    scores = sigmoid(tested.predictions)
    predicted = choose_labels(scores, thresholds, one_each=one_each)
    tagged = ()
    if unlabelled := tokens["unlabelled"].remove_columns("labels"):
        tagged = sigmoid(trainer.predict(unlabelled).predictions)

    # Save: model, tokenizer, labels and thresholds; then everything a person wants to see
    trainer.save_model()
    if args.process_index != 0:
        return
    (output_dir / "training_args.bin").unlink()  # a pickle, and nothing here reads it
    texts = (rows["train"]["text"], y["train"], rows["test"]["text"])
    (baseline,) = fit_and_score(naive_bayes(), *texts)
    metrics = {
        **tested.metrics,
        **held_out_figures(y["test"], predicted, choose_labels(baseline, 0.5, one_each=one_each)),
        **{f"{part}_samples": len(y[part]) for part in y},
        **{f"valid_{name}": value for name, value in valid.items()},
        **trained.metrics,
        "train_runtime": seconds,  # with the fit of the head and the choice of thresholds
        "seed": args.seed,
    }
    report = write_results(
        output_dir,
        base_model=args.model,
        corpus=corpus,
        labels=y,
        test_rows=rows["test"],
        scores=scores,
        predicted=predicted,
        thresholds=None if one_each else thresholds,
        metrics=metrics,
        log_history=trainer.state.log_history,
        max_length=args.max_length,
    )
    remove_checkpoints(args.output_dir)

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    if len(tagged):
        print("\nTags for texts without labels")
        chosen = choose_labels(tagged, thresholds, one_each=one_each)
        print(examples(rows["unlabelled"]["text"], tagged, chosen, label_names))
    print(f"\n{contents(output_dir, model=True)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
