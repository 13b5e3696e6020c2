"""Compare seven methods of tuning an encoder: all weights, some layers, or a small adapter.

Why: one encoder serves many tasks if each adds only an adapter, a file of a few megabytes, and
frozen weights need no memory for gradients. The recipe measures on your data what this costs in F1
compared with full tuning: LoRA (Hu et al. 2022), DoRA and IA3 (Liu et al. 2024 and 2022), prompt
tuning (Lester et al. 2021), only the upper layers, only the head.

    accelerate launch recipes/lora.py --config recipes/configs/lora_sample.yaml
    accelerate launch recipes/lora.py --data my_issues.jsonl --methods lora full

Then: each method has a folder with its weights; adapters need the encoder in base/. LoRA, DoRA and
IA3 are also merged into a model that loads without peft: recipes/tag.py --model
outputs/lora/lora/merged. A second run keeps the methods that are finished.

Data: as described in README.md. All methods start from the same fitted head and train on the
same rows for the same epochs; methods with fewer weights multiply --learning_rate by a factor.

Expect on one core with the default encoder: a minute or two per method on the sample. Adapters save
disk space and, except DoRA, some memory, but no time: gradients still pass through the frozen
layers.
"""

import json
from copy import copy, deepcopy
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
from shared.data import SplitArguments, TaggingArguments, load_and_split
from shared.evaluation import DecisionRule, calibrate, f1_scores, sigmoid, tune_thresholds
from shared.models import (
    DEFAULT_MODEL,
    PADDING_MULTIPLE,
    TEXT_PREFIX_HELP,
    PooledForSequenceClassification,
    check_unknown_tokens,
    choose_text_prefix,
    fit_head,
    limit_length,
    load_encoder,
    load_tokenizer,
    longest_input,
    resolve_model,
    tokenize,
)
from shared.reports import tag_unlabelled, write_adapter_card, write_model_card
from shared.taggers import save_trained_model
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

# Method: its name in the table, and the factor by which it multiplies --learning_rate.
METHODS = {
    "full": ("all weights", 1),
    "partial": ("upper layers and head", 1),
    "head": ("head alone", 10),
    "lora": ("LoRA", 10),
    "dora": ("DoRA", 10),
    "ia3": ("IA3", 50),
    "prompt": ("prompt tuning", 100),
}
ADAPTERS = ("lora", "dora", "ia3", "prompt")

USAGE = """```python
from transformers import pipeline

# The Python file in the folder, which this runs, is the architecture of the model.
tagger = pipeline("text-classification", model="{folder}", top_k=None, trust_remote_code=True)
```"""


