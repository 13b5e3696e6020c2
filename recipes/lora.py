"""Tune a few per cent of the weights, or all of them: which of seven ways pays on your data?

Why: one encoder serves many tasks if each brings a file of a few megabytes (an adapter) instead of
a copy of all weights, and training needs no memory for what is frozen. What that costs in quality
is measured here, on your data, beside full tuning: LoRA (Hu et al. 2022), DoRA and IA3 (Liu et al.
2024 and 2022), prompt tuning (Lester et al. 2021), the upper layers alone, the head alone.

    accelerate launch recipes/lora.py --config recipes/configs/lora_sample.yaml
    accelerate launch recipes/lora.py --data my_issues.jsonl --methods lora full

Then: the folder of each method holds what it learned, an adapter's with what it sits on in base/.
LoRA, DoRA and IA3 are merged, too, into a model that loads without peft: recipes/tag.py --model
outputs/lora/lora/merged. A second run keeps what the first has finished.

Data: as for recipes/github_tagger.py. Every method starts from the same fitted head and has the
same rows and epochs; few weights move further, by a factor of --learning_rate.

Expect on one core, default encoder, the sample: a minute or two for each method. Adapters save
disk and some memory, no time: gradients pass through frozen layers all the same.
"""

import copy
import json
from dataclasses import dataclass

from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    folder_fingerprint,
    make_output_dir,
    parse_arguments,
    print_once,
    result_flags,
    start_recipe,
    write_csv,
    write_json,
)
from shared.data import SplitArguments, load_and_split
from shared.evaluation import choose_labels, f1_scores, sigmoid, tune_thresholds
from shared.models import (
    DEFAULT_MODEL,
    PADDING_MULTIPLE,
    PooledForSequenceClassification,
    fit_head,
    limit_length,
    load_encoder,
    load_tokenizer,
    longest_input,
    resolve_model,
    tokenize,
)
from shared.reports import write_model_card
from shared.training import (
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    MultilabelLoss,
    ReadableProgress,
    activation_bytes,
    adapt,
    balanced_pos_weight,
    check_health,
    check_same_run,
    save_merged,
    training_footprint,
)

# What a way of tuning is called in the table, and its rate in multiples of --learning_rate.
METHODS = {
    "full": ("all weights", 1),
    "partial": ("upper layers and head", 1),
    "head": ("head alone", 10),
    "lora": ("LoRA", 10),
    "dora": ("DoRA", 10),
    "ia3": ("IA3", 50),
    "prompt": ("prompt tuning", 100),
}
MERGED = ("lora", "dora", "ia3")
USAGE = """```python
import shared.models.heads  # or of a copy of it: transformers knows the model then
from transformers import pipeline

tagger = pipeline("text-classification", model="{folder}", top_k=None)
```"""


