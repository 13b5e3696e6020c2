"""Measure what initialisation, normalisation, optimisers, schedules and dropout do on your data.

Why: each of these techniques has a paper that says what it brings. Here one small network is
trained with each of their settings, everything else equal, with several seeds, and the report says
where the measurement agrees with the source. It takes minutes, so that a habit can be checked
before a large training relies on it.

    accelerate launch recipes/techniques.py
    accelerate launch recipes/techniques.py --config recipes/configs/techniques_ag_news.yaml
    accelerate launch recipes/techniques.py --data my_texts.jsonl --techniques dropout schedule

The network is a deep averaging network (Iyyer et al. 2015): the sum of word vectors passes hidden
layers. The techniques, whose settings and sources are in shared/training/techniques.py:

- initialisation: zeros, too small, too large, Xavier, Kaiming, LSUV, with histograms of activations
  and gradients by layer;
- normalisation: none, batch, layer, at two rates;
- activation: sigmoid, tanh, ReLU, leaky ReLU, GELU, SiLU;
- optimizer: SGD, momentum, Nesterov, Adagrad, RMSprop, AdamW, each at the best of three rates;
- schedule: constant, linear, cosine, restarts, inverse root, plateau, three kinds of warm-up;
- dropout, weight_decay (in AdamW and as L2), clipping (with momentum at a high rate), batch_size.

Data: as described in README.md. All runs have the same split; the seed decides about first weights
and the order of the rows. Figures are those of the validation set after the last step. Only the
best setting and the defaults are trained again and tested, at the end. A finished run is kept in
runs/, so that the same command goes on after an interruption.

The run writes README.md (tables, verdicts), report.html (the same with charts), results.csv,
claims.csv and plots/.

Expect 162 runs of five seconds of processor time each, with all techniques and three seeds. On AG
News (techniques_ag_news.yaml) 10 of 23 claims agree with their source, 4 contradict it, and 9 show
no clear difference; on the test file the defaults have accuracy .798, the best setting .844.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    kept_record,
    parse_arguments,
    progress,
    result_flags,
    start_recipe,
)
from shared.data import SplitArguments, load_and_split
from shared.evaluation import (
    f1_scores,
    find_thresholds,
    multilabel_metrics,
    sigmoid,
    softmax,
    tuned_rule,
)
from shared.models import (
    INITIALIZATIONS,
    MLPArguments,
    build_mlp,
    initialize_layers,
    tokenize,
    train_tokenizer,
)
from shared.reports import SettingResult, run_record, write_techniques
from shared.training import (
    BASES,
    TECHNIQUES,
    ActivationMonitor,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    NotFiniteError,
    best_rate,
    check_health,
    classification_loss,
    departures,
    layer_signals,
    run_arguments,
)

SIGNAL_ROWS = 256  # training rows whose activations and gradients are drawn


@dataclass
class TechniquesArguments(MLPArguments, SplitArguments, EpochTrainingArguments):
    """The flags of this recipe: the defaults from which each setting departs."""

    techniques: list[str] = flag(
        list(TECHNIQUES), f"Any of {', '.join(TECHNIQUES)} (default: all)."
    )
    num_seeds: int = flag(3, "Runs of each setting, with other seeds (default: 3).", least=1)
    vocab_size: int = flag(
        10_000, "Maximum size of the vocabulary of words (default: 10,000).", least=1, most=10**7
    )
    max_length: int = flag(
        128, "Tokens per text; longer texts are truncated (default: 128).", least=3
    )
    initialization: str = flag(
        "kaiming",
        f"First weights of the hidden layers: {', '.join(INITIALIZATIONS)} (default: kaiming).",
    )
    l2: bool = flag(
        False, "Weight decay as a part of the gradient (Adam), not apart (default: false)."
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/techniques", "Output folder (default: outputs/techniques).")
    max_steps: int = flag(
        200, "Steps of each run, fewer with larger batches; -1: --num_train_epochs (default: 200)."
    )
    learning_rate: float = flag(1e-3, "Peak learning rate (default: 1e-3).")
    lr_scheduler_type: str = flag("linear", "Course of the learning rate (default: linear).")
    warmup_steps: float = flag(0, "Warm-up steps; below 1: share of all steps (default: 0).")
    weight_decay: float = flag(0.0, "Weight decay (default: 0).")
    per_device_train_batch_size: int = flag(64, "Texts per step (default: 64).")
    per_device_eval_batch_size: int = flag(512, "Texts per evaluation batch (default: 512).")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "random", "Order of the training rows (default: random)."
    )
    eval_strategy: str = flag("steps", "When to evaluate: steps, epoch (default: steps).")
    eval_steps: float | None = flag(
        0.05, "Steps between evaluations; below 1: share of all steps (default: .05)."
    )
    logging_strategy: str = flag("steps", "Must stay steps: each step has a figure.")
    logging_steps: float = flag(1, "Must stay 1: each step has a figure.")
    save_strategy: str = flag("no", "Must stay no: a run takes seconds, and is kept as a whole.")
    load_best_model_at_end: bool = flag(False, "Must stay false: figures are those of the end.")
    metric_for_best_model: str | None = flag(
        "loss", "Validation metric that the schedule plateau watches (default: loss)."
    )

    def __post_init__(self):
        self.techniques = list(dict.fromkeys(self.techniques))
        for name in self.techniques:
            if name not in TECHNIQUES:
                raise UserError(f"--techniques {name}: there are {', '.join(TECHNIQUES)}")
        if not self.techniques:
            raise UserError(f"--techniques: name one or more of {', '.join(TECHNIQUES)}")
        if self.initialization not in INITIALIZATIONS:
            raise UserError(
                f"--initialization {self.initialization}: there are {', '.join(INITIALIZATIONS)}"
            )
        if self.valid_size == 0 and self.valid_data is None:
            raise UserError("--valid_size 0: settings are compared on validation rows; raise it")
        fixed = {"logging_strategy": "steps", "logging_steps": 1, "save_strategy": "no"}
        for name, value in (fixed | {"load_best_model_at_end": False}).items():
            if getattr(self, name) != value:
                raise UserError(f"--{name}: must stay {value} in this recipe; remove the flag")
        if self.eval_strategy == "no":
            raise UserError("--eval_strategy no: curves need evaluations; use steps or epoch")
        if self.bf16 is None:
            self.bf16 = False  # the network is too small to gain
        super().__post_init__()


def main() -> None:
    """Load, split, tokenise; train each setting with each seed; compare, test the best, report."""
    args = parse_arguments(TechniquesArguments, description=__doc__)
    if args.world_size > 1:
        raise UserError("a network this small gains nothing from several processes; launch one")
    output_dir = start_recipe(args)
    (output_dir / "runs").mkdir(exist_ok=True)

    # Load and split; y maps each part to its multi-hot labels, (rows, labels).
    corpus, split = load_and_split(args, seed=args.seed)
    label_names, single_label = corpus.label_names, corpus.single_label
    rows, y = split.rows, split.labels
    if not len(y["valid"]):
        raise UserError("settings are compared on validation rows, and there are none")
    tokenizer = train_tokenizer(
        rows["train"]["text"], "words", args.vocab_size, max_length=args.max_length
    )
    tokens = {part: tokenize(dataset, tokenizer) for part, dataset in rows.items()}
    collator = MultilabelCollator(tokenizer, len(label_names))
    # The rows whose activations are drawn; LSUV scales the layers on them.
    n_signal = min(SIGNAL_ROWS, len(y["train"]))
    first_batch = collator([tokens["train"][row] for row in range(n_signal)])
    to_scores = softmax if single_label else sigmoid
    loss = classification_loss(y["train"], label_names, single_label=single_label, balanced=False)
    score = "accuracy" if single_label else "micro_f1"
    # Each evaluation tunes a threshold first, so that settings are compared at their best one.
    tune = partial(find_thresholds, setting="global", tolerance=2)
    metrics = multilabel_metrics(label_names, thresholds=tune, single_label=single_label)
    uninformed = math.log(len(label_names)) if single_label else math.log(2)

    def build_trainer(run_args: TechniquesArguments) -> LengthGroupedTrainer:
        """Return the Trainer of one run: a network with first weights, optimiser and schedule."""
        set_seed(run_args.seed)
        model = build_mlp(
            run_args,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            num_labels=len(label_names),
        )
        linear = [layer.linear for layer in model.layers]
        inputs = {name: value for name, value in first_batch.items() if name != "labels"}
        initialize_layers(linear, run_args.initialization, lambda: model.eval()(**inputs))
        # Adam of torch adds the weight decay of its groups to the gradient.
        optimizer = (torch.optim.Adam, {"lr": run_args.learning_rate}) if run_args.l2 else None
        return LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=tokens["train"],
            eval_dataset=tokens["valid"],
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            compute_metrics=metrics,
            optimizer_cls_and_kwargs=optimizer,
        )

    if args.health_check:
        trainer = build_trainer(run_arguments(args, {}, args.seed))
        check_health(trainer, args.max_length, label_counts=split.label_counts())
        return

    def train(changes: dict[str, Any], seed: int, *, tests: bool) -> dict[str, Any]:
        """Train a setting with a seed; return figures, curves and, if `tests`, the test score."""
        trainer = build_trainer(run_arguments(args, changes, seed))
        layers = {f"layer {i}": layer.activation for i, layer in enumerate(trainer.model.layers, 1)}
        signals = layer_signals(
            layers, lambda: trainer.compute_loss(trainer.model, dict(first_batch))
        )
        trainer.model.zero_grad()
        problem, dead, test_score = None, None, None
        try:
            trainer.train()
            with ActivationMonitor(trainer.model) as monitor:
                valid_scores = to_scores(trainer.predict(tokens["valid"]).predictions)
            dead = monitor.dead_share
            if tests:
                rule = tuned_rule(valid_scores, y["valid"], single_label=single_label)
                trainer.compute_metrics = None  # it would tune thresholds on the test set
                predicted = rule.choose(to_scores(trainer.predict(tokens["test"]).predictions))
                test_score = f1_scores(y["test"], predicted)["micro_f1"]
        except NotFiniteError as error:
            problem = error.problem
        record = run_record(
            trainer.state.log_history,
            signals,
            score=f"eval_{score}",
            problem=problem,
            dead=dead,
            uninformed=uninformed,
        )
        return record | {"test_score": test_score, "changes": changes, "seed": seed}

    # A run is identified by everything that decides about its result, also defaults of this recipe.
    ignored = ("techniques", "num_seeds", "output_dir", "health_check")
    own = {*MLPArguments.__annotations__, *TechniquesArguments.__annotations__}
    own -= {*ignored, "per_device_eval_batch_size"}
    common = [*result_flags(args, TechniquesArguments, *ignored), *split.fingerprints]
    common += [f"{name}={getattr(args, name)}" for name in sorted(own)]

    def run(changes: dict[str, Any], seed: int, *, tests: bool = False) -> dict[str, Any]:
        """Return the record of a run, of an earlier call if there is one."""
        changes = departures(args, changes)
        identity = [common, changes, seed, tests]
        return kept_record(output_dir / "runs", identity, lambda: train(changes, seed, tests=tests))

    # Train each setting of each technique, with each seed.
    seeds = [args.seed + number for number in range(args.num_seeds)]
    default = SettingResult("defaults", "defaults", [run({}, seed) for seed in seeds])
    results: dict[str, list[SettingResult]] = {}
    for technique in args.techniques:
        results[technique] = []
        settings = TECHNIQUES[technique].items()
        for name, setting in progress(settings, technique, unit="settings"):
            changes, note = {**BASES.get(technique, {}), **setting}, ""
            factors = changes.get("rate_factor")
            if isinstance(factors, tuple):  # the rate with the lowest validation loss
                losses = {
                    factor: run(changes | {"rate_factor": factor}, seeds[0]).get("valid_loss")
                    for factor in factors
                }
                changes["rate_factor"], note = best_rate(losses, args.learning_rate)
            records = [run(changes, seed) for seed in seeds]
            results[technique].append(SettingResult(technique, name, records, note))

    # Test the defaults and the setting with the best validation score.
    best = max(
        (setting for settings in results.values() for setting in settings),
        key=lambda setting: setting.values("score").mean(),
    )
    test = {}
    for name, setting in (("defaults", default), (f"{best.technique}: {best.name}", best)):
        changes = setting.records[0]["changes"]
        test[name] = [
            run(changes, seed, tests=True)["test_score"]
            for seed in progress(seeds, "testing", unit="seeds")
        ]

    report = write_techniques(
        output_dir,
        default,
        results,
        test,
        score=score.replace("_", " ").replace("f1", "F1"),
        data=f"{corpus.describe()}\n{split.describe()}",
        seeds=seeds,
        cache_dir=args.cache_dir,
    )
    print(f"\n{report}\nEverything is in {output_dir}:")
    print("report.html (open it in a browser), README.md, results.csv, claims.csv and plots/.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