@dataclass
class LoraArguments(TaggingArguments, SplitArguments, EpochTrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    methods: list[str] = flag([], f"Any of {', '.join(METHODS)} (default: all that fit the model).")
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    max_length: int = flag(
        256, "Tokens per text; longer texts are truncated (default: 256).", least=1
    )
    rank: int = flag(
        16, "Rank of the matrices of LoRA and DoRA (default: 16).", least=1, most=65_536
    )
    prompt_tokens: int = flag(16, "Virtual tokens of prompt tuning (default: 16).", least=1)
    frozen_layers: int | None = flag(
        None, "Lowest layers that partial freezes (default: half).", least=0
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/lora", "Output folder (default: outputs/lora).")
    learning_rate: float = flag(1e-4, "Peak learning rate of full tuning (default: 1e-4).")
    save_strategy: str = flag("no", "When to save checkpoints: no, steps, epoch (default: no).")
    eval_strategy: str = flag("no", "Must stay no: methods are compared at their last epoch.")
    load_best_model_at_end: bool = flag(False, "Must stay false; see --eval_strategy.")
    label_names: list[str] | None = flag(["labels"], "Must stay: adapters hide this column.")

    def __post_init__(self):
        self.methods = list(dict.fromkeys(self.methods))
        if wrong := [name for name in self.methods if name not in METHODS]:
            raise UserError(f"--methods {wrong[0]}: there are {', '.join(METHODS)}")
        if self.eval_strategy != "no" or self.load_best_model_at_end:
            raise UserError("--eval_strategy: must be no; methods are compared at the last epoch")
        if self.resume_from_checkpoint:
            raise UserError("--resume_from_checkpoint: remove it; finished methods are kept anyway")
        if self.push_to_hub:
            raise UserError("--push_to_hub: there are several models; upload the folder of one")
        super().__post_init__()


def main() -> None:
    """Load, split, tokenise; then for each method adapt, train, evaluate, save."""
    args = parse_arguments(LoraArguments, description=__doc__)
    output_dir = start_recipe(args)
    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    y = split.labels

    # All methods share one encoder. Virtual tokens and padded text must fit into its input.
    folder = resolve_model(args.model)
    prefix = choose_text_prefix(args.model, args.text_prefix)
    tokenizer = load_tokenizer(folder, prefix)
    encoder = load_encoder(folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    check_unknown_tokens(tokenizer, corpus.dataset["text"])
    padded = -(-args.max_length // PADDING_MULTIPLE) * PADDING_MULTIPLE
    room = (longest_input(encoder) or padded + args.prompt_tokens) - padded
    if "prompt" in (args.methods or METHODS) and args.prompt_tokens > room:
        raise UserError(f"--prompt_tokens {args.prompt_tokens}: --max_length leaves only {room}")
    with args.main_process_first(desc="tokenising"):
        tokens = {part: tokenize(dataset, tokenizer) for part, dataset in split.rows.items()}

    # They also share the head and the loss. A method that does not fit the model is left out, or
    # refused if a flag names it.
    set_seed(args.seed)
    start = PooledForSequenceClassification.from_encoder(encoder, label_names)
    pos_weight = balanced_pos_weight(y["train"].sum(axis=0), len(y["train"]))
    loss = MultilabelLoss(pos_weight, label_smoothing=args.label_smoothing_factor)
    collator = MultilabelCollator(tokenizer, len(label_names))
    settings = {name: getattr(args, name) for name in ("rank", "prompt_tokens", "frozen_layers")}
    methods = []
    for method in args.methods or METHODS:
        try:
            adapt(deepcopy(start), method, **settings)
            methods.append(method)
        except UserError as error:
            # With --frozen_layers, it is the flag that does not fit.
            if args.methods or (method == "partial" and args.frozen_layers is not None):
                raise
            print_once(f"note: {METHODS[method][0]} is left out; {error}")
    if not args.health_check:
        run = {"flags": result_flags(args, LoraArguments, "methods")}
        run |= {"model": folder_fingerprint(folder), "data": split.fingerprints}
        check_same_run(output_dir, run)
        options = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
        fit_head(start, tokens["train"], collator, loss, **options)
        start.name_or_path = str(output_dir / "base")  # adapters name it as their base model
        if args.process_index == 0:
            start.save_pretrained(start.name_or_path)

    # Methods that an earlier run has finished are not trained again.
    files = {method: output_dir / method / "metrics.json" for method in METHODS}
    rows = {method: json.loads(p.read_text("utf-8")) for method, p in files.items() if p.is_file()}
    for method in methods:
        if method in rows and not args.health_check:
            continue
        # The same start, rows and seed for each method; only the trained weights differ.
        set_seed(args.seed)
        name, factor = METHODS[method]
        method_dir = make_output_dir(str(output_dir / method))
        method_args = copy(args)
        method_args.output_dir = str(method_dir)
        method_args.learning_rate = args.learning_rate * factor
        trainer = LengthGroupedTrainer(
            model=adapt(deepcopy(start), method, **settings),
            args=method_args,
            train_dataset=tokens["train"],
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            callbacks=[ReadableProgress()],
        )
        if args.health_check:
            check_health(trainer, args.max_length, label_counts=split.label_counts())
            return  # the checks of the other methods would be almost the same
        print_once(f"\nTraining: {name}")
        training = trainer.train()

        # Tune the threshold on validation, evaluate on the test set, save the weights.
        parts = ("valid", "test")
        scores = {part: sigmoid(trainer.predict(tokens[part]).predictions) for part in parts}
        thresholds = tune_thresholds(scores["valid"], y["valid"], tolerance=2)
        rule = DecisionRule.of(thresholds, len(label_names), single_label=single_label)
        settings_of_rule = {"thresholds": thresholds.tolist(), "one_label_each": single_label}
        trainer.model.config.update(settings_of_rule)
        predicted = {part: rule.choose(values) for part, values in scores.items()}
        calibration, _ = calibrate(scores, predicted, y, single_label=single_label)
        if args.process_index == 0:  # peft would keep a file that a kill has left in part
            (method_dir / "README.md").unlink(missing_ok=True)
        trainer.save_model()
        if args.process_index == 0:  # peft does not save the config, which holds the label names
            trainer.model.config.save_pretrained(method_args.output_dir)
            if method in ADAPTERS:  # the card of peft is an empty form
                write_adapter_card(method_dir, name, base=output_dir / "base")
            save_trained_model(method_dir, label_names, rule, calibration)

        # What the method costs: weights, memory, disk space, time. Written after each method.
        n_trained, state_bytes = training_footprint(trainer)
        saved_bytes = sum(file.stat().st_size for file in method_dir.glob("*.safetensors"))
        row = {"method": name, **f1_scores(*split.with_unknown_labels("test", predicted["test"]))}
        if len(y["valid"]):
            valid_f1 = f1_scores(*split.with_unknown_labels("valid", predicted["valid"]))
            row |= {"valid_micro_f1": valid_f1["micro_f1"]}
        row |= {"trained_parameters": n_trained, "saved_mb": saved_bytes / 1e6}
        row |= {"state_mb": state_bytes / 1e6, "activations_mb": activation_bytes(trainer) / 1e6}
        row |= {"train_seconds": training.metrics["train_runtime"], "seed": args.seed}
        row["merged_difference"] = None
        if method in ("lora", "dora", "ia3"):
            row["merged_difference"] = save_merged(trainer, method_dir / "merged", tokens["test"])
            if args.process_index == 0:
                save_trained_model(method_dir / "merged", label_names, rule, calibration)
        rows[method] = row
        if args.process_index == 0:
            write_json(files[method], row)

    if not rows:
        return
    # The best on validation tags the unlabelled texts; with --valid_size 0, the first method.
    best = max(rows, key=lambda method: rows[method].get("valid_micro_f1", 0.0))
    if args.process_index != 0:
        tag_unlabelled(output_dir / best, corpus, args)
        return
    write_csv(output_dir / "results.csv", [rows[m] for m in METHODS if m in rows])
    report = table(rows, "accuracy" if single_label else "micro F1")
    merged = [str(path) for path in sorted(output_dir.glob("*/merged"))]
    write_model_card(
        output_dir,
        title="Tuning methods",
        base_model=args.model,
        description="Each folder holds the weights of one method of tuning the encoder.",
        data=corpus.describe(),
        label_names=label_names,
        metrics={},
        report=report,
        usage=USAGE.format(folder=merged[0]) if merged else None,
        limits="One seed and one learning rate per method; a difference of .01 or .02 is chance.",
    )
    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    print(f"\nThe unlabelled texts are tagged by: {METHODS[best][0]}")
    tag_unlabelled(output_dir / best, corpus, args)
    print(f"\nEverything is in {output_dir}: a folder per method, README.md and results.csv.")


def table(rows: dict[str, dict], micro: str) -> str:
    """Return a Markdown table; memory is weights, gradients, optimiser state and activations."""
    header = ("method", micro, "macro F1", "weights trained", "memory, MB", "saved, MB")
    lines = ["| " + " | ".join((*header, "seconds")) + " |", "|---" * (len(header) + 1) + "|"]
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
