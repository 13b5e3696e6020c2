"""Predict several columns of a table with one encoder: labels, several labels, and numbers.

Why: one model in place of one for each column costs one pass over each text, and tasks that are
alike help each other, most of all one with few labels beside one with many (Caruana 1997). They can
also harm each other. So the run trains a model for each task as well, and logistic or ridge
regression on words; all stand in one table.

    accelerate launch recipes/multi_task.py --config recipes/configs/multi_task_sample.yaml
    accelerate launch recipes/multi_task.py --data my_issues.csv --tasks type priority hours \\
        --number_columns comments --category_columns author
    accelerate launch recipes/multi_task.py --model outputs/multi_task --predict new.csv \\
        --output_dir outputs/predicted

Data: a column for each task (--tasks). Its type shows in its cells: one label, several, or numbers
(--task_types decides). A row may lack some: it does not count in the loss of these tasks. Columns
beside the text are read, too: numbers scaled on the training rows, categories as vectors. The split
spreads the labels of all tasks together, and keeps near duplicates on one side.

The losses of tasks differ in size. So each is divided by that of the best constant prediction, then
multiplied by --task_weights; or the model learns the weights (--task_weighting uncertainty; Kendall
et al. 2018). --sweep .1 .5 .9 trains two tasks with these weights of the first one, and draws the
trade-off.

The figure of a task is macro F1 (one label), micro F1 at a threshold tuned on validation rows
(several) or R2 (numbers). The epoch with the best mean of them on validation rows is kept. With
--num_seeds, splits and trainings are repeated; the saved model is that of the first seed. Without
further columns, there is also a tagger for each classification, below taggers/. To continue a
stopped run, repeat the command with --resume_from_checkpoint true.

Expect on NLBSE'24, with 64 tokens of a text and two epochs, macro F1 .766 of the class and .957 of
the repository by one model, .777 and .963 by two, in six minutes of processor time. State and
comments of the sample do not depend on its texts (recipes/FIGURES.md).
"""

