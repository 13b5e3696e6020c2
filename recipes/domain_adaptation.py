"""Adapt an encoder to your texts before fine-tuning: masked-language modelling without labels.

Why: thousands of unlabelled texts, in words and with layouts that the encoder has not seen. It
learns to guess hidden tokens of them, then goes to recipes/github_tagger.py as --model. As in
"Natural Language Processing with Transformers", chapter 9 (fine-tuning a language model); see also
Gururangan et al. 2020, "Don't Stop Pretraining". It does not always pay: measure.

    accelerate launch recipes/domain_adaptation.py --config recipes/configs/adaptation_sample.yaml
    accelerate launch recipes/domain_adaptation.py --data my_issues.jsonl

Then: recipes/github_tagger.py --model outputs/domain_adaptation, on the same data.

Data: the texts of --data without labels, with the flags that the tagger gets; those that nearly
repeat a labelled one are left out, so that the adapted encoder fits every seed and split.

The default encoder comes without a head for hidden tokens. It gets a new one, whose output layer is
tied to the token embeddings; perplexity before training is therefore near the vocabulary's size.

Expect on one CPU core, default encoder: the 1,457 unlabelled issues of the sample at 128 tokens, a
minute per epoch; perplexity from 44,335 to 74 after four. It does not pay there: the tagger made
from it has micro and macro F1 .716 / .650, that of the encoder as it comes .751 / .683. A
sentence encoder may lose by it what it has learned about sentences; the chapter gains with BERT,
which comes with a head for hidden tokens.
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
from shared.data import SplitArguments, load_corpus
from shared.models import (
    DEFAULT_MODEL,
    limit_length,
    load_masked_language_model,
    load_tokenizer,
    resolve_model,
)
from shared.plots import plot_training_curve
from shared.reports import write_model_card
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
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens of a text that the model reads (default: 256).")
    mask_share: float = flag(0.15, "Share of the tokens to hide (default: .15).")
    held_out_share: float = flag(0.05, "Share of the texts to measure on (default: .05).")
    health_check: bool = flag(False, "Check data, model and rate, then stop (default: no).")
    output_dir: str = flag("outputs/domain_adaptation", "Folder (default: as the recipe).")
    num_train_epochs: float = flag(4, "Passes over the texts (default: 4).")
    learning_rate: float = flag(1e-4, "Peak rate (default: 1e-4).")
    warmup_steps: float = flag(0.1, "Warm-up: steps, or below 1 a share of them (default: .1).")
    weight_decay: float = flag(0.01, "Weight decay (default: .01).")
    per_device_train_batch_size: int = flag(16, "Texts per step and device (default: 16).")
    per_device_eval_batch_size: int = flag(32, "Texts per evaluation batch (default: 32).")
    bf16: bool | None = flag(None, "Train in bfloat16 (default: where the hardware has it).")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "group_by_length", "Order of the texts (default: group_by_length)."
    )
    eval_on_start: bool = flag(True, "Measure before the first step, too (default: true).")
    eval_strategy: str = flag("epoch", "When to measure: no, steps, epoch (default: epoch).")
    save_strategy: str = flag("epoch", "When to save: no, steps, epoch (default: epoch).")
    save_total_limit: int | None = flag(1, "Checkpoints to keep (default: 1).")
    logging_strategy: str = flag("epoch", "When to log the loss: as for saving (default: epoch).")
    ddp_find_unused_parameters: bool | None = flag(False, "For models that use only some weights.")
    remove_unused_columns: bool = flag(False, "Must stay false: masks depend on a text's number.")

    def __post_init__(self):
        for name in ("mask_share", "held_out_share"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be between 0 and 1")
        if self.dataloader_persistent_workers:
            raise UserError("--dataloader_persistent_workers: would hide the same in each epoch")
        if self.prediction_loss_only:
            raise UserError("--prediction_loss_only: the loss is one over all predictions at once")
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, leave out what is labelled, hide tokens, train, measure, save."""
    args = parse_arguments(AdaptationArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    set_seed(args.seed)
    corpus, held_out = load_corpus(args, labels_required=False)

    # Texts nobody has labelled, and none that nearly repeats a labelled one
    repeats = corpus.repeats(list(held_out.values()))
    repeats |= np.isin(corpus.groups, corpus.groups[corpus.labelled])
    texts = corpus.unlabelled[~repeats[corpus.unlabelled]]

    # Model and tokens; the number of a text decides, with seed and epoch, what is hidden in it
    folder = resolve_model(args.model)
    tokenizer = load_tokenizer(folder)
    model = load_masked_language_model(folder, tokenizer=tokenizer, new_head=True)
    score_masked_tokens_only(model)
    limit_length(tokenizer, model, args.max_length)
    special = set(tokenizer.all_special_ids)

    def tokenize(batch):
        ids = tokenizer(batch["text"], truncation=True)["input_ids"]
        return {
            **{"input_ids": ids, "length": [len(row) for row in ids], "sample": batch["row"]},
            "can_hide": [not special.issuperset(row) for row in ids],
        }

    settings = {"remove_columns": corpus.dataset.column_names, "desc": "tokenising"}
    with args.main_process_first(desc="tokenising"):
        tokens = corpus.dataset.select(texts).map(tokenize, batched=True, **settings)

    # Some to learn from, some to measure on; `map` makes no columns where there are no rows
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
            "duplicates are one) to learn from; lower it"
        )
    split = GroupShuffleSplit(1, test_size=args.held_out_share, random_state=args.seed)
    train, valid = (
        tokens.select(usable[rows]) for rows in next(split.split(usable, groups=groups))
    )
    valid = valid.add_column("epoch", [0] * len(valid))  # always the same tokens hidden
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
        compute_metrics=lambda _: {},  # with None, predictions to take the loss over are not kept
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    if args.health_check:
        check_health(trainer, args.max_length, uninformed=math.log(model.config.vocab_size))
        return
    print_once("\nTraining")
    # An evaluation of one's own ahead of this would keep several processes from sharing gradients.
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    history = list(trainer.state.log_history)
    measured_at = {entry["step"]: perplexity(entry) for entry in history if "eval_loss" in entry}
    before = measured_at.get(0)
    after = measured_at.get(trainer.state.global_step)
    if after is None or args.load_best_model_at_end:  # not measured, or not what is saved
        after = perplexity(trainer.evaluate())

    # Save: the encoder with its head, tokenizer, figures, curve, card
    trainer.save_model()
    if args.process_index != 0:
        return
    figures = {"perplexity_before": before, "perplexity_after": after, "texts": len(train)}
    write_json(output_dir / "metrics.json", {**figures, **trained.metrics, "seed": args.seed})
    (output_dir / "plots").mkdir(exist_ok=True)
    plot_training_curve(history, output_dir / "plots" / "training_curve.png")
    report = f"perplexity of hidden tokens in {len(valid):,} texts: {after:,.1f}"
    if before is not None:
        report += f", before training {before:,.1f}"
    write_model_card(
        output_dir,
        title="Adapted encoder",
        base_model=args.model,
        task="fill-mask",
        description="An encoder that has read texts of one domain, to be fine-tuned.",
        data=f"{corpus.describe()}\n{len(train):,} unlabelled texts to learn from",
        metrics={},
        report=report,
        usage=f"""```bash
accelerate launch recipes/github_tagger.py --model {output_dir} --data FILE
```""",
        limits="It knows the words of its texts, not their labels; compare a tagger made from it "
        "with one made from the encoder it comes from.",
    )
    remove_checkpoints(args.output_dir)
    print(f"\n{report}\n\nEverything is in {output_dir}; to train a tagger from it:")
    print(f"  accelerate launch recipes/github_tagger.py --model {output_dir} --data {args.data}")


def perplexity(measurement: dict[str, float]) -> float:
    """Return exp(loss) on the texts kept back."""
    return math.exp(min(measurement["eval_loss"], 700))  # more does not fit a double


if __name__ == "__main__":
    with exit_on_user_error():
        main()
