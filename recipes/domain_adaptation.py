"""Adapt an encoder to your texts before fine-tuning, by masked-language modelling without labels.

Why: you have thousands of unlabelled texts with words and layouts that the encoder has not seen.
The encoder is trained to predict masked tokens in them; then pass it to recipes/github_tagger.py as
--model. This follows "Natural Language Processing with Transformers", chapter 9 (fine-tuning a
language model); see also Gururangan et al. 2020, "Don't Stop Pretraining". It does not always help:
compare the results.

    accelerate launch recipes/domain_adaptation.py --config recipes/configs/adaptation_sample.yaml
    accelerate launch recipes/domain_adaptation.py --data my_issues.jsonl

Then: recipes/github_tagger.py --model outputs/domain_adaptation, on the same data.

Data: the texts of --data without labels; use the same data flags as for the tagger. Texts that
nearly repeat a labelled one are left out, so that the adapted encoder may be used with every seed
and split of the tagger.

The default encoder has no masked-language-model head. It gets a new one, whose output layer shares
its weights with the token embeddings; before training, perplexity is therefore of the order of the
vocabulary size.

Expect on one CPU core with the default encoder: a minute per epoch for the 1,457 unlabelled issues
of the sample at 128 tokens; perplexity falls from 44,335 to 74 in four epochs. It does not help
there: the tagger fine-tuned from the adapted encoder has micro / macro F1 .716 / .650, the tagger
from the original encoder .751 / .683. A sentence encoder may forget what it has learned about
sentences; the book reports a gain for BERT, which comes with a masked-language-model head.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from transformers import TrainingArguments, set_seed

from shared.cli import (
    UserError,
    choose_precision,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
    write_json,
)
from shared.data import SplitArguments, add_column, load_corpus, map_rows
from shared.models import (
    DEFAULT_MODEL,
    check_unknown_tokens,
    limit_length,
    load_masked_language_model,
    load_tokenizer,
    resolve_model,
)
from shared.plots import plot_training_curve
from shared.reports import fit_metrics, push_to_hub, write_model_card
from shared.training import (
    CheckpointOnSignal,
    LengthGroupedTrainer,
    MaskingCollator,
    ReadableProgress,
    check_health,
    find_checkpoint,
    masked_token_loss,
    remove_checkpoints,
    score_masked_tokens_only,
)


@dataclass
class AdaptationArguments(SplitArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(
        256, "Tokens per text; longer texts are truncated (default: 256).", least=1
    )
    mask_share: float = flag(0.15, "Share of the tokens to mask (default: .15).", above=0, below=1)
    held_out_share: float = flag(
        0.05, "Share of the texts held out for evaluation (default: .05).", above=0, below=1
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag(
        "outputs/domain_adaptation", "Output folder (default: outputs/domain_adaptation)."
    )
    num_train_epochs: float = flag(4, "Epochs (default: 4).")
    learning_rate: float = flag(1e-4, "Peak learning rate (default: 1e-4).")
    warmup_steps: float = flag(0.1, "Warm-up steps; below 1: share of all steps (default: .1).")
    weight_decay: float = flag(0.01, "Weight decay (default: .01).")
    per_device_train_batch_size: int = flag(16, "Texts per step and device (default: 16).")
    per_device_eval_batch_size: int = flag(32, "Texts per evaluation batch (default: 32).")
    bf16: bool | None = flag(None, "Train in bfloat16 (default: if the hardware supports it).")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "group_by_length", "Order of the texts (default: group_by_length)."
    )
    eval_on_start: bool = flag(True, "Also evaluate before the first step (default: true).")
    eval_strategy: str = flag("epoch", "When to evaluate: no, steps, epoch (default: epoch).")
    save_strategy: str = flag("epoch", "When to save: no, steps, epoch (default: epoch).")
    save_total_limit: int | None = flag(1, "Checkpoints to keep (default: 1).")
    logging_strategy: str = flag("epoch", "When to log the loss: as for saving (default: epoch).")
    ddp_find_unused_parameters: bool | None = flag(
        False, "Set to true if some weights get no gradient (default: false)."
    )
    remove_unused_columns: bool = flag(False, "Must stay false (default: false).")

    def __post_init__(self):
        if self.dataloader_persistent_workers:
            raise UserError("--dataloader_persistent_workers: would mask the same in each epoch")
        if self.prediction_loss_only:
            raise UserError("--prediction_loss_only: the loss is computed over all predictions")
        if self.remove_unused_columns:
            raise UserError("--remove_unused_columns: masks depend on the numbers of the texts")
        if column := self.split_by or self.split_time:
            raise UserError(
                f"--split_by, --split_time {column}: this recipe divides unlabelled texts at "
                "random; remove it"
            )
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load the unlabelled texts, tokenise, split, train on masked tokens, evaluate, save."""
    args = parse_arguments(AdaptationArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    set_seed(args.seed)

    # Load the unlabelled texts, without near duplicates of labelled and held-out texts.
    corpus, held_out = load_corpus(args, labels_required=False)
    repeats = corpus.repeats(list(held_out.values()))
    repeats |= np.isin(corpus.groups, corpus.groups[corpus.labelled])
    texts = corpus.unlabelled[~repeats[corpus.unlabelled]]

    # Load the model and tokenise. The row number of a text (`sample`), with seed and epoch, decides
    # which of its tokens are masked. Special tokens are never masked.
    folder = resolve_model(args.model)
    tokenizer = load_tokenizer(folder)
    model = load_masked_language_model(folder, tokenizer=tokenizer, new_head=True)
    score_masked_tokens_only(model)
    limit_length(tokenizer, model, args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    special = set(tokenizer.all_special_ids)

    def tokenize(batch):
        ids = tokenizer(batch["text"], truncation=True)["input_ids"]
        return {
            **{"input_ids": ids, "length": [len(row) for row in ids], "sample": batch["row"]},
            "can_hide": [not special.issuperset(row) for row in ids],
        }

    settings = {"remove_columns": corpus.dataset.column_names, "desc": "tokenising"}
    with args.main_process_first(desc="tokenising"):
        tokens = map_rows(corpus.dataset.select(texts), tokenize, **settings)

    # Split; near duplicates stay on one side. (Without rows, `map` makes no column "can_hide".)
    usable = np.flatnonzero(tokens["can_hide"][:]) if len(texts) else texts
    if len(usable) < len(texts):
        print_once(f"{len(texts) - len(usable):,} texts left out: all their tokens are special")
    groups = corpus.groups[texts[usable]]
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise UserError(
            f"{args.data}: {len(usable)} unlabelled texts, too few to adapt to; leave the labels "
            "of some rows empty, or name another file"
        )
    if math.ceil(args.held_out_share * n_groups) == n_groups:
        raise UserError(
            f"--held_out_share {args.held_out_share}: leaves none of {n_groups} texts (near "
            "duplicates count once) to learn from; lower it"
        )
    split = GroupShuffleSplit(1, test_size=args.held_out_share, random_state=args.seed)
    train, valid = (
        tokens.select(usable[rows]) for rows in next(split.split(usable, groups=groups))
    )
    # One epoch for all evaluations, so that they mask the same tokens.
    valid = add_column(valid, "epoch", np.zeros(len(valid), int))
    print_once(f"{len(train):,} unlabelled texts to learn from, {len(valid):,} to measure on")

    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=valid,
        processing_class=tokenizer,
        data_collator=MaskingCollator(
            tokenizer,
            args.mask_share,
            seed=args.seed,
            epoch=lambda: int(trainer.state.epoch or 0),
        ),
        compute_loss_func=masked_token_loss,
        compute_metrics=lambda _: {},  # with None the Trainer drops the predictions the loss needs
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    if args.health_check:
        check_health(trainer, args.max_length, uninformed=math.log(model.config.vocab_size))
        return

    # Train. The perplexity before training comes from --eval_on_start: a call of evaluate() before
    # train() would keep several processes from sharing gradients.
    print_once("\nTraining")
    training = trainer.train(resume_from_checkpoint=checkpoint)
    history = list(trainer.state.log_history)
    by_step = {entry["step"]: perplexity(entry) for entry in history if "eval_loss" in entry}
    before = by_step.get(0)
    after = by_step.get(trainer.state.global_step)
    if after is None or args.load_best_model_at_end:  # not evaluated, or another epoch is saved
        after = perplexity(trainer.evaluate())

    # Save the encoder with its head, the tokenizer, metrics, the training curve and the card.
    trainer.save_model()
    if args.process_index != 0:
        return
    figures = {"perplexity_before": before, "perplexity_after": after, "texts": len(train)}
    fit = fit_metrics(history)
    write_json(output_dir / "metrics.json", figures | training.metrics | fit | {"seed": args.seed})
    (output_dir / "plots").mkdir(exist_ok=True)
    plot_training_curve(history, output_dir / "plots" / "training_curve.png")
    report = f"perplexity of masked tokens in {len(valid):,} texts: {after:,.1f}"
    if before is not None:
        report += f", before training {before:,.1f}"
    write_model_card(
        output_dir,
        title="Adapted encoder",
        base_model=args.model,
        task="fill-mask",
        description="An encoder adapted to the texts of one domain, to be fine-tuned.",
        data=f"{corpus.describe()}\n{len(train):,} unlabelled texts to learn from",
        metrics={},
        verdict=fit.get("fit_explained"),
        report=report,
        usage=f"""```bash
accelerate launch recipes/github_tagger.py --model {output_dir} --data FILE
```""",
        limits="It was trained without labels; compare a tagger that is fine-tuned from it with "
        "one that is fine-tuned from the original encoder.",
    )
    remove_checkpoints(args.output_dir)
    push_to_hub(output_dir, args)
    print(f"\n{report}\n\nEverything is in {output_dir}; to train a tagger from it:")
    print(f"  accelerate launch recipes/github_tagger.py --model {output_dir} --data {args.data}")


def perplexity(measurement: dict[str, float]) -> float:
    """Return exp(loss) on the held-out texts."""
    return math.exp(min(measurement["eval_loss"], 700))  # exp of more overflows a double


if __name__ == "__main__":
    with exit_on_user_error():
        main()
