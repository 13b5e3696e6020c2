"""Give short comments any of many labels: 28 emotions, by a fine-tuned encoder or from scratch.

Why: many labels, most of them rare, of which a text has one or two. What helps there is put
together here: a head that starts from the best linear probe, rates that fall with depth, a loss
that weighs rare labels up or easy negatives down, a threshold for each label. `--architecture
scratch` shows what pretraining is worth: a transformer encoder from random weights, on a vocabulary
of the training texts. Data and figures to compare with: Demszky et al. 2020, "GoEmotions: A Dataset
of Fine-Grained Emotions". The published recipe for the encoder from scratch hands PyTorch its
padding mask the wrong way round, so that tokens attend to the padding alone; here they attend to
the text, and the maximum is taken over the text, too.

    accelerate launch recipes/goemotions.py
    accelerate launch recipes/goemotions.py --config recipes/configs/goemotions.yaml
    accelerate launch recipes/goemotions.py --config recipes/configs/goemotions_scratch.yaml

The published sizes are --hidden_size 1024 --num_attention_heads 16 --intermediate_size 3072
--num_hidden_layers 6 --max_length 50 --learning_rate 1e-4 --per_device_train_batch_size 128
--num_train_epochs 20 --patience 2 --metric_for_best_model loss, and want a GPU.

Data: as for recipes/github_tagger.py; GoEmotions' own files are read with --column_names text
labels id --class_names labels.txt. The model loads with `pipeline` once `shared.classifier` is
imported, which recipes/tag.py does by itself.

Expect on two CPU cores: TODO
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
from transformers import BertConfig, BertModel, EarlyStoppingCallback, TrainingArguments, set_seed

from shared.arguments import flag, parse_arguments
from shared.baselines import fit_and_score, naive_bayes
from shared.callbacks import CheckpointOnSignal, ReadableProgress
from shared.checkpoints import remove_checkpoints, resume_point
from shared.classifier import PooledForSequenceClassification
from shared.collators import MultilabelCollator
from shared.data import load_data, load_held_out
from shared.data_arguments import SplitArguments
from shared.decisions import choose_labels
from shared.errors import UserError, exit_on_user_error
from shared.files import make_output_dir
from shared.hardware import choose_precision
from shared.heads import fit_head
from shared.losses import MultilabelLoss, balanced_pos_weight
from shared.metrics import f1_scores, multilabel_metrics, sigmoid
from shared.models import (
    DEFAULT_MODEL,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.optimization import parameter_groups
from shared.parts import split_corpus
from shared.pooling import POOLINGS
from shared.progress import quiet_libraries
from shared.results import contents, held_out_figures, write_results
from shared.thresholds import tune_thresholds
from shared.trainer import LengthGroupedTrainer
from shared.vocabulary import train_tokenizer

SAMPLE = Path(__file__).parent / "data" / "comments.jsonl"
USAGE = """```python
import shared.classifier  # or a copy of the two files it needs: transformers knows it then
from transformers import pipeline

tagger = pipeline("text-classification", model="{folder}", top_k=None)
tagger("No way, you finished it in one day?!", truncation=True)
```

