"""Train a small network from scratch to classify texts: a CNN, an RNN, an LSTM or a GRU.

Why: no pretrained model, no download, thousands of texts per second; with tens of thousands of
labelled texts it comes near a fine-tuned encoder, with a few hundred it does not. The CNN slides
filters over word vectors and keeps the maximum of each (Kim 2014, "Convolutional Neural Networks
for Sentence Classification"); the recurrent ones read word by word, and their state after the last
real token, not after the padding, is classified; `--architecture ngrams` averages the vectors of
words and pairs of words (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"),
which is the strongest on long texts. The vocabulary is built from the training texts.

    accelerate launch recipes/imdb_cnn_rnn.py
    accelerate launch recipes/imdb_cnn_rnn.py --config recipes/configs/imdb_strong.yaml
    accelerate launch recipes/imdb_cnn_rnn.py --architecture gru --data my_texts.jsonl

Data: as for recipes/github_tagger.py. Where each text has exactly one label, the classes exclude
each other (softmax), else each label is a question of its own (sigmoid, threshold tuned on
validation). The network loads with `AutoModelForSequenceClassification` and `pipeline` once
`shared.models.networks` is imported.

Expect on IMDB's test file, on one CPU core, 2 GB of memory: accuracy .82 in one minute
(imdb_cnn.yaml), .84 in one (imdb_lstm.yaml), .90 in seven (imdb_strong.yaml).
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
import torch
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
from shared.evaluation import choose_labels, multilabel_metrics, sigmoid, softmax, tune_thresholds
from shared.methods import naive_bayes_labels
from shared.models import (
    NetworkArguments,
    build_network,
    read_word_vectors,
    tokenize,
    train_tokenizer,
)
from shared.reports import TaggerCard, describe_output, split_metrics, write_results
from shared.training import (
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    MultilabelLoss,
    ReadableProgress,
    SingleLabelLoss,
    TrainingLog,
    balanced_pos_weight,
    check_health,
    find_checkpoint,
    remove_checkpoints,
)


@dataclass
class ImdbArguments(NetworkArguments, SplitArguments, EpochTrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    algorithm: Literal["words", "wordpiece", "bpe", "unigram"] = flag(
        "words", "How the vocabulary is built (default: words)."
    )
    vocab_size: int = flag(30_000, "Tokens of the vocabulary, at most (default: 30,000).")
    max_length: int = flag(128, "Tokens of a text that the network reads (default: 128).")
    truncation_side: Literal["right", "left"] = flag(
        "right", "Where longer texts are cut: right keeps their start (default: right)."
    )
    patience: int = flag(5, "Evaluations without a better one to stop after (default: 5).")
    health_check: bool = flag(False, "Check data, model and rate, then stop (default: no).")
    # Defaults of transformers.TrainingArguments that suit a small network.
    output_dir: str = flag("outputs/imdb_cnn_rnn", "Folder (default: outputs/imdb_cnn_rnn).")
    max_steps: int = flag(2500, "Steps to train; -1 counts by --num_train_epochs (default: 2500).")
    learning_rate: float = flag(1e-3, "First rate, which falls to 0 (default: 1e-3).")
    warmup_steps: float = flag(0, "Warm-up: steps, or below 1 a share of them (default: 0).")
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
        NetworkArguments.__post_init__(self)
        if self.max_length < 3:  # [CLS], a token, [SEP]
            raise UserError(f"--max_length {self.max_length}: must be 3 or more")
        if self.embeddings and self.algorithm not in ("words", "wordpiece"):
            raise UserError("--embeddings: they are of words; give it --algorithm words")
        EpochTrainingArguments.__post_init__(self)


def main() -> None:
    """Load, split, build the vocabulary, train, look at the test rows once, save."""
    args = parse_arguments(ImdbArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)

    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    rows, y = split.rows, split.labels

    # Vocabulary, of the training texts alone, and tokens
    tokenizer = train_tokenizer(
        rows["train"]["text"], args.algorithm, args.vocab_size, max_length=args.max_length
    )
    tokenizer.truncation_side = args.truncation_side
    tokenizer.init_kwargs["truncation_side"] = args.truncation_side  # what is saved

    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(found, tokenizer) for part, found in rows.items()}

    # The network, from random weights; known words start from their vectors, where there are any
    set_seed(args.seed)
    known, vectors = [], np.zeros((0, args.embedding_size))
    if args.embeddings:
        known, vectors = read_word_vectors(args.embeddings, tokenizer.get_vocab())
        print_once(f"{args.embeddings}: vectors of {len(known):,} of {len(tokenizer):,} tokens")
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
        model.get_input_embeddings().weight[known] = torch.from_numpy(vectors).float()
    print_once(
        f"{args.architecture}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens"
    )

    # Classes that exclude each other, or one question per label, rare ones weighed up
    pos_weight = balanced_pos_weight(y["train"].sum(axis=0), len(y["train"]))
    smoothing = {"label_smoothing": args.label_smoothing_factor}
    loss = SingleLabelLoss(**smoothing) if single_label else MultilabelLoss(pos_weight, **smoothing)
    to_scores = softmax if single_label else sigmoid

    def compute_metrics(prediction):
        if single_label:
            figures = multilabel_metrics(label_names, single_label=True)(prediction)
            return figures | {"accuracy": figures["subset_accuracy"]}
        # Evaluations are compared at the threshold that each would be used with.
        best = tune_thresholds(sigmoid(prediction.predictions), prediction.label_ids, tolerance=2)
        return multilabel_metrics(label_names, thresholds=best)(prediction)

    log = TrainingLog(output_dir, "eval_accuracy" if single_label else "eval_micro_f1")
    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=tokens["train"],
        eval_dataset=tokens["valid"],
        processing_class=tokenizer,
        data_collator=MultilabelCollator(tokenizer, len(label_names)),
        compute_loss_func=loss,
        compute_metrics=compute_metrics,
        callbacks=[CheckpointOnSignal(), ReadableProgress(), log],
    )
    if args.load_best_model_at_end:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=args.patience))

    if args.health_check:
        check_health(trainer, args.max_length, label_counts=split.label_counts())
        return

    # Train; the best state by validation is kept, or the last
    print_once("\nTraining")
    started = perf_counter()
    trained = trainer.train(resume_from_checkpoint=checkpoint)

    # Thresholds on validation, then one look at the test rows
    trainer.compute_metrics = None  # that of an evaluation tunes thresholds of its own
    scores = {"valid": to_scores(trainer.predict(tokens["valid"]).predictions)}
    thresholds = np.full(len(label_names), 0.5)
    if not single_label:
        thresholds = tune_thresholds(scores["valid"], y["valid"], tolerance=2)
    model.config.thresholds, model.config.one_label_each = thresholds.tolist(), single_label
    seconds = perf_counter() - started
    tested = trainer.predict(tokens["test"], metric_key_prefix="test")
    scores["test"] = to_scores(tested.predictions)
    predicted = {
        k: choose_labels(p, thresholds, single_label=single_label) for k, p in scores.items()
    }

    # Save: network, tokenizer, labels and thresholds; then everything a person wants to see
    trainer.save_model()
    if args.process_index != 0:
        return
    metrics = {
        **tested.metrics,
        **split_metrics(y, scores, predicted, naive_bayes_labels(split)),
        **trained.metrics,
        "train_runtime": seconds,  # with the choice of thresholds
        "seed": args.seed,
    }
    if single_label:
        metrics |= {f"{part}_accuracy": metrics[f"{part}_micro_f1"] for part in scores}
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        metrics,
        card=TaggerCard(
            max_length=args.max_length if args.truncation_side == "right" else None,
            register_module="shared.models.networks",
        ),
        thresholds=None if single_label else thresholds,
    )
    remove_checkpoints(args.output_dir)

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    print(f"\n{describe_output(output_dir, model=True)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