@dataclass
class LoraArguments(SplitArguments, EpochTrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    methods: list[str] = flag([*METHODS], f"Any of {', '.join(METHODS)} (default: all).")
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens of a text that the model reads (default: 256).")
    rank: int = flag(16, "Of the matrices of LoRA and DoRA (default: 16).")
    prompt_tokens: int = flag(16, "Virtual tokens of prompt tuning (default: 16).")
    frozen_layers: int | None = flag(None, "Of partial, from the bottom (default: half of them).")
    health_check: bool = flag(False, "Check data, model and rate, then stop (default: no).")
    output_dir: str = flag("outputs/lora", "Folder (default: outputs/lora).")
    learning_rate: float = flag(1e-4, "Peak rate of full tuning (default: 1e-4).")
    save_strategy: str = flag("no", "Checkpoints; what is learned is saved anyway (default: no).")
    eval_strategy: str = flag("no", "Must stay: all ways are compared at their last epoch.")
    load_best_model_at_end: bool = flag(False, "Must stay: as above.")
    label_names: list[str] | None = flag(["labels"], "Must stay: an adapter hides the inputs.")

    def __post_init__(self):
        self.methods = list(dict.fromkeys(self.methods))
        if wrong := [name for name in self.methods if name not in METHODS]:
            raise UserError(f"--methods {wrong[0]}: there are {', '.join(METHODS)}")
        for name in ("rank", "prompt_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be 1 or more")
        if self.eval_strategy != "no" or self.load_best_model_at_end:
            raise UserError("--eval_strategy: all ways of tuning are compared at their last epoch")
        if self.resume_from_checkpoint:
            raise UserError("--resume_from_checkpoint: drop it; what is finished is kept anyway")
        super().__post_init__()


def main() -> None:
    """Load, split, tokenise; then for each method adapt, train, measure, save."""
    args = parse_arguments(LoraArguments, description=__doc__)
    output_dir = start_recipe(args)
    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    y = split.labels

    # One encoder, one head, and one loss for all
    folder = resolve_model(args.model)
    tokenizer = load_tokenizer(folder)
    encoder = load_encoder(folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    padded = -(-args.max_length // PADDING_MULTIPLE) * PADDING_MULTIPLE
    room = (longest_input(encoder) or padded + args.prompt_tokens) - padded
    if "prompt" in args.methods and args.prompt_tokens > room:
        raise UserError(
            f"--prompt_tokens {args.prompt_tokens}: --max_length leaves room for {room}"
        )
    set_seed(args.seed)
    start = PooledForSequenceClassification.from_encoder(encoder, label_names)
    pos_weight = balanced_pos_weight(y["train"].sum(axis=0), len(y["train"]))
    loss = MultilabelLoss(pos_weight, label_smoothing=args.label_smoothing_factor)
    collator = MultilabelCollator(tokenizer, len(label_names))
    settings = {name: getattr(args, name) for name in ("rank", "prompt_tokens", "frozen_layers")}
    for method in args.methods:  # what cannot be adapted is refused before anything is trained
        adapt(copy.deepcopy(start), method, **settings)

    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(found, tokenizer) for part, found in split.rows.items()}
    if not args.health_check:
        flags = result_flags(args, LoraArguments, "methods")
        run = {"flags": flags, "model": folder_fingerprint(folder)}
        run["data"] = split.fingerprints
        check_same_run(output_dir, run)
        how = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
        fit_head(start, tokens["train"], collator, loss, **how)
        start.name_or_path = str(output_dir / "base")  # what an adapter names as its base
        if args.process_index == 0:
            start.save_pretrained(start.name_or_path)

    # What a run before this one has finished is kept
    files = {method: output_dir / method / "metrics.json" for method in METHODS}
    rows = {method: json.loads(p.read_text("utf-8")) for method, p in files.items() if p.is_file()}
    for method in args.methods:
        if method in rows and not args.health_check:
            continue
        # The same weights, rows and randomness each time; only what trains differs
        set_seed(args.seed)
        own = copy.copy(args)
        home = make_output_dir(str(output_dir / method))
        own.output_dir, (name, factor) = str(home), METHODS[method]
        own.learning_rate = args.learning_rate * factor
        trainer = LengthGroupedTrainer(
            model=adapt(copy.deepcopy(start), method, **settings),
            args=own,
            train_dataset=tokens["train"],
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            callbacks=[ReadableProgress()],
        )
        if args.health_check:
            check_health(trainer, args.max_length, label_counts=split.label_counts())
            return  # of the first method: the others would say little else
        print_once(f"\nTraining: {name}")
        trained = trainer.train()
        scores = {p: sigmoid(trainer.predict(tokens[p]).predictions) for p in ("valid", "test")}
        thresholds = tune_thresholds(scores["valid"], y["valid"], tolerance=2)
        found = {p: choose_labels(scores[p], thresholds, single_label=single_label) for p in scores}
        trainer.model.config.thresholds = thresholds.tolist()
        trainer.model.config.one_label_each = single_label
        trainer.save_model()
        if args.process_index == 0:  # the labels, which an adapter leaves to its base
            trainer.model.config.save_pretrained(own.output_dir)
        n_trained, held = training_footprint(trainer)
        saved = sum(file.stat().st_size for file in home.glob("*.safetensors"))
        row = {"method": name, **f1_scores(y["test"], found["test"])}
        row |= {"valid_micro_f1": f1_scores(y["valid"], found["valid"])["micro_f1"]}
        row |= {"trained_parameters": n_trained, "saved_mb": saved / 1e6}
        row |= {"state_mb": held / 1e6, "activations_mb": activation_bytes(trainer) / 1e6}
        row |= {"train_seconds": trained.metrics["train_runtime"], "seed": args.seed}
        row["merged_difference"] = None
        if method in MERGED:
            row["merged_difference"] = save_merged(trainer, home / "merged", tokens["test"])
        rows[method] = row
        if args.process_index == 0:
            write_json(files[method], row)
            done = [rows[method] for method in METHODS if method in rows]
            write_csv(output_dir / "results.csv", done)  # after each, so that nothing is lost

    # One table
    if args.process_index != 0 or not rows:
        return
    report = table(rows)
    merged = [str(path) for path in sorted(output_dir.glob("*/merged"))]
    write_model_card(
        output_dir,
        title="Ways of tuning",
        base_model=args.model,
        description="Each folder holds what one way of tuning the encoder has learned.",
        data=corpus.describe(),
        label_names=label_names,
        metrics={},
        report=report,
        usage=USAGE.format(folder=merged[0]) if merged else None,
        limits="One seed and one rate for each way; differences of a hundredth or two are chance.",
    )
    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    print(f"\nEverything is in {output_dir}: a folder of each, README.md and results.csv.")


def table(rows: dict[str, dict]) -> str:
    """Return a Markdown table; memory is weights, gradients, optimiser and activations."""
    head = ("method", "micro F1", "macro F1", "weights trained", "memory, MB", "saved, MB")
    lines = ["| " + " | ".join((*head, "seconds")) + " |", "|---" * (len(head) + 1) + "|"]
    for row in (rows[method] for method in METHODS if method in rows):
        f1 = " | ".join(f"{row[name]:.3f}" for name in ("micro_f1", "macro_f1"))
        lines.append(
            f"| {row['method']} | {f1} | {row['trained_parameters']:,} | "
            f"{row['state_mb'] + row['activations_mb']:,.0f} | "
            f"{row['saved_mb']:,.1f} | {row['train_seconds']:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