A label applies where its score reaches its threshold, `tagger.model.config.thresholds`."""


@dataclass
class EmotionArguments(SplitArguments, TrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    data: str = flag(str(SAMPLE), "As in other recipes (default: the comments of the project).")
    architecture: Literal["pretrained", "scratch"] = flag(
        "pretrained", "Fine-tune --model, or start from random weights (default: pretrained)."
    )
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(64, "Tokens of a text that the model reads (default: 64).")
    vocab_size: int = flag(8000, "From scratch: tokens of the vocabulary (default: 8000).")
    hidden_size: int = flag(256, "From scratch: width (default: 256).")
    num_attention_heads: int = flag(4, "From scratch: attention heads (default: 4).")
    intermediate_size: int = flag(1024, "From scratch: feed-forward width (default: 1024).")
    num_hidden_layers: int = flag(3, "From scratch: layers (default: 3).")
    pooling: str | None = flag(
        None,
        f"From tokens to a text: {', '.join(POOLINGS)} (default: mean; from scratch max).",
    )
    dropout: float = flag(0.1, "Dropout in encoder and head while training (default: .1).")
    pos_weight: float = flag(
        0.5, "Power of a label's rarity that weighs its positives; 0: all alike (default: .5)."
    )
    focus: list[float] = flag(
        [0.0, 0.0],
        "Powers by which sure positives and sure negatives count less: 2 2 is the focal loss, 0 4 "
        "with --margin .05 the asymmetric loss (default: 0 0).",
    )
    margin: float = flag(0.0, "Probability below which a negative counts nothing (default: 0).")
    r_drop: float = flag(
        0.0, "Weight of R-Drop, 1 to 5, in twice the time: see github_tagger (default: 0, off)."
    )
    head_learning_rate: float | None = flag(None, "Of the head (default: --learning_rate).")
    layer_decay: float = flag(
        0.85, "Factor of the rate from a layer to the one below; from scratch 1 (default: .85)."
    )
    thresholds: Literal["global", "per_label"] = flag(
        "per_label", "Tune one threshold on validation, or one per label (default: per_label)."
    )
    threshold_metric: Literal["micro_f1", "macro_f1"] = flag(
        "macro_f1", "What the thresholds are tuned for (default: macro_f1)."
    )
    patience: int = flag(2, "Epochs without a better one to stop after (default: 2).")
    # Defaults of transformers.TrainingArguments that suit a small encoder and short texts.
    output_dir: str = flag("outputs/goemotions", "Folder (default: outputs/goemotions).")
    num_train_epochs: float = flag(6, "Passes over the training rows, at most (default: 6).")
    learning_rate: float = flag(2e-4, "Peak rate, of the top layer (default: 2e-4).")
    weight_decay: float = flag(0.01, "Decay of weights, not of biases or norms (default: .01).")
    warmup_steps: float = flag(0.1, "Warm-up: steps, or below 1 a share of them (default: .1).")
    per_device_train_batch_size: int = flag(32, "Texts per step and device (default: 32).")
    per_device_eval_batch_size: int = flag(128, "Texts per evaluation batch (default: 128).")
    bf16: bool | None = flag(None, "Train in bfloat16 (default: where the hardware has it).")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "group_by_length", "Order of the training rows (default: group_by_length)."
    )
    eval_strategy: str = flag("epoch", "When to validate: no, steps, epoch (default: epoch).")
    save_strategy: str = flag("epoch", "When to save: no, steps, epoch, best (default: epoch).")
    save_total_limit: int | None = flag(1, "Checkpoints to keep beside the best (default: 1).")
    logging_strategy: str = flag("epoch", "When to log the loss: as for saving (default: epoch).")
    load_best_model_at_end: bool = flag(True, "Keep the best epoch, not the last (default: true).")
    metric_for_best_model: str | None = flag("macro_f1", "What is best (default: macro_f1).")
    restore_callback_states_from_checkpoint: bool = flag(True, "Resume patience, too.")

    def __post_init__(self):
        positive = ("learning_rate", "num_train_epochs", "per_device_train_batch_size")
        sizes = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")
        for name in (*positive, *sizes, "layer_decay", "patience"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name} {getattr(self, name)}: must be above 0")
        for name, end in (("dropout", 1), ("margin", 1), ("pos_weight", 10), ("r_drop", 100)):
            if not 0 <= getattr(self, name) < end:
                raise UserError(f"--{name} {getattr(self, name)}: must be 0 or more, below {end}")
        if len(self.focus) != 2 or min(self.focus) < 0:
            raise UserError(f"--focus {self.focus}: give two powers of 0 or more, such as 0 4")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"--hidden_size {self.hidden_size}: must be a multiple of --num_attention_heads, "
                f"{self.num_attention_heads}"
            )
        if self.pooling not in (None, *POOLINGS):
            raise UserError(f"--pooling {self.pooling}: must be one of {', '.join(POOLINGS)}")
        if self.r_drop and not self.dropout:
            raise UserError("--r_drop: two passes of this model are the same; give it --dropout .1")
        choose_precision(self)
        super().__post_init__()


def encoder_from_scratch(args: EmotionArguments, tokenizer) -> BertModel:
    """Build token and position embeddings and transformer layers, all of them random."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden_size,
        num_attention_heads=args.num_attention_heads,
        intermediate_size=args.intermediate_size,
        num_hidden_layers=args.num_hidden_layers,
        max_position_embeddings=-(-args.max_length // 8) * 8,  # batches are padded to such lengths
        hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=0.0,  # costs most and, beside the other, gains nothing
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertModel(config, add_pooling_layer=False)


def main() -> None:
    """Load, split, tokenise, train, tune thresholds, look at the test rows once, save."""
    args = parse_arguments(EmotionArguments, description=__doc__)
    quiet_libraries()
    output_dir = make_output_dir(args.output_dir)
    checkpoint = resume_point(args.output_dir, args.resume_from_checkpoint)
    say = print if args.process_index == 0 else lambda *_: None
    from_scratch = args.architecture == "scratch"

    with args.main_process_first(desc="preparing the data"):
        corpus = load_data(args)
        held_out = load_held_out(args, corpus)
    label_names, one_each = corpus.label_names, corpus.one_label_each
    say(f"\nData\n{corpus.describe()}")
    for name, other in held_out.items():
        say(f"{name} rows: {other.describe(brief=True)}")
    parts = split_corpus(corpus, held_out, args, seed=args.seed)
    say(parts.describe())
    rows, y = parts.rows, parts.labels

    # Tokenizer and encoder, then a head on it
    set_seed(args.seed)
    if from_scratch:
        tokenizer = train_tokenizer(rows["train"]["text"], "wordpiece", args.vocab_size)
        encoder = encoder_from_scratch(args, tokenizer)
    else:
        folder = resolve_model(args.model)
        tokenizer = load_tokenizer(folder)
        encoder = load_encoder(folder, tokenizer=tokenizer, dropout=args.dropout)
    pooling = args.pooling or ("max" if from_scratch else "mean")
    model = PooledForSequenceClassification.from_encoder(
        encoder, label_names, pooling=pooling, head_dropout=args.dropout
    )
    limit_length(tokenizer, model, args.max_length)
    say(f"{args.architecture}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens")

    def tokenize(batch):
        ids = tokenizer(batch["text"], truncation=True)["input_ids"]
        return {"input_ids": ids, "length": [len(row) for row in ids]}

    with args.main_process_first(desc="tokenising"):
        tokens = {k: v.map(tokenize, batched=True, desc="tokenising") for k, v in rows.items()}

    # Loss, start of the head, optimiser, Trainer
    started = perf_counter()
    collator = MultilabelCollator(tokenizer, len(label_names))
    loss = MultilabelLoss(
        balanced_pos_weight(y["train"].sum(axis=0), len(y["train"]), power=args.pos_weight),
        r_drop=args.r_drop,
        focus=tuple(args.focus),
        margin=args.margin,
    )
    if checkpoint is None and not from_scratch:
        start = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
        fit_head(model, tokens["train"], collator, loss, **start)
    groups = parameter_groups(
        model,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        head_learning_rate=args.head_learning_rate,
        layer_decay=1.0 if from_scratch else args.layer_decay,
    )
    adam = {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    tune = partial(
        tune_thresholds,
        metric=args.threshold_metric,
        per_label=args.thresholds == "per_label",
        tolerance=2,
    )

    def compute_metrics(prediction):
        # Epochs are compared at the thresholds that each would be used with.
        best = tune(sigmoid(prediction.predictions), prediction.label_ids)
        return multilabel_metrics(label_names, thresholds=best, one_each=one_each)(prediction)

    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=tokens["train"],
        eval_dataset=tokens["valid"],
        processing_class=tokenizer,
        data_collator=collator,
        compute_loss_func=loss,
        optimizers=(torch.optim.AdamW(groups, lr=args.learning_rate, fused=True, **adam), None),
        passes=2 if args.r_drop else 1,
        compute_metrics=compute_metrics,
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    if args.load_best_model_at_end:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=args.patience))

    # Train; the best epoch by validation is kept, or the last
    say("\nTraining")
    trained = trainer.train(resume_from_checkpoint=checkpoint)

    # Thresholds on validation, then one look at the test rows
    scores = sigmoid(trainer.predict(tokens["valid"]).predictions)
    thresholds = tune(scores, y["valid"])
    model.config.thresholds, model.config.one_label_each = thresholds.tolist(), one_each
    valid = f1_scores(y["valid"], choose_labels(scores, thresholds, one_each=one_each))
    seconds = perf_counter() - started
    trainer.compute_metrics = multilabel_metrics(
        label_names, thresholds=thresholds, one_each=one_each
    )
    tested = trainer.predict(tokens["test"], metric_key_prefix="test")
    scores = sigmoid(tested.predictions)
    predicted = choose_labels(scores, thresholds, one_each=one_each)

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
        base_model=None if from_scratch else args.model,
        corpus=corpus,
        labels=y,
        test_rows=rows["test"],
        scores=scores,
        predicted=predicted,
        thresholds=None if one_each else thresholds,
        metrics=metrics,
        log_history=trainer.state.log_history,
        max_length=args.max_length,
        usage=USAGE.format(folder=output_dir),
    )
    remove_checkpoints(args.output_dir)

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    print(f"\n{contents(output_dir, model=True)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