import json
import re
from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    folder_fingerprint,
    parse_arguments,
    print_once,
    result_flags,
    start_recipe,
    write_json,
)
from shared.data import TaskArguments, load_tasks, open_data
from shared.evaluation import Fold, held_out_scores, multi_task_metrics
from shared.methods import words_of_tasks
from shared.models import (
    EncoderArguments,
    TaskModelArguments,
    build_multi_task_model,
    check_n_layers,
    check_unknown_tokens,
    choose_text_prefix,
    fit_head,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.reports import join_scores, push_to_hub, write_task_records, write_task_results
from shared.taggers import load_multi_task, save_multi_task
from shared.training import (
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultiTaskCollator,
    ReadableProgress,
    TaskWeightArguments,
    check_health,
    check_resume_switch,
    check_task_weights,
    find_checkpoint,
    multi_task_loss,
    remove_checkpoints,
    task_dataset,
)


@dataclass
class MultiTaskArguments(
    EncoderArguments,
    TaskModelArguments,
    TaskArguments,
    TaskWeightArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    compare_single: bool = flag(True, "Also train a model for each task (default: true).")
    num_seeds: int = flag(1, "Number of splits and trainings (default: 1).", least=1, most=1000)
    predict: str | None = flag(
        None, "Predict all tasks for the rows of this file with a trained --model; train nothing."
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/multi_task", "Output folder (default: outputs/multi_task).")
    num_train_epochs: float = flag(6, "Maximum number of epochs (default: 6).")
    metric_for_best_model: str | None = flag(
        "mean_score", "Validation metric that selects the best checkpoint (default: mean_score)."
    )

    def __post_init__(self):
        check_resume_switch(self, "each training finds its own")
        check_task_weights(self)
        super().__post_init__()


def main() -> None:
    """Load and split, train all tasks together and each alone, compare on test rows, save."""
    args = parse_arguments(MultiTaskArguments, description=__doc__)
    output_dir = start_recipe(args)
    if args.predict:
        predict(args, output_dir)
        return

    # Load and split, once for each seed.
    seeds = [args.seed + number for number in range(args.num_seeds)]
    with args.main_process_first(desc="loading rows"):
        data = {seed: load_tasks(args, seed=seed) for seed in seeds}
    first = data[seeds[0]]
    print_once(f"\nData\n{first.describe()}")

    # Load the encoder and its tokenizer.
    model_folder = resolve_model(args.model)
    prefix = choose_text_prefix(args.model, args.text_prefix)
    tokenizer = load_tokenizer(model_folder, prefix, args.truncation_side)
    encoder = load_encoder(model_folder, tokenizer=tokenizer, dropout=args.dropout)
    limit_length(tokenizer, encoder, args.max_length)
    check_n_layers(args.n_layers, encoder)
    check_unknown_tokens(tokenizer, first.parts["train"].texts)
    collator = MultiTaskCollator(tokenizer)

    def build_trainer(data, weights, run_args, checkpoint):
        """Return a Trainer for the tasks of `data`, and its tokenised parts."""
        set_seed(run_args.seed)
        rows = {part: task_dataset(part_rows, tokenizer) for part, part_rows in data.parts.items()}
        loss = multi_task_loss(args, data, weights)
        model = build_multi_task_model(args, deepcopy(encoder), data)
        # Fit the output layer to the features of the encoder, so that training does not start at
        # random. Numbers are fitted closely, so that the penalty is above that of labels alone.
        if checkpoint is None and not args.health_check:
            options = {"device": args.device, "bf16": args.bf16, "seed": run_args.seed, "l2": 0.3}
            fit_head(model, rows["train"], collator, loss, **options)
        trainer = LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=rows["train"],
            eval_dataset=rows["valid"],
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            compute_metrics=multi_task_metrics(data.tasks),
            callbacks=[CheckpointOnSignal(), ReadableProgress()],
        )
        return trainer, rows

    if args.health_check:
        trainer, _ = build_trainer(first, args.task_weights or None, args, None)
        check_health(trainer, args.max_length, label_counts=first.label_counts() or None)
        return

    # The trainings: all tasks together, with other weights, and each task alone. One that an
    # earlier run has finished, with the same flags, data and model, is not repeated.
    weights = {"joint": args.task_weights or None}
    weights |= {f"weight {weight:g}": (weight, 1 - weight) for weight in args.sweep}
    alone = {f"alone: {name}": name for name in args.tasks if args.compare_single}
    names = [*weights, *(alone if len(args.tasks) > 1 else {})]
    flags = result_flags(args, MultiTaskArguments, "sweep", "compare_single", "num_seeds", "seed")
    versions = [*first.versions, folder_fingerprint(model_folder)]
    runs = {}
    for seed, name in product(seeds, names):
        folder = output_dir / "runs" / f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)}_{seed}"
        runs[name, seed] = Fold(seed, folder, {"flags": flags, "data": versions})
    unfinished = {key: run for key, run in runs.items() if not run.finished}
    for (name, seed), run in unfinished.items():
        print_once(f"\nTraining {name}" + (f", seed {seed}" if len(seeds) > 1 else ""))
        own = data[seed].only(alone.get(name))
        run_args = copy(args)
        run_args.seed, run_args.output_dir = seed, str(run.folder)
        checkpoint = find_checkpoint(run_args.output_dir, args.resume_from_checkpoint)
        trainer, rows = build_trainer(own, weights.get(name), run_args, checkpoint)
        training = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.compute_metrics = None  # it would tune thresholds on the test set
        logits = {part: trainer.predict(rows[part]).predictions for part in ("valid", "test")}
        if (name, seed) == ("joint", seeds[0]):
            save_multi_task(trainer, output_dir, first, logits)
        if args.process_index == 0:
            log = {"history": trainer.state.log_history, "training": training.metrics}
            write_json(run.folder / "history.json", log)
            run.save(**logits)
            remove_checkpoints(str(run.folder))
    if args.process_index != 0:
        return

    # Measure on the test rows, each model with the thresholds of its validation rows.
    results = {name: [] for name in names}
    for (name, seed), run in runs.items():
        own = data[seed].only(alone.get(name))
        results[name].append(held_out_scores(own, run.scores()))
    if singles := [results.pop(name) for name in alone if name in names]:
        results["alone"] = [join_scores(scores) for scores in zip(*singles, strict=True)]
    results["words"] = [held_out_scores(own, words_of_tasks(own)) for own in data.values()]

    # Write figures, pictures, the predictions of the saved model, and the card.
    joint = runs["joint", seeds[0]]
    report = write_task_results(
        output_dir,
        first,
        results,
        seeds=seeds,
        sweep={weight: results[f"weight {weight:g}"] for weight in args.sweep},
        logits=joint.scores(),
        log=json.loads((joint.folder / "history.json").read_text("utf-8")),
        base_model=args.model,
        settings={"task_weighting": args.task_weighting, "task_weights": args.task_weights},
    )
    push_to_hub(output_dir, args)
    print(f"\n{report}\n\nEverything is in {output_dir}.")


def predict(args: MultiTaskArguments, output_dir: Path) -> None:
    """Predict all tasks for the rows of a file; write ``predictions.jsonl``."""
    model = load_multi_task(args.model, args, bf16=bool(args.bf16))
    args.data = args.predict
    table = model.read(open_data(args))
    for note in table.notes:
        print_once(f"note: {note}")
    if not table.texts:
        columns = ", ".join(table.text_columns)
        raise UserError(f"--predict {args.predict}: no row has a text in {columns}")
    records = model.predict(table)
    if args.process_index != 0:
        return
    write_task_records(output_dir / "predictions.jsonl", table, records)
    print(f"\n{len(records):,} rows are predicted in {output_dir / 'predictions.jsonl'}.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
