"""Train the entailment model that zero-shot classification needs, as a small adapter.

Why: "does this text entail 'This example is about sports.'?" sorts texts under any labels, but
wants a model that has learned entailment. This recipe teaches it to a sentence encoder on pairs of
sentences (Williams, Nangia and Bowman 2018, "MultiNLI"), and on classified texts turned into such
pairs (Laurer et al. 2023, "Building Efficient Universal Classifiers"). What it learns is kept as a
LoRA adapter (Hu et al. 2022): a few megabytes beside the encoder.

    accelerate launch recipes/train_nli.py --config recipes/configs/train_nli.yaml
    accelerate launch recipes/train_nli.py --train_data my_pairs.jsonl --test_data my_test.jsonl

Then: recipes/zero_shot.py --model outputs/train_nli, on any texts.

Data: `premise`, `hypothesis` and `label` (entailment, neutral, contradiction; or not_entailment,
where no more is known). --topic_data takes texts with labels, as recipes/github_tagger.py does.

Expect on one CPU core, default encoder and config (63,347 pairs, three epochs): 50 minutes, 3 GB of
memory, an adapter of 5 MB; accuracy .708 on 8,680 matched pairs of MultiNLI, .674 on 1,000 of SNLI,
.403 and .391 without the first sentence. Tuning all weights of this encoder on the MultiNLI pairs
alone gives .70; RoBERTa-large is published at .90.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import concatenate_datasets
from peft import LoraConfig, get_peft_model
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
from shared.data import DataArguments, load_data
from shared.methods import CLASSES, read_pairs, tokenize_pairs, topic_pairs
from shared.models import (
    DEFAULT_MODEL,
    DEFAULT_MODEL_ON_HUB,
    limit_length,
    load_classifier_to_adapt,
    load_tokenizer,
    resolve_model,
)
from shared.reports import write_model_card
from shared.training import (
    CheckpointOnSignal,
    EntailmentLoss,
    LengthGroupedTrainer,
    PaddingCollator,
    ReadableProgress,
    check_health,
    find_checkpoint,
    remove_checkpoints,
)


@dataclass
class NLIArguments(TrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    train_data: list[str] = flag([], "Files of pairs to train on, or ids of hub data sets.")
    test_data: list[str] = flag([], "Files of pairs to measure on; never trained on.")
    topic_data: list[str] = flag([], "Classified texts, or YAML of data flags (default: none).")
    topic_rows: int = flag(10_000, "Texts of each such file, at most (default: 10,000).")
    topic_negatives: int = flag(2, "Wrong labels for each right one (default: 2).")
    template: str = flag("This example is about {label}.", "About a label (default: zero_shot's).")
    rank: int = flag(32, "Rank of the adapter (default: 32).")
    max_length: int = flag(128, "Tokens of a pair (default: 128).")
    output_dir: str = flag("outputs/train_nli", "Folder (default: outputs/train_nli).")
    num_train_epochs: float = flag(4, "Passes over the pairs (default: 4).")
    learning_rate: float = flag(7e-4, "Peak rate; an adapter wants ten times the usual (7e-4).")
    warmup_steps: float = flag(0.06, "Warm-up: steps, or below 1 a share of them (default: .06).")
    weight_decay: float = flag(0.01, "Weight decay (default: .01).")
    per_device_train_batch_size: int = flag(48, "Pairs per step and device (default: 48).")
    per_device_eval_batch_size: int = flag(64, "Pairs per evaluation batch (default: 64).")
    bf16: bool | None = flag(None, "Train in bfloat16 (default: where the hardware has it).")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "group_by_length", "Order of the training pairs (default: group_by_length)."
    )
    save_strategy: str = flag("epoch", "When to save: no, steps, epoch (default: epoch).")
    save_total_limit: int | None = flag(1, "Checkpoints to keep (default: 1).")
    logging_strategy: str = flag("epoch", "When to log the loss: as for saving (default: epoch).")
    health_check: bool = flag(False, "Check data, model and rate, then stop (default: no).")
    label_names: list[str] | None = flag(["labels"], "Must stay: an adapter hides the inputs.")

    def __post_init__(self):
        if not self.train_data:
            raise UserError("--train_data: name a file of pairs to train on")
        for name, least in (("rank", 1), ("topic_rows", 1), ("topic_negatives", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: must be {least} or more")
        if "{label}" not in self.template:
            raise UserError(f"--template {self.template!r}: must hold {{label}}")
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Read, make pairs of classified texts, adapt, measure, save."""
    args = parse_arguments(NLIArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    set_seed(args.seed)

    # Pairs; a file that is named twice for the same use counts once
    sets = [(name, read_pairs(name, "--train_data")) for name in dict.fromkeys(args.train_data)]
    for name in dict.fromkeys(args.topic_data):
        with args.main_process_first(desc="preparing the data"):
            flags = ["--config" if name.endswith((".yaml", ".yml")) else "--data", name]
            corpus = load_data(parse_arguments(DataArguments, flags))
        rows = corpus.labelled
        if len(rows) > args.topic_rows:
            rng = np.random.default_rng(args.seed)
            rows = np.sort(rng.choice(rows, args.topic_rows, replace=False))
        pairs = topic_pairs(
            corpus.dataset.select(rows)["text"],
            corpus.label_matrix(rows),
            corpus.label_names,
            template=args.template,
            negatives=args.topic_negatives,
            seed=args.seed,
        )
        sets.append((name, pairs))
    tests = {name: read_pairs(name, "--test_data") for name in args.test_data}
    tested = {pair for pairs in tests.values() for pair in as_tuples(pairs)}
    for number, (name, pairs) in enumerate(sets):
        kept = [row for row, pair in enumerate(as_tuples(pairs)) if pair not in tested]
        if len(kept) < len(pairs):
            print_once(f"{name}: left out {len(pairs) - len(kept):,} pairs that are tested on")
            sets[number] = name, pairs.select(kept)
    sets = [(name, pairs) for name, pairs in sets if len(pairs)]
    if not sets:
        raise UserError("--train_data: every pair of it is in --test_data; name other files")
    for use, named in (("train", sets), ("test", tests.items())):
        for name, pairs in named:
            print_once(f"{name}: {len(pairs):,} pairs to {use} on")

    # The encoder stays as it is; every linear layer of it gets an adapter, the head is new
    folder = resolve_model(args.model)
    tokenizer = load_tokenizer(folder)
    model, new = load_classifier_to_adapt(folder, list(CLASSES), tokenizer=tokenizer)
    model.config.problem_type = "single_label_classification"
    limit_length(tokenizer, model, args.max_length)
    settings = LoraConfig(
        r=args.rank,
        lora_alpha=2 * args.rank,
        target_modules="all-linear",
        modules_to_save=new,
        exclude_modules=new,
    )
    config, model = model.config, get_peft_model(model, settings)
    train = concatenate_datasets([tokenize_pairs(tokenizer, pairs) for _, pairs in sets])

    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=train,
        data_collator=PaddingCollator(tokenizer),
        processing_class=tokenizer,
        compute_loss_func=EntailmentLoss(),
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    if args.health_check:
        check_health(trainer, args.max_length)
        return
    print_once(f"\nTraining {model.get_nb_trainable_parameters()[0]:,} parameters")
    trained = trainer.train(resume_from_checkpoint=checkpoint)

    # How often it is right; and without the premise, which no honest model can be
    metrics, lines = {**trained.metrics, "train_pairs": len(train), "seed": args.seed}, []
    for name, pairs in tests.items():
        found = trainer.predict(tokenize_pairs(tokenizer, pairs)).predictions
        blank = pairs.remove_columns("premise").add_column("premise", [""] * len(pairs))
        blind = trainer.predict(tokenize_pairs(tokenizer, blank)).predictions
        figures = accuracies(found, np.array(pairs["label"]))
        figures["hypothesis_only"] = accuracies(blind, np.array(pairs["label"]))["accuracy"]
        path = "_".join(Path(name).parts[-2:])
        stem = re.sub(r"\.(jsonl|ndjson|json|csv|tsv|parquet)(\.gz)?$", "", path, flags=re.I)
        while any(f"{stem}_{key}" in metrics for key in figures):  # a file of the same name
            stem += "_2"
        metrics |= {f"{stem}_{key}": value for key, value in figures.items()}
        lines.append(
            f"{name}, {len(pairs):,} pairs: accuracy {figures['accuracy']:.3f}, entailed or not "
            f"{figures['two_way_accuracy']:.3f}; by the second sentence alone "
            f"{figures['hypothesis_only']:.3f}"
        )

    # Save: adapter, config with the classes, tokenizer, card
    trainer.save_model()
    if args.process_index != 0:
        return
    config.save_pretrained(output_dir)
    if args.model == DEFAULT_MODEL:  # a name that means the same on other machines
        adapter = output_dir / "adapter_config.json"
        settings = json.loads(adapter.read_text(encoding="utf-8"))
        write_json(adapter, settings | {"base_model_name_or_path": DEFAULT_MODEL_ON_HUB})
    write_json(output_dir / "metrics.json", metrics)
    report = "\n".join(lines) or "no --test_data was given"
    sources = "\n".join(f"{Path(name).name}: {len(pairs):,} pairs" for name, pairs in sets)
    write_card(output_dir, base_model=args.model, sources=sources, report=report)
    remove_checkpoints(args.output_dir)
    print(f"\n{report}\n\nEverything is in {output_dir}; to classify texts with it:")
    print(f"  accelerate launch recipes/zero_shot.py --model {output_dir} --data FILE")


def as_tuples(pairs) -> Iterable[tuple[str, str]]:
    """Return (premise, hypothesis) of each pair."""
    return zip(pairs["premise"], pairs["hypothesis"], strict=True)


def accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy over pairs with one of three labels, and that of entailed or not over all."""
    found, full = logits.argmax(axis=1), labels < len(CLASSES)
    two_way = float(((found == 0) == (labels == 0)).mean())
    if not full.any():
        return {"accuracy": two_way, "two_way_accuracy": two_way}
    return {"accuracy": float((found == labels)[full].mean()), "two_way_accuracy": two_way}


def write_card(output_dir: Path, *, base_model: str, sources: str, report: str) -> None:
    """Write the card of the adapter."""
    write_model_card(
        output_dir,
        title="Entailment adapter",
        base_model=base_model,
        library="peft",
        description="Tells whether a text entails a sentence: entailment, neutral, contradiction. "
        "Made for zero-shot classification.",
        data=sources,
        label_names=list(CLASSES),
        metrics={},
        report=report,
        usage="""```bash
accelerate launch recipes/zero_shot.py --model THIS_FOLDER --data texts.jsonl --candidate_labels a b
```""",
        limits="A small encoder: large entailment models are right on nine MultiNLI pairs of ten, "
        "and sort texts better. Texts longer than the pairs it saw are scored less well.",
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
