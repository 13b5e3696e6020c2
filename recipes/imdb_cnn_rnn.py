"""Train a small network from scratch to classify texts: a CNN, an RNN, an LSTM or a GRU.

Why: it needs no pretrained model and no download, and processes thousands of texts per second. With
tens of thousands of labelled texts it comes close to a fine-tuned encoder, with a few hundred it
does not. The CNN slides filters over word vectors and keeps the maximum of each filter (Kim 2014,
"Convolutional Neural Networks for Sentence Classification"). The recurrent networks read word by
word; their state after the last real token, not after the padding, is classified. `--architecture
ngrams` averages the vectors of words and word pairs (Joulin et al. 2017, "Bag of Tricks for
Efficient Text Classification") and is the strongest on long texts. The vocabulary comes from the
training texts.

    accelerate launch recipes/imdb_cnn_rnn.py
    accelerate launch recipes/imdb_cnn_rnn.py --config recipes/configs/imdb_strong.yaml
    accelerate launch recipes/imdb_cnn_rnn.py --architecture gru --data my_texts.jsonl

Data: as described in README.md. If every text has exactly one label, the classes exclude each
other (softmax); otherwise each label is decided separately (sigmoid, threshold tuned on
validation). `AutoModelForSequenceClassification` and `pipeline` load the network with
`trust_remote_code=True`; its code is in the output folder.

Expect on the IMDB test file, on one CPU core with 2 GB of memory: accuracy .82 in one minute
(imdb_cnn.yaml), .84 in one minute (imdb_lstm.yaml), .90 in seven minutes (imdb_strong.yaml).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from transformers import set_seed

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
    NetworkArguments,
    build_network,
    read_word_vectors,
    tokenize,
    train_tokenizer,
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
    TrainingLog,
    check_health,
    classification_loss,
    early_stopping,
    find_checkpoint,
    refit_arguments,
    remove_checkpoints,
    train_again,
)


@dataclass
class ImdbArguments(
    RefitArguments,
    TaggingArguments,
    NetworkArguments,
    EarlyStoppingArguments,
    SplitArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    algorithm: Literal["words", "wordpiece", "bpe", "unigram", "byte_bpe", "characters"] = flag(
        "words", "Tokenisation algorithm (default: words)."
    )
    vocab_size: int = flag(
        30_000, "Maximum size of the vocabulary (default: 30,000).", least=1, most=10_000_000
    )
    max_length: int = flag(
        128,
        "Tokens per text; longer texts are truncated (default: 128).",
        least=3,  # room for [CLS], one token and [SEP]
    )
    truncation_side: Literal["right", "left"] = flag(
        "right", "Side to truncate; left keeps the end of a text (default: right)."
    )
    class_weight: Literal["none", "balanced"] | None = flag(
        None,
        "Weight of the labels in the loss: all equal, or higher if rarer (default: none if each "
        "text has one label, else balanced).",
    )
    thresholds: str = flag(
        "global", f"With several labels per text: {THRESHOLDS_HELP} (default: global)."
    )
    patience: int = flag(
        5, "Early stopping: evaluations without improvement (default: 5).", least=1
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    # Defaults of transformers.TrainingArguments that suit a small network.
    output_dir: str = flag("outputs/imdb_cnn_rnn", "Output folder (default: outputs/imdb_cnn_rnn).")
    max_steps: int = flag(2500, "Training steps; -1: use --num_train_epochs (default: 2500).")
    learning_rate: float = flag(1e-3, "Initial learning rate, falls to 0 (default: 1e-3).")
    warmup_steps: float = flag(0, "Warm-up steps; below 1: share of all steps (default: 0).")
    per_device_train_batch_size: int = flag(8, "Texts per step and device (default: 8).")
    eval_strategy: str = flag("steps", "When to validate: no, steps, epoch (default: steps).")
    eval_steps: float | None = flag(500, "Steps between validations (default: 500).")
    save_strategy: str = flag("steps", "When to save: no, steps, epoch, best (default: steps).")
    save_steps: float = flag(500, "Steps between checkpoints (default: 500).")
    logging_strategy: str = flag(
        "steps", "When to log the loss: no, steps, epoch (default: steps)."
    )
    logging_steps: float = flag(100, "Steps between entries of the log (default: 100).")

    def __post_init__(self):
        fixed_threshold(self.thresholds)  # checks the flag
        if self.embeddings and self.algorithm not in ("words", "wordpiece"):
            raise UserError("--embeddings: these are word vectors; use --algorithm words")
        EpochTrainingArguments.__post_init__(self)


def main() -> None:
    """Load, split, build the vocabulary, tokenise, train, evaluate on the test set once, save."""
    args = parse_arguments(ImdbArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    refit_args = refit_arguments(args)

    # Load and split; y maps each part to its multi-hot labels, (rows, labels).
    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    rows, y = split.rows, split.labels

    # Build the vocabulary from the training texts only, then tokenise.
    tokenizer = train_tokenizer(
        rows["train"]["text"],
        args.algorithm,
        args.vocab_size,
        max_length=args.max_length,
        truncation_side=args.truncation_side,
    )
    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(dataset, tokenizer) for part, dataset in rows.items()}

    # With --embeddings, the tokens that the file contains start from its word vectors.
    token_ids, vectors = [], np.zeros((0, args.embedding_size))
    if args.embeddings:
        token_ids, vectors = read_word_vectors(args.embeddings, tokenizer.get_vocab())
        print_once(f"{args.embeddings}: vectors of {len(token_ids):,} of {len(tokenizer):,} tokens")
    to_scores = softmax if single_label else sigmoid
    class_weight = args.class_weight or ("none" if single_label else "balanced")

    # Every evaluation tunes a threshold first, so that evaluations are compared at their best one.
    tune = partial(find_thresholds, setting=args.thresholds, tolerance=2)

    compute_metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)

    def build_trainer(run_args, train, labels):
        """Return a Trainer for the tokenised rows `train` with `labels`, (rows, labels)."""
        # Build the network with random weights.
        set_seed(args.seed)
        model = build_network(
            args,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            embedding_size=vectors.shape[1],
            id2label=dict(enumerate(label_names)),
            label2id={name: i for i, name in enumerate(label_names)},
            problem_type=f"{'single' if single_label else 'multi'}_label_classification",
        )
        with torch.no_grad():
            model.get_input_embeddings().weight[token_ids] = torch.from_numpy(vectors).float()
        # The loss: cross-entropy over classes if a text has one label, else binary cross-entropy
        # per label.
        loss = classification_loss(
            labels,
            label_names,
            single_label=single_label,
            balanced=class_weight == "balanced",
            label_smoothing=args.label_smoothing_factor,
        )
        metric = "eval_accuracy" if single_label else "eval_micro_f1"
        log = TrainingLog(Path(run_args.output_dir), metric)
        return LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=train,
            eval_dataset=tokens["valid"],
            processing_class=tokenizer,
            data_collator=MultilabelCollator(tokenizer, len(label_names)),
            compute_loss_func=loss,
            compute_metrics=compute_metrics,
            callbacks=[CheckpointOnSignal(), ReadableProgress(), log, *early_stopping(run_args)],
        )

    trainer = build_trainer(args, tokens["train"], y["train"])
    n_parameters = trainer.model.num_parameters()
    print_once(f"{args.architecture}: {n_parameters:,} parameters, {len(tokenizer):,} tokens")
    if args.health_check:
        check_health(trainer, args.max_length, label_counts=split.label_counts())
        return

    # Train. The Trainer keeps the checkpoint with the best validation metric, or the last one.
    print_once("\nTraining")
    started = perf_counter()
    training = trainer.train(resume_from_checkpoint=checkpoint)

    # Tune the thresholds on the validation set, then evaluate on the test set, once.
    trainer.compute_metrics = None  # it would tune thresholds on the test set
    scores = {"valid": to_scores(trainer.predict(tokens["valid"]).predictions)}
    thresholds = np.full(len(label_names), 0.5)
    if not single_label:
        thresholds = tune(scores["valid"], y["valid"])
    rule = DecisionRule.of(thresholds, len(label_names), single_label=single_label)
    train_seconds = perf_counter() - started
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
        "train_runtime": train_seconds,  # includes tuning the thresholds
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
        log_history=trainer.state.log_history,
        card=TaggerCard(
            args,
            max_length=args.max_length,
            truncation_side=args.truncation_side,
            own_architecture=True,
        ),
        top_scores=args.top_scores,
    )
    print_once(f"\nTest ({len(y['test']):,} texts)\n\n{save(trainer)}")

    # Train the tagger once more, on all labelled rows. The figures stay those of the first model.
    if args.refit:
        print_once("\nTraining on all labelled texts")
        all_rows = split.all_labelled()
        train, labels = tokenize(all_rows.rows["train"], tokenizer), all_rows.labels["train"]
        again = build_trainer(refit_args, train, labels)
        train_again(again, trainer)
        save(again, all_rows=all_rows)
    remove_checkpoints(args.output_dir)
    tag_unlabelled(output_dir, corpus, args)
    push_to_hub(output_dir, args)
    print_once(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
